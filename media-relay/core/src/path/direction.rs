//! One direction of one m-line: what the relay sees of it, and what its receiver reports.

use std::time::Duration;

use super::proof::{ABSURD_JITTER_SECONDS, Lie, Proof, Reception, Verdict};
use super::trial::{Outcome, Trial};

/// What the relay sees of one direction's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Its source.
    pub ssrc: u32,
    /// Its codec's clock, Hz.
    pub clock_rate: u32,
    /// Packets relayed.
    pub packets: u64,
    /// The last one's sequence number.
    pub sequence: u16,
    /// When it came.
    pub heard: Duration,
}

/// Packets are counted over at least this for a stream's rate.
const RATE_WINDOW: Duration = Duration::from_millis(400);
/// A stream of fewer packets a second is silence.
const FLOWING: f64 = 5.0;
/// So many packets may reach their receiver past the relay, as copies on another way, or be lost to it.
const UNSEEN: i16 = 100;
/// Packets that a sender's report and they themselves may have overtaken each other by.
const REORDERED: u32 = 5;

#[derive(Debug, Clone, Default)]
pub(super) struct Direction {
    pub(super) sight: Option<Sight>,
    /// Packets and time at the start of the current rate window, and the rate of the one before.
    window: Option<(u64, Duration)>,
    rate: Option<f64>,
    pub(super) proof: Option<Proof>,
    pub(super) trial: Option<Trial>,
    /// A trial has proven it, or a report that came during one.
    pub(super) is_proven: bool,
    /// When its receiver last reported about it.
    pub(super) reported: Option<Duration>,
    /// How many packets its sender has sent in all, as it says.
    sent: Option<u32>,
    /// When it last said so.
    spoke: Option<Duration>,
    /// Highest number and loss by the report before, and how many reports in a row were too lossy.
    quality: Option<(u32, i32)>,
    lossy: u8,
    /// What the receiver had lost by its last report before a move.
    lost_before: Option<i32>,
}

impl Direction {
    pub(super) fn see(&mut self, sight: Sight, now: Duration) {
        let is_new = self.sight.is_none_or(|known| known.packets != sight.packets);
        self.sight = Some(sight);
        let (packets, since) = *self.window.get_or_insert((sight.packets, now));
        let span = now.saturating_sub(since);
        if span >= RATE_WINDOW {
            self.rate = Some(sight.packets.saturating_sub(packets) as f64 / span.as_secs_f64());
            self.window = Some((sight.packets, now));
        }
        if is_new && let Some(proof) = &mut self.proof {
            proof.relayed(sight.sequence, sight.heard);
        }
    }

    pub(super) fn is_flowing(&self, now: Duration) -> bool {
        self.rate.is_some_and(|rate| rate >= FLOWING)
            && self.sight.is_some_and(|sight| now < sight.heard.saturating_add(Duration::from_millis(500)))
    }

    /// From now on it is to be proven.
    pub(super) fn watch(&mut self, now: Duration) {
        if let (Some(sight), Some(rate)) = (self.sight, self.rate) {
            let heard = sight.heard.max(now);
            self.proof = Some(Proof::new(sight.ssrc, sight.clock_rate, rate, sight.sequence, heard));
            (self.quality, self.lossy) = (None, 0);
        }
    }

    /// It is at the relay again; what a trial has shown stays known.
    pub(super) fn forget(&mut self) {
        self.proof = None;
        (self.window, self.rate) = (None, None);
    }

    /// A trial is over, and what it shows will be told by the next report.
    pub(super) fn end_trial(&mut self) {
        self.is_proven = self.is_confirmed();
        self.trial = self.sight.map(|sight| Trial::new(&sight, self.lost_before.unwrap_or(0)));
    }

    pub(super) fn forget_trial(&mut self) {
        (self.trial, self.is_proven) = (None, false);
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.is_proven || self.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some())
    }

    /// A report while its packets pass the relay.
    pub(super) fn reported_on_relay(&mut self, report: &Reception, now: Duration) -> Result<(), Lie> {
        let Some(sight) = self.sight.filter(|sight| sight.ssrc == report.ssrc) else {
            return Err(Lie::Source);
        };
        if report.jitter.checked_div(sight.clock_rate).unwrap_or(report.jitter) >= ABSURD_JITTER_SECONDS {
            return Err(Lie::Jitter);
        }
        if (report.highest as u16).wrapping_sub(sight.sequence) as i16 > UNSEEN {
            return Err(Lie::TooMany);
        }
        (self.lost_before, self.reported) = (Some(report.lost), Some(now));
        Ok(())
    }

    /// What a report says of the trial.
    pub(super) fn weigh(&self, report: &Reception) -> Option<Outcome> {
        self.trial?.weigh(report, &self.sight?)
    }

    /// Whether enough was sent in the trial for a report to tell.
    pub(super) fn was_tried(&self) -> bool {
        self.trial.zip(self.sight).is_some_and(|(trial, sight)| trial.sent(&sight).is_some())
    }

    /// Its sender's own report.
    pub(super) fn sender_report(&mut self, ssrc: u32, packets: u32, now: Duration) {
        if self.sight.is_some_and(|sight| sight.ssrc == ssrc) {
            (self.sent, self.spoke) = (Some(packets), Some(now));
        }
        if let Some(proof) = &mut self.proof {
            proof.sender_report(ssrc, packets, now);
        }
    }

    /// Whether its sender's own reports come, or have since.
    pub(super) fn has_spoken_since(&self, since: Duration) -> bool {
        self.spoke.is_some_and(|at| at > since)
    }

    /// Whether its sender's own count holds all that the relay has seen of it. A phone that begins anew with each re-INVITE
    /// has forgotten what it lost, too.
    pub(super) fn is_counted_on(&self) -> bool {
        let (Some(sent), Some(sight)) = (self.sent, self.sight) else { return false };
        (sent.wrapping_add(REORDERED).wrapping_sub(sight.packets as u32) as i32) >= 0
    }

    /// Two reports in a row with too much loss between them.
    pub(super) fn is_too_lossy(&mut self, report: &Reception, percent: u32) -> bool {
        let Some((highest, lost)) = self.quality.replace((report.highest, report.lost)) else { return false };
        let expected = i64::from(report.highest.wrapping_sub(highest));
        let missing = i64::from(report.lost).saturating_sub(lost.into());
        let is_lossy =
            expected >= 20 && missing.saturating_mul(100) > expected.saturating_mul(percent.into());
        self.lossy = if is_lossy { self.lossy.saturating_add(1) } else { 0 };
        self.lossy >= 2
    }

    /// The first report after a move says how many packets the receiver has missed since its last one before.
    pub(super) fn estimated_gap(&mut self, report: &Reception) -> Option<Duration> {
        let before = self.lost_before.take()?;
        let missed = f64::from(report.lost.saturating_sub(before).max(0));
        Some(Duration::from_secs_f64(missed / self.rate?.max(1.0)))
    }

    /// What a report says of it while it is to be proven.
    pub(super) fn judge(&mut self, report: &Reception, now: Duration) -> Option<Verdict> {
        Some(self.proof.as_mut()?.reception(report, now))
    }
}
