//! When a direct path is bad enough to go back: where the relay would be better, and not for what both ways lose.

use std::time::Duration;

use nat_lab::Kind as Nat;
use seam::path::{Entry, PathState, Reason};

use crate::world::World;
use crate::{pairs, second};
use play::ground::Place;
use play::phone::plain::Voice;

fn is_left_for_quality(world: &World) -> bool {
    let is_it =
        |entry: &Entry| matches!(entry, Entry::State { to: PathState::Returning, why: Reason::Quality });
    world.timeline.iter().any(|(_, entry)| is_it(entry))
}

#[test]
fn loss_on_the_lines_of_the_phones_which_both_ways_use_ends_no_direct_call() {
    let voices = [Voice::Steady, Voice::Spurts];
    for (seed, kinds) in (0..4).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        for (voice, loss) in voices.into_iter().flat_map(|voice| [(voice, 0.02), (voice, 0.06)]) {
            let mut world = World::new(seed, kinds, Place::Apart([Some(Nat::Cone), None]));
            world.phones.iter_mut().for_each(|phone| phone.voice = voice);
            world.lose(loss);
            world.run(second(180));
            assert!(!is_left_for_quality(&world), "{kinds:?} {seed} {voice:?} {loss} {:?}", world.timeline);
        }
    }
}

#[test]
fn a_path_that_loses_what_the_relay_does_not_is_left_for_a_minute() {
    for (seed, kinds) in (0..4).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, Place::Apart([Some(Nat::Cone), None]));
        world.run(second(20));
        assert_eq!(world.state(), PathState::Direct, "{kinds:?} {:?}", world.timeline);
        world.ground.fade(0.2);
        let from = world.now;
        while !is_left_for_quality(&world) {
            assert!(world.now < from + second(25), "{kinds:?} {seed} {:?}", world.timeline);
            world.run(Duration::from_millis(500));
        }
        world.run(second(55));
        assert_eq!(world.state(), PathState::Anchored, "{kinds:?} {seed} {:?}", world.timeline);
        assert!(!world.is_silent());
    }
}
