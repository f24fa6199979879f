//! Which NAT pairs get a direct path, and how soon (docs/crush.md §5): every pair, in a few runs.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a test may")]

mod support;

use std::time::Duration;

use crush::agent::{Config, Event, Part};
use crush::description::Temper;
use nat_lab::Kind;
use support::{Options, Place, World};

const CONE: Place = Place::Behind(Kind::Cone);
const FULL: Place = Place::Behind(Kind::FullCone);
const RESTRICTED: Place = Place::Behind(Kind::RestrictedCone);
const COUNTING: Place = Place::Behind(Kind::SymmetricSequential);
const RANDOM: Place = Place::Behind(Kind::SymmetricRandom);
const BY_ADDRESS: Place = Place::Behind(Kind::SymmetricAddress);
const LINUX: Place = Place::Behind(Kind::LinuxCone);

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
fn the_birthday_method_beats_a_random_nat_in_front_of_a_port_restricted_one() {
    for (a, b) in [(RANDOM, CONE), (CONE, RANDOM), (BY_ADDRESS, LINUX)] {
        let times = times(&Options::new(1, a, b), 12, Duration::from_secs(30));
        assert_eq!(times.len(), 12, "{a:?} {b:?}");
    }
}

#[test]
fn two_random_nats_fail_honestly_and_the_call_goes_on_unharmed() {
    for (a, b) in [(RANDOM, RANDOM), (RANDOM, COUNTING)] {
        let mut world = World::new(&Options::new(1, a, b));
        world.run_until(Duration::from_secs(60));
        for phone in &world.phones {
            let honest = |event: &Event| matches!(event, Event::GaveUp(Part::GiveUp));
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
    let config = Config { temper: Temper::Stealth, ..Config::default() };
    for (a, b) in [(CONE, CONE), (COUNTING, CONE), (COUNTING, COUNTING), (RANDOM, CONE)] {
        let options = Options { config: config.clone(), limited: true, ..Options::new(3, a, b) };
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
fn where_udp_is_blocked_between_the_ends_nothing_is_lost_but_the_search() {
    let mut world = World::new(&Options::new(1, CONE, CONE));
    world.cut(0, 1);
    world.cut(1, 0);
    world.run_until(Duration::from_secs(30));
    assert!(world.phones.iter().all(|phone| phone.gave_up_at().is_some()));
    assert!(world.relay.rtp > 2 * 50 * 29);
}

/// One line of `bench/nat-matrix.json`.
fn row(options: &Options, runs: u64, within: Duration, names: (&str, &str)) -> String {
    let (mut times, mut first_audio, mut blocked) = (Vec::new(), Vec::new(), 0);
    let (mut probes, mut flows, mut sockets) = ([0; 2], [0; 2], [0; 2]);
    for run in 0..runs {
        let mut world = World::new(&Options { seed: options.seed + run, ..options.clone() });
        let over = |world: &World| {
            world.both_direct() || world.phones.iter().all(|phone| phone.gave_up_at().is_some())
        };
        world.run_while(within, |world| !over(world));
        if world.both_direct() {
            times.push(world.now().as_secs_f64());
        }
        for (side, phone) in world.phones.iter().enumerate() {
            let effort = phone.agent.effort();
            probes[side] += effort.probes;
            flows[side] += effort.flows;
            sockets[side] += u64::from(effort.sockets);
            first_audio.extend(phone.first_audio.map(|at| at.as_secs_f64() * 1000.0));
        }
        for nat in world.nats.into_iter().flatten() {
            blocked += world.network.nat(nat).counters().blocks;
        }
    }
    let share = |sorted: &mut Vec<f64>, share: f64| {
        sorted.sort_by(f64::total_cmp);
        let place = (sorted.len() as f64 * share) as usize;
        sorted
            .get(place.min(sorted.len().saturating_sub(1)))
            .map_or("null".to_owned(), |one| format!("{one:.3}"))
    };
    let mean = |sum: [u64; 2]| sum.map(|sum| sum as f64 / runs as f64);
    let (a, b) = names;
    format!(
        "{{\"a\": \"{a}\", \"b\": \"{b}\", \"temper\": \"{}\", \"limiter\": {}, \"loss\": {}, \"runs\": {runs}, \
         \"direct_share\": {:.4}, \"time_to_direct_s\": {{\"median\": {}, \"p95\": {}}}, \"first_audio_ms\": {}, \
         \"probes\": {:?}, \"new_flows\": {:?}, \"sockets\": {:?}, \"blocked\": {blocked}}}",
        options.config.temper,
        options.limited,
        options.loss,
        times.len() as f64 / runs as f64,
        share(&mut times, 0.5),
        share(&mut times, 0.95),
        share(&mut first_audio, 0.5),
        mean(probes),
        mean(flows),
        mean(sockets),
    )
}

/// All pairs, `NAT_MATRIX_RUNS` (default 1,000) each: plain, with 2 % loss, and at the stealth temper behind flood limiters.
/// Writes the list to the file that `NAT_MATRIX_OUT` names.
#[test]
#[ignore = "minutes; run by hand or by a make target"]
fn matrix() {
    let runs = std::env::var("NAT_MATRIX_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(1000);
    let places = [
        ("public", Place::Public),
        ("upnp", Place::Upnp),
        ("full-cone", FULL),
        ("restricted-cone", RESTRICTED),
        ("cone", CONE),
        ("symmetric-sequential", COUNTING),
        ("symmetric-random", RANDOM),
    ];
    let mut rows = Vec::new();
    let plain = |a, b| Options::new(1_000_000, a, b);
    let stealth = Config { temper: Temper::Stealth, ..Config::default() };
    let lan = ("same-lan", "same-lan");
    rows.push(row(&plain(Place::SameLan, Place::SameLan), runs, Duration::from_secs(40), lan));
    for (index, (name_a, a)) in places.iter().enumerate() {
        for (name_b, b) in &places[index..] {
            let names = (*name_a, *name_b);
            let options = plain(*a, *b);
            rows.push(row(&options, runs, Duration::from_secs(32), names));
            let lossy = Options { loss: 0.02, ..options.clone() };
            rows.push(row(&lossy, runs, Duration::from_secs(32), names));
            let limited = Options { limited: true, config: stealth.clone(), ..options };
            rows.push(row(&limited, runs, Duration::from_secs(182), names));
            println!("{}", rows[rows.len() - 3..].join("\n"));
        }
    }
    if let Ok(file) = std::env::var("NAT_MATRIX_OUT") {
        std::fs::write(file, format!("[\n{}\n]\n", rows.join(",\n"))).unwrap();
    }
}
