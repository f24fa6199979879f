//! What is never tried: what cannot be, and what a phone did not do when it was asked before.

use std::time::Duration;

use seam::path::{PathState, Stay};

use crate::world::World;
use crate::{pairs, second};
use play::ground::Place;
use play::phone::plain::Kind;

#[test]
fn a_local_network_of_another_realm_is_never_tried_and_nobody_hears_anything_of_it() {
    let places = [
        ["198.51.100.7", "10.1.1.5"],
        ["192.168.7.9", "203.0.113.8"],
        ["100.64.3.4", "203.0.113.8"],
        ["10.1.1.5", "10.1.1.6"],
        ["192.168.7.9", "172.16.4.4"],
    ];
    for (kinds, place) in pairs().flat_map(|kinds| places.map(|place| (kinds, place))) {
        let mut world = World::new(3, kinds, Place::Realms(place));
        world.settle_and_run(second(30));
        let story = || format!("{kinds:?} {place:?} {:?}", world.timeline);
        assert!(world.stays(Stay::Unroutable), "{}", story());
        assert_eq!((world.wishes, world.away), (0, Duration::ZERO), "{}", story());
        world.was_heard_within(Duration::from_millis(25));
    }
    let mut world = World::new(3, [Kind::Baresip; 2], Place::Realms(["198.51.100.7", "203.0.113.8"]));
    world.is_after(second(12), PathState::Direct);
}

#[test]
fn a_phone_that_agrees_and_does_not_move_is_asked_once_and_after_two_calls_no_more() {
    for other in [Kind::Baresip, Kind::Linphone, Kind::Pjsip] {
        for nats in [[None, None], [Some(nat_lab::Kind::Cone); 2]] {
            let mut world = World::new(4, [Kind::StaysPut, other], Place::Apart(nats));
            // Behind a NAT it is asked to show that, which harms nobody; elsewhere it is moved.
            let is_learnt = nats[0].is_some();
            for asked in [1, 1, 0] {
                world.run(second(100));
                let story = || format!("{other:?} {nats:?} {asked} {:?}", world.timeline);
                assert_eq!(world.trials().len(), if is_learnt { 0 } else { asked }, "{}", story());
                let why = if asked > 0 { Stay::Unmoved } else { Stay::Remembered };
                assert!(world.stays(why), "{}", story());
                assert!(!world.is_silent(), "{}", story());
                world.call_again(second(1));
            }
        }
    }
}
