//! The header of RTP (RFC 3550 §5.1): all that a relay and an endpoint look at, and all that SRTP leaves in the clear. Padding is no
//! part of it, for its length may be encrypted.

use crate::demux::is_rtcp;

/// Octets before the sources, and of an extension before its words (RFC 3550 §5.1, §5.3.1).
const FIXED: usize = 12;
const EXTENSION: usize = 4;

/// The fixed part of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Timestamp, in the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl Header {
    /// `None` if it is no RTP version 2 packet. RTCP has a version too: see [`Header::of_media`].
    #[inline]
    pub fn read(packet: &[u8]) -> Option<Self> {
        let [first, second, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *packet.first_chunk()?;
        if first >> 6 != 2 {
            return None;
        }
        Some(Self {
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// The same where RTCP may come to the port as well; `None` for that.
    pub fn of_media(packet: &[u8]) -> Option<Self> {
        if is_rtcp(packet) { None } else { Self::read(packet) }
    }
}

/// Octets of the header with the sources and the extension that it announces; `None` if the packet has no room for them, or is of another
/// version.
pub fn header_length(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let mut length = FIXED.saturating_add(words((first & 0x0f).into()));
    if first & 0x10 != 0 {
        let [_, _, high, low] = *packet.get(length..)?.first_chunk()?;
        length =
            length.saturating_add(EXTENSION).saturating_add(words(u16::from_be_bytes([high, low]).into()));
    }
    (first >> 6 == 2 && length <= packet.len()).then_some(length)
}

/// Octets of so many words of 32 bits.
fn words(count: usize) -> usize {
    count.saturating_mul(4)
}

/// Whether an RTP packet has room for what its header announces. One that has not passes a relay, but teaches nobody where its sender is.
pub fn is_sound(packet: &[u8]) -> bool {
    header_length(packet).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtcp_and_rubbish_have_no_header_of_media() {
        let mut packet = vec![0x80, 0, 0x12, 0x34, 0, 0, 0, 160, 0, 0, 0, 7];
        let header = Header { payload_type: 0, sequence: 0x1234, timestamp: 160, ssrc: 7 };
        assert_eq!(Header::of_media(&packet), Some(header));
        // Encrypted padding says nothing.
        packet[0] = 0xA0;
        packet.push(0);
        assert_eq!(Header::of_media(&packet), Some(header));
        packet[1] = 200;
        assert_eq!(Header::of_media(&packet), None);
        assert_eq!(Header::of_media(&packet[..5]), None);
        assert_eq!(Header::of_media(&[]), None);
    }

    #[test]
    fn a_header_has_room_for_its_sources_and_its_extension() {
        let mut packet = vec![0; 24];
        for (first, words, length) in [
            (0x80, 0, Some(12)),
            (0x82, 0, Some(20)),
            (0x83, 0, Some(24)),
            (0x84, 0, None),
            (0x90, 2, Some(24)),
        ] {
            (packet[0], packet[15]) = (first, words);
            assert_eq!(header_length(&packet), length, "{first:x}");
        }
        packet[15] = 3;
        assert_eq!(header_length(&packet), None);
    }
}
