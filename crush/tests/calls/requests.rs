//! HANDOFF requests as docs/crush.md §7 has them, one by one: what is answered, in which order, and what is not.

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::gaps::direct;
use crate::support::{CONE, MS, OTHER, OTHER_SOCKET, Options, RANDOM, World};
use crush::agent::{Event, SocketId, StreamId};
use media_wire::handoff::{
    Condition, Envelope, Kind as MediaKind, Mode, Move, PATH, Path, Reason, Request, SEQUENCE, STREAM,
    Switch, Target, read_switches,
};
use media_wire::sdp::crush::Policy;
use media_wire::stun::{Class, Incoming, Method, Outgoing};

const AUDIO: SocketId = SocketId(1);
/// Above all numbers that the phones themselves come to.
const FIRST: u32 = 1000;

/// Which way a request comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Relay,
    Direct,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Success(Vec<Switch>),
    Error(u16),
    Silence,
}

fn request(sequence: u32, target: Target, moves: &[Move]) -> Request {
    Request { sequence, target, reason: Reason::Application, moves: moves.to_vec(), figures: None }
}

fn to_direct(sequence: u32, moves: &[Move]) -> Request {
    request(sequence, Target::Path(Path::Direct), moves)
}

fn audio(stream: u8, condition: Condition) -> Move {
    Move { stream, kind: MediaKind::Audio, ssrc: 0, condition, mode: Mode::Hard, limit: MS(2000) }
}

/// What phone 1 answers to these bytes, as from phone 0.
fn answer(world: &mut World, by: By, bytes: &[u8]) -> Answer {
    let from = match by {
        By::Relay => (AUDIO, world.relay.address(1, 0)),
        By::Direct => {
            let found = world.phones[1].events.iter().rev().find_map(|(_, event)| match event {
                Event::Found { socket, remote, .. } => Some((*socket, *remote)),
                _ => None,
            });
            found.unwrap()
        }
    };
    answer_at(world, from, bytes)
}

fn answer_at(world: &mut World, (socket, from): (SocketId, SocketAddr), bytes: &[u8]) -> Answer {
    world.capture = Some(Vec::new());
    world.inject(1, socket, from, bytes);
    let transaction = Incoming::read(bytes).unwrap().transaction();
    let (_, key) = world.credentials(1).unwrap();
    let captured = world.captured();
    let messages = captured.iter().filter(|one| (one.side, one.to) == (1, from));
    let mut answers = messages.filter_map(|one| {
        let message = Incoming::read(&one.bytes)?;
        let is_it = message.transaction() == transaction && message.method() == Method::Handoff;
        assert!(!is_it || message.authentic(&key));
        match message.class() {
            Class::Success if is_it => Some(Answer::Success(read_switches(&message))),
            Class::Error if is_it => Some(Answer::Error(message.error_code()?)),
            _ => None,
        }
    });
    answers.next().unwrap_or(Answer::Silence)
}

/// A request as phone 0 would send it to phone 1.
fn bytes(world: &World, request: &Request) -> Vec<u8> {
    bytes_of(world, u128::from(request.sequence), request)
}

fn bytes_of(world: &World, transaction: u128, request: &Request) -> Vec<u8> {
    let ((theirs, key), (ours, _)) = (world.credentials(1).unwrap(), world.credentials(0).unwrap());
    request.write(&Envelope { transaction, receiver: &theirs, sender: &ours, key: &key })
}

fn ask(world: &mut World, by: By, request: &Request) -> Answer {
    let bytes = bytes(world, request);
    answer(world, by, &bytes)
}

/// One made of its attributes, in this order.
fn made(world: &World, transaction: u128, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let (_, key) = world.credentials(1).unwrap();
    let message = Outgoing::new(Method::Handoff, Class::Request, transaction);
    attributes.iter().fold(message, |message, (kind, value)| message.with(*kind, value)).sealed(&key)
}

fn username(world: &World) -> Vec<u8> {
    let (theirs, ours) = (world.credentials(1).unwrap().0, world.credentials(0).unwrap().0);
    format!("{theirs}:{ours}").into_bytes()
}

#[test]
fn a_success_tells_of_one_switch_for_each_stream_that_goes_direct_and_of_none_otherwise() {
    let mut world = direct(&Options { video: true, ..Options::new(1, CONE, CONE) });
    let streams = |answer: Answer| match answer {
        Answer::Success(switches) => switches.iter().map(|switch| switch.stream).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(streams(ask(&mut world, By::Direct, &to_direct(FIRST, &[]))), [0, 1]);
    assert_eq!(streams(ask(&mut world, By::Direct, &to_direct(FIRST + 1, &[audio(1, Condition::Now)]))), [1]);
    let both = request(FIRST + 2, Target::Both(MS(100)), &[]);
    assert!(streams(ask(&mut world, By::Direct, &both)).is_empty());
    let back = request(FIRST + 3, Target::Path(Path::Relay), &[]);
    assert!(streams(ask(&mut world, By::Direct, &back)).is_empty());
}

#[test]
fn a_move_to_the_direct_path_that_comes_by_the_relay_is_dropped_in_silence() {
    let mut world = direct(&Options::new(2, CONE, CONE));
    let asked = to_direct(FIRST, &[]);
    assert_eq!(ask(&mut world, By::Relay, &asked), Answer::Silence);
    // It has used up nothing; and what was answered is answered the same, but never by the relay.
    let first = ask(&mut world, By::Direct, &asked);
    assert!(matches!(first, Answer::Success(_)));
    assert_eq!(ask(&mut world, By::Relay, &asked), Answer::Silence);
    assert_eq!(ask(&mut world, By::Direct, &asked), first);
}

#[test]
fn a_request_is_taken_on_any_pair_that_was_checked_both_ways() {
    let mut world = World::new(&Options { dual_stack: true, ..Options::new(3, CONE, CONE) });
    let found = |world: &World| world.phones[1].when(|event| matches!(event, Event::Found { .. })).is_some();
    assert!(world.run_while(Duration::from_secs(10), |world| !found(world)));
    let ipv4 = "198.51.100.7:5004".parse().unwrap();
    let pairs = [(AUDIO, ipv4), (OTHER_SOCKET, OTHER[0])];
    for (pair, sequence) in pairs.into_iter().zip(FIRST..) {
        let bytes = bytes(&world, &to_direct(sequence, &[]));
        assert!(matches!(answer_at(&mut world, pair, &bytes), Answer::Success(_)), "{pair:?}");
    }
    // And on none that was not.
    let bytes = bytes(&world, &to_direct(FIRST + 9, &[]));
    assert_eq!(answer_at(&mut world, (AUDIO, crate::support::forged_address()), &bytes), Answer::Silence);
}

#[test]
fn what_is_wrong_with_a_request_is_told_in_one_order() {
    let mut world =
        direct(&Options { video: true, policy: Policy::VideoOnly, ..Options::new(4, CONE, CONE) });
    world.run_for(MS(500));
    let name = username(&world);
    let moved = |stream: u8| {
        let mut value = [0; 16];
        value[..4].copy_from_slice(&[stream, 1, 0, 0]);
        value
    };
    let (unknown, path) = ((0x7ABC, &[0][..]), [1, 8, 0, 0]);
    // An old number, a stream that is not there, one that must stay, a value that cannot be read, something not understood: each
    // hides those behind it.
    let (old, new) = (1u32.to_be_bytes(), FIRST.to_be_bytes());
    let (nowhere, stays, broken) = (moved(9), moved(0), [0; 15]);
    type Attributes<'a> = Vec<(u16, &'a [u8])>;
    let cases: [(u128, u16, Attributes<'_>); 5] = [
        (1, 420, vec![unknown, (SEQUENCE, &old), (PATH, &path), (STREAM, &broken)]),
        (2, 400, vec![(SEQUENCE, &old), (PATH, &path), (STREAM, &broken)]),
        (3, 438, vec![(SEQUENCE, &old), (PATH, &path), (STREAM, &nowhere)]),
        (4, 404, vec![(SEQUENCE, &new), (PATH, &path), (STREAM, &stays), (STREAM, &nowhere)]),
        (5, 403, vec![(SEQUENCE, &[0, 0, 8, 0]), (PATH, &path), (STREAM, &stays)]),
    ];
    for (transaction, status, attributes) in cases {
        let attributes = [vec![(0x0006, &name[..])], attributes].concat();
        let bytes = made(&world, transaction, &attributes);
        assert_eq!(answer(&mut world, By::Direct, &bytes), Answer::Error(status));
    }
    assert_eq!(world.phones[1].agent.sending_on(StreamId(0)), Path::Relay);
    assert_eq!(world.phones[1].agent.sending_on(StreamId(1)), Path::Direct);
}

#[test]
fn attributes_may_stand_in_any_order_and_the_optional_ones_be_unknown() {
    let mut world = direct(&Options::new(5, CONE, CONE));
    let name = username(&world);
    let bytes = made(
        &world,
        1,
        &[
            (PATH, &[1, 1, 0, 0]),
            (0x8ABC, &[7]),
            (SEQUENCE, &FIRST.to_be_bytes()),
            (0x0006, &name),
            (0xFEED, &[]),
        ],
    );
    assert!(matches!(answer(&mut world, By::Direct, &bytes), Answer::Success(_)));
}

#[test]
fn a_return_is_obeyed_whatever_policy_says_without_a_pair_and_whatever_streams_it_names() {
    let back = |sequence| request(sequence, Target::Path(Path::Relay), &[]);
    let both = |sequence| request(sequence, Target::Both(MS(1000)), &[]);
    // Before there is a pair.
    let mut world = World::new(&Options::new(6, RANDOM, RANDOM));
    world.run_until(MS(900));
    assert_eq!(ask(&mut world, By::Relay, &both(FIRST)), Answer::Error(425));
    assert_eq!(ask(&mut world, By::Relay, &back(FIRST + 1)), Answer::Success(Vec::new()));
    // While nothing may leave.
    let mut world = direct(&Options::new(6, CONE, CONE));
    world.input(1, crush::agent::Input::Policy(Policy::Relay));
    assert_eq!(ask(&mut world, By::Relay, &both(FIRST)), Answer::Error(403));
    assert_eq!(ask(&mut world, By::Direct, &to_direct(FIRST + 1, &[])), Answer::Error(403));
    assert_eq!(ask(&mut world, By::Relay, &back(FIRST + 2)), Answer::Success(Vec::new()));
    // With streams that are not there or cannot be read.
    let mut world = direct(&Options::new(7, CONE, CONE));
    let name = username(&world);
    let attributes =
        [(0x0006, &name[..]), (SEQUENCE, &FIRST.to_be_bytes()), (PATH, &[0, 2, 0, 0]), (STREAM, &[9; 3])];
    let bytes = made(&world, 1, &attributes);
    assert_eq!(answer(&mut world, By::Relay, &bytes), Answer::Success(Vec::new()));
    assert_eq!(world.phones[1].agent.sending_on(StreamId(0)), Path::Relay);
}

#[test]
fn a_number_counts_once_whatever_it_was_answered() {
    let mut world = direct(&Options::new(8, CONE, CONE));
    let bytes = bytes(&world, &to_direct(FIRST, &[audio(9, Condition::Now)]));
    let again = bytes_of(&world, 77, &to_direct(FIRST, &[]));
    assert_eq!(answer(&mut world, By::Direct, &bytes), Answer::Error(404));
    assert_eq!(answer(&mut world, By::Direct, &bytes), Answer::Error(404));
    assert_eq!(answer(&mut world, By::Direct, &again), Answer::Error(438));
    // The stored response is that of the last request that counted.
    assert_eq!(answer(&mut world, By::Direct, &bytes), Answer::Error(404));
}

#[test]
fn a_switch_is_fixed_when_its_number_is_known_be_it_in_the_future_and_pending_with_0_otherwise() {
    let mut world = direct(&Options::new(9, CONE, CONE));
    ask(&mut world, By::Relay, &request(FIRST, Target::Path(Path::Relay), &[]));
    world.run_for(MS(100));
    let at = |answer: Answer| match answer {
        Answer::Success(switches) => switches[0].at,
        other => panic!("{other:?}"),
    };
    let next = world.phones[1].sequence;
    let future = next.wrapping_add(20);
    let asked = to_direct(FIRST + 1, &[audio(0, Condition::Sequence(future))]);
    assert_eq!(at(ask(&mut world, By::Direct, &asked)), Some(future));
    assert_eq!(world.phones[1].agent.sending_on(StreamId(0)), Path::Relay);
    let asked = to_direct(FIRST + 2, &[audio(0, Condition::KeyFrame)]);
    assert_eq!(at(ask(&mut world, By::Direct, &asked)), None);
    // A limit of 0 is one: with the next packet, whatever the condition.
    let now = Move { limit: MS(0), ..audio(0, Condition::KeyFrame) };
    ask(&mut world, By::Direct, &to_direct(FIRST + 3, &[now]));
    world.run_for(MS(30));
    assert_eq!(world.phones[1].agent.sending_on(StreamId(0)), Path::Direct);
}

#[test]
fn copies_for_a_comparison_last_5_s_whatever_is_asked_for() {
    let mut world = direct(&Options::new(10, CONE, CONE));
    world.wire.clear();
    let from = world.now();
    let asked = request(FIRST, Target::Both(MS(60_000)), &[]);
    assert_eq!(ask(&mut world, By::Direct, &asked), Answer::Success(Vec::new()));
    world.run_until(from + MS(7000));
    let copies = world.wire.iter().filter(|one| one.1 == 1 && !one.3);
    let last = copies.map(|one| one.0).max().unwrap() - from;
    assert!((MS(4900)..=MS(5100)).contains(&last), "{last:?}");
}

#[test]
fn who_returns_sends_again_what_may_be_lost_but_not_where_the_direct_path_delivers() {
    for reason in [Reason::Missing, Reason::Network, Reason::Consent, Reason::Policy, Reason::Quality] {
        let mut world = direct(&Options::new(11, CONE, CONE));
        world.wire.clear();
        let next = world.phones[1].sequence;
        let asked = Request { reason, ..request(FIRST, Target::Path(Path::Relay), &[]) };
        ask(&mut world, By::Relay, &asked);
        let again = world.wire.iter();
        let again = again.filter(|one| one.1 == 1 && !one.3 && one.2.wrapping_sub(next) > 1 << 15).count();
        let delivers = matches!(reason, Reason::Policy | Reason::Quality);
        assert_eq!(again, if delivers { 0 } else { 5 }, "{reason:?}");
    }
}
