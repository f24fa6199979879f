//! What a stream was like: RFC 3550 appendix A for loss and jitter, ITU-T G.107 (E-model) for quality.
//!
//! Numbers that are missing here were lost on the way only while the stream came this way. What was sent past the relay is counted
//! apart ([`Reception::elsewhere`]), by the numbers that are skipped when it comes back: not by a moment at which somebody
//! was asked to come home, since parties bring it home by offers of their own, and endpoints as they like.

use std::time::Duration;

use media_wire::rtp::Header;
use seam::Loss;
use serde::{Deserialize, Serialize};

use crate::clock::{Shift, timed};
use crate::reported::{Fate, Passed, Reported};
use crate::sent::{Here, Sent};

/// Reception of one RTP stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Reception {
    /// RTP packets.
    pub packets: u64,
    /// Their octets (UDP payload).
    pub octets: u64,
    /// Telephone events (RFC 4733) begun.
    pub dtmf: u32,
    /// Round trip to the sender, if RTCP told.
    pub round_trip: Option<Duration>,
    /// Payload type last heard.
    pub payload_type: Option<u8>,
    /// When the last packet came.
    pub heard: Duration,
    /// Packets that were sent past the relay, as far as it has seen numbers of the stream on both sides of them.
    pub elsewhere: u64,
    /// The last silence here: its last packet before, and the first after. In the clock of the relay.
    pub silence: Option<(Duration, Duration)>,
    whereabouts: Whereabouts,
    source: Source,
    clock: Clock,
    event_timestamp: Option<u32>,
}

timed!(Reception { heard, silence; clock, packets, octets, dtmf, round_trip, payload_type, elsewhere, whereabouts, source, event_timestamp });

/// The present source's numbers (RFC 3550 appendix A.1).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Source {
    ssrc: u32,
    /// Its first number.
    first: u16,
    base: u32,
    highest: u32,
    received: u64,
    /// Of sources before this one.
    lost_before: u64,
}

/// Its timestamps, beside the clock here (RFC 3550 appendix A.8).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Clock {
    transit: i64,
    jitter: f64,
    /// Of the last packet, and from one to the next.
    timestamp: u32,
    frame: u32,
}

/// What a payload type means for who counts its packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Coding {
    /// Of its timestamps, in Hz.
    pub clock_rate: u32,
    /// Telephone events (RFC 4733).
    pub is_event: bool,
}

impl Default for Coding {
    /// Of speech on the telephone.
    fn default() -> Self {
        Self { clock_rate: 8000, is_event: false }
    }
}

/// Where a stream goes, as far as is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Whereabouts {
    #[default]
    Here,
    /// Past the relay, or it may: missing numbers say nothing.
    Elsewhere,
    /// It was told to come back; so many packets more until it has.
    Returning(u8),
}

/// Without RTP for so long: longer than a lost packet and jitter.
pub(crate) const QUIET: Duration = Duration::from_millis(200);
/// Longer than a lost packet or two.
const SILENCE: Duration = Duration::from_millis(60);
/// What a packet usually holds.
const PACKET: Duration = Duration::from_millis(20);
/// In so many packets whoever comes back is back.
const BACK: u8 = 16;
/// After so long without a packet a number that looks late has gone round.
const ROUND: Duration = Duration::from_secs(60);

impl Reception {
    /// A packet arrived.
    pub fn receive(
        &mut self,
        header: &Header,
        octets: usize,
        Coding { clock_rate, is_event }: Coding,
        now: Duration,
    ) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets as u64);
        let is_same = self.source.received > 0 && self.source.ssrc == header.ssrc;
        let step = header.sequence.wrapping_sub(self.source.highest as u16);
        let silence = now.saturating_sub(self.heard);
        if !is_same {
            self.restart(header);
            self.source.first = header.sequence;
        } else if self.whereabouts != Whereabouts::Here && step > 1 && (step < 0x8000 || silence > ROUND) {
            self.skip(step, header, silence);
        } else {
            if step == 1 {
                self.clock.frame = header.timestamp.wrapping_sub(self.clock.timestamp);
            }
            if step < 3000 {
                self.source.highest = self.source.highest.wrapping_add(u32::from(step));
            } else if step < 65_536u32.saturating_sub(100) as u16 {
                // A jump: the sender started over (RFC 3550 A.1).
                self.restart(header);
            }
        }
        self.source.received = self.source.received.wrapping_add(1);
        if silence > SILENCE && self.packets > 1 {
            self.silence = Some((self.heard, now));
        }
        (self.heard, self.clock.timestamp) = (now, header.timestamp);
        self.whereabouts = match self.whereabouts {
            Whereabouts::Returning(left @ 2..) => Whereabouts::Returning(left.saturating_sub(1)),
            Whereabouts::Returning(_) => Whereabouts::Here,
            unchanged => unchanged,
        };
        if is_event {
            // All packets of one event bear its timestamp.
            if self.event_timestamp != Some(header.timestamp) {
                self.event_timestamp = Some(header.timestamp);
                self.dtmf = self.dtmf.saturating_add(1);
            }
            return;
        }
        self.payload_type = Some(header.payload_type);
        let arrival = (now.as_micros() as i64).wrapping_mul(i64::from(clock_rate)) / 1_000_000;
        let transit = arrival.wrapping_sub(header.timestamp.into());
        if is_same && self.clock.transit != 0 {
            // Timestamps wrap; so does their difference.
            let difference = f64::from(transit.wrapping_sub(self.clock.transit) as i32).abs();
            if difference < f64::from(clock_rate) {
                self.clock.jitter += (difference - self.clock.jitter) / 16.0;
            }
        }
        self.clock.transit = transit;
    }

    /// Another protocol than RTP.
    pub fn count(&mut self, octets: usize, now: Duration) {
        self.heard = now;
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets as u64);
    }

    /// Arrivals are by another clock from now on; the last one's timestamp is of this clock rate.
    pub(crate) fn shift_arrivals(&mut self, clock_rate: u32, by: Shift) {
        // Zero: nothing to compare with.
        if self.clock.transit != 0 {
            self.clock.transit = self.clock.transit.wrapping_add(by.ticks(clock_rate));
        }
    }

    /// It goes past the relay from now on, or may.
    pub fn leave(&mut self) {
        self.whereabouts = Whereabouts::Elsewhere;
    }

    /// It was told to come back. What it skips when it does was sent elsewhere.
    pub fn come_back(&mut self) {
        if self.whereabouts == Whereabouts::Elsewhere {
            self.whereabouts = Whereabouts::Returning(BACK);
        }
    }

    /// Whether it goes elsewhere, or has not come back yet since it was told to.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self.whereabouts, Whereabouts::Elsewhere | Whereabouts::Returning(BACK))
    }

    /// Numbers that are missing were sent elsewhere.
    fn skip(&mut self, step: u16, header: &Header, silence: Duration) {
        let skipped = u64::from(step).saturating_sub(1);
        // The numbers go round after 65,536 packets; timestamps, and the clock, say how often.
        let ticks = header.timestamp.wrapping_sub(self.clock.timestamp);
        let sent = ticks.checked_div(self.clock.frame).map_or(0, u64::from);
        let rounds =
            if silence > ROUND { sent.saturating_sub(skipped).saturating_add(0x8000) >> 16 } else { 0 };
        self.elsewhere = self.elsewhere.saturating_add(skipped).saturating_add(rounds << 16);
        self.source.lost_before = self.lost();
        (self.source.base, self.source.highest, self.source.received) =
            (header.sequence.into(), header.sequence.into(), 0);
        self.clock.transit = 0;
    }

    fn restart(&mut self, header: &Header) {
        self.source.lost_before = self.lost();
        self.source.received = 0;
        self.source.ssrc = header.ssrc;
        self.source.base = u32::from(header.sequence);
        self.source.highest = self.source.base;
        self.clock.transit = 0;
    }

    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        let expected = if self.source.received == 0 {
            0
        } else {
            u64::from(self.source.highest.wrapping_sub(self.source.base)).saturating_add(1)
        };
        self.source.lost_before.saturating_add(expected.saturating_sub(self.source.received))
    }

    /// Interarrival jitter, ms.
    pub fn jitter_ms(&self, clock_rate: u32) -> f32 {
        (self.clock.jitter * 1000.0 / f64::from(clock_rate.max(1))) as f32
    }

    /// The timestamp that a stream has reached which was heard in real time; `None` before its first packet.
    pub fn timestamp_at(&self, clock_rate: u32, at: Duration) -> Option<u32> {
        let arrival = (at.as_micros() as i64).wrapping_mul(i64::from(clock_rate)) / 1_000_000;
        // Modulo 2^32, as timestamps are.
        (self.clock.transit != 0).then(|| arrival.wrapping_sub(self.clock.transit) as u32)
    }

    /// The source and number heard last, whatever came between.
    pub fn last(&self) -> Option<(u32, u16)> {
        (self.packets > 0).then_some((self.source.ssrc, self.source.highest as u16))
    }

    /// The latest sequence number and source, for latching.
    pub fn latest(&self) -> Option<(u32, u16)> {
        (self.source.received > 0).then_some((self.source.ssrc, self.source.highest as u16))
    }

    /// The last RTP packet.
    pub(crate) fn here(&self) -> Option<Here> {
        (self.packets > 0).then_some(Here {
            ssrc: self.source.ssrc,
            number: self.source.highest as u16,
            at: self.heard,
        })
    }

    /// What is known of it for a report about `ssrc`.
    pub(crate) fn passed(&self, ssrc: u32, is_anew: bool) -> Passed {
        let lost = self.lost();
        let first = (self.packets > 0 && self.source.ssrc == ssrc).then_some(self.source.first);
        Passed { first, packets: self.packets.saturating_add(lost), lost, astray: 0, is_anew }
    }

    /// How many packets its sender has sent, as far as the relay, the receiver's reports, and its own can tell; `open`
    /// that of which none can, as at the end of a call that is direct.
    fn sent(&self, reported: &Reported, sent: &Sent, open: Duration) -> u64 {
        let numbers = self.packets.saturating_add(self.lost()).saturating_add(self.elsewhere);
        let guess = open.as_millis().checked_div(PACKET.as_millis()).unwrap_or(0) as u64;
        numbers.saturating_add(guess).max(reported.whole().expected).max(sent.total())
    }

    /// How many packets went past the relay after the last report, and have not fared like those that were told of: of a call that ends
    /// in a trial, or on a path that has not proven itself, nobody knows what became of them.
    fn untold_at_the_end(&self, reported: &Reported, open: Duration) -> u64 {
        let end = self.heard.saturating_add(open);
        let tail = open.min(end.saturating_sub(reported.told_at()));
        let guess = tail.as_millis().checked_div(PACKET.as_millis()).unwrap_or(0) as u64;
        if reported.fate == Fate::Alike && reported.tells_of(guess) { 0 } else { guess }
    }

    /// Loss on the whole way. Reports tell it; what came here since the last one has fared alike, if they tell of enough, and is lost at
    /// least as far as the relay knows. Without them it is known as far as the relay, if most of the stream came this way. Else nobody
    /// knows it, and nothing is said.
    pub(crate) fn loss(&self, reported: &Reported, sent: &Sent, open: Duration) -> Option<Loss> {
        let all = self.sent(reported, sent, open);
        let (lost, whole) = (self.lost(), reported.whole());
        let (packets_then, lost_then) = reported.known_then();
        let since = (self.packets.saturating_add(lost)).saturating_sub(packets_then);
        let said = whole.expected.saturating_add(since);
        if whole.expected > 0 && said.saturating_mul(2) >= all {
            let lost_here = lost.saturating_sub(lost_then).min(since);
            let (lost_since, unknown_since) = if reported.tells_of(since) {
                (lost_here.max(reported.share_of(since)), 0)
            } else {
                (lost_here, since.saturating_sub(lost_here))
            };
            // What went past the relay after the last report, as in a trial shortly before the end, by its numbers.
            let numbers = self.packets.saturating_add(self.lost()).saturating_add(self.elsewhere);
            let untold = numbers.saturating_sub(said).saturating_add(self.untold_at_the_end(reported, open));
            return Some(Loss {
                packets: said.saturating_add(untold),
                lost: whole.lost.saturating_add(lost_since).min(said),
                unknown: reported.unknown().saturating_add(unknown_since).saturating_add(untold),
                is_reported: true,
            });
        }
        let here = self.packets.saturating_add(lost);
        (here > 0 && here.saturating_mul(2) >= all).then_some(Loss {
            packets: here,
            lost,
            unknown: 0,
            is_reported: false,
        })
    }

    /// Mean opinion score at the far end, 1 to 4.5, where the codec's impairment is known (ITU-T G.113 appendix I): of this
    /// loss, and of the greater of the jitter here and `far_jitter`, which is in clock units; `far` is the round trip to
    /// the far receiver.
    pub fn mos(
        &self,
        (codec, clock_rate): (&str, u32),
        loss: Loss,
        far_jitter: u32,
        far: Option<Duration>,
    ) -> Option<f32> {
        let (impairment, robustness) = match codec.to_ascii_uppercase().as_str() {
            "PCMU" | "PCMA" => (0.0, 25.1),
            "G729" => (11.0, 19.0),
            "GSM" => (20.0, 10.0),
            "G723" => (15.0, 16.1),
            "OPUS" | "G722" => (0.0, 20.0),
            _ => return None,
        };
        // Where more than 1 % may be lost or not, it is no score.
        if loss.packets == 0 || loss.unknown.saturating_mul(100) > loss.packets {
            return None;
        }
        let loss = 100.0 * loss.lost as f32 / loss.packets as f32;
        let round_trip = (self.round_trip.unwrap_or_default().saturating_add(far.unwrap_or_default()))
            .as_secs_f32()
            * 1000.0;
        let jitter = self
            .jitter_ms(clock_rate)
            .max((f64::from(far_jitter) * 1000.0 / f64::from(clock_rate.max(1))) as f32);
        // One way, with a jitter buffer of twice the jitter and 20 ms for the packet.
        let delay = round_trip / 2.0 + 2.0 * jitter + 20.0;
        let delay_impairment = 0.024 * delay + if delay > 177.3 { 0.11 * (delay - 177.3) } else { 0.0 };
        let effective = impairment + (95.0 - impairment) * loss / (loss + robustness);
        let r = (93.2 - delay_impairment - effective).clamp(0.0, 100.0);
        Some((1.0 + 0.035 * r + r * (r - 60.0) * (100.0 - r) * 7e-6).clamp(1.0, 4.5))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reported::Block;

    fn header(number: u32) -> Header {
        Header {
            payload_type: 0,
            sequence: (65_000 + number) as u16,
            timestamp: number.wrapping_mul(160),
            ssrc: 7,
        }
    }

    fn hear(reception: &mut Reception, number: u32) {
        reception.receive(
            &header(number),
            172,
            Coding::default(),
            Duration::from_millis(20 * u64::from(number)) + ROUND,
        );
    }

    fn run(lose: impl Fn(u32) -> bool) -> Reception {
        let mut reception = Reception::default();
        (0..70_000).filter(|number| !lose(*number)).for_each(|number| hear(&mut reception, number));
        reception
    }

    fn score(reception: &Reception, reported: &Reported, far: Option<Duration>) -> Option<f32> {
        let loss = reception.loss(reported, &Sent::default(), Duration::ZERO)?;
        reception.mos(("PCMU", 8000), loss, reported.jitter(), far)
    }

    fn report(reported: &mut Reported, reception: &Reception, highest: u32, lost: i32) {
        let block = Block { ssrc: 7, highest, lost, jitter: 0 };
        reported.hear(block, reception.passed(7, false), reception.heard);
    }

    #[test]
    fn loss_is_exact_over_wraps_and_a_clean_stream_scores_high() {
        let clean = run(|_| false);
        assert_eq!((clean.lost(), clean.packets), (0, 70_000));
        assert!(score(&clean, &Reported::default(), None).unwrap() > 4.3);
        let lossy = run(|number| number % 10 == 5);
        assert_eq!(lossy.lost(), 7_000);
        assert!(score(&lossy, &Reported::default(), None).unwrap() < 3.5);
        assert!(clean.jitter_ms(8000) < 0.1);
    }

    #[test]
    fn what_the_far_receiver_reports_counts() {
        let mut reception = Reception::default();
        (0..50_000).for_each(|number| hear(&mut reception, number));
        let mut reported = Reported::default();
        report(&mut reported, &reception, 65_536 + 49_463, 5_000);
        assert!(score(&reception, &reported, None).unwrap() < 3.5);
        let mut reported = Reported::default();
        report(&mut reported, &reception, 65_536 + 49_463, -2);
        assert!(score(&reception, &reported, None).unwrap() > 4.3);
        assert!(score(&reception, &reported, Some(Duration::from_millis(900))).unwrap() < 3.5);
    }

    #[test]
    fn what_was_sent_past_the_relay_is_not_lost_however_it_comes_back() {
        let mut reception = Reception::default();
        (0..100).for_each(|number| hear(&mut reception, number));
        reception.leave();
        (400..410).for_each(|number| hear(&mut reception, number));
        (900..1_000).filter(|number| number % 10 != 5).for_each(|number| hear(&mut reception, number));
        reception.come_back();
        (80_000..80_100).filter(|number| *number != 80_050).for_each(|number| hear(&mut reception, number));
        assert_eq!(reception.elsewhere, 300 + 490 + 10 + 79_000, "and what may be either is not called lost");
        assert_eq!(reception.lost(), 1, "it is back");
    }

    #[test]
    fn loss_of_direct_time_is_reckoned_over_what_was_sent_in_it() {
        let mut reception = Reception::default();
        let mut reported = Reported::default();
        (0..100).for_each(|number| hear(&mut reception, number));
        reception.leave();
        // 2 % of all, of which a fifth came here.
        report(&mut reported, &reception, 65_536 - 536 + 499, 10);
        let loss = reception.loss(&reported, &Sent::default(), Duration::ZERO).unwrap();
        assert_eq!(loss, Loss { packets: 500, lost: 10, unknown: 0, is_reported: true });
        assert!(score(&reception, &reported, None).unwrap() > 4.0);
    }

    #[test]
    fn what_came_after_the_last_report_has_fared_alike_or_nobody_knows() {
        let loss_of = |told: u32, lost: i32, all: u32| {
            let (mut reception, mut reported) = (Reception::default(), Reported::default());
            (0..told).for_each(|number| hear(&mut reception, number));
            report(&mut reported, &reception, 65_000 + told - 1, lost);
            (told..all).for_each(|number| hear(&mut reception, number));
            let loss = reception.loss(&reported, &Sent::default(), Duration::ZERO).unwrap();
            (loss.packets, loss.lost, loss.unknown)
        };
        assert_eq!(loss_of(1_000, 40, 1_250), (1_250, 40 + 10, 0));
        assert_eq!(loss_of(500, 0, 740), (740, 0, 0));
        assert_eq!(loss_of(12, 0, 998), (998, 0, 986), "its receiver has fallen silent");
    }

    #[test]
    fn nobody_knows_what_became_of_a_trial_that_the_call_ended_in() {
        let (mut reception, mut reported) = (Reception::default(), Reported::default());
        (0..1_000).for_each(|number| hear(&mut reception, number));
        report(&mut reported, &reception, 65_000 + 999, 5);
        reception.leave();
        let after = |reported: &Reported, open| {
            let loss = reception.loss(reported, &Sent::default(), open).unwrap();
            (loss.packets, loss.lost, loss.unknown)
        };
        let open = Duration::from_millis(640);
        assert_eq!(after(&reported, open), (1_000, 5, 0), "a path that has proven itself");
        reported.fate = Fate::Unknown;
        assert_eq!(after(&reported, open), (1_032, 5, 32));
    }

    #[test]
    fn nobody_knows_the_loss_of_a_call_that_is_direct_and_whose_receiver_says_nothing() {
        let mut reception = Reception::default();
        (0..100).for_each(|number| hear(&mut reception, number));
        reception.leave();
        let silent = Reported::default();
        assert_eq!(reception.loss(&silent, &Sent::default(), Duration::from_secs(30)), None);
        assert!(reception.loss(&silent, &Sent::default(), Duration::from_secs(1)).is_some());
        hear(&mut reception, 1_000);
        assert_eq!(reception.loss(&silent, &Sent::default(), Duration::ZERO), None);
    }

    #[test]
    fn a_telephone_event_counts_once_however_often_it_is_sent() {
        let mut reception = Reception::default();
        for (number, timestamp) in [(1u16, 100), (2, 100), (3, 100), (4, 900), (5, 900)] {
            let header = Header { payload_type: 101, sequence: number, timestamp, ssrc: 7 };
            let coding = Coding { is_event: true, ..Coding::default() };
            reception.receive(&header, 16, coding, Duration::from_millis(u64::from(number)));
        }
        assert_eq!((reception.dtmf, reception.packets), (2, 5));
    }
}
