//! RTCP of a stream (RFC 3550 §6): sender and receiver reports. They go by the relay whatever path media takes (docs/crush.md §1), so the
//! SBC knows that the call lives.

use std::time::Duration;

use media_wire::rtp::Header;

use crate::rtp::Sender;

/// Between reports; RFC 3550 §6.2 asks for 5 s at least, randomised by a half.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// Seconds from 1900 (NTP) to 1970.
const NTP: u64 = 2_208_988_800;

/// What was received of the other end's stream (RFC 3550 appendix A).
#[derive(Debug, Default)]
pub(crate) struct Reception {
    ssrc: u32,
    first: Option<u32>,
    highest: u32,
    /// Which of the 64 numbers up to the highest have come: while both paths are in use each comes twice.
    seen: u64,
    received: u32,
    /// At the report before.
    expected_before: u32,
    received_before: u32,
    jitter: f64,
    transit: Option<f64>,
    /// The middle bits of the newest sender report's clock, and when it came.
    report: Option<(u32, Duration)>,
}

impl Reception {
    /// A packet has come.
    pub(crate) fn packet(&mut self, header: Header, clock_rate: u32, now: Duration) {
        let sequence = u32::from(header.sequence);
        if self.first.is_none() || header.ssrc != self.ssrc {
            *self = Self { ssrc: header.ssrc, first: Some(sequence), highest: sequence, ..Self::default() };
        }
        let ahead = header.sequence.wrapping_sub(self.highest as u16) as i16;
        if ahead >= 0 {
            self.highest = self.highest.wrapping_add(ahead as u32);
            self.seen = self.seen.checked_shl(ahead as u32).unwrap_or(0);
        }
        let bit = 1u64.checked_shl(u32::from(ahead.min(0).unsigned_abs())).unwrap_or(0);
        if bit == 0 || self.seen & bit != 0 {
            return;
        }
        self.seen |= bit;
        self.received += 1;
        let arrival = now.as_secs_f64() * f64::from(clock_rate);
        let transit = arrival - f64::from(header.timestamp);
        if let Some(before) = self.transit.replace(transit) {
            // A timestamp that has wrapped would count as hours.
            let change = (transit - before).abs();
            if change < f64::from(clock_rate) * 60.0 {
                self.jitter += (change - self.jitter) / 16.0;
            }
        }
    }

    /// A sender report of the other end's.
    pub(crate) fn report(&mut self, packet: &[u8], now: Duration) {
        if let [_, 200, _, _, _, _, _, _, _, _, a, b, c, d, ..] = packet {
            self.report = Some((u32::from_be_bytes([*a, *b, *c, *d]), now));
        }
    }

    fn block(&mut self, now: Duration) -> Option<[u8; 24]> {
        let expected = self.highest.wrapping_sub(self.first?).wrapping_add(1);
        let lost = i64::from(expected) - i64::from(self.received);
        let due = expected.wrapping_sub(self.expected_before);
        let came = self.received.wrapping_sub(self.received_before);
        let missing = u64::from(due.saturating_sub(came));
        let fraction = (missing * 256).checked_div(u64::from(due)).unwrap_or(0).min(255) as u8;
        (self.expected_before, self.received_before) = (expected, self.received);
        let mut block = [0; 24];
        block[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        let lost = (lost.clamp(-0x80_0000, 0x7f_ffff) as i32).to_be_bytes();
        block[4] = fraction;
        block[5..8].copy_from_slice(&lost[1..]);
        block[8..12].copy_from_slice(&self.highest.to_be_bytes());
        block[12..16].copy_from_slice(&(self.jitter as u32).to_be_bytes());
        if let Some((clock, at)) = self.report {
            block[16..20].copy_from_slice(&clock.to_be_bytes());
            let delay = (now.saturating_sub(at).as_secs_f64() * 65_536.0) as u32;
            block[20..].copy_from_slice(&delay.to_be_bytes());
        }
        Some(block)
    }
}

/// The compound packet that is due: SR or RR, and SDES with a name that says nothing (RFC 7022). `wall` is since 1970.
pub(crate) fn compound(
    sender: &Sender,
    reception: &mut Reception,
    name: &str,
    now: Duration,
    wall: Duration,
) -> Vec<u8> {
    let block = reception.block(now);
    let blocks = u8::from(block.is_some());
    let mut packet = Vec::with_capacity(96);
    if sender.packets > 0 {
        packet.extend([0x80 | blocks, 200, 0, 6 + 6 * blocks]);
        packet.extend(sender.ssrc.to_be_bytes());
        packet.extend(((wall.as_secs() + NTP) as u32).to_be_bytes());
        packet.extend(((u64::from(wall.subsec_nanos()) << 32) / 1_000_000_000).to_be_bytes()[4..].iter());
        packet.extend(sender.timestamp.to_be_bytes());
        packet.extend(sender.packets.to_be_bytes());
        packet.extend(sender.octets.to_be_bytes());
    } else {
        packet.extend([0x80 | blocks, 201, 0, 1 + 6 * blocks]);
        packet.extend(sender.ssrc.to_be_bytes());
    }
    packet.extend(block.iter().flatten());
    let chunk = (4 + 2 + name.len() + 1).next_multiple_of(4);
    packet.extend([0x81, 202, 0, (chunk / 4) as u8]);
    packet.extend(sender.ssrc.to_be_bytes());
    packet.extend([1, name.len() as u8]);
    packet.extend_from_slice(name.as_bytes());
    packet.resize(packet.len() + chunk - 6 - name.len(), 0);
    packet
}

/// Payload-specific feedback (RFC 4585 §6.1): PLI, and FIR of RFC 5104 §4.3.1.
const FEEDBACK: u8 = 206;
const PICTURE_LOSS: u8 = 1;
const FULL_INTRA: u8 = 4;

/// Asks for a key frame (PLI, RFC 4585 §6.3.1); to stand behind a report.
pub(crate) fn picture_loss(ours: u32, theirs: u32) -> [u8; 12] {
    let mut packet = [0x80 | PICTURE_LOSS, FEEDBACK, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
    packet[4..8].copy_from_slice(&ours.to_be_bytes());
    packet[8..].copy_from_slice(&theirs.to_be_bytes());
    packet
}

/// Whether a compound packet asks for a key frame of this source.
pub(crate) fn asks_for_picture(mut compound: &[u8], source: u32) -> bool {
    let source = source.to_be_bytes();
    while let [head, kind, high, low, ..] = compound {
        let length = 4 * (usize::from(u16::from_be_bytes([*high, *low])) + 1);
        let Some((packet, rest)) = compound.split_at_checked(length) else { return false };
        let asks = match (*kind, *head & 0x1F) {
            (FEEDBACK, PICTURE_LOSS) => packet.get(8..12) == Some(&source[..]),
            (FEEDBACK, FULL_INTRA) => packet
                .get(12..)
                .is_some_and(|entries| entries.chunks_exact(8).any(|entry| entry.starts_with(&source))),
            _ => false,
        };
        if asks {
            return true;
        }
        compound = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_frame_is_asked_for_by_pli_or_fir_of_the_source_that_is_meant() {
        let report = compound(&Sender::new([1; 10]), &mut Reception::default(), "a1b2c3d4", MS(20), MS(1));
        let pli = [&report[..], &picture_loss(1, 7)].concat();
        assert!(asks_for_picture(&pli, 7) && !asks_for_picture(&pli, 8) && !asks_for_picture(&report, 7));
        let fir = [0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9, 5, 0, 0, 0, 0, 0, 0, 7, 5, 0, 0, 0];
        assert!(asks_for_picture(&fir, 7) && asks_for_picture(&fir, 9) && !asks_for_picture(&fir, 5));
        for length in 0..pli.len() {
            assert!(!asks_for_picture(&pli[..length], 7));
        }
        assert!(!asks_for_picture(&[0x81, 206, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 7], 7));
    }

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn header(sequence: u16) -> Header {
        Header { sequence, timestamp: u32::from(sequence) * 160, ssrc: 7, ..Header::default() }
    }

    #[test]
    fn a_report_counts_what_is_lost_over_the_wrap_of_sequence_numbers() {
        let mut reception = Reception::default();
        for (place, sequence) in [65_534, 65_535, 0, 2, 2, 65_535, 3].into_iter().enumerate() {
            reception.packet(header(sequence), 8000, MS(20 * place as u64));
        }
        let block = reception.block(MS(100)).unwrap();
        assert_eq!(block[4], 256u32.div_euclid(6) as u8);
        assert_eq!(block[5..8], [0, 0, 1]);
        assert_eq!(block[8..12], 65_539u32.to_be_bytes());
    }

    #[test]
    fn a_compound_packet_has_the_lengths_that_it_says() {
        let mut sender = Sender::new([1; 10]);
        let mut reception = Reception::default();
        for spoken in [false, true] {
            if spoken {
                sender.packet(0, false, 160, &[0; 160]);
                reception.packet(header(1), 8000, MS(1));
            }
            let packet = compound(&sender, &mut reception, "a1b2c3d4", MS(20), MS(1_700_000_000_500));
            let mut rest = &packet[..];
            let mut kinds = Vec::new();
            while !rest.is_empty() {
                kinds.push(rest[1]);
                rest = &rest[4 * (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1)..];
            }
            assert_eq!(kinds, [if spoken { 200 } else { 201 }, 202]);
        }
    }
}
