//! What still comes to a port from calls that are over.
//!
//! A port is used again as soon as no fresh one is free, and a phone may go on sending to it for a minute after its BYE: it may even be
//! behind the same host as a party of the new call, whose latch would then learn it. So a port remembers whom its calls heard, and this
//! is the rule:
//!
//! - A packet belongs to a call that is over if it comes from an address that was heard at this port then, bears the same SSRC, and
//!   continues that stream: its timestamps or its sequence numbers have run on with the clock. It teaches no latch, is forwarded to
//!   nobody and counts as a stranger's.
//! - It renews the memory, so that whoever never stops is never heard. Nothing for [`REMEMBERED`]: forgotten.
//! - The same phone in a new call is another stream: it has another SSRC, or has begun to count anew. And what the party of the new
//!   call has signalled as its address is its own, whoever was there before.
//!
//! Where there is nothing to tell streams apart (UDPTL), the address alone is remembered, for as long as it pauses less than [`PAUSE`].

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::demux::is_rtcp;
use media_wire::rtcp;
use media_wire::rtp::Header;
use smallvec::SmallVec;

use crate::transport::Carried;

/// After its last packet.
const REMEMBERED: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_secs(5);
/// Of one port. The one that was silent for longest yields: who goes on sending stays.
const MOST: usize = 8;
/// More packets a second than any codec sends (5 ms each), and fewer than any that is not silent (80 ms).
const FASTEST: u64 = 200;
const SLOWEST: u64 = 12;
/// What a queue on the way may have held back.
const SLACK_PACKETS: u64 = 50;
const SLACK: Duration = Duration::from_millis(500);

/// A stream that a call heard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) source: SocketAddr,
    /// Of its RTP; `None` where that is not known.
    pub(crate) rtp: Option<Place>,
    /// When its last packet came.
    pub(crate) at: Duration,
}

/// How far a stream was.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    /// Of its last packet, if that is known.
    pub(crate) timestamp: Option<u32>,
    /// Of the timestamps, in Hz.
    pub(crate) rate: u32,
}

/// Who was heard at a port in calls that are over.
#[derive(Debug, Clone, Default)]
pub(crate) struct Leftovers(SmallVec<[Sender; 1]>);

impl Leftovers {
    pub(crate) fn remember(&mut self, sender: Sender) {
        self.0.retain(|known| known.source != sender.source);
        if self.0.len() >= MOST
            && let Some(oldest) =
                (0..self.0.len()).min_by_key(|index| self.0.get(*index).map(|known| known.at))
        {
            self.0.remove(oldest);
        }
        self.0.push(sender);
    }

    /// Whether a packet continues what a call before this one heard.
    #[cold]
    pub(crate) fn continues(
        &mut self,
        source: SocketAddr,
        packet: &[u8],
        carried: Carried,
        now: Duration,
    ) -> bool {
        let Some(known) = self.0.iter_mut().find(|known| known.source == source) else { return false };
        let silent = now.saturating_sub(known.at);
        if silent > REMEMBERED {
            return false;
        }
        let continues = match (known.rtp.as_mut(), carried) {
            (_, Carried::Other) => silent <= PAUSE,
            (None, _) => false,
            (Some(place), _) if is_rtcp(packet) => rtcp::sender(packet) == Some(place.ssrc),
            (Some(place), _) => {
                Header::read(packet).is_some_and(|header| place.is_continued_by(&header, silent))
            }
        };
        if continues {
            known.at = now;
        }
        continues
    }
}

impl Place {
    fn is_continued_by(&mut self, header: &Header, silent: Duration) -> bool {
        if header.ssrc != self.ssrc {
            return false;
        }
        let milliseconds = silent.as_millis() as u64;
        // Clocks of phones are not exact, and those of their timers less so.
        let slack = SLACK.saturating_add(silent.checked_div(4).unwrap_or_default());
        let counts_on = self.timestamp.is_some_and(|before| {
            // Signed: a late packet is one too. The greatest difference is that of 90 s at 90 kHz.
            let ticks = i64::from(header.timestamp.wrapping_sub(before).cast_signed());
            let due = (milliseconds as i64).saturating_mul(self.rate.into()) / 1000;
            let allowed = (slack.as_millis() as i64).saturating_mul(self.rate.into()) / 1000;
            ticks.saturating_sub(due).abs() <= allowed
        });
        let step = u64::from(header.sequence.wrapping_sub(self.sequence));
        let least = (milliseconds.saturating_mul(SLOWEST) / 1000).saturating_sub(SLACK_PACKETS);
        let most = (milliseconds.saturating_mul(FASTEST) / 1000).saturating_add(SLACK_PACKETS);
        let numbers_on = (least..=most).contains(&step);
        let continues = counts_on || numbers_on;
        if continues {
            (self.sequence, self.timestamp) = (header.sequence, Some(header.timestamp));
        }
        continues
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8000;

    fn at(port: u16) -> SocketAddr {
        ([203, 0, 113, 7], port).into()
    }

    fn packet(ssrc: u32, sequence: u16, timestamp: u32) -> [u8; 12] {
        let mut packet = [0; 12];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        packet[8..].copy_from_slice(&ssrc.to_be_bytes());
        packet
    }

    /// One that had sent packet 50 of 20 ms when its call ended at one second.
    fn one() -> Leftovers {
        let mut left = Leftovers::default();
        let rtp = Some(Place { ssrc: 7, sequence: 50, timestamp: Some(8000), rate: RATE });
        left.remember(Sender { source: at(4000), rtp, at: Duration::from_secs(1) });
        left
    }

    fn rtp_continues(left: &mut Leftovers, packet: &[u8], seconds: u64) -> bool {
        left.continues(at(4000), packet, Carried::Clear, Duration::from_secs(seconds))
    }

    #[test]
    fn who_goes_on_sending_is_known_however_long_it_does_and_whoever_called_meanwhile() {
        let mut left = one();
        for second in 2_u16..300 {
            let (sequence, timestamp) = (second * 50, u32::from(second) * RATE);
            assert!(rtp_continues(&mut left, &packet(7, sequence, timestamp), second.into()), "{second}");
            // Each second another call ends here.
            let source = at(5000 + second);
            let rtp = Some(Place { ssrc: 9, sequence: 1, timestamp: None, rate: RATE });
            left.remember(Sender { source, rtp, at: Duration::from_secs(second.into()) });
        }
        assert_eq!(left.0.len(), MOST);
    }

    #[test]
    fn a_silence_by_codec_or_a_clock_that_runs_slow_makes_no_new_stream() {
        // Comfort noise: one packet after nine seconds.
        assert!(rtp_continues(&mut one(), &packet(7, 51, 80_000), 10));
        // A player that is a tenth too slow, and one whose timestamps say nothing.
        assert!(rtp_continues(&mut one(), &packet(7, 50 + 405, 8000 + 64_800), 10));
        assert!(rtp_continues(&mut one(), &packet(7, 50 + 450, 8000), 10));
    }

    #[test]
    fn the_same_phone_in_its_next_call_is_another_stream() {
        assert!(!rtp_continues(&mut one(), &packet(8, 51, 8160), 5), "another SSRC");
        assert!(!rtp_continues(&mut one(), &packet(7, 0, 0), 5), "the same that counts anew");
        assert!(
            !rtp_continues(&mut one(), &packet(7, 51, 8160), 11),
            "the same after a pause of its counters"
        );
        assert!(!rtp_continues(&mut one(), &packet(7, 50, 8000), 200), "after too long");
        let now = Duration::from_secs(1);
        assert!(!one().continues(at(4001), &packet(7, 51, 8160), Carried::Clear, now), "another address");
    }

    #[test]
    fn reports_and_what_has_no_streams_are_known_by_their_sender() {
        let mut report = [0; 28];
        report[..8].copy_from_slice(&[0x80, 200, 0, 6, 0, 0, 0, 7]);
        assert!(rtp_continues(&mut one(), &report, 20));
        report[7] = 8;
        assert!(!rtp_continues(&mut one(), &report, 20));
        let mut fax = Leftovers::default();
        fax.remember(Sender { source: at(4000), rtp: None, at: Duration::from_secs(1) });
        let mut comes =
            |second| fax.continues(at(4000), b"\x00\x01", Carried::Other, Duration::from_secs(second));
        assert!(comes(4) && comes(8) && !comes(14));
    }
}
