//! What is known of media without reading it: kinds, paths, and the RTP header, which SRTP leaves in the clear.

use std::fmt;

/// What an m-line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Synchronises the paths.
    Audio,
    /// Moves abruptly, at a key frame.
    Video,
}

/// One of the two ways between the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Through the SBC.
    Relay,
    /// From endpoint to endpoint.
    Direct,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Direct => "direct",
        })
    }
}

/// The fields of an RTP header (RFC 3550 §5.1) that synchronising needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RtpHeader {
    /// 16 bits, one a packet.
    pub sequence: u16,
    /// In units of the stream's clock rate.
    pub timestamp: u32,
    /// Of the sender.
    pub ssrc: u32,
}

impl RtpHeader {
    /// `None` for RTCP (RFC 5761 §4) and what is too short or of another version. Of SRTP nothing else can be read: the padding's
    /// length, for one, is encrypted.
    pub fn read(packet: &[u8]) -> Option<Self> {
        if is_rtcp(packet) {
            return None;
        }
        let [first, _, a, b, c, d, e, f, g, h, i, j, ..] = *packet else { return None };
        let header = Self {
            sequence: u16::from_be_bytes([a, b]),
            timestamp: u32::from_be_bytes([c, d, e, f]),
            ssrc: u32::from_be_bytes([g, h, i, j]),
        };
        (first >> 6 == 2).then_some(header)
    }
}

/// Whether a packet on an RTP port is RTCP (RFC 5761 §4).
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet, [first, 192..=223, _, _, _, _, _, _, ..] if first >> 6 == 2)
}

/// Sequence numbers as one growing count (RFC 3550 appendix A.1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unwrapped {
    newest: Option<i64>,
}

impl Unwrapped {
    /// The extended number nearest to the newest so far.
    pub(crate) fn extend(&mut self, sequence: u16) -> i64 {
        let extended = match self.newest {
            // Room below, so that packets that come before the first one stay positive.
            None => i64::from(sequence).saturating_add(1 << 16),
            Some(newest) => newest.saturating_add(i64::from(sequence.wrapping_sub(newest as u16) as i16)),
        };
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }
}

/// Timestamps as one growing count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UnwrappedTime {
    newest: Option<i64>,
}

impl UnwrappedTime {
    /// The extended timestamp nearest to the newest so far.
    pub(crate) fn extend(&mut self, timestamp: u32) -> i64 {
        let extended = match self.newest {
            None => i64::from(timestamp).saturating_add(1 << 32),
            Some(newest) => newest.saturating_add(i64::from(timestamp.wrapping_sub(newest as u32) as i32)),
        };
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_extend_over_the_wrap_in_both_directions() {
        let mut unwrapped = Unwrapped::default();
        let first = unwrapped.extend(65_534);
        assert_eq!(unwrapped.extend(1), first + 3);
        assert_eq!(unwrapped.extend(65_535), first + 1);
        assert_eq!(unwrapped.extend(2), first + 4);
    }

    #[test]
    fn rtcp_and_rubbish_have_no_rtp_header() {
        let mut packet = vec![0x80, 0, 0x12, 0x34, 0, 0, 0, 160, 0, 0, 0, 7];
        let header = RtpHeader { sequence: 0x1234, timestamp: 160, ssrc: 7 };
        assert_eq!(RtpHeader::read(&packet), Some(header));
        // Encrypted padding says nothing.
        packet[0] = 0xA0;
        packet.push(0);
        assert_eq!(RtpHeader::read(&packet), Some(header));
        packet[1] = 200;
        assert_eq!(RtpHeader::read(&packet), None);
        assert_eq!(RtpHeader::read(&packet[..5]), None);
        assert_eq!(RtpHeader::read(&[]), None);
    }
}
