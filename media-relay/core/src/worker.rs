//! A worker: the sessions of one thread. What signalling agrees is in `negotiation.rs`, a packet's way in `forward.rs`, who moves
//! media in `moves.rs`.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use seam::{Action, Described, Endpoint, Event, ExchangeId, Refusal, Reply, StreamStatistics};
use smallvec::SmallVec;

use crate::clock;
use crate::consumers::{Copies, Overheard};
use crate::expected::Expected;
use crate::flow::Flow;
use crate::handoff::LEAST_INACTIVITY;
use crate::legs::{Answer, Answered, Life, Offer, Session};
use crate::motion::{Motion, Motions};
use crate::negotiation::{Heard, Negotiation};
use crate::ours::Judge;
use crate::path::memory::{Known, Memory, Outcome};
pub use crate::ports::{Arrival, PortPair, Ports, SocketId, Transmit};
use crate::ports::{StreamId, Turn};
pub use crate::settings::Settings;
use crate::state::{CannotTakeIn, House, NotSteady, StoredSession};
use crate::stream::Streams;

/// After a branch was chosen its last answer has come, if it has one.
const LAST_ANSWER: Duration = Duration::from_secs(5);

/// The sessions of one thread.
#[derive(Debug)]
pub struct Worker {
    pub(crate) sessions: AHashMap<u64, Session>,
    /// Who moves their media, of those that somebody moves.
    pub(crate) motions: Motions,
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
            motions: Motions::new(),
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
        let now = clock::own(now);
        let turn = &mut Turn { now, ports };
        match action {
            Action::Offer { exchange, from, to, from_party, to_party, sdp } => {
                let offer = Offer { exchange, from: (from, from_party), to: (to, to_party), sdp };
                Some(Reply::Description(self.offer(session, offer, turn)))
            }
            Action::Answer { exchange, from, to, from_party, sdp } => {
                let answer = Answer { exchange, from: (from, from_party), to, sdp };
                Some(Reply::Description(self.answer(session, answer, turn)))
            }
            Action::Select(winner) => {
                self.select(session, winner, turn);
                None
            }
            Action::Reject { exchange, from } => {
                self.reject(session, exchange, from, turn);
                None
            }
            Action::Cancel(exchange) => {
                self.cancel(session, exchange, turn);
                None
            }
            Action::Drop(endpoint) => {
                self.drop_legs(session, |leg| leg == endpoint, turn);
                // Two that are left, as after a transfer, may move anew.
                if self.sessions.contains_key(&session) && self.motions.ends(session).is_none() {
                    self.agreed(session, now);
                }
                None
            }
            Action::Trickle { from, to, fragment } => {
                Some(Reply::Fragment(self.trickle(session, [from, to], &fragment, now)))
            }
            Action::Renegotiated { wish, endpoint, outcome } => {
                self.renegotiated(session, Answered { wish, endpoint, outcome }, turn);
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
                if let Some(known) = self.sessions.get_mut(&session)
                    && known.listeners.attach(listener)
                {
                    let streams: SmallVec<[StreamId; 8]> = known.stream_ids().collect();
                    self.streams.attach(listener, &streams);
                }
                self.heed_policy(session, now);
                None
            }
            Action::Detach(listener) => {
                if let Some(known) = self.sessions.get_mut(&session) {
                    known.listeners.detach(listener);
                    let streams: SmallVec<[StreamId; 8]> = known.stream_ids().collect();
                    self.streams.detach(listener, &streams);
                }
                self.heed_policy(session, now);
                None
            }
            Action::Delete => {
                self.end_moves(session, now);
                let streams = self.statistics(session, now);
                self.drop_legs(session, |_| true, turn);
                self.motions.end(session);
                let past = self.sessions.remove(&session).and_then(|session| session.past_moves);
                let direct = past.map_or(Duration::ZERO, |past| past.timeline.spans(now).1);
                Some(Reply::Deleted { streams, direct })
            }
            Action::Query => Some(Reply::Statistics(self.statistics(session, now))),
        }
    }

    pub(crate) fn offer(&mut self, id: u64, offer: Offer, turn: &mut Turn<'_>) -> Result<Described, Refusal> {
        let heard = Heard::offer(self.judge(), id, &offer)?;
        let is_new = !self.sessions.contains_key(&id);
        self.sessions.entry(id).or_insert_with(|| Session {
            life: Life { heard: turn.now, ..Life::default() },
            ..Session::default()
        });
        let mut negotiation = self.negotiation(id).ok_or(Refusal::Unknown)?;
        match negotiation.open(&offer, &heard, turn.ports) {
            Ok(opened) => negotiation.offer(offer, heard, opened, turn.now),
            Err(refusal) => {
                if is_new {
                    self.sessions.remove(&id);
                }
                Err(refusal)
            }
        }
    }

    pub(crate) fn answer(
        &mut self,
        id: u64,
        answer: Answer,
        turn: &mut Turn<'_>,
    ) -> Result<Described, Refusal> {
        let heard = Heard::read(self.judge(), id, &answer.from, &answer.sdp)?;
        let mut negotiation = self.negotiation(id).ok_or(Refusal::Unknown)?;
        let described = negotiation.answer(answer, heard, turn)?;
        self.agreed(id, turn.now);
        self.schedule_checks(id);
        Ok(described)
    }

    /// The offer is void.
    pub(crate) fn cancel(&mut self, id: u64, exchange: ExchangeId, turn: &mut Turn<'_>) {
        let negotiation = self.negotiation(id);
        if negotiation.is_some_and(|mut negotiation| negotiation.cancel(exchange, turn.ports)) {
            self.attend(id, turn.now);
        }
    }

    /// A refused initial offer ends its party with all branches; a later one is void.
    fn reject(&mut self, id: u64, exchange: ExchangeId, from: Endpoint, turn: &mut Turn<'_>) {
        if exchange == ExchangeId::INITIAL {
            self.drop_legs(id, |leg| leg.party != 0 && leg.party == from.party, turn);
        } else {
            self.cancel(id, exchange, turn);
        }
    }

    pub(crate) fn judge(&self) -> Judge<'_> {
        Judge { sessions: &self.sessions, streams: &self.streams, settings: &self.settings }
    }

    fn negotiation(&mut self, id: u64) -> Option<Negotiation<'_>> {
        Some(Negotiation {
            id,
            session: self.sessions.get_mut(&id)?,
            streams: &mut self.streams,
            introduction: self.motions.introduction_mut(id),
            settings: &self.settings,
            cname: &self.cname,
        })
    }

    /// A session as plain data, for another worker: it is here no more, its ports are closed, and nobody is told. See
    /// [`state`](crate::state).
    pub fn take_out(
        &mut self,
        session: u64,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Result<StoredSession, NotSteady> {
        let turn = &mut Turn { now: clock::own(now), ports };
        self.house().is_steady(session)?;
        if !self.part_halves(session, turn.now) {
            return Err(NotSteady::Away);
        }
        self.house().take_out(session, turn)
    }

    /// Goes on with a session that another worker had, as this number: its ports are opened where they were.
    pub fn take_in(
        &mut self,
        session: u64,
        stored: StoredSession,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Result<(), CannotTakeIn> {
        let now = clock::own(now);
        let settings = self.settings.clone();
        self.house().take_in(session, stored, &settings, &mut Turn { now, ports })?;
        let checks = self.sessions.get(&session).and_then(|session| session.checks_due);
        let look = self.motions.get(session).and_then(Motion::due);
        self.looks.extend(checks.into_iter().chain(look).map(|due| Reverse((due, session))));
        if self.motions.get(session).is_none()
            && self.sessions.get(&session).is_some_and(Session::may_be_longer)
        {
            self.agreed(session, now);
        }
        Ok(())
    }

    fn house(&mut self) -> House<'_> {
        House { sessions: &mut self.sessions, motions: &mut self.motions, streams: &mut self.streams }
    }

    /// A branch has won: the other outgoing parties, and the other branches of its own, are gone.
    fn select(&mut self, id: u64, winner: Endpoint, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.selected = Some(winner);
        // It may have said nothing yet; then its party's ports are its own from now on.
        if let Some(mut negotiation) = self.negotiation(id) {
            negotiation.ensure_branch(winner);
        }
        self.drop_legs(id, |leg| leg.party != 0 && leg != winner, turn);
        let caller = Endpoint { party: 0, branch: 0 };
        if let Some(mut negotiation) = self.negotiation(id) {
            negotiation.connect_agreed(winner, caller);
        }
        // What an early answer refused the last one may take (RFC 3261 §13.2.1), which comes after this, if it comes.
        if let Some(session) = self.sessions.get_mut(&id) {
            session.closing = Some(now.saturating_add(LAST_ANSWER));
        }
        self.agreed(id, now);
    }

    /// Ends legs; what they sent stays counted.
    pub(crate) fn drop_legs(&mut self, id: u64, is_gone: impl Fn(Endpoint) -> bool, turn: &mut Turn<'_>) {
        if self.motions.ends(id).into_iter().flatten().any(&is_gone) {
            self.end_moves(id, turn.now);
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
        session.close(&gone, &mut self.streams, turn.ports);
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

    /// Of a socket: where its party was heard, or else is to be by its description or behind the host that it signals from.
    pub fn expected(&self, socket: SocketId) -> Expected {
        self.streams.expected(socket)
    }

    /// The sockets of a session.
    pub fn sockets(&self, session: u64) -> SmallVec<[SocketId; 8]> {
        let session = self.sessions.get(&session);
        session.map(|session| self.streams.sockets(session.stream_ids())).unwrap_or_default()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let check = (!self.sessions.is_empty()).then_some(self.next_check);
        check.into_iter().chain(self.looks.peek().map(|look| look.0.0)).min().map(clock::outside)
    }

    /// ICE's checks of a session are to be repeated when that is due.
    pub(crate) fn schedule_checks(&mut self, id: u64) {
        let due = self.sessions.get_mut(&id).and_then(Session::schedule_checks);
        self.looks.extend(due.map(|due| Reverse((due, id))));
    }

    /// What goes out now without a packet that it follows from: socket, destination, bytes.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What another plane needs to pass the RTP of a port by itself; `None`: each packet of it is for this one.
    pub fn flow(&self, socket: SocketId) -> Option<Flow> {
        self.streams.flow(socket)
    }

    /// What those who listen have to be given, in the order in which it came.
    pub fn poll_overheard(&mut self) -> Option<Overheard> {
        self.copies.pop().map(|copy| Overheard { at: clock::outside(copy.at), ..copy })
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
        let now = clock::own(now);
        while let Some(Reverse((due, id))) = self.looks.peek().copied()
            && due <= now
        {
            self.looks.pop();
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            if session.checks_due == Some(due) {
                session.repeat_checks(&mut self.transmits, now);
                self.schedule_checks(id);
                continue;
            }
            if self.motions.get(id).and_then(Motion::due) != Some(due) {
                continue;
            }
            self.look(id, &mut Turn { now, ports });
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
            if let Some(mut negotiation) = self.negotiation(id) {
                negotiation.close_refused(ports);
            }
        }
        let Some(limit) = self.settings.inactivity else { return };
        let unheard: Vec<u64> = self.motions.unheard().collect();
        for (id, session) in &mut self.sessions {
            if unheard.contains(&self.motions.guest(*id).map_or(*id, |guest| guest.host)) {
                // What cannot be heard is not missed, but somebody has to look after it.
                session.life.heard = now;
                if session.life.asked.get_or_insert(now).saturating_add(limit) <= now {
                    session.life.asked = Some(now);
                    self.events.push_back((*id, Event::Unheard));
                }
                continue;
            }
            session.life.asked = None;
            let least = if session.away.is_away && self.motions.handoff(*id).is_some() {
                LEAST_INACTIVITY
            } else {
                Duration::ZERO
            };
            let limit = limit.max(least);
            if session.life.heard.saturating_add(limit) <= now {
                session.catch_up(&self.streams);
            }
            if session.life.heard.saturating_add(limit) <= now && !session.is_held && !session.life.is_told {
                session.life.is_told = true;
                self.events.push_back((*id, Event::Inactive));
            }
        }
    }
}
