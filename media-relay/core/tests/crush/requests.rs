//! What moves media, and what never does.

use media_core::policy::Mode;
use media_wire::handoff::{Envelope, Indication, SEQUENCE, Sending};
use media_wire::stun::{Class, Incoming, Key, Method, Outgoing};
use proptest::prelude::*;

use crate::world::{PWD, SEEN, UFRAGS, World, at};

#[test]
fn a_request_without_a_name_is_answered_and_moves_nothing() {
    let mut world = World::call();
    let plain = Outgoing::new(Method::Binding, Class::Request, 5).plain();
    let stranger = "198.51.100.99:7777";
    let sent = world.send(0, stranger, &plain);
    assert_eq!((sent.len(), sent[0].0, sent[0].1), (1, 0, at(stranger)));
    let answer = Incoming::read(&sent[0].2).unwrap();
    assert_eq!((answer.class(), answer.transaction()), (Class::Success, 5));
    assert_eq!(answer.mapped_address(), Some(at(stranger)));
    assert_eq!(world.talk(1), Some(at(SEEN[0])));
}

#[test]
fn a_mover_that_proves_who_it_is_is_followed_at_once_and_its_new_address_told() {
    let mut world = World::call();
    let moved = "192.0.2.77:9000";
    let request = world.binding(0, 1, Sending::Relay);
    let sent = world.send(0, moved, &request);
    let answer = Incoming::read(&sent[0].2).unwrap();
    assert_eq!(answer.mapped_address(), Some(at(moved)));
    assert!(answer.authentic(&Key::new(&world.told[0].as_ref().unwrap().pwd)));
    assert_eq!(world.talk(1), Some(at(moved)));
    assert_eq!(world.talk_from(0, moved), Some(at(SEEN[1])));
    assert_eq!(world.talk(0), None, "stragglers of the old network");
    assert_eq!(world.talk(1), Some(at(moved)));
}

#[test]
fn forged_foreign_stray_and_replayed_requests_move_nothing() {
    let mut world = World::call();
    let thief = "192.0.2.66:6666";
    let good = world.binding(0, 5, Sending::Relay);
    assert_eq!(world.send(0, SEEN[0], &good).len(), 1);
    let [alice, bob] = world.told.clone().map(Option::unwrap);
    let named = |to: &str, from: &str, pwd: &str| {
        Outgoing::new(Method::Binding, Class::Request, 77)
            .username(to, from)
            .with(SEQUENCE, &9_u32.to_be_bytes())
            .sealed(&Key::new(pwd))
    };
    let mut bent = world.binding(0, 6, Sending::Relay);
    bent[45] ^= 1;
    let unsigned =
        Outgoing::new(Method::Binding, Class::Request, 78).username(&alice.ufrag, UFRAGS[0]).plain();
    let unnumbered = Outgoing::new(Method::Binding, Class::Request, 79)
        .username(&alice.ufrag, UFRAGS[0])
        .sealed(&Key::new(&alice.pwd));
    let response = Outgoing::new(Method::Binding, Class::Success, 80).sealed(&Key::new(&alice.pwd));
    let attempts = [
        ("replayed", good.clone()),
        ("overtaken", world.binding(0, 4, Sending::Relay)),
        ("a wrong password", named(&alice.ufrag, UFRAGS[0], "wrongPasswordWrongPassword")),
        ("the endpoint's own password", named(&alice.ufrag, UFRAGS[0], PWD)),
        ("the other leg's credentials", named(&bob.ufrag, UFRAGS[1], &bob.pwd)),
        ("another endpoint's name", named(&alice.ufrag, "someOther", &alice.pwd)),
        ("another call's name", named("someOther", UFRAGS[0], &alice.pwd)),
        ("bent", bent),
        ("unsigned", unsigned),
        ("without a number", unnumbered),
        ("a response", response),
        ("half a message", good[..30].to_vec()),
    ];
    for (what, packet) in attempts {
        for reply in world.send(0, thief, &packet) {
            let reply = Incoming::read(&reply.2).unwrap();
            assert_eq!((reply.class(), reply.error_code()), (Class::Error, Some(401)), "{what}");
        }
        assert_eq!(world.talk(1), Some(at(SEEN[0])), "{what}");
        assert_eq!(world.talk_from(0, thief), None, "{what}");
        assert_eq!(world.talk(0), Some(at(SEEN[1])), "{what}");
    }
    let new = world.binding(0, 7, Sending::Relay);
    assert_eq!(world.send(1, thief, &new), [], "to the port of RTCP");
    assert_eq!(world.send(0, SEEN[0], &good).len(), 1, "repeated from its own address, it is answered again");
}

#[test]
fn handoff_messages_pass_unaltered_between_the_two_and_from_nobody_else() {
    let mut world = World::call();
    let key = Key::new("betweenTheEndpointsOnly22");
    let message = Indication::Keepalive
        .write(3, &Envelope { transaction: 17, receiver: "receiver", sender: "sender", key: &key });
    assert_eq!(world.send(0, SEEN[0], &message), [(2, at(SEEN[1]), message.clone())]);
    assert_eq!(world.send(2, SEEN[1], &message), [(0, at(SEEN[0]), message.clone())]);
    assert_eq!(world.send(0, "192.0.2.66:6666", &message), [], "a stranger");
    assert_eq!(world.send(1, SEEN[0], &message), [], "the port of RTCP");
    let mut ordinary = World::new(Mode::Allow);
    ordinary.connect([true, false]);
    ordinary.talk(0);
    ordinary.talk(1);
    assert_eq!(ordinary.send(0, SEEN[0], &message), [], "to who does not know it");
}

proptest! {
    #[test]
    fn no_stun_that_is_not_signed_moves_media_or_is_reflected_larger_than_twice(
        bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0u16..0x0400
    ) {
        let mut world = World::call();
        let mut packet = kind.to_be_bytes().to_vec();
        packet.extend((bytes.len() as u16).to_be_bytes());
        packet.extend([0x21, 0x12, 0xa4, 0x42]);
        packet.extend([7; 12]);
        packet.extend(&bytes);
        let stranger = "192.0.2.66:6666";
        for sent in world.send(0, stranger, &packet) {
            prop_assert_eq!(sent.1, at(stranger));
            prop_assert!(sent.2.len() <= 2 * packet.len());
        }
        prop_assert_eq!(world.talk(1), Some(at(SEEN[0])));
        prop_assert_eq!(world.talk_from(0, stranger), None);
    }
}
