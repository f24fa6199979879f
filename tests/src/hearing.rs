//! What a party would hear: the audio of captured RTP (G.711), and its silence.

use std::net::IpAddr;

use crate::packet::{Packet, is_rtp};
use crate::tone::Recording;

/// Whether a packet is RTP to a host.
pub fn is_rtp_to(packet: &Packet, host: IpAddr) -> bool {
    packet.protocol == 17 && packet.destination.ip() == host && is_rtp(&packet.payload)
}

/// The audio that captured RTP brings to a host, in order of arrival; payload types 0 and 8 only (RFC 3551 §6).
pub fn audio_to(packets: &[Packet], host: IpAddr) -> Recording {
    let samples = packets
        .iter()
        .filter(|packet| is_rtp_to(packet, host))
        .filter_map(|packet| {
            let kind = packet.payload.get(1)? & 0x7f;
            let header = 12 + 4 * usize::from(packet.payload.first()? & 15);
            let decode = match kind {
                0 => of_ulaw,
                8 => of_alaw,
                _ => return None,
            };
            Some(packet.payload.get(header..)?.iter().map(move |code| decode(*code)))
        })
        .flatten()
        .collect();
    Recording { rate: 8000, samples }
}

/// G.711 µ-law to -1..1.
fn of_ulaw(code: u8) -> f64 {
    let code = !code;
    let magnitude = ((i32::from(code & 15) << 3) + 0x84) << (code >> 4 & 7);
    let sample = f64::from(magnitude - 0x84) / 32768.0;
    if code & 0x80 != 0 { -sample } else { sample }
}

/// G.711 A-law to -1..1.
fn of_alaw(code: u8) -> f64 {
    let code = code ^ 0x55;
    let (mantissa, segment) = (i32::from(code & 15) << 4, code >> 4 & 7);
    let magnitude = if segment == 0 { mantissa + 8 } else { (mantissa + 0x108) << (segment - 1) };
    let sample = f64::from(magnitude) / 32768.0;
    if code & 0x80 == 0 { -sample } else { sample }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tone::sine;

    /// The code whose decoding lies nearest: slow, but without a second formula that could be wrong in the same way.
    fn packets(kind: u8, decode: fn(u8) -> f64, tone: &Recording) -> Vec<Packet> {
        let nearest = |sample: f64| {
            (0..=255u8).min_by(|a, b| (decode(*a) - sample).abs().total_cmp(&(decode(*b) - sample).abs()))
        };
        let packet = |samples: &[f64]| Packet {
            at: Duration::ZERO,
            protocol: 17,
            source: "10.0.0.1:4000".parse().unwrap(),
            destination: "10.0.0.2:4000".parse().unwrap(),
            sequence: 0,
            payload: [0x80, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
                .into_iter()
                .chain(samples.iter().filter_map(|sample| nearest(*sample)))
                .collect(),
        };
        tone.samples.chunks(160).map(packet).collect()
    }

    #[test]
    fn a_tone_in_rtp_is_heard_by_whom_it_goes_to() {
        let tone = sine(8000, 500.0, 0.5);
        for (kind, decode) in [(0, of_ulaw as fn(u8) -> f64), (8, of_alaw)] {
            let packets = packets(kind, decode, &tone);
            let heard = audio_to(&packets, "10.0.0.2".parse().unwrap());
            assert!(heard.has_tone(500.0) && !heard.has_tone(900.0), "payload type {kind}");
            assert_eq!(audio_to(&packets, "10.0.0.1".parse().unwrap()).samples.len(), 0);
        }
    }

    #[test]
    fn the_codes_of_g711_have_their_values() {
        // ITU-T G.711 tables 1 and 2: the greatest values, and those around zero.
        assert_eq!((of_ulaw(0x80) * 32768.0, of_ulaw(0xff)), (32124.0, 0.0));
        assert_eq!((of_alaw(0xaa) * 32768.0, of_alaw(0xd5) * 32768.0), (32256.0, 8.0));
    }
}
