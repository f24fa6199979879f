//! An address family of ours: the socket that a direct path would take there, and what is known of the NATs on its way (docs/crush.md §3.2).
//!
//! Signalling and the relay may speak the one family while the path is found in the other, so nothing here goes by the first stream alone:
//! whatever asks about an address asks its family.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::sdp::crush::NatBehaviour;

use super::io::SocketId;
use crate::gather::Discovery;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// The socket, where it is bound. `None`: this host has no address of the family, or none that is known yet.
    pub(super) base: Option<(SocketId, SocketAddr)>,
    pub(super) discovery: Option<Discovery>,
    pub(super) nat: Option<NatBehaviour>,
    pub(super) their_nat: Option<NatBehaviour>,
}

/// Both.
#[derive(Debug, Default)]
pub(super) struct Families {
    v4: Family,
    v6: Family,
}

impl Families {
    /// That of an address.
    pub(super) fn of(&self, address: SocketAddr) -> &Family {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    pub(super) fn of_mut(&mut self, address: SocketAddr) -> &mut Family {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// That of a `crush-nat` line.
    pub(super) fn described(&mut self, nat: &NatBehaviour) -> &mut Family {
        if nat.ipv6 { &mut self.v6 } else { &mut self.v4 }
    }

    pub(super) fn each(&self) -> impl Iterator<Item = &Family> {
        [&self.v4, &self.v6].into_iter()
    }

    pub(super) fn each_mut(&mut self) -> impl Iterator<Item = &mut Family> {
        [&mut self.v4, &mut self.v6].into_iter()
    }

    /// Those of which both NATs are known: ours, theirs.
    pub(super) fn known(&self) -> impl Iterator<Item = (NatBehaviour, NatBehaviour)> {
        self.each().filter_map(|family| family.nat.zip(family.their_nat))
    }

    /// What the peer has said of its NATs.
    pub(super) fn theirs(&self) -> [Option<NatBehaviour>; 2] {
        [self.v4.their_nat, self.v6.their_nat]
    }

    /// Nothing is being discovered any more, nor needs to be.
    pub(super) fn stop(&mut self) {
        self.each_mut().for_each(|family| family.discovery = None);
    }

    pub(super) fn is_discovering(&self) -> bool {
        self.each().any(|family| family.discovery.is_some())
    }

    /// When questions about this family may be asked: those of the first stream's family, which is asked first, come before. New flows are
    /// dear at the beginning, and the other family often needs none but its checks.
    pub(super) fn may_ask(&self, address: SocketAddr, first: Option<SocketAddr>, now: Duration) -> Duration {
        let first = first.filter(|first| first.is_ipv4() != address.is_ipv4());
        let before = first.and_then(|first| self.of(first).discovery.as_ref());
        before.map_or(now, Discovery::leaves_off)
    }
}
