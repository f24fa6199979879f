//! Whether the direct path is worse than the relay, by what a receiver reports as lost and as jitter.
//!
//! **Only loss that the relay would not have is a reason to go back.** What is lost between a phone and its own network is lost on either
//! way, and was before the move: what the relay misses of each phone's own packets tells of its line, and what their receiver misses of
//! those that came from the relay tells of both. And a few packets tell of no share: where somebody pauses, one report in two is about less than a
//! second of talk, in which three lost packets seem to be a tenth.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::proof::Reception;

/// So many packets are looked at for a share of them: two seconds of most streams.
const LEAST: i64 = 100;
/// Of fewer packets nothing is said at all.
const LITTLE: i64 = 20;
/// So many windows, or reports, in a row.
const SUCCESSIVE: u8 = 2;
/// What is known of the relay is about the last ten seconds of most streams, or a little more.
const REMEMBERED: i64 = 500;

/// Packets between reports.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
struct Window {
    expected: i64,
    missing: i64,
}

impl Window {
    /// Half of what was counts half as much.
    fn fade(&mut self) {
        if self.expected >= REMEMBERED {
            self.expected /= 2;
            self.missing /= 2;
        }
    }

    fn add(&mut self, (expected, missing): (i64, i64)) {
        self.expected = self.expected.saturating_add(expected);
        self.missing = self.missing.saturating_add(missing);
    }

    /// Of the packets, percent.
    fn percent(self) -> f64 {
        100.0 * self.missing.max(0) as f64 / self.expected.max(1) as f64
    }

    /// What it may be in truth, by two standard deviations; the less was seen, the more. Of too few nothing is said.
    fn at_most(self) -> f64 {
        let missing = self.missing.max(0) as f64;
        let most = 100.0 * (missing + 2.0 * missing.sqrt() + 1.0) / self.expected.max(1) as f64;
        if self.expected >= LITTLE { most } else { 0.0 }
    }
}

/// One direction's, on the relay and off it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Quality {
    /// Highest number and loss by the report before.
    last: Option<(u32, i32)>,
    /// What the relay has missed of it, of its sender's line therefore.
    line: Window,
    /// What its receiver has, while it passed the relay.
    relay: Window,
    direct: Window,
    /// How many windows in a row lost too much, and how many reports had too much jitter.
    lossy: u8,
    shaky: u8,
}

impl Quality {
    /// It is moved, or has come home: what was sent meanwhile belongs to neither way.
    pub(super) fn begin(&mut self) {
        (self.last, self.direct, self.lossy, self.shaky) = (None, Window::default(), 0, 0);
    }

    /// The highest number by the report before, since it was moved or has come home.
    pub(super) fn highest(&self) -> Option<u32> {
        self.last.map(|last| last.0)
    }

    /// What was expected and is missing since the report before; `None` of the first, and where a count has begun anew.
    fn since(&mut self, report: &Reception) -> Option<(i64, i64)> {
        let (highest, lost) = self.last.replace((report.highest, report.lost))?;
        let expected = report.highest.wrapping_sub(highest) as i32;
        let missing = i64::from(report.lost).saturating_sub(lost.into());
        (expected >= 0 && missing <= i64::from(expected)).then_some((expected.into(), missing))
    }

    /// A report while its packets pass the relay.
    pub(super) fn on_relay(&mut self, report: &Reception) {
        if let Some(since) = self.since(report) {
            self.relay.fade();
            self.relay.add(since);
        }
    }

    /// So many of its packets were sent by way of the relay, and so many have come.
    pub(super) fn passes(&mut self, sent: u16, came: u64) {
        self.line.fade();
        let came = i64::try_from(came).unwrap_or(i64::MAX);
        self.line.add((sent.into(), i64::from(sent).saturating_sub(came)));
    }

    /// What its sender's line loses, percent. Mostly as much is lost on the way to it.
    pub(super) fn line_loss(&self) -> f64 {
        self.line.at_most()
    }

    /// A report while they do not: whether two windows in a row lost more than this, besides what the relay would lose too. The two
    /// phones' `lines` lose so much, percent.
    pub(super) fn is_too_lossy(&mut self, report: &Reception, percent: u32, lines: f64) -> bool {
        let Some(since) = self.since(report) else { return false };
        self.direct.add(since);
        if self.direct.expected < LEAST {
            return false;
        }
        let limit = f64::from(percent) + self.relay.at_most().max(lines);
        let is_lossy = std::mem::take(&mut self.direct).percent() > limit;
        self.lossy = if is_lossy { self.lossy.saturating_add(1) } else { 0 };
        self.lossy >= SUCCESSIVE
    }

    /// Whether two reports in a row have more jitter than this. One may have met the end of a silence, whose length some count as jitter.
    pub(super) fn is_too_shaky(&mut self, report: &Reception, clock_rate: u32, limit: Duration) -> bool {
        let is_shaky = f64::from(report.jitter) / f64::from(clock_rate.max(1)) > limit.as_secs_f64();
        self.shaky = if is_shaky { self.shaky.saturating_add(1) } else { 0 };
        self.shaky >= SUCCESSIVE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(highest: u32, lost: i32) -> Reception {
        Reception { ssrc: 7, highest, lost, jitter: 8 }
    }

    /// Direct reports, each of so many packets and lost ones; which of them was too much, at 10 %.
    fn too_lossy(quality: &mut Quality, reports: &[(u32, i32)]) -> Vec<bool> {
        quality.begin();
        let (mut highest, mut lost) = (70_000, 40);
        assert!(!quality.is_too_lossy(&report(highest, lost), 10, 0.0));
        let next = |(more, missing): &(u32, i32)| {
            (highest, lost) = (highest + more, lost + missing);
            quality.is_too_lossy(&report(highest, lost), 10, quality.line_loss())
        };
        reports.iter().map(next).collect()
    }

    #[test]
    fn two_windows_in_a_row_that_lose_more_than_the_limit_are_too_much() {
        let mut quality = Quality::default();
        assert_eq!(too_lossy(&mut quality, &[(250, 40), (250, 26)]), [false, true]);
        assert_eq!(too_lossy(&mut quality, &[(250, 40), (250, 20), (250, 60)]), [false; 3]);
    }

    #[test]
    fn a_few_packets_say_nothing_until_there_are_enough_of_them() {
        let few = [(20, 3); 4];
        assert_eq!(too_lossy(&mut Quality::default(), &few), [false; 4]);
        let many = [(25, 4); 8];
        assert_eq!(
            too_lossy(&mut Quality::default(), &many),
            [false, false, false, false, false, false, false, true]
        );
    }

    #[test]
    fn what_the_relay_loses_too_is_no_reason_to_go_back_to_it() {
        let mut quality = Quality::default();
        // 8 % of it.
        for number in 0..5 {
            quality.on_relay(&report(1_000 + number * 250, (number * 20) as i32));
        }
        assert_eq!(too_lossy(&mut quality, &[(250, 40), (250, 40)]), [false, false]);
        assert_eq!(too_lossy(&mut quality, &[(250, 55), (250, 55)]), [false, true]);
    }

    #[test]
    fn what_a_line_loses_on_either_way_is_no_reason() {
        let mut quality = Quality::default();
        quality.passes(300, 276);
        assert_eq!(too_lossy(&mut quality, &[(250, 40), (250, 40)]), [false, false]);
    }

    #[test]
    fn a_count_that_begins_anew_is_no_loss() {
        let mut quality = Quality::default();
        quality.on_relay(&report(90_000, 300));
        quality.on_relay(&report(20_000, 3));
        quality.on_relay(&report(20_250, 3));
        assert_eq!(quality.relay.percent(), 0.0);
        assert_eq!(quality.relay.expected, 250);
    }
}
