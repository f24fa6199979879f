//! Endpoints that send nothing when nobody speaks (silence suppression): they leave the relay all the same.

use crate::support::{CONE, MS, Options, Talk, World};
use seam::path::PathState;

/// Speaks until a time, then never again.
fn until(ms: u64) -> Talk {
    Talk::Spurts(ms, 1_000_000)
}

#[test]
fn a_sender_that_falls_silent_before_its_order_comes_true_is_direct_at_the_limit_and_billed_so() {
    // The order comes between 300 and 700 ms: before the last word, after it, and in the middle of the overlap.
    for last_word in (100..1000).step_by(20) {
        for talk in [[until(last_word), Talk::Always], [until(last_word); 2]] {
            let options = Options { talk, ..Options::new(last_word, CONE, CONE) };
            let mut world = World::new(&options);
            // The limit of an order, after a synchronisation that may need test packets.
            assert!(
                world.run_while(MS(last_word + 3500), |world| !world.both_direct()),
                "silent after {last_word} ms: {:?}",
                world.phones.each_ref().map(|phone| &phone.events)
            );
            world.run_for(MS(10_000));
            let (_, direct) = world.relay.end(world.network.now());
            assert_eq!(world.relay.states.last(), Some(&PathState::Direct), "silent after {last_word} ms");
            assert!(direct > MS(9000), "silent after {last_word} ms: {direct:?}");
        }
    }
}

#[test]
fn who_speaks_again_after_the_limit_is_heard_directly_and_at_once() {
    for seed in 0..20 {
        let talk = [Talk::Spurts(400 + seed * 10, 3600 - seed * 10), Talk::Always];
        let mut world = World::new(&Options { talk, ..Options::new(seed, CONE, CONE) });
        world.run_until(MS(4200));
        let again = world.arrived.iter().find(|one| one.1 == 1 && one.0 >= MS(4000));
        let (at, _, _, is_direct) = *again.unwrap();
        assert!(is_direct && at < MS(4100), "seed {seed}: {at:?}, directly: {is_direct}");
    }
}
