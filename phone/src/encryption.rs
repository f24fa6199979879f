//! A call's encryption: SRTP (RFC 3711) with the keys that descriptions carry (RFC 4568).

use std::borrow::Cow;

use clap::ValueEnum;
use media_wire::handoff::Path;
use srtp::sdes::{Crypto, Refused};
use srtp::{Inbound, MOST_OVERHEAD, Master, Outbound, Suite};

/// Of the one key that each m-line of our offers has.
pub(crate) const TAG: u32 = 1;
/// Its suite.
pub(crate) const SUITE: Suite = Suite::Sha1Tag80;

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Srtp {
    /// Offers plain RTP, and answers offers of SRTP with it.
    Accept,
    /// Offers SRTP, and refuses calls without.
    Require,
}

/// How the media of a description may be carried, by what went before it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// It is an offer.
    Offer(Srtp),
    /// It answers ours, whose audio and pictures had these suites; `None`: they were plain.
    Answer([Option<Suite>; 2]),
}

/// Why a description cannot be used: 488 to an offer, and after such an answer the call ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("the description has no audio in G.711 that this phone could use")]
    NoAudio,
    #[error("media is plain, and must be encrypted")]
    Plain,
    #[error("the answer is encrypted, the offer was not")]
    NotOffered,
    #[error("media is said to be encrypted (RTP/SAVP), and there is no key: no a=crypto")]
    NoKey,
    #[error("{0}")]
    Crypto(#[from] Refused),
    #[error("the answer has another tag or suite in a=crypto than the offer")]
    OtherKey,
    #[error("the system has no randomness")]
    NoRandomness,
}

impl Expected {
    /// Their key for an m-line, if it is one that is encrypted. `kind`: 0 audio, 1 pictures.
    pub(crate) fn key(
        self,
        kind: usize,
        is_secure: bool,
        lines: &[Result<Crypto, Refused>],
    ) -> Result<Option<Crypto>, Unusable> {
        let refused = || lines.iter().find_map(|line| line.as_ref().err()).copied();
        let no_key = || refused().map_or(Unusable::NoKey, Unusable::Crypto);
        match self {
            Self::Offer(Srtp::Require) if !is_secure => Err(Unusable::Plain),
            Self::Offer(_) if !is_secure => Ok(None),
            // The first is what they like best.
            Self::Offer(_) => lines.iter().find_map(|line| line.clone().ok()).map(Some).ok_or_else(no_key),
            Self::Answer(offered) => match (offered[kind], lines) {
                (None, _) if !is_secure => Ok(None),
                (None, _) => Err(Unusable::NotOffered),
                (Some(_), _) if !is_secure => Err(Unusable::Plain),
                (Some(suite), [Ok(crypto)]) if (crypto.tag, crypto.suite) == (TAG, suite) => {
                    Ok(Some(crypto.clone()))
                }
                (Some(_), [Ok(_), ..]) => Err(Unusable::OtherKey),
                (Some(_), _) => Err(no_key()),
            },
        }
    }
}

/// One stream's keys in use. They go on through re-INVITEs that change nothing of them, with what was counted: after a change of networks
/// packets still decrypt.
pub(crate) struct Protection {
    theirs: Crypto,
    outbound: Outbound,
    /// The relay's path, and the direct one.
    inbound: Inbound<2>,
}

impl Protection {
    /// What is sent with it must have an SSRC that was never sent with `ours` before (RFC 3711 §9.1).
    pub(crate) fn new(theirs: &Crypto, ours: &Master) -> Self {
        Self {
            outbound: Outbound::new(theirs.suite, ours),
            inbound: Inbound::new(theirs.suite, &theirs.master),
            theirs: theirs.clone(),
        }
    }

    pub(crate) fn suite(&self) -> Suite {
        self.theirs.suite
    }

    /// Whether it is that of this key; the tag only names a line.
    pub(crate) fn is_of(&self, theirs: &Crypto) -> bool {
        (self.theirs.suite, &self.theirs.master) == (theirs.suite, &theirs.master)
    }

    /// What arrived as RTP by a path, in the clear; `None` if it is not authentic or came by it before.
    pub(crate) fn rtp(&mut self, bytes: &[u8], path: Path) -> Option<Vec<u8>> {
        let mut packet = bytes.to_vec();
        let length = self.inbound.unprotect_rtp(&mut packet, path as usize).ok()?;
        packet.truncate(length);
        Some(packet)
    }
}

/// The packet as it is to be sent; `None` if the key may not be used any more.
pub(crate) fn protected(protection: &mut Option<Protection>, packet: Vec<u8>) -> Option<Vec<u8>> {
    sealed(protection, packet, Outbound::protect_rtp)
}

/// The same of a report.
pub(crate) fn protected_report(protection: &mut Option<Protection>, packet: Vec<u8>) -> Option<Vec<u8>> {
    sealed(protection, packet, Outbound::protect_rtcp)
}

fn sealed(
    protection: &mut Option<Protection>,
    mut packet: Vec<u8>,
    seal: fn(&mut Outbound, &mut [u8], usize) -> Result<usize, srtp::Error>,
) -> Option<Vec<u8>> {
    if let Some(protection) = protection {
        let length = packet.len();
        packet.resize(length + MOST_OVERHEAD, 0);
        let length = seal(&mut protection.outbound, &mut packet, length).ok()?;
        packet.truncate(length);
    }
    Some(packet)
}

/// A report that has arrived, in the clear.
pub(crate) fn report<'a>(protection: &mut Option<Protection>, bytes: &'a [u8]) -> Option<Cow<'a, [u8]>> {
    let Some(protection) = protection else { return Some(Cow::Borrowed(bytes)) };
    let mut packet = bytes.to_vec();
    let length = protection.inbound.unprotect_rtcp(&mut packet).ok()?;
    packet.truncate(length);
    Some(Cow::Owned(packet))
}
