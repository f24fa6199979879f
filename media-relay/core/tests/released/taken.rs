//! Calls that another process goes on with, between any two of their moves: to the last count they are as they would have been.

use std::time::Duration;

use media_core::state::NotSteady;
use nat_lab::Kind as Nat;
use play::Dice;
use play::ground::Place;
use seam::StreamStatistics;
use seam::path::{Constraint, PathState};

use crate::world::World;
use crate::{BEHIND_ONE, pairs, second};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// What befalls a call after it has become direct.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Nothing,
    Hold,
    Broken,
    Policy,
    Tap,
}

const FATES: [Fate; 5] = [Fate::Nothing, Fate::Hold, Fate::Broken, Fate::Policy, Fate::Tap];

/// Runs it, and hands it over at these times since then, or as soon as it rests.
struct Run {
    world: World,
    dice: Dice,
    handovers: Vec<Duration>,
    /// How often it had to wait.
    waits: Vec<NotSteady>,
    took: u32,
}

impl Run {
    fn new(world: World, seed: u64, handovers: Vec<Duration>) -> Self {
        Self { world, dice: Dice::new(seed), handovers, waits: Vec::new(), took: 0 }
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.now < end {
            let due = self.handovers.first().map_or(end, |due| MS(100_000) + *due).min(end);
            if due > self.world.now {
                self.world.run(due - self.world.now);
            } else {
                match self.world.hand_over(&mut self.dice) {
                    Ok(()) => {
                        self.handovers.remove(0);
                        self.took += 1;
                    }
                    Err(why) => {
                        self.waits.push(why);
                        self.world.run(MS(5).min(end - self.world.now));
                    }
                }
            }
        }
    }

    fn play(&mut self, fate: Fate, by: usize) {
        self.run(second(14));
        match fate {
            Fate::Nothing => {}
            Fate::Hold => self.world.party_offers(by, "sendonly"),
            Fate::Broken => self.world.ground.cut([true, true]),
            Fate::Policy => self.world.constrain(Constraint::MustAnchor),
            Fate::Tap => self.world.tap(true),
        }
        self.run(second(9));
        match fate {
            Fate::Nothing | Fate::Broken => {}
            Fate::Hold => self.world.party_offers(by, "sendrecv"),
            Fate::Policy => self.world.constrain(Constraint::MayRelease),
            Fate::Tap => self.world.tap(false),
        }
        self.run(second(17));
    }

    /// All that is told of it. Text of a fraction is not always the very same fraction.
    fn told(mut self) -> (String, Vec<StreamStatistics>, Duration) {
        let mut counts = self.world.counts();
        for one in &mut counts {
            one.jitter_ms = (one.jitter_ms * 1_000.0).round();
            one.mos = one.mos.map(|mos| (mos * 1_000.0).round());
        }
        let story = format!("{:?} {:?}", self.world.timeline, self.world.others);
        (story, counts, self.world.end())
    }
}

#[test]
fn a_call_that_is_handed_over_is_told_of_as_if_it_had_not_been() {
    let places =
        [Place::OneLan, Place::Apart([Some(Nat::Cone), Some(Nat::FullCone)]), Place::Apart([None; 2])];
    let (mut took, mut states, mut waited) = (0, Vec::new(), Vec::new());
    for (number, kinds) in (0..40u64).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        let mut dice = Dice::new(number ^ 0xabc);
        let (place, fate) = (places[number as usize % 3], FATES[number as usize % 5]);
        let by = number as usize % 2;
        let whole = || World::new(number, kinds, place);
        let mut straight = Run::new(whole(), 0, Vec::new());
        straight.play(fate, by);
        // At any time, and when much is going on: after the answer, and after what befalls it.
        let mut draw = || match dice.below(6) {
            0 => MS(5 * dice.below(300)),
            1 => MS(14_000 + 5 * dice.below(60)),
            2 => MS(23_000 + 5 * dice.below(60)),
            _ => MS(5 * dice.below(8_000)),
        };
        let mut handovers = [draw(), draw(), draw()];
        handovers.sort();
        let mut handed = Run::new(whole(), number, handovers.to_vec());
        handed.play(fate, by);
        took += handed.took;
        states.push(handed.world.state());
        waited.extend(std::mem::take(&mut handed.waits));
        let case = format!("{number} {kinds:?} {place:?} {fate:?} {handovers:?}");
        assert_eq!(handed.told(), straight.told(), "{case}");
    }
    assert!(took > 1_000, "{took}");
    assert!(states.contains(&PathState::Direct) && states.contains(&PathState::Anchored));
    assert!(waited.contains(&NotSteady::Wish) && waited.contains(&NotSteady::Offer), "{waited:?}");
}

#[test]
fn two_halves_of_a_call_part_at_home_and_are_put_together_by_who_takes_both() {
    for (seed, kinds) in (0..10u64).flat_map(|seed| pairs().map(move |kinds| (seed, kinds))) {
        for halves in [2, 3] {
            let mut world = World::through(halves, seed, kinds, BEHIND_ONE);
            let mut dice = Dice::new(seed);
            world.is_after(second(13) + MS(5 * dice.below(1_000)), PathState::Direct);
            world.forget_silence();
            let mut times = 0;
            while let Err(why) = world.hand_over(&mut dice) {
                assert!(matches!(why, NotSteady::Away | NotSteady::Wish), "{why}");
                world.run(MS(20));
                times += 1;
                assert!(times < 300, "{kinds:?} {:?}", world.timeline);
            }
            assert!(!world.is_silent(), "{kinds:?} {:?}", world.timeline);
            let before = world.away;
            world.run(second(25));
            assert!(world.away > before + second(5), "{kinds:?} {:?} {:?}", world.timeline, world.others);
            let away = world.away;
            let direct = world.end();
            assert!(direct.abs_diff(away) < second(1), "{kinds:?} {direct:?} of {away:?}");
        }
    }
}
