//! The pairs of one generation and the state of their checks (RFC 8445 §6 and §7).
//!
//! What a peer says and sends makes pairs, so there is a bound on them, for the generation and not for a message. Each look at what is due
//! costs one pass over them: a peer that names all it can costs a few microseconds a packet.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_wire::sdp::crush::{Candidate, CandidateKind};

use super::pair::{Pair, State, TRANSMISSIONS, classify, is_private, pair_priority};
use super::reach::{Cause, Reach};
use crate::agent::SocketId;

/// First retransmission of a check.
const RTO: Duration = Duration::from_millis(200);
/// Doubling stops here.
const LONGEST_RTO: Duration = Duration::from_millis(1600);
/// Pairs of candidates that the peer has named: more than RFC 8445 §6.1.2.5 asks for, since a call may have several addresses.
const NAMED: usize = 128;
/// Pairs in all, with those that requests of the peer have made.
const PAIRS: usize = 256;

/// A socket that pairs are made with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Base {
    pub(crate) socket: SocketId,
    pub(crate) local: SocketAddr,
    pub(crate) priority: u32,
    /// Of each check.
    pub(crate) transmissions: u8,
}

/// What may leave at a time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leave {
    /// A packet that may make a new flow.
    pub(crate) new: bool,
    /// One on a flow that is proven.
    pub(crate) proven: bool,
    /// Checks to each public address that are left to sockets still to come.
    pub(crate) left_over: u8,
}

impl Leave {
    /// As far as pace is concerned.
    fn lets(self, pair: &Pair) -> bool {
        if pair.is_proven() { self.proven } else { self.new }
    }
}

/// Repeats what is in progress towards one address instead of backing off: the peer looks for the flow (docs/crush.md §5.2, "hold").
#[derive(Debug, Clone, Copy)]
struct Hold {
    target: IpAddr,
    interval: Duration,
    until: Duration,
}

/// Pairs, in no particular order.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    pairs: Vec<Pair>,
    triggered: VecDeque<(SocketId, SocketAddr)>,
    hold: Option<Hold>,
}

impl Checklist {
    pub(crate) fn get(&self, socket: SocketId, remote: SocketAddr) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.socket == socket && pair.remote == remote)
    }

    pub(crate) fn get_mut(&mut self, socket: SocketId, remote: SocketAddr) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.socket == socket && pair.remote == remote)
    }

    pub(crate) fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// Pairs a socket with a trickled candidate.
    pub(crate) fn pair(&mut self, base: &Base, remote: &Candidate, trombone: bool) {
        let local = base.local.ip();
        if local.is_ipv4() != remote.address.is_ipv4() {
            return;
        }
        let class = classify(local, remote.address.ip(), remote.kind, trombone);
        let priority = pair_priority(base.priority, remote.priority);
        let has_room = self.pairs.len() < NAMED;
        match self.get_mut(base.socket, remote.address) {
            // The same address under another kind, or a peer-reflexive one that now has a name (RFC 8838 §11.4).
            Some(known) => {
                known.class = known.class.max(class);
                known.priority = known.priority.max(priority);
            }
            None if has_room => {
                self.pairs.push(Pair {
                    transmissions: base.transmissions,
                    ..Pair::new(base.socket, remote.address, class, priority)
                });
            }
            None => {}
        }
    }

    /// The pair of a packet that arrived; a new one is peer-reflexive. `None`: there are too many.
    pub(crate) fn reflexive(
        &mut self,
        socket: SocketId,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Option<&mut Pair> {
        if self.get(socket, remote).is_none() {
            if self.pairs.len() >= PAIRS {
                return None;
            }
            let class = classify(local, remote.ip(), CandidateKind::PeerReflexive, false);
            let priority = media_wire::sdp::crush::reflexive_priority();
            self.pairs.push(Pair::new(socket, remote, class, pair_priority(priority, priority)));
        }
        self.get_mut(socket, remote)
    }

    /// A triggered check (RFC 8445 §7.3.1.4).
    pub(crate) fn trigger(&mut self, socket: SocketId, remote: SocketAddr) {
        if self.triggered.len() < PAIRS && !self.triggered.contains(&(socket, remote)) {
            self.triggered.push_back((socket, remote));
        }
    }

    /// Repeat what is in progress towards an address every `interval` until then.
    pub(crate) fn hold(&mut self, target: IpAddr, interval: Duration, until: Duration) {
        self.hold = Some(Hold { target, interval, until });
        let held = self.pairs.iter_mut().filter(|pair| pair.remote.ip() == target);
        for pair in held.filter(|pair| pair.state == State::Failed) {
            pair.state = State::Waiting;
        }
    }

    /// Nothing is held any more.
    pub(crate) fn release(&mut self) {
        self.hold = None;
    }

    fn held(&self, now: Duration) -> Option<Hold> {
        self.hold.filter(|hold| now < hold.until)
    }

    /// The search is over: nothing is sent of itself any more. What the peer asks for is still answered, and checked.
    pub(crate) fn give_up(&mut self) {
        self.hold = None;
        for pair in self.pairs.iter_mut().filter(|pair| !pair.answered) {
            pair.state = State::Failed;
        }
    }

    /// The next check that is due and has leave. It stays due until [`Checklist::sent`].
    pub(crate) fn due(
        &mut self,
        now: Duration,
        leave: Leave,
        reach: &Reach,
    ) -> Option<(SocketId, SocketAddr)> {
        while let Some(first) = self.triggered.front().copied() {
            let pair = self.get(first.0, first.1);
            match pair.filter(|pair| may_go(pair, reach, leave.left_over)) {
                Some(pair) if leave.lets(pair) => return Some(first),
                Some(_) => break,
                // Its address has had its share.
                None => drop(self.triggered.pop_front()),
            }
        }
        let hold = self.held(now);
        let mut again: Option<(Duration, SocketId, SocketAddr)> = None;
        let mut waiting: Option<&Pair> = None;
        for pair in &mut self.pairs {
            let is_held = hold.is_some_and(|hold| hold.target == pair.remote.ip());
            let has_failed = match pair.state {
                State::InProgress { sent, next } => {
                    next <= now
                        && !is_held
                        && (sent >= pair.transmissions || !may_go(pair, reach, leave.left_over))
                }
                State::Waiting => !is_held && !may_go(pair, reach, leave.left_over),
                State::Succeeded | State::Failed => continue,
            };
            if has_failed {
                pair.state = State::Failed;
                continue;
            }
            if !leave.lets(pair) {
                continue;
            }
            match pair.state {
                State::InProgress { next, .. } if next <= now && again.is_none_or(|best| next < best.0) => {
                    again = Some((next, pair.socket, pair.remote));
                }
                State::Waiting if waiting.is_none_or(|best| pair.rank() > best.rank()) => {
                    waiting = Some(pair);
                }
                _ => {}
            }
        }
        again
            .map(|(_, socket, remote)| (socket, remote))
            .or_else(|| waiting.map(|pair| (pair.socket, pair.remote)))
    }

    /// A check went out on this pair: why, if it counts for its address.
    pub(crate) fn sent(&mut self, socket: SocketId, remote: SocketAddr, now: Duration) -> Option<Cause> {
        self.triggered.retain(|one| *one != (socket, remote));
        let hold = self.held(now).filter(|hold| hold.target == remote.ip());
        let pair = self.get_mut(socket, remote)?;
        let cause = pair.cause();
        let before = match pair.state {
            State::InProgress { sent, .. } => sent,
            State::Succeeded => return Some(cause),
            State::Waiting | State::Failed => 0,
        };
        let backed_off = || RTO.saturating_mul(1 << before.min(3)).min(LONGEST_RTO);
        let wait = hold.map_or_else(backed_off, |hold| hold.interval);
        pair.state = State::InProgress { sent: before.saturating_add(1), next: now.saturating_add(wait) };
        // What is held is bounded by time and pace.
        hold.is_none().then_some(cause)
    }

    /// The best pair that works, and whether a better one is still being tried.
    pub(crate) fn best(&self) -> Option<(&Pair, bool)> {
        let best = self.pairs.iter().filter(|pair| pair.works()).max_by_key(|pair| pair.rank())?;
        let pending = self.pairs.iter().any(|pair| {
            matches!(pair.state, State::Waiting | State::InProgress { sent: ..4, .. })
                && pair.rank() > best.rank()
        });
        Some((best, pending))
    }

    /// When something is due, if a packet may leave at `new` that may make a new flow, and at `proven` one on a flow that is proven.
    pub(crate) fn timeout(&self, new: Duration, proven: Duration) -> Option<Duration> {
        let leave = |pair: &Pair| if pair.is_proven() { proven } else { new };
        let first = self.triggered.front();
        let triggered = first.map(|(socket, remote)| self.get(*socket, *remote).map_or(new, leave));
        let pairs = self.pairs.iter().filter_map(|pair| match pair.state {
            State::Waiting => Some(leave(pair)),
            State::InProgress { next, .. } => Some(next.max(leave(pair))),
            _ => None,
        });
        pairs.chain(triggered).min()
    }

    /// All checks have failed; there were some.
    pub(crate) fn has_failed(&self) -> bool {
        self.triggered.is_empty()
            && !self.pairs.is_empty()
            && self.pairs.iter().all(|pair| pair.state == State::Failed)
    }
}

/// Whether its address may be checked once more.
fn may_go(pair: &Pair, reach: &Reach, left_over: u8) -> bool {
    // Sockets still to come go to public addresses, and are those that are sent from once.
    let is_first = pair.transmissions == TRANSMISSIONS && !is_private(pair.remote.ip());
    pair.answered || reach.allows(pair.remote, pair.cause(), if is_first { left_over } else { 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAVE: Leave = Leave { new: true, proven: true, left_over: 0 };

    fn base(socket: u32, transmissions: u8) -> Base {
        let local = SocketAddr::from(([192, 168, 1, 10], 5000));
        Base { socket: SocketId(socket), local, priority: 1, transmissions }
    }

    fn candidate(host: u8, port: u16) -> Candidate {
        let address = SocketAddr::from(([192, 0, 2, host], port));
        let kind = CandidateKind::ServerReflexive;
        Candidate { foundation: "1".to_owned(), priority: 1, address, kind, related: None }
    }

    /// What goes out within a minute, in a list of these bases and candidates.
    fn sent(bases: &[Base], candidates: &[Candidate], left_over: u8) -> Vec<(SocketId, SocketAddr)> {
        let (mut list, mut reach) = (Checklist::default(), Reach::default());
        for base in bases {
            candidates.iter().for_each(|candidate| list.pair(base, candidate, false));
        }
        let mut sent = Vec::new();
        for tick in 0..6000 {
            let now = Duration::from_millis(tick * 10);
            while let Some((socket, to)) = list.due(now, Leave { left_over, ..LEAVE }, &reach) {
                if let Some(cause) = list.sent(socket, to, now) {
                    reach.sent(to, cause);
                }
                sent.push((socket, to));
            }
        }
        assert!(list.has_failed());
        sent
    }

    #[test]
    fn an_address_gets_eight_checks_from_all_sockets_together() {
        for sockets in 1..=5 {
            let bases: Vec<Base> = (0..sockets).map(|socket| base(socket, TRANSMISSIONS)).collect();
            assert_eq!(sent(&bases, &[candidate(1, 5004)], 0).len(), 8, "{sockets} sockets");
        }
        let both = [base(0, TRANSMISSIONS), base(1, 1)];
        let out = sent(&both, &[candidate(1, 5004)], 4);
        assert_eq!(out.iter().filter(|(socket, _)| *socket == SocketId(1)).count(), 1);
        assert!(out.len() <= 5);
    }

    #[test]
    fn pairs_are_bounded_whatever_a_peer_names_and_wherever_its_requests_come_from() {
        let mut list = Checklist::default();
        for port in 1..=2000 {
            list.pair(&base(0, TRANSMISSIONS), &candidate(1, port), false);
        }
        assert_eq!(list.pairs().len(), NAMED);
        let from = |port| SocketAddr::from(([192, 0, 2, 9], port));
        let local = IpAddr::from([192, 168, 1, 10]);
        for port in 1..=2000 {
            if list.reflexive(SocketId(0), local, from(port)).is_some() {
                list.trigger(SocketId(0), from(port));
            }
        }
        assert_eq!((list.pairs().len(), list.triggered.len()), (PAIRS, PAIRS - NAMED));
    }
}
