//! Ports that are numbers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use media_core::worker::{PortPair, Ports, SocketId};

/// Where the ports of a realm are.
#[derive(Debug)]
enum Addresses {
    /// All realms at the first of these; at another where that is asked for.
    Shared(Vec<IpAddr>),
    /// By realm, and whether it is for IPv6.
    OfRealm(fn(u16, bool) -> IpAddr),
}

/// Pairs of sockets 0/1, 2/3, ... at ports 10000, 10002, ..., as many at once as there are.
#[derive(Debug)]
pub struct Counted {
    addresses: Addresses,
    first: u16,
    next: SocketId,
    /// The number of the next one that is opened again.
    again: SocketId,
    sockets: BTreeMap<SocketId, SocketAddr>,
    /// So many pairs may be open.
    pub limit: usize,
}

impl Default for Counted {
    /// At 192.0.2.REALM and 2001:db8::REALM.
    fn default() -> Self {
        Self::of_realm(|realm, is_ipv6| match is_ipv6 {
            true => [0x2001, 0xdb8, 0, 0, 0, 0, 0, realm].into(),
            false => [192, 0, 2, realm as u8].into(),
        })
    }
}

impl Counted {
    /// With an address for each realm.
    pub fn of_realm(address: fn(u16, bool) -> IpAddr) -> Self {
        Self::new(Addresses::OfRealm(address))
    }

    /// At the first of these addresses; a pair elsewhere is at another of them.
    pub fn at(addresses: impl IntoIterator<Item: Into<IpAddr>>) -> Self {
        Self::new(Addresses::Shared(addresses.into_iter().map(Into::into).collect()))
    }

    fn new(addresses: Addresses) -> Self {
        Self {
            addresses,
            first: 10_000,
            next: 0,
            again: 100_000,
            sockets: BTreeMap::new(),
            limit: usize::MAX,
        }
    }

    /// From this port on.
    #[must_use]
    pub fn from_port(self, first: u16) -> Self {
        Self { first, ..self }
    }

    /// Those of the process after this one, at the same addresses: none is open, new ones are chosen as they would have been, and what is
    /// opened again has other numbers.
    #[must_use]
    pub fn successor(self) -> Self {
        assert!(self.sockets.is_empty(), "{self:?}");
        let again = self.again + 2;
        Self { again, ..self }
    }

    /// So many pairs at once.
    #[must_use]
    pub fn at_most(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Pairs that are open.
    pub fn open_pairs(&self) -> usize {
        self.sockets.len() / 2
    }

    /// Where a socket that is open sends from.
    pub fn address(&self, socket: SocketId) -> Option<SocketAddr> {
        self.sockets.get(&socket).copied()
    }

    /// The socket that is open there.
    pub fn socket(&self, address: SocketAddr) -> Option<SocketId> {
        self.sockets.iter().find(|open| *open.1 == address).map(|open| *open.0)
    }

    /// All that were open are gone, with the process that had them.
    pub fn forget(&mut self) {
        self.sockets.clear();
    }

    fn pair(&mut self, ip: IpAddr) -> Option<PortPair> {
        if self.open_pairs() >= self.limit {
            return None;
        }
        let rtp = self.next;
        self.next += 2;
        Some(self.put(rtp, SocketAddr::new(ip, self.first + rtp as u16)))
    }

    fn put(&mut self, rtp: SocketId, address: SocketAddr) -> PortPair {
        self.sockets.insert(rtp, address);
        self.sockets.insert(rtp + 1, SocketAddr::new(address.ip(), address.port() + 1));
        PortPair { rtp, rtcp: rtp + 1, address }
    }
}

impl Ports for Counted {
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair> {
        let ip = match &self.addresses {
            Addresses::Shared(all) => *all.first()?,
            Addresses::OfRealm(address) => address(realm, is_ipv6),
        };
        self.pair(ip)
    }

    fn open_elsewhere(&mut self, _: u16, than: IpAddr) -> Option<PortPair> {
        let Addresses::Shared(all) = &self.addresses else { return None };
        let ip = *all.iter().find(|ip| **ip != than)?;
        self.pair(ip)
    }

    fn reopen(&mut self, realm: u16, address: SocketAddr) -> Option<PortPair> {
        let is_of_realm = match &self.addresses {
            Addresses::Shared(all) => all.contains(&address.ip()),
            Addresses::OfRealm(of) => of(realm, address.is_ipv6()) == address.ip(),
        };
        let is_free = self.socket(address).is_none() && self.open_pairs() < self.limit;
        (is_of_realm && is_free).then(|| {
            self.again += 2;
            self.put(self.again, address)
        })
    }

    fn close(&mut self, pair: PortPair) {
        assert!(self.sockets.remove(&pair.rtp).is_some(), "{pair:?} was not open");
        self.sockets.remove(&pair.rtcp);
    }
}
