//! Two ends that another process goes on with: they keep their credentials, and it knows what they have said.

use media_wire::handoff::Sending;
use play::Dice;
use seam::path::PathState;
use seam::{Action, Reply};

use crate::world::{MS, SEEN, World, states};

/// A call that leaves, is compared, and comes back; what is told of it, and how long it was direct.
fn told(seed: u64, is_handed: bool) -> String {
    let (mut dice, mut script) = (Dice::of(seed, 1), Dice::new(seed));
    let mut world = World::call();
    let mut events = Vec::new();
    let mut sequence = 0;
    let mut step = |world: &mut World, events: &mut Vec<_>| {
        events.extend(world.wait(MS(20 * script.below(100))));
        if is_handed && dice.below(2) == 0 {
            events.extend(world.events());
            world.go_on_elsewhere(&mut dice);
        }
        events.extend(world.wait(MS(20 * script.below(100))));
    };
    step(&mut world, &mut events);
    for side in 0..2 {
        world.trickle(side, &[]).unwrap();
    }
    for sending in [Sending::Both, Sending::Direct] {
        sequence += 1;
        world.both_send(sequence, sending);
        step(&mut world, &mut events);
    }
    // What was said before is no news to the other process either.
    let old = world.binding(0, sequence - 1, Sending::Relay);
    let socket = world.socket(0);
    assert_eq!(world.send(socket, "198.51.100.99:4000", &old), []);
    for _ in 0..30 {
        world.talk(0);
        events.extend(world.wait(MS(20)));
    }
    step(&mut world, &mut events);
    step(&mut world, &mut events);
    sequence += 1;
    world.both_send(sequence, Sending::Relay);
    for side in [0, 1].repeat(100) {
        assert_eq!(world.talk(side), Some(SEEN[1 - side].parse().unwrap()));
        events.extend(world.wait(MS(10)));
    }
    step(&mut world, &mut events);
    assert_eq!(states(&events).last(), Some(&PathState::Anchored));
    assert!(states(&events).contains(&PathState::Direct));
    let Some(Reply::Deleted { direct, streams }) = world.act(Action::Delete) else { panic!() };
    let streams: Vec<_> = streams.iter().map(|one| (one.packets, one.lost, one.whole)).collect();
    format!("{events:?} {direct:?} {streams:?}")
}

#[test]
fn two_ends_of_crush_go_on_elsewhere_as_if_nothing_had_been() {
    for seed in 0..200 {
        assert_eq!(told(seed, true), told(seed, false), "seed {seed}");
    }
}
