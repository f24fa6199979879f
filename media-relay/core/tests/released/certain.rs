//! Phones that no report can prove: moved where the path is certain by configuration, and nowhere else.

use std::time::Duration;

use nat_lab::Kind as Nat;
use seam::path::{Constraint, PathState, Reason};

use crate::world::World;
use crate::{PHONES, comes_home_for_a_hold, comes_home_for_policy, ends_with_its_time_in_order, second};
use play::ground::Place;
use play::phone::plain::Kind;

const UNPROVABLE: [Kind; 4] = [Kind::Mute, Kind::MuteBaresip, Kind::IgnoresRtcp, Kind::Muxed];
const PLACES: [Place; 3] =
    [Place::OneLan, Place::Apart([None, None]), Place::Apart([Some(Nat::Cone), Some(Nat::RestrictedCone)])];

/// Each of them with each other, and with each that reports, on either side; rtcp-mux is agreed only with a caller's.
fn pairs() -> impl Iterator<Item = [Kind; 2]> {
    let among = UNPROVABLE.into_iter().flat_map(|one| UNPROVABLE.map(|other| [one, other]));
    let mixed = UNPROVABLE.into_iter().flat_map(|one| PHONES.map(|other| [[one, other], [other, one]]));
    among.chain(mixed.flatten()).filter(|kinds| kinds[1] != Kind::Muxed || !PHONES.contains(&kinds[0]))
}

/// How long a move may be heard: to phones that may follow what they hear nothing is relayed meanwhile.
fn gap_limit(kinds: [Kind; 2]) -> Duration {
    let goes_where_told =
        |kind: &Kind| kind.product().contains("baresip") || kind.product().contains("belle-sip");
    Duration::from_millis(if kinds.iter().all(goes_where_told) { 60 } else { 200 })
}

/// Direct, and nobody has heard a gap of it.
fn released(seed: u64, kinds: [Kind; 2], place: Place) -> World {
    let mut world = World::certain(seed, kinds, place);
    world.settle_and_run(second(30));
    assert_eq!(world.state(), PathState::Direct, "{kinds:?} {place:?} {:?}", world.timeline);
    world.was_heard_within(gap_limit(kinds));
    world
}

#[test]
fn where_the_path_is_certain_they_leave_the_relay_and_the_timeline_says_on_what_ground() {
    for (seed, kinds) in (0..3).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let world = released(seed, kinds, PLACES[seed as usize]);
        assert!(world.is_told_to_go(PathState::Direct, Reason::Certain), "{kinds:?} {:?}", world.timeline);
        ends_with_its_time_in_order(world, kinds);
    }
}

#[test]
fn elsewhere_none_of_them_is_off_the_relay_for_long() {
    for kinds in pairs() {
        let mut world = World::new(2, kinds, PLACES[1]);
        world.is_after(second(30), PathState::Anchored);
        assert!(!world.is_told_to_go(PathState::Direct, Reason::Certain), "{kinds:?} {:?}", world.timeline);
        assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
    }
}

#[test]
fn a_call_that_cannot_be_heard_is_asked_after_and_not_taken_for_dead() {
    for kinds in [[Kind::Mute; 2], [Kind::Muxed; 2], [Kind::IgnoresRtcp; 2]] {
        let mut world = released(4, kinds, PLACES[1]);
        world.is_after(second(640), PathState::Direct);
        assert_eq!((world.is_inactive, world.questions), (false, 2), "{kinds:?}");
        // Coming home, it has as long to be heard as any other.
        world.constrain(Constraint::MustAnchor);
        world.run(second(640));
        assert_eq!((world.is_inactive, world.questions), (false, 2), "{kinds:?}");
    }
}

#[test]
fn a_hold_brings_them_home_and_after_it_they_leave_again() {
    for kinds in pairs() {
        let mut world = released(5, kinds, PLACES[1]);
        comes_home_for_a_hold(&mut world, kinds, 0, second(28));
    }
}

#[test]
fn policy_calls_them_back_at_once() {
    for (seed, kinds) in (0..6).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = released(seed, kinds, PLACES[1]);
        comes_home_for_policy(&mut world, kinds);
    }
}

#[test]
fn one_that_is_heard_at_the_relay_brings_both_home() {
    let mut world = World::certain(7, [Kind::Muxed; 2], PLACES[1]);
    world.run(Duration::from_millis(400));
    let relay = world.phones[0].target;
    world.is_after(second(30), PathState::Direct);
    world.phones[0].target = relay;
    world.run(second(4));
    assert!(world.is_told_to_go(PathState::Returning, Reason::CameBack), "{:?}", world.timeline);
    assert!(world.state() == PathState::Anchored && !world.is_silent(), "{:?}", world.timeline);
}

#[test]
fn reports_that_do_come_count_as_everywhere() {
    for (seed, kinds) in (0..5).flat_map(|seed| crate::pairs().map(move |kinds| (seed, kinds))) {
        let mut world = released(seed, kinds, PLACES[1]);
        assert!(!world.is_told_to_go(PathState::Direct, Reason::Certain), "{kinds:?} {:?}", world.timeline);
        world.ground.cut([seed % 2 == 0, true]);
        world.run(second(7));
        assert!(world.is_told_to_go(PathState::Returning, Reason::Refuted), "{kinds:?} {:?}", world.timeline);
        assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
    }
    // Of a pair one reports: what it says ends a move on trust whose path does not work.
    for kinds in PHONES.map(|reporting| [Kind::Muxed, reporting]) {
        let mut world = World::certain(9, kinds, PLACES[1]);
        world.ground.cut([true; 2]);
        world.run(second(10));
        // PJSIP counts anew after a re-INVITE: it says no more than that it hears nobody.
        let why = if kinds[1] == Kind::Pjsip { Reason::ReportsStopped } else { Reason::Refuted };
        assert!(world.is_told_to_go(PathState::Returning, why), "{kinds:?} {:?}", world.timeline);
        assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
    }
}
