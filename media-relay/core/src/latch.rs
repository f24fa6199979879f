//! Where a party really is (RFC 7362): learnt from what arrives, but not from anybody.
//!
//! Who may teach, the better above the worse:
//!
//! | source | taught by | when | gives way to |
//! | --- | --- | --- | --- |
//! | proven | credentials of ICE or CRUSH (RFC 8489 §9.1) | always | another proof; signalling of another address, once that is heard; host and signalled, if it is doubted and silent for 2 s |
//! | signalled | any packet of the address that the description names | always | what is proven; the host, below |
//! | host | any packet of the host of that address, of the signalling, or (RTCP) of the RTP | always while nothing is learnt, so for a stream never heard for ever; afterwards when doubted, see below | signalled, at any time |
//! | stranger | RTP of an agreed payload type, where the realm has [`Latching::Any`] | the signalled address is private, and not that of the signalling; or it is public, differs from the signalling, and was silent for 2 s | host and signalled, at any time |
//!
//! With [`Latching::Strict`] neither hosts nor strangers teach. A DTLS hello, ZRTP, RTCP, a plain STUN Binding request and an empty keepalive teach
//! as RTP does, but for strangers.
//!
//! **Signalling doubts what was learnt**, if it is newer: a phone that resumes signs the same address as ever, while its NAT has given
//! it another port (RFC 3264 §8.3.1). Packets go to the old place until another source of the host is heard, and the first that is
//! takes it; the doubt ends when the old place is still heard [`SETTLE`] later, after [`WINDOW`]. Within [`WINDOW`] of signalling a host
//! that goes silent and speaks from another port, in another stream, is followed as well (gateways that begin a call elsewhere than they
//! go on), unless the realm follows no rebinding. Later only a NAT that rebinds is: the same stream, from the same host, after a silence.
//!
//! **What signalling has just left is not learnt again before the new address is heard**: its last packets are still on the way. They
//! pass, for they are the party's, but nothing goes back to them. Only where it never sat at the address that it signalled (a NAT whose mapping
//! may well be the same) it may be learnt again after [`SETTLE`], and is sent to meanwhile if the new address is one behind that NAT.
//!
//! The unspecified address (hold, RFC 3264 §8.4) and names say nothing of where a party is: they doubt, and leave nothing.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_wire::rtp::Header;
use serde::{Deserialize, Serialize};

use crate::clock::timed;
use crate::path::place::is_local;

/// How long after signalling a host may be followed from port to port.
pub const WINDOW: Duration = Duration::from_secs(10);
/// So long after signalling stragglers have arrived: a source heard later is there.
pub const SETTLE: Duration = Duration::from_secs(2);
/// How long a stranger must wait for somebody better, and how long a public address must have been silent.
const PATIENCE: Duration = Duration::from_millis(500);
const PUBLIC_PATIENCE: Duration = Duration::from_secs(2);
/// How long the learnt source must have been silent before the same stream may come from another port, or the signalled address
/// before its host may speak from another one.
const SILENCE: Duration = Duration::from_millis(500);
/// How long it must have been silent if it never was the signalled one: four packets of speech.
const PAUSE: Duration = Duration::from_millis(80);

/// Who teaches a realm's latches beside the signalled address and who has proven himself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Latching {
    /// Nobody.
    Strict,
    /// The host of the signalled address and that of the signalling.
    #[default]
    Host,
    /// Others too, where the description cannot be right.
    Any,
}

/// How a realm's latches learn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manner {
    /// From whom.
    pub latching: Latching,
    /// Whether a NAT that rebinds is followed without signalling.
    pub follows_rebinding: bool,
}

/// What came from a source that is not the learnt one.
#[derive(Debug, Clone, Copy)]
pub enum Evidence<'a> {
    /// RTP.
    Media {
        /// What its header says.
        header: &'a Header,
        /// SSRC and sequence number of the packet heard last in this stream.
        latest: Option<(u32, u16)>,
        /// Whether its payload type was agreed on.
        is_agreed: bool,
    },
    /// RTCP, a handshake (DTLS, ZRTP), a plain STUN Binding request, a keepalive, or another protocol than RTP where that was
    /// agreed on.
    Other,
}

impl Evidence<'_> {
    /// Whether it is RTP of the stream that was heard last.
    fn is_same_stream(&self) -> bool {
        matches!(self, Self::Media { header, latest: Some((ssrc, _)), .. } if header.ssrc == *ssrc)
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The party is there from now on.
    Learnt,
    /// It is the party's, but the party is elsewhere.
    Passes,
    /// It is none of the party's.
    Stranger,
}

/// How good a source is; a better one takes the place of a worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    Host,
    Signalled,
}

/// What signalling left.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Left {
    at: SocketAddr,
    /// It was where it said that it is.
    was_signalled: bool,
}

/// One component's latch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Latch {
    manner: Manner,
    signalled: Option<SocketAddr>,
    signalling: IpAddr,
    /// Of RTCP: where the RTP comes from.
    beside: Option<IpAddr>,
    learnt: Option<SocketAddr>,
    heard: Duration,
    /// What was learnt has proven who it is, and signalling has named nothing else since.
    is_proven: bool,
    /// Where it was heard last, and what it had signalled.
    left: [Option<Left>; 2],
    /// Since when that address is signalled.
    named: Duration,
    /// When signalling, or a move of ours, last made it worth listening.
    opened: Duration,
    /// What was learnt may have another port by now.
    is_doubted: bool,
    stranger_since: Option<Duration>,
}

timed!(Latch { heard, named, opened, stranger_since; manner, signalled, signalling, beside, learnt, is_proven, left, is_doubted });

impl Latch {
    /// Nothing is signalled yet.
    pub fn new(signalling: IpAddr, manner: Manner) -> Self {
        Self {
            manner,
            signalled: None,
            signalling: signalling.to_canonical(),
            beside: None,
            learnt: None,
            heard: Duration::ZERO,
            is_proven: false,
            left: [None; 2],
            named: Duration::ZERO,
            opened: Duration::ZERO,
            is_doubted: false,
            stranger_since: None,
        }
    }

    /// An offer or answer of the party named an address; `None`: one that says nothing.
    pub fn signal(&mut self, address: Option<SocketAddr>, signalling: IpAddr, now: Duration) {
        if let Some(address) = address.filter(|address| self.signalled != Some(*address)) {
            // Where it has proven to be is better than a new address that may be behind a NAT, until it is heard there.
            if !self.is_proven && self.learnt != Some(address) {
                self.leave();
            }
            self.left = self.left.map(|left| left.filter(|left| left.at != address));
            self.is_proven = false;
            (self.signalled, self.named) = (Some(address), now);
        }
        self.signalling = signalling.to_canonical();
        self.doubt(now);
    }

    /// Another address is signalled.
    fn leave(&mut self) {
        let was_signalled = self.learnt == self.signalled;
        let [heard, signalled] = self.left;
        let heard = self.learnt.take().map(|at| Left { at, was_signalled }).or(heard);
        self.left = [heard, self.signalled.map(|at| Left { at, was_signalled: true }).or(signalled)];
    }

    /// It comes back after a time elsewhere, or to another socket of ours: its NAT may have given it another port. The old
    /// one stays where packets to it go until an equally good source is heard.
    pub fn doubt(&mut self, now: Duration) {
        (self.opened, self.is_doubted) = (now, true);
        self.stranger_since = None;
    }

    /// The stream's RTP is learnt at another place than before: its RTCP comes from that host.
    pub fn follow(&mut self, host: IpAddr, now: Duration) {
        self.beside = Some(host);
        // A stranger who was believed beside the old place goes with it.
        if !self.is_proven && self.learnt.is_some_and(|learnt| self.is_strange(learnt)) {
            self.learnt = None;
        }
        self.doubt(now);
    }

    /// The address its description named.
    pub fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    /// Where it was heard from, and when last.
    pub fn heard(&self) -> Option<(SocketAddr, Duration)> {
        Some((self.learnt?, self.heard))
    }

    /// The source proved by its credentials who it is (RFC 8489 §9.1).
    pub fn prove(&mut self, source: SocketAddr, now: Duration) {
        self.learn(source, now);
        self.is_proven = true;
    }

    /// Whether this source is the learnt or, before one is, the signalled one: which of several streams of a port a
    /// packet is for.
    pub fn owns(&self, source: SocketAddr) -> bool {
        self.destination() == Some(source)
    }

    /// Whether this source is the party's as far as its host tells.
    pub fn is_near(&self, source: SocketAddr) -> bool {
        self.learnt == Some(source) || !self.is_strange(source)
    }

    /// Whether it is neither the signalled address nor of a host that teaches.
    pub fn is_strange(&self, source: SocketAddr) -> bool {
        self.rank(source) == Rank::Stranger
    }

    /// The host that its signalling comes from.
    pub fn signalling(&self) -> IpAddr {
        self.signalling
    }

    /// Where packets to it go.
    pub fn destination(&self) -> Option<SocketAddr> {
        let behind = || self.left[0].filter(|_| self.is_behind_nat()).map(|left| left.at);
        self.learnt.or_else(behind).or(self.signalled)
    }

    /// Whether a source has been learnt.
    pub fn is_learnt(&self) -> bool {
        self.learnt.is_some()
    }

    /// Whether a packet comes from where the party is known to be.
    #[inline]
    pub fn knows(&mut self, source: SocketAddr, now: Duration) -> bool {
        let is_known = self.learnt == Some(source);
        if is_known {
            self.heard = now;
        }
        is_known
    }

    /// Whether a packet that is no RTP comes from the party; it teaches where that may be.
    pub fn takes(&mut self, source: SocketAddr, now: Duration) -> bool {
        self.knows(source, now) || self.judge(source, Evidence::Other, now) != Verdict::Stranger
    }

    /// What becomes of a packet of a source that is not [known](Self::knows).
    #[cold]
    pub fn judge(&mut self, source: SocketAddr, evidence: Evidence<'_>, now: Duration) -> Verdict {
        let rank = self.rank(source);
        let left = self.left.into_iter().flatten().find(|left| left.at == source);
        if let Some(left) = left.filter(|_| rank != Rank::Signalled) {
            let is_settled = now >= self.opened.saturating_add(SETTLE);
            if left.was_signalled || !is_settled {
                let is_the_partys = rank >= Rank::Host || !is_settled;
                return if is_the_partys { Verdict::Passes } else { Verdict::Stranger };
            }
        }
        let is_taken = match self.learnt {
            None => rank > Rank::Stranger || self.may_be_taught(source, evidence, now),
            // Of one that has proven its move, what it sent before may still be on the way.
            Some(learnt) if self.is_proven => {
                let is_gone = self.is_doubted && now >= self.heard.saturating_add(SETTLE);
                (rank > Rank::Stranger && is_gone) || self.continues(learnt, source, evidence, now)
            }
            Some(learnt) => {
                let known = self.rank(learnt);
                rank > known
                    || (rank == Rank::Host && self.has_moved_on(known, evidence, now))
                    || (rank == known && self.is_doubted && self.may_be_taught(source, evidence, now))
                    || self.continues(learnt, source, evidence, now)
            }
        };
        if !is_taken {
            return Verdict::Stranger;
        }
        self.learn(source, now);
        Verdict::Learnt
    }

    fn learn(&mut self, source: SocketAddr, now: Duration) {
        (self.learnt, self.heard) = (Some(source), now);
        (self.left, self.is_doubted, self.is_proven) = ([None; 2], false, false);
    }

    /// Whether the host of what was learnt may speak from another port now. The same stream from another port is a NAT that
    /// has rebound, however soon: see [`continues`](Self::continues).
    fn has_moved_on(&self, known: Rank, evidence: Evidence<'_>, now: Duration) -> bool {
        let is_recent = now <= self.opened.saturating_add(WINDOW);
        let is_open = is_recent && self.manner.follows_rebinding && !evidence.is_same_stream();
        let is_doubted = self.is_doubted && (is_recent || self.heard < self.opened.saturating_add(SETTLE));
        let silent = now.saturating_sub(self.heard);
        match known {
            Rank::Host => is_doubted || (is_open && silent >= PAUSE),
            Rank::Signalled => (is_doubted && silent >= PAUSE) || (is_open && silent >= SILENCE),
            Rank::Stranger => true,
        }
    }

    /// The same stream goes on from another port of the same host: a NAT has rebound.
    fn continues(
        &self,
        learnt: SocketAddr,
        source: SocketAddr,
        evidence: Evidence<'_>,
        now: Duration,
    ) -> bool {
        let Evidence::Media { header, latest: Some((ssrc, sequence)), .. } = evidence else { return false };
        self.manner.follows_rebinding
            && self.manner.latching != Latching::Strict
            && header.ssrc == ssrc
            && (1..3000).contains(&header.sequence.wrapping_sub(sequence))
            && learnt.ip() == source.ip()
            && now >= self.heard.saturating_add(SILENCE)
    }

    /// Whether a stranger may teach where the party is.
    fn may_be_taught(&mut self, source: SocketAddr, evidence: Evidence<'_>, now: Duration) -> bool {
        if self.manner.latching != Latching::Any
            || !matches!(evidence, Evidence::Media { is_agreed: true, .. })
        {
            return false;
        }
        if self.learnt.is_some_and(|learnt| learnt.ip() == source.ip()) {
            return true;
        }
        let has_waited = now >= self.stranger_since.get_or_insert(now).saturating_add(PATIENCE);
        let may_be_wrong = self.signalled.is_some_and(|address| {
            let is_silent = now >= self.named.max(self.heard).saturating_add(PUBLIC_PATIENCE);
            address.ip() != self.signalling && (is_local(address.ip()) || is_silent)
        });
        has_waited && may_be_wrong
    }

    /// What was signalled is an address behind a NAT that its signalling comes through.
    fn is_behind_nat(&self) -> bool {
        self.signalled.is_some_and(|address| is_local(address.ip()) && address.ip() != self.signalling)
    }

    fn rank(&self, source: SocketAddr) -> Rank {
        if self.signalled == Some(source) {
            return Rank::Signalled;
        }
        let is_host = source.ip() == self.signalling
            || self.beside == Some(source.ip())
            || self.signalled.is_some_and(|address| address.ip() == source.ip());
        if is_host && self.manner.latching != Latching::Strict { Rank::Host } else { Rank::Stranger }
    }
}

#[cfg(test)]
mod tests;
