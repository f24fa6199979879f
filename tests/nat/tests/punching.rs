//! Hole punching between every pair of kinds: it must succeed and fail as it did between the same NATs in namespaces.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test's own helpers")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nat_lab::{Event, HostId, Impairment, Kind, Link, Network, PUBLIC, Random};

const MS: Duration = Duration::from_millis(1);
const SERVER: &str = "203.0.113.1:3478";

/// How a side looks for the other: every 20 ms it sends to the address that a server saw, and besides
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// nothing.
    Plain,
    /// to where a packet came from.
    Latch,
    /// to that, and first to the eight ports after the one that the server saw, in random order.
    Predict,
}

/// One side: a host behind a NAT.
struct Side {
    host: HostId,
    own: SocketAddr,
    /// What the server saw of the other side.
    target: Option<SocketAddr>,
    latched: Option<SocketAddr>,
    hears: bool,
}

/// Lets both sides try for two seconds; how long until both heard each other.
fn punch(kinds: [Kind; 2], method: Method, seed: u64, link: Link) -> Option<Duration> {
    let mut network = Network::new(seed);
    let mut random = Random::new(seed);
    let server: SocketAddr = SERVER.parse().unwrap();
    network.add_host(PUBLIC, &[server.ip()]);
    let externals: [IpAddr; 2] = ["198.51.100.1", "198.51.100.2"].map(|address| address.parse().unwrap());
    let mut sides = [0, 1].map(|index| {
        let nat = network.add_nat(PUBLIC, kinds[index].into(), &[externals[index]]);
        network.set_link(nat, link);
        let own: SocketAddr = "192.168.1.10:5004".parse().unwrap();
        let host = network.add_host(nat.inside(), &[own.ip()]);
        Side { host, own, target: None, latched: None, hears: false }
    });
    for side in &sides {
        network.send(side.host, side.own, server, "who am I?".into()).unwrap();
    }
    // Each is told what the server saw of the other.
    while let Some(event) = network.next_until(500 * MS) {
        let Event::Datagram { source, .. } = event else { panic!("no timer is set") };
        let of_first = source.ip() == externals[0];
        sides[usize::from(of_first)].target = Some(source);
    }
    let start = network.now();
    // Not in step: a fifth of the interval apart.
    for (index, side) in sides.iter().enumerate() {
        network.set_timer(side.host, start + 4 * MS * index as u32, 0);
    }
    while let Some(event) = network.next_until(start + 2000 * MS) {
        match event {
            Event::Timer { host, .. } => {
                let side = sides.iter_mut().find(|side| side.host == host).unwrap();
                for target in targets(side, method, &mut random) {
                    network.send(host, side.own, target, "hello".into()).unwrap();
                }
                network.set_timer(host, network.now() + 20 * MS, 0);
            }
            Event::Datagram { host, source, .. } => {
                let side = sides.iter_mut().find(|side| side.host == host).unwrap();
                side.latched = Some(source);
                side.hears = true;
            }
        }
        if sides.iter().all(|side| side.hears) {
            return Some(network.now() - start);
        }
    }
    None
}

fn targets(side: &Side, method: Method, random: &mut Random) -> Vec<SocketAddr> {
    let Some(target) = side.target else { return Vec::new() };
    let mut targets = vec![target];
    match method {
        Method::Plain => {}
        Method::Latch => targets.extend(side.latched.filter(|latched| *latched != target)),
        Method::Predict => {
            targets
                .extend((1..=8).map(|step| SocketAddr::new(target.ip(), target.port().wrapping_add(step))));
            random.shuffle(&mut targets[1..]);
            targets.extend(side.latched);
        }
    }
    targets
}

const KINDS: [Kind; 6] = [
    Kind::LinuxCone,
    Kind::Cone,
    Kind::RestrictedCone,
    Kind::FullCone,
    Kind::SymmetricSequential,
    Kind::SymmetricRandom,
];

/// By the kinds above, both ways: plain, latch and predict, each `y`es, `n`o or `m`ostly.
const MEASURED: [[&str; 6]; 6] = [
    ["yyy", "yyy", "yyy", "yyy", "nny", "nnn"],
    ["yyy", "yyy", "yyy", "yyy", "nny", "nnn"],
    ["yyy", "yyy", "yyy", "yyy", "nyy", "nyy"],
    ["yyy", "yyy", "yyy", "yyy", "nyy", "nyy"],
    ["nny", "nny", "nyy", "nyy", "nnm", "nnn"],
    ["nnn", "nnn", "nyy", "nyy", "nnn", "nnn"],
];

const RUNS: u64 = 100;

#[test]
fn every_pair_of_nats_is_punched_or_not_as_measured_between_real_ones() {
    let mut differences = Vec::new();
    for (a, row) in KINDS.into_iter().zip(MEASURED) {
        for (b, expected) in KINDS.into_iter().zip(row) {
            for (method, expected) in
                [Method::Plain, Method::Latch, Method::Predict].into_iter().zip(expected.chars())
            {
                let times: Vec<_> =
                    (0..RUNS).filter_map(|seed| punch([a, b], method, seed, Link::PERFECT)).collect();
                let share = times.len() as u64 * 100 / RUNS;
                let is_so = match expected {
                    'y' => share == 100 && times.iter().all(|time| *time <= 45 * MS),
                    'n' => share == 0,
                    _ => (50..100).contains(&share),
                };
                if !is_so {
                    differences.push(format!("{a} - {b}, {method:?}: {share} %, expected {expected}"));
                }
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
}

#[test]
fn a_leaky_nat_is_not_punched_since_one_side_always_speaks_first() {
    for kinds in [[Kind::LinuxLeaky, Kind::LinuxCone], [Kind::LinuxLeaky, Kind::LinuxLeaky]] {
        let [a, b] = kinds;
        // The second side's first packet leaves 4 ms after the first's, when that has arrived.
        let is_first_to_speak = punch([b, a], Method::Plain, 1, Link::PERFECT);
        assert_eq!(is_first_to_speak, None, "{b} speaks first, and {a} gets another port");
    }
    let delayed = Link::both(Impairment::delay(20 * MS));
    let crossing = punch([Kind::LinuxLeaky, Kind::LinuxLeaky], Method::Plain, 1, delayed);
    assert!(crossing.is_some(), "packets that cross find each other's mapping made");
}

#[test]
fn nothing_gets_through_where_udp_is_blocked() {
    for kind in KINDS {
        assert_eq!(punch([Kind::UdpBlocked, kind], Method::Predict, 1, Link::PERFECT), None);
    }
}
