//! A worker: the sessions of one thread. What signalling agreed is in `negotiation.rs`, a packet's way in `forward.rs`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use seam::{Action, Endpoint, Event, Listener, Reply, StreamStatistics};
use smallvec::SmallVec;

use crate::consumers::{Copies, Listeners, Overheard};
use crate::handoff::{HandoffSettings, LEAST_INACTIVITY};
use crate::latch::{Latching, Manner};
use crate::legs::Session;
use crate::ours::OpenPorts;
use crate::path::memory::{Known, Memory, Outcome};
use crate::policy::ReleasePolicy;
use crate::stream::{StreamId, Streams};

/// A socket of the shell, by its number there.
pub type SocketId = u32;
/// A packet to send: by which socket, where to, its bytes.
pub type Transmit = (SocketId, SocketAddr, Vec<u8>);

/// An even and the odd port after it, open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// The even one's socket.
    pub rtp: SocketId,
    /// The odd one's.
    pub rtcp: SocketId,
    /// The even one's address, as the peer must see it.
    pub address: SocketAddr,
}

/// Where sockets come from.
pub trait Ports {
    /// A free pair in a realm; `None` if there is none.
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair>;
    /// Gives it back; it rests before it is used again, unless no other is left.
    fn close(&mut self, pair: PortPair);
    /// Gives back one to which nothing came: nothing late can come, and it need not rest.
    fn close_unheard(&mut self, pair: PortPair) {
        self.close(pair);
    }
    /// A free pair of the same realm and family at another address than this; `None` if the realm has no other.
    fn open_elsewhere(&mut self, realm: u16, than: IpAddr) -> Option<PortPair>;
}

/// What a realm wishes of its sessions.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A session without a packet for so long is reported; `None` never.
    pub inactivity: Option<Duration>,
    /// Whether a NAT that rebinds is followed without signalling.
    pub follows_rebinding: bool,
    /// Who teaches where a party is, by realm.
    pub latching: Vec<Latching>,
    /// What may leave the relay; `None` nothing.
    pub release: Option<Arc<ReleasePolicy>>,
    /// CRUSH; `None`: nobody is told of it.
    pub handoff: Option<Arc<HandoffSettings>>,
    /// The open ports of all workers: they share this.
    pub open_ports: OpenPorts,
    /// Where descriptions and candidates may say that packets are to go, by realm.
    pub addresses: Arc<martian::Rules>,
    /// What ICE credentials are made from: random, and known to nobody else.
    pub secret: [u8; 32],
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            inactivity: Some(Duration::from_secs(300)),
            follows_rebinding: true,
            latching: Vec::new(),
            release: None,
            handoff: None,
            open_ports: OpenPorts::default(),
            addresses: Arc::default(),
            secret: [0; 32],
        }
    }
}

/// After a branch was chosen its last answer has come, if it has one.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// The sessions of one thread.
#[derive(Debug)]
pub struct Worker {
    pub(crate) sessions: AHashMap<u64, Session>,
    pub(crate) streams: Streams,
    pub(crate) settings: Settings,
    pub(crate) cname: String,
    pub(crate) events: VecDeque<(u64, Event)>,
    pub(crate) memory: Memory,
    /// What goes out of its own accord.
    pub(crate) transmits: VecDeque<Transmit>,
    /// For those who listen.
    pub(crate) copies: Copies,
    /// Sessions by when their path is looked at; entries that are not their session's time any more are passed over.
    pub(crate) looks: BinaryHeap<Reverse<(Duration, u64)>>,
    next_check: Duration,
    /// Strangers' packets of all streams, and packets that no stream owned.
    pub dropped: u64,
    /// What only holds a NAT's mapping open, and plain STUN of those who are known: consumed.
    pub keepalives: u64,
    /// How often a stranger was learnt.
    pub strangers_learnt: u64,
}

impl Worker {
    /// `cname` stands in for every RTCP name; it must say nothing about anybody.
    pub fn new(settings: Settings, cname: String) -> Self {
        Self {
            sessions: AHashMap::new(),
            streams: Streams::new(settings.open_ports.clone()),
            settings,
            cname,
            events: VecDeque::new(),
            memory: Memory::default(),
            transmits: VecDeque::new(),
            copies: Copies::default(),
            looks: BinaryHeap::new(),
            next_check: Duration::ZERO,
            dropped: 0,
            keepalives: 0,
            strangers_learnt: 0,
        }
    }

    /// How the latches of a realm learn.
    pub(crate) fn manner(&self, realm: u16) -> Manner {
        let latching = self.settings.latching.get(usize::from(realm)).copied().unwrap_or_default();
        Manner { latching, follows_rebinding: self.settings.follows_rebinding }
    }

    /// Sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Does what signalling asks. Only `Offer`, `Answer`, `Trickle`, `Delete` and `Query` have a reply.
    pub fn handle(
        &mut self,
        session: u64,
        action: Action,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Option<Reply> {
        match action {
            Action::Offer { exchange, from, to, from_party, to_party, sdp } => {
                let result =
                    self.offer(session, exchange, (from, from_party), (to, to_party), sdp, now, ports);
                Some(Reply::Description(result))
            }
            Action::Answer { exchange, from, to, from_party, sdp } => {
                let result = self.answer(session, exchange, (from, from_party), to, sdp, now, ports);
                Some(Reply::Description(result))
            }
            Action::Select(winner) => {
                self.select(session, winner, now, ports);
                None
            }
            Action::Reject { exchange, from } => {
                self.reject(session, exchange, from, now, ports);
                None
            }
            Action::Cancel(exchange) => {
                self.cancel(session, exchange, now, ports);
                None
            }
            Action::Drop(endpoint) => {
                self.drop_legs(session, |leg| leg == endpoint, now, ports);
                // Two that are left, as after a transfer, may move anew.
                if self.sessions.get(&session).is_some_and(|session| !session.is_on_the_move()) {
                    self.agreed(session, now);
                }
                None
            }
            Action::Trickle { from, to, fragment } => {
                Some(Reply::Fragment(self.trickle(session, (from, to), &fragment, now)))
            }
            Action::Renegotiated { wish, endpoint, outcome } => {
                self.renegotiated(session, wish, endpoint, outcome, now, ports);
                None
            }
            Action::Constrain(constraint) => {
                self.constrain(session, constraint, now);
                None
            }
            Action::Unconstrain => {
                self.unconstrain(session, now);
                None
            }
            Action::Attach(listener) => {
                self.listen(session, listener, Listeners::attach);
                self.heed_policy(session, now);
                None
            }
            Action::Detach(listener) => {
                self.listen(session, listener, Listeners::detach);
                self.heed_policy(session, now);
                None
            }
            Action::Delete => {
                self.end_moves(session, now);
                let streams = self.statistics(session, now);
                self.drop_legs(session, |_| true, now, ports);
                let past = self.sessions.remove(&session).and_then(|session| session.past_moves);
                let direct = past.map_or(Duration::ZERO, |past| past.timeline.spans(now).1);
                Some(Reply::Deleted { streams, direct })
            }
            Action::Query => Some(Reply::Statistics(self.statistics(session, now))),
        }
    }

    /// Somebody listens from now on, or not any more.
    fn listen(
        &mut self,
        id: u64,
        listener: Listener,
        how: impl Fn(&mut Listeners, Listener, &mut Streams, &[StreamId]),
    ) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let streams: SmallVec<[StreamId; 8]> = session.stream_ids().collect();
        how(&mut session.listeners, listener, &mut self.streams, &streams);
    }

    /// A branch has won: the other outgoing parties, and the other branches of its own, are gone.
    fn select(&mut self, id: u64, winner: Endpoint, now: Duration, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.selected = Some(winner);
        // It may have said nothing yet; then its party's ports are its own from now on.
        self.ensure_branch(id, winner);
        self.drop_legs(id, |leg| leg.party != 0 && leg != winner, now, ports);
        let caller = Endpoint { party: 0, branch: 0 };
        self.connect_agreed(id, winner, caller);
        // What an early answer refused the last one may take (RFC 3261 §13.2.1), which comes after this, if it comes.
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = Some(now.saturating_add(LAST_ANSWER));
        }
        self.agreed(id, now);
    }

    /// Ends legs; what they sent stays counted.
    pub(crate) fn drop_legs(
        &mut self,
        id: u64,
        is_gone: impl Fn(Endpoint) -> bool,
        now: Duration,
        ports: &mut dyn Ports,
    ) {
        let is_moving = |session: &Session| session.movers().into_iter().flatten().any(&is_gone);
        if self.sessions.get(&id).is_some_and(is_moving) {
            self.end_moves(id, now);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let mut gone: Vec<StreamId> = Vec::new();
        session.legs.retain(|(endpoint, leg)| {
            let stays = !is_gone(*endpoint);
            if !stays {
                gone.extend(leg.streams.iter().flatten());
            }
            stays
        });
        self.close(id, &gone, ports);
    }

    /// Closes streams that no leg names any more, and counts what they heard.
    pub(crate) fn close(&mut self, id: u64, gone: &[StreamId], ports: &mut dyn Ports) {
        if gone.is_empty() {
            return;
        }
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for left in session.legs.iter().flat_map(|(_, leg)| leg.streams.iter().flatten()) {
            if let Some(stream) = self.streams.get_mut(*left) {
                stream.consumers.starve(|peer| gone.contains(&peer));
            }
        }
        for stream in gone {
            if let Some(stream) = self.streams.remove(*stream, ports)
                && (stream.reception.packets > 0 || stream.strangers > 0)
            {
                session.past.push(stream.statistics(None, session.heard));
            }
        }
    }

    fn statistics(&self, id: u64, now: Duration) -> Vec<StreamStatistics> {
        let Some(session) = self.sessions.get(&id) else { return Vec::new() };
        let mut found = session.past.clone();
        let streams = session.legs.iter().flat_map(|(_, leg)| leg.streams.iter().flatten());
        for stream in streams.filter_map(|stream| self.streams.get(*stream)) {
            let far = stream.consumers.peers().next().and_then(|far| self.streams.get(far));
            found.push(stream.statistics(far.and_then(|far| far.reception.round_trip), now));
        }
        found.sort_by_key(|one| (one.endpoint, one.stream));
        found
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let check = (!self.sessions.is_empty()).then_some(self.next_check);
        check.into_iter().chain(self.looks.peek().map(|look| look.0.0)).min()
    }

    /// What goes out now without a packet that it follows from: socket, destination, bytes.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What those who listen have to be given, in the order in which it came.
    pub fn poll_overheard(&mut self) -> Option<Overheard> {
        self.copies.pop()
    }

    /// Packets that listeners will not get: too many waited for them.
    pub fn unheard_copies(&self) -> u64 {
        self.copies.lost
    }

    /// What sessions have to tell, and which.
    pub fn poll_event(&mut self) -> Option<(u64, Event)> {
        self.events.pop_front()
    }

    /// What became of moves, for the store.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.memory.poll_outcome()
    }

    /// The store has told what it knows of such moves.
    pub fn recall(&mut self, known: Arc<Known>) {
        self.memory.recall(known);
    }

    /// Looks at the paths whose time has come, and for sessions that have gone quiet, each of which is reported once.
    pub fn handle_timeout(&mut self, now: Duration, ports: &mut dyn Ports) {
        while let Some(Reverse((due, id))) = self.looks.peek().copied()
            && due <= now
        {
            self.looks.pop();
            let Some(session) = self.sessions.get(&id) else { continue };
            if session.checks_due == Some(due) {
                self.repeat_checks(id, now);
            } else if session.introduction.as_ref().is_some_and(|introduction| introduction.due == due) {
                self.look_at_introduction(id, now);
            } else if session.moving.as_ref().is_some_and(|moving| moving.due == due) {
                self.look(id, now, ports);
            } else if session.handoff.as_ref().is_some_and(|handoff| handoff.due == due) {
                self.look_at_handoff(id, now);
            }
        }
        if now < self.next_check {
            return;
        }
        self.next_check = now.saturating_add(Duration::from_secs(1));
        let closing = self
            .sessions
            .iter_mut()
            .filter_map(|(id, session)| session.closing.take_if(|closing| *closing <= now).map(|_| *id));
        for id in closing.collect::<Vec<u64>>() {
            self.close_refused(id, ports);
        }
        let Some(limit) = self.settings.inactivity else { return };
        let is_unheard =
            |session: &Session| session.moving.as_ref().is_some_and(|moving| moving.is_unheard());
        let unheard: Vec<u64> =
            self.sessions.iter().filter(|(_, session)| is_unheard(session)).map(|(id, _)| *id).collect();
        for (id, session) in &mut self.sessions {
            if unheard.contains(&session.guest.map_or(*id, |guest| guest.host)) {
                // What cannot be heard is not missed, but somebody has to look after it.
                session.heard = now;
                if session.unheard.get_or_insert(now).saturating_add(limit) <= now {
                    session.unheard = Some(now);
                    self.events.push_back((*id, Event::Unheard));
                }
                continue;
            }
            session.unheard = None;
            let least =
                if session.is_away && session.handoff.is_some() { LEAST_INACTIVITY } else { Duration::ZERO };
            if session.heard.saturating_add(limit.max(least)) <= now
                && !session.is_held
                && !session.told_inactive
            {
                session.told_inactive = true;
                self.events.push_back((*id, Event::Inactive));
            }
        }
    }
}
