//! Each kind of NAT does what RFC 4787 calls its behaviour, seen from both sides.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "a test's own helpers")]

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nat_lab::Dependence::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};
use nat_lab::{
    Behaviour, Direction, Dropped, FlowLimit, Kind, Lifetime, Nat, Passage, Penalty, Pooling, Ports,
};

const SECOND: Duration = Duration::from_secs(1);
const START: Duration = Duration::ZERO;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn phone() -> SocketAddr {
    at("192.168.1.10:5004")
}

/// Two addresses with two ports each, as RFC 5780 asks of a server.
fn servers() -> [SocketAddr; 3] {
    [at("203.0.113.1:3478"), at("203.0.113.1:3479"), at("203.0.113.2:3478")]
}

fn nat(behaviour: impl Into<Behaviour>) -> Nat {
    Nat::new(behaviour.into(), &[ip("198.51.100.7")], 11)
}

fn sent(nat: &mut Nat, internal: SocketAddr, remote: SocketAddr, now: Duration) -> SocketAddr {
    match nat.outbound(internal, remote, now) {
        Ok(Passage::Out { source }) => source,
        other => panic!("{internal} to {remote}: {other:?}"),
    }
}

/// RFC 5780 §4.3: the mapping by what three servers see.
fn seen_mapping(nat: &mut Nat) -> Dependence {
    let [first, same_address, other_address] = servers().map(|server| sent(nat, phone(), server, START));
    match (same_address == first, other_address == first) {
        (true, true) => EndpointIndependent,
        (true, false) => AddressDependent,
        _ => AddressAndPortDependent,
    }
}

/// RFC 5780 §4.4: the filter by who gets in after the first was sent to.
fn seen_filtering(nat: &mut Nat) -> Dependence {
    let [first, same_address, other_address] = servers();
    let external = sent(nat, phone(), first, START);
    assert_eq!(nat.inbound(first, external, START), Ok(phone()), "an answer comes in");
    let comes_in = |nat: &mut Nat, remote| nat.inbound(remote, external, START).is_ok();
    match (comes_in(nat, other_address), comes_in(nat, same_address)) {
        (true, _) => EndpointIndependent,
        (false, true) => AddressDependent,
        (false, false) => AddressAndPortDependent,
    }
}

#[test]
fn mapping_and_filtering_of_each_kind_are_as_its_row_says() {
    let rows = [
        (Kind::FullCone, EndpointIndependent, EndpointIndependent),
        (Kind::RestrictedCone, EndpointIndependent, AddressDependent),
        (Kind::Cone, EndpointIndependent, AddressAndPortDependent),
        (Kind::SymmetricAddress, AddressDependent, AddressAndPortDependent),
        (Kind::SymmetricSequential, AddressAndPortDependent, AddressAndPortDependent),
        (Kind::SymmetricRandom, AddressAndPortDependent, AddressAndPortDependent),
        // Seen from outside: its mappings keep the port, whatever the remote end.
        (Kind::LinuxCone, EndpointIndependent, AddressAndPortDependent),
        (Kind::LinuxLeaky, EndpointIndependent, AddressAndPortDependent),
        (Kind::Firewall, EndpointIndependent, AddressAndPortDependent),
    ];
    for (kind, mapping, filtering) in rows {
        assert_eq!(seen_mapping(&mut nat(kind)), mapping, "mapping of {kind}");
        assert_eq!(seen_filtering(&mut nat(kind)), filtering, "filtering of {kind}");
    }
}

#[test]
fn ports_are_kept_or_follow_each_other_or_are_random() {
    let ports = |kind: Kind| {
        let mut nat = nat(kind);
        let to = |index| at(&format!("203.0.113.9:{}", 6000 + index));
        (0..20).map(|index| sent(&mut nat, phone(), to(index), START).port()).collect::<Vec<_>>()
    };
    for kind in [Kind::FullCone, Kind::RestrictedCone, Kind::Cone, Kind::LinuxCone, Kind::Firewall] {
        assert!(ports(kind).iter().all(|port| *port == 5004), "{kind}");
    }
    let sequential = ports(Kind::SymmetricSequential);
    assert!(sequential.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequential:?}");
    let random = ports(Kind::SymmetricRandom);
    assert!(random.windows(2).all(|pair| pair[1].abs_diff(pair[0]) > 1), "{random:?}");
}

#[test]
fn a_second_host_with_the_same_port_gets_another_one_unless_ports_are_overloaded() {
    let other = at("192.168.1.11:5004");
    let [first, _, elsewhere] = servers();
    let mut cone = nat(Kind::Cone);
    let mine = sent(&mut cone, phone(), first, START);
    assert_ne!(sent(&mut cone, other, elsewhere, START), mine);

    let mut linux = nat(Kind::LinuxCone);
    let mine = sent(&mut linux, phone(), first, START);
    assert_eq!(sent(&mut linux, other, elsewhere, START), mine, "the remote ends tell them apart");
    assert_ne!(sent(&mut linux, other, first, START), mine, "they cannot here");
    assert_eq!(linux.inbound(first, mine, START), Ok(phone()));
    assert_eq!(linux.inbound(elsewhere, mine, START), Ok(other));
}

#[test]
fn hairpinned_datagrams_come_from_the_external_address() {
    let (phone, other) = (phone(), at("192.168.1.11:6004"));
    for kind in [Kind::FullCone, Kind::RestrictedCone, Kind::Cone] {
        let mut nat = nat(kind);
        let [mine, theirs] = [phone, other].map(|host| sent(&mut nat, host, servers()[0], START));
        let first = nat.outbound(phone, theirs, START);
        assert_eq!(first.is_ok(), kind == Kind::FullCone, "{kind} filters who was not sent to");
        let hairpin = Ok(Passage::Hairpin { source: theirs, destination: phone });
        assert_eq!(nat.outbound(other, mine, START), hairpin, "{kind}");
    }
    let mut symmetric = nat(Kind::SymmetricRandom);
    let theirs = sent(&mut symmetric, other, servers()[0], START);
    assert_eq!(symmetric.outbound(phone, theirs, START), Err(Dropped::Hairpin));
}

#[test]
fn a_mapping_is_forgotten_after_its_time_and_traffic_keeps_it() {
    let server = servers()[0];
    let mut linux = nat(Kind::LinuxCone);
    let external = sent(&mut linux, phone(), server, START);
    assert_eq!(linux.inbound(server, external, 29 * SECOND), Ok(phone()), "30 s unreplied");
    assert_eq!(
        linux.inbound(server, external, 148 * SECOND),
        Ok(phone()),
        "120 s replied, renewed from outside"
    );
    assert_eq!(linux.inbound(server, external, 269 * SECOND), Err(Dropped::Unmapped));
    assert_eq!(linux.mappings(269 * SECOND).count(), 0);
}

#[test]
fn what_comes_in_keeps_no_mapping_alive_where_only_outbound_refreshes() {
    let server = servers()[0];
    let lifetime = Lifetime { inbound: false, ..Lifetime::of(30 * SECOND) };
    let mut nat = nat(Behaviour { lifetime, ..Kind::Cone.into() });
    let external = sent(&mut nat, phone(), server, START);
    assert_eq!(nat.inbound(server, external, 29 * SECOND), Ok(phone()));
    assert_eq!(nat.inbound(server, external, 31 * SECOND), Err(Dropped::Unmapped));
    sent(&mut nat, phone(), server, 40 * SECOND);
    sent(&mut nat, phone(), server, 65 * SECOND);
    assert_eq!(nat.inbound(server, external, 94 * SECOND), Ok(phone()));
}

#[test]
fn a_filter_forgets_whom_the_host_has_not_sent_to_for_its_time() {
    let [server, other, _] = servers();
    let mut cone = nat(Behaviour { lifetime: Lifetime::of(30 * SECOND), ..Kind::Cone.into() });
    let external = sent(&mut cone, phone(), server, START);
    for seconds in [0, 20, 40] {
        sent(&mut cone, phone(), other, seconds * SECOND);
    }
    assert_eq!(cone.inbound(other, external, 50 * SECOND), Ok(phone()));
    assert_eq!(cone.inbound(server, external, 50 * SECOND), Err(Dropped::Filtered));
}

#[test]
fn a_reboot_gives_the_same_port_again_and_a_rebind_another() {
    let server = servers()[0];
    let mut cone = nat(Kind::Cone);
    let before = sent(&mut cone, phone(), server, START);
    cone.reboot();
    assert_eq!(cone.inbound(server, before, START), Err(Dropped::Unmapped));
    assert_eq!(sent(&mut cone, phone(), server, START), before);
    cone.rebind();
    assert_eq!(cone.inbound(server, before, START), Err(Dropped::Unmapped));
    let after = sent(&mut cone, phone(), server, START);
    assert_ne!(after, before);
    assert_eq!(cone.inbound(server, after, START), Ok(phone()));
    cone.readdress(&[ip("198.51.100.8")]);
    assert_eq!(sent(&mut cone, phone(), server, START), at("198.51.100.8:5004"));
}

#[test]
fn a_leaky_nat_gives_a_flow_another_port_when_the_far_side_spoke_first() {
    let (peer, external) = (at("203.0.113.50:4000"), at("198.51.100.7:5004"));
    for (kind, is_kept) in [(Kind::LinuxCone, true), (Kind::LinuxLeaky, false)] {
        let mut nat = nat(kind);
        assert_eq!(sent(&mut nat, phone(), servers()[0], START), external);
        assert_eq!(nat.inbound(peer, external, START), Err(Dropped::Unmapped));
        assert_eq!(sent(&mut nat, phone(), peer, SECOND) == external, is_kept, "{kind}");
        assert_eq!(
            sent(&mut nat, phone(), at("203.0.113.50:4001"), SECOND),
            external,
            "{kind}: others keep it"
        );
    }
    let mut nat = nat(Kind::LinuxLeaky);
    let _ = nat.inbound(peer, external, START);
    assert_eq!(sent(&mut nat, phone(), peer, 31 * SECOND), external, "forgotten after 30 s");
}

#[test]
fn a_forwarded_port_is_open_to_everybody_and_used_for_everything() {
    let mut symmetric = nat(Kind::SymmetricRandom);
    sent(&mut symmetric, phone(), servers()[0], START);
    let external = symmetric.forward(7000, phone(), START).unwrap();
    assert_eq!(external, at("198.51.100.7:7000"));
    assert_eq!(symmetric.forward(7000, at("192.168.1.11:7000"), START), None, "it is taken");
    for server in servers() {
        assert_eq!(sent(&mut symmetric, phone(), server, START), external);
    }
    assert_eq!(symmetric.inbound(at("203.0.113.77:1"), external, 9999 * SECOND), Ok(phone()));
    symmetric.unforward(phone());
    assert_eq!(symmetric.inbound(servers()[0], external, START), Err(Dropped::Unmapped));
}

#[test]
fn a_flood_is_cut_to_the_limit_or_blocks_its_host() {
    let flood = |penalty| {
        let limit = Some(FlowLimit { per_second: 30.0, burst: 30, penalty });
        let mut nat = nat(Behaviour { limit, ..Kind::Cone.into() });
        let to = |index| at(&format!("203.0.113.9:{}", 6000 + index));
        let passed = (0..200).filter(|index| nat.outbound(phone(), to(*index), START).is_ok()).count();
        (nat, passed)
    };
    let known = at("203.0.113.9:6000");
    let (mut drops, passed) = flood(Penalty::Drop);
    assert_eq!((passed, drops.counters().flows, drops.counters().limited), (30, 30, 170));
    assert!(drops.outbound(phone(), known, START).is_ok(), "known flows go on");

    let (mut blocks, passed) = flood(Penalty::Block(2 * SECOND));
    assert_eq!((passed, blocks.counters().blocks), (30, 1));
    assert_eq!(blocks.outbound(phone(), known, SECOND), Err(Dropped::Limited), "nothing goes on");
    assert_eq!(blocks.inbound(known, at("198.51.100.7:5004"), SECOND), Err(Dropped::Limited));
    assert!(blocks.outbound(at("192.168.1.11:1"), known, SECOND).is_ok(), "another host is not blocked");
    assert!(blocks.outbound(phone(), known, 2 * SECOND).is_ok());
}

#[test]
fn blocked_udp_and_cut_paths_let_nothing_through() {
    let server = servers()[0];
    assert_eq!(nat(Kind::UdpBlocked).outbound(phone(), server, START), Err(Dropped::Blocked));
    let mut cone = nat(Kind::Cone);
    let external = sent(&mut cone, phone(), server, START);
    cone.cut(server.ip(), Direction::Inbound);
    assert_eq!(cone.inbound(server, external, START), Err(Dropped::Cut));
    assert!(cone.outbound(phone(), server, START).is_ok(), "one way");
    cone.restore(server.ip(), Direction::Inbound);
    assert_eq!(cone.inbound(server, external, START), Ok(phone()));
}

#[test]
fn hosts_keep_their_external_address_where_pooling_is_paired() {
    let pool = ["198.51.100.7", "198.51.100.8", "198.51.100.9"].map(ip);
    let addresses = |pooling| {
        let behaviour = Behaviour { pooling, ports: Ports::Random, ..Kind::SymmetricRandom.into() };
        let mut nat = Nat::new(behaviour, &pool, 1);
        let to = |index| at(&format!("203.0.113.9:{}", 6000 + index));
        let mut seen: Vec<_> = (0..60).map(|index| sent(&mut nat, phone(), to(index), START).ip()).collect();
        seen.sort();
        seen.dedup();
        seen.len()
    };
    assert_eq!((addresses(Pooling::Paired), addresses(Pooling::Arbitrary)), (1, 3));
}

#[test]
fn ipv6_is_filtered_but_not_translated() {
    let (phone, server) = (at("[2001:db8:1::10]:5004"), at("[2001:db8::1]:3478"));
    let mut nat = nat(Kind::SymmetricRandom);
    assert_eq!(nat.inbound(server, phone, START), Err(Dropped::Unmapped), "unsolicited");
    assert_eq!(sent(&mut nat, phone, server, START), phone);
    assert_eq!(nat.inbound(server, phone, START), Ok(phone));
    assert_eq!(nat.inbound(at("[2001:db8::1]:9"), phone, START), Err(Dropped::Filtered));
    assert_eq!(nat.inbound(server, phone, 121 * SECOND), Err(Dropped::Unmapped), "forgotten");
}

#[test]
fn what_has_expired_is_not_kept_for_ever() {
    let mut nat = nat(Behaviour { lifetime: Lifetime::of(SECOND), ..Kind::SymmetricRandom.into() });
    for index in 0..200_000u32 {
        let remote = SocketAddr::new(ip("203.0.113.9"), (index % 60_000) as u16 + 1);
        // 1,000 a second, each forgotten after one: the ports would be exhausted long before the end.
        sent(&mut nat, phone(), remote, Duration::from_millis(u64::from(index)));
    }
    assert_eq!(nat.mappings(200 * SECOND).count(), 999);
}
