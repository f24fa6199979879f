//! Which NAT pairs get a direct path, and how soon (docs/crush.md §5): every pair, in a few runs.

use std::time::Duration;

use crate::support::{CONE, COUNTING, Options, Place, RANDOM, World};
use crush::agent::{Config, Event, Part};
use media_wire::sdp::crush::Temper;
use nat_lab::{Kind, Penalty};

const BLOCK: Penalty = Penalty::Block(Duration::from_secs(2));
const FULL: Place = Place::Behind(Kind::FullCone);
const RESTRICTED: Place = Place::Behind(Kind::RestrictedCone);
const BY_ADDRESS: Place = Place::Behind(Kind::SymmetricAddress);
const LINUX: Place = Place::Behind(Kind::LinuxCone);
const LEAKY: Place = Place::Behind(Kind::LinuxLeaky);

/// Times to direct of the runs that got there, in order.
fn times(options: &Options, runs: u64, within: Duration) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..runs)
        .filter_map(|run| {
            let mut world = World::new(&Options { seed: options.seed + run, ..options.clone() });
            let direct = world.run_while(within, |world| !world.both_direct());
            for nat in world.nats.into_iter().flatten() {
                let limited = world.network.nat(nat).counters().limited;
                assert_eq!(limited, 0, "seed {} of {:?}", options.seed + run, options.places);
            }
            direct.then(|| world.now())
        })
        .collect();
    times.sort_unstable();
    times
}

#[test]
fn friendly_pairs_are_direct_always_and_in_under_a_second() {
    let friendly = [Place::Public, Place::Upnp, FULL, RESTRICTED];
    let all = [CONE, FULL, RESTRICTED, COUNTING, RANDOM, BY_ADDRESS, LINUX, Place::Upnp, Place::Public];
    let pairs = friendly.into_iter().flat_map(|one| all.into_iter().map(move |other| (one, other)));
    let cones = [(CONE, CONE), (CONE, LINUX), (LINUX, LINUX), (Place::SameLan, Place::SameLan)];
    for (a, b) in pairs.chain(cones) {
        let times = times(&Options::new(1, a, b), 5, Duration::from_secs(20));
        assert_eq!(times.len(), 5, "{a:?} {b:?}");
        assert!(times[2] < Duration::from_secs(1), "{a:?} {b:?}: {times:?}");
    }
}

#[test]
fn counting_nats_are_found_behind_port_restricted_ones_and_behind_each_other() {
    for (a, b) in [(COUNTING, CONE), (CONE, COUNTING), (COUNTING, LINUX), (COUNTING, COUNTING)] {
        for other_users in [0.0, 5.0] {
            let options = Options { other_users, ..Options::new(1, a, b) };
            let times = times(&options, 20, Duration::from_secs(30));
            assert!(times.len() >= 19, "{a:?} {b:?}: {} of 20, {times:?}", times.len());
        }
    }
}

#[test]
fn a_router_that_moves_the_port_of_who_is_called_first_is_passed_by_a_socket_that_nobody_knew() {
    let others = [CONE, LINUX, COUNTING];
    let pairs = others.into_iter().flat_map(|other| [(LEAKY, other), (other, LEAKY)]);
    for (a, b) in pairs {
        // Whose packet is first depends on who is nearer.
        for far in [0, 5, 30, 80].map(Duration::from_millis) {
            let options = Options { far, ..Options::new(1, a, b) };
            let times = times(&options, 10, Duration::from_secs(30));
            assert_eq!(times.len(), 10, "{a:?} {b:?} {far:?}");
            let limit = if a == COUNTING || b == COUNTING { 12 } else { 3 };
            assert!(times[9] < Duration::from_secs(limit), "{a:?} {b:?} {far:?}: {times:?}");
        }
    }
}

#[test]
fn such_a_socket_trips_no_flood_limiter() {
    let config = Config { temper: Some(Temper::Stealth), ..Config::default() };
    for (a, b) in [(LEAKY, CONE), (CONE, LEAKY), (LEAKY, COUNTING)] {
        let far = Duration::from_millis(30);
        let options = Options { config: config.clone(), limiter: Some(BLOCK), far, ..Options::new(3, a, b) };
        assert_eq!(times(&options, 5, Duration::from_secs(182)).len(), 5, "{a:?} {b:?}");
    }
}

#[test]
fn the_birthday_method_beats_a_random_nat_in_front_of_a_port_restricted_one() {
    for (a, b) in [(RANDOM, CONE), (CONE, RANDOM), (BY_ADDRESS, LINUX)] {
        let times = times(&Options::new(1, a, b), 12, Duration::from_secs(60));
        assert_eq!(times.len(), 12, "{a:?} {b:?}");
    }
}

#[test]
fn two_random_nats_fail_honestly_and_the_call_goes_on_unharmed() {
    for (a, b) in [(RANDOM, RANDOM), (RANDOM, COUNTING)] {
        let mut world = World::new(&Options::new(1, a, b));
        world.run_until(Duration::from_secs(60));
        for phone in &world.phones {
            let honest = |event: &Event| matches!(event, Event::GaveUp { part: Part::GiveUp, .. });
            assert!(phone.when(honest).is_some_and(|at| at < Duration::from_secs(15)));
            assert!(phone.direct_at().is_none());
            assert!(phone.agent.effort().probes < 40);
            assert_eq!(phone.agent.playout(crush::agent::StreamId(0)).unwrap().late(), 0);
        }
        assert!(world.relay.rtp > 2 * 50 * 59);
    }
}

#[test]
fn at_the_stealth_temper_a_flood_limiter_never_strikes() {
    let config = Config { temper: Some(Temper::Stealth), ..Config::default() };
    for (a, b) in [(CONE, CONE), (COUNTING, CONE), (COUNTING, COUNTING), (RANDOM, CONE)] {
        let options = Options { config: config.clone(), limiter: Some(BLOCK), ..Options::new(3, a, b) };
        let times = times(&options, 3, Duration::from_secs(182));
        assert_eq!(times.len(), 3, "{a:?} {b:?}");
    }
}

#[test]
fn two_percent_of_loss_only_delay_it() {
    for (a, b) in [(CONE, CONE), (COUNTING, CONE), (COUNTING, COUNTING), (RANDOM, CONE)] {
        let options = Options { loss: 0.02, ..Options::new(5, a, b) };
        let times = times(&options, 10, Duration::from_secs(40));
        assert_eq!(times.len(), 10, "{a:?} {b:?}");
    }
}

#[test]
fn two_counting_nats_that_open_several_pairs_at_once_settle_for_one_in_spite_of_loss() {
    // With these seeds a nominating check is lost while another pair turns valid.
    for seed in [1_000_283, 1_000_339, 1_000_354, 1_000_361] {
        let config = Config { temper: Some(Temper::Fast), ..Config::default() };
        let options = Options { loss: 0.02, config, ..Options::new(seed, COUNTING, COUNTING) };
        assert_eq!(times(&options, 1, Duration::from_secs(5)).len(), 1, "seed {seed}");
    }
}

#[test]
fn a_public_peer_whose_first_checks_are_lost_is_found_all_the_same() {
    let options = Options { loss: 0.2, ..Options::new(1, Place::Public, RANDOM) };
    assert_eq!(times(&options, 30, Duration::from_secs(60)).len(), 30);
}

#[test]
fn ipv6_firewalls_are_passed_like_port_restricted_nats() {
    let firewall = Place::Behind(Kind::Firewall);
    for (a, b) in [(firewall, firewall), (firewall, Place::Public)] {
        let options = Options { ipv6: true, ..Options::new(1, a, b) };
        let times = times(&options, 5, Duration::from_secs(20));
        assert_eq!(times.len(), 5, "{a:?} {b:?}");
    }
}

#[test]
fn random_nats_in_front_of_both_are_passed_by_the_other_family() {
    let options = Options { dual_stack: true, ..Options::new(1, RANDOM, RANDOM) };
    let times = times(&options, 20, Duration::from_secs(5));
    assert_eq!(times.len(), 20, "{times:?}");
    assert!(times[10] < Duration::from_secs(1), "{times:?}");
}

#[test]
fn where_udp_is_blocked_between_the_ends_nothing_is_lost_but_the_search() {
    let mut world = World::new(&Options::new(1, CONE, CONE));
    world.cut(0, 1);
    world.cut(1, 0);
    world.run_until(Duration::from_secs(30));
    assert!(world.phones.iter().all(|phone| phone.gave_up_at().is_some()));
    assert!(world.relay.rtp > 2 * 50 * 29);
}
