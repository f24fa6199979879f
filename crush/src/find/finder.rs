//! One generation's search: checks, spray, nomination. It says what is to be sent and is told what came; bytes and
//! credentials are the agent's.

mod spray;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_wire::sdp::crush::{CANDIDATES, Candidate, CandidateKind, HOST, NatBehaviour, Temper, priority};

use super::checklist::{Base, Checklist, Leave};
use super::diagonal::{Fan, Scan};
use super::pace::{Flow, Pace};
use super::pair::{Pair, State, TRANSMISSIONS, is_private};
use super::plan::Part;
use super::reach::Reach;
use super::reopen::Reopen;
use super::requests::{Check, Request, Requests};
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
/// Rounds of fan or scan in a generation: more than fit into its time, but for who makes them up.
const ROUNDS: u8 = 48;

/// A check that is to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) socket: SocketId,
    pub(crate) to: SocketAddr,
    pub(crate) transaction: u128,
    pub(crate) check: Check,
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

#[derive(Debug)]
enum Spray {
    Sweep(Sweep),
    Shots(Shots),
    Fan(Fan),
    Scan(Scan),
    Sockets(Sockets),
}

/// What is paired: sockets of ours, candidates of the peer, and how the peer sees us.
#[derive(Debug, Default)]
struct Ends {
    bases: Vec<Base>,
    remotes: Vec<Candidate>,
    our_public: Vec<SocketAddr>,
}

/// What goes beyond checks (docs/crush.md §5.2).
#[derive(Debug)]
struct Spraying {
    part: Option<Part>,
    spray: Option<Spray>,
    from: SocketId,
    starts: Duration,
    ends: Option<Duration>,
    /// Whom the spray goes to, and since when: it counts for that address.
    target: Option<(IpAddr, Duration)>,
    reopen: Reopen,
    most_sockets: usize,
}

/// Rounds of fan or scan: each needs ports that were measured for it.
#[derive(Debug, Default)]
struct Rounds {
    /// The last one that was begun.
    current: Option<u16>,
    ends: Option<Duration>,
    begun: u8,
    flows_at_measure: u64,
    /// The port for another is being measured.
    is_measuring: bool,
}

/// RFC 8445 §8.1.1.
#[derive(Debug, Default)]
struct Nomination {
    works_since: Option<Duration>,
    pair: Option<(SocketId, SocketAddr)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Searching,
    Found,
    /// What the peer asks for is still answered, and may be found.
    GaveUp,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Finder {
    is_controlling: bool,
    pub(crate) list: Checklist,
    ends: Ends,
    pub(crate) pace: Pace,
    reach: Reach,
    requests: Requests,
    nats: Option<(NatBehaviour, NatBehaviour)>,
    nats_since: Option<Duration>,
    /// The peer's first candidates.
    since: Option<Duration>,
    spraying: Spraying,
    rounds: Rounds,
    nomination: Nomination,
    stage: Stage,
    findings: VecDeque<Finding>,
}

impl Finder {
    /// `first`: the socket, at its address, that sprays.
    pub(crate) fn new(
        is_controlling: bool,
        first: Option<(SocketId, SocketAddr)>,
        pace: Pace,
        most_sockets: usize,
        random: &mut Random,
    ) -> Self {
        let bases = first.map(|(socket, local)| base_of(socket, local, TRANSMISSIONS)).into_iter().collect();
        Self {
            is_controlling,
            list: Checklist::default(),
            ends: Ends { bases, ..Ends::default() },
            pace,
            reach: Reach::default(),
            requests: Requests::new(random),
            nats: None,
            nats_since: None,
            since: None,
            spraying: Spraying {
                part: None,
                spray: None,
                from: first.map_or(SocketId(0), |(socket, _)| socket),
                starts: Duration::MAX,
                ends: None,
                target: None,
                reopen: Reopen::default(),
                most_sockets,
            },
            rounds: Rounds::default(),
            nomination: Nomination::default(),
            stage: Stage::Searching,
            findings: VecDeque::new(),
        }
    }

    /// For another generation of the call. What addresses have cost, and the pace, go on.
    pub(crate) fn renewed(
        &mut self,
        is_controlling: bool,
        first: Option<(SocketId, SocketAddr)>,
        random: &mut Random,
        now: Duration,
    ) -> Self {
        self.count_spray(now);
        let mut renewed =
            Self::new(is_controlling, first, self.pace.renewed(), self.spraying.most_sockets, random);
        renewed.reach = std::mem::take(&mut self.reach);
        renewed
    }

    /// This end begins anew for reasons that are not the peer's: addresses count from the start.
    pub(crate) fn forget_reach(&mut self) {
        self.reach = Reach::default();
        self.spraying.target = None;
    }

    /// Another network, of which nobody has said that it bears haste.
    pub(crate) fn move_elsewhere(&mut self, now: Duration) {
        self.forget_reach();
        self.pace.slow_host_down(Temper::Normal, now);
    }

    /// One more socket that may carry the path.
    pub(crate) fn base(&mut self, socket: SocketId, local: SocketAddr) {
        self.ends.bases.push(base_of(socket, local, TRANSMISSIONS));
        self.pair_all();
    }

    pub(crate) fn set_controlling(&mut self, is_controlling: bool) {
        self.is_controlling = is_controlling;
    }

    pub(crate) fn probes(&self) -> u64 {
        self.requests.made()
    }

    pub(crate) fn is_spraying(&self) -> bool {
        self.spraying.spray.is_some() && self.stage != Stage::Found
    }

    /// How the peer sees us: it tells a trombone.
    pub(crate) fn seen_as(&mut self, address: SocketAddr) {
        if !self.ends.our_public.contains(&address) {
            self.ends.our_public.push(address);
            self.pair_all();
        }
    }

    /// Candidates of the peer; those known already change nothing, and more than [`CANDIDATES`] are not taken.
    pub(crate) fn remotes(&mut self, candidates: &[Candidate]) {
        let before = self.ends.remotes.len();
        for candidate in candidates {
            let is_it =
                |known: &Candidate| (known.address, known.kind) == (candidate.address, candidate.kind);
            if self.ends.remotes.len() < CANDIDATES && !self.ends.remotes.iter().any(is_it) {
                self.ends.remotes.push(candidate.clone());
            }
        }
        if self.ends.remotes.len() > before {
            self.pair_all();
        }
    }

    pub(crate) fn known_remotes(&self) -> &[Candidate] {
        &self.ends.remotes
    }

    fn pair_all(&mut self) {
        let trombone = self.ends.remotes.iter().any(|remote| {
            remote.kind == CandidateKind::ServerReflexive
                && self.ends.our_public.iter().any(|ours| ours.ip() == remote.address.ip())
        });
        for base in &self.ends.bases {
            // A socket of which nobody knew goes where a NAT may have moved a port: to public addresses.
            let is_fresh = base.transmissions < TRANSMISSIONS;
            for remote in
                self.ends.remotes.iter().filter(|remote| !is_fresh || !is_private(remote.address.ip()))
            {
                self.list.pair(base, remote, trombone);
            }
        }
    }

    /// Both NATs are known, or known anew, ours and theirs, by family. Checks go on in both; one is sprayed, the one that promises more: both
    /// ends judge by the same lines, so that they come to the same one, at the latest when both know all.
    pub(crate) fn nats(&mut self, known: impl Iterator<Item = (NatBehaviour, NatBehaviour)>, now: Duration) {
        let promise = |(mine, theirs): &(NatBehaviour, NatBehaviour)| {
            (Part::of(mine, theirs, self.is_controlling).promise(), !mine.ipv6)
        };
        let Some((mine, theirs)) = known.max_by_key(promise) else { return };
        if self.nats.is_some_and(|(before, _)| before.ipv6 != mine.ipv6) {
            self.turn_away(now);
        }
        self.nats = Some((mine, theirs));
        self.spraying.from = match self.spraying.part {
            None => self.base_of_family(mine.ipv6),
            Some(_) => self.spraying.from,
        };
        let since = *self.nats_since.get_or_insert(now);
        if self.spraying.part.is_none() {
            self.spraying.starts = since.saturating_add(self.pace.tempo().head_start);
        }
    }

    /// The other family is sprayed from now on, if one is.
    fn turn_away(&mut self, now: Duration) {
        if self.stage != Stage::Searching {
            return;
        }
        self.count_spray(now);
        self.list.release();
        (self.spraying.part, self.spraying.spray, self.spraying.ends) = (None, None, None);
        (self.rounds.current, self.rounds.ends, self.rounds.is_measuring) = (None, None, false);
        self.spraying.reopen = Reopen::default();
    }

    fn base_of_family(&self, ipv6: bool) -> SocketId {
        let base =
            self.ends.bases.iter().find(|base| base.local.is_ipv6() == ipv6).or(self.ends.bases.first());
        base.map_or(self.spraying.from, |base| base.socket)
    }

    /// A socket on the address that the spray leaves from.
    pub(crate) fn sprays_from(&self) -> SocketId {
        self.base_of_family(self.nats.is_some_and(|(mine, _)| mine.ipv6))
    }

    /// The newest port was measured: flows from now on count.
    pub(crate) fn measured(&mut self) {
        self.rounds.flows_at_measure = self.pace.made();
        self.rounds.is_measuring = false;
    }

    /// The round that a port is measured for: the next, or the one that the peer is ahead at.
    pub(crate) fn next_round(&self) -> u16 {
        let next = self.rounds.current.map_or(0, |round| round.saturating_add(1));
        next.max(self.nats.map_or(0, |(_, theirs)| theirs.round))
    }

    fn measure(&mut self) {
        if !self.rounds.is_measuring && self.rounds.begun < ROUNDS {
            self.rounds.is_measuring = true;
            self.rounds.begun.up();
            self.findings.push_back(Finding::Measure);
        }
    }

    /// Sockets that were asked for.
    pub(crate) fn socket(&mut self, socket: SocketId) {
        match &mut self.spraying.spray {
            Some(Spray::Sockets(sockets)) => sockets.opened(socket),
            _ => self.spraying.from = socket,
        }
    }

    /// No more can be had.
    pub(crate) fn socket_refused(&mut self) {
        if let Some(Spray::Sockets(sockets)) = &mut self.spraying.spray {
            sockets.refused();
        }
    }

    /// The socket that [`Finding::Fresh`] asked for, at a port that is known by now.
    pub(crate) fn fresh(&mut self, socket: SocketId, local: SocketAddr) {
        let Some((_, theirs)) = self.nats.filter(|_| self.target().is_some()) else { return };
        if self.spraying.part == Some(Part::Sweep) {
            self.spraying.from = socket;
            self.spraying.spray = Some(Spray::Sweep(Sweep::new(theirs.last, theirs.step())));
        } else {
            self.ends.bases.push(base_of(socket, local, 1));
            self.pair_all();
        }
        self.spraying.reopen.opened(socket);
    }

    /// The address that the spray goes to, and the one that the peer's flow must come from. A public peer has no other than
    /// its host candidate.
    fn target(&self) -> Option<SocketAddr> {
        let ipv6 = self.nats.is_some_and(|(mine, _)| mine.ipv6);
        let public = self.ends.remotes.iter().filter(|remote| {
            remote.address.is_ipv6() == ipv6
                && (remote.kind == CandidateKind::ServerReflexive || !is_private(remote.address.ip()))
        });
        let best =
            public.max_by_key(|remote| (remote.kind == CandidateKind::ServerReflexive, remote.priority));
        best.map(|remote| remote.address)
    }

    fn local_of(&self, socket: SocketId) -> IpAddr {
        let base = self.ends.bases.iter().find(|base| base.socket == socket).or(self.ends.bases.first());
        base.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |base| base.local.ip())
    }

    /// An authenticated request of the peer was answered.
    pub(crate) fn asked(&mut self, socket: SocketId, from: SocketAddr, nominates: bool, now: Duration) {
        let local = self.local_of(socket);
        let is_controlling = self.is_controlling;
        let Some(pair) = self.list.reflexive(socket, local, from) else { return };
        pair.asked = true;
        pair.nominated |= nominates && !is_controlling;
        let answered = pair.answered;
        if !answered && self.stage != Stage::Found {
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
        let Some(request) = self.requests.answered(transaction, socket, from) else { return Answer::Unknown };
        let local = self.local_of(socket);
        // An answer to an earlier check must not end the repetition of the nominating one.
        let open = self.nomination.pair == Some((socket, from)) && request.check == Check::Plain;
        let Some(pair) = self.list.reflexive(socket, local, from) else { return Answer::Unknown };
        pair.answered = true;
        if !open {
            pair.state = State::Succeeded;
        }
        pair.round_trip = Some(now.saturating_sub(request.at));
        self.reach.answered(from);
        let Some(pair) = self.list.get_mut(socket, from) else { return Answer::Unknown };
        if request.check == Check::Nominating {
            pair.nominated = true;
        }
        self.progress(now);
        Answer::Taken
    }

    /// Whether a response may come for it.
    pub(crate) fn is_outstanding(&self, transaction: u128) -> bool {
        self.requests.is_open(transaction)
    }

    /// The role was wrong (487): the check is repeated in the other one.
    pub(crate) fn conflict(&mut self, transaction: u128, is_controlling: bool) {
        self.is_controlling = is_controlling;
        if let Some(request) = self.requests.take(transaction) {
            self.list.trigger(request.socket, request.to);
        }
    }

    fn progress(&mut self, now: Duration) {
        if self.stage == Stage::Found {
            return;
        }
        if let Some(pair) = self.list.pairs().iter().find(|pair| pair.nominated && pair.works()) {
            self.stage = Stage::Found;
            self.spraying.spray = None;
            let finding = Finding::Found {
                socket: pair.socket,
                remote: pair.remote,
                round_trip: pair.round_trip.unwrap_or_default(),
            };
            self.findings.push_back(finding);
            return;
        }
        if self.list.best().is_none() {
            self.nomination.works_since = None;
        }
        if let Some((best, pending)) = self.list.best() {
            let since = *self.nomination.works_since.get_or_insert(now);
            let chosen = (best.socket, best.remote);
            // One nomination stands until its check has failed (RFC 8445 §8.1.1): a spray may open several pairs at once, and the
            // peer has settled for the first that was nominated.
            if self.is_controlling
                && self.nomination.pair.is_none()
                && (!pending || now >= since.saturating_add(NOMINATION_WAIT))
            {
                self.nomination.pair = Some(chosen);
                self.list.trigger(chosen.0, chosen.1);
            }
        }
    }

    /// The next check, as far as pace allows.
    pub(crate) fn poll(&mut self, random: &mut Random, now: Duration) -> Option<Send> {
        if self.stage == Stage::Found {
            return None;
        }
        if !self.ends.remotes.is_empty() {
            self.since.get_or_insert(now);
        }
        self.progress(now);
        self.requests.purge(now);
        self.start_spray(now);
        if self.stage != Stage::GaveUp && self.list.best().is_none() && self.spraying.reopen.is_due(now) {
            self.findings.push_back(Finding::Fresh);
        }
        self.renominate();
        if self.spraying.ends.is_some_and(|ends| now >= ends)
            && self.stage != Stage::GaveUp
            && self.list.best().is_none()
        {
            self.give_up(now);
        }
        let leave = Leave {
            new: self.pace.ready(Flow::New) <= now,
            proven: self.pace.ready(Flow::Proven) <= now,
            left_over: self.spraying.reopen.left(),
        };
        if let Some((socket, to)) = self.list.due(now, leave, &self.reach) {
            let send = self.send(socket, to, random, now)?;
            if let Some(cause) = self.list.sent(socket, to, now) {
                self.reach.sent(to, cause);
            }
            if send.check == Check::Nominating
                && self.list.get(socket, to).is_some_and(|pair| pair.state == State::Succeeded)
            {
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
        if let Some((socket, remote)) = self.nomination.pair
            && let Some(pair) = self.list.get_mut(socket, remote)
            && pair.state == State::Failed
        {
            pair.answered = false;
            self.nomination.pair = None;
        }
    }

    fn send(&mut self, socket: SocketId, to: SocketAddr, random: &mut Random, now: Duration) -> Option<Send> {
        let flow = self.list.get(socket, to).map_or(Flow::New, Pair::flow);
        if !self.pace.take(flow, now) {
            return None;
        }
        let transaction = random.transaction();
        let is_chosen = self.is_controlling && self.nomination.pair == Some((socket, to));
        let check = if is_chosen { Check::Nominating } else { Check::Plain };
        self.requests.sent(transaction, Request { socket, to, at: now, check });
        if self.target().is_some_and(|target| target.ip() == to.ip()) && self.spraying.reopen.sent(socket) {
            self.findings.push_back(Finding::Opened(socket));
        }
        Some(Send { socket, to, transaction, check })
    }

    pub(crate) fn finding(&mut self) -> Option<Finding> {
        self.findings.pop_front()
    }

    /// When [`Finder::poll`] may have something.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        if self.stage == Stage::Found {
            return None;
        }
        // What waits, waits for its time and for leave.
        let (new, proven) = (self.pace.ready(Flow::New), self.pace.ready(Flow::Proven));
        let due = self.list.timeout(new, proven);
        let spray = self.spraying.spray.as_ref().and_then(|spray| {
            let idle = matches!(spray, Spray::Sockets(sockets) if sockets.is_idle());
            (!idle && self.rounds.ends.is_none() && self.list.best().is_none() && self.target().is_some())
                .then(|| new.max(self.spraying.starts))
        });
        let nomination = (self.is_controlling && self.nomination.pair.is_none())
            .then(|| self.nomination.works_since.map(|since| since.saturating_add(NOMINATION_WAIT)))
            .flatten();
        let waits = self.spraying.part.is_none()
            && self.nats.is_some()
            && self.stage != Stage::GaveUp
            && self.list.best().is_none();
        let starts = waits.then_some(self.spraying.starts);
        let reopens =
            self.spraying.reopen.next().filter(|_| self.stage != Stage::GaveUp && self.list.best().is_none());
        let ends = self.spraying.ends.filter(|_| self.stage != Stage::GaveUp && self.list.best().is_none());
        let measured = self.rounds.ends.map(|at| at.max(new));
        [due, spray, nomination, starts, reopens, ends, measured].into_iter().flatten().min()
    }
}

fn base_of(socket: SocketId, local: SocketAddr, transmissions: u8) -> Base {
    Base { socket, local, priority: priority(HOST, u16::MAX), transmissions }
}
