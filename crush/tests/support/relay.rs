//! What docs/crush.md asks of the SBC's media plane, and the discovery service of RFC 5780.

use std::net::{IpAddr, SocketAddr};

use crush::stun::{
    CHANGE_ADDRESS, CHANGE_PORT, CHANGE_REQUEST, Class, Incoming, Key, Method, OTHER_ADDRESS, Outgoing,
    is_stun,
};

pub const UFRAG: &str = "relayUfr";
pub const PWD: &str = "relayPasswordRelayPass";

/// One side of one stream.
#[derive(Debug, Clone, Copy)]
struct Port {
    side: usize,
    stream: usize,
    latched: Option<SocketAddr>,
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    pub addresses: [IpAddr; 2],
    ports: Vec<Port>,
    pub rtp: u64,
    /// RTP packets by side from which they came.
    pub rtp_from: [u64; 2],
}

const FIRST: u16 = 10_000;

impl Relay {
    pub fn new(addresses: [IpAddr; 2], streams: usize) -> Self {
        let ports = (0..streams)
            .flat_map(|stream| (0..2).map(move |side| Port { side, stream, latched: None }))
            .collect();
        Self { addresses, ports, rtp: 0, rtp_from: [0; 2] }
    }

    /// Where a side sends a stream.
    pub fn address(&self, side: usize, stream: usize) -> SocketAddr {
        SocketAddr::new(self.addresses[0], FIRST + (stream * 2 + side) as u16 * 2)
    }

    pub fn server(&self) -> SocketAddr {
        SocketAddr::new(self.addresses[0], 3478)
    }

    /// What a datagram to the relay or the discovery service causes: datagrams (source, destination, bytes).
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        if [3478, 3479].contains(&to.port()) {
            return self.discovery(from, to, bytes).into_iter().collect();
        }
        let Some(place) = to.port().checked_sub(FIRST).map(|offset| usize::from(offset / 2)) else {
            return Vec::new();
        };
        if place >= self.ports.len() {
            return Vec::new();
        }
        let message = is_stun(bytes).then(|| Incoming::read(bytes)).flatten();
        if let Some(message) = message.filter(|message| message.method() == Method::Binding) {
            if message.class() != Class::Request {
                return Vec::new();
            }
            let key = Key::new(PWD);
            let response = Outgoing::new(Method::Binding, Class::Success, message.transaction());
            if message.username().is_none() {
                return vec![(to, from, response.mapped_address(from).plain())];
            }
            if !message.authentic(&key) {
                let error = Outgoing::new(Method::Binding, Class::Error, message.transaction());
                return vec![(to, from, error.error_code(401).plain())];
            }
            self.ports[place].latched = Some(from);
            return vec![(to, from, response.mapped_address(from).sealed(&key))];
        }
        let port = self.ports[place];
        if *self.ports[place].latched.get_or_insert(from) != from {
            return Vec::new();
        }
        if !is_stun(bytes) {
            self.rtp += 1;
            self.rtp_from[port.side] += 1;
        }
        let other = port.stream * 2 + 1 - port.side;
        let out = self.address(1 - port.side, port.stream);
        self.ports[other].latched.map(|whereto| (out, whereto, bytes.to_vec())).into_iter().collect()
    }

    fn discovery(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let message = Incoming::read(bytes).filter(|message| message.class() == Class::Request)?;
        let other_ip = if to.ip() == self.addresses[0] { self.addresses[1] } else { self.addresses[0] };
        let other_port = if to.port() == 3478 { 3479 } else { 3478 };
        let change = message.word(CHANGE_REQUEST).unwrap_or(0);
        let ip = if change & CHANGE_ADDRESS == 0 { to.ip() } else { other_ip };
        let port = if change & CHANGE_PORT == 0 { to.port() } else { other_port };
        let mut other = match other_ip {
            IpAddr::V4(_) => vec![0, 1],
            IpAddr::V6(_) => vec![0, 2],
        };
        other.extend(u16::to_be_bytes(other_port));
        match other_ip {
            IpAddr::V4(ip) => other.extend(ip.octets()),
            IpAddr::V6(ip) => other.extend(ip.octets()),
        }
        let response = Outgoing::new(Method::Binding, Class::Success, message.transaction())
            .mapped_address(from)
            .with(OTHER_ADDRESS, &other)
            .plain();
        Some((SocketAddr::new(ip, port), from, response))
    }
}
