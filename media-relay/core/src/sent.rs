//! What a stream's sender counts (RFC 3550 §6.4.1), beside what came here: what it sends, and the relay does not see.
//!
//! Time is billed by this. A phone or endpoint that says nothing of its path, or the wrong thing, changes nothing of what it sends.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// Reports are not in step with the packets that they count, and the last ones before a change may be lost: fewer prove nothing.
const ENOUGH: u32 = 5;
/// An encrypted report does not show its count, but its type: a sender report says that something was sent in the interval
/// before it or the one before that (RFC 3550 §6.4), so the third in a row is about the time since the first.
const SEALED: u8 = 3;

/// The last RTP packet that came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Here {
    pub(crate) ssrc: u32,
    pub(crate) number: u16,
    pub(crate) at: Duration,
}

timed!(Here { at; ssrc, number });

/// One sender report.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Count {
    ssrc: u32,
    packets: u32,
    /// How many had come here, of whatever source, and the last of them.
    came: u64,
    here: Option<Here>,
    at: Duration,
}

timed!(Count { here, at; ssrc, packets, came });

impl Count {
    /// Packets that were sent at least between it and the last one here now.
    fn sent_until(&self, here: Option<Here>, came: u64) -> u64 {
        let by_numbers =
            self.here.zip(here).filter(|(then, now)| then.ssrc == now.ssrc).map(|(then, now)| {
                let numbers = u64::from(now.number.wrapping_sub(then.number));
                let since = self.at.saturating_sub(then.at).as_millis() as u64;
                // Some were sent after the last one here, and are in this count.
                if numbers < 0x8000 {
                    numbers.saturating_sub(since.saturating_mul(FASTEST) / 1_000)
                } else {
                    0
                }
            });
        came.saturating_sub(self.came).max(by_numbers.unwrap_or(0))
    }
}

/// Reports further apart than this have not overtaken each other.
const OVERTAKEN: Duration = Duration::from_millis(300);
/// Nor do they differ by more packets then.
const OVERTAKEN_BY: u32 = 30;
/// A stream that was heard so lately comes here.
const FLOWING: Duration = Duration::from_millis(100);
/// Packets a second of a stream of sound, and half as many again.
const FASTEST: u64 = 75;
/// Packets that were under way, or came twice.
const UNDER_WAY: u64 = 10;

/// See the module.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Sent {
    latest: Option<Count>,
    /// What follows is of the time since this last packet here.
    since: Duration,
    elsewhere: u32,
    sealed: u8,
    silent_until: Duration,
    /// By how much a source's count is greater than its numbers, modulo 2^16: known when it comes here.
    offset: Option<(u32, u16)>,
    /// What comes next is no news, but what news is reckoned from: its own count, and its receiver's.
    is_count_stale: bool,
    is_reach_stale: bool,
    /// How far its receiver had come then.
    reach: u16,
}

timed!(Sent { latest, since, silent_until; elsewhere, sealed, offset, is_count_stale, is_reach_stale, reach });

impl Sent {
    /// A sender report in clear; so many packets have come here. True if its author counts anew.
    pub(crate) fn count(
        &mut self,
        (ssrc, packets): (u32, u32),
        here: Option<Here>,
        came: u64,
        now: Duration,
    ) -> bool {
        let before = self.latest.filter(|before| before.ssrc == ssrc);
        // One that has just begun anew counts far fewer.
        let was_overtaken = |before: Count| {
            (1..=OVERTAKEN_BY).contains(&before.packets.saturating_sub(packets))
                && now < before.at.saturating_add(OVERTAKEN)
        };
        if before.is_some_and(was_overtaken) {
            return false;
        }
        self.latest = Some(Count { ssrc, packets, came, here, at: now });
        // Fewer than have come here: a phone that begins anew soon counts as many as it did the time before.
        let is_anew = before.is_some_and(|before| {
            let since = before.sent_until(here, came);
            packets < before.packets
                || u64::from(packets.saturating_sub(before.packets)).saturating_add(UNDER_WAY) < since
        });
        if is_anew {
            self.offset = None;
        }
        let Some(here) = here else { return is_anew };
        self.renew(here.at);
        if here.ssrc == ssrc && now <= here.at.saturating_add(FLOWING) {
            self.offset = Some((ssrc, (packets as u16).wrapping_sub(here.number)));
            return is_anew;
        }
        if is_anew || std::mem::take(&mut self.is_count_stale) {
            return is_anew;
        }
        let more = before.map(|before| packets.saturating_sub(before.packets));
        let sent = match (before, self.offset) {
            (Some(before), _) if before.at > here.at => more,
            // Its numbers have counted all until the last packet here, lost ones too.
            (_, Some((known, offset))) if known == ssrc && here.ssrc == ssrc => {
                let ahead = (packets as u16).wrapping_sub(offset).wrapping_sub(here.number);
                Some(if ahead < 0x8000 { u32::from(ahead) } else { 0 })
            }
            // A source that was never heard here has sent all elsewhere.
            _ if here.ssrc != ssrc => Some(more.unwrap_or(packets)),
            _ => None,
        };
        match sent {
            Some(0) => self.silent_until = now,
            Some(sent) => self.elsewhere = self.elsewhere.saturating_add(sent),
            None => {}
        }
        is_anew
    }

    /// An encrypted sender report.
    pub(crate) fn count_sealed(&mut self, here: Option<Here>) {
        if let Some(here) = here {
            self.renew(here.at);
            self.sealed = self.sealed.saturating_add(1);
        }
    }

    /// An encrypted report of a party that sends nothing.
    pub(crate) fn sealed_silence(&mut self) {
        self.sealed = 0;
    }

    /// Its receiver has got a packet that is so much later than the last one here.
    pub(crate) fn reached(&mut self, ssrc: u32, highest: u32, here: Option<Here>) {
        let Some(here) = here.filter(|here| here.ssrc == ssrc) else { return };
        self.renew(here.at);
        let ahead = (highest as u16).wrapping_sub(here.number);
        if ahead >= 0x8000 {
            return;
        }
        if std::mem::take(&mut self.is_reach_stale) {
            self.reach = ahead;
        }
        self.elsewhere = self.elsewhere.max(ahead.saturating_sub(self.reach).into());
    }

    /// Since when it has been sending past the relay, if that is sure.
    pub(crate) fn elsewhere_since(&self, here: Option<Here>) -> Option<Duration> {
        let here = here.filter(|here| here.at == self.since)?;
        (self.elsewhere >= ENOUGH || self.sealed >= SEALED).then_some(here.at.max(self.silent_until))
    }

    /// Its author was told to send to the relay again: what it has sent elsewhere until now says nothing of what comes, whether or
    /// not a report has been heard since the last packet here.
    pub(crate) fn forget(&mut self, here: Option<Here>, now: Duration) {
        self.renew(here.map_or(self.since, |here| here.at));
        (self.elsewhere, self.sealed, self.silent_until) = (0, 0, now);
        (self.is_count_stale, self.is_reach_stale) = (true, true);
    }

    /// All that a source has sent, as it says.
    pub(crate) fn total(&self) -> u64 {
        self.latest.map_or(0, |latest| latest.packets.into())
    }

    /// Whose packets it counts.
    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.latest.map(|latest| latest.ssrc)
    }

    fn renew(&mut self, heard: Duration) {
        if self.since != heard {
            (self.since, self.elsewhere, self.sealed, self.silent_until) = (heard, 0, 0, heard);
            (self.is_count_stale, self.is_reach_stale, self.reach) = (false, false, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARD: Duration = Duration::from_secs(10);

    fn here(number: u16) -> Option<Here> {
        Some(Here { ssrc: 7, number, at: HEARD })
    }

    fn after(seconds: u64) -> Duration {
        HEARD + Duration::from_secs(seconds)
    }

    #[test]
    fn a_count_that_grows_while_nothing_comes_here_was_sent_elsewhere() {
        let mut sent = Sent::default();
        let before = Some(Here { ssrc: 7, number: 65_500, at: Duration::from_secs(8) });
        sent.count((7, 400), before, 400, Duration::from_secs(8));
        sent.count((7, 500), here(64), 500, after(2));
        assert_eq!(sent.elsewhere_since(here(64)), None, "they came, over the wrap");
        sent.count((7, 600), here(64), 500, after(7));
        assert_eq!(sent.elsewhere_since(here(64)), Some(after(2)), "since it said that it was silent");
        let again = Some(Here { ssrc: 7, number: 170, at: after(8) });
        assert_eq!(sent.elsewhere_since(again), None);
        sent.count((7, 850), again, 501, after(12));
        assert_eq!(sent.elsewhere_since(again), Some(after(8)), "a packet here changes nothing of the count");
    }

    #[test]
    fn what_was_sent_before_they_were_told_to_come_home_says_nothing() {
        let mut sent = Sent::default();
        sent.count((7, 100), Some(Here { ssrc: 7, number: 1_000, at: after(0) }), 100, HEARD);
        sent.count((7, 350), here(1_000), 100, after(5));
        assert_eq!(sent.elsewhere_since(here(1_000)), Some(HEARD));
        sent.forget(here(1_000), after(6));
        sent.count((7, 400), here(1_000), 100, after(10));
        assert_eq!(sent.elsewhere_since(here(1_000)), None, "some of it may be of the time before");
        sent.count((7, 650), here(1_000), 100, after(15));
        assert_eq!(sent.elsewhere_since(here(1_000)), Some(after(6)));
    }

    #[test]
    fn nor_does_what_a_receiver_tells_late_of_it() {
        let mut sent = Sent::default();
        sent.count((7, 100), Some(Here { ssrc: 7, number: 1_000, at: after(0) }), 100, HEARD);
        // A short trial, of which no report has told yet when they are told to come home.
        let last = Some(Here { ssrc: 7, number: 1_090, at: after(2) });
        sent.forget(last, after(3));
        sent.reached(7, 1_114, last);
        assert_eq!(sent.elsewhere_since(last), None);
        sent.reached(7, 1_140, last);
        assert_eq!(sent.elsewhere_since(last), Some(after(3)));
    }

    #[test]
    fn silence_and_reports_out_of_order_prove_nothing() {
        let mut sent = Sent::default();
        for (millisecond, packets) in [(1_000, 503), (6_000, 503), (6_100, 502), (11_000, 503)] {
            let at = HEARD + Duration::from_millis(millisecond);
            assert!(!sent.count((7, packets), here(500), 500, at));
            assert_eq!(sent.elsewhere_since(here(500)), None);
        }
        assert!(sent.count((7, 10), here(500), 500, after(21)), "it counts anew");
        assert!(sent.elsewhere_since(here(500)).is_none());
        assert!(!sent.count((7, 260), here(500), 500, after(26)));
        assert!(sent.elsewhere_since(here(500)).is_some());
    }

    #[test]
    fn one_that_counts_fewer_than_have_come_has_begun_anew() {
        let mut sent = Sent::default();
        let at = |number: u16, at: u64| Some(Here { ssrc: 7, number, at: after(at) });
        assert!(!sent.count((7, 10), at(10, 1), 10, after(1)));
        assert!(!sent.count((7, 260), at(260, 6), 260, after(6)));
        assert!(sent.count((7, 260), at(500, 11), 500, after(11)));
    }

    #[test]
    fn one_that_begins_anew_right_after_a_report_was_not_overtaken() {
        let mut sent = Sent::default();
        let at = |milliseconds: u64| HEARD + Duration::from_millis(milliseconds);
        assert!(!sent.count((7, 250), here(500), 250, at(5_000)));
        assert!(sent.count((7, 8), here(500), 250, at(5_260)));
    }

    #[test]
    fn one_that_begins_anew_twice_in_a_second_is_caught_by_its_numbers() {
        let mut sent = Sent::default();
        let at = |number: u16, milliseconds: u64| {
            Some(Here { ssrc: 7, number, at: HEARD + Duration::from_millis(milliseconds) })
        };
        assert!(!sent.count((7, 10), at(100, 560), 26, HEARD + Duration::from_millis(800)));
        assert!(sent.count((7, 10), at(150, 1_590), 36, HEARD + Duration::from_millis(1_600)));
    }

    #[test]
    fn a_new_source_that_never_came_here_and_what_its_receiver_got_tell_as_well() {
        let mut sent = Sent::default();
        sent.count((8, 250), here(500), 500, after(5));
        assert_eq!(sent.elsewhere_since(here(500)), Some(HEARD));
        let mut sent = Sent::default();
        sent.reached(7, 65_536 + 502, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), None);
        sent.reached(7, 65_536 + 740, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), Some(HEARD));
        sent.forget(here(500), after(5));
        sent.reached(7, 65_536 + 780, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), None);
        sent.reached(7, 65_536 + 790, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), Some(after(5)));
    }

    #[test]
    fn the_third_encrypted_sender_report_in_a_row_tells() {
        let mut sent = Sent::default();
        sent.count_sealed(here(5));
        sent.count_sealed(here(5));
        assert_eq!(sent.elsewhere_since(here(5)), None);
        sent.count_sealed(here(5));
        assert_eq!(sent.elsewhere_since(here(5)), Some(HEARD));
        sent.sealed_silence();
        assert_eq!(sent.elsewhere_since(here(5)), None);
    }
}
