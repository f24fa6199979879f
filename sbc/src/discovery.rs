//! The discovery service: STUN with two addresses and two ports (RFC 5780), by which an endpoint learns what its NAT does
//! (docs/crush.md §3.2).

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use media_wire::stun::{
    CHANGE_ADDRESS, CHANGE_PORT, CHANGE_REQUEST, COMPREHENSION_OPTIONAL, Class, Incoming, Method,
    OTHER_ADDRESS, Outgoing, RESPONSE_ORIGIN,
};
use tokio::net::UdpSocket;
use vitals::Vitals;

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
        let request = Incoming::read(datagram)?;
        if (request.method(), request.class()) != (Method::Binding, Class::Request) {
            return None;
        }
        let answer = |class| Outgoing::new(Method::Binding, class, request.transaction());
        let mut change = 0;
        let mut unknown = Vec::new();
        for (kind, value) in request.attributes() {
            match kind {
                CHANGE_REQUEST => change = u32::from_be_bytes(value.try_into().ok()?),
                _ if kind >= COMPREHENSION_OPTIONAL || IDENTITY.contains(&kind) => {}
                _ => unknown.push(kind),
            }
        }
        if !unknown.is_empty() {
            // RFC 8489 §6.3.1.
            return Some((answer(Class::Error).not_understood(&unknown).bare(), (address, port)));
        }
        let turn = |place: usize, flag: u32| if change & flag == 0 { place } else { other(place) };
        let from = (turn(address, CHANGE_ADDRESS), turn(port, CHANGE_PORT));
        let answer = answer(Class::Success)
            .mapped_address(source)
            .address(RESPONSE_ORIGIN, self.at(from.0, from.1))
            // RFC 5780 §7.4: both different from where the request came to.
            .address(OTHER_ADDRESS, self.at(other(address), other(port)));
        Some((answer.bare(), from))
    }
}

/// The other of two.
const fn other(index: usize) -> usize {
    if index == 0 { 1 } else { 0 }
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
    use std::time::Duration;

    use media_wire::stun::UNKNOWN_ATTRIBUTES;

    use super::*;

    fn request(attributes: &[u8]) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, attributes.len() as u8, 0x21, 0x12, 0xa4, 0x42];
        packet.extend(1..=12);
        packet.extend(attributes);
        packet
    }

    fn change(flags: u8) -> Vec<u8> {
        request(&[0, 3, 0, 4, 0, 0, 0, flags])
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
            let answer = Incoming::read(&buffer[..length]).unwrap();
            assert_eq!(source, places.at(from.0, from.1), "flags {flags}");
            assert_eq!(answer.address(RESPONSE_ORIGIN), Some(source));
            assert_eq!(answer.address(OTHER_ADDRESS), Some(places.at(1, 1)));
            assert_eq!(answer.mapped_address(), Some(own));
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
        let message = Incoming::read(&answer).unwrap();
        assert_eq!(message.value(UNKNOWN_ATTRIBUTES), Some(&[0, 0x27][..]));
    }
}
