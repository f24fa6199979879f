//! The discovery service: STUN with two addresses and two ports (RFC 5780), by which an endpoint learns what its NAT does
//! (docs/crush.md §3.2).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use media_wire::stun::{COOKIE, Message};
use tokio::net::UdpSocket;
use vitals::Vitals;

const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;
const CHANGE_ADDRESS: u32 = 4;
const CHANGE_PORT: u32 = 2;
/// Types from here on may be ignored by who does not know them (RFC 8489 §14).
const OPTIONAL: u16 = 0x8000;
/// USERNAME, MESSAGE-INTEGRITY, REALM, NONCE, MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM, USERHASH: known, and of no use here.
const IDENTITY: [u16; 7] = [0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e];

/// The addresses and ports, primary ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Two of one family.
    pub addresses: [IpAddr; 2],
    /// Two.
    pub ports: [u16; 2],
}

impl Places {
    /// A place, by the index of its address and of its port.
    pub fn at(&self, address: usize, port: usize) -> SocketAddr {
        let ([ip, other_ip], [own, other_port]) = (self.addresses, self.ports);
        SocketAddr::new(if address == 0 { ip } else { other_ip }, if port == 0 { own } else { other_port })
    }

    /// The answer to a datagram that reached a place (index of its address, of its port), and the place that it leaves from.
    pub fn answer(
        &self,
        (address, port): (usize, usize),
        source: SocketAddr,
        datagram: &[u8],
    ) -> Option<(Vec<u8>, (usize, usize))> {
        let request = Message::read(datagram).filter(|message| message.kind == BINDING_REQUEST)?;
        let mut change = 0;
        let mut unknown = Vec::new();
        for (kind, value) in request.attributes() {
            match kind {
                CHANGE_REQUEST => change = u32::from_be_bytes(value.try_into().ok()?),
                _ if kind >= OPTIONAL || IDENTITY.contains(&kind) => {}
                _ => unknown.extend(kind.to_be_bytes()),
            }
        }
        if !unknown.is_empty() {
            // RFC 8489 §6.3.1.
            let attributes = [(ERROR_CODE, vec![0, 0, 4, 20]), (UNKNOWN_ATTRIBUTES, unknown)];
            return Some((write(BINDING_ERROR, &request, &attributes), (address, port)));
        }
        let turn = |place: usize, flag: u32| if change & flag == 0 { place } else { other(place) };
        let from = (turn(address, CHANGE_ADDRESS), turn(port, CHANGE_PORT));
        let attributes = [
            (XOR_MAPPED_ADDRESS, hidden(source, &request.transaction)),
            (RESPONSE_ORIGIN, plain(self.at(from.0, from.1))),
            // RFC 5780 §7.4: both different from where the request came to.
            (OTHER_ADDRESS, plain(self.at(other(address), other(port)))),
        ];
        Some((write(BINDING_SUCCESS, &request, &attributes), from))
    }
}

/// The other of two.
const fn other(index: usize) -> usize {
    if index == 0 { 1 } else { 0 }
}

fn write(kind: u16, request: &Message<'_>, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::with_capacity(80);
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut out = Vec::with_capacity(body.len().saturating_add(20));
    out.extend(kind.to_be_bytes());
    out.extend((body.len() as u16).to_be_bytes());
    out.extend(COOKIE.to_be_bytes());
    out.extend(request.transaction);
    out.extend(body);
    out
}

/// MAPPED-ADDRESS's form (RFC 8489 §14.1).
fn plain(address: SocketAddr) -> Vec<u8> {
    let mut value = vec![0, if address.is_ipv4() { 1 } else { 2 }];
    value.extend(address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets()),
        IpAddr::V6(ip) => value.extend(ip.octets()),
    }
    value
}

/// XOR-MAPPED-ADDRESS's form (RFC 8489 §14.2).
fn hidden(address: SocketAddr, transaction: &[u8; 12]) -> Vec<u8> {
    let mut value = plain(address);
    let cookie = COOKIE.to_be_bytes();
    let key = cookie.iter().take(2).chain(&cookie).chain(transaction);
    value.iter_mut().skip(2).zip(key).for_each(|(byte, key)| *byte ^= key);
    value
}

/// The four sockets, bound.
#[derive(Debug)]
pub struct Discovery {
    places: Places,
    sockets: [Arc<UdpSocket>; 4],
}

impl Discovery {
    /// Binds them; the error names the one that could not be.
    pub async fn bind(places: Places) -> io::Result<Self> {
        let bind = async |address, port| {
            let at = places.at(address, port);
            let socket = UdpSocket::bind(at).await;
            socket.map(Arc::new).map_err(|error| io::Error::new(error.kind(), format!("{at}: {error}")))
        };
        let sockets = [bind(0, 0).await?, bind(0, 1).await?, bind(1, 0).await?, bind(1, 1).await?];
        Ok(Self { places, sockets })
    }

    /// Answers, until the program ends.
    pub fn serve(self, vitals: &Vitals) {
        for (index, socket) in self.sockets.iter().enumerate() {
            let place = (index / 2, index % 2);
            let part = vitals.part(format!("discovery {}", self.places.at(place.0, place.1)));
            tokio::spawn(part.task(serve(self.places, place, socket.clone(), self.sockets.clone())));
        }
    }
}

async fn serve(places: Places, place: (usize, usize), socket: Arc<UdpSocket>, all: [Arc<UdpSocket>; 4]) {
    let mut buffer = [0; 1500];
    loop {
        // An error is an ICMP answer to something sent before.
        let Ok((length, source)) = socket.recv_from(&mut buffer).await else { continue };
        let datagram = buffer.get(..length).unwrap_or_default();
        let answer = vitals::contained(|| places.answer(place, source, datagram));
        if let Ok(Some((answer, from))) = answer {
            let [main, port, address, both] = &all;
            let socket = match from {
                (0, 0) => main,
                (0, _) => port,
                (_, 0) => address,
                _ => both,
            };
            let _ = socket.send_to(&answer, source).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        packet.extend(1..=12);
        packet.extend(attributes);
        packet
    }

    fn change(flags: u8) -> Vec<u8> {
        request(&[0, 3, 0, 4, 0, 0, 0, flags])
    }

    /// The address in an attribute of an answer, in its plain form.
    fn address(answer: &[u8], wanted: u16) -> Option<SocketAddr> {
        let message = Message::read(answer)?;
        let value = message.attributes().find(|(kind, _)| *kind == wanted)?.1;
        let port = u16::from_be_bytes([value[2], value[3]]);
        let ip: [u8; 4] = value[4..].try_into().ok()?;
        let is_hidden = wanted == XOR_MAPPED_ADDRESS;
        let cookie = if is_hidden { COOKIE } else { 0 };
        Some(SocketAddr::from((
            (u32::from_be_bytes(ip) ^ cookie).to_be_bytes(),
            port ^ (cookie >> 16) as u16,
        )))
    }

    #[tokio::test]
    async fn each_change_that_is_asked_for_comes_from_its_own_socket_and_says_so() {
        // Two ports that nobody has: bound together, and given back.
        let held: [_; 2] = std::array::from_fn(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
        let ports = held.each_ref().map(|socket| socket.local_addr().unwrap().port());
        drop(held);
        let places = Places { addresses: [[127, 0, 0, 1].into(), [127, 0, 0, 2].into()], ports };
        Discovery::bind(places).await.unwrap().serve(&Vitals::default());
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let own = client.local_addr().unwrap();
        for (flags, from) in [(0, (0, 0)), (2, (0, 1)), (4, (1, 0)), (6, (1, 1))] {
            client.send_to(&change(flags), places.at(0, 0)).await.unwrap();
            let mut buffer = [0; 200];
            let answered = tokio::time::timeout(Duration::from_secs(5), client.recv_from(&mut buffer));
            let (length, source) = answered.await.unwrap().unwrap();
            let answer = &buffer[..length];
            assert_eq!(source, places.at(from.0, from.1), "flags {flags}");
            assert_eq!(address(answer, RESPONSE_ORIGIN), Some(source));
            assert_eq!(address(answer, OTHER_ADDRESS), Some(places.at(1, 1)));
            assert_eq!(address(answer, XOR_MAPPED_ADDRESS), Some(own));
        }
    }

    #[test]
    fn what_is_no_request_is_not_answered_and_what_must_be_understood_is_named() {
        let places =
            Places { addresses: [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], ports: [3478, 3479] };
        let source = SocketAddr::from(([198, 51, 100, 7], 4000));
        let mut response = change(0);
        response[0] = 1;
        for packet in [&response[..], b"OPTIONS sip:x SIP/2.0", &[], &change(0)[..27]] {
            assert_eq!(places.answer((0, 0), source, packet), None);
        }
        // RESPONSE-PORT (RFC 5780 §7.5), which is optional to support.
        let (answer, from) = places.answer((1, 0), source, &request(&[0, 0x27, 0, 2, 9, 9, 0, 0])).unwrap();
        assert_eq!((&answer[..2], from), (&[1, 0x11][..], (1, 0)));
        let message = Message::read(&answer).unwrap();
        let unknown = message.attributes().find(|(kind, _)| *kind == UNKNOWN_ATTRIBUTES).unwrap();
        assert_eq!(unknown.1, [0, 0x27]);
    }
}
