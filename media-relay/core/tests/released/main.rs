//! Calls between simulated phones of every temperament in every place, with the real worker: who is released, what it costs,
//! and that everybody comes back. `RELEASE_CALLS=10000` plays so many seeds, `RELEASE_SEED=17` that one with its story.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and is told its seeds by the environment"
)]

mod certain;
mod halves;
mod long;
mod never;
mod quality;
mod stored;
mod taken;
mod taps;
mod trials;
mod world;

use std::time::Duration;

use media_core::path::Settings as Limits;
use nat_lab::Kind as Nat;
use play::Dice;
use play::ground::Place;
use play::phone::plain::Kind;
use seam::path::{Constraint, Entry, PathState, Reason, Stay};
use world::World;

const PHONES: [Kind; 3] = [Kind::Baresip, Kind::Linphone, Kind::Pjsip];
/// Those whose mapping does not depend on the destination.
const INDEPENDENT: [Option<Nat>; 5] =
    [None, Some(Nat::FullCone), Some(Nat::RestrictedCone), Some(Nat::Cone), Some(Nat::Firewall)];
const DEPENDENT: [Option<Nat>; 3] =
    [Some(Nat::SymmetricAddress), Some(Nat::SymmetricSequential), Some(Nat::SymmetricRandom)];

const CONES: Place = Place::Apart([Some(Nat::Cone); 2]);
const BEHIND_ONE: Place = Place::Apart([Some(Nat::Cone), None]);

fn second(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pairs() -> impl Iterator<Item = [Kind; 2]> {
    PHONES.into_iter().flat_map(|one| PHONES.map(|other| [one, other]))
}

/// A call that has become direct after so long.
#[track_caller]
fn direct(mut world: World, after: Duration) -> World {
    world.is_after(after, PathState::Direct);
    world
}

/// How long a move may be heard: PJSIP throws the first packets of a new source away.
fn gap_limit(kinds: [Kind; 2]) -> Duration {
    Duration::from_millis(if kinds.contains(&Kind::Pjsip) { 200 } else { 60 })
}

/// How long a call back from a path that works may be heard.
fn return_limit(kinds: [Kind; 2]) -> Duration {
    Duration::from_millis(if kinds.contains(&Kind::Pjsip) { 200 } else { 150 })
}

/// Policy brings both home within a second, and nobody is silent for long.
#[track_caller]
fn comes_home_for_policy(world: &mut World, kinds: [Kind; 2]) {
    world.forget_silence();
    world.constrain(Constraint::MustAnchor);
    world.is_after(second(1), PathState::Anchored);
    world.was_heard_within(return_limit(kinds));
}

/// A hold brings both home, and so long after it they have left again.
#[track_caller]
fn comes_home_for_a_hold(world: &mut World, kinds: [Kind; 2], by: usize, after: Duration) {
    world.party_offers(by, "sendonly");
    world.is_after(second(5), PathState::Anchored);
    world.party_offers(by, "sendrecv");
    world.run(Duration::from_millis(1_500));
    assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
    world.is_after(after, PathState::Direct);
}

/// Direct time is the time away, from the last packet on: one may have been on its way.
fn ends_with_its_time_in_order(mut world: World, kinds: [Kind; 2]) {
    let away = world.away;
    let direct = world.end();
    assert!(
        direct <= away + Duration::from_millis(60) && direct + Duration::from_millis(300) > away,
        "{kinds:?} {direct:?} of {away:?}"
    );
}

#[test]
fn phones_of_one_lan_leave_the_relay_and_are_proven_within_twelve_seconds() {
    for (seed, kinds) in (0..20).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, Place::OneLan);
        world.settle_and_run(Duration::from_millis(11_700));
        assert_eq!(world.state(), PathState::Direct, "{kinds:?} {:?}", world.timeline);
        world.was_heard_within(gap_limit(kinds));
        world.is_after(second(20), PathState::Direct);
        ends_with_its_time_in_order(world, kinds);
    }
}

#[test]
fn behind_nats_that_map_independently_they_are_released_and_behind_others_never_moved() {
    for kinds in pairs() {
        for nats in INDEPENDENT.into_iter().flat_map(|one| INDEPENDENT.map(|other| [one, other])) {
            let mut world = World::new(2, kinds, Place::Apart(nats));
            world.settle_and_run(second(11));
            world.is_after(Duration::from_millis(700), PathState::Direct);
            world.was_heard_within(gap_limit(kinds));
        }
        for nats in DEPENDENT.into_iter().flat_map(|one| INDEPENDENT.map(|other| [other, one])) {
            let mut world = World::new(3, kinds, Place::Apart(nats));
            world.settle_and_run(second(20));
            assert_eq!(world.away, Duration::ZERO, "{kinds:?} {nats:?} {:?}", world.timeline);
            world.was_heard_within(gap_limit(kinds));
        }
    }
}

#[test]
fn two_that_take_unlike_times_to_move_move_together_and_lose_little_to_their_nats() {
    let kinds =
        [[Kind::Baresip, Kind::Baresip], [Kind::Baresip, Kind::Linphone], [Kind::Linphone, Kind::Linphone]];
    for (seed, kinds) in (0..20).flat_map(|seed| kinds.map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, CONES);
        world.lag[seed as usize % 2] = Duration::from_millis(180);
        world.settle_and_run(Duration::from_millis(12_700));
        assert_eq!(world.state(), PathState::Direct, "{kinds:?} {:?}", world.timeline);
        world.was_heard_within(Duration::from_millis(80));
    }
}

#[test]
fn a_path_that_is_blocked_from_the_start_costs_a_second_at_most_and_is_tried_once() {
    // Two that follow what they hear cling to each other when one of them hears the other, and are asked 30 ms after the relay has
    // stopped.
    let limit = |kinds| Duration::from_millis(if kinds == [Kind::Pjsip; 2] { 1_250 } else { 1_000 });
    for (seed, kinds) in (0..20).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        for ways in [[true, true], [true, false], [false, true]] {
            let mut world = World::new(seed, kinds, CONES);
            world.ground.cut(ways);
            world.settle_and_run(second(100));
            let story =
                || format!("{kinds:?} {seed} {ways:?} {:?} {:?}", world.longest_silence(), world.timeline);
            assert_eq!(world.state(), PathState::Anchored, "{}", story());
            assert_eq!(world.trials().len(), 1, "{}", story());
            world.was_heard_within(limit(kinds));
            assert!(!world.is_silent(), "{}", story());
        }
    }
}

#[test]
fn a_path_that_is_cut_brings_the_media_back_within_seven_seconds() {
    for (seed, kinds) in (0..20).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world =
            direct(World::new(seed, kinds, BEHIND_ONE), second(20) + Duration::from_millis(seed * 370));
        world.forget_silence();
        world.ground.cut([seed % 3 != 0, seed % 3 != 1]);
        world.run(second(7));
        assert!(!world.is_silent(), "{kinds:?} {seed} {:?}", world.timeline);
        assert!(
            world.is_told_to_go(PathState::Returning, Reason::Refuted),
            "{kinds:?} {seed} {:?}",
            world.timeline
        );
    }
}

#[test]
fn policy_calls_back_at_once_and_lets_go_again() {
    for (seed, kinds) in (0..20).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world =
            direct(World::new(seed, kinds, BEHIND_ONE), second(12) + Duration::from_millis(seed * 370));
        comes_home_for_policy(&mut world, kinds);
        world.is_after(second(30), PathState::Anchored);
        world.constrain(Constraint::MayRelease);
        world.is_after(second(12), PathState::Direct);
    }
}

#[test]
fn of_phones_all_media_comes_back_where_only_video_may_go() {
    for (seed, kinds) in pairs().enumerate() {
        let mut world = direct(World::new(seed as u64, kinds, BEHIND_ONE), second(12));
        world.constrain(Constraint::VideoOnly);
        world.is_after(second(30), PathState::Anchored);
        world.constrain(Constraint::MayRelease);
        world.is_after(second(12), PathState::Direct);
    }
}

#[test]
fn policy_that_flips_while_nats_are_learnt_or_a_trial_runs_leaves_nobody_silent() {
    let nats = [Some(Nat::SymmetricRandom), Some(Nat::Cone)];
    for (kinds, nat) in pairs().flat_map(|kinds| nats.map(|nat| (kinds, nat))) {
        for after in (480..1_500).step_by(15) {
            let mut world = World::new(after, kinds, Place::Apart([nat; 2]));
            world.run(Duration::from_millis(after));
            world.constrain(Constraint::MustAnchor);
            world.run(second(3));
            let story = || format!("{kinds:?} {nat:?} {after} {:?}", world.timeline);
            assert!(!world.is_silent() && world.state() == PathState::Anchored, "{}", story());
        }
    }
}

#[test]
fn a_hold_brings_everybody_home_and_after_it_they_leave_again() {
    for kinds in pairs() {
        let mut world = direct(World::new(5, kinds, CONES), second(16));
        let away = world.away;
        comes_home_for_a_hold(&mut world, kinds, 0, second(18));
        assert!(world.away > away + second(2));
    }
}

#[test]
fn what_keeps_holes_open_in_a_hold_makes_no_lie_of_reports_about_direct_time() {
    for seed in 0..50 {
        let mut world = World::new(seed, [Kind::Linphone; 2], CONES);
        world.is_after(second(25), PathState::Direct);
        for direction in ["sendonly", "sendrecv"] {
            world.party_offers(0, direction);
            world.run(Duration::from_millis(100));
            for phone in &world.phones {
                phone.keep_open(&mut world.ground.network);
            }
            world.run(second(8));
        }
        assert!(!world.is_told(|entry| matches!(entry, Entry::Lie { .. })), "{seed} {:?}", world.timeline);
    }
}

#[test]
fn what_failed_twice_is_not_tried_on_the_next_call_for_an_hour() {
    let mut world = World::new(7, [Kind::Baresip; 2], BEHIND_ONE);
    world.ground.cut([true; 2]);
    let tries = [0, 1, 1, 1, 3_600].map(|pause| {
        if pause > 0 {
            world.call_again(second(pause));
        }
        world.is_after(second(12), PathState::Anchored);
        world.away > Duration::ZERO
    });
    assert_eq!(tries, [true, true, false, false, true]);
}

#[test]
fn a_worker_tells_what_became_of_moves_and_heeds_what_the_store_knows() {
    let mut world = World::new(6, [Kind::Baresip; 2], Place::Apart([None, None]));
    world.is_after(second(12), PathState::Direct);
    let outcomes = world.outcomes();
    assert!(outcomes.len() == 1 && outcomes[0].has_worked, "{outcomes:?}");
    for (failures, is_tried) in [(1, true), (2, false)] {
        world.restart(&outcomes[0], failures, second(60));
        world.call_again(second(1));
        world.run(second(12));
        assert_eq!(world.away > Duration::ZERO, is_tried, "{:?}", world.timeline);
    }
    world.ground.cut([true; 2]);
    world.call_again(second(60));
    world.run(second(12));
    assert!(world.away > Duration::ZERO, "it has rested: {:?}", world.timeline);
    assert_eq!(world.outcomes().iter().map(|one| one.has_worked).collect::<Vec<_>>(), [false]);
}

#[test]
fn calls_that_cover_others_stay_or_come_back_for_no_reason() {
    let limits = Limits { cover_percent: 100, ..Limits::default() };
    let mut world = World::with(8, [Kind::Baresip; 2], Place::OneLan, limits);
    world.run(second(30));
    assert_eq!((world.state(), world.away), (PathState::Anchored, Duration::ZERO), "{:?}", world.timeline);
}

/// Plays a seed; what is wrong, if anything is.
fn play(seed: u64) -> Result<World, String> {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let kinds = [dice.pick(&Kind::ALL), dice.pick(&Kind::ALL)];
    let mut nats = INDEPENDENT.to_vec();
    nats.extend(DEPENDENT);
    nats.extend([Some(Nat::LinuxCone), Some(Nat::LinuxLeaky)]);
    let place =
        if dice.below(8) == 0 { Place::OneLan } else { Place::Apart([dice.pick(&nats), dice.pick(&nats)]) };
    let mut world = World::new(seed, kinds, place);
    let mut problems = Vec::new();
    let is_blocked = dice.below(5) == 0;
    if is_blocked {
        world.ground.cut([true; 2]);
    }
    world.run(Duration::from_millis(10_000 + dice.below(12_000)));
    match dice.below(5) {
        0 => world.ground.cut([true; 2]),
        1 => {
            world.constrain(Constraint::MustAnchor);
            world.run(second(2));
            if world.is_silent() {
                problems.push("silent after policy had called it back".to_owned());
            }
        }
        2 => {
            let who = dice.below(2) as usize;
            world.party_offers(who, "sendonly");
            world.run(Duration::from_millis(200 + dice.below(9_000)));
            world.party_offers(who, "sendrecv");
        }
        _ => {}
    }
    // The longest that anything may take: reports that stop, a phone that never answers.
    world.run(second(36));
    if world.is_silent() {
        let ears = world.phones.each_ref().map(|phone| (phone.target, world.now.saturating_sub(phone.heard)));
        problems.push(format!("it ends silent: {ears:?}"));
    }
    let proofs = |confirmed: bool| {
        world.timeline.iter().filter_map(move |(at, entry)| match entry {
            Entry::Evidence { from, is_confirmed, .. } if *is_confirmed == confirmed => Some((*at, *from)),
            Entry::Trial { from, outcome } if outcome.is_proof() == confirmed => Some((*at, *from)),
            _ => None,
        })
    };
    if world.state() == PathState::Direct {
        let is_proven = |party: seam::Side| proofs(true).any(|(_, from)| from == party);
        if !seam::Side::BOTH.into_iter().all(is_proven) {
            problems.push("it stands without a proof".to_owned());
        }
    }
    for (at, _) in proofs(false) {
        // Back at once, or back already from a trial, and not to leave again.
        let is_returned = world.timeline.iter().any(|(then, entry)| {
            *then >= at
                && matches!(
                    entry,
                    Entry::State { to: PathState::Returning, why: Reason::Refuted }
                        | Entry::Stays(Stay::Failed)
                )
        });
        if !is_returned {
            problems.push("a refuted path stands".to_owned());
        }
    }
    let (away, whole) = (world.away, world.now - second(100));
    let story = format!("{kinds:?} {place:?} blocked {is_blocked}\n{:#?}", world.timeline);
    let direct = world.end();
    // What is on its way to the relay is not direct any more, and a moment after a move is not yet.
    if direct > whole || direct > away + second(1) {
        problems.push(format!("{direct:?} direct, {away:?} away of {whole:?}"));
    }
    if problems.is_empty() {
        Ok(world)
    } else {
        Err(format!("seed {seed}: {}\n{story}", problems.join("; ")))
    }
}

fn play_share(share: u64) {
    let calls: u64 = std::env::var("RELEASE_CALLS").ok().and_then(|calls| calls.parse().ok()).unwrap_or(400);
    if let Some(seed) = std::env::var("RELEASE_SEED").ok().and_then(|seed| seed.parse::<u64>().ok()) {
        if seed % 4 == share {
            match play(seed) {
                Ok(world) => println!("{:#?}", world.timeline),
                Err(problem) => panic!("{problem}"),
            }
        }
        return;
    }
    let failures: Vec<String> =
        (0..calls).filter(|seed| seed % 4 == share).filter_map(|seed| play(seed).err()).collect();
    if let Some(first) = failures.first() {
        let others: Vec<&str> = failures.iter().skip(1).filter_map(|story| story.lines().next()).collect();
        panic!("{first}\n{} more:\n{}", others.len(), others.join("\n"));
    }
}

#[test]
fn seeded_calls_of_the_first_share_end_as_they_must() {
    play_share(0);
}

#[test]
fn seeded_calls_of_the_second_share_end_as_they_must() {
    play_share(1);
}

#[test]
fn seeded_calls_of_the_third_share_end_as_they_must() {
    play_share(2);
}

#[test]
fn seeded_calls_of_the_fourth_share_end_as_they_must() {
    play_share(3);
}
