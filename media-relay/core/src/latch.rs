//! Where a party really is (RFC 7362): learnt from what arrives, but not from anybody.
//!
//! A source is learnt only within a window after an offer or answer. The signalled address counts most, then the
//! address that signalling comes from; any other only if nothing better came for half a second. What is learnt is
//! held: another source takes its place by signalling, by authenticated STUN, or, if a setting allows it, by being the same
//! host with the same stream after a silence (a NAT that rebinds). What comes from elsewhere is counted and dropped.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::rtp::Header;

/// How long after signalling a source may be learnt.
pub const WINDOW: Duration = Duration::from_secs(10);
/// How long a stranger must wait for somebody better.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long the learnt source must have been silent before the same stream may come from another port.
const SILENCE: Duration = Duration::from_millis(500);

/// How good a source is while one may be learnt; a better one takes the place of a worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Stranger,
    /// The host of the signalled address or of the signalling.
    Host,
    Signalled,
}

/// One component's latch.
#[derive(Debug, Clone)]
pub struct Latch {
    signalled: Option<SocketAddr>,
    signalling: IpAddr,
    learnt: Option<SocketAddr>,
    window: Duration,
    heard: Duration,
    stranger_since: Option<Duration>,
    follows_rebinding: bool,
    /// What was learnt may have another port by now.
    is_doubted: bool,
    /// What was learnt has proven who it is, and signalling has named nothing else since.
    is_proven: bool,
}

impl Latch {
    /// Closed until the first [`signal`](Self::signal).
    pub fn new(signalling: IpAddr, follows_rebinding: bool) -> Self {
        Self {
            signalled: None,
            signalling: signalling.to_canonical(),
            learnt: None,
            window: Duration::ZERO,
            heard: Duration::ZERO,
            stranger_since: None,
            follows_rebinding,
            is_doubted: false,
            is_proven: false,
        }
    }

    /// An offer or answer named an address.
    pub fn signal(&mut self, address: Option<SocketAddr>, signalling: IpAddr, now: Duration) {
        if address != self.signalled {
            // Where it has proven to be is better than a new address that may be behind a NAT, until it is heard there.
            if !self.is_proven {
                self.learnt = None;
            }
            self.is_proven = false;
        }
        self.signalled = address;
        self.signalling = signalling.to_canonical();
        self.window = now + WINDOW;
        self.stranger_since = None;
        self.is_doubted = false;
    }

    /// It comes back after a time elsewhere, or to another socket of ours: its NAT may have given it another port. The old
    /// one stays where packets to it go until an equally good source is heard.
    pub fn doubt(&mut self, now: Duration) {
        self.window = now + WINDOW;
        self.stranger_since = None;
        self.is_doubted = true;
    }

    /// The address its description named.
    pub fn signalled(&self) -> Option<SocketAddr> {
        self.signalled
    }

    /// Where it was heard from, and when last.
    pub fn heard(&self) -> Option<(SocketAddr, Duration)> {
        Some((self.learnt?, self.heard))
    }

    /// Its RTP moved with a NAT that rebinds: its RTCP may too.
    pub fn reopen(&mut self, now: Duration) {
        (self.learnt, self.is_proven) = (None, false);
        self.window = now + WINDOW;
        self.stranger_since = None;
    }

    /// The source proved by its credentials who it is (RFC 8489 §9.1).
    pub fn prove(&mut self, source: SocketAddr, now: Duration) {
        (self.learnt, self.is_proven) = (Some(source), true);
        self.heard = now;
    }

    /// Whether this source is the learnt or, before one is, the signalled one: which of several streams of a port a
    /// packet is for.
    pub fn owns(&self, source: SocketAddr) -> bool {
        self.destination() == Some(source)
    }

    /// The host that its signalling comes from.
    pub fn signalling(&self) -> IpAddr {
        self.signalling
    }

    /// Where packets to it go.
    pub fn destination(&self) -> Option<SocketAddr> {
        self.learnt.or(self.signalled)
    }

    /// Whether a source has been learnt.
    pub fn is_learnt(&self) -> bool {
        self.learnt.is_some()
    }

    /// Whether a packet is its. `stream` is what its RTP header says and what was heard last of its stream.
    #[inline]
    pub fn accepts(
        &mut self,
        source: SocketAddr,
        stream: Option<(&Header, (u32, u16))>,
        now: Duration,
    ) -> bool {
        if self.learnt == Some(source) {
            self.heard = now;
            return true;
        }
        self.judge(source, stream, now)
    }

    #[cold]
    fn judge(&mut self, source: SocketAddr, stream: Option<(&Header, (u32, u16))>, now: Duration) -> bool {
        let is_open = now <= self.window;
        let rank = self.rank(source);
        let accepted = match self.learnt {
            // The signalled address always may.
            None => rank == Rank::Signalled || (is_open && (rank == Rank::Host || self.has_waited(now))),
            // Of one that has proven its move, what it sent before may still be on the way.
            Some(learnt) if is_open && !self.is_proven && rank > self.rank(learnt) => true,
            Some(learnt) if is_open && !self.is_proven && self.is_doubted && rank == self.rank(learnt) => {
                rank != Rank::Stranger || learnt.ip() == source.ip() || self.has_waited(now)
            }
            Some(learnt) => {
                let continues = stream.is_some_and(|(header, (ssrc, sequence))| {
                    header.ssrc == ssrc && (1..3000).contains(&header.sequence.wrapping_sub(sequence))
                });
                self.follows_rebinding
                    && continues
                    && learnt.ip() == source.ip()
                    && now >= self.heard + SILENCE
            }
        };
        if accepted {
            self.learnt = Some(source);
            self.heard = now;
            self.is_doubted = false;
        }
        accepted
    }

    fn rank(&self, source: SocketAddr) -> Rank {
        if self.signalled == Some(source) {
            Rank::Signalled
        } else if source.ip() == self.signalling
            || self.signalled.is_some_and(|address| address.ip() == source.ip())
        {
            Rank::Host
        } else {
            Rank::Stranger
        }
    }

    fn has_waited(&mut self, now: Duration) -> bool {
        let since = *self.stranger_since.get_or_insert(now);
        now >= since + PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn latch() -> Latch {
        let mut latch = Latch::new("203.0.113.1".parse().unwrap(), true);
        latch.signal(Some(address("10.0.0.5:4000")), "203.0.113.1".parse().unwrap(), SECOND);
        latch
    }

    #[test]
    fn a_phone_behind_nat_is_learnt_by_the_address_of_its_signalling_and_held() {
        let mut latch = latch();
        assert!(!latch.accepts(address("198.51.100.7:9"), None, SECOND));
        assert!(latch.accepts(address("203.0.113.1:61000"), None, SECOND));
        assert_eq!(latch.destination(), Some(address("203.0.113.1:61000")));
        assert!(!latch.accepts(address("203.0.113.1:61001"), None, SECOND));
        assert!(!latch.accepts(address("198.51.100.7:9"), None, 2 * SECOND));
    }

    #[test]
    fn a_stranger_waits_half_a_second_and_yields_to_the_host_and_that_to_the_signalled_address() {
        let mut latch = latch();
        let stranger = address("198.51.100.7:9");
        assert!(!latch.accepts(stranger, None, SECOND));
        assert!(!latch.accepts(stranger, None, SECOND + PATIENCE / 2));
        assert!(latch.accepts(stranger, None, SECOND + PATIENCE));
        assert!(latch.accepts(address("203.0.113.1:61000"), None, 2 * SECOND));
        assert!(!latch.accepts(stranger, None, 2 * SECOND));
        assert!(latch.accepts(address("10.0.0.5:4000"), None, 3 * SECOND));
        assert!(!latch.accepts(address("203.0.113.1:61000"), None, 3 * SECOND));
    }

    #[test]
    fn a_rebinding_is_not_followed_where_a_setting_forbids_it_but_proof_and_signalling_are() {
        let mut latch = Latch::new("203.0.113.1".parse().unwrap(), false);
        latch.signal(Some(address("10.0.0.5:4000")), "203.0.113.1".parse().unwrap(), SECOND);
        assert!(latch.accepts(address("203.0.113.1:61000"), None, SECOND));
        let header = Header { payload_type: 0, marker: false, sequence: 101, timestamp: 0, ssrc: 7 };
        assert!(!latch.accepts(address("203.0.113.1:62000"), Some((&header, (7, 100))), 60 * SECOND));
        latch.prove(address("192.0.2.77:5"), 60 * SECOND);
        assert!(latch.accepts(address("192.0.2.77:5"), None, 61 * SECOND));
        latch.signal(Some(address("10.0.0.6:4000")), "203.0.113.1".parse().unwrap(), 62 * SECOND);
        assert_eq!(latch.destination(), Some(address("192.0.2.77:5")), "until it is heard there");
        assert!(latch.accepts(address("10.0.0.6:4000"), None, 62 * SECOND));
    }

    #[test]
    fn what_was_sent_before_a_proven_move_does_not_undo_it() {
        let mut latch = latch();
        assert!(latch.accepts(address("10.0.0.5:4000"), None, SECOND));
        latch.prove(address("198.51.100.9:7"), 2 * SECOND);
        assert!(!latch.accepts(address("10.0.0.5:4000"), None, 2 * SECOND), "the signalled address itself");
        assert_eq!(latch.destination(), Some(address("198.51.100.9:7")));
    }

    #[test]
    fn nobody_is_learnt_after_the_window() {
        let mut latch = latch();
        assert!(!latch.accepts(address("203.0.113.1:61000"), None, SECOND + WINDOW + SECOND));
        assert!(
            latch.accepts(address("10.0.0.5:4000"), None, SECOND + WINDOW + SECOND),
            "the signalled address always may"
        );
    }

    #[test]
    fn a_rebinding_is_followed_only_by_the_same_stream_after_a_silence() {
        let mut latch = latch();
        assert!(latch.accepts(address("203.0.113.1:61000"), None, SECOND));
        let header = Header { payload_type: 0, marker: false, sequence: 101, timestamp: 0, ssrc: 7 };
        let late = 20 * SECOND;
        assert!(
            !latch.accepts(address("203.0.113.1:62000"), Some((&header, (8, 100))), late),
            "another stream"
        );
        assert!(
            !latch.accepts(address("203.0.113.2:62000"), Some((&header, (7, 100))), late),
            "another host"
        );
        assert!(latch.accepts(address("203.0.113.1:61000"), None, late));
        assert!(
            !latch.accepts(address("203.0.113.1:62000"), Some((&header, (7, 100))), late + SILENCE / 2),
            "too soon"
        );
        assert!(latch.accepts(address("203.0.113.1:62000"), Some((&header, (7, 100))), late + SILENCE));
    }
}
