//! What a stream's sender counts (RFC 3550 §6.4.1), beside what came here: what it sends, and the relay does not see.
//!
//! Time is billed by this. A phone or endpoint that says nothing of its path, or the wrong thing, changes nothing of what it sends.

use std::time::Duration;

/// Reports are not in step with the packets that they count, and the last ones before a change may be lost: fewer prove nothing.
const ENOUGH: u32 = 5;
/// An encrypted report does not show its count, but its type: a sender report says that something was sent in the interval
/// before it or the one before that (RFC 3550 §6.4), so the third in a row is about the time since the first.
const SEALED: u8 = 3;

/// The last RTP packet that came here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) ssrc: u32,
    pub(crate) number: u16,
    pub(crate) at: Duration,
}

/// One sender report.
#[derive(Debug, Clone, Copy)]
struct Count {
    ssrc: u32,
    packets: u32,
    /// How far the numbers of that source had come here.
    number: Option<u16>,
    at: Duration,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sent {
    latest: Option<Count>,
    /// What follows is of the time since this last packet here.
    since: Duration,
    elsewhere: u32,
    sealed: u8,
    silent_until: Duration,
    /// What comes next is no news, but what news is reckoned from: its own count, and its receiver's.
    is_count_stale: bool,
    is_reach_stale: bool,
    /// How far its receiver had come then.
    reach: u16,
    has_begun_anew: bool,
}

impl Sent {
    /// A sender report in clear.
    pub(crate) fn count(&mut self, ssrc: u32, packets: u32, here: Option<Here>, now: Duration) {
        let number = here.filter(|here| here.ssrc == ssrc).map(|here| here.number);
        let before = self.latest.filter(|before| before.ssrc == ssrc);
        if let Some(before) = before
            && is_older(packets, before.packets)
        {
            return;
        }
        self.latest = Some(Count { ssrc, packets, number, at: now });
        let Some(here) = here else { return };
        self.renew(here.at);
        let sent = match before {
            Some(before) if packets < before.packets => {
                self.has_begun_anew = true;
                return;
            }
            Some(before) => {
                let sent = packets.saturating_sub(before.packets);
                match (before.number, number) {
                    _ if before.at > here.at => Some(sent),
                    // Until the last packet here its numbers have counted them, lost ones too.
                    (Some(from), Some(to)) => Some(sent.saturating_sub(u32::from(to.wrapping_sub(from)))),
                    _ => None,
                }
            }
            // A source that was never heard here has sent all elsewhere.
            None => number.is_none().then_some(packets),
        };
        if std::mem::take(&mut self.is_count_stale) {
            return;
        }
        match sent {
            Some(0) => self.silent_until = now,
            Some(sent) => self.elsewhere = self.elsewhere.saturating_add(sent),
            None => {}
        }
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

    /// Its author was told to send to the relay again: what it has sent elsewhere until now says nothing of what comes.
    pub(crate) fn forget(&mut self, now: Duration) {
        (self.elsewhere, self.sealed, self.silent_until) = (0, 0, now);
        (self.is_count_stale, self.is_reach_stale) = (true, true);
    }

    /// Whether its author has forgotten what it counted before, since this was asked last: it forgets what it lost, too.
    pub(crate) fn begun_anew(&mut self) -> bool {
        std::mem::take(&mut self.has_begun_anew)
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

/// Whether a count was overtaken on its way. One that has begun anew is far lower.
fn is_older(packets: u32, before: u32) -> bool {
    packets < before && packets > before / 2 && before.saturating_sub(packets) < 1_000
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
        sent.count(7, 400, before, Duration::from_secs(8));
        sent.count(7, 500, here(64), after(2));
        assert_eq!(sent.elsewhere_since(here(64)), None, "they came, over the wrap");
        sent.count(7, 600, here(64), after(7));
        assert_eq!(sent.elsewhere_since(here(64)), Some(after(2)), "since it said that it was silent");
        assert_eq!(sent.elsewhere_since(Some(Here { at: after(8), ..here(64).unwrap() })), None);
    }

    #[test]
    fn one_report_is_enough_if_one_came_before_the_last_packet() {
        let mut sent = Sent::default();
        sent.count(7, 100, Some(Here { ssrc: 7, number: 1_000, at: Duration::from_secs(9) }), HEARD);
        sent.count(7, 350, here(1_050), after(5));
        assert_eq!(sent.elsewhere_since(here(1_050)), Some(HEARD));
        sent.forget(after(6));
        sent.count(7, 400, here(1_050), after(10));
        assert_eq!(sent.elsewhere_since(here(1_050)), None, "some of it may be of the time before");
        sent.count(7, 650, here(1_050), after(15));
        assert_eq!(sent.elsewhere_since(here(1_050)), Some(after(6)));
    }

    #[test]
    fn silence_packets_under_way_and_reports_out_of_order_prove_nothing() {
        let mut sent = Sent::default();
        for (second, packets) in [(1, 503), (6, 503), (11, 502), (16, 503)] {
            sent.count(7, packets, here(500), after(second));
            assert_eq!(sent.elsewhere_since(here(500)), None);
        }
        assert!(!sent.begun_anew());
        sent.count(7, 10, here(500), after(21));
        assert!(sent.begun_anew() && sent.elsewhere_since(here(500)).is_none());
        sent.count(7, 260, here(500), after(26));
        assert!(sent.elsewhere_since(here(500)).is_some());
    }

    #[test]
    fn a_new_source_that_never_came_here_and_what_its_receiver_got_tell_as_well() {
        let mut sent = Sent::default();
        sent.count(8, 250, here(500), after(5));
        assert_eq!(sent.elsewhere_since(here(500)), Some(HEARD));
        let mut sent = Sent::default();
        sent.reached(7, 65_536 + 502, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), None);
        sent.reached(7, 65_536 + 740, here(500));
        assert_eq!(sent.elsewhere_since(here(500)), Some(HEARD));
        sent.forget(after(5));
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
