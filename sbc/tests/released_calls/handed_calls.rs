//! The same calls, and the same judges; but whenever chance wants it, another process goes on with the call and its media, from text: with
//! another clock, other sockets and other secrets.
//!
//! `HANDED_SEED=17` plays both calls of that seed and tells their stories, `HANDED_CALLS=10000` plays so many of each.

use std::time::Duration;

use play::Dice;

use crate::world::World;
use crate::{Plan, crush_calls, number_from, play, played};

/// What is told of it.
pub(crate) const GOES_ON: &str = "another process goes on";

/// When another process goes on: chance, and the next time.
pub(crate) struct Moments {
    dice: Dice,
    next: Duration,
}

impl Moments {
    /// From now on.
    pub(crate) fn of(seed: u64, now: Duration) -> Self {
        Self { dice: Dice::of(seed, 7), next: now }
    }

    /// Chance, if it is time.
    pub(crate) fn due(&mut self, now: Duration) -> Option<&mut Dice> {
        if self.next > now {
            return None;
        }
        let span = self.dice.pick(&[20, 400, 4_000]);
        self.next = now + Duration::from_millis(1 + self.dice.below(span));
        Some(&mut self.dice)
    }
}

impl World {
    /// From now on another process goes on with the call now and then.
    pub(crate) fn hand_over_at_times(&mut self, seed: u64) {
        self.moments = Some(Moments::of(seed, self.now));
    }

    /// If it is time for that.
    pub(crate) fn hand_over(&mut self) {
        let Some(dice) = self.moments.as_mut().and_then(|moments| moments.due(self.now)) else { return };
        if self.node.hand_over(dice, self.now) {
            self.note(GOES_ON.to_owned());
        }
        self.drain_engine();
    }
}

/// A seed's call of ordinary phones, and its call of endpoints of CRUSH: both stories.
fn play_both(seed: u64) -> Result<[String; 2], String> {
    let (_, story) = play(seed, Plan { is_handed: true, ..Plan::of(seed) })?;
    Ok([story, crush_calls::play(seed, true, &mut Default::default())?])
}

#[test]
fn calls_that_go_from_process_to_process_are_released_and_come_back_as_ever() {
    if let Some(seed) = number_from("HANDED_SEED") {
        match play_both(seed) {
            Ok(stories) => println!("{}", stories.concat()),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let calls = number_from("HANDED_CALLS").unwrap_or(30);
    let times = played(calls, |seed, times: &mut [usize; 2]| {
        let stories = play_both(seed)?;
        for (times, story) in times.iter_mut().zip(&stories) {
            *times += story.matches(GOES_ON).count();
        }
        Ok(stories.concat())
    });
    let times = [0, 1].map(|kind| times.iter().map(|times| times[kind]).sum::<usize>());
    println!("{calls} calls of ordinary phones and of CRUSH were handed over {times:?} times");
    assert!(times.iter().all(|times| *times as u64 > calls * 4), "{times:?} times");
}
