//! Every message of the exchange is lost once: the call ends direct or relayed, never silent.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may")]

mod support;

use std::time::Duration;

use nat_lab::Kind;
use support::{Options, Place, World};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// Runs a call in which the n-th message is lost; says how many there were.
fn run(options: &Options, lose: u64) -> u64 {
    let mut world = World::new(&Options { lose: Some(lose), ..options.clone() });
    world.arrived = Some(Vec::new());
    let direct = world.run_while(MS(8000), |world| !world.both_direct());
    let messages = world.messages;
    let until = world.now() + MS(1500);
    world.run_until(until);
    for side in 0..2 {
        let arrivals = world.arrived.as_ref().unwrap().iter().filter(|one| one.1 == side);
        let times: Vec<Duration> = arrivals.map(|one| one.0).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX);
        assert!(gap <= MS(60), "message {lose} of {:?}: silent for {gap:?} at {side}", options.places);
        assert!(times.last().is_some_and(|at| *at + MS(60) >= until), "message {lose}: silent in the end");
    }
    // With one message lost, a path that exists is found all the same.
    assert!(direct, "message {lose} of {:?}: not direct", options.places);
    messages
}

#[test]
fn no_single_loss_silences_a_call_or_keeps_it_from_the_direct_path() {
    for kind in [Kind::Cone, Kind::SymmetricSequential] {
        let options = Options::new(21, Place::Behind(kind), Place::Behind(Kind::Cone));
        let messages = run(&options, 0);
        assert!(messages > 20);
        for lose in 1..=messages {
            run(&options, lose);
        }
    }
}
