//! What a stream's receiver says of it (RFC 3550 §6.4.1), added up over reports, sources, and counts that begin anew: of the
//! whole way, and of the part of it that the relay did not carry.

use std::time::Duration;

/// More packets than this a second between two reports are a fable.
const FASTEST: u64 = 2_000;
/// A first report about more is about nothing that was sent here.
const LONGEST: u32 = 1 << 24;
/// Packets that the relay has and the report does not know yet, or the other way round.
const OUT_OF_STEP: u64 = 5;

/// A reception report block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Block {
    pub(crate) ssrc: u32,
    /// Extended highest number received.
    pub(crate) highest: u32,
    /// Cumulative.
    pub(crate) lost: i32,
    /// In clock units.
    pub(crate) jitter: u32,
}

/// What the relay knows of the stream at that moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passed {
    /// The first number of that source here, if it was heard here.
    pub(crate) first: Option<u16>,
    /// Packets that were sent by way of the relay, and of them those that never came.
    pub(crate) packets: u64,
    pub(crate) lost: u64,
    /// The receiver counts anew.
    pub(crate) is_anew: bool,
}

/// Reports, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Packets that they account for.
    pub(crate) expected: u64,
    /// Of them, lost.
    pub(crate) lost: u64,
    /// Greatest interarrival jitter, in clock units.
    pub(crate) jitter: u32,
    pub(crate) reports: u32,
}

#[derive(Debug, Clone, Copy)]
struct Latest {
    block: Block,
    packets: u64,
    lost: u64,
    at: Duration,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reported {
    latest: Option<Latest>,
    whole: Tally,
    direct: Tally,
}

impl Reported {
    /// A block about a source that is known to be the stream's.
    pub(crate) fn hear(&mut self, block: Block, passed: Passed, now: Duration) {
        let latest = Latest { block, packets: passed.packets, lost: passed.lost, at: now };
        let Some(before) = self.latest.filter(|before| before.block.ssrc == block.ssrc) else {
            self.latest = Some(latest);
            let expected = passed.first.map(|first| block.highest.wrapping_sub(first.into()));
            // One that is before the first has not heard of it.
            if let Some(expected) = expected.filter(|expected| *expected < LONGEST) {
                let expected = u64::from(expected).saturating_add(1);
                let lost = i64::from(block.lost).clamp(0, expected as i64);
                self.whole.add(expected, lost, block.jitter);
            }
            return;
        };
        let (far, near) = (
            block.highest.wrapping_sub(before.block.highest) as i32,
            (block.highest as u16).wrapping_sub(before.block.highest as u16) as i16,
        );
        // A count of cycles that begins anew makes the number lower, though its last sixteen bits go on.
        let is_anew = passed.is_anew || (far < 0 && near > 0);
        let expected = if is_anew { i64::from(near) } else { i64::from(far) };
        let span = now.saturating_sub(before.at).as_secs().saturating_add(1);
        let Ok(expected) = u64::try_from(expected) else { return };
        if expected > span.saturating_mul(FASTEST) {
            return;
        }
        self.latest = Some(latest);
        let since = if is_anew { 0 } else { before.block.lost };
        let lost = i64::from(block.lost).saturating_sub(since.into());
        let lost = lost.clamp(i64::MIN, expected as i64);
        self.whole.add(expected, lost, block.jitter);
        let here = passed.packets.saturating_sub(before.packets);
        let elsewhere = expected.saturating_sub(here);
        if elsewhere > expected / 10 && elsewhere > OUT_OF_STEP {
            // Where both kinds are in one report, they share its loss.
            let share = if elsewhere.saturating_mul(10) >= expected.saturating_mul(9) {
                lost
            } else {
                lost.saturating_mul(elsewhere as i64).checked_div(expected as i64).unwrap_or(0)
            };
            self.direct.add(elsewhere, share, block.jitter);
        }
    }

    /// Of the whole way.
    pub(crate) fn whole(&self) -> Tally {
        self.whole
    }

    /// Of what the relay did not carry.
    pub(crate) fn direct(&self) -> Option<Tally> {
        (self.direct.reports > 0).then_some(self.direct)
    }

    /// Jitter by the last report, in clock units.
    pub(crate) fn jitter(&self) -> u32 {
        self.latest.map_or(0, |latest| latest.block.jitter)
    }

    /// What the relay knew of the stream at the last report: packets sent by way of it, and lost before it.
    pub(crate) fn known_then(&self) -> (u64, u64) {
        self.latest.map_or((0, 0), |latest| (latest.packets, latest.lost))
    }
}

impl Tally {
    /// `lost` is below zero where duplicates or late packets came.
    fn add(&mut self, expected: u64, lost: i64, jitter: u32) {
        self.expected = self.expected.saturating_add(expected);
        self.lost = self.lost.saturating_add_signed(lost);
        self.jitter = self.jitter.max(jitter);
        self.reports = self.reports.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A report, the number of packets that have passed here, and whether its author counts anew.
    type Said = (u32, i32, u64, bool);

    fn told(reports: &[Said]) -> Reported {
        let mut reported = Reported::default();
        for (index, (highest, lost, packets, is_anew)) in reports.iter().enumerate() {
            let block = Block { ssrc: 7, highest: *highest, lost: *lost, jitter: 8 };
            let passed = Passed { first: Some(65_500), packets: *packets, lost: 0, is_anew: *is_anew };
            reported.hear(block, passed, Duration::from_secs(5 * index as u64));
        }
        reported
    }

    fn sums(tally: Tally) -> (u64, u64) {
        (tally.expected, tally.lost)
    }

    #[test]
    fn loss_on_the_relay_is_not_loss_of_direct_time() {
        let reported = told(&[(65_535, 2, 36, false), (65_536 + 249, 5, 286, false)]);
        assert_eq!((sums(reported.whole()), reported.direct()), ((286, 5), None));
    }

    #[test]
    fn what_the_relay_has_not_carried_is_counted_apart() {
        let reported = told(&[(65_535, 2, 36, false), (65_536 + 249, 7, 40, false)]);
        assert_eq!(sums(reported.whole()), (286, 7));
        assert_eq!(sums(reported.direct().unwrap()), (246, 5));
    }

    #[test]
    fn a_receiver_that_counts_anew_has_lost_no_fewer() {
        let reported = told(&[(65_536 + 249, 7, 286, false), (449, 3, 486, true), (699, 4, 736, false)]);
        assert_eq!(sums(reported.whole()), (736, 11));
        let cycles = told(&[(65_536 + 249, 7, 286, false), (449, 7, 486, false)]);
        assert_eq!(sums(cycles.whole()), (486, 14), "by its cycles alone");
    }

    #[test]
    fn an_older_report_or_a_fable_changes_nothing() {
        let reported =
            told(&[(65_536 + 249, 7, 286, false), (65_536 + 99, 3, 300, false), (4_000_000, 3, 300, false)]);
        assert_eq!(sums(reported.whole()), (286, 7));
    }

    #[test]
    fn late_packets_take_back_what_was_lost() {
        let reported = told(&[(65_535, 2, 36, false), (65_536 + 249, 1, 286, false)]);
        assert_eq!(sums(reported.whole()), (286, 1));
    }
}
