//! What is known of the path: by what both say, and by the packets that come or do not.

use std::time::Duration;

use media_wire::handoff::Sending;
use seam::path::{Entry, PathEntry, PathState};
use seam::{Action, Event, Reply, Side};

use crate::world::{MS, SEEN, World, states};

#[test]
fn the_path_is_known_by_what_both_say_and_by_the_packets_that_come_or_do_not() {
    let mut world = World::call();
    let mut events = world.wait(MS(980));
    for side in 0..2 {
        world.trickle(side, &[]).unwrap();
    }
    world.both_send(1, Sending::Both);
    events.extend(world.wait(MS(20)));
    world.talk(0);
    world.both_send(2, Sending::Direct);
    // Since its last packet, one second after the answer.
    events.extend(world.wait(MS(5000)));
    assert_eq!(
        states(&events),
        [PathState::Anchored, PathState::Probing, PathState::Synchronising, PathState::Direct]
    );
    // A comparison of one second: relayed again, but no return.
    for _ in 0..50 {
        world.talk(0);
        events.extend(world.wait(MS(20)));
    }
    events.extend(world.wait(MS(2000)));
    assert_eq!(states(&events).last(), Some(&PathState::Direct));
    world.talk(1);
    world.both_send(3, Sending::Relay);
    events.extend(world.wait(MS(500)));
    assert_eq!(states(&events).last(), Some(&PathState::Anchored));
    let direct = world.direct();
    assert!((MS(6950)..=MS(7050)).contains(&direct), "{direct:?}");
}

#[test]
fn one_direction_on_the_relay_keeps_the_call_relayed_and_so_does_talk_of_a_liar() {
    let mut world = World::call();
    let request = world.binding(0, 1, Sending::Direct);
    world.send(0, SEEN[0], &request);
    let mut events = Vec::new();
    for _ in 0..150 {
        world.talk(1);
        events.extend(world.wait(MS(20)));
    }
    assert_eq!(states(&events), [PathState::Anchored, PathState::Synchronising]);
    let request = world.binding(1, 1, Sending::Direct);
    world.send(2, SEEN[1], &request);
    for _ in 0..100 {
        world.talk(1);
        world.wait(MS(20));
    }
    assert!(world.direct() < MS(50), "what it says is one thing, its packets another");
}

/// Whom the timeline says that nothing, or the wrong thing, was heard of.
fn unsaid(events: &[Event]) -> Vec<(Side, bool)> {
    let unsaid = |event: &Event| match event {
        Event::Path(PathEntry { entry: Entry::Unsaid { party, contradicts }, .. }) => {
            Some((*party, *contradicts))
        }
        _ => None,
    };
    events.iter().filter_map(unsaid).collect()
}

#[test]
fn one_end_that_says_so_is_enough_and_what_the_other_says_is_noted() {
    for (other, contradicts) in [(None, false), (Some(Sending::Relay), true)] {
        let mut world = World::call();
        let mut events = Vec::new();
        let request = world.binding(0, 1, Sending::Direct);
        world.send(0, SEEN[0], &request);
        if let Some(sending) = other {
            let request = world.binding(1, 1, sending);
            world.send(2, SEEN[1], &request);
        }
        events.extend(world.wait(MS(20_000)));
        assert_eq!(states(&events), [PathState::Anchored, PathState::Synchronising, PathState::Direct]);
        assert_eq!(unsaid(&events), [(Side::Second, contradicts)]);
        // It comes home by the packets alone.
        for side in [0, 1].repeat(250) {
            world.talk(side);
            events.extend(world.wait(MS(10)));
        }
        let request = world.binding(0, 2, Sending::Relay);
        world.send(0, SEEN[0], &request);
        events.extend(world.wait(MS(1_500)));
        assert_eq!(states(&events).last(), Some(&PathState::Anchored));
        let direct = world.direct();
        assert!((MS(19_950)..=MS(20_050)).contains(&direct), "{direct:?}");
    }
}

#[test]
fn two_ends_that_never_tell_are_metered_by_what_their_reports_count() {
    for says_relay in [false, true] {
        let mut world = World::call();
        let mut events = Vec::new();
        if says_relay {
            world.both_send(1, Sending::Relay);
        }
        world.count(0, 1);
        world.count(1, 1);
        for second in 1..=4 {
            events.extend(world.wait(MS(5_000)));
            world.count(0, 1 + 250 * second);
        }
        events.extend(world.wait(MS(2_000)));
        world.sequence[0] += 1_100;
        assert_eq!(states(&events), [PathState::Anchored, PathState::Direct]);
        assert_eq!(unsaid(&events), Side::BOTH.map(|party| (party, says_relay)));
        for side in [0, 1].repeat(250) {
            world.talk(side);
            events.extend(world.wait(MS(10)));
        }
        assert_eq!(states(&events).last(), Some(&PathState::Anchored), "home by the packets alone");
        let Some(Reply::Deleted { direct, streams }) = world.act(Action::Delete) else { panic!() };
        assert!((MS(21_950)..=MS(22_050)).contains(&direct), "{direct:?}");
        assert!(streams.iter().all(|stream| stream.lost == 0), "{streams:?}");
        assert_eq!(streams[0].whole, None, "its receiver has said nothing");
    }
}

#[test]
fn a_call_that_is_silent_at_the_relay_is_relayed_however_its_ends_report() {
    let mut world = World::call();
    world.both_send(1, Sending::Relay);
    let mut events = Vec::new();
    for _ in 0..6 {
        for side in 0..2 {
            world.count(side, 1);
        }
        events.extend(world.wait(MS(5_000)));
    }
    assert_eq!((states(&events), unsaid(&events)), (vec![PathState::Anchored], Vec::new()));
    assert_eq!(world.direct(), Duration::ZERO);
}

#[test]
fn a_direct_call_is_inactive_only_when_nobody_keeps_the_relay_warm() {
    let mut world = World::call();
    world.both_send(1, Sending::Direct);
    for sequence in 2..10 {
        let events = world.wait(Duration::from_secs(15));
        assert!(!events.contains(&Event::Inactive));
        world.both_send(sequence, Sending::Direct);
    }
    let events = world.wait(Duration::from_secs(59));
    assert!(!events.contains(&Event::Inactive));
    let events = world.wait(Duration::from_secs(3));
    assert!(events.contains(&Event::Inactive));
}
