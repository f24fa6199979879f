//! A mistake in the reading of one packet or description costs that one, and nothing else.
//!
//! What strangers lay out as they like (STUN, RTCP, SDP) is read here once for nothing, before a session that remembers is
//! given it: what would panic has panicked where it harms nobody. RTP, which most packets are, has a head of fixed length
//! that is read without an index, and goes straight on.

use std::hint::black_box;

use media_wire::demux::is_rtp;
use media_wire::sdp::Description;
use media_wire::{rtcp, stun};
use seam::{Action, Renegotiated};

/// Whether a packet may be given to its session.
#[inline]
pub(crate) fn is_readable(packet: &[u8]) -> bool {
    is_rtp(packet) || is_control_readable(packet)
}

#[cold]
fn is_control_readable(packet: &[u8]) -> bool {
    vitals::contained(|| {
        vitals::stumble("packet", packet);
        if stun::is_stun(packet) {
            black_box(stun::Incoming::read(packet).map(|message| message.attributes().count()));
        }
        if rtcp::is_clear(packet) {
            rtcp::reports(packet, |report| {
                black_box(report);
            });
            black_box(rtcp::without_names(packet, b"name", false));
        }
    })
    .is_ok()
}

/// Whether what somebody says in an action may be given to its session.
pub(crate) fn is_sayable(action: &Action) -> bool {
    let said = match action {
        Action::Offer { sdp, .. } | Action::Answer { sdp, .. } => sdp,
        Action::Renegotiated {
            outcome: Renegotiated::Accepted(sdp) | Renegotiated::Offered { sdp, .. },
            ..
        } => sdp,
        _ => return true,
    };
    vitals::contained(|| {
        vitals::stumble("description", said);
        black_box(Description::parse(said.clone()).is_ok());
    })
    .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtp_is_not_read_twice_and_all_else_is() {
        let rtp = [&[0x80, 0, 0, 1][..], &[0; 20]].concat();
        assert!(is_rtp(&rtp));
        for other in [&[0x80, 200, 0, 1][..], &[0, 1, 0, 0], &[22, 0xfe, 0xff], b"", b"\x80"] {
            assert!(!is_rtp(other) && is_readable(other), "{other:?}");
        }
    }
}
