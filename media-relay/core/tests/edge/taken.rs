//! A session that another process goes on with: nobody is told or sent anything else for it, and what cannot be taken is said.

use media_core::Worker;
use media_core::state::{CannotTakeIn, NotSteady, StoredSession};
use media_core::worker::{Ports, Settings};
use play::Dice;
use play::anchor::Anchor;
use play::ports::Counted;
use seam::{Action, ExchangeId, Reply};

use super::taps::Story;
use super::world::{A, B, ENDS, anchor, at, audio, connected, rtcp, rtp};

/// A call as its seed tells it: all that was said, and what was counted.
fn told(seed: u64, mut handed: Option<Dice>) -> (Vec<String>, u32) {
    let mut story = Story::new(seed, seed.is_multiple_of(2));
    let mut times = 0;
    story.begins();
    for _ in 0..4 + story.below(8) {
        if let Some(dice) = &mut handed
            && dice.below(3) > 0
        {
            story.listen();
            story.world.hand_over(Settings::default(), dice).expect("it rests");
            times += 1;
        }
        story.goes_on();
    }
    story.listen();
    let Some(Reply::Deleted { streams, .. }) = story.world.act(Action::Delete) else { panic!("no count") };
    assert_eq!(story.world.ports.open_pairs(), 0);
    let mut told = story.journal;
    told.extend(streams.into_iter().map(|mut stream| {
        // Text of a fraction is not always the very same fraction.
        stream.jitter_ms = (stream.jitter_ms * 1_000.0).round();
        stream.mos = stream.mos.map(|mos| (mos * 1_000.0).round());
        format!("{stream:?}")
    }));
    told.extend(story.heard.iter().map(|packet| format!("heard {packet:?}")));
    (told, times)
}

#[test]
fn calls_that_fork_hold_and_are_transferred_and_tapped_go_on_elsewhere_to_the_last_octet() {
    let mut times = 0;
    for seed in 0..400 {
        let (handed, took) = told(seed, Some(Dice::of(seed, 1)));
        let (straight, _) = told(seed, None);
        for (one, other) in handed.iter().zip(&straight) {
            assert_eq!(one, other, "seed {seed}, handed over {took} times");
        }
        assert_eq!(handed.len(), straight.len(), "seed {seed}");
        times += took;
    }
    assert!(times > 1_500, "{times}");
}

const PLACES: [&str; 2] = ["203.0.113.1:4000", "198.51.100.1:5000"];

fn call() -> Anchor {
    connected(Settings::default(), PLACES[0], PLACES[1], "")
}

fn socket(world: &Anchor, port: u16) -> u32 {
    let ip = if port < 10_002 { "192.0.2.0" } else { "192.0.2.1" };
    world.ports.socket(at(&format!("{ip}:{port}"))).expect("it is open")
}

#[test]
fn who_was_learnt_behind_a_nat_stays_learnt_and_a_stranger_a_stranger() {
    let (mut world, mut dice) = (call(), Dice::new(1));
    // A is seen from another port than it says.
    assert_eq!(world.places(0, "203.0.113.1:61000", &rtp(1, 7)).len(), 1);
    assert_eq!(world.places(2, PLACES[1], &rtp(1, 8)), [(0, at("203.0.113.1:61000"))]);
    for _ in 0..3 {
        world.hand_over(Settings::default(), &mut dice).unwrap();
        let (a, b) = (socket(&world, 10_000), socket(&world, 10_002));
        assert!(a > 1 && b > 3, "other numbers");
        assert_eq!(world.places(a, "192.0.2.200:9", &rtp(2, 9)), []);
        assert_eq!(world.places(a, "203.0.113.1:62000", &rtp(2, 9)), [], "another phone of the same house");
        assert_eq!(world.places(a, "203.0.113.1:61000", &rtp(2, 7)), [(b, at(PLACES[1]))]);
        assert_eq!(world.places(b, PLACES[1], &rtp(2, 8)), [(a, at("203.0.113.1:61000"))]);
        assert_eq!(world.places(a + 1, "203.0.113.1:61001", &rtcp(7)), [(b + 1, at("198.51.100.1:5001"))]);
    }
    let counts: Vec<_> = world.statistics().iter().map(|one| (one.packets, one.strangers)).collect();
    assert_eq!(counts, [(4, 6), (4, 0)]);
}

#[test]
fn the_next_description_is_one_version_up_with_the_same_ports() {
    let (mut world, mut dice) = (call(), Dice::new(2));
    let origin = |sdp: &str| -> Vec<u64> {
        let line = sdp.lines().find_map(|line| line.strip_prefix("o=- ")).unwrap();
        line.split(' ').take(2).map(|number| number.parse().unwrap()).collect()
    };
    let held = [audio(PLACES[0], "a=sendonly\r\n"), audio(PLACES[1], "a=recvonly\r\n")];
    let [first, _] = world.agree(2, ENDS, held);
    world.hand_over(Settings::default(), &mut dice).unwrap();
    let next = world.offer(3, A, B, audio(PLACES[0], "")).unwrap();
    assert_eq!(origin(&next), [origin(&first)[0], origin(&first)[1] + 1]);
    let ports = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).map(str::to_owned).collect();
    let (before, after): (Vec<String>, Vec<String>) = (ports(&first), ports(&next));
    assert_eq!(before, after);
}

#[test]
fn what_is_open_is_not_taken_and_goes_on() {
    let (mut world, mut dice) = (anchor(Settings::default()), Dice::new(3));
    let mut refused = |world: &mut Anchor| world.hand_over(Settings::default(), &mut dice).err();
    assert_eq!(refused(&mut world), Some(NotSteady::Unknown));
    world.offer(1, A, B, audio(PLACES[0], "")).unwrap();
    assert_eq!(refused(&mut world), Some(NotSteady::Unanswered));
    world.act(Action::Select(B));
    world.answer(1, B, A, audio(PLACES[1], "")).unwrap();
    world.offer(2, B, A, audio(PLACES[1], "")).unwrap();
    assert_eq!(refused(&mut world), Some(NotSteady::Offer));
    world.act(Action::Cancel(ExchangeId(2)));
    assert_eq!(world.places(0, PLACES[0], &rtp(1, 7)), [(2, at(PLACES[1]))]);
    assert_eq!(refused(&mut world), None);
}

#[test]
fn another_version_a_port_that_is_taken_and_a_number_that_is_known_are_said_and_leave_nothing() {
    let mut world = call();
    let stored = world.worker.take_out(world.session, world.now, &mut world.ports).unwrap();
    let text = serde_json::to_string(&stored).unwrap();
    let read = |text: &str| serde_json::from_str::<StoredSession>(text);
    let newer = read(&text.replacen("\"version\":1", "\"version\":2", 1)).unwrap_err().to_string();
    assert!(newer.contains("version 2"), "{newer}");

    let mut ports = Counted::default();
    let taken = at("192.0.2.1:10002");
    let other = ports.reopen(1, taken).unwrap();
    let mut worker = Worker::new(Settings::default(), "anchor".to_owned());
    let mut take = |session: u64, text: &str, ports: &mut Counted| {
        worker.take_in(session, read(text).unwrap(), world.now, ports)
    };
    assert_eq!(take(1, &text, &mut ports), Err(CannotTakeIn::Port(taken)));
    assert_eq!(ports.open_pairs(), 1, "that of the other");
    ports.close(other);
    // What was broken on its way is not believed.
    let broken = text.replacen("\"peers\":[1]", "\"peers\":[7]", 1);
    assert_eq!(take(1, &broken, &mut ports), Err(CannotTakeIn::Contradictory));
    assert_eq!(take(1, &text, &mut ports), Ok(()));
    assert_eq!(take(1, &text, &mut ports), Err(CannotTakeIn::Known));
    assert_eq!(ports.open_pairs(), 2);
}
