//! What stays in the clear of a packet.

use crate::Error;

/// Octets of an RTCP packet that are not encrypted: the first header and the sender (RFC 3711 §3.4).
pub(crate) const RTCP_CLEAR: usize = 8;

/// Octets of an RTP header before its sources, and of an extension before its words (RFC 3550 §5.1, §5.3.1).
const FIXED: usize = 12;
const EXTENSION: usize = 4;

/// Octets of so many words of 32 bits.
fn words(count: impl Into<usize>) -> usize {
    count.into().saturating_mul(4)
}

/// An RTP header (RFC 3550 §5.1). The padding is part of what is encrypted, so nothing of it is read here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) sequence: u16,
    pub(crate) ssrc: u32,
    /// Octets, with sources and extension.
    pub(crate) length: usize,
}

impl Header {
    pub(crate) fn read(packet: &[u8]) -> Result<Self, Error> {
        let [first, _, a, b, _, _, _, _, c, d, e, f, ..] = *packet else { return Err(Error::Malformed) };
        let mut length = FIXED.saturating_add(words(first & 0x0F));
        if first & 0x10 != 0 {
            let [_, _, high, low] =
                packet.get(length..).and_then(<[u8]>::first_chunk).ok_or(Error::Malformed)?;
            length =
                length.saturating_add(EXTENSION).saturating_add(words(u16::from_be_bytes([*high, *low])));
        }
        let is_whole = first >> 6 == 2 && length <= packet.len();
        let header =
            Self { sequence: u16::from_be_bytes([a, b]), ssrc: u32::from_be_bytes([c, d, e, f]), length };
        if is_whole { Ok(header) } else { Err(Error::Malformed) }
    }
}

/// The sender of an RTCP packet.
pub(crate) fn rtcp_sender(packet: &[u8]) -> Result<u32, Error> {
    match *packet {
        [first, _, _, _, a, b, c, d, ..] if first >> 6 == 2 => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(Error::Malformed),
    }
}
