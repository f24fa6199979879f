//! Whole calls in virtual time: the real engine between simulated phones, with the real media worker, over a network that
//! loses a tenth of all datagrams, doubles some and reorders many.
//!
//! Every call is a seed. `SBC_VIRTUAL_SEED=17` plays that one alone and tells its story, `SBC_VIRTUAL_TRACE=full` with
//! all messages.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod description;
mod dice;
mod judge;
mod media;
mod network;
mod phone;
mod plan;
mod proxy;
mod setup;
mod world;

use plan::Plan;
use world::World;

/// Plays a seed; the problems and the story if something is wrong.
fn play(seed: u64, plan: &Plan) -> Result<World, String> {
    let mut world = World::new(seed, plan);
    world.play(plan);
    world.judge_quiet();
    if world.problems.is_empty() {
        world.hang_up_all(seed);
        world.judge_end();
    }
    if world.problems.is_empty() {
        return Ok(world);
    }
    Err(format!(
        "seed {seed}: {}\n{plan:#?}\n{}seed {seed}: {}",
        world.problems.join("; "),
        world.story(),
        world.problems.join("; ")
    ))
}

fn play_all(seeds: std::ops::Range<u64>) {
    if let Some(seed) = std::env::var("SBC_VIRTUAL_SEED").ok().and_then(|seed| seed.parse().ok()) {
        if seeds.contains(&seed) {
            match play(seed, &Plan::of(seed)) {
                Ok(world) => println!("{}", world.story()),
                Err(story) => panic!("{story}"),
            }
        }
        return;
    }
    let failures: Vec<String> = seeds.filter_map(|seed| play(seed, &Plan::of(seed)).err()).collect();
    if let Some(story) = failures.first() {
        // Of the others their last line: seed and problems.
        let others: Vec<&str> =
            failures.iter().skip(1).take(100).filter_map(|story| story.lines().last()).collect();
        panic!("{story}\n{} more:\n{}", failures.len() - 1, others.join("\n"));
    }
}

#[test]
fn calls_0_to_2499_end_as_they_must() {
    play_all(0..2500);
}

#[test]
fn calls_2500_to_4999_end_as_they_must() {
    play_all(2500..5000);
}

#[test]
fn calls_5000_to_7499_end_as_they_must() {
    play_all(5000..7500);
}

#[test]
fn calls_7500_to_9999_end_as_they_must() {
    play_all(7500..10_000);
}
