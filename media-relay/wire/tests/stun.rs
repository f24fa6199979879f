//! STUN as properties, with stun-types as the oracle: both write the same octets, and both say of any message the same.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use media_wire::stun::{Class, Incoming, Key, Method, Outgoing};
use proptest::prelude::*;
use stun_types::attribute::{
    Attribute as _, AttributeStaticType, Fingerprint, MessageIntegrity, MessageIntegritySha256, RawAttribute,
    XorMappedAddress, XorSocketAddr,
};
use stun_types::message::{
    IntegrityAlgorithm, Message, MessageClass, MessageType, MessageWrite, MessageWriteExt, MessageWriteVec,
    Method as Number, ShortTermCredentials,
};

const PASSWORD: &str = "x9cml/YzichV2+XlhiMu8g";
const CLASSES: [(Class, MessageClass); 4] = [
    (Class::Request, MessageClass::Request),
    (Class::Indication, MessageClass::Indication),
    (Class::Success, MessageClass::Success),
    (Class::Error, MessageClass::Error),
];

fn methods() -> [(Method, Number, IntegrityAlgorithm); 2] {
    [
        (Method::Binding, Number::new(0x001), IntegrityAlgorithm::Sha1),
        (Method::Handoff, Number::new(0x0C5), IntegrityAlgorithm::Sha256),
    ]
}

/// Types and values; none of them ends the attributes.
fn attributes() -> impl Strategy<Value = Vec<(u16, Vec<u8>)>> {
    let kind = prop_oneof![Just(0x0006_u16), Just(0x0024), Just(0x0025), Just(0xC0C0), Just(0x7FFF)];
    proptest::collection::vec((kind, proptest::collection::vec(any::<u8>(), 0..24)), 0..5)
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>()).prop_map(SocketAddr::from),
        (any::<[u8; 16]>(), any::<u16>()).prop_map(SocketAddr::from),
    ]
}

/// What the oracle says of a message's author, where integrity is of the kind that its method demands.
fn is_authentic(packet: &[u8]) -> bool {
    // The oracle takes a message for whole whose header says that it has no attributes, and reads them all the same.
    let is_whole = packet.get(2..4) == Some(&((packet.len() - 20) as u16).to_be_bytes());
    let Some(message) = Message::from_bytes(packet).ok().filter(|_| is_whole) else { return false };
    let Some((_, _, wanted)) = methods().into_iter().find(|method| method.1 == message.method()) else {
        return false;
    };
    let (kind, length, other) = match wanted {
        IntegrityAlgorithm::Sha1 => (MessageIntegrity::TYPE, 20, MessageIntegritySha256::TYPE),
        IntegrityAlgorithm::Sha256 => (MessageIntegritySha256::TYPE, 32, MessageIntegrity::TYPE),
    };
    let key = ShortTermCredentials::new(PASSWORD.to_owned()).make_key();
    message.raw_attribute(Fingerprint::TYPE).is_some()
        && message.raw_attribute(kind).is_some_and(|value| value.value.len() == length)
        && !message.has_attribute(other)
        && message.validate_integrity_with_key(&key).is_ok_and(|used| used == wanted)
}

proptest! {
    #[test]
    fn both_write_the_same_octets(
        attributes in attributes(),
        class in 0..4_usize,
        method in 0..2_usize,
        transaction in any::<u128>(),
        address in address(),
        is_sealed in any::<bool>(),
    ) {
        let (method, number, algorithm) = methods()[method];
        let (class, oracle_class) = CLASSES[class];
        let mut ours = Outgoing::new(method, class, transaction);
        let kind = MessageType::from_class_method(oracle_class, number);
        let mut theirs = Message::builder(kind, transaction.into(), MessageWriteVec::new());
        for (kind, value) in &attributes {
            ours = ours.with(*kind, value);
            theirs.push_attribute_unchecked(&RawAttribute::new((*kind).into(), value));
        }
        let hidden = XorSocketAddr::new(address, transaction.into());
        theirs.push_attribute_unchecked(&hidden.to_raw(XorMappedAddress::TYPE));
        ours = ours.mapped_address(address);
        let ours = if is_sealed {
            let key = ShortTermCredentials::new(PASSWORD.to_owned()).make_key();
            theirs.add_message_integrity_with_key(&key, algorithm).unwrap();
            ours.sealed(&Key::new(PASSWORD))
        } else {
            ours.plain()
        };
        theirs.add_fingerprint().unwrap();
        prop_assert_eq!(&ours, &theirs.finish());
        let message = Incoming::read(&ours).unwrap();
        prop_assert_eq!((message.method(), message.class()), (method, class));
        prop_assert_eq!(message.mapped_address(), Some(address));
        prop_assert_eq!(message.authentic(&Key::new(PASSWORD)), is_sealed);
        let read: Vec<(u16, Vec<u8>)> =
            message.attributes().map(|(kind, value)| (kind, value.to_vec())).take(attributes.len()).collect();
        prop_assert_eq!(read, attributes);
    }

    #[test]
    fn both_say_the_same_of_a_message_that_was_bent(
        attributes in attributes(),
        method in 0..2_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        moved in proptest::option::of((any::<prop::sample::Index>(), any::<prop::sample::Index>())),
    ) {
        let (method, ..) = methods()[method];
        let mut message = Outgoing::new(method, Class::Request, 7);
        for (kind, value) in &attributes {
            message = message.with(*kind, value);
        }
        let mut packet = message.sealed(&Key::new(PASSWORD));
        for (place, octet) in changes {
            let place = place.index(packet.len());
            packet[place] = octet;
        }
        if let Some((one, other)) = moved {
            let (one, other) = (one.index(packet.len() / 4) * 4, other.index(packet.len() / 4) * 4);
            for octet in 0..4 {
                packet.swap(one + octet, other + octet);
            }
        }
        let ours = Incoming::read(&packet);
        let accepted = ours.as_ref().is_some_and(|message| message.authentic(&Key::new(PASSWORD)));
        prop_assert_eq!(accepted, is_authentic(&packet));
        if let Some(message) = ours.filter(|_| accepted) {
            let theirs = Message::from_bytes(&packet).unwrap();
            let ends = [MessageIntegrity::TYPE, MessageIntegritySha256::TYPE, Fingerprint::TYPE];
            let theirs: Vec<(u16, Vec<u8>)> = theirs
                .iter_attributes()
                .filter(|(_, attribute)| !ends.contains(&attribute.get_type()))
                .map(|(_, attribute)| (attribute.get_type().value(), attribute.value.to_vec()))
                .collect();
            let ours: Vec<(u16, Vec<u8>)> =
                message.attributes().map(|(kind, value)| (kind, value.to_vec())).collect();
            prop_assert_eq!(ours, theirs);
        }
    }
}
