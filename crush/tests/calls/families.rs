//! Hosts with addresses of both families: each is measured, and the path may be of either, whatever family signalling speaks
//! (docs/crush.md §3.2 and §5.2).

use std::net::IpAddr;
use std::time::Duration;

use crate::support::{CONE, COUNTING, Options, Place, RANDOM, World};
use crush::agent::Config;
use media_wire::sdp::crush::{Fragment, Temper};

const SIGNALLING: [&str; 2] = ["2001:db8:1::10", "2001:db8:2::20"];

/// Signalling and relay over IPv6, by which the ends do not reach each other; IPv4 besides.
fn by_ipv6(seed: u64, a: Place, b: Place, config: &Config) -> World {
    let options =
        Options { ipv6: true, dual_stack: true, config: config.clone(), ..Options::new(seed, a, b) };
    let mut world = World::new(&options);
    let [one, other]: [IpAddr; 2] = SIGNALLING.map(|address| address.parse().unwrap());
    world.network.cut(one, other);
    world.network.cut(other, one);
    world
}

/// Seconds until both are direct; `None`: not in time.
fn time(mut world: World, within: u64) -> Option<f64> {
    let is_direct = world.run_while(Duration::from_secs(within), |world| !world.both_direct());
    is_direct.then(|| world.now().as_secs_f64())
}

#[test]
fn who_signals_over_ipv6_finds_the_path_that_only_ipv4_has() {
    let careful = Config::default();
    let fast = Config { temper: Some(Temper::Fast), ..Config::default() };
    for (a, b, [careful_most, fast_most]) in [
        (CONE, CONE, [1.5, 1.5]),
        (Place::Public, RANDOM, [1.5, 1.5]),
        (COUNTING, CONE, [4.0, 2.5]),
        (CONE, COUNTING, [4.0, 2.5]),
        (COUNTING, COUNTING, [20.0, 8.0]),
        (RANDOM, CONE, [30.0, 10.0]),
    ] {
        for seed in 1..=6 {
            for (config, most) in [(&careful, careful_most), (&fast, fast_most)] {
                let took = time(by_ipv6(seed, a, b, config), 40);
                assert!(took.is_some_and(|took| took < most), "{a:?} {b:?} {:?}: {took:?}", config.temper);
            }
        }
    }
}

#[test]
fn the_nat_of_each_family_is_told_in_a_line_of_its_own() {
    for ipv6 in [false, true] {
        let mut world = World::new(&Options { ipv6, dual_stack: true, ..Options::new(1, COUNTING, CONE) });
        // Only what is told of interest here: nobody gets through.
        world.network.cut("198.51.100.7".parse().unwrap(), "198.51.100.99".parse().unwrap());
        world.network.cut(SIGNALLING[0].parse().unwrap(), SIGNALLING[1].parse().unwrap());
        world.run_until(Duration::from_secs(2));
        let told = Fragment::read(world.told(0)).unwrap();
        let mapped = told.nats.iter().map(|nat| (nat.ipv6, nat.is_dependent())).collect::<Vec<_>>();
        assert_eq!(mapped, [(false, true), (true, false)], "signalling over IPv6: {ipv6}");
        let addresses = told.candidates.iter().map(|candidate| candidate.address.ip().to_string());
        let addresses = addresses.collect::<Vec<_>>();
        assert!(addresses.iter().any(|address| address == "198.51.100.7"), "{addresses:?}");
        assert!(addresses.iter().any(|address| address == SIGNALLING[0]), "{addresses:?}");
        for candidate in
            told.candidates.iter().filter_map(|candidate| Some((candidate.address, candidate.related?)))
        {
            assert_eq!(candidate.0.is_ipv4(), candidate.1.is_ipv4());
        }
    }
}

#[test]
fn a_path_that_needs_no_guess_is_found_as_soon_in_two_families_as_in_one() {
    let median = |dual_stack: bool, ipv6: bool| {
        let mut times: Vec<f64> = (1..=11)
            .map(|seed| {
                let options = Options { ipv6, dual_stack, ..Options::new(seed, CONE, CONE) };
                time(World::new(&options), 10).unwrap()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times[5]
    };
    for ipv6 in [false, true] {
        let (one, both) = (median(false, ipv6), median(true, ipv6));
        assert!(both <= one + 0.06, "signalling over IPv6: {ipv6}: {both} s, in one family {one} s");
    }
}

#[test]
fn a_router_that_restarts_in_mid_call_is_asked_anew_and_its_dead_mapping_is_not_told_again() {
    // Ports that routers open are the only way through two NATs with random ports.
    for b in [RANDOM, CONE, Place::Upnp] {
        let mut world = World::new(&Options::new(2, Place::Upnp, b));
        assert!(world.run_while(Duration::from_secs(5), |world| !world.both_direct()), "{b:?}");
        assert!(world.told(0).contains(" 198.51.100.7 5004 "));
        let asked = world.asked_router[0];
        world.restart_router(0, "198.51.100.8");
        let directs = |world: &World| {
            let direct = |event: &crush::agent::Event| matches!(event, crush::agent::Event::Direct { .. });
            world
                .phones
                .each_ref()
                .map(|phone| phone.events.iter().filter(|(_, event)| direct(event)).count())
        };
        let until = world.now() + Duration::from_secs(40);
        let is_direct = world.run_while(until, |world| directs(world).into_iter().any(|times| times < 2));
        assert!(is_direct, "{b:?}: {:#?}", world.phones[0].events);
        assert!(world.asked_router[0] > asked, "{b:?}");
        assert!(!world.told(0).contains("198.51.100.7"), "{b:?}: {}", world.told(0));
        assert!(world.told(0).contains(" 198.51.100.8 5004 "), "{b:?}: {}", world.told(0));
    }
}
