//! A call that somebody begins to listen to comes home, and every packet that the relay gets from then on is heard.

use std::time::Duration;

use seam::path::PathState;

use crate::world::World;
use crate::{BEHIND_ONE, direct, pairs, return_limit, second};

#[test]
fn a_tap_set_on_a_released_call_brings_it_home_and_hears_all_from_the_first_relayed_packet_on() {
    for (seed, kinds) in (0..10).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world =
            direct(World::new(seed, kinds, BEHIND_ONE), second(12) + Duration::from_millis(seed * 370));
        world.forget_silence();
        world.taken.clear();
        world.tap(true);
        world.is_after(second(1), PathState::Anchored);
        world.was_heard_within(return_limit(kinds));
        // Whatever they offer each other, it stays, and is heard.
        world.party_offers(seed as usize % 2, ["sendonly", "sendrecv", "inactive"][seed as usize % 3]);
        world.run(second(3));
        world.party_offers(0, "sendrecv");
        world.is_after(second(25), PathState::Anchored);
        let heard = world.overheard();
        assert!(heard.len() > 2_000, "{kinds:?} {seed} {}", heard.len());
        assert_eq!(heard, world.taken, "{kinds:?} {seed}");
        // Nobody listens any more: it may leave again.
        world.tap(false);
        world.is_after(second(25), PathState::Direct);
        assert_eq!(world.overheard().len(), 0);
        assert!(world.end() > second(10));
    }
}
