//! Wrong, replayed, forged and stray messages never move media (docs/crush.md §12), and nothing breaks an agent.

use std::time::Duration;

use crate::support::{CONE, MS, Options, Phone, World, forged_address};
use crush::agent::{SocketId, StreamId};
use media_wire::handoff::{
    Condition, Envelope, Indication, Kind as MediaKind, Mode, Move, Path, Reason, Request, Target,
};
use media_wire::stun::{Class, Incoming, Key, Method, Outgoing, USE_CANDIDATE};
use proptest::prelude::*;

const AUDIO: SocketId = SocketId(1);

fn paths(world: &World) -> Vec<(Path, Path)> {
    world.phones.iter().map(Phone::paths).collect()
}

/// A world in which both are direct, with all STUN messages of the way there.
fn direct() -> World {
    let mut world = World::new(&Options::new(11, CONE, CONE));
    world.capture = Some(Vec::new());
    assert!(world.run_while(Duration::from_secs(10), |world| !world.both_direct()));
    world.run_for(MS(2000));
    world
}

#[test]
fn a_handoff_with_the_wrong_password_moves_nothing_either_way() {
    let mut world = direct();
    let [a, b] = [0, 1].map(|side| world.credentials(side).unwrap().0);
    let before = paths(&world);
    let remote = "198.51.100.7:5004".parse().unwrap();
    let relay = world.relay.address(1, 0);
    for (target, from) in [(Path::Relay, remote), (Path::Relay, relay), (Path::Direct, remote)] {
        let request = Request {
            sequence: 1_000_000,
            target: Target::Path(target),
            reason: Reason::Missing,
            moves: Vec::new(),
            figures: None,
        };
        for key in ["wrong", ""] {
            let bytes =
                request.write(&Envelope { transaction: 9, receiver: &b, sender: &a, key: &Key::new(key) });
            let refused = world.phones[1].agent.refused().unauthentic;
            world.inject(1, AUDIO, from, &bytes);
            assert_eq!(world.phones[1].agent.refused().unauthentic, refused + 1);
        }
    }
    world.run_for(MS(100));
    assert_eq!(paths(&world), before);
}

#[test]
fn every_captured_message_replayed_moves_nothing() {
    let mut world = direct();
    let captured = world.captured();
    let before = paths(&world);
    assert_eq!(before, [(Path::Direct, Path::Direct); 2]);
    let events: Vec<usize> = world.phones.iter().map(|phone| phone.events.len()).collect();
    // What one side had sent, at the other, from where it came and from elsewhere.
    let seen = ["198.51.100.7:5004", "198.51.100.99:5004"];
    for one in captured {
        let other = 1 - one.side;
        let relay = world.relay.address(other, 0);
        for from in [seen[one.side].parse().unwrap(), relay, forged_address()] {
            world.inject(other, AUDIO, from, &one.bytes);
        }
    }
    world.run_for(MS(3000));
    assert_eq!(paths(&world), before);
    assert_eq!(world.phones.iter().map(|phone| phone.events.len()).collect::<Vec<_>>(), events);
    assert!(world.phones.iter().all(|phone| phone.agent.refused().replayed > 0));
}

#[test]
fn messages_of_another_call_and_media_of_strangers_are_refused() {
    let mut world = direct();
    let mut other = World::new(&Options::new(12, CONE, CONE));
    other.capture = Some(Vec::new());
    other.run_until(Duration::from_secs(3));
    let before = paths(&world);
    for one in other.captured() {
        world.inject(0, AUDIO, "198.51.100.99:5004".parse().unwrap(), &one.bytes);
    }
    let mut rtp = vec![0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9];
    rtp.extend([0xFF; 160]);
    let stray = world.phones[0].agent.refused().stray;
    world.inject(0, AUDIO, forged_address(), &rtp);
    assert_eq!(world.phones[0].agent.refused().stray, stray + 1);
    assert_eq!(paths(&world), before);
}

#[test]
fn a_forged_check_makes_no_pair_and_a_forged_answer_no_path() {
    let mut world = World::new(&Options::new(13, CONE, CONE));
    world.capture = Some(Vec::new());
    world.cut(0, 1);
    world.cut(1, 0);
    world.run_until(MS(1500));
    let captured = world.captured();
    for one in captured.iter().filter(|one| one.side == 0) {
        let Some(message) = Incoming::read(&one.bytes) else { continue };
        if message.method() != Method::Binding || message.class() != Class::Request {
            continue;
        }
        // The attacker saw the request and answers it, without the key and with a key of its own.
        let answer = || Outgoing::new(Method::Binding, Class::Success, message.transaction());
        for bytes in [answer().mapped_address(one.source).plain(), answer().sealed(&Key::new("guess"))] {
            world.inject(0, one.socket, one.to, &bytes);
        }
        // And sends it back, nominating, as if it were the peer's.
        let username = message.username().unwrap_or_default();
        let (receiver, sender) = username.split_once(':').unwrap_or_default();
        let request = Outgoing::new(Method::Binding, Class::Request, 5).username(sender, receiver);
        let bytes = request.with(USE_CANDIDATE, &[]).sealed(&Key::new("guess"));
        world.inject(0, one.socket, one.to, &bytes);
        world.inject(0, one.socket, one.to, &one.bytes);
    }
    world.run_until(MS(4000));
    assert!(world.phones.iter().all(|phone| {
        phone.events.iter().all(|(_, event)| !matches!(event, crush::agent::Event::Found { .. }))
    }));
    assert!(world.phones[0].agent.refused().unauthentic > 0);
}

#[test]
fn a_handoff_to_direct_counts_only_on_the_direct_path_and_a_keepalive_only_once() {
    let mut world = World::new(&Options::new(14, CONE, CONE));
    world.capture = Some(Vec::new());
    assert!(world.run_while(Duration::from_secs(10), |world| {
        !world.capture.as_ref().unwrap().iter().any(|one| {
            one.side == 0
                && Incoming::read(&one.bytes)
                    .is_some_and(|m| m.method() == Method::Handoff && m.class() == Class::Request)
        })
    }));
    let request = world.capture.as_ref().unwrap().iter().rev().find(|one| one.side == 0 && one.bytes[0] == 2);
    let bytes = request.unwrap().bytes.clone();
    let relay = world.relay.address(1, 0);
    // The genuine request, moved to the relay by somebody in between, before the direct copy arrives.
    world.inject(1, AUDIO, relay, &bytes);
    assert_eq!(world.phones[1].agent.sending_on(StreamId(0)), Path::Relay);
}

#[test]
fn a_move_of_a_stream_that_does_not_exist_is_refused_as_a_whole() {
    let one = Move {
        stream: 9,
        kind: MediaKind::Audio,
        ssrc: 0,
        condition: Condition::Now,
        mode: Mode::Hard,
        limit: MS(2000),
    };
    let request = Request {
        sequence: 1,
        target: Target::Path(Path::Direct),
        reason: Reason::Synchronised,
        moves: vec![one],
        figures: None,
    };
    let bytes = request.write(&Envelope { transaction: 1, receiver: "a", sender: "b", key: &Key::new("k") });
    assert_eq!(Request::read(&Incoming::read(&bytes).unwrap()).unwrap().moves, [one]);
    let keepalive = Indication::Keepalive
        .write(1, &Envelope { transaction: 1, receiver: "a", sender: "b", key: &Key::new("k") });
    assert!(Incoming::read(&keepalive).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// An agent in every state is fed bent and invented packets; its call goes on.
    #[test]
    fn rubbish_never_breaks_an_agent_nor_silences_its_call(
        seed in 0u64..1000,
        moments in prop::collection::vec((0u64..4000, any::<u16>(), any::<u8>()), 40),
        noise in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut world = World::new(&Options::new(seed, CONE, CONE));
        world.capture = Some(Vec::new());
        let mut moments = moments;
        moments.sort_unstable();
        for (at, place, byte) in moments {
            world.run_until(MS(at));
            let side = usize::from(byte & 1);
            let captured = world.capture.as_ref().unwrap();
            let mut bytes = if captured.is_empty() || byte & 2 == 0 {
                noise.clone()
            } else {
                captured[usize::from(place) % captured.len()].bytes.clone()
            };
            if !bytes.is_empty() {
                let at = usize::from(place) % bytes.len();
                bytes[at] ^= byte | 1;
            }
            for from in [world.relay.address(side, 0), forged_address(), "198.51.100.99:5004".parse().unwrap()] {
                world.inject(side, AUDIO, from, &bytes);
            }
            world.input(side, crush::agent::Input::Trickle(&String::from_utf8_lossy(&bytes)));
        }
        let from = world.now();
        world.run_until(from + MS(1000));
        for side in 0..2 {
            let heard = world.arrived.iter().filter(|one| one.1 == side && one.0 >= from).count();
            prop_assert!(heard >= 45, "{heard} packets in the last second at {side}");
        }
    }
}
