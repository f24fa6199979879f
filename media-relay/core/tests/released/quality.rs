//! When a direct path is bad enough to go back: where the relay would be better, and not for what both ways lose.

use std::time::Duration;

use seam::path::{PathState, Reason};

use crate::world::World;
use crate::{BEHIND_ONE, direct, pairs, second};
use play::phone::plain::Voice;

fn is_left_for_quality(world: &World) -> bool {
    world.is_told_to_go(PathState::Returning, Reason::Quality)
}

#[test]
fn loss_on_the_lines_of_the_phones_which_both_ways_use_ends_no_direct_call() {
    let voices = [Voice::Steady, Voice::Spurts];
    for (seed, kinds) in (0..4).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        for (voice, loss) in voices.into_iter().flat_map(|voice| [(voice, 0.02), (voice, 0.06)]) {
            let mut world = World::new(seed, kinds, BEHIND_ONE);
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
        let mut world = direct(World::new(seed, kinds, BEHIND_ONE), second(20));
        world.ground.fade(0.2);
        let from = world.now;
        while !is_left_for_quality(&world) {
            assert!(world.now < from + second(25), "{kinds:?} {seed} {:?}", world.timeline);
            world.run(Duration::from_millis(500));
        }
        world.is_after(second(55), PathState::Anchored);
        assert!(!world.is_silent());
    }
}
