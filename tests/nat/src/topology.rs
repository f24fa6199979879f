//! Who is where in a virtual network: segments, joined by NATs into a tree whose root is the public network.

use std::net::IpAddr;

use ahash::{AHashMap, RandomState};
use slab::Slab;

use crate::impairment::Pipe;
use crate::nat::Nat;

/// A network without routers in it: the public one, or a NAT's inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SegmentId(pub(crate) usize);

/// The public network.
pub const PUBLIC: SegmentId = SegmentId(0);

/// A host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostId(pub(crate) usize);

/// A NAT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NatId(pub(crate) usize);

impl NatId {
    /// The segment behind it: each NAT has one.
    pub fn inside(self) -> SegmentId {
        SegmentId(self.0 + 1)
    }
}

/// The two directions of a line: from a host or NAT into its segment, and back.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
}

#[derive(Debug, Clone)]
pub(crate) struct Host {
    pub(crate) line: Line,
    /// Its addresses, each in the segment where it is attached.
    pub(crate) addresses: Vec<(IpAddr, SegmentId)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Router {
    pub(crate) nat: Nat,
    pub(crate) line: Line,
    pub(crate) outside: SegmentId,
}

/// Who answers to an address in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Node {
    Host(HostId),
    Nat(NatId),
}

/// All hosts and NATs, and each segment's addresses.
#[derive(Debug, Clone)]
pub(crate) struct Topology {
    pub(crate) hosts: Slab<Host>,
    pub(crate) routers: Vec<Router>,
    /// By segment: the public one first, then each NAT's inside.
    segments: Vec<AHashMap<IpAddr, Node>>,
    hasher: RandomState,
}

impl Topology {
    pub(crate) fn new(hasher: RandomState) -> Self {
        let public = AHashMap::with_hasher(hasher.clone());
        Self { hosts: Slab::new(), routers: Vec::new(), segments: vec![public], hasher }
    }

    pub(crate) fn add_router(&mut self, router: Router) -> NatId {
        let id = NatId(self.routers.len());
        for address in router.nat.externals().to_vec() {
            self.enter(router.outside, address, Node::Nat(id));
        }
        self.routers.push(router);
        self.segments.push(AHashMap::with_hasher(self.hasher.clone()));
        id
    }

    /// Gives a host an address. Outside the NATs that do not translate it, it leads to them.
    pub(crate) fn attach(&mut self, host: HostId, segment: SegmentId, address: IpAddr) {
        self.hosts[host.0].addresses.push((address, segment));
        self.enter(segment, address, Node::Host(host));
        let mut segment = segment;
        while let Some((id, router)) = self.gateway(segment) {
            if router.nat.translates(address) {
                break;
            }
            segment = router.outside;
            self.enter(segment, address, Node::Nat(id));
        }
    }

    /// Takes an address from a host.
    pub(crate) fn detach(&mut self, host: HostId, address: IpAddr) {
        let Some(host) = self.hosts.get_mut(host.0) else { return };
        let Some(index) = host.addresses.iter().position(|(known, _)| *known == address) else { return };
        let (_, mut segment) = host.addresses.remove(index);
        loop {
            self.segments[segment.0].remove(&address);
            let Some((_, router)) = self.gateway(segment) else { return };
            if router.nat.translates(address) {
                return;
            }
            segment = router.outside;
        }
    }

    /// Gives a NAT other external addresses.
    pub(crate) fn readdress(&mut self, id: NatId, addresses: &[IpAddr]) {
        let router = &mut self.routers[id.0];
        let (outside, before) = (router.outside, router.nat.externals().to_vec());
        router.nat.readdress(addresses);
        for address in before {
            self.segments[outside.0].remove(&address);
        }
        for address in self.routers[id.0].nat.externals().to_vec() {
            self.enter(outside, address, Node::Nat(id));
        }
    }

    /// Who has this address in a segment.
    pub(crate) fn find(&self, segment: SegmentId, address: IpAddr) -> Option<Node> {
        self.segments.get(segment.0)?.get(&address).copied()
    }

    /// The way out of a segment; the public one has none.
    pub(crate) fn gateway(&self, segment: SegmentId) -> Option<(NatId, &Router)> {
        let id = NatId(segment.0.checked_sub(1)?);
        Some((id, self.routers.get(id.0)?))
    }

    fn enter(&mut self, segment: SegmentId, address: IpAddr, node: Node) {
        let before = self.segments[segment.0].insert(address, node);
        assert!(before.is_none_or(|before| before == node), "{address} is taken in {segment:?}");
    }
}
