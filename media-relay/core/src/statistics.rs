//! What a stream was like: RFC 3550 appendix A for loss and jitter, ITU-T G.107 (E-model) for quality.

use std::time::Duration;

use crate::rtp::Header;

/// Reception of one RTP stream.
#[derive(Debug, Clone, Default)]
pub struct Reception {
    /// RTP packets.
    pub packets: u64,
    /// Their octets (UDP payload).
    pub octets: u64,
    /// Telephone events (RFC 4733) begun.
    pub dtmf: u32,
    /// Round trip to the sender, if RTCP told.
    pub round_trip: Option<Duration>,
    /// What its far receiver reported last: packets lost on the whole way, and jitter in clock units.
    pub reported: Option<(u32, u32)>,
    /// Payload type last heard.
    pub payload_type: Option<u8>,
    ssrc: u32,
    base: u32,
    highest: u32,
    /// Of sources before the present one.
    lost_before: u64,
    received: u64,
    transit: i64,
    jitter: f64,
    event_timestamp: Option<u32>,
}

impl Reception {
    /// A packet arrived. `clock_rate` in Hz.
    pub fn receive(
        &mut self,
        header: &Header,
        octets: usize,
        clock_rate: u32,
        is_event: bool,
        now: Duration,
    ) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets as u64);
        let is_same = self.received > 0 && self.ssrc == header.ssrc;
        if !is_same {
            self.restart(header);
        } else {
            let step = header.sequence.wrapping_sub(self.highest as u16);
            if step < 3000 {
                self.highest = self.highest.wrapping_add(u32::from(step));
            } else if step < 65_536u32.saturating_sub(100) as u16 {
                // A jump: the sender started over (RFC 3550 A.1).
                self.restart(header);
            }
        }
        self.received = self.received.wrapping_add(1);
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
        if is_same && self.transit != 0 {
            // Timestamps wrap; so does their difference.
            let difference = f64::from(transit.wrapping_sub(self.transit) as i32).abs();
            if difference < f64::from(clock_rate) {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
        self.transit = transit;
    }

    /// Another protocol than RTP.
    pub fn count(&mut self, octets: usize) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(octets as u64);
    }

    /// Its far receiver reported about the source `ssrc`.
    pub fn report(&mut self, ssrc: u32, lost: i32, jitter: u32) {
        if self.received > 0 && self.ssrc == ssrc {
            self.reported = Some((lost.max(0) as u32, jitter));
        }
    }

    fn restart(&mut self, header: &Header) {
        self.lost_before = self.lost();
        self.received = 0;
        self.ssrc = header.ssrc;
        self.base = u32::from(header.sequence);
        self.highest = self.base;
        self.transit = 0;
    }

    /// Packets that never came.
    pub fn lost(&self) -> u64 {
        let expected = if self.received == 0 {
            0
        } else {
            u64::from(self.highest.wrapping_sub(self.base)).saturating_add(1)
        };
        self.lost_before.saturating_add(expected.saturating_sub(self.received))
    }

    /// Interarrival jitter, ms.
    pub fn jitter_ms(&self, clock_rate: u32) -> f32 {
        (self.jitter * 1000.0 / f64::from(clock_rate.max(1))) as f32
    }

    /// What comes after this continues elsewhere than here: numbers that are missed meanwhile were not lost on the way.
    pub fn interrupt(&mut self) {
        (self.lost_before, self.received) = (self.lost(), 0);
    }

    /// The timestamp that a stream has reached which was heard in real time; `None` before its first packet.
    pub fn timestamp_at(&self, clock_rate: u32, at: Duration) -> Option<u32> {
        let arrival = (at.as_micros() as i64).wrapping_mul(i64::from(clock_rate)) / 1_000_000;
        // Modulo 2^32, as timestamps are.
        (self.transit != 0).then(|| arrival.wrapping_sub(self.transit) as u32)
    }

    /// The source and number heard last, whatever came between.
    pub fn last(&self) -> Option<(u32, u16)> {
        (self.packets > 0).then_some((self.ssrc, self.highest as u16))
    }

    /// The latest sequence number and source, for latching.
    pub fn latest(&self) -> Option<(u32, u16)> {
        (self.received > 0).then_some((self.ssrc, self.highest as u16))
    }

    /// Mean opinion score at the far end, 1 to 4.5, where the codec's impairment is known (ITU-T G.113 appendix I). What
    /// the far receiver reported counts where it is worse than what arrived here; `far` is the round trip to it.
    pub fn mos(&self, codec: &str, clock_rate: u32, far: Option<Duration>) -> Option<f32> {
        let (impairment, robustness) = match codec.to_ascii_uppercase().as_str() {
            "PCMU" | "PCMA" => (0.0, 25.1),
            "G729" => (11.0, 19.0),
            "GSM" => (20.0, 10.0),
            "G723" => (15.0, 16.1),
            "OPUS" | "G722" => (0.0, 20.0),
            _ => return None,
        };
        if self.packets == 0 {
            return None;
        }
        let expected = self.packets.saturating_add(self.lost());
        let (reported_lost, reported_jitter) = self.reported.unwrap_or_default();
        let lost = self.lost().max(u64::from(reported_lost)).min(expected);
        let loss = 100.0 * lost as f32 / expected as f32;
        let round_trip = (self.round_trip.unwrap_or_default().saturating_add(far.unwrap_or_default()))
            .as_secs_f32()
            * 1000.0;
        let jitter = self
            .jitter_ms(clock_rate)
            .max((f64::from(reported_jitter) * 1000.0 / f64::from(clock_rate.max(1))) as f32);
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

    fn run(lose: impl Fn(u32) -> bool) -> Reception {
        let mut reception = Reception::default();
        for number in 0..70_000u32 {
            if lose(number) {
                continue;
            }
            let header = Header {
                payload_type: 0,
                marker: false,
                sequence: (65_000 + number) as u16,
                timestamp: number * 160,
                ssrc: 7,
            };
            reception.receive(&header, 172, 8000, false, Duration::from_millis(20 * u64::from(number)));
        }
        reception
    }

    #[test]
    fn loss_is_exact_over_wraps_and_a_clean_stream_scores_high() {
        let clean = run(|_| false);
        assert_eq!((clean.lost(), clean.packets), (0, 70_000));
        assert!(clean.mos("PCMU", 8000, None).unwrap() > 4.3);
        let lossy = run(|number| number % 10 == 5);
        assert_eq!(lossy.lost(), 7_000);
        assert!(lossy.mos("PCMU", 8000, None).unwrap() < 3.5);
        assert!(clean.jitter_ms(8000) < 0.1);
    }

    #[test]
    fn what_the_far_receiver_reports_counts_if_it_is_worse() {
        let mut reception = run(|_| false);
        reception.report(8, 30_000, 0);
        assert!(reception.mos("PCMU", 8000, None).unwrap() > 4.3, "of another source");
        reception.report(7, 7_000, 0);
        assert!(reception.mos("PCMU", 8000, None).unwrap() < 3.5);
        reception.report(7, -2, 0);
        assert!(reception.mos("PCMU", 8000, None).unwrap() > 4.3);
        assert!(reception.mos("PCMU", 8000, Some(Duration::from_millis(900))).unwrap() < 3.5);
    }

    #[test]
    fn a_telephone_event_counts_once_however_often_it_is_sent() {
        let mut reception = Reception::default();
        for (number, timestamp) in [(1u16, 100), (2, 100), (3, 100), (4, 900), (5, 900)] {
            let header =
                Header { payload_type: 101, marker: timestamp == 100, sequence: number, timestamp, ssrc: 7 };
            reception.receive(&header, 16, 8000, true, Duration::from_millis(u64::from(number)));
        }
        assert_eq!((reception.dtmf, reception.packets), (2, 5));
    }
}
