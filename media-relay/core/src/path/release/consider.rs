//! When a move is made: at first as a trial, and for good when that has proven the path.

use std::net::SocketAddr;
use std::time::Duration;

use seam::Side;
use seam::path::{Constraint, Entry, Mapping, Reason, Stay, Way};

use super::{Direction, IDLE, LOOK, Output, Release, SKEW, State};
use crate::path::phone::PATIENCE;
use crate::path::place::choose;

/// Both have spoken in a trial, and a receiver has said then that it hears nobody. Some count anew when they are home, and say no
/// more of it.
fn is_missed(line: &[Direction; 2], from: Side) -> bool {
    !line[from].is_proven && line[from].was_missed() && line[!from].was_tried()
}

/// A trial that has told nothing is made again after so long, and twice that the next time; and so often.
const LATER: Duration = Duration::from_secs(10);
const QUIET_TRIALS: u8 = 6;
/// But only so often where both spoke: each may have cost them half a second, and the next will hardly tell more.
const UNTOLD_TRIALS: u8 = 2;
/// After a trial of which no report can tell any more its packets are counted for so long, and no longer waited for.
const COUNTING: Duration = Duration::from_secs(1);

impl Release {
    /// Who is silent opens no way through its NAT, and proves nothing: nobody is moved before both speak.
    fn is_flowing(&self, now: Duration) -> bool {
        !self.lines.is_empty() && self.directions().all(|(_, direction)| direction.is_flowing(now))
    }

    /// The way between the two, once both were heard.
    fn way(&self) -> Option<Result<Way, Stay>> {
        let [Some(one), Some(other)] = self.parties.each_ref().map(|party| party.place.clone()) else {
            return None;
        };
        Some(choose(&[one, other], &self.networks))
    }

    /// Is there a way, and is it the moment?
    pub(super) fn consider(&mut self, now: Duration) {
        self.agenda.look = now.saturating_add(IDLE);
        if self.constraint == Constraint::MustAnchor {
            return;
        }
        if !self.is_flowing(now) {
            self.agenda.look = now.saturating_add(LOOK);
            return;
        }
        if !self.lapse.is_over(&self.lines) {
            return;
        }
        let way = match self.way() {
            None => return,
            Some(Ok(way)) => way,
            Some(Err(stay)) => return self.stay(stay, now),
        };
        let is_trusted = self.needs_trust(now);
        if let (Some(wait), false) = (self.waits_for_reports(now), is_trusted) {
            if !wait {
                self.stay(Stay::NoReports, now);
            }
            return;
        }
        self.timeline.add(Entry::Way(way), now);
        match way {
            Way::Learn(whom) => {
                let state = |since| State::Probing { accepted: [None; 2], since };
                self.ask(Output::Learn(whom), state, Reason::Try, now);
            }
            Way::Observed(places) | Way::Local(places) => {
                self.leave(places, if is_trusted { Reason::Certain } else { Reason::Try }, now);
            }
        }
    }

    /// `places` are the parties' own.
    fn leave(&mut self, places: [SocketAddr; 2], why: Reason, now: Duration) {
        let [one, other] = places;
        if self.tries.tried.replace(places) != Some(places) {
            self.forget_trial();
        }
        self.tries.is_trusted = why == Reason::Certain;
        let state = |since| State::Synchronising { accepted: [None; 2], since };
        self.ask(Output::Move([other, one]), state, why, now);
    }

    pub(super) fn look_at_probing(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        now: Duration,
    ) {
        if now > since.saturating_add(SKEW.saturating_mul(2)) {
            self.relay_again();
        }
        // One that is silent shows nothing, whatever its NAT does.
        let is_silent = |party: Side| {
            let place = self.parties[party].place.as_ref();
            place.is_some_and(|place| place.effective_mapping() == Mapping::Unknown)
                && self.lines.first().is_some_and(|line| !line[party].is_heard_since(since))
        };
        if now >= since.saturating_add(self.settings.learning) && !Side::BOTH.into_iter().any(is_silent) {
            // Who says nothing has shown nothing; who has agreed to move, and speaks where it was, does not move.
            let is_unmoved = self.has_spoken_after(accepted);
            self.stay(if is_unmoved { Stay::Unmoved } else { Stay::UnknownMapping }, now);
        }
    }

    /// Whether a phone that may not report at all has yet to do so: true while it has time, false when that is over.
    fn waits_for_reports(&self, now: Duration) -> Option<bool> {
        let is_silent = Side::BOTH.into_iter().any(|party| {
            let is_heard = self.lines.iter().any(|line| line[!party].reported.is_some());
            !self.parties[party].temperament.is_known && !is_heard
        });
        is_silent.then(|| now < self.answered.saturating_add(PATIENCE))
    }

    /// How long reports may still tell of a trial that is over. Those of one that has forgotten at home what it lost do not.
    pub(super) fn weighing(&self) -> Duration {
        let may_tell = self
            .directions()
            .any(|(from, direction)| !direction.is_proven && !self.parties[!from].temperament.counts_anew());
        let is_proven = self.directions().all(|(_, direction)| direction.is_proven);
        if may_tell || is_proven { PATIENCE } else { COUNTING }
    }

    /// After a trial: reports have proven the path, or may still do so.
    pub(super) fn look_for_verdict(&mut self, until: Duration, now: Duration) {
        let is_proven = self.directions().all(|(_, direction)| direction.is_proven);
        // What was refuted has stayed already.
        let is_trusted = !is_proven && now >= until && self.networks.certain;
        if is_proven && !self.is_flowing(now) {
            return;
        }
        if is_proven || (is_trusted && self.is_flowing(now)) {
            return match self.way() {
                Some(Ok(Way::Observed(places) | Way::Local(places))) if self.tries.tried == Some(places) => {
                    self.leave(places, if is_proven { Reason::Trial } else { Reason::Certain }, now);
                }
                // Somebody's address is not what it was.
                _ => {
                    self.forget_trial();
                    self.enter(State::Anchored { not_before: now }, Reason::Heard, now);
                }
            };
        }
        if now < until {
            return;
        }
        if self.directions().any(|(_, direction)| direction.reported.is_none()) {
            self.stay(Stay::NoReports, now);
        } else if self.lines.iter().any(|line| Side::BOTH.into_iter().any(|from| is_missed(line, from))) {
            self.forget_trial();
            self.stay(Stay::Failed, now);
        } else if self.directions().any(|(_, direction)| direction.was_silent()) {
            self.try_later(now);
        } else {
            // The trial counts, whatever was heard of it.
            self.tries.untold_trials = self.tries.untold_trials.saturating_add(1);
            if self.tries.untold_trials >= UNTOLD_TRIALS {
                self.forget_trial();
                self.stay(Stay::Inconclusive, now);
            } else {
                self.try_later(now);
            }
        }
    }

    /// Nothing was refuted: somebody was silent, or reports were lost. That is no failure, and nothing to remember; what was proven
    /// stays so.
    pub(super) fn try_later(&mut self, now: Duration) {
        self.lines.iter_mut().flatten().for_each(|direction| direction.trial = None);
        if self.tries.quiet_trials >= QUIET_TRIALS {
            return self.stay(Stay::NoReports, now);
        }
        let rest = LATER.saturating_mul(1 << self.tries.quiet_trials);
        self.tries.quiet_trials = self.tries.quiet_trials.saturating_add(1);
        self.anchor(now.saturating_add(rest), now);
    }
}
