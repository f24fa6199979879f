//! Packets on their way out.

use crate::keys::{self, LONGEST_TAG, Session};
use crate::packet::{RTCP_CLEAR, rtcp_sender, rtp_header};
use crate::source::Sources;
use crate::{Error, Master, Suite};

/// Octets of what says whether a report is encrypted, and its index.
const TRAILER: usize = 4;
/// Indices of reports have 31 bits (RFC 3711 §3.4).
const LAST_REPORT: u32 = (1 << 31) - 1;

/// Protects what is sent with one key. Two of the same key must never protect packets of the same SSRC: both would be readable.
pub struct Outbound {
    suite: Suite,
    rtp: Session,
    rtcp: Session,
    sources: Sources<1>,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outbound").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Outbound {
    /// Nothing has been sent with this key.
    pub fn new(suite: Suite, master: &Master) -> Self {
        let (rtp, rtcp) = (Session::derive(master, keys::RTP), Session::derive(master, keys::RTCP));
        Self { suite, rtp, rtcp, sources: Sources::new() }
    }

    /// Encrypts the RTP packet in the first `length` octets; returns its length with the tag behind it. A source's first sequence number
    /// should be under 2^15, so that a receiver that loses it counts rounds as we do (RFC 3711 §3.3.1).
    pub fn protect_rtp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let (header, clear) = rtp_header(buffer.get(..length).ok_or(Error::Malformed)?)?;
        let end = length.saturating_add(self.suite.tag());
        let room = buffer.get_mut(..end).ok_or(Error::NoRoom)?;
        let mut source = self.sources.find(header.ssrc)?;
        let index = source.index(header.sequence)?;
        if !source.is_new(0, index) {
            return Err(Error::Replayed);
        }
        let (packet, tag) = room.split_at_mut(length);
        self.rtp.cipher(header.ssrc, index, packet.get_mut(clear..).ok_or(Error::Malformed)?);
        let whole = self.rtp.tag(packet, Some((index >> 16) as u32));
        tag.iter_mut().zip(whole).for_each(|(octet, of_whole)| *octet = of_whole);
        source.advance(0, index);
        self.sources.keep(source);
        Ok(end)
    }

    /// Encrypts the RTCP packet, simple or compound, in the first `length` octets; returns its length with index and tag.
    pub fn protect_rtcp(&mut self, buffer: &mut [u8], length: usize) -> Result<usize, Error> {
        let sender = rtcp_sender(buffer.get(..length).ok_or(Error::Malformed)?)?;
        let end = length.saturating_add(TRAILER).saturating_add(LONGEST_TAG);
        let room = buffer.get_mut(..end).ok_or(Error::NoRoom)?;
        let mut source = self.sources.find(sender)?;
        // Counts from 1, as libsrtp does; RFC 3711 §3.4 leaves 0 to the first.
        let index = source.next_report.saturating_add(1);
        if index > LAST_REPORT {
            return Err(Error::KeyExhausted);
        }
        let (packet, tag) = room.split_last_chunk_mut::<LONGEST_TAG>().ok_or(Error::NoRoom)?;
        let (report, trailer) = packet.split_last_chunk_mut().ok_or(Error::NoRoom)?;
        self.rtcp.cipher(sender, u64::from(index), report.get_mut(RTCP_CLEAR..).ok_or(Error::Malformed)?);
        *trailer = (index | 1 << 31).to_be_bytes();
        tag.copy_from_slice(&self.rtcp.tag(packet, None));
        source.next_report = index;
        self.sources.keep(source);
        Ok(end)
    }
}
