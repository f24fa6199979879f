//! Where two phones and a relay are, on the virtual network of NATs.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use nat_lab::{End, Event, HostId, Impairment, Link, Network, PUBLIC};

use crate::ports::Counted;

/// The relay has two addresses.
pub const RELAY: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
/// What the phones' networks have outside.
const OUTSIDE: [&str; 2] = ["198.51.100.7", "203.0.113.8"];
/// The phones themselves, behind a NAT each.
const INSIDE: [&str; 2] = ["192.168.1.10", "192.168.2.10"];

/// Where the phones are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In one LAN behind one NAT that loops packets back.
    OneLan,
    /// Each behind its own, or behind none.
    Apart([Option<nat_lab::Kind>; 2]),
    /// At these addresses, as the relay sees them too, in a realm each.
    Realms([&'static str; 2]),
}

/// Something that has come to somebody.
#[derive(Debug, Clone)]
pub struct Datagram {
    /// To whom.
    pub host: HostId,
    /// Whence, as the host sees it.
    pub source: SocketAddr,
    /// To which of its addresses.
    pub destination: SocketAddr,
    /// What.
    pub payload: Bytes,
}

/// The network of one call.
#[derive(Debug)]
pub struct Ground {
    /// All of it.
    pub network: Network,
    /// The host with the addresses of [`RELAY`].
    pub relay: HostId,
    /// The phones' hosts, and the address of each.
    pub hosts: [(HostId, IpAddr); 2],
    /// Where the relay sees each.
    pub seen: [IpAddr; 2],
    /// What leads to the phones from outside: one line, or one each.
    lines: Vec<End>,
}

impl Ground {
    /// With lines to the outside, of which phones in one LAN share the first.
    pub fn new(seed: u64, place: Place, lines: [Impairment; 2]) -> Self {
        let mut network = Network::new(seed);
        let relay = network.add_host(PUBLIC, &addresses(RELAY));
        let outside = addresses(OUTSIDE);
        let mut ends: Vec<End> = Vec::new();
        let hosts = match place {
            Place::OneLan => {
                let router = network.add_nat(PUBLIC, nat_lab::Kind::Cone.into(), &outside[..1]);
                ends.push(router.into());
                addresses(["192.168.1.10", "192.168.1.11"])
                    .map(|ip| (network.add_host(router.inside(), &[ip]), ip))
            }
            Place::Realms(of) => addresses(of).map(|ip| {
                let host = network.add_host(PUBLIC, &[ip]);
                ends.push(host.into());
                (host, ip)
            }),
            Place::Apart(kinds) => [0, 1].map(|index| match kinds[index] {
                None => {
                    let host = network.add_host(PUBLIC, &[outside[index]]);
                    ends.push(host.into());
                    (host, outside[index])
                }
                Some(kind) => {
                    let router = network.add_nat(PUBLIC, kind.into(), &[outside[index]]);
                    ends.push(router.into());
                    let is_firewall = kind == nat_lab::Kind::Firewall;
                    let own = if is_firewall { outside[index] } else { addresses(INSIDE)[index] };
                    (network.add_host(router.inside(), &[own]), own)
                }
            }),
        };
        let seen = match place {
            Place::OneLan => [outside[0]; 2],
            Place::Apart(_) => outside,
            Place::Realms(_) => hosts.map(|host| host.1),
        };
        let mut ground = Self { network, relay, hosts, seen, lines: ends };
        ground.set_lines(|index| lines[index]);
        ground
    }

    /// Somebody else at a public address, by a line of its own that no other is changed with.
    pub fn join(&mut self, address: &str, line: Impairment) -> (HostId, IpAddr) {
        let [ip] = addresses([address]);
        let host = self.network.add_host(PUBLIC, &[ip]);
        self.network.set_link(host, Link::both(line));
        (host, ip)
    }

    /// The lines are so from now on, in both directions.
    pub fn set_lines(&mut self, mut line: impl FnMut(usize) -> Impairment) {
        for (index, end) in self.lines.iter().enumerate() {
            self.network.set_link(*end, Link::both(line(index)));
        }
    }

    /// No packet of the first party reaches the second one's network directly, of the second the first one's, or both.
    pub fn cut(&mut self, ways: [bool; 2]) {
        let [one, other] = addresses(OUTSIDE);
        if ways[0] {
            self.network.cut(one, other);
        }
        if ways[1] {
            self.network.cut(other, one);
        }
    }

    /// This share of what goes from one party's network to the other's directly is lost, both ways.
    pub fn fade(&mut self, share: f64) {
        let [one, other] = addresses(OUTSIDE);
        self.network.fade(one, other, share);
        self.network.fade(other, one, share);
    }

    /// What comes until now.
    pub fn next(&mut self, now: Duration) -> Option<Datagram> {
        loop {
            if let Event::Datagram { host, source, destination, payload } = self.network.next_until(now)? {
                return Some(Datagram { host, source, destination, payload });
            }
        }
    }

    /// Brings what has come to the relay to its worker, and sends what that makes of it. False if the port is not open.
    pub fn pass(&mut self, worker: &mut Worker, ports: &Counted, came: &Datagram, now: Duration) -> bool {
        let Some(socket) = ports.socket(came.destination) else { return false };
        let (network, relay) = (&mut self.network, self.relay);
        let arrival = media_core::worker::Arrival { socket, source: came.source, now };
        worker.packet(arrival, &came.payload, |out, to, bytes| {
            let from = ports.address(out).expect("an open socket");
            let _ = network.send(relay, from, to, Bytes::copy_from_slice(bytes));
        });
        self.transmit(worker, ports);
        true
    }

    /// Sends what the relay's worker says of itself.
    pub fn transmit(&mut self, worker: &mut Worker, ports: &Counted) {
        while let Some((socket, to, bytes)) = worker.poll_transmit() {
            let from = ports.address(socket).expect("an open socket");
            let _ = self.network.send(self.relay, from, to, bytes.into());
        }
    }
}

/// The relay's addresses.
pub fn relays() -> [IpAddr; 2] {
    addresses(RELAY)
}

fn addresses<const N: usize>(texts: [&str; N]) -> [IpAddr; N] {
    texts.map(|text| text.parse().expect("an address"))
}
