//! STUN on the SIP port of a datagram listener: the keepalive of RFC 5626 §4.4.2, by which a phone also learns that its
//! NAT gave it another address.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};

/// RFC 8489 §5.
const COOKIE: u32 = 0x2112_a442;
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const HEADER: usize = 20;
/// Type and length of an attribute, octets.
const ATTRIBUTE: u16 = 4;

/// The answer to a datagram that is a Binding request. No SIP message begins with a byte below 4.
pub(crate) fn answer(datagram: &[u8], source: SocketAddr) -> Option<Bytes> {
    let (header, attributes) = datagram.split_first_chunk::<HEADER>()?;
    let (&[kind_high, kind_low, length_high, length_low], key) = header.split_first_chunk()?;
    let length = u16::from_be_bytes([length_high, length_low]);
    let is_request = u16::from_be_bytes([kind_high, kind_low]) == BINDING_REQUEST
        && usize::from(length) == attributes.len()
        && length.is_multiple_of(4)
        && key.starts_with(&COOKIE.to_be_bytes());
    if !is_request {
        return None;
    }
    // The address is hidden with the cookie and the transaction id (RFC 8489 §14.2), which are `key`.
    let (family, length, address) = match source.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => (1, 8, ip.octets().to_vec()),
        std::net::IpAddr::V6(ip) => (2, 20, ip.octets().to_vec()),
    };
    let mut out = BytesMut::with_capacity(HEADER + 24);
    out.put_u16(BINDING_SUCCESS);
    out.put_u16(u16::saturating_add(length, ATTRIBUTE));
    out.put_slice(key);
    out.put_u16(XOR_MAPPED_ADDRESS);
    out.put_u16(length);
    out.put_u16(family);
    out.put_u16(source.port() ^ (COOKIE >> 16) as u16);
    out.extend(address.iter().zip(key).map(|(byte, mask)| byte ^ mask));
    Some(out.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stun_types::attribute::XorMappedAddress;
    use stun_types::message::{BINDING, Message, MessageWriteVec};
    use stun_types::prelude::*;

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
