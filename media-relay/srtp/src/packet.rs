//! What stays in the clear of a packet.

use media_wire::rtcp;
use media_wire::rtp::{Header, header_length};

use crate::Error;

/// Octets of an RTCP packet that are not encrypted: the first header and the sender (RFC 3711 §3.4).
pub(crate) const RTCP_CLEAR: usize = 8;

/// An RTP packet's header, and its octets with sources and extension.
pub(crate) fn rtp_header(packet: &[u8]) -> Result<(Header, usize), Error> {
    Header::read(packet).zip(header_length(packet)).ok_or(Error::Malformed)
}

/// The sender of an RTCP packet.
pub(crate) fn rtcp_sender(packet: &[u8]) -> Result<u32, Error> {
    rtcp::sender(packet).ok_or(Error::Malformed)
}
