//! The table of mappings, found by their internal and by their external address.

use std::net::SocketAddr;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use slab::Slab;

use crate::behaviour::Dependence;

/// One mapping, as [`Nat::mappings`](crate::Nat::mappings) shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// The internal address.
    pub internal: SocketAddr,
    /// The external address that stands for it.
    pub external: SocketAddr,
    /// The remote end that it is for: `None` for all, port 0 for all ports of an address.
    pub remote: Option<SocketAddr>,
    /// When it will be forgotten; `None` for a forwarded port.
    pub expires: Option<Duration>,
}

/// A mapping in the table.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    /// Never used again, so that what refers to it may outlive the mapping.
    pub(crate) serial: u64,
    pub(crate) internal: SocketAddr,
    pub(crate) external: SocketAddr,
    /// The part of the remote end that it depends on.
    pub(crate) part: SocketAddr,
    pub(crate) dependence: Dependence,
    /// The same part where ports are overloaded, else equal for all.
    pub(crate) overloaded_part: SocketAddr,
    /// Made by hand or by a port mapping protocol: without end, and open to everybody.
    pub(crate) is_forwarded: bool,
    pub(crate) is_replied: bool,
    pub(crate) expires: Duration,
}

impl Binding {
    pub(crate) fn lives(&self, now: Duration) -> bool {
        self.is_forwarded || now < self.expires
    }

    pub(crate) fn shown(&self) -> Mapping {
        Mapping {
            internal: self.internal,
            external: self.external,
            remote: (self.dependence != Dependence::EndpointIndependent).then_some(self.part),
            expires: (!self.is_forwarded).then_some(self.expires),
        }
    }
}

/// All mappings.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    bindings: Slab<Binding>,
    by_internal: AHashMap<(SocketAddr, SocketAddr), usize>,
    by_external: AHashMap<(SocketAddr, SocketAddr), usize>,
}

impl Table {
    pub(crate) fn new(hasher: RandomState) -> Self {
        Self {
            bindings: Slab::new(),
            by_internal: AHashMap::with_hasher(hasher.clone()),
            by_external: AHashMap::with_hasher(hasher),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.bindings.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter().map(|(_, binding)| binding)
    }

    /// Adds a mapping; one that had its place is gone.
    pub(crate) fn insert(&mut self, binding: Binding) -> &mut Binding {
        let (inside, outside) = places(&binding);
        for before in [self.by_internal.get(&inside).copied(), self.by_external.get(&outside).copied()] {
            if let Some(index) = before.filter(|index| self.bindings.contains(*index)) {
                self.remove(index);
            }
        }
        let entry = self.bindings.vacant_entry();
        self.by_internal.insert(inside, entry.key());
        self.by_external.insert(outside, entry.key());
        entry.insert(binding)
    }

    /// The mapping of an internal address for a remote end, by the part of it that matters; a forwarded port serves
    /// for every remote end.
    pub(crate) fn of_internal(&mut self, internal: SocketAddr, part: SocketAddr) -> Option<&mut Binding> {
        let all = || self.by_internal.get(&(internal, Dependence::EndpointIndependent.part(part)));
        let index = self.by_internal.get(&(internal, part)).or_else(all).copied()?;
        self.bindings.get_mut(index)
    }

    /// The mapping at an external address for a remote end, in the same way.
    pub(crate) fn at_external(&mut self, external: SocketAddr, part: SocketAddr) -> Option<&mut Binding> {
        let index = self.external_index(external, part)?;
        self.bindings.get_mut(index)
    }

    /// Whether a mapping that lives is there.
    pub(crate) fn is_taken(&self, external: SocketAddr, part: SocketAddr, now: Duration) -> bool {
        let binding = self.external_index(external, part).and_then(|index| self.bindings.get(index));
        binding.is_some_and(|binding| binding.lives(now))
    }

    /// Keeps what `keeps` says.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&Binding) -> bool) {
        let gone: Vec<usize> =
            self.bindings.iter().filter(|(_, binding)| !keeps(binding)).map(|(index, _)| index).collect();
        for index in gone {
            self.remove(index);
        }
    }

    fn external_index(&self, external: SocketAddr, part: SocketAddr) -> Option<usize> {
        let all = || self.by_external.get(&(external, Dependence::EndpointIndependent.part(part)));
        self.by_external.get(&(external, part)).or_else(all).copied()
    }

    fn remove(&mut self, index: usize) {
        let (inside, outside) = places(&self.bindings.remove(index));
        self.by_internal.remove(&inside);
        self.by_external.remove(&outside);
    }
}

/// Under what a mapping is found.
fn places(binding: &Binding) -> ((SocketAddr, SocketAddr), (SocketAddr, SocketAddr)) {
    ((binding.internal, binding.part), (binding.external, binding.overloaded_part))
}
