//! Reading and writing one STUN message. Framing, integrity and fingerprint are those of `stun-types`; what a
//! caller sees afterwards is only what the integrity value covers.

use std::net::SocketAddr;

use super::is_stun;
use stun_types::attribute::{
    Attribute as _, AttributeStaticType, ErrorCode, Fingerprint, MessageIntegrity, MessageIntegritySha256,
    RawAttribute, Username, XorMappedAddress, XorSocketAddr,
};
use stun_types::message::{
    IntegrityAlgorithm, IntegrityKey, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt,
    MessageWriteVec, ShortTermCredentials,
};

/// Request, indication, success or error.
pub type Class = MessageClass;

/// STUN methods that this crate speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 8489 §18.2.
    Binding,
    /// docs/crush.md §7.
    Handoff,
}

/// Comprehension-required attributes that are understood, be it only that a message of ours has no use for them: those of RFC 8489
/// §18.3, of ICE (RFC 8445 §16.1), and CHANGE-REQUEST (RFC 5780 §7.2).
const UNDERSTOOD: [u16; 16] = [
    0x0001, // MAPPED-ADDRESS
    super::CHANGE_REQUEST,
    0x0006, // USERNAME
    0x0008, // MESSAGE-INTEGRITY
    0x0009, // ERROR-CODE
    UNKNOWN_ATTRIBUTES,
    0x0014, // REALM
    0x0015, // NONCE
    0x001C, // MESSAGE-INTEGRITY-SHA256
    0x001D, // PASSWORD-ALGORITHM
    0x001E, // USERHASH
    0x0020, // XOR-MAPPED-ADDRESS
    super::PRIORITY,
    super::USE_CANDIDATE,
    // RFC 3489's, which old phones add to their checks.
    0x0002, // RESPONSE-ADDRESS
    0x0004, // SOURCE-ADDRESS
];
const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
/// From here on attributes may be ignored (RFC 8489 §14).
const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// UNKNOWN ATTRIBUTE (RFC 8489 §14.8).
pub const UNKNOWN_ATTRIBUTE: u16 = 420;

const BINDING: u16 = 0x001;
const HANDOFF: u16 = 0x0C5;

/// A short-term password, ready for use (RFC 8489 §9.1).
#[derive(Debug, Clone)]
pub struct Key(IntegrityKey);

impl Key {
    /// Password as it stands in `a=ice-pwd` or `a=crush`.
    pub fn new(password: &str) -> Self {
        Self(ShortTermCredentials::new(password.to_owned()).make_key())
    }
}

/// A message whose framing, and fingerprint if it has one, are right. Nothing in it is authentic before
/// [`Incoming::authentic`] has said so.
#[derive(Debug)]
pub struct Incoming<'a> {
    message: Message<'a>,
    method: Method,
}

impl<'a> Incoming<'a> {
    /// `None` for what is not STUN, badly framed, or of another method.
    pub fn read(packet: &'a [u8]) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
        if !is_stun(packet) || length + 20 != packet.len() || length % 4 != 0 {
            return None;
        }
        let message = Message::from_bytes(packet).ok()?;
        let method = match message.method().value() {
            BINDING => Method::Binding,
            HANDOFF => Method::Handoff,
            _ => return None,
        };
        Some(Self { message, method })
    }

    /// Its method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Its class.
    pub fn class(&self) -> Class {
        self.message.class()
    }

    /// 96 bits.
    pub fn transaction(&self) -> u128 {
        self.message.transaction_id().into()
    }

    /// USERNAME.
    pub fn username(&self) -> Option<String> {
        Some(self.message.attribute::<Username>().ok()?.username().to_owned())
    }

    /// ERROR-CODE (RFC 8489 §14.8).
    pub fn error_code(&self) -> Option<u16> {
        Some(self.message.attribute::<ErrorCode>().ok()?.code())
    }

    /// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
    pub fn mapped_address(&self) -> Option<SocketAddr> {
        Some(self.message.attribute::<XorMappedAddress>().ok()?.addr(self.message.transaction_id()))
    }

    /// OTHER-ADDRESS (RFC 5780 §7.4), written like MAPPED-ADDRESS.
    pub fn other_address(&self) -> Option<SocketAddr> {
        let value = self.value(super::OTHER_ADDRESS)?;
        let port = u16::from_be_bytes([*value.get(2)?, *value.get(3)?]);
        match *value.get(1)? {
            1 => Some(SocketAddr::from((*value.get(4..)?.as_array::<4>()?, port))),
            2 => Some(SocketAddr::from((*value.get(4..)?.as_array::<16>()?, port))),
            _ => None,
        }
    }

    /// The first attribute of that type among those that integrity covers.
    pub fn value(&self, kind: u16) -> Option<Vec<u8>> {
        Some(self.message.raw_attribute(kind.into())?.value.to_vec())
    }

    /// All attributes of that type, in order.
    pub fn values(&self, kind: u16) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.message
            .iter_attributes()
            .filter(move |(_, attribute)| attribute.get_type().value() == kind)
            .map(|(_, attribute)| attribute.value.to_vec())
    }

    /// Types of the attributes that its sender demands to be understood, and are not (RFC 8489 §6.3). An authentic request with
    /// any is answered with 420 that names them, an indication is dropped, a success means failure.
    pub fn unknown(&self) -> Vec<u16> {
        let types = self.message.iter_attributes().map(|(_, attribute)| attribute.get_type().value());
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
        let (kind, length, wanted) = match self.method {
            Method::Binding => (MessageIntegrity::TYPE, 20, IntegrityAlgorithm::Sha1),
            Method::Handoff => (MessageIntegritySha256::TYPE, 32, IntegrityAlgorithm::Sha256),
        };
        // Both kinds at once would let the library choose; nobody sends both.
        let other = match self.method {
            Method::Binding => MessageIntegritySha256::TYPE,
            Method::Handoff => MessageIntegrity::TYPE,
        };
        // FINGERPRINT is outside of what integrity covers, and demanded by RFC 8445 §7.1.
        self.has_fingerprint()
            && self.message.raw_attribute(kind).is_some_and(|value| value.value.len() == length)
            && !self.message.has_attribute(other)
            && self.message.validate_integrity_with_key(&key.0).is_ok_and(|used| used == wanted)
    }

    /// Whether it ends with FINGERPRINT (whose value has been checked by then).
    pub fn has_fingerprint(&self) -> bool {
        self.message.raw_attribute(Fingerprint::TYPE).is_some()
    }
}

/// A message being written.
pub struct Outgoing {
    write: MessageWriteVec,
    method: Method,
    transaction: u128,
}

impl Outgoing {
    /// Header only so far.
    pub fn new(method: Method, class: Class, transaction: u128) -> Self {
        let number = match method {
            Method::Binding => BINDING,
            Method::Handoff => HANDOFF,
        };
        let kind = MessageType::from_class_method(class, stun_types::message::Method::new(number));
        Self {
            write: Message::builder(kind, transaction.into(), MessageWriteVec::with_capacity(160)),
            method,
            transaction,
        }
    }

    /// Appends an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.write.push_attribute_unchecked(&RawAttribute::new(kind.into(), value));
        self
    }

    /// USERNAME `receiver:sender` (RFC 8445 §7.2.2).
    #[must_use]
    pub fn username(self, receiver: &str, sender: &str) -> Self {
        self.with(Username::TYPE.value(), format!("{receiver}:{sender}").as_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    #[must_use]
    pub fn mapped_address(mut self, address: SocketAddr) -> Self {
        let value = XorSocketAddr::new(address, self.transaction.into());
        self.write.push_attribute_unchecked(&value.to_raw(XorMappedAddress::TYPE));
        self
    }

    /// ERROR-CODE with an empty reason (RFC 8489 §14.8).
    #[must_use]
    pub fn error_code(self, code: u16) -> Self {
        self.with(ErrorCode::TYPE.value(), &[0, 0, (code / 100) as u8, (code % 100) as u8])
    }

    /// The error that an authentic request gets for attributes that are not understood (RFC 8489 §6.3.1).
    #[must_use]
    pub fn not_understood(self, unknown: &[u16]) -> Self {
        let types: Vec<u8> = unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
        self.error_code(UNKNOWN_ATTRIBUTE).with(UNKNOWN_ATTRIBUTES, &types)
    }

    /// The message without integrity: requests to a discovery service (RFC 5780).
    pub fn plain(mut self) -> Vec<u8> {
        // Only refused for a message that has one already.
        let _ = self.write.add_fingerprint();
        self.write.finish()
    }

    /// The message with integrity and fingerprint.
    pub fn sealed(mut self, key: &Key) -> Vec<u8> {
        let algorithm = match self.method {
            Method::Binding => IntegrityAlgorithm::Sha1,
            Method::Handoff => IntegrityAlgorithm::Sha256,
        };
        // Only refused for a message that has one already.
        let _ = self.write.add_message_integrity_with_key(&key.0, algorithm);
        let _ = self.write.add_fingerprint();
        self.write.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_message_is_authentic_only_with_its_key_and_untouched() {
        let key = Key::new("secret");
        for method in [Method::Binding, Method::Handoff] {
            let packet = request(method, &key);
            let message = Incoming::read(&packet).unwrap();
            assert!(message.authentic(&key) && message.has_fingerprint());
            assert!(!message.authentic(&Key::new("other")));
            assert_eq!(message.username().as_deref(), Some("far:near"));
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
        assert_eq!(answer.value(0x000A), Some(vec![0x7F, 0xFF, 0x00, 0x26]));
    }

    #[test]
    fn handoff_with_the_integrity_of_checks_is_refused() {
        let key = Key::new("secret");
        let mut write = Outgoing::new(Method::Handoff, Class::Request, 7);
        write.write.add_message_integrity_with_key(&key.0, IntegrityAlgorithm::Sha1).unwrap();
        let packet = write.write.finish();
        assert!(!Incoming::read(&packet).unwrap().authentic(&key));
    }
}
