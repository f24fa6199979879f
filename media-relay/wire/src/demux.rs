//! What a datagram on a media port is (RFC 7983 §7), where RTP was agreed on. What is none of these is nobody's: a port that passes
//! whatever it is sent would carry one party's bytes to any service that the other names.

/// STUN's magic cookie (RFC 8489 §5).
pub const COOKIE: u32 = 0x2112_A442;

/// Whether it is STUN rather than media: the cookie tells it from what has no first byte of its own, as UDPTL.
#[inline]
pub fn is_stun(packet: &[u8]) -> bool {
    packet.len() >= 20
        && packet.first().is_some_and(|first| *first < 4)
        && packet.get(4..8) == Some(&COOKIE.to_be_bytes())
}

/// Whether a packet of RTP's port is RTCP (RFC 5761 §4).
#[inline]
pub fn is_rtcp(packet: &[u8]) -> bool {
    packet.len() >= 8 && matches!(packet, [first, 192..=223, ..] if first >> 6 == 2)
}

/// Whether it begins as RTP does, by as much as every such packet has.
#[inline]
pub fn is_rtp(packet: &[u8]) -> bool {
    matches!(packet, [128..=191, kind, ..] if !matches!(kind, 192..=223))
}

/// Beside RTP and RTCP of version 2 and STUN, which are told apart first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// DTLS (RFC 5764 §5.1.2), or ZRTP (RFC 6189 §5).
    Handshake,
    /// Nothing at all, or line ends and zeros: holds a NAT's mapping open (RFC 6263 §4.1, RFC 5626 §3.5.1).
    Keepalive,
    /// Anything else.
    Foreign,
}

/// Longer ones of line ends say something.
const LONGEST_KEEPALIVE: usize = 4;
/// "ZRTP" (RFC 6189 §5).
const ZRTP: &[u8] = b"ZRTP";

impl Kind {
    /// Of a datagram that is none of those.
    pub fn of(packet: &[u8]) -> Self {
        let is_blank = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
        match packet.first() {
            _ if packet.len() <= LONGEST_KEEPALIVE && packet.iter().all(is_blank) => Kind::Keepalive,
            Some(20..=63) if is_dtls(packet) => Kind::Handshake,
            Some(16..=19) if packet.get(4..8) == Some(ZRTP) => Kind::Handshake,
            _ => Kind::Foreign,
        }
    }
}

/// Plaintext and DTLS 1.2 records (RFC 6347 §4.1), and those with the unified header of DTLS 1.3 (RFC 9147 §4).
fn is_dtls(packet: &[u8]) -> bool {
    let Some(head) = packet.first_chunk::<13>() else { return false };
    let [kind, major, minor, .., high, low] = *head;
    if kind & 0b1110_0000 == 0b0010_0000 {
        return true;
    }
    let fits = usize::from(u16::from_be_bytes([high, low])) <= packet.len().saturating_sub(head.len());
    major == 0xfe && matches!(minor, 0xfd | 0xff) && fits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_and_keepalives_are_told_from_what_is_foreign() {
        let hello = [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4][..], &[1, 0, 0, 0]].concat();
        let zrtp = [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 20]].concat();
        for (packet, expected) in [
            (&hello[..], Kind::Handshake),
            (&hello[..16], Kind::Foreign),
            (&zrtp, Kind::Handshake),
            (&[0x2f; 40], Kind::Handshake),
            (b"", Kind::Keepalive),
            (b"\0", Kind::Keepalive),
            (b"\r\n\r\n", Kind::Keepalive),
            (b"\r\n\r\n\r\n", Kind::Foreign),
            (b"OPTIONS sip:x SIP/2.0\r\n\r\n", Kind::Foreign),
            (&[0; 40], Kind::Foreign),
            (&[0x16; 40], Kind::Foreign),
            (&[0x80; 11], Kind::Foreign),
        ] {
            assert_eq!(Kind::of(packet), expected, "{packet:?}");
        }
    }
}
