//! When the two of a call first hear each other, on the wire.

use std::net::IpAddr;
use std::time::Duration;

use crush_tests::Result;
use crush_tests::packet::{Packet, is_rtp};

use crate::scene::Party;

/// What each side waits for its first RTP from: ms at caller and callee.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FirstAudio {
    /// The receipt of the message that says the call is up: the 200, the ACK. A session border controller sends the callee its ACK at
    /// once, a proxy passes on the caller's: the callee's figure begins a round trip to the caller later there.
    pub(super) after_up: [Option<f64>; 2],
    /// The callee's sending of its 200: the same moment for both, whatever stands between them.
    pub(super) after_pick_up: [Option<f64>; 2],
    /// From the caller's first INVITE to the first word of whom it calls by: its round trip to the relay, which is there too. ms
    pub(super) round_trip: Option<f64>,
}

impl FirstAudio {
    /// Of the call since the marks in both captures.
    pub(super) fn of<P>(parties: &mut [Party<P>; 2], marks: [usize; 2]) -> Result<Self> {
        let mut audio = Self::default();
        let [_, callee] = parties;
        let address = callee.address;
        let sent = callee
            .tap
            .since(marks[1])?
            .iter()
            .find(|packet| packet.source.ip() == address && is_answer(packet));
        let pick_up = sent.map(|packet| packet.at);
        let caller = parties[0].address;
        let packets = parties[0].tap.since(marks[0])?;
        let asks = |packet: &&Packet| packet.source.ip() == caller && packet.payload.starts_with(b"INVITE ");
        let told =
            |packet: &&Packet| packet.destination.ip() == caller && packet.payload.starts_with(b"SIP/2.0 ");
        audio.round_trip = packets.iter().find(asks).and_then(|asked| {
            let told = packets.iter().filter(|packet| packet.at >= asked.at).find(told)?;
            Some((told.at - asked.at).as_secs_f64() * 1000.0)
        });
        for (side, party) in parties.iter_mut().enumerate() {
            let address = party.address;
            let packets = party.tap.since(marks[side])?;
            let says_up = |packet: &&Packet| {
                let is_up = if side == 0 { is_answer(packet) } else { packet.payload.starts_with(b"ACK ") };
                packet.destination.ip() == address && is_up
            };
            let up = packets.iter().find(says_up).map(|packet| packet.at);
            let after = |moment: Option<Duration>| {
                let moment = moment?;
                let rtp = packets.iter().find(|packet| packet.at >= moment && brings_rtp(packet, address))?;
                Some((rtp.at - moment).as_secs_f64() * 1000.0)
            };
            audio.after_up[side] = after(up);
            audio.after_pick_up[side] = after(up.and(pick_up));
        }
        Ok(audio)
    }

    /// Whether both have heard something.
    pub(super) fn is_whole(&self) -> bool {
        self.after_up.iter().all(Option::is_some)
    }
}

/// Whether this is the 200 of an INVITE.
fn is_answer(packet: &Packet) -> bool {
    packet.payload.starts_with(b"SIP/2.0 200") && packet.payload.windows(7).any(|window| window == b" INVITE")
}

/// Whether a datagram to a host brings RTP, by itself or by a TURN server (RFC 8656 §11.6 and §12.4).
fn brings_rtp(packet: &Packet, host: IpAddr) -> bool {
    let is_wrapped = match &packet.payload[..] {
        [0x40..=0x4f, _, _, _, data @ ..] => is_rtp(data),
        [0x00, 0x17, rest @ ..] => {
            rest.windows(16).any(|bytes| bytes.starts_with(&[0x00, 0x13]) && is_rtp(&bytes[4..]))
        }
        data => is_rtp(data),
    };
    packet.protocol == 17 && packet.destination.ip() == host && is_wrapped
}
