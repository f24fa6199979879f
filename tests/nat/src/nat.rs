//! The NAT: what becomes of a datagram from inside, and of one from outside.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::{AHashMap, AHashSet, RandomState};

use crate::allocation::Allocator;
use crate::behaviour::{Behaviour, Dependence, Lifetime, Pooling};
use crate::counters::{Counters, Dropped};
use crate::limiter::Limiter;
use crate::random::Random;
use crate::table::{Binding, Mapping, Table};

/// What is remembered is searched for what has expired whenever it has grown to twice what was left, but not below this.
const SWEEP_AT_LEAST: usize = 256;

/// Where a datagram from inside goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passage {
    /// Out, from this external address.
    Out {
        /// Replaces the internal source.
        source: SocketAddr,
    },
    /// Back in: it was sent to an external address of this NAT.
    Hairpin {
        /// The sender's external address (RFC 4787 REQ-9a).
        source: SocketAddr,
        /// The receiver's internal one.
        destination: SocketAddr,
    },
}

/// A way through a NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From inside.
    Outbound,
    /// From outside.
    Inbound,
}

/// A NAT, or a stateful firewall (see [`Behaviour::translates`]).
///
/// Times are durations since an arbitrary start and must not go backwards.
#[derive(Debug, Clone)]
pub struct Nat {
    behaviour: Behaviour,
    externals: Vec<IpAddr>,
    random: Random,
    hasher: RandomState,
    allocator: Allocator,
    table: Table,
    next_serial: u64,
    /// Whom a mapping (by serial number) lets in, by the part that the filter depends on; until when.
    permits: AHashMap<(u64, SocketAddr), Duration>,
    /// Flows that the limiter has let open, until when.
    flows: AHashMap<(SocketAddr, SocketAddr), Duration>,
    /// External addresses that unsolicited packets of remote ends have taken in a leaky NAT's table, until when.
    leaked: AHashMap<(SocketAddr, SocketAddr), Duration>,
    /// External addresses that are not used again after a rebind.
    retired: AHashSet<SocketAddr>,
    cuts: AHashSet<(IpAddr, Direction)>,
    limiter: Option<Limiter>,
    sweep_at: usize,
    counters: Counters,
}

/// A hasher whose keys follow from a seed, so that a run can be repeated.
pub(crate) fn hasher(random: &mut Random) -> RandomState {
    RandomState::with_seeds(random.word(), random.word(), random.word(), random.word())
}

impl Nat {
    /// A NAT with these external addresses; IPv6 ones are of no use to it. A translating one without any drops all IPv4.
    pub fn new(behaviour: Behaviour, externals: &[IpAddr], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let allocator = Allocator::new(random.fork());
        let hasher = hasher(&mut random);
        let limiter = behaviour.limit.map(|limit| Limiter::new(limit, hasher.clone()));
        Self {
            behaviour,
            externals: externals.iter().copied().filter(IpAddr::is_ipv4).collect(),
            random,
            allocator,
            table: Table::new(hasher.clone()),
            next_serial: 0,
            permits: AHashMap::with_hasher(hasher.clone()),
            flows: AHashMap::with_hasher(hasher.clone()),
            leaked: AHashMap::with_hasher(hasher.clone()),
            retired: AHashSet::with_hasher(hasher.clone()),
            cuts: AHashSet::with_hasher(hasher.clone()),
            hasher,
            limiter,
            sweep_at: SWEEP_AT_LEAST,
            counters: Counters::default(),
        }
    }

    /// What it does.
    pub fn behaviour(&self) -> &Behaviour {
        &self.behaviour
    }

    /// Its external addresses.
    pub fn externals(&self) -> &[IpAddr] {
        &self.externals
    }

    /// What it has done.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The mappings that live, in no order.
    pub fn mappings(&self, now: Duration) -> impl Iterator<Item = Mapping> {
        self.table.iter().filter(move |binding| binding.lives(now)).map(Binding::shown)
    }

    /// Whether this address, if it is inside, is translated; else it is only protected.
    pub fn translates(&self, address: IpAddr) -> bool {
        self.behaviour.translates && address.is_ipv4()
    }

    /// A datagram from inside: where it goes.
    pub fn outbound(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<Passage, Dropped> {
        self.sweep(now);
        let passage = self.outbound_uncounted(internal, remote, now);
        match passage {
            Ok(Passage::Out { .. }) => self.counters.outbound += 1,
            Ok(Passage::Hairpin { .. }) => self.counters.hairpinned += 1,
            Err(dropped) => self.counters.count(dropped),
        }
        passage
    }

    /// A datagram from outside: the internal address that it is for.
    pub fn inbound(
        &mut self,
        remote: SocketAddr,
        external: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Dropped> {
        self.sweep(now);
        let internal =
            self.passes(remote, Direction::Inbound).and_then(|()| self.admitted(remote, external, now));
        match internal {
            Ok(_) => self.counters.inbound += 1,
            Err(dropped) => self.counters.count(dropped),
        }
        if internal == Err(Dropped::Unmapped) && self.behaviour.leaky && self.translates(external.ip()) {
            self.leaked.insert((external, remote), now + self.behaviour.lifetime.unreplied);
        }
        internal
    }

    /// Forwards an external port to an internal address for good, as routers do when asked by UPnP IGD, NAT-PMP or
    /// PCP: anybody may send there, and what the internal address sends leaves from there. Returns the external
    /// address; `None` if it is taken.
    pub fn forward(&mut self, port: u16, internal: SocketAddr, now: Duration) -> Option<SocketAddr> {
        let external = SocketAddr::new(self.external_for(internal.ip())?, port);
        let everybody = Dependence::EndpointIndependent;
        if !self.is_free(external, everybody.part(external), now) {
            return None;
        }
        // What it has sent so far has left from elsewhere; from now on there is one way only.
        self.table.retain(|binding| binding.internal != internal);
        self.insert(internal, external, everybody, everybody.part(external), now).is_forwarded = true;
        Some(external)
    }

    /// Takes back what [`forward`](Self::forward) did for an internal address.
    pub fn unforward(&mut self, internal: SocketAddr) {
        self.table.retain(|binding| !binding.is_forwarded || binding.internal != internal);
    }

    /// Forgets all mappings, as a restart does; forwarded ports stay. A preserving NAT gives the same ports again.
    pub fn reboot(&mut self) {
        self.table.retain(|binding| binding.is_forwarded);
        self.permits.clear();
        self.flows.clear();
        self.leaked.clear();
    }

    /// Forgets all mappings, and later ones get none of the external ports that these had.
    pub fn rebind(&mut self) {
        let translates = self.behaviour.translates;
        let leave = |binding: &&Binding| !binding.is_forwarded && translates && binding.external.is_ipv4();
        self.retired.extend(self.table.iter().filter(leave).map(|binding| binding.external));
        self.reboot();
    }

    /// Gets other external addresses, as a line does that reconnects; all mappings are gone, forwarded ports too.
    pub fn readdress(&mut self, externals: &[IpAddr]) {
        self.table.retain(|_| false);
        self.reboot();
        self.retired.clear();
        self.externals = externals.iter().copied().filter(IpAddr::is_ipv4).collect();
    }

    /// Lets UDP through, or nothing of it.
    pub fn block_udp(&mut self, is_blocked: bool) {
        self.behaviour.is_udp_blocked = is_blocked;
    }

    /// Lets nothing pass any more between inside and this remote address, one way.
    pub fn cut(&mut self, remote: IpAddr, direction: Direction) {
        self.cuts.insert((remote, direction));
    }

    /// Takes back [`cut`](Self::cut).
    pub fn restore(&mut self, remote: IpAddr, direction: Direction) {
        self.cuts.remove(&(remote, direction));
    }

    fn outbound_uncounted(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<Passage, Dropped> {
        self.passes(remote, Direction::Outbound)?;
        self.within_limit(internal, remote, now)?;
        let source = self.leaves_from(internal, remote, now)?;
        if !self.externals.contains(&remote.ip()) {
            return Ok(Passage::Out { source });
        }
        if !self.behaviour.hairpin {
            return Err(Dropped::Hairpin);
        }
        let destination = self.admitted(source, remote, now)?;
        Ok(Passage::Hairpin { source, destination })
    }

    fn passes(&self, remote: SocketAddr, direction: Direction) -> Result<(), Dropped> {
        if self.behaviour.is_udp_blocked {
            return Err(Dropped::Blocked);
        }
        if !self.cuts.is_empty() && self.cuts.contains(&(remote.ip(), direction)) {
            return Err(Dropped::Cut);
        }
        Ok(())
    }

    fn within_limit(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<(), Dropped> {
        let Some(limiter) = &mut self.limiter else { return Ok(()) };
        if limiter.is_blocked(internal.ip(), now) {
            return Err(Dropped::Limited);
        }
        if self.flows.get(&(internal, remote)).is_none_or(|until| now >= *until) {
            if !limiter.admits(internal.ip(), now) {
                self.counters.blocks += u64::from(limiter.is_blocked(internal.ip(), now));
                return Err(Dropped::Limited);
            }
            self.counters.flows += 1;
        }
        self.flows.insert((internal, remote), now + self.behaviour.lifetime.replied);
        Ok(())
    }

    /// The external address from which the internal one sends to this remote end, which may answer.
    fn leaves_from(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Dropped> {
        let (lifetime, filtering) = (self.behaviour.lifetime, self.behaviour.filtering);
        let dependence = self.mapping(internal.ip());
        let part = dependence.part(remote);
        let known = self.table.of_internal(internal, part).filter(|binding| binding.lives(now)).is_some();
        if !known {
            let external = self.allocate(internal, remote, now)?;
            self.counters.mappings += 1;
            self.insert(internal, external, dependence, part, now);
        }
        let binding = self.table.of_internal(internal, part).ok_or(Dropped::Unmapped)?;
        let until = now + time(lifetime, binding.is_replied);
        if lifetime.outbound {
            binding.expires = binding.expires.max(until);
        }
        if filtering != Dependence::EndpointIndependent && !binding.is_forwarded {
            let permit = self.permits.entry((binding.serial, filtering.part(remote))).or_insert(until);
            if lifetime.outbound || *permit <= now {
                *permit = until.max(*permit);
            }
        }
        Ok(binding.external)
    }

    /// The internal address at an external one, if this remote end may send there.
    fn admitted(
        &mut self,
        remote: SocketAddr,
        external: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Dropped> {
        let (lifetime, filtering) = (self.behaviour.lifetime, self.behaviour.filtering);
        let part = self.overloaded(external.ip(), self.mapping(external.ip()).part(remote));
        let binding = self.table.at_external(external, part).filter(|binding| binding.lives(now));
        let binding = binding.ok_or(Dropped::Unmapped)?;
        if self.limiter.as_ref().is_some_and(|limiter| limiter.is_blocked(binding.internal.ip(), now)) {
            return Err(Dropped::Limited);
        }
        let until = now + lifetime.replied;
        if filtering != Dependence::EndpointIndependent && !binding.is_forwarded {
            let permit = self.permits.get_mut(&(binding.serial, filtering.part(remote)));
            let permit = permit.filter(|until| now < **until).ok_or(Dropped::Filtered)?;
            if lifetime.inbound {
                *permit = until.max(*permit);
            }
        }
        binding.is_replied = true;
        if lifetime.inbound {
            binding.expires = binding.expires.max(until);
        }
        Ok(binding.internal)
    }

    /// An external address for a new mapping.
    fn allocate(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Dropped> {
        if !self.translates(internal.ip()) {
            return Ok(internal);
        }
        let address = self.external_for(internal.ip()).ok_or(Dropped::Exhausted)?;
        // A few words, copied so that the table can be asked meanwhile.
        let mut allocator = self.allocator.clone();
        let is_free = |port| self.is_free(SocketAddr::new(address, port), remote, now);
        let port = allocator.port(&self.behaviour, internal.port(), now, is_free);
        self.allocator = allocator;
        Ok(SocketAddr::new(address, port.ok_or(Dropped::Exhausted)?))
    }

    /// Whether a new mapping for this remote end may have this external address.
    fn is_free(&self, external: SocketAddr, remote: SocketAddr, now: Duration) -> bool {
        let part = self.overloaded(external.ip(), self.mapping(external.ip()).part(remote));
        let is_leaked = || self.leaked.get(&(external, remote)).is_some_and(|until| now < *until);
        !self.table.is_taken(external, part, now) && !self.retired.contains(&external) && !is_leaked()
    }

    fn insert(
        &mut self,
        internal: SocketAddr,
        external: SocketAddr,
        dependence: Dependence,
        part: SocketAddr,
        now: Duration,
    ) -> &mut Binding {
        let serial = self.next_serial;
        self.next_serial += 1;
        let overloaded_part = self.overloaded(external.ip(), part);
        let expires = now + self.behaviour.lifetime.unreplied;
        let (is_forwarded, is_replied) = (false, false);
        self.table.insert(Binding {
            serial,
            internal,
            external,
            part,
            dependence,
            overloaded_part,
            is_forwarded,
            is_replied,
            expires,
        })
    }

    fn mapping(&self, address: IpAddr) -> Dependence {
        if self.translates(address) { self.behaviour.mapping } else { Dependence::EndpointIndependent }
    }

    /// What tells mappings of one external port apart: the part of the remote end if ports are overloaded, else nothing.
    fn overloaded(&self, external: IpAddr, part: SocketAddr) -> SocketAddr {
        let is_overloaded = self.behaviour.overloading && self.translates(external);
        if is_overloaded { part } else { Dependence::EndpointIndependent.part(part) }
    }

    fn external_for(&mut self, internal: IpAddr) -> Option<IpAddr> {
        let count = self.externals.len();
        let index = match self.behaviour.pooling {
            _ if count < 2 => 0,
            Pooling::Paired => self.hasher.hash_one(internal) as usize % count,
            Pooling::Arbitrary => self.random.below(count as u32) as usize,
        };
        self.externals.get(index).copied()
    }

    /// How many things are remembered.
    fn size(&self) -> usize {
        self.table.len() + self.permits.len() + self.flows.len() + self.leaked.len()
    }

    /// Forgets what has expired, once there is enough of it to be worth the search.
    fn sweep(&mut self, now: Duration) {
        if self.size() < self.sweep_at {
            return;
        }
        self.table.retain(|binding| binding.lives(now));
        for memory in [&mut self.flows, &mut self.leaked] {
            memory.retain(|_, until| now < *until);
        }
        self.permits.retain(|_, until| now < *until);
        self.sweep_at = (self.size() * 2).max(SWEEP_AT_LEAST);
    }
}

fn time(lifetime: Lifetime, is_replied: bool) -> Duration {
    if is_replied { lifetime.replied } else { lifetime.unreplied }
}
