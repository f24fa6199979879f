//! How long nothing is heard when a direct path dies, and when a phone moves to another network.

use std::time::Duration;

use nat_lab::Kind;

use super::{CONE, MS, Options, World};

/// A call that has been direct for 3 s.
pub fn direct(options: &Options) -> World {
    let mut world = World::new(options);
    assert!(world.run_while(Duration::from_secs(30), |world| !world.both_direct()), "seed {}", options.seed);
    world.run_for(MS(3000));
    world
}

/// Longest time without a packet of audio at a side, from a moment on.
pub fn gap(world: &World, side: usize, from: Duration) -> Duration {
    let arrivals = world.arrived.iter().filter(|one| one.1 == side).map(|one| one.0);
    let times: Vec<Duration> = std::iter::once(from).chain(arrivals.filter(|at| *at >= from)).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(Duration::MAX)
}

/// The direct path is cut, from one end, from the other or both by turns. The world 1.5 s later, and the gap at each end.
/// The round trip of each phone to the relay is 40 ms.
pub fn cut(seed: u64) -> (World, [Duration; 2]) {
    let mut world = direct(&Options::new(seed, CONE, CONE));
    let from = world.now();
    if seed % 3 != 1 {
        world.cut(0, 1);
    }
    if !seed.is_multiple_of(3) {
        world.cut(1, 0);
    }
    world.run_until(from + MS(1500));
    let gaps = [gap(&world, 0, from), gap(&world, 1, from)];
    (world, gaps)
}

/// One phone gets another network. The world 8 s later, and the gap at each end within the first two.
pub fn network_switch(seed: u64) -> (World, [Duration; 2]) {
    let mut world = direct(&Options::new(seed, CONE, CONE));
    let from = world.now();
    world.switch_network(0, Kind::Cone);
    world.run_until(from + MS(2000));
    let gaps = [gap(&world, 0, from), gap(&world, 1, from)];
    world.run_until(from + MS(8000));
    (world, gaps)
}

/// Median and 95th percentile.
pub fn spread(mut gaps: Vec<Duration>) -> (Duration, Duration) {
    gaps.sort_unstable();
    (gaps[gaps.len() / 2], gaps[gaps.len() * 95 / 100])
}
