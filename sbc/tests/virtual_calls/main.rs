//! Whole calls in virtual time: the real engine between simulated phones, with the real media worker, over a network that
//! loses a tenth of all datagrams, doubles some and reorders many.
//!
//! Every call is a seed. `SBC_VIRTUAL_SEED=17` plays that one alone and tells its story, `SBC_VIRTUAL_TRACE=full` with
//! all messages; `SBC_VIRTUAL_CALLS=100000` plays more of them. What they held is counted and printed (`--nocapture`).

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod census;
mod description;
mod judge;
mod media;
mod network;
mod phone;
mod plan;
mod proxy;
mod setup;
mod wishes;
mod world;

use census::Census;
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

/// How many calls there are; `SBC_VIRTUAL_CALLS` asks for more.
const CALLS: u64 = 10_000;
/// Every case must happen in so many of them.
const LEAST: u32 = 30;

/// Plays every seed of one residue class: the stories of those that went wrong, and what the others held.
fn play_every(step: u64, offset: u64, calls: u64) -> (Vec<String>, Census) {
    let mut failures = Vec::new();
    let mut census = Census::default();
    for seed in (0..calls).filter(|seed| seed % step == offset) {
        match play(seed, &Plan::of(seed)) {
            Ok(world) => census.add(world.cases()),
            Err(story) => failures.push(story),
        }
    }
    (failures, census)
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn ten_thousand_calls_end_as_they_must_and_hold_every_case() {
    if let Some(seed) = number_from("SBC_VIRTUAL_SEED") {
        match play(seed, &Plan::of(seed)) {
            Ok(world) => println!("{}\n{:?}", world.story(), world.cases()),
            Err(story) => panic!("{story}"),
        }
        return;
    }
    let calls = number_from("SBC_VIRTUAL_CALLS").unwrap_or(CALLS).max(CALLS);
    let threads = std::thread::available_parallelism().map_or(2, |number| number.get() as u64);
    let (mut failures, mut census) = (Vec::new(), Census::default());
    std::thread::scope(|scope| {
        let players: Vec<_> =
            (0..threads).map(|offset| scope.spawn(move || play_every(threads, offset, calls))).collect();
        for player in players {
            let (failed, held) = player.join().expect("a player does not panic");
            failures.extend(failed);
            census.merge(held);
        }
    });
    if let Some(story) = failures.first() {
        // Of the others their last line: seed and problems.
        let others: Vec<&str> =
            failures.iter().skip(1).take(100).filter_map(|story| story.lines().last()).collect();
        panic!("{story}\n{} more:\n{}", failures.len() - 1, others.join("\n"));
    }
    println!("{}", census.table());
    let rare = census.rare(LEAST);
    assert!(rare.is_empty(), "in fewer than {LEAST} of {calls} calls:\n{}", rare.join("\n"));
}
