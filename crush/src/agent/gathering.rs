//! Candidates: found, told, heard (docs/crush.md §3 and §4); and a new generation when the old one is of no use (§9).

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{Kind, Reason};
use media_wire::sdp::crush::{
    Candidate, CandidateKind, DISCOVERED, Fragment, HOST, MAPPING, Policy, Temper, priority,
};
use media_wire::stun::{CHANGE_REQUEST, Class, Incoming, Method, Outgoing};

use super::generation::{Credentials, Generation, Measure};
use super::incoming::Peer;
use super::{Agent, Event, Output, SocketId, Wanted};
use crate::count::Count;
use crate::find::{Finding, Flow};
use crate::gather::{Ask, Discovery};

/// The first INFO waits so long for discovery.
const TRICKLE_WAIT: Duration = Duration::from_millis(100);
/// Retransmissions of a measurement.
const MEASURE_RTO: Duration = Duration::from_millis(200);
/// Its longest interval is this power of two of the first.
const MEASURE_DOUBLINGS: u32 = 3;
/// Ufrags of the peer's past that are remembered.
const REMEMBERED: usize = 64;
/// How often the relay is asked while spraying, whether it can still be reached.
const RELAY_ASKED: Duration = Duration::from_millis(500);

impl Agent {
    /// Begins to gather as soon as the SBC has said that it takes part.
    pub(super) fn gather(&mut self, now: Duration) {
        let (Some(_), Some(first)) = (&self.leg.support, self.streams.first()) else {
            return;
        };
        if self.leg.policy() == Policy::Relay || !self.generation.candidates.is_empty() {
            return;
        }
        let (socket, local) = (first.setup.socket, first.setup.local);
        self.add_candidate(local, CandidateKind::Host, HOST);
        self.discover_with(socket, local, now);
        for (socket, local) in self.gathered.hosts.clone() {
            self.add_host(socket, local, now);
        }
        if let Some(mapped) = self.gathered.mapped {
            self.router_mapped(mapped, now);
        }
        self.trickle_soon(now);
    }

    /// Which discovery service answers for an address: one of its family.
    fn server_for(&self, local: SocketAddr) -> Option<SocketAddr> {
        let servers = &self.leg.support.as_ref()?.servers;
        servers.iter().copied().find(|server| server.is_ipv4() == local.is_ipv4())
    }

    /// A family's NAT shows at its first socket.
    fn discover_with(&mut self, socket: SocketId, local: SocketAddr, now: Duration) {
        let server = self.server_for(local);
        let family = self.generation.families.of_mut(local);
        if family.base.is_some() {
            return;
        }
        family.base = Some((socket, local));
        if let Some(server) = server {
            family.discovery = Some(Discovery::new(socket, local, server, &mut self.random, now));
            self.want(Wanted::Filtering, socket);
        }
    }

    fn want(&mut self, wanted: Wanted, beside: SocketId) {
        self.gathered.wanted.push_back(wanted);
        self.outputs.push_back(Output::OpenSocket { beside });
    }

    /// What the search wants is of the family that it sprays.
    fn want_for_search(&mut self, wanted: Wanted) {
        let beside = self.generation.finder.sprays_from();
        self.want(wanted, beside);
    }

    pub(super) fn socket_opened(&mut self, socket: SocketId, local: SocketAddr, now: Duration) {
        let wanted = self.gathered.wanted.pop_front();
        // What it was for may be over.
        if self.link.is_some() || wanted.is_none() {
            return self.outputs.push_back(Output::CloseSocket(socket));
        }
        self.spent.sockets.up();
        self.generation.extra.push(socket);
        match wanted {
            Some(Wanted::Filtering) => {
                if let Some(discovery) = &mut self.generation.families.of_mut(local).discovery {
                    discovery.probe_with(socket, &mut self.random, now);
                }
            }
            Some(Wanted::Spray) => self.generation.finder.socket(socket),
            Some(Wanted::Measure | Wanted::Fresh) | None => {
                let transaction = self.random.transaction();
                let is_fresh = wanted == Some(Wanted::Fresh);
                self.generation.measure =
                    Some(Measure { socket, local, is_fresh, transaction, sent: 0, next: now });
            }
        }
    }

    fn add_candidate(&mut self, address: SocketAddr, kind: CandidateKind, preference: u8) {
        if self.generation.candidates.iter().any(|known| known.address == address) {
            return;
        }
        let local = self.generation.families.of(address).base.map(|(_, local)| local);
        let foundation = self.generation.candidates.len().saturating_add(1).to_string();
        self.generation.candidates.push(Candidate {
            foundation,
            priority: priority(preference, u16::MAX),
            address,
            kind,
            related: local.filter(|_| kind == CandidateKind::ServerReflexive),
        });
    }

    pub(super) fn host_opened(&mut self, socket: SocketId, local: SocketAddr, now: Duration) {
        self.gathered.hosts.push((socket, local));
        if !self.generation.candidates.is_empty() {
            self.add_host(socket, local, now);
            self.trickle_soon(now);
        }
    }

    fn add_host(&mut self, socket: SocketId, local: SocketAddr, now: Duration) {
        self.generation.finder.base(socket, local);
        self.add_candidate(local, CandidateKind::Host, HOST);
        self.discover_with(socket, local, now);
    }

    /// A server saw the first socket of a family under this address.
    pub(super) fn seen_as(&mut self, address: SocketAddr, now: Duration) {
        if self.generation.candidates.is_empty() {
            return;
        }
        self.generation.finder.seen_as(address);
        // A relay on another address than the discovery service sees another port behind a symmetric NAT: of no use to anybody.
        let known = |candidate: &Candidate| {
            candidate.kind == CandidateKind::ServerReflexive && candidate.address.ip() == address.ip()
        };
        if !self.generation.candidates.iter().any(known) {
            self.add_candidate(address, CandidateKind::ServerReflexive, DISCOVERED);
            self.trickle_soon(now);
        }
    }

    /// The router forwards this address to the first socket of its family.
    pub(super) fn router_mapped(&mut self, address: SocketAddr, now: Duration) {
        self.gathered.mapped = Some(address);
        // A router may be quicker than the call: then gathering begins with it.
        if !self.generation.candidates.is_empty() {
            self.add_candidate(address, CandidateKind::ServerReflexive, MAPPING);
            self.trickle_soon(now);
        }
    }

    pub(super) fn discover(&mut self, now: Duration) {
        if self.link.is_some() {
            return;
        }
        while let Some(ask) = self.question(now) {
            // Retransmissions are paced as what they repeat: a flow that may not exist yet.
            if !self.generation.finder.pace.take(Flow::New, now) {
                break;
            }
            if let Some(discovery) = &mut self.generation.families.of_mut(ask.to).discovery {
                discovery.sent(ask.transaction, now);
            }
            let request = Outgoing::new(Method::Binding, Class::Request, ask.transaction);
            let request = if ask.change == 0 {
                request
            } else {
                request.with(CHANGE_REQUEST, &ask.change.to_be_bytes())
            };
            self.transmit(ask.socket, ask.to, request.plain());
        }
        for base in self.bases() {
            self.learn(base, now);
        }
        self.measure(now);
    }

    /// Where discovery runs from: the first stream's family, then the other.
    fn bases(&self) -> [Option<SocketAddr>; 2] {
        let first = self.first_local();
        let is_other = |local: &SocketAddr| first.is_none_or(|first| first.is_ipv4() != local.is_ipv4());
        let mut bases = self.generation.families.each().filter_map(|family| family.base.map(|base| base.1));
        [first, bases.find(is_other)]
    }

    fn first_local(&self) -> Option<SocketAddr> {
        self.streams.first().map(|stream| stream.setup.local)
    }

    /// The next question of discovery that is due.
    fn question(&mut self, now: Duration) -> Option<Ask> {
        let first = self.first_local();
        self.bases().into_iter().flatten().find_map(|base| {
            let families = &mut self.generation.families;
            if families.may_ask(base, first, now) > now {
                return None;
            }
            families.of_mut(base).discovery.as_mut()?.due(now)
        })
    }

    /// Takes over what discovery knows.
    fn learn(&mut self, base: Option<SocketAddr>, now: Duration) {
        let Some(base) = base else { return };
        let Some(discovery) = &self.generation.families.of(base).discovery else {
            return;
        };
        let over = discovery.is_over(now);
        let probe = discovery.probe();
        let (mapped, mapping_known) = (discovery.mapped(), discovery.knows_mapping());
        let behaviour = discovery.behaviour();
        if let Some(mapped) = mapped {
            self.seen_as(mapped, now);
        }
        let family = self.generation.families.of_mut(base);
        if (mapping_known || over) && family.nat != behaviour {
            if family.nat.is_none() {
                self.generation.finder.measured();
            }
            family.nat = behaviour;
            self.nats_known(now);
            self.trickle_soon(now);
        }
        if over {
            self.generation.families.of_mut(base).discovery = None;
            if let Some(probe) = probe {
                self.close(probe);
            }
            self.trickle_soon(now);
        }
    }

    fn close(&mut self, socket: SocketId) {
        if let Some(place) = self.generation.extra.iter().position(|known| *known == socket) {
            self.generation.extra.swap_remove(place);
            self.outputs.push_back(Output::CloseSocket(socket));
        }
    }

    fn nats_known(&mut self, now: Duration) {
        self.generation.finder.nats(self.generation.families.known(), now);
    }

    /// What a socket has sent keeps its port for it: now the peer may know that.
    fn opened(&mut self, socket: SocketId, now: Duration) {
        if let Some((_, mapped)) = self.generation.fresh.take_if(|fresh| fresh.0 == socket) {
            self.add_candidate(mapped, CandidateKind::ServerReflexive, DISCOVERED);
            self.trickle_soon(now);
        }
    }

    /// Asks for the newest port once more.
    fn measure(&mut self, now: Duration) {
        let server = self.generation.measure.and_then(|measure| self.server_for(measure.local));
        let (Some(measure), Some(server)) = (&mut self.generation.measure, server) else {
            return;
        };
        if now < measure.next {
            return;
        }
        if !self.generation.finder.pace.take(Flow::New, now) {
            measure.next = self.generation.finder.pace.ready(Flow::New);
            return;
        }
        // Without it there is no other round: it is repeated as long as the spray may last.
        let wait = MEASURE_RTO.saturating_mul(1 << measure.sent.min(MEASURE_DOUBLINGS));
        measure.next = now.saturating_add(wait);
        measure.sent.up();
        let (socket, transaction) = (measure.socket, measure.transaction);
        let bytes = Outgoing::new(Method::Binding, Class::Request, transaction).plain();
        self.transmit(socket, server, bytes);
    }

    /// Whether a response belongs to discovery or measuring.
    pub(super) fn gathering_answered(
        &mut self,
        socket: SocketId,
        message: &Incoming<'_>,
        now: Duration,
    ) -> bool {
        let random = &mut self.random;
        let mut discoveries =
            self.generation.families.each_mut().filter_map(|family| family.discovery.as_mut());
        let is_discovery = discoveries.any(|discovery| discovery.answer(socket, message, random, now));
        drop(discoveries);
        if is_discovery {
            return true;
        }
        let Some(measure) = self.generation.measure else {
            return false;
        };
        if measure.transaction != message.transaction() || measure.socket != socket {
            return false;
        }
        self.generation.measure = None;
        if measure.is_fresh {
            self.generation.fresh = message.mapped_address().map(|mapped| (socket, mapped));
            self.generation.finder.fresh(socket, measure.local);
            return true;
        }
        if let (Some(mapped), Some(nat)) =
            (message.mapped_address(), &mut self.generation.families.of_mut(measure.local).nat)
        {
            nat.last = mapped.port();
            nat.round = self.generation.finder.next_round();
            self.generation.finder.measured();
            self.generation.finder.socket(socket);
            self.nats_known(now);
            self.trickle_soon(now);
        }
        true
    }

    pub(super) fn gathering_timeout(&self) -> Option<Duration> {
        if self.link.is_some() {
            return None;
        }
        let leave = self.generation.finder.pace.ready(Flow::New);
        let first = self.first_local();
        let families = &self.generation.families;
        let asks = families.each().filter_map(|family| {
            let (discovery, (_, local)) = family.discovery.as_ref().zip(family.base)?;
            let turn = families.may_ask(local, first, Duration::ZERO);
            Some(discovery.timeout()?.max(leave).max(turn))
        });
        let discovery = asks.min();
        let measure = self.generation.measure.map(|measure| measure.next);
        let trickle = self.generation.trickle_at.filter(|_| self.gathered.is_confirmed);
        [discovery, measure, trickle].into_iter().flatten().min()
    }

    pub(super) fn trickle_soon(&mut self, now: Duration) {
        if self.generation.candidates.is_empty() {
            return;
        }
        // What is found out of the other family comes in another INFO.
        let first = self.first_local();
        let discovery = first.and_then(|first| self.generation.families.of(first).discovery.as_ref());
        let complete = discovery.is_none_or(Discovery::knows_mapping);
        let at = if complete { now } else { now.saturating_add(TRICKLE_WAIT) };
        let known = self.generation.trickle_at;
        self.generation.trickle_at = Some(known.map_or(at, |known| known.min(at)));
    }

    pub(super) fn trickle(&mut self, now: Duration) {
        if !self.gathered.is_confirmed || self.generation.trickle_at.is_none_or(|at| now < at) {
            return;
        }
        self.generation.trickle_at = None;
        if self.leg.policy() == Policy::Relay {
            return;
        }
        let mut candidates = self.generation.candidates.clone();
        if !self.config.show_hosts {
            candidates.retain(|candidate| candidate.kind != CandidateKind::Host);
            candidates.iter_mut().for_each(|candidate| candidate.related = None);
        }
        let media = match self.streams.first().map(|stream| stream.setup.kind) {
            Some(Kind::Video) => "video",
            _ => "audio",
        };
        let fragment = Fragment {
            ufrag: self.generation.ours.ufrag.clone(),
            pwd: self.generation.ours.pwd.clone(),
            nats: self.generation.families.each().filter_map(|family| family.nat).collect(),
            candidates,
            ended: !self.generation.families.is_discovering(),
        };
        let text = fragment.write(media);
        if text != self.generation.trickled {
            self.generation.trickled.clone_from(&text);
            self.outputs.push_back(Output::Trickle(text));
        }
    }

    /// What the peer said.
    pub(super) fn trickled(&mut self, fragment: &str, now: Duration) {
        if !self.gathered.excess.admits_fragment(now) {
            self.refused.excess.up();
            return;
        }
        let Some(fragment) = Fragment::read(fragment) else {
            self.refused.malformed.up();
            return;
        };
        // Whatever policy says here: what it forbids does not pass the SBC, and that may have told the peer first.
        if self.leg.support.is_none() || self.gathered.old_theirs.contains(&fragment.ufrag) {
            return;
        }
        let told = || Credentials::new(&fragment.ufrag, &fragment.pwd);
        let is_news = self.generation.theirs.as_ref().is_some_and(|theirs| theirs.ufrag != fragment.ufrag);
        if is_news && !self.gathered.excess.admits_generation(now) {
            self.refused.excess.up();
            return;
        }
        match self.generation.theirs.take_if(|theirs| theirs.ufrag != fragment.ufrag) {
            Some(old) => {
                // The peer began anew (another network, its path died, policy lets it look again).
                if self.gathered.old_theirs.len() >= REMEMBERED {
                    self.gathered.old_theirs.pop_front();
                }
                self.gathered.old_theirs.push_back(old.ufrag);
                self.return_all(Reason::Network, Peer::Knows, now);
                self.renew(self.generation.ours.clone(), Some(told()), now);
                self.gather(now);
            }
            None => drop(self.generation.theirs.get_or_insert_with(told)),
        }
        for nat in fragment.nats {
            self.generation.families.described(&nat).their_nat = Some(nat);
        }
        self.nats_known(now);
        self.generation.finder.remotes(&fragment.candidates);
    }

    /// New credentials. What the peer said holds until it says otherwise, as it will once it knows ours.
    pub(super) fn begin_generation(&mut self, now: Duration) {
        let (theirs, their_nats) = (self.generation.theirs.take(), self.generation.families.theirs());
        let remotes = self.generation.finder.known_remotes().to_vec();
        let ours = Credentials::random(&mut self.random);
        self.renew(ours, theirs, now);
        for nat in their_nats.into_iter().flatten() {
            self.generation.families.described(&nat).their_nat = Some(nat);
        }
        self.generation.finder.remotes(&remotes);
    }

    /// Nothing has happened between these credentials.
    fn renew(&mut self, ours: Credentials, theirs: Option<Credentials>, now: Duration) {
        for socket in std::mem::take(&mut self.generation.extra) {
            self.outputs.push_back(Output::CloseSocket(socket));
        }
        self.spent = self.effort();
        let first = self.streams.first().map(|first| (first.setup.socket, first.setup.local));
        let finder = self.generation.finder.renewed(self.role.is_controlling, first, &mut self.random, now);
        self.generation = Generation::new(ours, theirs, finder);
        self.link = None;
        self.switching.rests_until = Duration::ZERO;
        // A generation begins because something that was known turned out false, here or at the peer: nothing that a NAT or router said
        // before is told again unless it says so once more.
        if self.gathered.mapped.take().is_some() {
            self.outputs.push_back(Output::MapAnew);
        }
    }

    /// The local address changed (docs/crush.md §9).
    pub(super) fn network_changed(&mut self, sockets: &[(SocketId, SocketAddr)], now: Duration) {
        for ((stream, warmth), (socket, local)) in
            self.streams.iter_mut().zip(&mut self.leg.warmth).zip(sockets)
        {
            stream.setup.socket = *socket;
            stream.setup.local = *local;
            warmth.begin(now);
        }
        self.gathered.mapped = None;
        self.gathered.hosts.clear();
        // First the relay learns the new address, then the peer hears of it.
        self.keep_relay_warm(now);
        self.return_all(Reason::Network, Peer::IsTold, now);
        self.retry(now);
        self.generation.finder.move_elsewhere(now);
        self.begin_generation(now);
        self.gather(now);
    }

    /// Who is blocked hears nothing, and is not heard: the relay answers everybody else. (What the peer sends tells of the peer's limiter.)
    fn notice_limiter(&mut self, now: Duration) {
        let sprays = self.generation.finder.is_spraying();
        if !sprays || self.generation.finder.pace.temper() == Temper::Stealth {
            return;
        }
        if let Some(until) = self.gathered.paused_until {
            if now < until {
                return;
            }
            // Whether the block is over shows from now on.
            self.gathered.paused_until = None;
            self.leg.ask_anew(now);
            self.keep_relay_warm(now);
        }
        if self.leg.is_unanswered(now) {
            self.gathered.paused_until = Some(self.generation.finder.pace.struck(now));
            return self.event(Event::SlowedDown(self.generation.finder.pace.temper()));
        }
        if self.leg.ask_each(RELAY_ASKED, now) {
            self.keep_relay_warm(now);
        }
    }

    /// Runs the search.
    pub(super) fn find(&mut self, now: Duration) {
        if self.link.is_some() || self.leg.policy() == Policy::Relay {
            return;
        }
        self.notice_limiter(now);
        while let Some(theirs) = self.generation.theirs.clone()
            && let Some(send) = self.generation.finder.poll(&mut self.random, now)
        {
            let bytes = self.check(send.transaction, send.check, &theirs);
            self.transmit(send.socket, send.to, bytes);
        }
        while let Some(finding) = self.generation.finder.finding() {
            match finding {
                Finding::Part(part) => {
                    self.charge_relayed(now);
                    let temper = self.generation.finder.pace.temper();
                    self.event(Event::Probing { temper, part, effort: self.effort() });
                }
                Finding::Sockets(count) => (0..count).for_each(|_| self.want_for_search(Wanted::Spray)),
                Finding::Spent(socket) => self.close(socket),
                Finding::Measure => self.want_for_search(Wanted::Measure),
                Finding::Fresh => self.want_for_search(Wanted::Fresh),
                Finding::Opened(socket) => self.opened(socket, now),
                Finding::Found { socket, remote, round_trip } => {
                    self.found(socket, remote, round_trip, now);
                    break;
                }
                Finding::GaveUp(part) => {
                    self.generation.measure = None;
                    for socket in std::mem::take(&mut self.generation.extra) {
                        self.outputs.push_back(Output::CloseSocket(socket));
                    }
                    self.event(Event::GaveUp { part, effort: self.effort() });
                }
            }
        }
    }

    pub(super) fn finding_timeout(&self) -> Option<Duration> {
        if self.link.is_some() || self.leg.policy() == Policy::Relay {
            return None;
        }
        self.generation.theirs.as_ref()?;
        self.generation.finder.timeout()
    }
}
