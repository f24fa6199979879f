//! Ports: even and odd together, per realm and family, resting after use.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use media_core::worker::{PortPair, Ports as Source, SocketId};
use socket2::{Domain, Protocol, Socket, Type};

use crate::poll::Poll;

/// A pair rests so long after its call, so that late packets of that call reach nobody else.
const QUARANTINE: Duration = Duration::from_secs(30);
/// How often it is said that there are none.
const NOTICE: Duration = Duration::from_secs(10);
/// Ports that other programs hold are passed over; so many in a row mean a wrong range.
const TRIES: usize = 64;
/// The kernel doubles it, for its own needs: about 170 packets of speech or 50 of video. More would only make an overload last longer.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// A media address of a realm.
#[derive(Debug, Clone)]
pub struct Address {
    /// Where sockets are bound.
    pub bind: IpAddr,
    /// What descriptions say; differs from `bind` behind a one-to-one NAT.
    pub advertised: IpAddr,
}

/// The media side of a realm.
#[derive(Debug, Clone)]
pub struct RealmMedia {
    /// Its addresses; the first of a family is used first.
    pub addresses: Vec<Address>,
    /// Its ports.
    pub ports: RangeInclusive<u16>,
}

#[derive(Debug)]
struct Pool {
    realm: u16,
    address: Address,
    free: VecDeque<u16>,
    resting: VecDeque<(Instant, u16)>,
}

/// One worker's sockets.
#[derive(Debug)]
pub(crate) struct Ports {
    pools: Vec<Pool>,
    sockets: Vec<Option<UdpSocket>>,
    /// Pool and port of each pair, at half its number.
    origins: Vec<(usize, u16)>,
    /// Pairs of slots in `sockets`.
    free: Vec<SocketId>,
    pub(crate) in_use: u64,
    /// When it was last said that a range is exhausted.
    noticed: Option<Instant>,
    poll: Poll,
}

/// Never a socket's number.
pub(crate) const WAKE: u64 = u64::MAX;

impl Ports {
    /// The share of `worker` among `workers` of every range.
    pub(crate) fn new(realms: &[RealmMedia], worker: usize, workers: usize, poll: Poll) -> Self {
        let mut pools = Vec::new();
        for (realm, media) in realms.iter().enumerate() {
            let even = media.ports.clone().filter(|port| port % 2 == 0 && *port < *media.ports.end());
            let own: VecDeque<u16> = even.skip(worker).step_by(workers.max(1)).collect();
            for address in &media.addresses {
                pools.push(Pool {
                    realm: realm as u16,
                    address: address.clone(),
                    free: own.clone(),
                    resting: VecDeque::new(),
                });
            }
        }
        Self {
            pools,
            sockets: Vec::new(),
            origins: Vec::new(),
            free: Vec::new(),
            in_use: 0,
            noticed: None,
            poll,
        }
    }

    pub(crate) fn poll(&mut self) -> &mut Poll {
        &mut self.poll
    }

    pub(crate) fn fd(&self, socket: SocketId) -> Option<RawFd> {
        self.sockets.get(socket as usize)?.as_ref().map(AsRawFd::as_raw_fd)
    }

    fn place(&mut self) -> SocketId {
        self.free.pop().unwrap_or_else(|| {
            let place = self.sockets.len() as SocketId;
            self.sockets.extend([None, None]);
            self.origins.push((0, 0));
            place
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

impl Source for Ports {
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair> {
        let now = Instant::now();
        let place = self.place();
        for (index, pool) in self
            .pools
            .iter_mut()
            .enumerate()
            .filter(|(_, pool)| pool.realm == realm && pool.address.bind.is_ipv6() == is_ipv6)
        {
            while pool.resting.front().is_some_and(|resting| resting.0 + QUARANTINE <= now) {
                pool.free.extend(pool.resting.pop_front().map(|resting| resting.1));
            }
            for _ in 0..TRIES {
                let Some(port) = pool.free.pop_front() else { break };
                let at = |port| SocketAddr::new(pool.address.bind, port);
                let sockets = bind(at(port)).and_then(|even| Ok((even, bind(at(port + 1))?)));
                let (even, odd) = match sockets {
                    Ok(sockets) => sockets,
                    Err(error) => {
                        pool.free.push_back(port);
                        if error.kind() != io::ErrorKind::AddrInUse {
                            tracing::error!(%error, address = %at(port), "a media port can't be opened: check the realm's media addresses and the limit on open files");
                            break;
                        }
                        continue;
                    }
                };
                let added = self
                    .poll
                    .add(even.as_raw_fd(), u64::from(place))
                    .and_then(|()| self.poll.add(odd.as_raw_fd(), u64::from(place) + 1));
                if added.is_err() {
                    pool.free.push_back(port);
                    break;
                }
                self.sockets[place as usize] = Some(even);
                self.sockets[place as usize + 1] = Some(odd);
                self.origins[place as usize / 2] = (index, port);
                self.in_use += 1;
                let address = SocketAddr::new(pool.address.advertised, port);
                return Some(PortPair { rtp: place, rtcp: place + 1, address });
            }
        }
        self.free.push(place);
        if self.noticed.is_none_or(|noticed| noticed + NOTICE <= now) {
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

    fn close(&mut self, pair: PortPair) {
        for socket in [pair.rtp, pair.rtcp] {
            if let Some(place) = self.sockets.get_mut(socket as usize) {
                *place = None;
            }
        }
        self.free.push(pair.rtp);
        self.in_use -= 1;
        if let Some((pool, port)) = self.origins.get(pair.rtp as usize / 2).copied()
            && let Some(pool) = self.pools.get_mut(pool)
        {
            pool.resting.push_back((Instant::now(), port));
        }
    }
}
