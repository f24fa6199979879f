//! Several calls of one host in front of a limiter that punishes haste (docs/crush.md §5.1).

use std::net::SocketAddr;
use std::time::Duration;

use crate::support::{CONE, COUNTING, MS, Options, Place, RANDOM, World};
use crush::agent::{Config, Event, FlowBudget};
use media_wire::sdp::crush::Temper;
use nat_lab::{Behaviour, FlowLimit, Kind, Nat, Penalty};

/// Plays calls of one host at once, side by side, and what their packets do to one limiter in front of it: how often it struck, and how
/// many of them are direct.
fn at_once(
    places: &[(Place, Place)],
    config: &Config,
    budget: &FlowBudget,
    limit: FlowLimit,
    seed: u64,
) -> (u64, usize) {
    let mut worlds: Vec<World> = places
        .iter()
        .zip(seed..)
        .map(|((a, b), seed)| {
            let options = Options {
                flows: [Some(budget.clone()), None],
                config: config.clone(),
                ..Options::new(seed, *a, *b)
            };
            let mut world = World::new(&options);
            world.capture = Some(Vec::new());
            world
        })
        .collect();
    for tick in 0..60_000 {
        worlds.iter_mut().for_each(|world| world.run_until(MS(tick)));
        if worlds.iter().all(World::both_direct) {
            break;
        }
    }
    let mut sent: Vec<(Duration, SocketAddr, SocketAddr)> = Vec::new();
    for (number, world) in worlds.iter_mut().enumerate() {
        let out = world.captured().into_iter().filter(|sent| sent.side == 0);
        // One host: sockets of different calls have different ports.
        let own = |source: SocketAddr| {
            SocketAddr::from(([192, 168, 1, 10], source.port() / 2 + 20_000 * number as u16))
        };
        sent.extend(out.map(|sent| (sent.at, own(sent.source), sent.to)));
    }
    sent.sort_by_key(|(at, ..)| *at);
    let behaviour = Behaviour { limit: Some(limit), ..Behaviour::from(Kind::Cone) };
    let mut nat = Nat::new(behaviour, &["198.51.100.7".parse().unwrap()], 1);
    for (at, source, to) in sent {
        let _ = nat.outbound(source, to, at);
    }
    (nat.counters().limited, worlds.iter().filter(|world| world.both_direct()).count())
}

fn blocks(per_second: f64, burst: u32) -> FlowLimit {
    FlowLimit { per_second, burst, penalty: Penalty::Block(Duration::from_secs(2)) }
}

#[test]
fn one_two_and_three_calls_of_a_host_together_trip_no_limiter_of_thirty() {
    for places in [
        &[(RANDOM, CONE)][..],
        &[(CONE, RANDOM), (RANDOM, CONE)],
        &[(COUNTING, CONE), (COUNTING, COUNTING), (CONE, RANDOM)],
    ] {
        for seed in [1, 2] {
            let budget = FlowBudget::new(None, None);
            let (limited, direct) = at_once(places, &Config::default(), &budget, blocks(30.0, 30), seed);
            assert_eq!((limited, direct), (0, places.len()), "{places:?}");
        }
    }
}

#[test]
fn a_limit_of_forty_holds_for_two_calls_together() {
    let config = Config { temper: Some(Temper::Fast), ..Config::default() };
    let budget = FlowBudget::new(Some(Temper::Fast), Some(40.0));
    let (limited, direct) = at_once(&[(CONE, RANDOM), (CONE, RANDOM)], &config, &budget, blocks(45.0, 45), 1);
    assert_eq!((limited, direct), (0, 2));
}

#[test]
fn who_is_blocked_in_spite_of_what_was_said_notices_it_and_is_not_blocked_again() {
    let config = Config { temper: Some(Temper::Fast), ..Config::default() };
    let limiter = Some(Penalty::Block(Duration::from_secs(2)));
    for (a, b) in [(RANDOM, CONE), (CONE, RANDOM)] {
        for seed in 1..=4 {
            let mut world =
                World::new(&Options { config: config.clone(), limiter, ..Options::new(seed, a, b) });
            world.run_while(MS(60_000), |world| !world.both_direct());
            assert!(world.both_direct(), "{a:?} {b:?} {seed}");
            for (phone, nat) in world.phones.iter().zip(world.nats) {
                let blocks = world.network.nat(nat.unwrap()).counters().blocks;
                let noticed = phone.when(|event| matches!(event, Event::SlowedDown(Temper::Normal)));
                let slower = phone.when(|event| matches!(event, Event::SlowedDown(Temper::Stealth)));
                assert_eq!((blocks, slower), (1, None), "{a:?} {b:?} {seed}: {:?}", phone.events);
                assert!(noticed.is_some_and(|at| at < MS(3000)), "{a:?} {b:?} {seed}: {:?}", phone.events);
            }
        }
    }
}

#[test]
fn haste_that_the_operator_allows_is_made_where_the_user_has_said_nothing() {
    let time = |user: Option<Temper>, operator: Option<Temper>| {
        let config = Config { temper: user, ..Config::default() };
        let options = |seed| Options { config: config.clone(), operator, ..Options::new(seed, CONE, RANDOM) };
        let mut times: Vec<Duration> = (1..=9)
            .map(|seed| {
                let mut world = World::new(&options(seed));
                assert!(world.run_while(MS(60_000), |world| !world.both_direct()), "{seed}");
                world.now()
            })
            .collect();
        times.sort();
        times[4]
    };
    let (fast, normal) = (Some(Temper::Fast), Some(Temper::Normal));
    assert!(time(None, fast) < MS(4000));
    // The slower of two words, and `normal` where nobody has said a word.
    for (user, operator) in [(None, None), (normal, fast), (fast, normal), (None, normal)] {
        assert!(time(user, operator) > MS(5000), "{user:?} {operator:?}");
    }
}

#[test]
fn what_was_said_of_a_network_is_not_said_of_the_next() {
    let mut world = World::new(&Options { operator: Some(Temper::Fast), ..Options::new(3, CONE, CONE) });
    assert!(world.run_while(MS(5000), |world| !world.both_direct()));
    world.switch_network(0, Kind::SymmetricRandom);
    world.describe(0, media_wire::sdp::crush::Policy::Direct);
    let probing = |(at, event): &(Duration, Event)| match event {
        Event::Probing { temper, .. } if *at > MS(1000) => Some(*temper),
        _ => None,
    };
    world.run_for(MS(10_000));
    let tempers: Vec<Temper> = world.phones[0].events.iter().filter_map(probing).collect();
    assert!(!tempers.is_empty() && tempers.iter().all(|temper| *temper != Temper::Fast), "{tempers:?}");
}
