//! One generation's search: checks, spray, nomination. It says what is to be sent and is told what came; bytes and
//! credentials are the agent's.

mod spray;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::RandomState;
use media_wire::sdp::crush::{CANDIDATES, Candidate, CandidateKind, HOST, NatBehaviour, Temper, priority};
use spray::step;

use super::checklist::{Base, Checklist, Leave, TRANSMISSIONS};
use super::diagonal::{Fan, Scan};
use super::pace::{Flow, Pace};
use super::pair::{Pair, State, is_private};
use super::plan::Part;
use super::reach::Reach;
use super::reopen::Reopen;
use super::shots::Shots;
use super::sockets::Sockets;
use super::sweep::Sweep;
use crate::agent::SocketId;
use crate::count::Count;
use crate::random::Random;

/// How long the controlling side waits for a better pair.
const NOMINATION_WAIT: Duration = Duration::from_millis(100);
/// How often a held flow is repeated.
const HOLD: Duration = Duration::from_millis(200);
/// Answers to checks are taken for so long.
const ANSWERS: Duration = Duration::from_secs(10);
/// Rounds of fan or scan in a generation: more than fit into its time, but for who makes them up.
const ROUNDS: u8 = 48;

/// A check that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) socket: SocketId,
    pub(crate) to: SocketAddr,
    pub(crate) transaction: u128,
    pub(crate) nominate: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The spray begins (or its part is to give up).
    Part(Part),
    /// So many sockets are wanted.
    Sockets(usize),
    /// This one has had its time.
    Spent(SocketId),
    /// The newest mapped port must be measured again, from a socket that made no flow yet.
    Measure,
    /// A socket is wanted of which nobody knows, and its mapped port.
    Fresh,
    /// It has sent, and the peer may know of it.
    Opened(SocketId),
    /// This pair is nominated and works both ways.
    Found { socket: SocketId, remote: SocketAddr, round_trip: Duration },
    /// Nothing was found within the limits.
    GaveUp(Part),
}

/// What became of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// No request of ours is outstanding for it.
    Unknown,
    /// It answers this request.
    Taken,
}

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    socket: SocketId,
    to: SocketAddr,
    at: Duration,
    nominate: bool,
}

#[derive(Debug)]
enum Spray {
    Sweep(Sweep),
    Shots(Shots),
    Fan(Fan),
    Scan(Scan),
    Sockets(Sockets),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Finder {
    controlling: bool,
    pub(crate) list: Checklist,
    bases: Vec<Base>,
    remotes: Vec<Candidate>,
    our_public: Vec<SocketAddr>,
    pub(crate) pace: Pace,
    reach: Reach,
    outstanding: HashMap<u128, Outstanding, RandomState>,
    order: VecDeque<(Duration, u128)>,
    nats: Option<(NatBehaviour, NatBehaviour)>,
    nats_since: Option<Duration>,
    /// The peer's first candidates.
    since: Option<Duration>,
    part: Option<Part>,
    spray: Option<Spray>,
    spray_from: SocketId,
    spray_starts: Duration,
    spray_ends: Option<Duration>,
    /// Whom the spray goes to, and since when: it counts for that address.
    sprayed: Option<(IpAddr, Duration)>,
    round_ends: Option<Duration>,
    flows_at_measure: u64,
    /// The last round of fan or scan that was begun, and whether the port for another is being measured.
    round: Option<u16>,
    rounds: u8,
    is_measuring: bool,
    reopen: Reopen,
    most_sockets: usize,
    works_since: Option<Duration>,
    nominating: Option<(SocketId, SocketAddr)>,
    found: bool,
    gave_up: bool,
    probes: u64,
    findings: VecDeque<Finding>,
}

impl Finder {
    /// `first`: the socket, at its address, that sprays.
    pub(crate) fn new(
        controlling: bool,
        first: Option<(SocketId, SocketAddr)>,
        pace: Pace,
        most_sockets: usize,
        random: &mut Random,
    ) -> Self {
        let state = RandomState::with_seeds(random.word(), random.word(), random.word(), random.word());
        Self {
            controlling,
            list: Checklist::default(),
            spray_from: first.map_or(SocketId(0), |(socket, _)| socket),
            bases: first.map(|(socket, local)| base_of(socket, local, TRANSMISSIONS)).into_iter().collect(),
            remotes: Vec::new(),
            our_public: Vec::new(),
            pace,
            reach: Reach::default(),
            outstanding: HashMap::with_hasher(state),
            order: VecDeque::new(),
            nats: None,
            nats_since: None,
            since: None,
            part: None,
            spray: None,
            spray_starts: Duration::MAX,
            spray_ends: None,
            sprayed: None,
            round_ends: None,
            flows_at_measure: 0,
            round: None,
            rounds: 0,
            is_measuring: false,
            reopen: Reopen::default(),
            most_sockets,
            works_since: None,
            nominating: None,
            found: false,
            gave_up: false,
            probes: 0,
            findings: VecDeque::new(),
        }
    }

    /// For another generation of the call. What addresses have cost, and the pace, go on.
    pub(crate) fn renewed(
        &mut self,
        controlling: bool,
        first: Option<(SocketId, SocketAddr)>,
        random: &mut Random,
        now: Duration,
    ) -> Self {
        self.count_spray(now);
        let mut renewed = Self::new(controlling, first, self.pace.renewed(), self.most_sockets, random);
        renewed.reach = std::mem::take(&mut self.reach);
        renewed
    }

    /// This end begins anew for reasons that are not the peer's: addresses count from the start.
    pub(crate) fn forget_reach(&mut self) {
        self.reach = Reach::default();
        self.sprayed = None;
    }

    /// Another network, of which nobody has said that it bears haste.
    pub(crate) fn move_elsewhere(&mut self, now: Duration) {
        self.forget_reach();
        self.pace.slow_host_down(Temper::Normal, now);
    }

    /// One more socket that may carry the path.
    pub(crate) fn base(&mut self, socket: SocketId, local: SocketAddr) {
        self.bases.push(base_of(socket, local, TRANSMISSIONS));
        self.pair_all();
    }

    pub(crate) fn set_controlling(&mut self, controlling: bool) {
        self.controlling = controlling;
    }

    pub(crate) fn probes(&self) -> u64 {
        self.probes
    }

    pub(crate) fn is_spraying(&self) -> bool {
        self.spray.is_some() && !self.found
    }

    /// How the peer sees us: it tells a trombone.
    pub(crate) fn seen_as(&mut self, address: SocketAddr) {
        if !self.our_public.contains(&address) {
            self.our_public.push(address);
            self.pair_all();
        }
    }

    /// Candidates of the peer; those known already change nothing, and more than [`CANDIDATES`] are not taken.
    pub(crate) fn remotes(&mut self, candidates: &[Candidate]) {
        let before = self.remotes.len();
        for candidate in candidates {
            let is_it =
                |known: &Candidate| (known.address, known.kind) == (candidate.address, candidate.kind);
            if self.remotes.len() < CANDIDATES && !self.remotes.iter().any(is_it) {
                self.remotes.push(candidate.clone());
            }
        }
        if self.remotes.len() > before {
            self.pair_all();
        }
    }

    pub(crate) fn known_remotes(&self) -> &[Candidate] {
        &self.remotes
    }

    fn pair_all(&mut self) {
        let trombone = self.remotes.iter().any(|remote| {
            remote.kind == CandidateKind::ServerReflexive
                && self.our_public.iter().any(|ours| ours.ip() == remote.address.ip())
        });
        for base in &self.bases {
            // A socket of which nobody knew goes where a NAT may have moved a port: to public addresses.
            let is_fresh = base.transmissions < TRANSMISSIONS;
            for remote in self.remotes.iter().filter(|remote| !is_fresh || !is_private(remote.address.ip())) {
                self.list.pair(base, remote, trombone);
            }
        }
    }

    /// Both NATs are known, or known anew, ours and theirs, by family. Checks go on in both; one is sprayed, the one that promises more: both
    /// ends judge by the same lines, so that they come to the same one, at the latest when both know all.
    pub(crate) fn nats(&mut self, known: impl Iterator<Item = (NatBehaviour, NatBehaviour)>, now: Duration) {
        let promise = |(mine, theirs): &(NatBehaviour, NatBehaviour)| {
            (Part::of(mine, theirs, self.controlling).promise(), !mine.ipv6)
        };
        let Some((mine, theirs)) = known.max_by_key(promise) else { return };
        if self.nats.is_some_and(|(before, _)| before.ipv6 != mine.ipv6) {
            self.turn_away(now);
        }
        self.nats = Some((mine, theirs));
        self.spray_from = match self.part {
            None => self.base_of_family(mine.ipv6),
            Some(_) => self.spray_from,
        };
        let since = *self.nats_since.get_or_insert(now);
        if self.part.is_none() {
            self.spray_starts = since.saturating_add(self.pace.tempo().head_start);
        }
    }

    /// The other family is sprayed from now on, if one is.
    fn turn_away(&mut self, now: Duration) {
        if self.gave_up || self.found {
            return;
        }
        self.count_spray(now);
        self.list.release();
        (self.part, self.spray, self.spray_ends) = (None, None, None);
        (self.round, self.round_ends, self.is_measuring) = (None, None, false);
        self.reopen = Reopen::default();
    }

    fn base_of_family(&self, ipv6: bool) -> SocketId {
        let base = self.bases.iter().find(|base| base.local.is_ipv6() == ipv6).or(self.bases.first());
        base.map_or(self.spray_from, |base| base.socket)
    }

    /// A socket on the address that the spray leaves from.
    pub(crate) fn sprays_from(&self) -> SocketId {
        self.base_of_family(self.nats.is_some_and(|(mine, _)| mine.ipv6))
    }

    /// The newest port was measured: flows from now on count.
    pub(crate) fn measured(&mut self) {
        self.flows_at_measure = self.pace.made();
        self.is_measuring = false;
    }

    /// The round that a port is measured for: the next, or the one that the peer is ahead at.
    pub(crate) fn next_round(&self) -> u16 {
        let next = self.round.map_or(0, |round| round.saturating_add(1));
        next.max(self.nats.map_or(0, |(_, theirs)| theirs.round))
    }

    fn measure(&mut self) {
        if !self.is_measuring && self.rounds < ROUNDS {
            self.is_measuring = true;
            self.rounds.up();
            self.findings.push_back(Finding::Measure);
        }
    }

    /// Sockets that were asked for.
    pub(crate) fn socket(&mut self, socket: SocketId) {
        match &mut self.spray {
            Some(Spray::Sockets(sockets)) => sockets.opened(socket),
            _ => self.spray_from = socket,
        }
    }

    /// No more can be had.
    pub(crate) fn socket_refused(&mut self) {
        if let Some(Spray::Sockets(sockets)) = &mut self.spray {
            sockets.refused();
        }
    }

    /// The socket that [`Finding::Fresh`] asked for, at a port that is known by now.
    pub(crate) fn fresh(&mut self, socket: SocketId, local: SocketAddr) {
        let Some((_, theirs)) = self.nats.filter(|_| self.target().is_some()) else { return };
        if self.part == Some(Part::Sweep) {
            self.spray_from = socket;
            self.spray = Some(Spray::Sweep(Sweep::new(theirs.last, step(&theirs))));
        } else {
            self.bases.push(base_of(socket, local, 1));
            self.pair_all();
        }
        self.reopen.opened(socket);
    }

    /// The address that the spray goes to, and the one that the peer's flow must come from. A public peer has no other than
    /// its host candidate.
    fn target(&self) -> Option<SocketAddr> {
        let ipv6 = self.nats.is_some_and(|(mine, _)| mine.ipv6);
        let public = self.remotes.iter().filter(|remote| {
            remote.address.is_ipv6() == ipv6
                && (remote.kind == CandidateKind::ServerReflexive || !is_private(remote.address.ip()))
        });
        let best =
            public.max_by_key(|remote| (remote.kind == CandidateKind::ServerReflexive, remote.priority));
        best.map(|remote| remote.address)
    }

    fn local_of(&self, socket: SocketId) -> IpAddr {
        let base = self.bases.iter().find(|base| base.socket == socket).or(self.bases.first());
        base.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |base| base.local.ip())
    }

    /// An authenticated request of the peer was answered.
    pub(crate) fn asked(&mut self, socket: SocketId, from: SocketAddr, nominates: bool, now: Duration) {
        let local = self.local_of(socket);
        let controlling = self.controlling;
        let Some(pair) = self.list.reflexive(socket, local, from) else { return };
        pair.asked = true;
        pair.nominated |= nominates && !controlling;
        let answered = pair.answered;
        if !answered && !self.found {
            self.list.trigger(socket, from);
        }
        self.progress(now);
    }

    /// An authenticated success response.
    pub(crate) fn answered(
        &mut self,
        transaction: u128,
        socket: SocketId,
        from: SocketAddr,
        now: Duration,
    ) -> Answer {
        // RFC 8445 §7.2.5.2.1: from where it was asked, to where it was asked from.
        let Some(request) = self.outstanding.get(&transaction).copied() else {
            return Answer::Unknown;
        };
        if request.socket != socket || request.to != from {
            return Answer::Unknown;
        }
        self.outstanding.remove(&transaction);
        let local = self.local_of(socket);
        // An answer to an earlier check must not end the repetition of the nominating one.
        let open = self.nominating == Some((socket, from)) && !request.nominate;
        let Some(pair) = self.list.reflexive(socket, local, from) else { return Answer::Unknown };
        pair.answered = true;
        if !open {
            pair.state = State::Succeeded;
        }
        pair.round_trip = Some(now.saturating_sub(request.at));
        self.reach.answered(from);
        let Some(pair) = self.list.get_mut(socket, from) else { return Answer::Unknown };
        if request.nominate {
            pair.nominated = true;
        }
        self.progress(now);
        Answer::Taken
    }

    /// Whether a response may come for it.
    pub(crate) fn is_outstanding(&self, transaction: u128) -> bool {
        self.outstanding.contains_key(&transaction)
    }

    /// The role was wrong (487): the check is repeated in the other one.
    pub(crate) fn conflict(&mut self, transaction: u128, controlling: bool) {
        self.controlling = controlling;
        if let Some(request) = self.outstanding.remove(&transaction) {
            self.list.trigger(request.socket, request.to);
        }
    }

    fn progress(&mut self, now: Duration) {
        if self.found {
            return;
        }
        if let Some(pair) = self.list.pairs().iter().find(|pair| pair.nominated && pair.works()) {
            self.found = true;
            self.spray = None;
            let finding = Finding::Found {
                socket: pair.socket,
                remote: pair.remote,
                round_trip: pair.round_trip.unwrap_or_default(),
            };
            self.findings.push_back(finding);
            return;
        }
        if self.list.best().is_none() {
            self.works_since = None;
        }
        if let Some((best, pending)) = self.list.best() {
            let since = *self.works_since.get_or_insert(now);
            let chosen = (best.socket, best.remote);
            // One nomination stands until its check has failed (RFC 8445 §8.1.1): a spray may open several pairs at once, and the
            // peer has settled for the first that was nominated.
            if self.controlling
                && self.nominating.is_none()
                && (!pending || now >= since.saturating_add(NOMINATION_WAIT))
            {
                self.nominating = Some(chosen);
                self.list.trigger(chosen.0, chosen.1);
            }
        }
    }

    /// The next check, as far as pace allows.
    pub(crate) fn poll(&mut self, random: &mut Random, now: Duration) -> Option<Send> {
        if self.found {
            return None;
        }
        if !self.remotes.is_empty() {
            self.since.get_or_insert(now);
        }
        self.progress(now);
        self.purge(now);
        self.start_spray(now);
        if !self.gave_up && self.list.best().is_none() && self.reopen.is_due(now) {
            self.findings.push_back(Finding::Fresh);
        }
        self.renominate();
        if self.spray_ends.is_some_and(|ends| now >= ends) && !self.gave_up && self.list.best().is_none() {
            self.give_up(now);
        }
        let leave = Leave {
            new: self.pace.ready(Flow::New) <= now,
            proven: self.pace.ready(Flow::Proven) <= now,
            left_over: self.reopen.left(),
        };
        if let Some((socket, to)) = self.list.due(now, leave, &self.reach) {
            let send = self.send(socket, to, random, now)?;
            if let Some(cause) = self.list.sent(socket, to, now) {
                self.reach.sent(to, cause);
            }
            if send.nominate && self.list.get(socket, to).is_some_and(|pair| pair.state == State::Succeeded) {
                // A nominating check must be repeated until it is answered.
                if let Some(pair) = self.list.get_mut(socket, to) {
                    pair.state = State::InProgress { sent: 1, next: now.saturating_add(HOLD) };
                }
            }
            return Some(send);
        }
        if !leave.new {
            return None;
        }
        self.spray(random, now)
    }

    /// A nomination that nobody answered: the pair no longer works.
    fn renominate(&mut self) {
        if let Some((socket, remote)) = self.nominating
            && let Some(pair) = self.list.get_mut(socket, remote)
            && pair.state == State::Failed
        {
            pair.answered = false;
            self.nominating = None;
        }
    }

    fn purge(&mut self, now: Duration) {
        while let Some((_, transaction)) =
            self.order.pop_front_if(|(at, _)| at.saturating_add(ANSWERS) <= now)
        {
            self.outstanding.remove(&transaction);
        }
    }

    fn send(&mut self, socket: SocketId, to: SocketAddr, random: &mut Random, now: Duration) -> Option<Send> {
        let flow = self.list.get(socket, to).map_or(Flow::New, Pair::flow);
        if !self.pace.take(flow, now) {
            return None;
        }
        let transaction = random.transaction();
        let nominate = self.controlling && self.nominating == Some((socket, to));
        self.outstanding.insert(transaction, Outstanding { socket, to, at: now, nominate });
        self.order.push_back((now, transaction));
        self.probes.up();
        if self.target().is_some_and(|target| target.ip() == to.ip()) && self.reopen.sent(socket) {
            self.findings.push_back(Finding::Opened(socket));
        }
        Some(Send { socket, to, transaction, nominate })
    }

    pub(crate) fn finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// When [`Finder::poll`] may have something.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if self.found {
            return None;
        }
        // What waits, waits for its time and for leave.
        let (new, proven) = (self.pace.ready(Flow::New), self.pace.ready(Flow::Proven));
        let due = self.list.timeout(new, proven);
        let spray = self.spray.as_ref().and_then(|spray| {
            let idle = matches!(spray, Spray::Sockets(sockets) if sockets.is_idle());
            (!idle && self.round_ends.is_none() && self.list.best().is_none() && self.target().is_some())
                .then(|| new.max(self.spray_starts))
        });
        let nomination = (self.controlling && self.nominating.is_none())
            .then(|| self.works_since.map(|since| since.saturating_add(NOMINATION_WAIT)))
            .flatten();
        let waits = self.part.is_none() && self.nats.is_some() && !self.gave_up && self.list.best().is_none();
        let starts = waits.then_some(self.spray_starts);
        let reopens = self.reopen.next().filter(|_| !self.gave_up && self.list.best().is_none());
        let ends = self.spray_ends.filter(|_| !self.gave_up && self.list.best().is_none());
        let measured = self.round_ends.map(|at| at.max(new));
        [due, spray, nomination, starts, reopens, ends, measured].into_iter().flatten().min()
    }
}

fn base_of(socket: SocketId, local: SocketAddr, transmissions: u8) -> Base {
    Base { socket, local, priority: priority(HOST, u16::MAX), transmissions }
}
