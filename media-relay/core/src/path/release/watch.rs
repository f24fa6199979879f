//! What ends a move, and how everybody comes home.

use std::time::Duration;

use super::{CLINGING, Constraint, IDLE, Output, Release, STRAGGLERS, State, TURNAROUND};
use crate::path::place::Stay;
use crate::path::timeline::{Entry, PathState, Reason};

/// How often phones are called back that are not at the relay, where they should be, and after how long without a packet.
const STRAYS: u8 = 5;
const STRAYED: Duration = Duration::from_secs(2);

impl Release {
    pub(super) fn relay_again(&mut self) {
        for to in 0..2 {
            if self.parties[to].temperament.follows_what_it_hears {
                self.outputs.push_back(Output::Relaying { to, is_on: true });
            }
        }
    }

    /// Whether every direction is off the relay: for the meter.
    fn is_off_the_relay(&self, now: Duration) -> bool {
        self.directions().all(|(_, direction)| {
            direction
                .proof
                .as_ref()
                .is_some_and(|proof| now > proof.last_relayed() + Duration::from_millis(100))
        })
    }

    pub(super) fn conclude(&mut self, now: Duration) {
        let is_proven = self.directions().all(|(_, direction)| direction.is_confirmed());
        if is_proven && matches!(self.state, State::Synchronising { .. }) {
            self.enter(State::Direct, Reason::Proven, now);
        }
    }

    pub(super) fn look_after_move(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        now: Duration,
    ) {
        let [Some(one), Some(other)] = accepted else {
            if now > since + self.settings.answering {
                self.come_home(Reason::Refused, now);
            }
            return;
        };
        self.timeline.meter(self.is_off_the_relay(now), now);
        let both = one.max(other);
        let is_back = self.directions().any(|(from, direction)| {
            let since = accepted[from].unwrap_or(both) + STRAGGLERS;
            direction.sight.is_some_and(|sight| sight.heard > since)
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        let is_one_proven = self.directions().any(|(_, direction)| direction.is_confirmed());
        let late = self.directions().any(|(from, direction)| {
            if direction.is_confirmed() {
                return false;
            }
            // With the other direction proven this one is likely: its reporter may take its time.
            let patience = if is_one_proven {
                self.parties[1 - from].temperament.longest_report_gap + TURNAROUND
            } else {
                self.settings.unproven
            };
            direction.proof.is_none() || now > both + patience.max(self.settings.unproven)
        });
        if late {
            self.come_home(Reason::Unproven, now);
        }
    }

    pub(super) fn look_at_direct(&mut self, now: Duration) {
        self.timeline.meter(self.is_off_the_relay(now), now);
        let is_back = self.directions().any(|(_, direction)| {
            direction.proof.as_ref().is_some_and(|proof| {
                proof.confirmed_at().is_some_and(|at| proof.last_relayed() > at + STRAGGLERS)
            })
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        let is_quiet = self.parties.iter().any(|party| {
            let limit = party.temperament.longest_report_gap + Duration::from_millis(500);
            party.reported.is_none_or(|at| now > at + limit)
        });
        if is_quiet {
            self.come_home(Reason::ReportsStopped, now);
        }
    }

    fn follows(&self) -> bool {
        self.parties.iter().any(|party| party.temperament.follows_what_it_hears)
    }

    pub(super) fn home_from_hold(&mut self, why: Reason, now: Duration) {
        self.outputs.push_back(Output::Home);
        self.state = State::Returning { accepted: [None; 2], since: now, why };
        self.relay_again();
    }

    /// Phones that went to each other although one was not willing to be moved: nothing would notice if that path broke.
    pub(super) fn look_for_strays(&mut self, now: Duration) {
        let is_away = self
            .directions()
            .any(|(_, direction)| direction.sight.is_some_and(|sight| now > sight.heard + STRAYED));
        if is_away && self.should_flow {
            self.strays -= 1;
            let why = Reason::Clung;
            self.outputs.push_back(Output::Hold);
            self.enter(State::Holding { accepted: [false; 2], since: now, why }, why, now);
        }
    }

    /// Back to the relay. Phones that follow what they hear would stay with each other on a path that works, so they
    /// are put on hold first.
    pub(super) fn come_home(&mut self, why: Reason, now: Duration) {
        if !matches!(self.state, State::Synchronising { .. } | State::Direct) {
            return;
        }
        let follows = self.follows();
        let is_path_dead = matches!(why, Reason::Refuted | Reason::Unproven);
        self.timeline.meter(false, now);
        if follows
            && !is_path_dead
            && !matches!(why, Reason::CameBack | Reason::Refused | Reason::Renegotiated)
        {
            self.outputs.push_back(Output::Hold);
            self.enter(State::Holding { accepted: [false; 2], since: now, why }, why, now);
        } else {
            self.relay_again();
            self.outputs.push_back(Output::Home);
            self.enter(State::Returning { accepted: [None; 2], since: now, why }, why, now);
        }
    }

    pub(super) fn look_for_return(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
        now: Duration,
    ) {
        let heard = |from: usize| {
            self.lines
                .iter()
                .filter_map(|line| line[from].sight)
                .map(|sight| sight.heard)
                .max()
                .filter(|at| *at > since)
        };
        let at = [heard(0), heard(1)];
        let is_home = at.iter().all(Option::is_some) && accepted.iter().all(Option::is_some);
        if !is_home && self.may_cling && now > since + CLINGING {
            self.may_cling = false;
            self.timeline.add(Entry::State { to: PathState::Returning, why: Reason::Clung }, now);
            self.outputs.push_back(Output::Hold);
            self.state = State::Holding { accepted: [false; 2], since: now, why: Reason::Renegotiated };
            return;
        }
        if !is_home && now < since + self.settings.homecoming {
            return;
        }
        for from in 0..2 {
            if let (Some(at), Some(accepted)) = (at[from], accepted[from]) {
                let length = at.saturating_sub(accepted.min(at));
                self.timeline.add(Entry::Gap { from, length, is_estimate: false }, now);
            }
        }
        let has_worked = self.directions().any(|(_, direction)| direction.is_confirmed());
        self.may_cling = false;
        self.lines.iter_mut().flatten().for_each(super::Direction::forget);
        let is_preferred = self.constraint == Constraint::PreferRelease;
        let not_before = match why {
            Reason::Policy => now,
            Reason::Renegotiated => now + self.settings.settle,
            Reason::Refused => {
                // One that follows what it hears may have left without being asked, or leave yet.
                self.strays = if self.follows() { STRAYS } else { 0 };
                return self.stay(Stay::Refused, now);
            }
            Reason::Clung => return self.stay(Stay::Failed, now),
            _ if (has_worked || is_preferred) && self.failures + 1 < self.settings.failures => {
                self.failures += 1;
                now + self.settings.rest
            }
            _ => return self.stay(Stay::Failed, now),
        };
        self.look = not_before.min(now + IDLE);
        self.enter(State::Anchored { not_before }, Reason::Heard, now);
    }
}
