//! Policy that holds a call at the relay and lets it go, whoever hears of it first (docs/crush.md §8.3).

use std::time::Duration;

use crate::support::gaps::{direct, gap};
use crate::support::{CONE, MS, Options, Place, World};
use crush::agent::StreamId;
use media_wire::handoff::Path;
use media_wire::sdp::crush::Policy;
use nat_lab::Kind;
use seam::path::Constraint::{self, MayRelease, MustAnchor};

fn are_all(world: &World, path: Path) -> bool {
    world.phones.iter().all(|phone| phone.paths() == (path, path))
}

/// Plays what policy says at which time (after now), and says how long after the last of it the call is direct both ways.
fn time_to_direct(world: &mut World, says: &[(u64, Constraint)], what: &str) -> Duration {
    let from = world.now();
    for (at, constraint) in says {
        world.run_until(from + MS(*at));
        world.constrain(*constraint);
    }
    let let_go = world.now();
    // Whatever is under way has been told by then.
    world.run_until(let_go + MS(700));
    let is_direct = world.run_while(let_go + Duration::from_secs(30), |world| !are_all(world, Path::Direct));
    let events = world.phones.each_ref().map(|phone| &phone.events);
    assert!(is_direct, "{what}: {events:#?}");
    world.now() - let_go
}

#[test]
fn a_call_that_may_go_at_last_goes_whoever_hears_of_it_first_and_whenever_it_was_held() {
    // Before anybody has trickled, while the first candidates are on their way, while pairs are checked, when one is nominated.
    for held in [0, 20, 60, 90, 120, 150, 200, 260, 330, 400] {
        for offers_take in [[0, 0], [20, 300], [300, 20], [5, 80], [80, 5]] {
            for lasts in [1, 30, 70, 150, 1000] {
                let seed = held * 7 + offers_take[0] + lasts;
                let mut world = World::new(&Options::new(seed, CONE, CONE));
                world.offers_take = offers_take.map(MS);
                let what = format!("held after {held} ms for {lasts} ms, told after {offers_take:?}");
                let took =
                    time_to_direct(&mut world, &[(held, MustAnchor), (held + lasts, MayRelease)], &what);
                assert!(took < Duration::from_secs(4), "{what}: {took:?}");
            }
        }
    }
}

#[test]
fn policy_that_changes_its_mind_again_and_again_ends_as_it_said_last() {
    // The last three: two counting NATs whose ends began a round apart, and then took turns for ever.
    for seed in (0..300u64).chain([391, 1012, 1588]) {
        let kinds = [Kind::Cone, Kind::SymmetricSequential, Kind::LinuxCone];
        let at = |place: u64| Place::Behind(kinds[(seed / place) as usize % 3]);
        let mut world = World::new(&Options { loss: 0.02, ..Options::new(seed, at(1), at(3)) });
        world.offers_take = [MS(1 + seed * 37 % 300), MS(1 + seed * 91 % 300)];
        world.is_busy = seed % 2 == 0;
        world.are_infos_lost = seed % 5 < 2;
        let mut at = 0;
        let says: Vec<(u64, Constraint)> = (0..8)
            .map(|step| {
                at += (seed * 7919 + step * 104_729) % if seed % 3 == 0 { 2000 } else { 250 };
                (at, if step % 2 == 0 { MustAnchor } else { MayRelease })
            })
            .collect();
        time_to_direct(&mut world, &says, &format!("seed {seed}"));
    }
}

#[test]
fn a_call_held_from_its_start_says_nothing_until_it_may_and_is_heard_meanwhile() {
    for offers_take in [[1, 300], [300, 1]] {
        let mut world = World::new(&Options::new(3, CONE, CONE));
        world.offers_take = offers_take.map(MS);
        world.constrain(MustAnchor);
        world.run_until(MS(2000));
        assert!(are_all(&world, Path::Relay));
        let from = world.now();
        time_to_direct(&mut world, &[(0, MayRelease)], "held from the start");
        for side in 0..2 {
            assert!(gap(&world, side, from) <= MS(60), "{:?}", gap(&world, side, from));
        }
    }
}

#[test]
fn a_direct_call_that_is_held_for_a_moment_or_for_long_goes_again() {
    for (seed, lasts) in [(1, 1), (2, 40), (3, 200), (4, 4000), (5, 70_000)] {
        let mut world = direct(&Options::new(seed, CONE, CONE));
        world.offers_take = [MS(20), MS(250)];
        let says = [(0, MustAnchor), (lasts, MayRelease)];
        time_to_direct(&mut world, &says, &format!("held for {lasts} ms"));
    }
}

/// STUN messages that phones sent each other directly within the next so long, by side.
fn between_phones(world: &mut World, lasts: u64) -> [usize; 2] {
    world.capture = Some(Vec::new());
    world.run_for(MS(lasts));
    let captured = world.captured();
    [0, 1].map(|side| {
        let relay = world.relay.address(side, 0);
        captured.iter().filter(|one| one.side == side && one.to != relay).count()
    })
}

#[test]
fn an_anchored_call_leaves_the_direct_path_alone() {
    let mut world = direct(&Options::new(21, CONE, CONE));
    world.offers_take = [MS(20), MS(250)];
    world.constrain(MustAnchor);
    world.run_for(MS(1500));
    assert!(are_all(&world, Path::Relay));
    assert_eq!(between_phones(&mut world, 40_000), [0, 0]);
    time_to_direct(&mut world, &[(0, MayRelease)], "anchored for 40 s");
}

#[test]
fn who_keeps_a_call_on_the_relay_alone_is_asked_once_and_then_both_leave_the_direct_path_alone() {
    let mut world = direct(&Options::new(22, CONE, CONE));
    world.input(0, crush::agent::Input::Policy(Policy::Relay));
    world.run_for(MS(100));
    assert!(are_all(&world, Path::Relay));
    // Not even while nobody knows whether the other has a reason to ask.
    assert_eq!(between_phones(&mut world, 1500), [0, 0]);
    world.run_for(MS(6000));
    assert_eq!(between_phones(&mut world, 40_000), [0, 0]);
    assert!(are_all(&world, Path::Relay));
    world.input(0, crush::agent::Input::Policy(Policy::Direct));
    let until = world.now() + Duration::from_secs(10);
    assert!(world.run_while(until, |world| !are_all(world, Path::Direct)));
}

#[test]
fn audio_that_must_stay_is_never_sent_directly_while_pictures_leave() {
    let options = Options { video: true, policy: Policy::VideoOnly, ..Options::new(23, CONE, CONE) };
    let mut world = World::new(&options);
    let has_left = |world: &World| {
        world.phones.iter().all(|phone| {
            phone.agent.sending_on(StreamId(1)) == Path::Direct
                && phone.agent.receiving_on(StreamId(1)) == Path::Direct
        })
    };
    assert!(world.run_while(Duration::from_secs(10), |world| !has_left(world)));
    // Through comparisons too, of which none calls the pictures back.
    world.run_for(MS(40_000));
    assert!(has_left(&world));
    assert!(world.wire.iter().all(|one| !one.3));
    // And when policy takes the audio back in mid-call, the pictures go again.
    let mut world = direct(&Options { video: true, ..Options::new(24, CONE, CONE) });
    world.constrain(Constraint::VideoOnly);
    world.run_for(MS(300));
    world.wire.clear();
    let until = world.now() + Duration::from_secs(20);
    assert!(world.run_while(until, |world| !has_left(world)));
    assert!(world.wire.iter().all(|one| !one.3));
}
