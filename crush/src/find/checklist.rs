//! The pairs of one generation and the state of their checks (RFC 8445 §6 and §7).

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::pair::{Class, Pair, State, classify, pair_priority};
use crate::agent::SocketId;
use crate::description::{Candidate, CandidateKind};

/// First retransmission of a check.
const RTO: Duration = Duration::from_millis(200);
/// Doubling stops here.
const LONGEST_RTO: Duration = Duration::from_millis(1600);
/// Transmissions of one check.
const TRANSMISSIONS: u8 = 8;

/// Pairs, in no particular order.
#[derive(Debug, Default)]
pub(crate) struct Checklist {
    pairs: Vec<Pair>,
    triggered: VecDeque<(SocketId, SocketAddr)>,
    /// While it lasts, checks towards dependent mappings are repeated this often instead of backing off: the peer looks for
    /// the flow (docs/crush.md §5.2, "hold").
    hold: Option<(Duration, Duration)>,
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
    pub(crate) fn pair(
        &mut self,
        (socket, local, priority): (SocketId, IpAddr, u32),
        remote: &Candidate,
        trombone: bool,
    ) {
        if local.is_ipv4() != remote.address.is_ipv4() {
            return;
        }
        let class = classify(local, remote.address.ip(), remote.kind, trombone);
        let priority = pair_priority(priority, remote.priority);
        match self.get_mut(socket, remote.address) {
            // The same address under another kind, or a peer-reflexive one that now has a name (RFC 8838 §11.4).
            Some(known) => {
                known.class = known.class.max(class);
                known.priority = known.priority.max(priority);
            }
            None => self.insert(socket, remote.address, class, priority),
        }
    }

    fn insert(&mut self, socket: SocketId, remote: SocketAddr, class: Class, priority: u64) {
        self.pairs.push(Pair {
            socket,
            remote,
            class,
            priority,
            state: State::Waiting,
            answered: false,
            asked: false,
            nominated: false,
            round_trip: None,
        });
    }

    /// The pair of a packet that arrived; a new one is peer-reflexive.
    pub(crate) fn reflexive(
        &mut self,
        socket: SocketId,
        local: IpAddr,
        remote: SocketAddr,
    ) -> Option<&mut Pair> {
        if self.get(socket, remote).is_none() {
            let class = classify(local, remote.ip(), CandidateKind::PeerReflexive, false);
            let priority = crate::description::reflexive_priority();
            self.insert(socket, remote, class, pair_priority(priority, priority));
        }
        self.get_mut(socket, remote)
    }

    /// A triggered check (RFC 8445 §7.3.1.4).
    pub(crate) fn trigger(&mut self, socket: SocketId, remote: SocketAddr) {
        if !self.triggered.contains(&(socket, remote)) {
            self.triggered.push_back((socket, remote));
        }
    }

    /// Repeat what is in progress every `interval` until then.
    pub(crate) fn hold(&mut self, interval: Duration, until: Duration) {
        self.hold = Some((interval, until));
        for pair in self.pairs.iter_mut().filter(|pair| pair.state == State::Failed) {
            pair.state = State::Waiting;
        }
    }

    /// The next check that is due and has leave. It stays due until [`Checklist::sent`].
    pub(crate) fn due(
        &mut self,
        now: Duration,
        leave: impl Fn(SocketId, SocketAddr) -> bool,
    ) -> Option<(SocketId, SocketAddr)> {
        if let Some(first) = self.triggered.iter().find(|(socket, remote)| leave(*socket, *remote)) {
            return Some(*first);
        }
        let holds = self.hold.is_some_and(|(_, until)| now < until);
        for pair in &mut self.pairs {
            if let State::InProgress { sent, next } = pair.state
                && next <= now
                && sent >= TRANSMISSIONS
                && !holds
            {
                pair.state = State::Failed;
            }
        }
        let allowed = || self.pairs.iter().filter(|pair| leave(pair.socket, pair.remote));
        let again = allowed()
            .filter_map(|pair| match pair.state {
                State::InProgress { next, .. } if next <= now => Some((next, pair.socket, pair.remote)),
                _ => None,
            })
            .min_by_key(|(next, ..)| *next)
            .map(|(_, socket, remote)| (socket, remote));
        again.or_else(|| {
            let waiting = allowed().filter(|pair| pair.state == State::Waiting);
            waiting.max_by_key(|pair| pair.rank()).map(|pair| (pair.socket, pair.remote))
        })
    }

    /// A check went out on this pair.
    pub(crate) fn sent(&mut self, socket: SocketId, remote: SocketAddr, now: Duration) {
        self.triggered.retain(|one| *one != (socket, remote));
        let hold = self.hold.filter(|(_, until)| now < *until).map(|(interval, _)| interval);
        if let Some(pair) = self.get_mut(socket, remote) {
            let before = match pair.state {
                State::InProgress { sent, .. } => sent,
                State::Succeeded => return,
                State::Waiting | State::Failed => 0,
            };
            let wait = hold.unwrap_or_else(|| RTO.saturating_mul(1 << before.min(3)).min(LONGEST_RTO));
            pair.state = State::InProgress { sent: before.saturating_add(1), next: now.saturating_add(wait) };
        }
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

    /// When something is due; `leave` says when a check on a pair may be sent.
    pub(crate) fn timeout(&self, leave: impl Fn(SocketId, SocketAddr) -> Duration) -> Option<Duration> {
        let triggered = self.triggered.iter().map(|(socket, remote)| leave(*socket, *remote));
        let pairs = self.pairs.iter().filter_map(|pair| match pair.state {
            State::Waiting => Some(leave(pair.socket, pair.remote)),
            State::InProgress { next, .. } => Some(next.max(leave(pair.socket, pair.remote))),
            _ => None,
        });
        triggered.chain(pairs).min()
    }

    /// All checks have failed; there were some.
    pub(crate) fn has_failed(&self) -> bool {
        self.triggered.is_empty()
            && !self.pairs.is_empty()
            && self.pairs.iter().all(|pair| pair.state == State::Failed)
    }
}
