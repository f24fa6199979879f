//! The fixed header of RTP (RFC 3550 §5.1), all that relaying looks at.

/// What a relay reads of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Payload type.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl Header {
    /// `None` if it is no RTP version 2 packet.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *packet.first_chunk()?;
        if first >> 6 != 2 {
            return None;
        }
        Some(Self {
            payload_type: second & 0x7f,
            marker: second & 0x80 != 0,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }
}

/// Whether an RTP packet has room for the sources and the extension that its header announces (RFC 3550 §5.1; padding may be
/// encrypted). One that has not passes, but teaches nobody where its sender is.
pub fn is_sound(packet: &[u8]) -> bool {
    let Some(first) = packet.first() else { return false };
    let mut need = 12_usize.saturating_add(usize::from(first & 0x0f).saturating_mul(4));
    if first & 0x10 != 0 {
        let Some([_, _, high, low]) = packet.get(need..).and_then(|rest| rest.first_chunk::<4>()) else {
            return false;
        };
        let words = usize::from(u16::from_be_bytes([*high, *low]));
        need = need.saturating_add(4).saturating_add(words.saturating_mul(4));
    }
    first >> 6 == 2 && need <= packet.len()
}

/// Whether a packet of a shared port is RTCP (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.len() >= 8 && matches!(packet, [first, 192..=223, ..] if first >> 6 == 2)
}
