//! STUN on the SIP port of a datagram listener: the keepalive of RFC 5626 §4.4.2, by which a phone also learns that its
//! NAT gave it another address.

use std::net::SocketAddr;

use bytes::Bytes;
use media_wire::stun::{Class, Incoming, Method, Outgoing};

/// The answer to a datagram that is a Binding request. No SIP message begins with a byte below 4.
pub(crate) fn answer(datagram: &[u8], source: SocketAddr) -> Option<Bytes> {
    let request = Incoming::read(datagram)?;
    if (request.method(), request.class()) != (Method::Binding, Class::Request) {
        return None;
    }
    let source = SocketAddr::new(source.ip().to_canonical(), source.port());
    let answer = Outgoing::new(Method::Binding, Class::Success, request.transaction());
    Some(answer.mapped_address(source).bare().into())
}

#[cfg(test)]
mod tests {
    use stun_types::attribute::XorMappedAddress;
    use stun_types::message::{BINDING, Message, MessageWriteVec};
    use stun_types::prelude::*;

    use super::*;

    const HEADER: usize = 20;

    #[test]
    fn another_implementation_reads_its_own_address_from_the_answer() {
        for source in ["192.0.2.7:1234", "[2001:db8::7]:1234"] {
            let source: SocketAddr = source.parse().unwrap();
            let request = Message::builder_request(BINDING, MessageWriteVec::new());
            let id = request.transaction_id();
            let answer = answer(&request.finish(), source).unwrap();
            let answer = Message::from_bytes(&answer).unwrap();
            assert_eq!(answer.transaction_id(), id);
            assert!(answer.is_response());
            let mapped = answer.attribute::<XorMappedAddress>().unwrap();
            assert_eq!(mapped.addr(id), source);
        }
    }

    #[test]
    fn what_is_no_binding_request_gets_no_answer() {
        let source = "192.0.2.7:1234".parse().unwrap();
        let request = Message::builder_request(BINDING, MessageWriteVec::new()).finish();
        for broken in 0..HEADER - 12 {
            let mut datagram = request.clone();
            datagram[broken] ^= 0x55;
            assert!(answer(&datagram, source).is_none(), "{broken}");
        }
        assert!(answer(&request[..HEADER - 1], source).is_none());
        let success = super::answer(&request, source).unwrap();
        assert!(answer(&success, source).is_none(), "two servers must not talk for ever");
    }
}
