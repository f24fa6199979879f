//! When the two of a call first hear each other, on the wire.

use std::net::IpAddr;
use std::time::Duration;

use crush_tests::Result;
use crush_tests::packet::{Packet, is_rtp};

use crate::scene::Party;

/// What each side waits for its first RTP from: ms at caller and callee.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FirstAudio {
    /// The receipt of the message that says the call is up: the 200, the ACK; 0 if the RTP came before it. A session border controller sends the callee its ACK at
    /// once, a proxy passes on the caller's: the callee's figure begins a round trip to the caller later there.
    pub(super) after_up: [Option<f64>; 2],
    /// The callee's sending of its 200: the same moment for both, whatever stands between them.
    pub(super) after_pick_up: [Option<f64>; 2],
    /// From the caller's first INVITE to the first response: its round trip to the relay, which is there too. ms
    pub(super) round_trip: Option<f64>,
}

impl FirstAudio {
    /// Of the call since the marks in both captures.
    pub(super) fn of<P>(parties: &mut [Party<P>; 2], marks: [usize; 2]) -> Result<Self> {
        let mut audio = Self::default();
        let [caller, callee] = &mut *parties;
        let address = callee.address;
        let answers = |packet: &&Packet| packet.source.ip() == address && is_answer(packet);
        let pick_up = callee.tap.since(marks[1])?.iter().find(answers).map(|packet| packet.at);
        let address = caller.address;
        let packets = caller.tap.since(marks[0])?;
        let asks = |packet: &&Packet| packet.source.ip() == address && packet.payload.starts_with(b"INVITE ");
        let told = |packet: &&Packet| packet.destination.ip() == address && is_response(packet);
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
            let Some((up, pick_up)) = up.zip(pick_up) else { continue };
            // What overtakes the 200 or the ACK is heard when that comes.
            let heard = packets.iter().find(|packet| packet.at >= pick_up && brings_rtp(packet, address));
            let after = |moment: Duration| {
                heard.map(|heard| heard.at.max(up).saturating_sub(moment).as_secs_f64() * 1000.0)
            };
            (audio.after_up[side], audio.after_pick_up[side]) = (after(up), after(pick_up));
        }
        Ok(audio)
    }

    /// Whether both have heard something.
    pub(super) fn is_whole(&self) -> bool {
        self.after_up.iter().all(Option::is_some)
    }
}

/// Whether this is a response to an INVITE.
fn is_response(packet: &Packet) -> bool {
    packet.payload.starts_with(b"SIP/2.0 ") && packet.payload.windows(7).any(|window| window == b" INVITE")
}

/// Whether it is the 200.
fn is_answer(packet: &Packet) -> bool {
    packet.payload.starts_with(b"SIP/2.0 200") && is_response(packet)
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
