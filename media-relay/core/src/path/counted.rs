//! What a sender says that it has sent, as sequence numbers.
//!
//! Only what was sent can be missed. A sender report counts packets (RFC 3550 §6.4.1), a receiver's report names the highest
//! sequence number; the difference between the two is the same for all packets of a stream, and here it is known from below:
//! what is reckoned to have been sent was sent, and perhaps more. So whoever is silent (voice activity detection, comfort noise
//! of RFC 3389, mute, an announcement one way) is never taken for somebody who is not heard, whatever its rate was before.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// A sender's report and its packets may have overtaken each other by so many.
const REORDERED: u16 = 5;
/// So many may have been sent between a re-INVITE's answer and what the relay had seen when that came.
const UNDER_WAY: u16 = 15;
/// A count that is so much less than what the relay has carried has begun anew.
const SHORT: i64 = 50;
/// Most send a packet every 20 ms. Who was seen to send more than `HASTY` a second sends one every 10 ms, or video.
const USUAL: f64 = 50.0;
const HASTY: f64 = 70.0;
/// So long must be looked at packets for their rate: what a stalled network delivers at once is no rate.
const WINDOW: Duration = Duration::from_millis(1_600);
/// So many may be sent at once, as a picture is, or have been held up.
const BURST: f64 = 500.0;
/// Bounds that are further away than this say nothing.
const FAR: f64 = 10_000.0;
/// A stream that was heard so lately passes the relay.
const PASSING: Duration = Duration::from_millis(500);
/// Between two reports that are nearer than this no more than one was lost: three times the shortest interval (RFC 3550 §6.2, §6.3.1:
/// 5 s · 0.5 / (e − 3/2)).
const ONE_LOST_AT_MOST: Duration = Duration::from_millis(3 * 2_050);

/// One stream's, over its life: on the relay and off it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Counted {
    /// The latest count, and when it was last told, if only by a report without one that nothing more was sent.
    said: Option<(u32, Duration)>,
    /// When a report with a count last came.
    counted: Option<Duration>,
    /// Those before it, the latest first, each when it was first told too; 0 where it has begun anew.
    earlier: [Option<(u32, Duration)>; 4],
    /// When its sender last told how much it sends, if only that it sends nothing.
    spoke: Option<Duration>,
    /// It has counted something: a sender whose count is always 0 says nothing by that.
    is_counting: bool,
    /// The sequence number of a packet is its count and at least this, modulo 2^16.
    floor: Option<u16>,
    /// The relay has seen that, and it is no mere bound.
    is_seen: bool,
    /// The highest number that its receiver has reported, and when.
    received: Option<(u16, Duration)>,
    /// The most packets a second that it sends.
    peak: f64,
    window: Option<(u64, Duration)>,
}

timed!(Counted { said, counted, earlier, spoke, received, window; is_counting, floor, is_seen, peak });

impl Default for Counted {
    fn default() -> Self {
        Self {
            said: None,
            counted: None,
            earlier: [None; 4],
            spoke: None,
            is_counting: false,
            floor: None,
            is_seen: false,
            received: None,
            peak: USUAL,
            window: None,
        }
    }
}

/// By how much one number is later than another, over the wrap.
pub(super) fn later(one: u16, than: u16) -> i64 {
    i64::from(one.wrapping_sub(than) as i16)
}

impl Counted {
    /// The relay has carried so many of its packets.
    pub fn passes(&mut self, packets: u64, now: Duration) {
        let (before, since) = *self.window.get_or_insert((packets, now));
        let span = now.saturating_sub(since);
        if span >= WINDOW {
            self.hurries(packets.saturating_sub(before) as f64 / span.as_secs_f64());
            self.window = Some((packets, now));
        }
    }

    fn hurries(&mut self, rate: f64) {
        if rate > HASTY {
            self.peak = self.peak.max(rate).clamp(2.0 * USUAL, 2_000.0);
        }
    }

    /// The most packets a second.
    pub fn peak(&self) -> f64 {
        self.peak
    }

    /// How many it may send in a time; `None`: so many that nothing can be said.
    pub(super) fn most(&self, span: Duration) -> Option<u16> {
        let most = (span.as_secs_f64() * self.peak).ceil();
        (most < FAR).then_some(most as u16)
    }

    fn raise(&mut self, floor: u16) {
        if self.floor.is_none_or(|known| later(floor, known) > 0) {
            self.floor = Some(floor);
        }
    }

    /// Its sender's report. `relayed` is the latest packet that the relay has carried, and when.
    pub fn says(&mut self, packets: u32, relayed: Option<(u16, Duration)>, now: Duration) {
        self.says_since(packets, relayed, None, now);
    }

    /// The same; `moved` is the last packet that the relay had carried when the phone took its re-INVITE.
    pub fn says_since(
        &mut self,
        packets: u32,
        relayed: Option<(u16, Duration)>,
        moved: Option<u16>,
        now: Duration,
    ) {
        let before = self.tells(packets, now);
        self.counted = Some(now);
        self.is_counting |= packets > 0;
        self.spoke = Some(now).filter(|_| self.is_counting).or(self.spoke);
        if let Some((count, at)) = before {
            let span = now.saturating_sub(at);
            let more = packets.wrapping_sub(count);
            // It would not have sent what the relay had carried of it.
            let falls_short = moved
                .zip(self.floor)
                .is_some_and(|(moved, floor)| later(moved, floor.wrapping_add(packets as u16)) > SHORT)
                && self.is_seen;
            if falls_short || f64::from(more) > span.as_secs_f64() * self.peak * 2.0 + BURST {
                // Less, or more than anybody can have sent meanwhile. It counts anew, as PJSIP does with each re-INVITE: all that it had
                // counted came before.
                self.is_seen = false;
                self.earlier = [Some((0, at)), None, None, None];
                self.floor = self.floor.map(|floor| floor.wrapping_add(count as u16));
                if let Some(moved) = moved {
                    self.raise(moved.wrapping_sub(UNDER_WAY));
                }
            } else if span >= WINDOW {
                self.hurries(f64::from(more) / span.as_secs_f64());
            }
        }
        let floor_by = |number: u16| number.wrapping_sub(packets as u16).wrapping_sub(REORDERED);
        if let Some((number, heard)) = relayed {
            // Where its packets pass the relay it is known; a stream may have begun anew.
            if now < heard.saturating_add(PASSING) {
                (self.floor, self.is_seen) = (Some(floor_by(number)), true);
            } else {
                self.raise(floor_by(number));
            }
        }
        if let Some((number, _)) = self.received {
            self.raise(floor_by(number));
        }
    }

    /// It says in a report without a sender's part that it has sent nothing since its last but one (RFC 3550 §6.4): its count is
    /// what it was, unless reports that told of more were lost. Some (oRTP, PJSIP) say it of the last one alone, so that one lost report is
    /// enough for an error: where its receiver has had more than it counted, that is what has happened.
    pub fn rests(&mut self, now: Duration) {
        self.spoke = Some(now).filter(|_| self.is_counting).or(self.spoke);
        if let Some((count, at)) = self.said
            && now.saturating_sub(at) < ONE_LOST_AT_MOST
            && !self.received.is_some_and(|(number, _)| self.is_more(number, count))
        {
            self.tells(count, now);
        }
    }

    /// Whether a number is of a packet that was sent after so many.
    fn is_more(&self, number: u16, count: u32) -> bool {
        let slack = i64::from(REORDERED).saturating_mul(2);
        self.floor.is_some_and(|floor| later(number, floor.wrapping_add(count as u16)) > slack)
    }

    /// So many by now; what it had said before. Of a count that stands, the first moment and the last are kept.
    fn tells(&mut self, packets: u32, now: Duration) -> Option<(u32, Duration)> {
        let before = self.said.replace((packets, now));
        let [first, second, third, _] = self.earlier;
        let stands = [before, first].into_iter().all(|said| said.is_some_and(|said| said.0 == packets));
        if before.is_some() && !stands {
            self.earlier = [before, first, second, third];
        }
        before
    }

    /// Whether its sender has told how much it sends since then.
    pub fn has_spoken_since(&self, since: Duration) -> bool {
        self.spoke.is_some_and(|at| at > since)
    }

    /// Whether its sender counts what it sends.
    pub fn is_counting(&self) -> bool {
        self.is_counting
    }

    /// Its latest count.
    pub fn count(&self) -> Option<u32> {
        self.said.map(|said| said.0)
    }

    /// Its receiver has reported this number; `goes_on` if that is further than before.
    pub fn reaches(&mut self, number: u16, goes_on: bool, now: Duration) {
        self.received = Some((number, now));
        let Some(((count, _), at)) = self.said.zip(self.counted) else { return };
        if self.is_more(number, count) {
            // A report that told of it was lost, and that nothing more was sent is not so.
            self.said = Some((count, at));
        }
        // This packet's count is no more than what can have been sent since the latest count was told.
        if let Some(most) = self.most(now.saturating_sub(at)) {
            let count = (count as u16).wrapping_add(most);
            self.raise(number.wrapping_sub(count).wrapping_sub(REORDERED));
        }
        // On a path that works what was counted has arrived: a sender that counts what it does not send drifts no further.
        let counted = self.floor.map(|floor| floor.wrapping_add(count as u16));
        if let Some(counted) = counted
            && goes_on
            && later(counted, number) > 0
        {
            self.floor = self.floor.map(|floor| floor.wrapping_sub(counted.wrapping_sub(number)));
        }
    }

    /// The sequence number that was sent by then at least. A count that was told later counts too, but for what can have been sent
    /// after that moment.
    pub fn sent_by(&self, then: Duration) -> Option<u16> {
        let ((latest, _), floor) = (self.said?, self.floor?);
        let short = |&(count, at): &(u32, Duration)| {
            Some(latest.wrapping_sub(count).saturating_add(self.most(at.saturating_sub(then))?.into()))
        };
        let short = self.told().filter_map(short).min().filter(|short| f64::from(*short) < FAR)?;
        Some(floor.wrapping_add(latest as u16).wrapping_sub(short as u16))
    }

    /// What it has said, the latest first.
    fn told(&self) -> impl Iterator<Item = &(u32, Duration)> {
        self.said.iter().chain(self.earlier.iter().flatten())
    }

    /// How many it must have sent between two moments, by its counts before, between and after them.
    pub fn sent_between(&self, from: Duration, until: Duration) -> u32 {
        let Some((latest, _)) = self.said else { return 0 };
        // In how far each was short of the latest, since counts wrap.
        let short = |count: u32| latest.wrapping_sub(count);
        let most = |span: Duration| (span.as_secs_f64() * self.peak).ceil() as u32;
        let until_then =
            self.told().map(|&(count, at)| short(count).saturating_add(most(at.saturating_sub(until))));
        let by_then =
            self.told().map(|&(count, at)| short(count).saturating_sub(most(from.saturating_sub(at))));
        by_then.max().unwrap_or(0).saturating_sub(until_then.min().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    /// Numbers are counts and 1000; everything passed the relay until 10 s.
    fn counted() -> Counted {
        let mut counted = Counted::default();
        counted.says(500, Some((1_500, at(9_990))), at(10_000));
        counted
    }

    #[test]
    fn what_was_sent_is_what_was_counted() {
        let mut counted = counted();
        assert_eq!(counted.sent_by(at(10_000)), Some(1_495), "but for what may have overtaken the report");
        counted.says(760, None, at(15_200));
        assert_eq!(counted.sent_by(at(16_000)), Some(1_755));
        assert_eq!(counted.sent_by(at(13_200)), Some(1_655), "all of it may have been sent in the end");
        counted.says(760, None, at(20_400));
        assert_eq!(counted.sent_by(at(20_400)), Some(1_755), "it was silent");
    }

    #[test]
    fn what_was_sent_between_two_moments_is_what_counts_beside_them_leave() {
        let mut counted = counted();
        counted.says(750, None, at(15_000));
        assert_eq!(
            counted.sent_between(at(9_000), at(16_000)),
            250,
            "nobody knows what was sent before the first"
        );
        assert_eq!(
            counted.sent_between(at(11_000), at(15_000)),
            200,
            "50 may have been sent in the first second"
        );
        assert_eq!(counted.sent_between(at(10_000), at(14_000)), 200, "or in the last");
        counted.says(751, None, at(20_000));
        counted.says(751, None, at(25_000));
        assert_eq!(counted.sent_between(at(19_000), at(25_000)), 0, "it was silent");
        assert_eq!(counted.sent_between(at(10_000), at(25_000)), 251);
        counted.says(40, None, at(26_000));
        assert_eq!(counted.sent_between(at(25_000), at(26_000)), 40, "counted anew");
        assert_eq!(Counted::default().sent_between(at(0), at(9)), 0);
    }

    #[test]
    fn a_report_without_a_count_says_that_the_last_one_stands() {
        let mut counted = counted();
        for second in [15, 20, 25] {
            counted.rests(at(second * 1_000));
        }
        counted.says(570, None, at(29_000));
        assert_eq!(
            counted.sent_between(at(24_000), at(29_000)),
            70,
            "all of it after the last that was told"
        );
        assert_eq!(counted.sent_between(at(10_000), at(25_000)), 0, "and none before");
        assert_eq!(counted.sent_by(at(20_000)), Some(1_495));
        let mut counted = self::counted();
        for second in [15, 22, 25] {
            counted.rests(at(second * 1_000));
        }
        counted.says(570, None, at(29_000));
        assert_eq!(counted.sent_between(at(24_000), at(29_000)), 0, "two may be lost that told of it");
        assert_eq!(counted.sent_between(at(15_000), at(29_000)), 70);
    }

    #[test]
    fn that_the_count_stands_is_not_so_where_more_has_come_than_was_counted() {
        for knows_before in [true, false] {
            let mut counted = counted();
            // The report that told of 60 more is lost.
            if knows_before {
                counted.reaches(1_559, true, at(11_400));
            }
            counted.rests(at(12_000));
            counted.reaches(1_559, !knows_before, at(12_100));
            counted.rests(at(13_000));
            counted.says(580, None, at(15_000));
            assert_eq!(counted.sent_by(at(15_000)), Some(1_575), "{knows_before}");
            assert_eq!(counted.sent_between(at(13_000), at(15_000)), 0, "{knows_before}");
        }
    }

    #[test]
    fn what_was_told_before_a_moment_holds_there_whatever_came_after_it() {
        let mut counted = counted();
        counted.says(600, None, at(12_000));
        counted.says(601, None, at(60_000));
        assert_eq!(counted.sent_by(at(13_000)), Some(1_595));
    }

    #[test]
    fn of_one_that_has_never_counted_nothing_is_known() {
        let mut counted = Counted::default();
        assert_eq!(counted.sent_by(at(1)), None);
        counted.rests(at(1));
        counted.says(0, Some((7, at(1))), at(2));
        assert!(!counted.has_spoken_since(Duration::ZERO));
        counted.says(3, None, at(3));
        counted.rests(at(4));
        assert!(counted.has_spoken_since(at(3)));
    }

    #[test]
    fn a_count_that_wraps_goes_on_and_one_that_begins_anew_is_counted_from_there() {
        let mut counted = Counted::default();
        counted.says(u32::MAX - 9, Some((1_000, at(9_990))), at(10_000));
        counted.says(40, None, at(11_000));
        assert_eq!(counted.sent_by(at(11_000)), Some(1_045));
        counted.says(10, None, at(11_200));
        assert_eq!(counted.sent_by(at(11_200)), Some(1_055));
    }

    #[test]
    fn a_receivers_number_tells_how_counts_and_numbers_belong_together() {
        let mut counted = Counted::default();
        counted.says(100, None, at(10_000));
        assert_eq!(counted.sent_by(at(10_000)), None);
        counted.reaches(1_150, true, at(11_000));
        assert_eq!(counted.sent_by(at(11_000)), Some(1_095), "50 may have been sent in between");
        counted.reaches(1_350, true, at(15_000));
        counted.says(350, None, at(15_020));
        assert_eq!(counted.sent_by(at(15_020)), Some(1_345), "the nearest report counts");
    }

    #[test]
    fn what_is_counted_and_not_sent_is_no_loss_where_packets_go_on_arriving() {
        let mut counted = counted();
        for second in 1..100u32 {
            let now = at(10_000 + u64::from(second) * 1_000);
            counted.says(500 + second * 52, None, now);
            let number = 1_500 + second as u16 * 50;
            let sent = counted.sent_by(now).unwrap();
            assert!(later(sent, number) < 25, "{sent} {number}");
            counted.reaches(number, true, now);
        }
    }
}
