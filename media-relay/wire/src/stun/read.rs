//! Reading one message. What a caller sees of it is only what its integrity value covers.

use std::net::{IpAddr, SocketAddr};

use super::integrity::{FINGERPRINT_LENGTH, Key, Signature, fingerprint};
use super::{
    ATTRIBUTE, CHANGE_REQUEST, COMPREHENSION_OPTIONAL, COOKIE, Class, ERROR_CODE, FINGERPRINT, HEADER,
    MESSAGE_INTEGRITY, MESSAGE_INTEGRITY_SHA256, Method, OTHER_ADDRESS, PRIORITY, UNKNOWN_ATTRIBUTES,
    USE_CANDIDATE, USERNAME, XOR_MAPPED_ADDRESS, is_stun,
};

/// Comprehension-required attributes that are understood, be it only that a message of ours has no use for them: those of RFC 8489
/// §18.3, of ICE (RFC 8445 §16.1), and CHANGE-REQUEST (RFC 5780 §7.2).
const UNDERSTOOD: [u16; 16] = [
    0x0001, // MAPPED-ADDRESS
    CHANGE_REQUEST,
    USERNAME,
    MESSAGE_INTEGRITY,
    ERROR_CODE,
    UNKNOWN_ATTRIBUTES,
    0x0014, // REALM
    0x0015, // NONCE
    MESSAGE_INTEGRITY_SHA256,
    0x001D, // PASSWORD-ALGORITHM
    0x001E, // USERHASH
    XOR_MAPPED_ADDRESS,
    PRIORITY,
    USE_CANDIDATE,
    // RFC 3489's, which old phones add to their checks.
    0x0002, // RESPONSE-ADDRESS
    0x0004, // SOURCE-ADDRESS
];

/// A message whose framing, and fingerprint if it has one, are right. Nothing in it is authentic before
/// [`Incoming::authentic`] has said so.
#[derive(Debug)]
pub struct Incoming<'a> {
    packet: &'a [u8],
    method: Method,
    class: Class,
    /// Attributes up to the first that ends them.
    attributes: &'a [u8],
    seal: Seal<'a>,
}

/// What stands at the end of a message (RFC 8489 §14.5 to §14.7).
#[derive(Debug, Default)]
struct Seal<'a> {
    /// Its first integrity value: which, where its attribute begins, the value.
    integrity: Option<(u16, usize, &'a [u8])>,
    /// There is another one.
    has_second: bool,
    has_fingerprint: bool,
}

impl<'a> Incoming<'a> {
    /// `None` for what is not STUN, badly framed, or of another method.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        if !is_stun(packet) {
            return None;
        }
        let [kind, more_kind, high, low] = *packet.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !length.is_multiple_of(4) || length.saturating_add(HEADER) != packet.len() {
            return None;
        }
        let kind = u16::from_be_bytes([kind, more_kind]);
        let method = Method::of(kind)?;
        let (mut at, mut end) = (HEADER, None);
        let mut seal = Seal::default();
        let mut is_over = false;
        for (kind, value) in walk(packet.get(HEADER..)?) {
            let is_end = matches!(kind, MESSAGE_INTEGRITY | MESSAGE_INTEGRITY_SHA256 | FINGERPRINT);
            // What stands behind the end is nobody's: FINGERPRINT is last, and only it and a second integrity value follow the first.
            is_over |= seal.has_fingerprint || (end.is_some() && !is_end);
            if is_end && !is_over {
                end.get_or_insert(at);
                seal.take(packet.get(..at)?, kind, value)?;
            }
            at = at.saturating_add(ATTRIBUTE).saturating_add(value.len().next_multiple_of(4));
        }
        let attributes = packet.get(HEADER..end.unwrap_or(at))?;
        (at == packet.len()).then_some(Self { packet, method, class: Class::of(kind), attributes, seal })
    }

    /// Its method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// 96 bits.
    pub fn transaction(&self) -> u128 {
        let id = self.packet.get(8..HEADER).unwrap_or_default();
        id.iter().fold(0, |id, byte| (id << 8) | u128::from(*byte))
    }

    /// USERNAME.
    pub fn username(&self) -> Option<&'a str> {
        // RFC 5389 §15.3, the more generous one.
        std::str::from_utf8(self.value(USERNAME)?).ok().filter(|name| name.len() < 513)
    }

    /// ERROR-CODE (RFC 8489 §14.8).
    pub fn error_code(&self) -> Option<u16> {
        let [_, _, class, number] = *self.value(ERROR_CODE)?.first_chunk()?;
        let is_code = (3..=6).contains(&(class & 7)) && number < 100;
        is_code.then(|| u16::from(class & 7).saturating_mul(100).saturating_add(number.into()))
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        let hidden = read_address(self.value(XOR_MAPPED_ADDRESS)?)?;
        Some(masked(hidden, self.transaction()))
    }

    /// OTHER-ADDRESS (RFC 5780 §7.4), written like MAPPED-ADDRESS.
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.address(OTHER_ADDRESS)
    }

    /// An address in the form of MAPPED-ADDRESS (RFC 8489 §14.1).
    pub fn address(&self, kind: u16) -> Option<SocketAddr> {
        read_address(self.value(kind)?)
    }

    /// Type and value of each attribute that integrity covers, in order.
    pub fn attributes(&self) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        walk(self.attributes)
    }

    /// The first attribute of that type among those that integrity covers.
    pub fn value(&self, kind: u16) -> Option<&'a [u8]> {
        self.values(kind).next()
    }

    /// All attributes of that type, in order.
    pub fn values(&self, kind: u16) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.attributes().filter(move |(known, _)| *known == kind).map(|(_, value)| value)
    }

    /// Types of the attributes that its sender demands to be understood, and are not (RFC 8489 §6.3). An authentic request with
    /// any is answered with 420 that names them, an indication is dropped, a success means failure.
    pub fn unknown(&self) -> Vec<u16> {
        let types = self.attributes().map(|(kind, _)| kind);
        types.filter(|kind| *kind < COMPREHENSION_OPTIONAL && !UNDERSTOOD.contains(kind)).collect()
    }

    /// A 32 bit attribute.
    pub fn word(&self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// A 64 bit attribute.
    pub fn long(&self, kind: u16) -> Option<u64> {
        Some(u64::from_be_bytes(self.value(kind)?.try_into().ok()?))
    }

    /// Whether its integrity value, of the kind that its method demands, is that of `key`: SHA-1 for Binding (RFC 8445
    /// §7.1.1), SHA-256, not truncated, for HANDOFF.
    pub fn authentic(&self, key: &Key) -> bool {
        let wanted = Signature::of(self.method);
        let Some((kind, at, value)) = self.seal.integrity else { return false };
        // FINGERPRINT is outside of what integrity covers, and demanded by RFC 8445 §7.1. Two values at once nobody sends.
        self.has_fingerprint()
            && !self.seal.has_second
            && kind == wanted.attribute()
            && self.packet.get(..at).is_some_and(|before| wanted.is_by(key, before, value))
    }

    /// Whether it ends with FINGERPRINT (whose value has been checked by then).
    pub fn has_fingerprint(&self) -> bool {
        self.seal.has_fingerprint
    }
}

impl<'a> Seal<'a> {
    /// An attribute of the end, and what stands `before` it; `None` if it is a fingerprint of something else.
    fn take(&mut self, before: &[u8], kind: u16, value: &'a [u8]) -> Option<()> {
        if kind == FINGERPRINT {
            let value: [u8; FINGERPRINT_LENGTH] = value.try_into().ok()?;
            self.has_fingerprint = fingerprint(before)? == value;
            return self.has_fingerprint.then_some(());
        }
        self.has_second = self.integrity.is_some();
        self.integrity.get_or_insert((kind, before.len(), value));
        Some(())
    }
}

/// Type and value of each attribute; ends at one that is not whole.
fn walk(attributes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = attributes;
    std::iter::from_fn(move || {
        let [kind, more_kind, high, low] = *rest.first_chunk()?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let value = rest.get(ATTRIBUTE..)?.get(..length)?;
        rest = rest.get(length.next_multiple_of(4).saturating_add(ATTRIBUTE)..)?;
        Some((u16::from_be_bytes([kind, more_kind]), value))
    })
}

/// MAPPED-ADDRESS's form: family, port, address.
fn read_address(value: &[u8]) -> Option<SocketAddr> {
    let ([_, family, high, low], address) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([*high, *low]);
    match family {
        1 => Some(SocketAddr::from((<[u8; 4]>::try_from(address).ok()?, port))),
        2 => Some(SocketAddr::from((<[u8; 16]>::try_from(address).ok()?, port))),
        _ => None,
    }
}

/// XOR-MAPPED-ADDRESS from the plain form or back: mixed with the cookie and, in IPv6, the transaction.
pub(super) fn masked(address: SocketAddr, transaction: u128) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::from((u32::from(ip) ^ COOKIE).to_be_bytes()),
        IpAddr::V6(ip) => {
            let mask = (u128::from(COOKIE) << 96) | transaction;
            IpAddr::from((u128::from(ip) ^ mask).to_be_bytes())
        }
    };
    SocketAddr::new(ip, address.port() ^ (COOKIE >> 16) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stun::Outgoing;

    fn request(method: Method, key: &Key) -> Vec<u8> {
        Outgoing::new(method, Class::Request, 7)
            .username("far", "near")
            .with(0xC0C0, &[0, 0, 0, 9])
            .sealed(key)
    }

    #[test]
    fn the_first_byte_tells_handoff_from_media_and_its_type_is_the_documented_one() {
        let packet = request(Method::Handoff, &Key::new("secret"));
        assert_eq!(packet[..2], [0x02, 0x85]);
        assert!(is_stun(&packet) && !is_stun(&[0x80; 40]));
    }

    #[test]
    fn attributes_are_walked_and_lies_about_length_refused() {
        let mut packet = vec![0, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];
        packet.extend([0, 6, 0, 5, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        let message = Incoming::read(&packet).unwrap();
        assert_eq!(message.attributes().collect::<Vec<_>>(), [(6, b"abcde".as_slice())]);
        packet[23] = 9;
        assert!(Incoming::read(&packet).is_none());
        packet.pop();
        assert!(Incoming::read(&packet).is_none());
    }

    #[test]
    fn a_message_is_authentic_only_with_its_key_and_untouched() {
        let key = Key::new("secret");
        for method in [Method::Binding, Method::Handoff] {
            let packet = request(method, &key);
            let message = Incoming::read(&packet).unwrap();
            assert!(message.authentic(&key) && message.has_fingerprint());
            assert!(!message.authentic(&Key::new("other")));
            assert_eq!(message.username(), Some("far:near"));
            assert_eq!(message.word(0xC0C0), Some(9));
            for byte in 0..packet.len() {
                let mut bent = packet.clone();
                bent[byte] ^= 1;
                let accepted = Incoming::read(&bent).is_some_and(|message| message.authentic(&key));
                assert!(!accepted, "byte {byte} of {method:?}");
            }
        }
    }

    #[test]
    fn what_follows_the_integrity_value_is_not_seen() {
        let key = Key::new("secret");
        let mut packet = Outgoing::new(Method::Handoff, Class::Request, 7).sealed(&key);
        packet.truncate(packet.len() - 8);
        packet.extend([0xC0, 0xC0, 0, 4, 0, 0, 0, 9]);
        if let Some(message) = Incoming::read(&packet) {
            assert_eq!(message.word(0xC0C0), None);
        }
    }

    #[test]
    fn attributes_that_must_be_understood_and_are_not_are_named_and_all_others_are_not() {
        let key = Key::new("secret");
        let packet = Outgoing::new(Method::Handoff, Class::Request, 7)
            .with(0x7FFF, &[1])
            .username("far", "near")
            .with(0x0026, &[0; 40])
            .with(0x8000, &[2])
            .with(0xC0C0, &[0, 0, 0, 9])
            .sealed(&key);
        let message = Incoming::read(&packet).unwrap();
        assert!(message.authentic(&key));
        assert_eq!(message.unknown(), [0x7FFF, 0x0026]);
        let answer =
            Outgoing::new(Method::Handoff, Class::Error, 7).not_understood(&message.unknown()).sealed(&key);
        let answer = Incoming::read(&answer).unwrap();
        assert!(answer.authentic(&key) && answer.unknown().is_empty());
        assert_eq!(answer.error_code(), Some(420));
        assert_eq!(answer.value(0x000A), Some(&[0x7F, 0xFF, 0x00, 0x26][..]));
    }

    #[test]
    fn handoff_with_the_integrity_of_checks_is_refused() {
        let key = Key::new("secret");
        let packet = Outgoing::new(Method::Handoff, Class::Request, 7).sealed_with(Signature::Sha1, &key);
        assert!(!Incoming::read(&packet).unwrap().authentic(&key));
    }
}
