//! Long calls, lossy and silent ones: what is direct stays direct while reports are late or lost and people pause, and comes home
//! soon where it is cut. `RELEASE_LONG=50` plays so many seeds of each story.

use std::time::Duration;

use nat_lab::Kind as Nat;
use seam::path::{Entry, PathState, Reason, Stay};

use crate::world::World;
use crate::{BEHIND_ONE, pairs, second};
use play::Dice;
use play::ground::Place;
use play::phone::plain::{Kind, Voice};

const VOICES: [[Voice; 2]; 5] = [
    [Voice::Steady; 2],
    [Voice::Spurts, Voice::Steady],
    [Voice::Spurts; 2],
    [Voice::ComfortNoise, Voice::Steady],
    [Voice::Steady, Voice::Muted { from: 30_000, to: 70_000 }],
];
const NATS: [[Option<Nat>; 2]; 3] =
    [[Some(Nat::Cone), Some(Nat::Cone)], [None, Some(Nat::RestrictedCone)], [None, None]];

fn seeds() -> u64 {
    std::env::var("RELEASE_LONG").ok().and_then(|number| number.parse().ok()).unwrap_or(1)
}

struct Story {
    seed: u64,
    kinds: [Kind; 2],
    voices: [Voice; 2],
    loss: f64,
}

impl Story {
    fn each(mut play: impl FnMut(&Story)) {
        for seed in 0..seeds() {
            for (number, kinds) in pairs().enumerate() {
                for (index, voices) in VOICES.into_iter().enumerate() {
                    for loss in [0.0, 0.02] {
                        let seed = seed * 1_000 + number as u64 * 10 + index as u64;
                        play(&Story { seed, kinds, voices, loss });
                    }
                }
            }
        }
    }

    fn world(&self) -> World {
        let nats = NATS[self.seed as usize % NATS.len()];
        let mut world = World::new(self.seed, self.kinds, Place::Apart(nats));
        for (phone, voice) in world.phones.iter_mut().zip(self.voices) {
            phone.voice = voice;
            phone.loses_one_a_minute = true;
        }
        if self.loss > 0.0 {
            world.lose(self.loss);
        }
        world
    }

    fn tell(&self, world: &World) -> String {
        let Self { seed, kinds, voices, loss } = self;
        let lost: Vec<_> = world.phones.iter().map(|phone| &phone.lost_reports).collect();
        format!(
            "seed {seed} {kinds:?} {voices:?} loss {loss}, moves {:?}, lost {lost:?}\n{:?}",
            world.moves.longest, world.timeline
        )
    }
}

/// Runs until it is direct, or for so long.
fn until_direct(world: &mut World, most: Duration) -> bool {
    let end = world.now + most;
    while world.now < end && world.state() != PathState::Direct {
        world.run(second(1));
    }
    world.state() == PathState::Direct
}

#[test]
fn what_is_direct_stays_direct_whoever_is_silent_and_whatever_reports_are_lost() {
    let (mut calls, mut never, mut moves) = (0_u32, 0_u32, Vec::new());
    Story::each(|story| {
        let mut world = story.world();
        world.run(second(180));
        calls += 1;
        let outcomes = world.outcomes();
        let tell = || story.tell(&world);
        let Some(first) = world.moves.first_direct else {
            // Two that never speak at a time are left alone.
            assert!(story.voices.contains(&Voice::Spurts) || story.loss > 0.0, "{}", tell());
            assert!(!world.stays(Stay::Failed), "{}", tell());
            never += 1;
            return;
        };
        let since = world.now - first;
        let share = world.moves.direct.as_secs_f64() / since.as_secs_f64();
        assert!(share >= 0.95 || since < second(10), "{share} {}", tell());
        assert!(outcomes.iter().all(|outcome| outcome.has_worked), "{}", tell());
        let most = world.moves.longest.iter().max().copied().unwrap_or_default();
        // Who falls silent as a trial begins has opened its NAT to nobody for its 0.7 s.
        let may_pause = story.voices.contains(&Voice::Spurts);
        let limit = Duration::from_millis(match story.loss > 0.0 {
            _ if may_pause => 1_000,
            true => 600,
            false => 220,
        });
        assert!(most <= limit, "{most:?} {}", tell());
        moves.extend(world.moves.longest.iter().copied().filter(|_| story.loss > 0.0));
    });
    moves.sort();
    let usual = moves[moves.len() * 95 / 100];
    assert!(usual <= Duration::from_millis(250), "{usual:?} of {} moves", moves.len());
    assert!(never * 20 <= calls, "{never} of {calls} were never direct");
}

#[test]
fn a_cut_at_any_moment_brings_the_media_home_as_soon_as_somebody_tells_of_it() {
    Story::each(|story| {
        let mut world = story.world();
        let mut dice = Dice::new(story.seed ^ 0xc07);
        if !until_direct(&mut world, second(120)) {
            return;
        }
        world.run(Duration::from_millis(dice.below(60_000)));
        if world.state() != PathState::Direct {
            return;
        }
        world.phones.iter_mut().for_each(|phone| phone.voice = Voice::Steady);
        let lost = |world: &World| world.phones.iter().map(|phone| phone.lost_reports.len()).sum::<usize>();
        let (before, cut_at) = (lost(&world), world.now);
        let ways = dice.pick(&[[true, true], [true, false], [false, true]]);
        world.ground.cut(ways);
        // On lines that lose, the network may take a report of each, too.
        let spare = if story.loss > 0.0 { 1 } else { 0 };
        let limit =
            |world: &World| Duration::from_millis(7_000 + 6_200 * (lost(world) - before + spare) as u64);
        while world.is_silent() || world.state() == PathState::Direct {
            assert!(world.now < cut_at + limit(&world), "{ways:?} at {cut_at:?} {}", story.tell(&world));
            world.run(Duration::from_millis(100));
        }
        world.run(second(5));
        assert!(!world.is_silent(), "{ways:?} {}", story.tell(&world));
    });
}

#[test]
fn reports_that_are_lost_for_half_a_minute_bring_it_home_and_it_may_leave_again() {
    for (seed, kinds) in (0..3).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, BEHIND_ONE);
        assert!(until_direct(&mut world, second(20)), "{kinds:?} {:?}", world.timeline);
        world.run(second(8));
        let from = world.now;
        world.phones.iter_mut().for_each(|phone| phone.loses_reports = from..from + second(30));
        world.is_after(second(12), PathState::Direct);
        world.is_after(second(9), PathState::Anchored);
        assert!(!world.is_silent());
        // They are heard again 9 s later, and a baresip tells of a trial 5 s after it.
        assert!(until_direct(&mut world, second(25)), "{kinds:?} {:?}", world.timeline);
        assert!(world.outcomes().iter().all(|outcome| outcome.has_worked), "{kinds:?}");
    }
}

#[test]
fn a_call_whose_reports_are_lost_again_and_again_does_not_flap() {
    for (seed, kinds) in (0..2).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, BEHIND_ONE);
        let end = world.now + second(600);
        while world.now < end {
            let left = end - world.now;
            if !until_direct(&mut world, left) {
                break;
            }
            // One report of each speaks for it, and then none.
            world.run(Duration::from_millis(6_500));
            let from = world.now;
            world.phones.iter_mut().for_each(|phone| phone.loses_reports = from..from + second(22));
            world.run(second(22));
        }
        let is_lapse = |(_, entry): &&(Duration, Entry)| {
            matches!(entry, Entry::State { to: PathState::Returning, why: Reason::ReportsStopped })
        };
        let lapses = world.timeline.iter().filter(is_lapse).count();
        assert!((3..=10).contains(&lapses), "{kinds:?} {seed} {lapses} {:?}", world.timeline);
        assert!(world.outcomes().iter().all(|outcome| outcome.has_worked), "{kinds:?}");
    }
}

#[test]
fn one_phones_reports_are_enough_for_no_direction_but_the_one_that_it_hears() {
    for (seed, kinds) in (0..3).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, BEHIND_ONE);
        assert!(until_direct(&mut world, second(20)), "{kinds:?} {:?}", world.timeline);
        world.run(second(8));
        let from = world.now;
        world.phones[seed as usize % 2].loses_reports = from..from + second(600);
        world.is_after(second(12), PathState::Direct);
        world.is_after(second(9), PathState::Anchored);
    }
}

#[test]
fn counts_that_wrap_and_sources_that_change_end_no_direct_call_and_hide_no_cut() {
    for (seed, kinds) in (0..4).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, Place::Apart([None, None]));
        if seed % 2 == 0 {
            world.phones.iter_mut().for_each(|phone| phone.has_sent(u32::MAX - 1_200));
        }
        assert!(until_direct(&mut world, second(20)), "{kinds:?} {:?}", world.timeline);
        world.run(Duration::from_millis(7_000 + 613 * seed));
        if seed % 2 == 1 {
            world.phones[seed as usize / 2].changes_source();
        }
        world.is_after(second(60), PathState::Direct);
        world.ground.cut([true; 2]);
        world.run(second(7));
        assert!(!world.is_silent(), "{kinds:?} {seed} {:?}", world.timeline);
    }
}

#[test]
fn an_announcement_one_way_proves_nothing_harms_nothing_and_is_not_remembered() {
    // One hears and never speaks, from the start or after a while: it stays, or stays direct.
    for (kinds, from) in pairs().flat_map(|kinds| [0, 900, 1_300, 40_000].map(|from| (kinds, from))) {
        let mut world = World::new(3, kinds, BEHIND_ONE);
        world.phones[1].voice = Voice::Muted { from, to: u64::MAX };
        world.run(second(30));
        world.phones.iter_mut().for_each(|phone| phone.longest_unheard = Duration::ZERO);
        world.run(second(100));
        let outcomes = world.outcomes();
        let story = || format!("{kinds:?} muted from {from} {:?}", world.timeline);
        let failed = |entry: &Entry| matches!(entry, Entry::Stays(Stay::Failed | Stay::Remembered));
        assert!(!world.is_told(failed), "{}", story());
        let refuted = |entry: &Entry| matches!(entry, Entry::State { why: Reason::Refuted, .. });
        assert!(!world.is_told(refuted), "{}", story());
        if from == 40_000 {
            assert_eq!(world.state(), PathState::Direct, "{}", story());
        }
        let unheard = world.phones[1].longest_unheard;
        assert!(unheard <= Duration::from_millis(200), "{unheard:?} {}", story());
        assert!(outcomes.iter().all(|outcome| outcome.has_worked), "{}", story());
    }
}

#[test]
fn a_trial_in_which_one_was_silent_is_made_again_when_both_speak() {
    for kinds in pairs() {
        let mut world = World::new(9, kinds, BEHIND_ONE);
        world.phones[0].voice = Voice::Muted { from: 700, to: 30_000 };
        world.run(second(30));
        world.is_after(second(40), PathState::Direct);
    }
}
