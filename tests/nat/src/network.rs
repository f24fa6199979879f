//! A network in virtual time: hosts and NATs with lines between them, and an event queue.
//!
//! Time stands still between events. Whoever drives it takes an event with [`Network::next`], hands it to the state
//! machine that the host stands for, and sends what that answers; timers come the same way, so that a whole call is one
//! loop. The same seed and the same calls give the same events.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;

use crate::behaviour::Behaviour;
use crate::impairment::{Impairment, Pipe};
use crate::nat::{Nat, Passage};
use crate::random::Random;
use crate::topology::{Host, HostId, Line, NatId, Node, Router, SegmentId, Topology};

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram arrives at a host.
    Datagram {
        /// The host.
        host: HostId,
        /// Whence, as the host sees it.
        source: SocketAddr,
        /// To which of its addresses.
        destination: SocketAddr,
        /// What.
        payload: Bytes,
    },
    /// A time has come that [`Network::set_timer`] named.
    Timer {
        /// The host.
        host: HostId,
        /// As set.
        token: u64,
    },
}

/// Both directions of the line between a host or NAT and the segment it is on, seen from the host or NAT.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// What it sends.
    pub up: Impairment,
    /// What it receives.
    pub down: Impairment,
}

impl Link {
    /// A perfect line.
    pub const PERFECT: Self = Self::both(Impairment::NONE);

    /// The same both ways.
    pub const fn both(impairment: Impairment) -> Self {
        Self { up: impairment, down: impairment }
    }
}

/// Whose line it is: a host's or a NAT's (towards its outside).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// A host's.
    Host(HostId),
    /// A NAT's.
    Nat(NatId),
}

impl From<HostId> for End {
    fn from(host: HostId) -> Self {
        End::Host(host)
    }
}

impl From<NatId> for End {
    fn from(nat: NatId) -> Self {
        End::Nat(nat)
    }
}

/// The host has no such address (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the host does not have the address {0}")]
pub struct Unreachable(pub IpAddr);

/// Datagrams that did not arrive, but for those that NATs dropped: see [`Nat::counters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// By the lines.
    pub impaired: u64,
    /// Nobody has the address.
    pub unroutable: u64,
    /// The path was cut.
    pub cut: u64,
}

/// A datagram under way.
#[derive(Debug, Clone)]
struct Datagram {
    source: SocketAddr,
    destination: SocketAddr,
    payload: Bytes,
}

/// Where a datagram is next.
#[derive(Debug, Clone, Copy)]
enum Place {
    Segment(SegmentId),
    /// Arriving from outside.
    Nat(NatId),
    Host(HostId),
}

#[derive(Debug)]
enum Step {
    Moves(Place, Datagram),
    Timer(HostId, u64),
}

/// A step in the queue; the earliest is the greatest, and of two at one time the one that was queued first.
#[derive(Debug)]
struct Queued {
    at: Duration,
    order: u64,
    step: Step,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

/// A network in virtual time.
#[derive(Debug)]
pub struct Network {
    now: Duration,
    random: Random,
    topology: Topology,
    queue: BinaryHeap<Queued>,
    order: u64,
    /// The share that is lost between two addresses.
    cuts: AHashMap<(IpAddr, IpAddr), f64>,
    lost: Lost,
}

impl Network {
    /// An empty network at time 0.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let hasher = crate::nat::hasher(&mut random);
        let cuts = AHashMap::with_hasher(hasher.clone());
        let topology = Topology::new(hasher);
        Self {
            now: Duration::ZERO,
            random,
            topology,
            queue: BinaryHeap::new(),
            order: 0,
            cuts,
            lost: Lost::default(),
        }
    }

    /// The time, which moves with [`next`](Self::next).
    pub fn now(&self) -> Duration {
        self.now
    }

    /// Adds a host with these addresses on a segment, on a perfect line.
    ///
    /// # Panics
    /// If an address is taken there.
    pub fn add_host(&mut self, segment: SegmentId, addresses: &[IpAddr]) -> HostId {
        let line = self.line();
        let host = HostId(self.topology.hosts.insert(Host { line, addresses: Vec::new() }));
        for address in addresses {
            self.topology.attach(host, segment, *address);
        }
        host
    }

    /// Adds a NAT whose outside is on a segment, on a perfect line. Its inside is [`NatId::inside`]: NATs nest.
    ///
    /// # Panics
    /// If an external address is taken there.
    pub fn add_nat(&mut self, outside: SegmentId, behaviour: Behaviour, externals: &[IpAddr]) -> NatId {
        let nat = Nat::new(behaviour, externals, self.random.word());
        let line = self.line();
        self.topology.add_router(Router { nat, line, outside })
    }

    /// Gives a host one more address, on the same or another segment.
    ///
    /// # Panics
    /// If it is taken there.
    pub fn attach(&mut self, host: HostId, segment: SegmentId, address: IpAddr) {
        self.topology.attach(host, segment, address);
    }

    /// Takes an address from a host: nothing arrives there any more, not even what is under way.
    pub fn detach(&mut self, host: HostId, address: IpAddr) {
        self.topology.detach(host, address);
    }

    /// A NAT, to look at or to [`rebind`](Nat::rebind). Other external addresses are given with [`readdress`](Self::readdress).
    ///
    /// # Panics
    /// If it is another network's.
    pub fn nat(&mut self, nat: NatId) -> &mut Nat {
        &mut self.topology.routers[nat.0].nat
    }

    /// Gives a NAT other external addresses; its mappings are gone.
    ///
    /// # Panics
    /// If an address is taken outside.
    pub fn readdress(&mut self, nat: NatId, externals: &[IpAddr]) {
        self.topology.readdress(nat, externals);
    }

    /// Sets what the line of a host or NAT does from now on.
    ///
    /// # Panics
    /// If the host or NAT is another network's.
    pub fn set_link(&mut self, end: impl Into<End>, link: Link) {
        let line = match end.into() {
            End::Host(host) => &mut self.topology.hosts[host.0].line,
            End::Nat(nat) => &mut self.topology.routers[nat.0].line,
        };
        line.up.set(link.up);
        line.down.set(link.down);
    }

    /// Lets nothing pass any more from one address to another, as they are on the segment where both are: between two
    /// homes, the external addresses of their NATs.
    pub fn cut(&mut self, from: IpAddr, to: IpAddr) {
        self.fade(from, to, 1.0);
    }

    /// Loses this share of what passes from one address to another, as [`cut`](Self::cut) does of all.
    pub fn fade(&mut self, from: IpAddr, to: IpAddr, share: f64) {
        self.cuts.insert((from, to), share);
    }

    /// Takes back [`cut`](Self::cut) and [`fade`](Self::fade).
    pub fn restore(&mut self, from: IpAddr, to: IpAddr) {
        self.cuts.remove(&(from, to));
    }

    /// Datagrams that were lost so far.
    pub fn lost(&self) -> Lost {
        self.lost
    }

    /// Sends a datagram from one of a host's addresses.
    pub fn send(
        &mut self,
        host: HostId,
        source: SocketAddr,
        destination: SocketAddr,
        payload: Bytes,
    ) -> Result<(), Unreachable> {
        let unreachable = Unreachable(source.ip());
        let known = self.topology.hosts.get_mut(host.0).ok_or(unreachable)?;
        let attached = known.addresses.iter().find(|(address, _)| *address == source.ip());
        let (_, segment) = *attached.ok_or(unreachable)?;
        let datagram = Datagram { source, destination, payload };
        let arrivals = known.line.up.pass(octets(&datagram), self.now);
        self.arrive(Place::Segment(segment), datagram, &arrivals);
        Ok(())
    }

    /// Wakes a host at a time; at once if that has passed.
    pub fn set_timer(&mut self, host: HostId, at: Duration, token: u64) {
        self.queue(at, Step::Timer(host, token));
    }

    /// The next event; time moves to it. `None` if nothing will ever happen.
    #[expect(
        clippy::should_implement_trait,
        reason = "what the caller does between two events changes the next"
    )]
    pub fn next(&mut self) -> Option<Event> {
        self.next_until(Duration::MAX)
    }

    /// The next event up to and including a time. If there is none, time moves to `limit` (unless that is
    /// [`Duration::MAX`]).
    pub fn next_until(&mut self, limit: Duration) -> Option<Event> {
        while self.queue.peek().is_some_and(|queued| queued.at <= limit) {
            let Some(Queued { at, step, .. }) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            match step {
                Step::Timer(host, token) => return Some(Event::Timer { host, token }),
                Step::Moves(place, datagram) => {
                    if let Some(event) = self.moves(place, datagram) {
                        return Some(event);
                    }
                }
            }
        }
        if limit < Duration::MAX {
            self.now = self.now.max(limit);
        }
        None
    }

    /// Moves a datagram by one line; returns it when it has arrived.
    fn moves(&mut self, place: Place, datagram: Datagram) -> Option<Event> {
        match place {
            Place::Segment(segment) => {
                self.crosses(segment, datagram);
                None
            }
            Place::Nat(nat) => {
                self.enters(nat, datagram);
                None
            }
            Place::Host(host) => {
                let Datagram { source, destination, payload } = datagram;
                let is_there =
                    |host: &Host| host.addresses.iter().any(|(address, _)| *address == destination.ip());
                if !self.topology.hosts.get(host.0).is_some_and(is_there) {
                    self.lost.unroutable += 1;
                    return None;
                }
                Some(Event::Datagram { host, source, destination, payload })
            }
        }
    }

    /// On a segment: to whoever has the address there, or through the gateway.
    fn crosses(&mut self, segment: SegmentId, datagram: Datagram) {
        let Datagram { source, destination, .. } = datagram;
        if !self.cuts.is_empty()
            && let Some(share) = self.cuts.get(&(source.ip(), destination.ip())).copied()
            && (share >= 1.0 || self.random.chance(share))
        {
            self.lost.cut += 1;
            return;
        }
        let Some(node) = self.topology.find(segment, destination.ip()) else {
            return self.leaves(segment, datagram);
        };
        let (line, place) = match node {
            Node::Host(host) => (&mut self.topology.hosts[host.0].line, Place::Host(host)),
            Node::Nat(nat) => (&mut self.topology.routers[nat.0].line, Place::Nat(nat)),
        };
        let arrivals = line.down.pass(octets(&datagram), self.now);
        self.arrive(place, datagram, &arrivals);
    }

    /// From a segment outwards, through its NAT.
    fn leaves(&mut self, segment: SegmentId, mut datagram: Datagram) {
        let Some((nat, _)) = self.topology.gateway(segment) else {
            self.lost.unroutable += 1;
            return;
        };
        let router = &mut self.topology.routers[nat.0];
        match router.nat.outbound(datagram.source, datagram.destination, self.now) {
            Ok(Passage::Out { source }) => {
                datagram.source = source;
                let arrivals = router.line.up.pass(octets(&datagram), self.now);
                let outside = router.outside;
                self.arrive(Place::Segment(outside), datagram, &arrivals);
            }
            Ok(Passage::Hairpin { source, destination }) => {
                let datagram = Datagram { source, destination, ..datagram };
                self.arrive(Place::Segment(segment), datagram, &[self.now]);
            }
            Err(_) => {}
        }
    }

    /// From outside into a NAT.
    fn enters(&mut self, nat: NatId, mut datagram: Datagram) {
        let router = &mut self.topology.routers[nat.0];
        if let Ok(internal) = router.nat.inbound(datagram.source, datagram.destination, self.now) {
            datagram.destination = internal;
            // Not `crosses`: what came in does not go out again, or two firewalls could pass it between them for ever.
            match self.topology.find(nat.inside(), internal.ip()) {
                Some(_) => self.arrive(Place::Segment(nat.inside()), datagram, &[self.now]),
                None => self.lost.unroutable += 1,
            }
        }
    }

    fn arrive(&mut self, place: Place, datagram: Datagram, arrivals: &[Duration]) {
        match arrivals {
            [] => self.lost.impaired += 1,
            [once] => self.queue(*once, Step::Moves(place, datagram)),
            several => {
                for at in several {
                    self.queue(*at, Step::Moves(place, datagram.clone()));
                }
            }
        }
    }

    fn queue(&mut self, at: Duration, step: Step) {
        self.order += 1;
        self.queue.push(Queued { at: at.max(self.now), order: self.order, step });
    }

    fn line(&mut self) -> Line {
        let mut pipe = || Pipe::new(Impairment::NONE, self.random.fork());
        Line { up: pipe(), down: pipe() }
    }
}

/// The size of a datagram with its headers.
fn octets(datagram: &Datagram) -> usize {
    let headers = if datagram.destination.is_ipv4() { 28 } else { 48 };
    datagram.payload.len() + headers
}
