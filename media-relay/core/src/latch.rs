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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy)]
struct Left {
    at: SocketAddr,
    /// It was where it said that it is.
    was_signalled: bool,
}

/// One component's latch.
#[derive(Debug, Clone)]
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
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);
    const PRIVATE: &str = "10.0.0.5:4000";
    const NAT: &str = "203.0.113.1:61000";
    const NAT_LATER: &str = "203.0.113.1:62000";
    const STRANGER: &str = "198.51.100.7:9";

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn header(ssrc: u32, sequence: u16) -> Header {
        Header { payload_type: 0, marker: false, sequence, timestamp: 0, ssrc }
    }

    /// One party: signalled at `sdp`, its signalling from 203.0.113.1.
    struct Party {
        latch: Latch,
        sdp: &'static str,
    }

    impl Party {
        fn new(latching: Latching, sdp: &'static str) -> Self {
            let manner = Manner { latching, follows_rebinding: true };
            let mut party = Self { latch: Latch::new("203.0.113.1".parse().unwrap(), manner), sdp };
            party.signal(SECOND);
            party
        }

        fn signal(&mut self, now: Duration) {
            self.latch.signal(Some(address(self.sdp)), "203.0.113.1".parse().unwrap(), now);
        }

        /// RTP of an agreed payload type, of a stream of its own for each source.
        fn hears(&mut self, source: &str, now: Duration) -> Verdict {
            let source = address(source);
            let header = header(u32::from(source.port()), 1);
            let evidence = Evidence::Media { header: &header, latest: Some((1, 1)), is_agreed: true };
            if self.latch.knows(source, now) {
                Verdict::Learnt
            } else {
                self.latch.judge(source, evidence, now)
            }
        }

        fn goes_to(&self) -> SocketAddr {
            self.latch.destination().unwrap()
        }
    }

    use Verdict::{Learnt, Passes, Stranger};

    #[test]
    fn a_phone_behind_nat_is_learnt_by_the_address_of_its_signalling_however_late_and_held() {
        for first in [SECOND, 60 * SECOND, 3600 * SECOND] {
            let mut party = Party::new(Latching::Host, PRIVATE);
            assert_eq!(party.hears(STRANGER, first), Stranger);
            assert_eq!(party.hears(NAT, first), Learnt);
            assert_eq!(party.goes_to(), address(NAT));
            assert_eq!(party.hears(NAT_LATER, first), Stranger);
            assert_eq!(party.hears(STRANGER, first + SECOND), Stranger);
        }
    }

    #[test]
    fn strangers_teach_only_where_they_may_and_the_description_cannot_be_right() {
        let learnt = |latching, sdp, after: Duration| {
            let mut party = Party::new(latching, sdp);
            party.hears(STRANGER, SECOND + after - PATIENCE.min(after));
            party.hears(STRANGER, SECOND + after) == Learnt
        };
        let public = "192.0.2.50:4000";
        for (latching, sdp, after, expected) in [
            (Latching::Strict, PRIVATE, 5 * SECOND, false),
            (Latching::Host, PRIVATE, 5 * SECOND, false),
            (Latching::Any, PRIVATE, Duration::ZERO, false),
            (Latching::Any, PRIVATE, SECOND, true),
            (Latching::Any, public, SECOND, false),
            (Latching::Any, public, 2 * SECOND, true),
            (Latching::Any, "203.0.113.1:4000", 60 * SECOND, false),
        ] {
            assert_eq!(learnt(latching, sdp, after), expected, "{latching:?} {sdp} after {after:?}");
        }
    }

    #[test]
    fn a_stranger_must_send_what_was_agreed_and_gives_way_to_host_and_signalled_address_at_any_time() {
        let mut party = Party::new(Latching::Any, PRIVATE);
        let unknown = header(7, 1);
        for evidence in
            [Evidence::Other, Evidence::Media { header: &unknown, latest: None, is_agreed: false }]
        {
            for now in [SECOND, 3 * SECOND] {
                assert_eq!(party.latch.judge(address(STRANGER), evidence, now), Stranger);
            }
        }
        party.hears(STRANGER, 4 * SECOND);
        assert_eq!(party.hears(STRANGER, 5 * SECOND), Learnt);
        assert_eq!(party.hears("198.51.100.8:9", 90 * SECOND), Stranger);
        assert_eq!(party.hears(NAT, 100 * SECOND), Learnt, "the host, long after");
        assert_eq!(party.hears(STRANGER, 200 * SECOND), Stranger);
        assert_eq!(party.hears(PRIVATE, 300 * SECOND), Learnt, "the signalled address, longer after");
        assert_eq!(party.hears(NAT, 400 * SECOND), Stranger);
    }

    #[test]
    fn strict_latching_knows_the_signalled_address_and_proofs_alone() {
        let mut party = Party::new(Latching::Strict, "192.0.2.50:4000");
        assert_eq!(party.hears("192.0.2.50:4002", 60 * SECOND), Stranger);
        assert_eq!(party.hears(NAT, 60 * SECOND), Stranger);
        assert_eq!(party.hears("192.0.2.50:4000", 60 * SECOND), Learnt);
        party.latch.prove(address(STRANGER), 61 * SECOND);
        assert_eq!(party.goes_to(), address(STRANGER));
    }

    #[test]
    fn who_resumes_is_found_at_its_new_mapping_though_it_signs_the_same_address() {
        for wait in [Duration::ZERO, SECOND, 60 * SECOND, 3600 * SECOND] {
            let mut party = Party::new(Latching::Host, PRIVATE);
            assert_eq!(party.hears(NAT, SECOND), Learnt);
            party.signal(100 * SECOND);
            assert_eq!(party.goes_to(), address(NAT), "until it is heard elsewhere");
            assert_eq!(party.hears(STRANGER, 100 * SECOND + wait), Stranger);
            assert_eq!(party.hears(NAT_LATER, 100 * SECOND + wait), Learnt, "after {wait:?}");
            assert_eq!(party.goes_to(), address(NAT_LATER));
        }
    }

    #[test]
    fn the_doubt_ends_when_the_old_place_is_still_heard_later() {
        let mut party = Party::new(Latching::Host, PRIVATE);
        for second in 1..200 {
            assert_eq!(party.hears(NAT, second * SECOND), Learnt);
            if second == 100 {
                party.signal(100 * SECOND);
            }
        }
        assert_eq!(party.hears(NAT_LATER, 199 * SECOND), Stranger);
    }

    #[test]
    fn who_signalled_its_public_mapping_is_found_at_another_one_when_it_resumes() {
        let mut party = Party::new(Latching::Host, NAT);
        assert_eq!(party.hears(NAT, SECOND), Learnt);
        party.signal(100 * SECOND);
        assert_eq!(party.hears(NAT_LATER, 100 * SECOND), Learnt);
        assert_eq!(party.hears(NAT, 200 * SECOND), Learnt, "the signalled address may always come back");
    }

    #[test]
    fn what_signalling_left_passes_and_is_not_learnt_before_the_new_address_is_heard() {
        let mut party = Party::new(Latching::Host, "203.0.113.1:50000");
        assert_eq!(party.hears("203.0.113.1:50000", SECOND), Learnt);
        party.sdp = "203.0.113.1:50020";
        party.signal(20 * SECOND);
        for after in [Duration::ZERO, SECOND, 60 * SECOND] {
            assert_eq!(party.hears("203.0.113.1:50000", 20 * SECOND + after), Passes);
            assert_eq!(party.goes_to(), address("203.0.113.1:50020"));
        }
        assert_eq!(party.hears("203.0.113.1:50020", 90 * SECOND), Learnt);
        assert_eq!(party.hears("203.0.113.1:50000", 90 * SECOND), Stranger);
        party.sdp = "203.0.113.1:50000";
        party.signal(100 * SECOND);
        assert_eq!(party.goes_to(), address("203.0.113.1:50000"));
        assert_eq!(party.hears("203.0.113.1:50000", 100 * SECOND), Learnt, "and back");
    }

    #[test]
    fn another_host_that_was_left_passes_for_a_moment_only() {
        let mut party = Party::new(Latching::Host, "192.0.2.50:4000");
        assert_eq!(party.hears("192.0.2.50:4000", SECOND), Learnt);
        party.sdp = "192.0.2.60:4000";
        party.signal(20 * SECOND);
        assert_eq!(party.hears("192.0.2.50:4000", 21 * SECOND), Passes);
        assert_eq!(party.hears("192.0.2.50:4000", 23 * SECOND), Stranger);
    }

    #[test]
    fn a_mapping_that_stays_while_the_private_address_changes_is_never_without_media() {
        let mut party = Party::new(Latching::Host, PRIVATE);
        assert_eq!(party.hears(NAT, SECOND), Learnt);
        party.sdp = "10.0.0.6:4000";
        party.signal(20 * SECOND);
        assert_eq!(party.hears(NAT, 20 * SECOND), Passes);
        assert_eq!(party.goes_to(), address(NAT), "the new address cannot be reached yet");
        assert_eq!(party.hears(NAT, 20 * SECOND + SETTLE), Learnt);
    }

    #[test]
    fn the_unspecified_address_leaves_nothing() {
        let mut party = Party::new(Latching::Host, PRIVATE);
        assert_eq!(party.hears(NAT, SECOND), Learnt);
        party.latch.signal(None, "203.0.113.1".parse().unwrap(), 20 * SECOND);
        party.signal(30 * SECOND);
        assert_eq!(party.hears(NAT, 30 * SECOND), Learnt);
    }

    #[test]
    fn a_gateway_that_goes_on_from_another_port_is_followed_in_the_first_seconds_only() {
        let mut party = Party::new(Latching::Host, "203.0.113.1:50040");
        assert_eq!(party.hears("203.0.113.1:50042", SECOND), Learnt, "it never speaks from where it said");
        assert_eq!(party.hears("203.0.113.1:50044", SECOND + PAUSE / 2), Stranger);
        assert_eq!(party.hears("203.0.113.1:50044", SECOND + PAUSE), Learnt);
        assert_eq!(party.hears("203.0.113.1:50046", 60 * SECOND), Stranger);
        assert_eq!(party.hears("203.0.113.1:50040", 60 * SECOND), Learnt, "but there it may at any time");
    }

    #[test]
    fn a_rebinding_is_followed_only_by_the_same_stream_after_a_silence_and_where_a_setting_allows_it() {
        for (follows_rebinding, last) in [(true, 2), (true, 60), (false, 2), (false, 60)] {
            let mut party = Party::new(Latching::Host, PRIVATE);
            party.latch.manner.follows_rebinding = follows_rebinding;
            assert_eq!(party.hears(NAT, SECOND), Learnt);
            assert_eq!(party.hears(NAT, last * SECOND), Learnt);
            let mut later = |source: &str, ssrc, after: Duration| {
                let header = header(ssrc, 101);
                let evidence = Evidence::Media { header: &header, latest: Some((7, 100)), is_agreed: true };
                party.latch.judge(address(source), evidence, last * SECOND + after)
            };
            if !follows_rebinding || last > 10 {
                assert_eq!(later(NAT_LATER, 8, SECOND), Stranger, "another stream");
            }
            assert_eq!(later("203.0.113.2:62000", 7, SECOND), Stranger, "another host");
            assert_eq!(later(NAT_LATER, 7, SILENCE - MILLISECOND), Stranger, "too soon");
            assert_eq!(later(NAT_LATER, 7, SILENCE), if follows_rebinding { Learnt } else { Stranger });
        }
    }

    #[test]
    fn what_was_sent_before_a_proven_move_does_not_undo_it_but_signalling_of_another_address_does() {
        let mut party = Party::new(Latching::Host, PRIVATE);
        assert_eq!(party.hears(PRIVATE, SECOND), Learnt);
        party.latch.prove(address("198.51.100.9:7"), 2 * SECOND);
        assert_eq!(party.hears(PRIVATE, 2 * SECOND), Stranger, "the signalled address itself");
        assert_eq!(party.goes_to(), address("198.51.100.9:7"));
        party.sdp = "10.0.0.6:4000";
        party.signal(3 * SECOND);
        assert_eq!(party.goes_to(), address("198.51.100.9:7"), "until it is heard there");
        assert_eq!(party.hears("10.0.0.6:4000", 3 * SECOND), Learnt);
    }

    #[test]
    fn who_has_proven_himself_and_goes_silent_after_signalling_is_found_again() {
        let mut party = Party::new(Latching::Host, PRIVATE);
        party.latch.prove(address(NAT), SECOND);
        party.signal(60 * SECOND);
        assert_eq!(party.hears(NAT_LATER, 61 * SECOND), Learnt);
    }

    #[test]
    fn reports_come_from_the_host_of_the_media() {
        let mut party = Party::new(Latching::Host, "192.0.2.50:4001");
        assert_eq!(party.hears("198.51.100.9:4001", SECOND), Stranger);
        party.latch.follow("198.51.100.9".parse().unwrap(), SECOND);
        assert_eq!(party.hears("198.51.100.9:4001", SECOND), Learnt);
    }
}
