//! Packets on their way in.

use crate::keys::{self, LONGEST_TAG, Session};
use crate::packet::{RTCP_CLEAR, rtcp_sender, rtp_header};
use crate::source::Sources;
use crate::{Error, Master, Suite};

/// Accepts what was protected with one key, each packet once by each of `PATHS` paths.
pub struct Inbound<const PATHS: usize = 1> {
    suite: Suite,
    rtp: Session,
    rtcp: Session,
    sources: Sources<PATHS>,
}

impl<const PATHS: usize> std::fmt::Debug for Inbound<PATHS> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbound").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl<const PATHS: usize> Inbound<PATHS> {
    /// Nothing has come with this key.
    pub fn new(suite: Suite, master: &Master) -> Self {
        let (rtp, rtcp) = (Session::derive(master, keys::RTP), Session::derive(master, keys::RTCP));
        Self { suite, rtp, rtcp, sources: Sources::new() }
    }

    /// Decrypts an SRTP packet that came by a path, counted from 0 to `PATHS`; returns the length of the RTP packet.
    pub fn unprotect_rtp(&mut self, packet: &mut [u8], path: usize) -> Result<usize, Error> {
        let length = packet.len().checked_sub(self.suite.tag()).ok_or(Error::Malformed)?;
        let (packet, tag) = packet.split_at_mut(length);
        let (header, clear) = rtp_header(packet)?;
        let mut source = self.sources.find(header.ssrc)?;
        let index = source.index(header.sequence)?;
        if !source.is_new(path, index) {
            return Err(Error::Replayed);
        }
        if !self.rtp.is_authentic(packet, Some((index >> 16) as u32), tag) {
            return Err(Error::NotAuthentic);
        }
        self.rtp.cipher(header.ssrc, index, packet.get_mut(clear..).ok_or(Error::Malformed)?);
        source.advance(path, index);
        self.sources.keep(source);
        Ok(length)
    }

    /// Decrypts an SRTCP packet; returns the length of the RTCP packet. Reports come by one path only.
    pub fn unprotect_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, Error> {
        let end = packet.len().checked_sub(LONGEST_TAG).ok_or(Error::Malformed)?;
        let (packet, tag) = packet.split_at_mut(end);
        let (report, trailer) = packet.split_last_chunk_mut().ok_or(Error::Malformed)?;
        let sender = rtcp_sender(report)?;
        let (length, trailer) = (report.len(), u32::from_be_bytes(*trailer));
        let (is_encrypted, index) = (trailer >> 31 == 1, u64::from(trailer & !(1 << 31)));
        let mut source = self.sources.find(sender)?;
        if !source.reports.is_new(index) {
            return Err(Error::Replayed);
        }
        if !self.rtcp.is_authentic(packet, None, tag) {
            return Err(Error::NotAuthentic);
        }
        if is_encrypted {
            self.rtcp.cipher(sender, index, packet.get_mut(RTCP_CLEAR..length).ok_or(Error::Malformed)?);
        }
        source.reports.mark(index);
        self.sources.keep(source);
        Ok(length)
    }
}
