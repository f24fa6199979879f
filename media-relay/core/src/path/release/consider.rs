//! When a move is made: at first as a trial, and for good when that has proven the path.

use std::net::SocketAddr;
use std::time::Duration;

use super::{AGAIN, Constraint, IDLE, LOOK, Output, Release, SKEW, State};
use crate::path::place::{Stay, Way, choose};
use crate::path::timeline::{Entry, Reason};

impl Release {
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
        self.look = now.saturating_add(IDLE);
        if self.constraint == Constraint::MustAnchor {
            return;
        }
        if !self.is_flowing(now) {
            self.look = now.saturating_add(LOOK);
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
                self.ask(whom, Output::Learn(whom), state, Reason::Try, now);
            }
            Way::Observed(places) | Way::Local(places) => {
                self.leave(places, if is_trusted { Reason::Certain } else { Reason::Try }, now);
            }
        }
    }

    /// `places` are the parties' own.
    fn leave(&mut self, places: [SocketAddr; 2], why: Reason, now: Duration) {
        let [one, other] = places;
        self.tried = Some(places);
        self.is_trusted = why == Reason::Certain;
        let state = |since| State::Synchronising { accepted: [None; 2], since };
        self.ask([true; 2], Output::Move([other, one]), state, why, now);
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
        if now >= since.saturating_add(self.settings.learning) {
            // Who says nothing has shown nothing; who has agreed to move, and speaks where it was, does not move.
            let is_unmoved = self.has_spoken_after(accepted);
            self.stay(if is_unmoved { Stay::Unmoved } else { Stay::UnknownMapping }, now);
        }
    }

    /// Whether a phone that may not report at all has yet to do so: true while it has time, false when that is over.
    fn waits_for_reports(&self, now: Duration) -> Option<bool> {
        let silent = (0..2).find(|party| {
            let is_heard = self.lines.iter().any(|line| line[party ^ 1].reported.is_some());
            !self.parties[*party].temperament.is_known && !is_heard
        })?;
        Some(
            now < self
                .answered
                .saturating_add(self.parties[silent].temperament.longest_report_gap)
                .saturating_add(AGAIN),
        )
    }

    /// After a trial: reports have proven the path, or may still do so.
    pub(super) fn look_for_verdict(&mut self, until: Duration, now: Duration) {
        let is_proven = self.directions().all(|(_, direction)| direction.is_proven);
        // What was refuted has stayed already.
        let is_trusted = !is_proven && now >= until && self.networks.certain;
        if (is_proven || is_trusted) && self.is_flowing(now) {
            return match self.way() {
                Some(Ok(Way::Observed(places) | Way::Local(places))) if self.tried == Some(places) => {
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
        let is_mute = self.directions().any(|(_, direction)| direction.reported.is_none());
        // Of silence nothing can be learnt; what was said, and proven by no report, did not arrive.
        let was_tried = self.directions().all(|(_, direction)| direction.is_proven || direction.was_tried());
        if is_mute { self.stay(Stay::NoReports, now) } else { self.rest(!was_tried, now) }
    }
}
