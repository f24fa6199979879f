//! What a trial has proved, by the count of what was lost.
//!
//! A trial is a move that ends before reports can have come: the media goes direct for less than a second and comes home. The
//! relay saw nothing of the packets of that time, but their receiver counts what it has lost (RFC 3550 §6.4.1), and its
//! next report says whether they are among it: evidence of the very path, at the cost of a second's silence at most,
//! however seldom the phone reports.

use seam::path::TrialOutcome;
use serde::{Deserialize, Serialize};

use super::proof::{AHEAD, Reception};
use super::sight::Sight;

/// So few packets of a trial say nothing.
const ENOUGH: u16 = 8;
/// So many packets at the relay after a trial, and none of it is still on its way here.
const HOME: u64 = 3;

/// One direction, as the relay knew it at the end of a trial, before anybody had come home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    ssrc: u32,
    /// The last packet that the relay saw, and how many it had seen.
    sequence: u16,
    packets: u64,
    /// What the receiver had lost by its last report before the trial.
    lost: i32,
    /// How many packets the relay has not seen, by the first that came home.
    direct: Option<u16>,
    /// How many of them were sent before the far phone had moved too, and its NAT let anything in.
    early: u16,
}

impl Trial {
    /// `lost` is the receiver's count before the trial; so many packets were sent `early`, before both had moved.
    pub fn new(sight: &Sight, lost: i32, early: u16) -> Self {
        let (sequence, packets) = (sight.sequence, sight.packets);
        Self { ssrc: sight.ssrc, sequence, packets, lost, direct: None, early }
    }

    /// What the relay has not seen of what was sent since.
    fn unseen(&self, sight: &Sight) -> Option<u16> {
        let passed = u64::from(sight.sequence.wrapping_sub(self.sequence));
        let unseen = passed.checked_sub(sight.packets.checked_sub(self.packets)?)?;
        u16::try_from(unseen).ok().filter(|_| sight.ssrc == self.ssrc)
    }

    /// The relay has seen more. What it misses of packets that came after the first was lost on the way here.
    pub fn see(&mut self, sight: &Sight) {
        if self.direct.is_none() && sight.packets >= self.packets.saturating_add(HOME) {
            self.direct = self.unseen(sight);
        }
    }

    /// How many packets went elsewhere, if enough to tell.
    pub fn sent(&self) -> Option<u16> {
        self.direct.filter(|sent| *sent >= ENOUGH)
    }

    /// Whether hardly anything was sent in it, or its sender has not been heard since.
    pub fn was_silent(&self, sight: &Sight) -> bool {
        sight.ssrc == self.ssrc && self.direct.is_none_or(|sent| sent < ENOUGH)
    }

    /// What a report says that came when the relay had seen this much; `None` if it speaks of the time before, or too little
    /// was sent (silence).
    pub fn weigh(&self, report: &Reception, sight: &Sight) -> Option<TrialOutcome> {
        let (sent, unseen) = (self.sent()?, self.unseen(sight)?);
        let telling = sent.checked_sub(self.early).filter(|telling| *telling >= ENOUGH)?;
        let ahead = (report.highest as u16).wrapping_sub(self.sequence) as i16;
        let is_about_it = i32::from(ahead) > i32::from(sent) && i32::from(ahead) > AHEAD;
        let before = i32::from(unseen.saturating_sub(sent));
        let lost = report.lost.saturating_sub(self.lost).saturating_sub(before);
        // Those that came too early were lost first, if any were.
        let lost = lost.saturating_sub(i32::from(self.early)).max(lost.min(0));
        (report.ssrc == self.ssrc && is_about_it).then_some(TrialOutcome { sent: telling, lost })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sight(packets: u64, sequence: u16) -> Sight {
        Sight { ssrc: 7, clock_rate: 8000, packets, sequence, heard: Duration::ZERO, silence: None }
    }

    /// After 40 packets over the wrap, which the relay did not see, it has seen these.
    fn tried(number: u16) -> Trial {
        let mut trial = Trial::new(&sight(100, 65_530), 3, 0);
        trial.see(&sight(110, number));
        trial
    }

    /// 40 packets that the relay did not see, then 250 that it saw.
    fn weigh(highest: u32, lost: i32) -> Option<TrialOutcome> {
        let trial = tried(65_530u16.wrapping_add(50));
        let report = Reception { ssrc: 7, highest, lost, jitter: 0 };
        trial.weigh(&report, &sight(350, 65_530u16.wrapping_add(290)))
    }

    #[test]
    fn packets_that_the_relay_did_not_see_and_nobody_misses_went_direct() {
        let outcome = weigh(65_536 + 283, 5).unwrap();
        assert_eq!(outcome, TrialOutcome { sent: 40, lost: 2 });
        assert!(outcome.is_proof());
    }

    #[test]
    fn packets_that_are_missed_did_not() {
        assert!(!weigh(65_536 + 283, 43).unwrap().is_proof());
        assert!(weigh(65_536 + 283, 43).unwrap().is_refutation());
        let half = weigh(65_536 + 283, 23).unwrap();
        assert!(!half.is_proof() && !half.is_refutation(), "half of them");
    }

    #[test]
    fn what_was_sent_before_the_far_phone_had_moved_says_nothing() {
        let weigh = |early: u16, lost: i32| {
            let mut trial = Trial::new(&sight(100, 1_000), 0, early);
            trial.see(&sight(110, 1_055));
            let report = Reception { ssrc: 7, highest: 1_260, lost, jitter: 0 };
            trial.weigh(&report, &sight(330, 1_275))
        };
        assert!(weigh(0, 35).unwrap().is_refutation());
        let late = weigh(25, 35).unwrap();
        assert_eq!(late, TrialOutcome { sent: 20, lost: 10 });
        assert!(!late.is_refutation());
        assert!(weigh(25, 27).unwrap().is_proof());
        assert!(weigh(25, 45).unwrap().is_refutation(), "nor did anything come after it");
        assert_eq!(weigh(40, 45), None, "too few are left to tell");
    }

    #[test]
    fn what_was_lost_on_the_way_to_the_relay_afterwards_is_not_held_against_the_path() {
        let trial = tried(65_530u16.wrapping_add(50));
        let report = Reception { ssrc: 7, highest: 65_536 + 303, lost: 25, jitter: 0 };
        let outcome = trial.weigh(&report, &sight(350, 65_530u16.wrapping_add(310))).unwrap();
        assert_eq!(outcome, TrialOutcome { sent: 40, lost: 2 });
    }

    #[test]
    fn a_report_of_the_time_before_or_of_another_source_says_nothing() {
        assert_eq!(weigh(65_530, 3), None);
        assert_eq!(weigh(65_536 + 20, 3), None, "amid it");
        let trial = tried(65_530u16.wrapping_add(50));
        let report = Reception { ssrc: 8, highest: 65_536 + 283, lost: 3, jitter: 0 };
        assert_eq!(trial.weigh(&report, &sight(350, 284)), None);
    }

    #[test]
    fn silence_is_no_trial() {
        let report = Reception { ssrc: 7, highest: 1_255, lost: 0, jitter: 0 };
        for (number, why) in [(1_257, "seven packets"), (1_245, "doubled ones")] {
            let mut trial = Trial::new(&sight(100, 1_000), 0, 0);
            trial.see(&sight(350, number));
            assert_eq!(trial.weigh(&report, &sight(350, number)), None, "{why}");
        }
    }
}
