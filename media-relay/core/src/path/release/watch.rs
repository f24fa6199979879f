//! What ends a move, and how everybody comes home.

use std::time::Duration;

use super::{CLINGING, LEAD, Output, Release, SKEW, STRAGGLERS, State};
use seam::Side;
use seam::path::{Constraint, Entry, PathState, Reason, Stay};

/// How often phones are called back that are not at the relay, where they should be, and after how long without a packet.
const STRAYS: u8 = 5;
const STRAYED: Duration = Duration::from_secs(2);

impl Release {
    /// To a phone that follows what it hears nothing is relayed while it moves: a packet from here would pull it back.
    pub(super) fn park(&mut self, party: Side) {
        let follows = self.parties[party].temperament.follows_what_it_hears;
        if follows && !std::mem::replace(&mut self.parties[party].is_parked, true) {
            self.agenda.outputs.push_back(Output::Relaying { to: party, is_on: false });
        }
    }

    /// Asks parties to move: followers a little after the last packet that was relayed to them, which may be on its way.
    pub(super) fn ask(&mut self, output: Output, state: fn(Duration) -> State, why: Reason, now: Duration) {
        let whom = if let Output::Learn(whom) = output { whom } else { [true; 2] };
        let parked = |release: &Self| release.parties.each_ref().map(|party| party.is_parked);
        let was_parked = parked(self);
        Side::BOTH.into_iter().filter(|party| whom[*party]).for_each(|party| self.park(party));
        let at = if parked(self) == was_parked { now } else { now.saturating_add(LEAD) };
        self.enter(state(at), why, now);
        if at == now {
            self.agenda.outputs.push_back(output);
        } else {
            self.agenda.next = Some((at, output));
        }
    }

    pub(super) fn relay_to(&mut self, party: Side) {
        if std::mem::take(&mut self.parties[party].is_parked) {
            self.agenda.outputs.push_back(Output::Relaying { to: party, is_on: true });
        }
    }

    pub(super) fn relay_again(&mut self) {
        Side::BOTH.into_iter().for_each(|party| self.relay_to(party));
    }

    /// Both have moved, and both directions are proven, or need not be.
    pub(super) fn conclude(&mut self, now: Duration) {
        let State::Synchronising { accepted: [Some(_), Some(_)], .. } = self.state else { return };
        if self.tries.is_trusted || self.directions().all(|(_, direction)| direction.is_confirmed()) {
            let by_trial = self.directions().all(|(_, direction)| direction.is_proven);
            let why = match (self.tries.is_trusted, by_trial) {
                (true, _) => Reason::Certain,
                (false, true) => Reason::Trial,
                (false, false) => Reason::Proven,
            };
            self.tries.was_direct = true;
            self.enter(State::Direct { since: now }, why, now);
        }
    }

    pub(super) fn look_after_move(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        now: Duration,
    ) {
        if now > since.saturating_add(SKEW) {
            // One that takes its time is not to miss anything meanwhile.
            Side::BOTH
                .into_iter()
                .filter(|party| accepted[*party].is_none())
                .for_each(|party| self.relay_to(party));
        }
        let Some(first) = accepted.into_iter().flatten().min() else {
            if now > since.saturating_add(self.settings.answering) {
                self.parties.iter_mut().for_each(|party| party.has_refused = true);
                self.come_home(Reason::Refused, now);
            }
            return;
        };
        let [Some(one), Some(other)] = accepted else {
            // Until the other has moved, somebody may hear nothing.
            if now > first.saturating_add(self.settings.trial).saturating_add(SKEW) {
                Side::BOTH
                    .into_iter()
                    .for_each(|party| self.parties[party].has_refused = accepted[party].is_none());
                self.come_home(Reason::Refused, now);
            }
            return;
        };
        if self.has_spoken_after(accepted) {
            self.come_home(Reason::CameBack, now);
        } else if now > one.max(other).saturating_add(self.settings.trial)
            || now > first.saturating_add(self.settings.trial).saturating_add(SKEW)
        {
            self.come_home(Reason::Trial, now);
        }
    }

    /// Whether a phone speaks at the relay after it has agreed, then, to speak elsewhere.
    pub(super) fn has_spoken_after(&self, accepted: [Option<Duration>; 2]) -> bool {
        self.directions().any(|(from, direction)| {
            let heard = direction.sight.map(|sight| sight.heard);
            heard.zip(accepted[from]).is_some_and(|(heard, at)| heard > at.saturating_add(STRAGGLERS))
        })
    }

    pub(super) fn look_at_direct(&mut self, since: Duration, now: Duration) {
        let is_back = self.directions().any(|(_, direction)| {
            direction
                .proof
                .as_ref()
                .is_some_and(|proof| proof.last_relayed() > since.saturating_add(STRAGGLERS))
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        if let Some(why) = self.is_unknown(since, now) {
            // Of a sender that never counts nobody knows whether it was silent.
            self.homecoming.is_blameless = why == Reason::Refuted;
            self.lapse.note(why, &self.lines, since, now);
            self.come_home(why, now);
        }
    }

    /// Whether one of them follows what it hears.
    pub fn follows(&self) -> bool {
        self.parties.iter().any(|party| party.temperament.follows_what_it_hears)
    }

    /// Whether nobody of them lets go of the other as long as that one speaks to it.
    fn cling(&self) -> bool {
        self.parties.iter().all(|party| party.temperament.follows_what_it_hears)
    }

    fn hold(&mut self, why: Reason, now: Duration) {
        let accepted = self.parties.each_ref().map(|party| party.has_refused);
        self.agenda.outputs.push_back(Output::Hold(accepted.map(|has_refused| !has_refused)));
        self.enter(State::Holding { accepted, since: now, let_go: None, why }, why, now);
    }

    pub(super) fn home_from_hold(&mut self, why: Reason, now: Duration) {
        self.call_home([true; 2], why, now);
    }

    fn call_home(&mut self, asked: [bool; 2], why: Reason, now: Duration) {
        self.relay_again();
        self.agenda.outputs.push_back(Output::Home(asked));
        self.enter(State::Returning { asked, accepted: [None; 2], since: now, why }, why, now);
    }

    /// Those who were to wait for the others.
    pub(super) fn call_last(&mut self, now: Duration) {
        let State::Returning { asked, accepted, since, .. } = &mut self.state else { return };
        let is_time = now > since.saturating_add(SKEW.saturating_mul(2))
            || Side::BOTH.into_iter().all(|party| !asked[party] || accepted[party].is_some());
        if is_time && *asked != [true; 2] {
            let whom = asked.map(|asked| !asked);
            *asked = [true; 2];
            self.agenda.outputs.push_back(Output::Home(whom));
        }
    }

    /// Phones that went to each other although one was not willing to be moved: nothing would notice if that path broke.
    pub(super) fn look_for_strays(&mut self, now: Duration) {
        let is_away = self.directions().any(|(_, direction)| {
            direction.sight.is_some_and(|sight| now > sight.heard.saturating_add(STRAYED))
        });
        if is_away && self.should_flow {
            self.tries.strays = self.tries.strays.saturating_sub(1);
            // They may as well be silent: what they count tells.
            self.homecoming.away_until_heard = None;
            self.hold(Reason::Clung, now);
        }
    }

    /// Back to the relay. Two phones that follow what they hear would stay with each other on a path that works, so they
    /// are put on hold first; where the path is dead, or one of them goes where it is told, nobody waits in silence for that. After a trial that is not done before it shows to be needed: its path may be dead, and
    /// a hold would make the silence longer. But one that follows is called last, when the other does not speak to it any more.
    pub(super) fn come_home(&mut self, why: Reason, now: Duration) {
        if !matches!(self.state, State::Synchronising { .. } | State::Direct { .. }) {
            return;
        }
        self.told_to_come_home(now);
        self.homecoming.may_cling = why == Reason::Trial && self.follows();
        if why != Reason::Renegotiated {
            self.lines.iter_mut().flatten().for_each(super::Direction::turn_back);
        }
        if why == Reason::Trial {
            self.lines.iter_mut().flatten().for_each(super::Direction::end_trial);
        }
        let is_path_alive = matches!(why, Reason::Policy | Reason::Quality | Reason::ReportsStopped);
        if self.cling() && is_path_alive {
            self.hold(why, now);
        } else {
            let stays_put = self.parties.each_ref().map(|party| !party.temperament.follows_what_it_hears);
            let is_mixed = stays_put[Side::First] != stays_put[Side::Second];
            self.call_home(if is_mixed { stays_put } else { [true; 2] }, why, now);
        }
    }

    pub(super) fn forget_trial(&mut self) {
        self.lines.iter_mut().flatten().for_each(super::Direction::forget_trial);
    }

    pub(super) fn look_for_return(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
        now: Duration,
    ) {
        self.call_last(now);
        let heard = |from: Side| {
            self.lines
                .iter()
                .filter_map(|line| line[from].sight)
                .map(|sight| sight.heard)
                .max()
                .filter(|at| *at > since)
        };
        let at = Side::BOTH.map(heard);
        // Two that follow what they hear are pulled back to a path that works by each other's last packets.
        let is_settled = !(self.homecoming.may_cling && self.cling())
            || (now > since.saturating_add(CLINGING)
                && at.iter().flatten().all(|at| now < at.saturating_add(SKEW)));
        let is_home = is_settled && at.iter().all(Option::is_some) && accepted.iter().all(Option::is_some);
        if !is_home && self.homecoming.may_cling && now > since.saturating_add(CLINGING) {
            self.homecoming.may_cling = false;
            self.timeline.add(Entry::State { to: PathState::Returning, why: Reason::Clung }, now);
            self.hold(why, now);
            return;
        }
        if !is_home && now < since.saturating_add(self.settings.homecoming) {
            return;
        }
        self.homecoming.may_cling = false;
        self.lines.iter_mut().flatten().for_each(super::Direction::forget);
        if why == Reason::Trial {
            return self.enter(State::Weighing { until: now.saturating_add(self.weighing()) }, why, now);
        }
        if std::mem::take(&mut self.homecoming.is_blameless) {
            return self.try_later(now);
        }
        self.forget_trial();
        match why {
            Reason::Policy => self.anchor(now, now),
            Reason::Renegotiated => self.anchor(now.saturating_add(self.settings.settle), now),
            Reason::Refused => {
                // One that follows what it hears may have left without being asked, or leave yet.
                self.tries.strays = if self.follows() { STRAYS } else { 0 };
                self.stay(Stay::Refused, now);
            }
            Reason::Clung => self.stay(Stay::Failed, now),
            // It has taken our offer and stayed: it would take the next one no better, at the price of the same silence.
            Reason::CameBack if !self.tries.was_direct => self.stay(Stay::Unmoved, now),
            // That reports have stopped says nothing of the path, and less if they were only lost.
            Reason::ReportsStopped => match self.lapse.rest(self.settings.rest, now) {
                Some(not_before) => self.anchor(not_before, now),
                None => self.rest(Stay::NoReports, now),
            },
            _ => self.rest(Stay::Failed, now),
        }
    }

    /// A path has failed, or was not heard of for too long; it may be tried again after a while, but not for ever.
    fn rest(&mut self, stay: Stay, now: Duration) {
        self.tries.failures = self.tries.failures.saturating_add(1);
        let may_try_again = self.tries.was_direct || self.constraint == Constraint::PreferRelease;
        if may_try_again && self.tries.failures < self.settings.failures {
            self.anchor(now.saturating_add(self.settings.rest), now);
        } else {
            self.stay(stay, now);
        }
    }

    pub(super) fn anchor(&mut self, not_before: Duration, now: Duration) {
        self.agenda.look = now;
        self.enter(State::Anchored { not_before }, Reason::Heard, now);
    }
}
