//! The virtual network: routing, nesting, lines, time.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test's own helpers")]

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nat_lab::{Behaviour, Event, HostId, Impairment, Kind, Link, Network, PUBLIC, Unreachable};

const MS: Duration = Duration::from_millis(1);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Sends and returns who gets it, from where, when.
fn delivered(
    network: &mut Network,
    host: HostId,
    source: &str,
    destination: SocketAddr,
) -> Option<(HostId, SocketAddr, Duration)> {
    network.send(host, at(source), destination, "x".into()).unwrap();
    match network.next()? {
        Event::Datagram { host, source, .. } => Some((host, source, network.now())),
        Event::Timer { .. } => None,
    }
}

#[test]
fn a_nat_behind_a_carriers_nat_is_translated_twice_and_answers_find_back() {
    let mut network = Network::new(1);
    let server = network.add_host(PUBLIC, &[ip("203.0.113.1")]);
    let carrier = network.add_nat(PUBLIC, Kind::SymmetricRandom.into(), &[ip("198.51.100.7")]);
    let home = network.add_nat(carrier.inside(), Kind::Cone.into(), &[ip("100.64.0.2")]);
    let phone = network.add_host(home.inside(), &[ip("192.168.1.10")]);
    network.set_link(home, Link::both(Impairment::delay(5 * MS)));
    network.set_link(carrier, Link::both(Impairment::delay(20 * MS)));

    let there = delivered(&mut network, phone, "192.168.1.10:5004", at("203.0.113.1:3478")).unwrap();
    assert_eq!((there.0, there.1.ip(), there.2), (server, ip("198.51.100.7"), 25 * MS));
    let back = delivered(&mut network, server, "203.0.113.1:3478", there.1).unwrap();
    assert_eq!(back, (phone, at("203.0.113.1:3478"), 50 * MS));
}

#[test]
fn homes_with_the_same_private_addresses_do_not_reach_each_other() {
    let mut network = Network::new(1);
    let homes = ["198.51.100.7", "198.51.100.8"]
        .map(|external| network.add_nat(PUBLIC, Kind::Cone.into(), &[ip(external)]));
    let phone = network.add_host(homes[0].inside(), &[ip("192.168.1.10")]);
    let neighbour = network.add_host(homes[0].inside(), &[ip("192.168.1.11")]);
    let other = network.add_host(homes[1].inside(), &[ip("192.168.1.12")]);
    let to = |last: u8| SocketAddr::new(IpAddr::from([192, 168, 1, last]), 7000);
    assert_eq!(delivered(&mut network, phone, "192.168.1.10:1", to(11)).map(|got| got.0), Some(neighbour));
    assert_eq!(delivered(&mut network, phone, "192.168.1.10:1", to(12)), None);
    assert_eq!(network.lost().unroutable, 1);
    assert_eq!(delivered(&mut network, other, "192.168.1.12:1", to(12)).map(|got| got.0), Some(other));
}

#[test]
fn ipv6_passes_two_firewalls_when_both_sides_have_spoken() {
    let mut network = Network::new(1);
    let hosts = ["2001:db8:a::10", "2001:db8:b::10"].map(|address| {
        let router = network.add_nat(PUBLIC, Kind::Cone.into(), &[]);
        network.add_host(router.inside(), &[ip(address)])
    });
    let (a, b) = ("[2001:db8:a::10]:5004", "[2001:db8:b::10]:5004");
    assert_eq!(delivered(&mut network, hosts[0], a, at(b)), None, "not asked for");
    assert_eq!(delivered(&mut network, hosts[1], b, at(a)).map(|got| got.0), Some(hosts[0]));
    assert_eq!(
        delivered(&mut network, hosts[0], a, at(b)).map(|got| (got.0, got.1)),
        Some((hosts[1], at(a)))
    );
}

#[test]
fn a_host_that_moves_is_not_reached_at_its_old_address() {
    let mut network = Network::new(1);
    let server = network.add_host(PUBLIC, &[ip("203.0.113.1")]);
    let router = network.add_nat(PUBLIC, Kind::Cone.into(), &[ip("198.51.100.7")]);
    let phone = network.add_host(router.inside(), &[ip("192.168.1.10")]);
    let (_, seen, _) = delivered(&mut network, phone, "192.168.1.10:5004", at("203.0.113.1:3478")).unwrap();

    network.detach(phone, ip("192.168.1.10"));
    network.attach(phone, PUBLIC, ip("198.51.100.99"));
    assert_eq!(delivered(&mut network, server, "203.0.113.1:3478", seen), None);
    let gone = network.send(phone, at("192.168.1.10:5004"), at("203.0.113.1:3478"), "x".into());
    assert_eq!(gone, Err(Unreachable(ip("192.168.1.10"))));
    let (_, seen, _) = delivered(&mut network, phone, "198.51.100.99:5004", at("203.0.113.1:3478")).unwrap();
    assert_eq!(seen, at("198.51.100.99:5004"));
}

#[test]
fn a_path_is_cut_one_way_and_restored() {
    let mut network = Network::new(1);
    let (a, b) = (ip("198.51.100.1"), ip("198.51.100.2"));
    let (first, second) = (network.add_host(PUBLIC, &[a]), network.add_host(PUBLIC, &[b]));
    network.cut(a, b);
    assert_eq!(delivered(&mut network, first, "198.51.100.1:1", SocketAddr::new(b, 1)), None);
    assert_eq!(network.lost().cut, 1);
    assert!(delivered(&mut network, second, "198.51.100.2:1", SocketAddr::new(a, 1)).is_some());
    network.restore(a, b);
    assert!(delivered(&mut network, first, "198.51.100.1:1", SocketAddr::new(b, 1)).is_some());
}

#[test]
fn a_router_that_reconnects_is_reached_at_its_new_address_only() {
    let mut network = Network::new(1);
    let server = network.add_host(PUBLIC, &[ip("203.0.113.1")]);
    let router = network.add_nat(PUBLIC, Kind::Cone.into(), &[ip("198.51.100.7")]);
    let phone = network.add_host(router.inside(), &[ip("192.168.1.10")]);
    let to_server = |network: &mut Network| {
        delivered(network, phone, "192.168.1.10:5004", at("203.0.113.1:3478")).unwrap().1
    };
    let before = to_server(&mut network);
    network.readdress(router, &[ip("198.51.100.8")]);
    assert_eq!(delivered(&mut network, server, "203.0.113.1:3478", before), None);
    assert_eq!(to_server(&mut network), at("198.51.100.8:5004"));
}

#[test]
fn timers_and_datagrams_come_in_the_order_of_time_and_never_past_the_limit() {
    let mut network = Network::new(1);
    let host = network.add_host(PUBLIC, &[ip("203.0.113.1")]);
    let other = network.add_host(PUBLIC, &[ip("203.0.113.2")]);
    network.set_link(host, Link::both(Impairment::delay(30 * MS)));
    network.set_timer(other, 40 * MS, 2);
    network.set_timer(other, 20 * MS, 1);
    network.send(host, at("203.0.113.1:1"), at("203.0.113.2:1"), "x".into()).unwrap();
    let timer = |token| Some(Event::Timer { host: other, token });
    assert_eq!(network.next_until(10 * MS), None);
    assert_eq!(network.now(), 10 * MS);
    assert_eq!(network.next(), timer(1));
    assert!(matches!(network.next(), Some(Event::Datagram { .. })));
    assert_eq!((network.next(), network.now()), (timer(2), 40 * MS));
    assert_eq!((network.next(), network.now()), (None, 40 * MS));
}

/// A call of ten seconds of RTP both ways between two homes: how many datagrams arrived, and a sum over their order and times.
fn call(seed: u64) -> (u32, u64) {
    let mut network = Network::new(seed);
    let line = Impairment {
        delay: 20 * MS,
        jitter: 10 * MS,
        loss: 0.02,
        reorder: 0.01,
        duplicate: 0.01,
        ..Impairment::NONE
    };
    let sides = ["198.51.100.7", "198.51.100.8"].map(|external| {
        let behaviour = Behaviour { other_users: 10.0, ..Kind::Cone.into() };
        let router = network.add_nat(PUBLIC, behaviour, &[ip(external)]);
        network.set_link(router, Link::both(line));
        (network.add_host(router.inside(), &[ip("192.168.1.10")]), SocketAddr::new(ip(external), 5004))
    });
    for (host, _) in sides {
        network.set_timer(host, Duration::ZERO, 0);
    }
    let payload = bytes::Bytes::from_static(&[0; 172]);
    let (mut arrived, mut sum) = (0, 0u64);
    while let Some(event) = network.next_until(10_000 * MS) {
        match event {
            Event::Timer { host, .. } => {
                let (_, target) = sides[usize::from(host == sides[0].0)];
                network.send(host, at("192.168.1.10:5004"), target, payload.clone()).unwrap();
                network.set_timer(host, network.now() + 20 * MS, 0);
            }
            Event::Datagram { .. } => {
                arrived += 1;
                sum = sum.wrapping_mul(31).wrapping_add(network.now().as_nanos() as u64);
            }
        }
    }
    (arrived, sum)
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    assert_eq!(call(1), call(1));
    assert_ne!(call(1).1, call(2).1);
    assert!((930..990).contains(&call(1).0), "{} of 1000, with 4 % lost and 1 % doubled", call(1).0);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "this measures what the virtual time costs in real time")]
fn thousands_of_seeded_calls_take_seconds() {
    const CALLS: u32 = 300;
    let start = Instant::now();
    let arrived: u32 = (0..CALLS).map(|seed| call(u64::from(seed)).0).sum();
    let took = start.elapsed();
    let datagrams = f64::from(CALLS) * 1000.0;
    println!(
        "{CALLS} calls of 10 s in {took:?}: {:.0} calls/s, {:.2} µs a datagram through two NATs",
        f64::from(CALLS) / took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / datagrams
    );
    assert!(arrived > CALLS * 900);
    // Debug builds on a busy machine; a release build is some ten times faster.
    assert!(took < Duration::from_secs(20), "{took:?}");
}
