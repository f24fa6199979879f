//! Reading a message, looking at it and judging it allocate nothing: the memory of a message is its datagram's.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking and says why")]

use allocation_counter::measure;
use bytes::Bytes;
use sip_wire::{Message, Name, check_request};

static INVITE: &[u8] = include_bytes!("messages/invite.sip");

#[test]
fn parse_and_views_of_an_invite_allocate_nothing() {
    let bytes = Bytes::from_static(INVITE);
    let counted = measure(|| {
        let message = Message::parse(bytes.clone()).unwrap();
        check_request(&message).unwrap();
        assert!(message.via().unwrap().branch().is_some());
        assert_eq!(message.contacts().count(), 1);
        assert_eq!(message.values(Name::Allow).count(), 10);
        assert_eq!(message.body().len(), 226);
    });
    assert_eq!(counted.count_total, 0);
}

#[test]
fn an_unchanged_message_is_serialised_byte_for_byte_without_a_copy() {
    let message = Message::parse(Bytes::from_static(INVITE)).unwrap();
    let counted = measure(|| assert_eq!(message.edit().finish(), INVITE));
    assert_eq!(counted.count_total, 0);
}

#[test]
fn refusing_a_message_allocates_nothing_before_it_is_answered() {
    let text = [INVITE, b"x"].concat();
    let broken = Bytes::from(String::from_utf8_lossy(&text).replacen("CSeq:", "CSeq\r", 1));
    let counted = measure(|| assert!(Message::parse(broken.clone()).is_err()));
    assert_eq!(counted.count_total, 0);
}
