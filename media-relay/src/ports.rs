//! Ports: even and odd together, per realm and family, resting after use.
//!
//! A pair rests after a call that heard something, so that late packets find a port that is closed. It rests no longer than there are
//! others: who calls when none is fresh gets the pair that has rested longest, for a call that is refused is worse than a late packet,
//! which no call but its own hears anyway (`media_core`'s `leftover.rs`).
//!
//! Where the kernel steers (`steering.rs`), the open ports of an address share one socket for what comes and one for what goes; elsewhere
//! every port has a socket of its own.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use media_core::Expected;
use media_core::worker::{PortPair, Ports as Source, SocketId};

use crate::batch;
use crate::counters::Snapshot;
use crate::poll::Poll;
use crate::realm::{Address, RealmMedia};
use crate::shared::Shared;
use crate::sieve::{Flood, sieve};
use crate::socket::bind;
use crate::steering::{Steering, Unavailable};

/// A pair rests so long after its call, unless it is needed.
const QUARANTINE: Duration = Duration::from_secs(30);
/// How often it is said that there are none.
const NOTICE: Duration = Duration::from_secs(10);
/// Ports that other programs hold are passed over; so many in a row mean a wrong range.
const TRIES: usize = 64;

#[derive(Debug)]
struct Pool {
    realm: u16,
    address: Address,
    traffic_class: u8,
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
    shared: Option<Shared>,
}

/// An open port.
#[derive(Debug)]
enum Way {
    /// By a socket of its own.
    Own(UdpSocket),
    /// By the sockets of its pool.
    Shared { pool: usize, port: u16 },
}

/// One worker's sockets.
#[derive(Debug)]
pub(crate) struct Ports {
    pools: Vec<Pool>,
    ways: Vec<Option<Way>>,
    /// Whom each expects, as the kernel was told.
    expected: Vec<Expected>,
    /// What strangers do at those that have a socket of their own.
    floods: Vec<Flood>,
    /// Pool and port of each pair, at half its number.
    origins: Vec<(usize, u16)>,
    /// Pairs of places in `ways`.
    free: Vec<SocketId>,
    pub(crate) in_use: u64,
    /// Packets of floods that the kernel dropped, at ports that have closed.
    pub(crate) flooded: u64,
    /// When it was last said that a range is exhausted.
    noticed: Option<Instant>,
    poll: Poll,
}

/// Never a socket's number.
pub(crate) const WAKE: u64 = u64::MAX;
/// Shared sockets are told by their pool's number plus this; sockets of their own have smaller ones.
pub(crate) const SHARED: u64 = 1 << 32;
/// Those of strangers by this.
pub(crate) const STRANGERS: u64 = 1 << 33;

impl Ports {
    /// The share of `worker` among `workers` of every range. Without `steering`, or where it fails, every port gets a socket.
    pub(crate) fn new(
        realms: &[RealmMedia],
        (worker, workers): (usize, usize),
        steering: Option<&Arc<Steering>>,
        poll: Poll,
    ) -> Result<Self, Unavailable> {
        let mut pools = Vec::new();
        for (realm, media) in realms.iter().enumerate() {
            let even = media.ports.clone().filter(|port| port % 2 == 0 && *port < *media.ports.end());
            let own: VecDeque<u16> = even.skip(worker).step_by(workers.max(1)).collect();
            let traffic_class = media.dscp << 2;
            for address in &media.addresses {
                // The kernel names the address a packet was sent to, so any address of this host can't be a key.
                let steering = steering.filter(|_| !address.bind.is_unspecified());
                let shared = steering
                    .map(|steering| Shared::open(address.bind, traffic_class, steering.clone()))
                    .transpose()?;
                if let Some(shared) = &shared {
                    let number = pools.len() as u64;
                    poll.add(shared.expected_fd(), SHARED | number)?;
                    poll.add(shared.strangers_fd(), STRANGERS | number)?;
                }
                pools.push(Pool {
                    realm: realm as u16,
                    address: address.clone(),
                    traffic_class,
                    free: own.clone(),
                    resting: VecDeque::new(),
                    shared,
                });
            }
        }
        Ok(Self {
            pools,
            ways: Vec::new(),
            expected: Vec::new(),
            floods: Vec::new(),
            origins: Vec::new(),
            free: Vec::new(),
            in_use: 0,
            flooded: 0,
            noticed: None,
            poll,
        })
    }

    pub(crate) fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    /// The socket of a port that has its own.
    pub(crate) fn fd(&self, socket: SocketId) -> Option<RawFd> {
        match self.ways.get(socket as usize)?.as_ref()? {
            Way::Own(socket) => Some(socket.as_raw_fd()),
            Way::Shared { .. } => None,
        }
    }

    /// The shared socket of a pool, and its strangers'.
    pub(crate) fn shared_fds(&self, pool: usize) -> Option<(RawFd, RawFd)> {
        let shared = self.pools.get(pool)?.shared.as_ref()?;
        Some((shared.expected_fd(), shared.strangers_fd()))
    }

    /// Its call has not been heard there yet, or has several branches.
    #[inline]
    pub(crate) fn expects_more_than_one(&self, socket: SocketId) -> bool {
        matches!(self.expected.get(socket as usize), Some([_, Some(_)]))
    }

    /// Tells the kernel whom an open port expects, if it is news.
    pub(crate) fn expect(&mut self, socket: SocketId, expected: Expected) {
        let Some(known) = self.expected.get_mut(socket as usize) else { return };
        if *known == expected {
            return;
        }
        let told = match self.ways.get(socket as usize) {
            Some(Some(Way::Shared { pool, port })) => {
                let shared = self.pools.get(*pool).and_then(|pool| pool.shared.as_ref());
                shared.map_or(Ok(()), |shared| shared.expect(*port, expected)).map_err(io::Error::other)
            }
            Some(Some(Way::Own(own)))
                if self.floods.get(socket as usize).is_some_and(|flood| flood.is_sieved) =>
            {
                sieve(own, expected)
            }
            _ => Ok(()),
        };
        match told {
            Ok(()) => *known = expected,
            Err(error) => {
                tracing::error!(%error, "what strangers send to a media port stands before its call");
            }
        }
    }

    /// Strangers have sent so many packets to a port that has a socket of its own.
    pub(crate) fn suffer(&mut self, socket: SocketId, strangers: u64, now: Duration) {
        let place = socket as usize;
        let (Some(flood), Some(Some(Way::Own(own)))) = (self.floods.get_mut(place), self.ways.get(place))
        else {
            return;
        };
        if !flood.rises(strangers, now) {
            return;
        }
        flood.is_sieved = true;
        match sieve(own, self.expected.get(place).copied().unwrap_or_default()) {
            Ok(()) => {
                tracing::warn!("a media port is flooded; of what its call does not expect, few packets pass")
            }
            Err(error) => {
                tracing::error!(%error, "a media port is flooded, and that can't be kept from its call")
            }
        }
    }

    /// Few strangers' packets pass to it.
    pub(crate) fn is_sieved(&self, socket: SocketId) -> bool {
        self.floods.get(socket as usize).is_some_and(|flood| flood.is_sieved)
    }

    /// The port of a pool that a packet of its shared socket was sent to.
    #[inline]
    pub(crate) fn steered(&self, pool: usize, port: u16) -> Option<SocketId> {
        self.pools.get(pool)?.shared.as_ref()?.socket_at(port)
    }

    /// Sends, at the latest with the next [`flush`](Self::flush).
    #[inline]
    pub(crate) fn send(&mut self, socket: SocketId, to: SocketAddr, packet: &[u8], numbers: &mut Snapshot) {
        match self.ways.get(socket as usize) {
            Some(Some(Way::Shared { pool, port })) => {
                if let Some(shared) = self.pools.get_mut(*pool).and_then(|pool| pool.shared.as_mut()) {
                    shared.exit.send(*port, to, packet, numbers);
                }
            }
            Some(Some(Way::Own(own))) => match batch::send(own.as_raw_fd(), to, packet) {
                Ok(()) => numbers.sent = numbers.sent.saturating_add(1),
                Err(error) => numbers.missed(&error),
            },
            _ => numbers.send_failed = numbers.send_failed.saturating_add(1),
        }
    }

    /// Sends what waits.
    pub(crate) fn flush(&mut self, numbers: &mut Snapshot) {
        for shared in self.pools.iter_mut().filter_map(|pool| pool.shared.as_mut()) {
            shared.exit.flush(numbers);
        }
    }

    fn place(&mut self) -> SocketId {
        self.free.pop().unwrap_or_else(|| {
            let place = self.ways.len() as SocketId;
            self.ways.extend([None, None]);
            self.expected.extend([Expected::default(); 2]);
            self.floods.extend([Flood::default(); 2]);
            self.origins.push((0, 0));
            place
        })
    }

    /// Opens one port of a pool as a place.
    fn open_one(&mut self, pool: usize, port: u16, place: SocketId) -> io::Result<()> {
        let Some(found) = self.pools.get_mut(pool) else { return Err(io::ErrorKind::NotFound.into()) };
        let at = SocketAddr::new(found.address.bind, port);
        // Also where it is steered: another program's port stays its own.
        let socket = bind(at, found.traffic_class)?;
        let way = match &mut found.shared {
            Some(shared) => {
                shared.open_port(port, place).map_err(io::Error::other)?;
                Way::Shared { pool, port }
            }
            None => {
                self.poll.add(socket.as_raw_fd(), u64::from(place))?;
                Way::Own(socket)
            }
        };
        let place = place as usize;
        let state = (self.ways.get_mut(place), self.expected.get_mut(place), self.floods.get_mut(place));
        let (Some(known), Some(expected), Some(flood)) = state else {
            return Err(io::ErrorKind::NotFound.into());
        };
        (*known, *expected, *flood) = (Some(way), Expected::default(), Flood::default());
        Ok(())
    }

    fn close_one(&mut self, place: SocketId) {
        let Some(way) = self.ways.get_mut(place as usize).and_then(Option::take) else { return };
        if let Way::Shared { pool, port } = way
            && let Some(shared) = self.pools.get_mut(pool).and_then(|pool| pool.shared.as_mut())
        {
            let dropped = shared.close_port(port);
            if dropped > 0 {
                self.flooded = self.flooded.saturating_add(dropped);
                tracing::warn!(port, dropped, "a media port was flooded; what was too much was dropped");
            }
        }
    }
}

/// Which pairs are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Fresh,
    /// The longest first.
    Resting,
}

impl Pool {
    /// Pairs that have rested are fresh again.
    fn wake(&mut self, now: Instant) {
        while self.resting.front().is_some_and(|resting| now.duration_since(resting.0) >= QUARANTINE) {
            self.free.extend(self.resting.pop_front().map(|resting| resting.1));
        }
    }

    fn next(&mut self, choice: Choice) -> Option<u16> {
        match choice {
            Choice::Fresh => self.free.pop_front(),
            Choice::Resting => self.resting.pop_front().map(|resting| resting.1),
        }
    }

    /// Chooses this one, if it is free or rests.
    fn take(&mut self, port: u16) -> bool {
        if let Some(place) = self.free.iter().position(|free| *free == port) {
            return self.free.remove(place).is_some();
        }
        let place = self.resting.iter().position(|resting| resting.1 == port);
        place.and_then(|place| self.resting.remove(place)).is_some()
    }

    fn len(&self, choice: Choice) -> usize {
        match choice {
            Choice::Fresh => self.free.len(),
            Choice::Resting => self.resting.len(),
        }
    }
}

impl Ports {
    /// A pair of a realm and family, at any address but `other_than`.
    fn open_pair(&mut self, realm: u16, is_ipv6: bool, other_than: Option<IpAddr>) -> Option<PortPair> {
        let now = Instant::now();
        let suits = |pool: &Pool| {
            pool.realm == realm
                && pool.address.bind.is_ipv6() == is_ipv6
                && Some(pool.address.advertised) != other_than
        };
        let suitable = self.pools.iter_mut().enumerate().filter(|(_, pool)| suits(pool));
        let mut pools: Vec<usize> = suitable
            .map(|(index, pool)| {
                pool.wake(now);
                index
            })
            .collect();
        let place = self.place();
        for choice in [Choice::Fresh, Choice::Resting] {
            if choice == Choice::Resting {
                pools.sort_by_key(|index| self.pools.get(*index)?.resting.front().map(|resting| resting.0));
            }
            for index in &pools {
                if let Some(pair) = self.open_of((*index, choice), place) {
                    return Some(pair);
                }
            }
        }
        self.free.push(place);
        // Only what was to be served is missed.
        if other_than.is_none() && self.noticed.is_none_or(|noticed| now.duration_since(noticed) >= NOTICE) {
            self.noticed = Some(now);
            tracing::warn!(
                realm,
                is_ipv6,
                in_use = self.in_use,
                "no media port is free and calls are refused: widen the realm's media_ports, add a media address of this family, or lower the limit on calls"
            );
        }
        None
    }

    /// A pair of a pool, if it has one of that choice.
    fn open_of(&mut self, (index, choice): (usize, Choice), place: SocketId) -> Option<PortPair> {
        // Those that can't be had go to the end of the fresh ones: each is tried once.
        for _ in 0..self.pools.get(index)?.len(choice).min(TRIES) {
            let port = self.pools.get_mut(index)?.next(choice)?;
            match self.open_both((index, port), place) {
                Ok(pair) => return Some(pair),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(_) => return None,
            }
        }
        None
    }

    /// A pair of a pool that was chosen; it is a fresh one again if that fails.
    fn open_both(&mut self, (index, port): (usize, u16), place: SocketId) -> io::Result<PortPair> {
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let (odd, beside) = port.checked_add(1).zip(place.checked_add(1)).ok_or_else(missing)?;
        let opened = self.open_one(index, port, place).and_then(|()| self.open_one(index, odd, beside));
        let pool = self.pools.get_mut(index).ok_or_else(missing)?;
        if let Err(error) = opened {
            pool.free.push_back(port);
            let address = SocketAddr::new(pool.address.bind, port);
            self.close_one(place);
            if error.kind() != io::ErrorKind::AddrInUse {
                tracing::error!(%error, %address, "a media port can't be opened: check the realm's media addresses and the limit on open files");
            }
            return Err(error);
        }
        let address = SocketAddr::new(pool.address.advertised, port);
        *self.origins.get_mut(place as usize / 2).ok_or_else(missing)? = (index, port);
        self.in_use = self.in_use.saturating_add(1);
        Ok(PortPair { rtp: place, rtcp: beside, address })
    }

    /// Closes a pair; its pool and its even port.
    fn close_pair(&mut self, pair: PortPair) -> Option<(&mut Pool, u16)> {
        self.close_one(pair.rtp);
        self.close_one(pair.rtcp);
        self.free.push(pair.rtp);
        self.in_use = self.in_use.saturating_sub(1);
        let (pool, port) = *self.origins.get(pair.rtp as usize / 2)?;
        Some((self.pools.get_mut(pool)?, port))
    }
}

impl Source for Ports {
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair> {
        self.open_pair(realm, is_ipv6, None)
    }

    fn open_elsewhere(&mut self, realm: u16, than: IpAddr) -> Option<PortPair> {
        self.open_pair(realm, than.is_ipv6(), Some(than))
    }

    fn reopen(&mut self, realm: u16, address: SocketAddr) -> Option<PortPair> {
        let is_its = |pool: &Pool| pool.realm == realm && pool.address.advertised == address.ip();
        let index = self.pools.iter().position(is_its)?;
        if !self.pools.get_mut(index)?.take(address.port()) {
            return None;
        }
        let place = self.place();
        let opened = self.open_both((index, address.port()), place);
        if opened.is_err() {
            self.free.push(place);
        }
        opened.ok()
    }

    fn close(&mut self, pair: PortPair) {
        if let Some((pool, port)) = self.close_pair(pair) {
            pool.resting.push_back((Instant::now(), port));
        }
    }

    fn close_unheard(&mut self, pair: PortPair) {
        if let Some((pool, port)) = self.close_pair(pair) {
            pool.free.push_back(port);
        }
    }
}

#[cfg(test)]
mod tests;
