//! `Secured` says what is true: direct both ways, with keys of the ends' own.

use std::time::Duration;

use crate::support::gaps::{cut, direct};
use crate::support::{CONE, Options, Phone, World};
use crush::agent::{Event, Input, StreamId};
use media_wire::sdp::crush::Policy;

fn secured(phone: &Phone) -> Vec<StreamId> {
    let stream = |event: &Event| if let Event::Secured { stream } = event { Some(*stream) } else { None };
    phone.events.iter().filter_map(|(_, event)| stream(event)).collect()
}

fn agree(world: &mut World, keys: &[bool]) {
    let now = world.now();
    (0..2).for_each(|side| world.input(side, Input::Keys(keys)));
    world.run_until(now + Duration::from_millis(10));
}

#[test]
fn a_direct_call_is_secured_only_while_keys_are_agreed_on() {
    let mut world = direct(&Options::new(1, CONE, CONE));
    assert!(world.phones.iter().all(|phone| secured(phone).is_empty()));
    // A re-INVITE brings keys, another takes them away, a third brings others.
    for times in 1..3 {
        agree(&mut world, &[true]);
        assert!(world.phones.iter().all(|phone| secured(phone) == vec![StreamId(0); times]));
        agree(&mut world, &[false]);
    }
}

#[test]
fn a_call_with_keys_is_secured_once_it_is_direct_and_not_before() {
    let mut world = World::new(&Options::new(2, CONE, CONE));
    agree(&mut world, &[true]);
    world.run_until(Duration::from_secs(10));
    for phone in &world.phones {
        assert_eq!(secured(phone), [StreamId(0)]);
        let at = phone.when(|event| matches!(event, Event::Secured { .. }));
        assert!(at >= phone.direct_at() && at.is_some());
    }
}

#[test]
fn without_keys_no_call_is_secured_whatever_becomes_of_its_path() {
    let (world, _) = cut(3);
    assert!(world.phones.iter().all(|phone| secured(phone).is_empty()));
}

#[test]
fn pictures_alone_are_secured_where_sound_stays_on_the_relay() {
    let options = Options { video: true, policy: Policy::VideoOnly, ..Options::new(4, CONE, CONE) };
    let mut world = direct(&options);
    agree(&mut world, &[true, true]);
    assert!(world.phones.iter().all(|phone| secured(phone) == [StreamId(1)]));
}
