//! Whole calls in virtual time: the real engine between simulated phones, with the real media worker, over a network that
//! loses a tenth of all datagrams, doubles some and reorders many.
//!
//! Every call is a seed. `SBC_VIRTUAL_SEED=17` plays that one alone and tells its story, `SBC_VIRTUAL_TRACE=full` with
//! all messages; `SBC_VIRTUAL_CALLS=100000` plays more of them. What they held is counted and printed (`--nocapture`).
//! Some of them go from process to process: `SBC_HANDED_SEED` and `SBC_HANDED_CALLS` are the same for those.

#![expect(clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test fails by panicking")]

mod census;
mod description;
mod judge;
mod media;
mod network;
mod phone;
mod plan;
mod processes;
mod proxy;
mod setup;
mod wishes;
mod world;

use census::Census;
use plan::Plan;
use world::World;

/// Plays a seed; the problems and the story if something is wrong.
fn play(seed: u64, is_handed: bool) -> Result<World, String> {
    let plan = &Plan::of(seed);
    let mut world = World::new(seed, plan, is_handed);
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
/// How many of them go from process to process; `SBC_HANDED_CALLS` asks for as many as one likes.
const HANDED: u64 = 400;

/// What many calls held.
#[derive(Default)]
struct Held {
    /// The stories of those that went wrong.
    failures: Vec<String>,
    census: Census,
    /// How often a call was handed over, and how often one that was to be did not rest.
    handed: u32,
    waited: u32,
}

/// Plays every seed of one residue class.
fn play_every(step: u64, offset: u64, calls: u64, is_handed: bool) -> Held {
    let mut held = Held::default();
    for seed in (0..calls).filter(|seed| seed % step == offset) {
        match play(seed, is_handed) {
            Ok(world) => {
                held.census.add(world.cases());
                held.handed += world.processes.handed;
                held.waited += world.processes.waited;
            }
            Err(story) => held.failures.push(story),
        }
    }
    held
}

/// Plays so many seeds, and fails if one went wrong.
fn play_all(calls: u64, is_handed: bool) -> Held {
    let threads = std::thread::available_parallelism().map_or(2, |number| number.get() as u64);
    let mut all = Held::default();
    std::thread::scope(|scope| {
        let player = |offset| scope.spawn(move || play_every(threads, offset, calls, is_handed));
        let players: Vec<_> = (0..threads).map(player).collect();
        for player in players {
            let held = player.join().expect("a player does not panic");
            all.failures.extend(held.failures);
            all.census.merge(held.census);
            all.handed += held.handed;
            all.waited += held.waited;
        }
    });
    if let Some(story) = all.failures.first() {
        // Of the others their last line: seed and problems.
        let others: Vec<&str> =
            all.failures.iter().skip(1).take(100).filter_map(|story| story.lines().last()).collect();
        panic!("{story}\n{} more:\n{}", all.failures.len() - 1, others.join("\n"));
    }
    all
}

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

/// Whether one seed alone was asked for; its story is told then.
fn is_told_alone(name: &str, is_handed: bool) -> bool {
    let Some(seed) = number_from(name) else { return false };
    match play(seed, is_handed) {
        Ok(world) => println!("{}\n{:?}", world.story(), world.cases()),
        Err(story) => panic!("{story}"),
    }
    true
}

#[test]
fn ten_thousand_calls_end_as_they_must_and_hold_every_case() {
    if is_told_alone("SBC_VIRTUAL_SEED", false) {
        return;
    }
    let calls = number_from("SBC_VIRTUAL_CALLS").unwrap_or(CALLS).max(CALLS);
    let census = play_all(calls, false).census;
    println!("{}", census.table());
    let rare = census.rare(LEAST);
    assert!(rare.is_empty(), "in fewer than {LEAST} of {calls} calls:\n{}", rare.join("\n"));
}

/// The same calls, and the same judge; but whenever chance wants it, another process goes on with all that rest, from text.
#[test]
fn calls_that_go_from_process_to_process_end_as_they_must() {
    if is_told_alone("SBC_HANDED_SEED", true) {
        return;
    }
    let calls = number_from("SBC_HANDED_CALLS").unwrap_or(HANDED);
    let Held { handed, waited, .. } = play_all(calls, true);
    println!("{calls} calls were handed over {handed} times, and did not rest {waited} times");
    assert!(u64::from(handed) > calls * 4, "{handed} handovers of {calls} calls");
}
