//! What a stream's receiver says of it (RFC 3550 §6.4.1), added up over reports, sources, and counts that begin anew: of the
//! whole way, and of the part of it that the relay did not carry.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// More packets than this a second between two reports are a fable.
const FASTEST: u64 = 2_000;
/// A first report about more is about nothing that was sent here.
const LONGEST: u32 = 1 << 24;
/// Packets that the relay has and the report does not know yet, or the other way round.
const OUT_OF_STEP: u64 = 5;
/// A report that comes so soon after a re-INVITE may be of the time before.
const UNDER_WAY: Duration = Duration::from_millis(100);

/// One that came so long after a re-INVITE is of the time after that, and there was none since.
const SETTLED: Duration = Duration::from_secs(1);

/// A reception report block.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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
    /// Packets that were sent to the receiver before it was known where it is, and have not reached it: its count begins after them.
    pub(crate) astray: u64,
    /// The receiver counts anew.
    pub(crate) is_anew: bool,
}

/// Reports, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Packets that they account for.
    pub(crate) expected: u64,
    /// Of them, lost.
    pub(crate) lost: u64,
    /// Greatest interarrival jitter, in clock units.
    pub(crate) jitter: u32,
    pub(crate) reports: u32,
}

/// What has become of packets that were sent off the relay since the last report, and of which none will tell, since their receiver has
/// begun to count anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// They have fared like the others.
    #[default]
    Alike,
    /// The path was dead.
    Lost,
    /// Something was wrong with it.
    Unknown,
}

impl Fate {
    /// Of a direction of which nothing, or nothing good, was heard, or that was or was not given up for another's sake.
    pub(crate) fn of(is_dead: Option<bool>, is_known: bool) -> Self {
        match (is_dead, is_known) {
            (Some(true), _) => Self::Lost,
            (Some(false), true) => Self::Alike,
            (Some(false), false) | (None, _) => Self::Unknown,
        }
    }
}

/// A receiver was told where to send and hear.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Restart {
    pub(crate) at: Duration,
    /// How many packets had been sent to it by way of the relay then.
    pub(crate) packets: u64,
    /// It was told the relay: what was sent to it past the relay is of the time before.
    pub(crate) is_home: bool,
}

timed!(Restart { at; packets, is_home });

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Latest {
    block: Block,
    packets: u64,
    lost: u64,
    at: Duration,
}

timed!(Latest { at; block, packets, lost });

/// See the module.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Reported {
    latest: Option<Latest>,
    pub(crate) fate: Fate,
    /// Its author counts anew with each re-INVITE, or may.
    pub(crate) is_forgetful: bool,
    /// Its author counts anew, and has not said yet what.
    is_begun_anew: bool,
    /// It must have begun to, by what it does not tell of: that its own count begins anew is no news.
    is_presumed: bool,
    /// When its author was last told where to send and hear, and more of that while no report is of the time after it.
    restarted: Duration,
    restart: Option<Restart>,
    /// Of packets that went astray so many have been counted: another source's first report is not about them.
    astray: u64,
    /// Packets that nobody can tell of.
    unknown: u64,
    /// Those that were forgotten on a good way; of them, those that never came to the relay; and those like them that were told of.
    forgotten: u64,
    forgotten_lost: u64,
    alike: Tally,
    whole: Tally,
    direct: Tally,
}

timed!(Reported { latest, restarted, restart; fate, is_forgetful, is_begun_anew, is_presumed, astray, unknown, forgotten, forgotten_lost, alike, whole, direct });

impl Reported {
    /// A block about a source that is known to be the stream's.
    pub(crate) fn hear(&mut self, block: Block, passed: Passed, now: Duration) {
        let latest = Latest { block, packets: passed.packets, lost: passed.lost, at: now };
        let Some(before) = self.latest.filter(|before| before.block.ssrc == block.ssrc) else {
            return self.hear_first(latest, passed);
        };
        let (far, near) = (
            block.highest.wrapping_sub(before.block.highest) as i32,
            (block.highest as u16).wrapping_sub(before.block.highest as u16) as i16,
        );
        let more = i64::from(block.lost).saturating_sub(before.block.lost.into());
        let is_told_anew = self.is_begun_anew || passed.is_anew;
        // A count of cycles that begins anew makes the number lower, though its last sixteen bits go on.
        let is_seen =
            (is_told_anew && (!self.is_presumed || self.restart.is_some())) || (far < 0 && near > 0);
        let expected = if is_seen { i64::from(near) } else { i64::from(far) };
        let span = now.saturating_sub(before.at).as_secs().saturating_add(1);
        let Ok(expected) = u64::try_from(expected) else { return };
        if expected > span.saturating_mul(FASTEST) {
            return;
        }
        (self.latest, self.is_begun_anew) = (Some(latest), false);
        let here = passed.packets.saturating_sub(before.packets);
        let elsewhere = expected.saturating_sub(here);
        let fate = self.fate;
        // Who sends nothing begins to count anew unseen, since its reports have no count of its own then: one that had gone on
        // would tell of what it has missed.
        let is_presumed = !is_seen
            && (fate == Fate::Lost || (fate == Fate::Unknown && self.is_forgetful))
            && elsewhere > OUT_OF_STEP
            && more.saturating_mul(2) < elsewhere as i64;
        // On hold it sends nothing either: what shows then is that its count of lost packets falls.
        let is_anew = is_seen || (!is_presumed && more < 0 && self.is_forgetful && self.restart.is_some());
        self.is_presumed = is_presumed || (is_anew && !is_seen) || (self.is_presumed && !is_told_anew);
        let lost = if is_anew || (is_presumed && more < 0) { i64::from(block.lost) } else { more };
        let begins_anew = is_anew || is_presumed;
        let restart = self.restart.filter(|_| begins_anew);
        let untold = if is_anew {
            // One that has left, and counts anew since, tells of all that it was sent elsewhere.
            let has_left = restart.is_some_and(|restart| !restart.is_home);
            if has_left && now >= self.restarted.saturating_add(SETTLED) { 0 } else { elsewhere }
        } else if is_presumed {
            elsewhere.saturating_sub(u64::try_from(lost).unwrap_or(0))
        } else {
            0
        };
        if begins_anew || now >= self.restarted.saturating_add(UNDER_WAY) {
            self.restart = None;
        }
        // What it had lost since its last report it has forgotten, on a way that is good, too.
        let forgotten = restart.map_or(0, |restart| {
            let away = if restart.is_home && fate == Fate::Alike { elsewhere } else { 0 };
            restart.packets.saturating_sub(before.packets).min(here).saturating_add(away)
        });
        let lost_here = passed.lost.saturating_sub(before.lost);
        self.forget(forgotten, lost_here.saturating_sub(u64::try_from(lost).unwrap_or(0)));
        if elsewhere <= OUT_OF_STEP || fate == Fate::Alike {
            self.alike.add(expected.saturating_sub(forgotten), lost, block.jitter);
        }
        let unheard = if fate == Fate::Lost { untold } else { 0 };
        if fate == Fate::Unknown {
            self.unknown = self.unknown.saturating_add(untold);
        }
        // Until one tells of packets at home alone: one that was on its way when they came home tells of a part.
        if elsewhere <= OUT_OF_STEP {
            self.fate = Fate::Alike;
        }
        let lost = lost.saturating_add_unsigned(unheard).min(expected as i64);
        self.whole.add(expected, lost, block.jitter);
        if elsewhere > expected / 10 && elsewhere > OUT_OF_STEP {
            // Where both kinds are in one report, they share its loss.
            let lost = lost.saturating_sub_unsigned(unheard);
            let share = if elsewhere.saturating_mul(10) >= expected.saturating_mul(9) {
                lost
            } else {
                lost.saturating_mul(elsewhere as i64).checked_div(expected as i64).unwrap_or(0)
            };
            self.direct.add(elsewhere, share.saturating_add_unsigned(unheard), block.jitter);
        }
    }

    /// The first block about a source, whose number was `first`.
    fn hear_first(&mut self, latest: Latest, passed: Passed) {
        (self.latest, self.is_begun_anew) = (Some(latest), false);
        let restart = self.restart.take().filter(|_| self.is_forgetful);
        let block = latest.block;
        let expected = passed.first.map(|first| block.highest.wrapping_sub(first.into()));
        // One that is before the first has not heard of it.
        if let Some(expected) = expected.filter(|expected| *expected < LONGEST) {
            let expected = u64::from(expected).saturating_add(1);
            let astray = passed.astray.saturating_sub(std::mem::replace(&mut self.astray, passed.astray));
            let lost = i64::from(block.lost).saturating_add_unsigned(astray).clamp(0, expected as i64);
            // What was before a re-INVITE it has forgotten, told or not.
            let elsewhere = restart.filter(|restart| restart.is_home);
            let elsewhere = elsewhere.map_or(0, |_| expected.saturating_sub(latest.packets));
            let untold = elsewhere.saturating_sub(lost.unsigned_abs());
            let here = restart.map_or(0, |restart| restart.packets).min(expected.saturating_sub(elsewhere));
            let (mut forgotten, mut unheard) = (here, 0);
            match self.fate {
                _ if elsewhere <= OUT_OF_STEP => {}
                Fate::Alike => forgotten = forgotten.saturating_add(elsewhere),
                Fate::Lost => unheard = untold,
                Fate::Unknown => self.unknown = self.unknown.saturating_add(untold),
            }
            self.forget(forgotten, latest.lost.saturating_sub(lost.unsigned_abs()));
            if elsewhere <= OUT_OF_STEP || self.fate == Fate::Alike {
                self.alike.add(expected.saturating_sub(forgotten), lost, block.jitter);
            }
            self.whole.add(expected, lost.saturating_add_unsigned(unheard), block.jitter);
        }
    }

    /// Its author counts anew what it receives.
    pub(crate) fn begins_anew(&mut self) {
        self.is_begun_anew = true;
    }

    /// Its author was told where to send and hear: who is known to count anew then forgets what it has lost since its last report.
    pub(crate) fn restarts(&mut self, restart: Restart) {
        if self.restarted != restart.at {
            (self.restarted, self.restart) = (restart.at, Some(restart));
        }
    }

    /// Of so many packets nobody tells; so many of them never came to the relay.
    fn forget(&mut self, packets: u64, lost: u64) {
        self.forgotten = self.forgotten.saturating_add(packets);
        self.forgotten_lost = self.forgotten_lost.saturating_add(lost.min(packets));
    }

    /// Packets that nobody can tell of: among those of the whole way.
    pub(crate) fn unknown(&self) -> u64 {
        let forgotten = self.forgotten.saturating_sub(self.forgotten_lost);
        let unlike = if self.resemble() { 0 } else { forgotten };
        self.unknown.saturating_add(unlike)
    }

    /// Of the whole way. Nothing was told of what was forgotten: that counts neither as come nor as lost, but
    /// as the others have fared. Where too few were told of, nobody knows.
    pub(crate) fn whole(&self) -> Tally {
        let share = if self.resemble() { self.share_of(self.forgotten) } else { 0 };
        let lost = self.whole.lost.saturating_add(share.max(self.forgotten_lost));
        Tally { lost: lost.min(self.whole.expected), ..self.whole }
    }

    /// Whether what was told of is enough to know how the forgotten have fared.
    fn resemble(&self) -> bool {
        self.tells_of(self.forgotten)
    }

    /// Whether what was told of is enough to know how so many more have fared: to a percent of all of them, by twice the standard error of a
    /// share. One packet that is lost and one that is not are added to what was told, since of a dozen of which none was lost nobody knows
    /// that none is.
    pub(crate) fn tells_of(&self, more: u64) -> bool {
        const ERROR: f64 = 0.01;
        if more == 0 {
            return true;
        }
        let (told, more) = (self.alike.expected as f64, more as f64);
        let share = (self.alike.lost as f64 + 1.0) / (told + 2.0);
        let spread = (share * (1.0 - share) * (1.0 / told + 1.0 / more)).sqrt();
        2.0 * spread * more / (told + more) <= ERROR
    }

    /// How many of so many are lost, if they have fared like those that were told of.
    pub(crate) fn share_of(&self, packets: u64) -> u64 {
        packets.saturating_mul(self.alike.lost).checked_div(self.alike.expected).unwrap_or(0)
    }

    /// Of what the relay did not carry.
    pub(crate) fn direct(&self) -> Option<Tally> {
        (self.direct.reports > 0).then_some(self.direct)
    }

    /// Jitter by the last report, in clock units.
    pub(crate) fn jitter(&self) -> u32 {
        self.latest.map_or(0, |latest| latest.block.jitter)
    }

    /// When the last report came; zero: never.
    pub(crate) fn told_at(&self) -> Duration {
        self.latest.map_or(Duration::ZERO, |latest| latest.at)
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
        told_of(Reported::default(), reports)
    }

    fn told_of(mut reported: Reported, reports: &[Said]) -> Reported {
        for (index, (highest, lost, packets, is_anew)) in reports.iter().enumerate() {
            let block = Block { ssrc: 7, highest: *highest, lost: *lost, jitter: 8 };
            let passed =
                Passed { first: Some(65_500), packets: *packets, lost: 0, astray: 0, is_anew: *is_anew };
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
    fn what_a_dead_path_has_taken_is_lost_though_its_receiver_counts_anew() {
        let dead = Reported { fate: Fate::Lost, ..Reported::default() };
        let reported = told_of(dead, &[(65_535, 2, 36, false), (649, 1, 486, true)]);
        assert_eq!((sums(reported.whole()), sums(reported.direct().unwrap())), ((686, 203), (200, 200)));
    }

    #[test]
    fn nobody_knows_what_became_of_them_if_something_was_wrong() {
        let doubtful = Reported { fate: Fate::Unknown, ..Reported::default() };
        let first = (65_535, 2, 36, false);
        assert_eq!(
            told_of(doubtful.clone(), &[first, (65_536 + 649, 3, 486, false)]).unknown(),
            0,
            "it is told"
        );
        let reported = told_of(doubtful, &[first, (649, 1, 486, true)]);
        assert_eq!((reported.unknown(), sums(reported.whole())), (200, (686, 3)));
    }

    #[test]
    fn who_begins_anew_unseen_cannot_have_got_what_a_dead_path_has_taken() {
        let dead = Reported { fate: Fate::Lost, ..Reported::default() };
        let unseen = [(65_535, 2, 36, false), (65_536 + 649, 3, 486, false), (65_536 + 899, 4, 736, true)];
        let reported = told_of(dead.clone(), &unseen);
        // Of 200 one is told of, and counted but once.
        assert_eq!(sums(reported.whole()), (936, 2 + 1 + 199 + 1));
        let goes_on = told_of(dead, &[(65_535, 2, 36, false), (65_536 + 649, 203, 486, false)]);
        assert_eq!(sums(goes_on.whole()), (686, 203));
    }

    #[test]
    fn a_report_that_was_on_its_way_home_tells_of_a_part() {
        let dead = Reported { fate: Fate::Lost, ..Reported::default() };
        let parts = [(65_535, 2, 36, false), (65_536 + 49, 0, 36, true), (65_536 + 649, 0, 486, false)];
        assert_eq!(sums(told_of(dead.clone(), &parts).whole()), (686, 2 + 50 + 150));
        let mut reported = told_of(dead, &parts);
        let block = Block { ssrc: 7, highest: 65_536 + 899, lost: 1, jitter: 8 };
        let passed = Passed { first: None, packets: 736, lost: 0, astray: 0, is_anew: false };
        reported.hear(block, passed, Duration::from_secs(15));
        assert_eq!(reported.fate, Fate::Alike);
    }

    fn hear(reported: &mut Reported, (highest, lost): (u32, i32), passed: (u64, u64), second: u64) {
        let block = Block { ssrc: 7, highest, lost, jitter: 8 };
        let passed = Passed { first: Some(1), packets: passed.0, lost: passed.1, astray: 0, is_anew: false };
        reported.hear(block, passed, Duration::from_secs(second));
    }

    #[test]
    fn who_begins_anew_on_hold_takes_nothing_back_of_what_it_had_lost() {
        let mut reported = Reported { is_forgetful: true, ..Reported::default() };
        hear(&mut reported, (1_000, 20), (1_000, 0), 20);
        reported.restarts(Restart { at: Duration::from_secs(24), packets: 1_200, is_home: true });
        hear(&mut reported, (1_210, 0), (1_210, 0), 25);
        hear(&mut reported, (1_460, 5), (1_460, 0), 30);
        // 25 were told, of 1,260 packets; of the 200 that were forgotten 3 are lost, as of the others.
        assert_eq!((sums(reported.whole()), reported.unknown()), ((1_460, 25 + 3), 0));
    }

    #[test]
    fn what_was_sent_before_its_receiver_was_found_is_lost_though_that_does_not_miss_it() {
        let mut reported = Reported::default();
        let block = Block { ssrc: 7, highest: 250, lost: 2, jitter: 8 };
        let passed = Passed { first: Some(1), packets: 250, lost: 0, astray: 24, is_anew: false };
        reported.hear(block, passed, Duration::from_secs(5));
        hear(&mut reported, (500, 4), (500, 0), 10);
        assert_eq!(sums(reported.whole()), (500, 24 + 4));
    }

    #[test]
    fn what_was_forgotten_is_unknown_where_little_else_was_told() {
        let mut reported = Reported { is_forgetful: true, ..Reported::default() };
        hear(&mut reported, (10, 0), (10, 0), 0);
        reported.begins_anew();
        reported.restarts(Restart { at: Duration::from_secs(5), packets: 260, is_home: true });
        // But 4 of them never came as far as the relay.
        hear(&mut reported, (270, 0), (270, 4), 6);
        assert_eq!((sums(reported.whole()), reported.unknown()), ((270, 4), 246));
    }

    #[test]
    fn a_first_report_after_a_trial_tells_nothing_of_it() {
        let mut reported = Reported { is_forgetful: true, fate: Fate::Unknown, ..Reported::default() };
        reported.restarts(Restart { at: Duration::from_secs(1), packets: 30, is_home: true });
        hear(&mut reported, (80, 1), (40, 0), 2);
        assert_eq!((sums(reported.whole()), reported.unknown()), ((80, 1), 39 + 30));
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
