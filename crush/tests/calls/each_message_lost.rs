//! Every message of the exchange is lost once: the call ends direct or relayed, never silent.

use std::time::Duration;

use crate::support::{CONE, COUNTING, MS, Options, World};

/// Runs a call in which the n-th message is lost; says how many there were.
fn run(options: &Options, lose: u64) -> u64 {
    let mut world = World::new(&Options { lose: Some(lose), ..options.clone() });
    let direct = world.run_while(MS(8000), |world| !world.both_direct());
    let messages = world.messages;
    world.run_for(MS(1500));
    for side in 0..2 {
        let arrivals = world.arrived.iter().filter(|one| one.1 == side);
        let times: Vec<Duration> = arrivals.map(|one| one.0).collect();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX);
        assert!(gap <= MS(60), "message {lose} of {:?}: silent for {gap:?} at {side}", options.places);
        assert!(
            times.last().is_some_and(|at| *at + MS(60) >= world.now()),
            "message {lose}: silent in the end"
        );
    }
    // With one message lost, a path that exists is found all the same.
    assert!(direct, "message {lose} of {:?}: not direct", options.places);
    messages
}

#[test]
fn no_single_loss_silences_a_call_or_keeps_it_from_the_direct_path() {
    for place in [CONE, COUNTING] {
        let options = Options::new(21, place, CONE);
        let messages = run(&options, 0);
        assert!(messages > 20);
        for lose in 1..=messages {
            run(&options, lose);
        }
    }
}
