//! Calls that a proxy behind us leads back to us: two sessions or more, which are released as one call.

use std::time::Duration;

use nat_lab::Kind as Nat;
use seam::path::{Constraint, Entry, PathState, Stay};

use crate::world::World;
use crate::{BEHIND_ONE, CONES, comes_home_for_a_hold, direct, gap_limit, pairs, return_limit, second};
use play::ground::Place;
use play::phone::plain::Kind;

fn places() -> [Place; 3] {
    [Place::Apart([None, None]), Place::Apart([Some(Nat::Cone), Some(Nat::FullCone)]), Place::OneLan]
}

#[test]
fn both_phones_leave_as_one_call_and_every_session_tells_of_it_alike() {
    for halves in [2, 3, 5] {
        for (kinds, place) in pairs().flat_map(|kinds| places().map(|place| (kinds, place))) {
            let mut world = World::through(halves, 9, kinds, place);
            world.settle_and_run(Duration::from_millis(14_700));
            let story = || format!("{halves} {kinds:?} {place:?} {:?}", world.timeline);
            assert_eq!(world.state(), PathState::Direct, "{}", story());
            world.was_heard_within(gap_limit(kinds));
            for other in &world.others {
                let what = |timeline: &[(Duration, Entry)]| -> Vec<Entry> {
                    let is_told = |entry: &Entry| !matches!(entry, Entry::Stays(_));
                    timeline.iter().map(|(_, entry)| *entry).filter(is_told).collect()
                };
                assert_eq!(what(other), what(&world.timeline), "{}", story());
            }
            let away = world.away;
            let direct = world.end();
            assert!(direct.abs_diff(away) < second(1), "{direct:?} of {away:?}");
        }
    }
}

#[test]
fn a_path_that_breaks_brings_both_home() {
    for kinds in pairs() {
        for ways in [[true, true], [true, false], [false, true]] {
            let mut world = direct(World::through(2, 3, kinds, BEHIND_ONE), second(20));
            world.ground.cut(ways);
            world.run(second(9));
            assert!(!world.is_silent(), "{kinds:?} {ways:?} {:?}", world.timeline);
        }
    }
}

#[test]
fn policy_of_either_half_keeps_both_on_the_relay_or_calls_both_back() {
    for (kinds, half) in pairs().flat_map(|kinds| [(kinds, 0), (kinds, 1)]) {
        let mut world = World::through(2, 4, kinds, BEHIND_ONE);
        world.constrain_half(half, Constraint::MustAnchor);
        world.run(second(15));
        assert_eq!((world.wishes, world.away), (0, Duration::ZERO), "{kinds:?} {:?}", world.timeline);
        world.constrain_half(half, Constraint::MayRelease);
        world.is_after(second(15), PathState::Direct);
        world.forget_silence();
        world.constrain_half(1 - half, Constraint::MustAnchor);
        world.is_after(second(1), PathState::Anchored);
        world.was_heard_within(return_limit(kinds));
        // What one half says counts while the other lets it go.
        world.constrain_half(half, Constraint::PreferRelease);
        world.is_after(second(20), PathState::Anchored);
    }
}

#[test]
fn a_hold_by_either_party_brings_both_home_and_after_it_they_leave_again() {
    for (kinds, by) in pairs().flat_map(|kinds| [(kinds, 0), (kinds, 1)]) {
        let mut world = direct(World::through(2, 5, kinds, CONES), second(16));
        let away = world.away;
        comes_home_for_a_hold(&mut world, kinds, by, second(18));
        assert!(world.away > away + second(2));
    }
}

#[test]
fn a_half_that_is_left_alone_brings_its_party_home_and_one_that_ends_with_the_other_asks_nobody() {
    for (kinds, from) in pairs().flat_map(|kinds| [(kinds, 0), (kinds, 1)]) {
        let mut world = direct(World::through(2, 6, kinds, BEHIND_ONE), second(16));
        let (wishes, relay) = (world.wishes, ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().ok()));
        world.hang_up(from, true);
        world.run(second(2));
        let left = world.phones[1 - from].target.map(|at| at.ip());
        assert!(relay.contains(&left), "{kinds:?} {from} {left:?}");
        assert_eq!(world.wishes, wishes + 1, "{kinds:?} {from}");
        world.end();

        let mut world = World::through(2, 6, kinds, BEHIND_ONE);
        world.run(second(16));
        let wishes = world.wishes;
        world.hang_up(from, false);
        world.run(second(2));
        assert_eq!(world.wishes, wishes, "{kinds:?} {from}");
        world.end();
    }
}

#[test]
fn whose_path_is_blocked_is_heard_again_and_one_half_alone_is_never_tried() {
    for kinds in pairs() {
        let mut world = World::through(2, 7, kinds, CONES);
        world.ground.cut([true, true]);
        world.settle_and_run(second(60));
        assert_eq!(world.state(), PathState::Anchored, "{kinds:?} {:?}", world.timeline);
        assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
        world.was_heard_within(Duration::from_millis(1_250));
        assert!(!world.stays(Stay::Unfit), "{:?}", world.timeline);
    }
    // A phone that refuses, in either half.
    for kinds in [[Kind::Refusing(488), Kind::Baresip], [Kind::Linphone, Kind::Refusing(488)]] {
        let mut world = World::through(2, 8, kinds, Place::Apart([None, None]));
        world.settle_and_run(second(20));
        assert_eq!(world.state(), PathState::Anchored, "{kinds:?} {:?}", world.timeline);
        world.was_heard_within(second(1));
    }
}
