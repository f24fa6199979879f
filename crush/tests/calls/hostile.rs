//! A peer that says too much (docs/crush.md §12): what it costs the other end is bounded for the call, and nobody hears it.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::support::{CONE, COUNTING, Heard, MS, Options, RANDOM, World};
use crush::agent::Input;
use media_wire::stun::is_stun;

const NAT: &str = "a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential step=1 last=40000";

/// A fragment that names hosts from a number on.
fn fragment(ufrag: u64, hosts: std::ops::Range<u32>, nat: &str) -> String {
    let mut text = format!(
        "a=ice-ufrag:evil{ufrag:08}\r\na=ice-pwd:0123456789012345678901\r\n{nat}\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    );
    for host in hosts {
        let [_, _, high, low] = host.to_be_bytes();
        let (net, kind) = [("10.1", "host"), ("169.254", "host"), ("192.168", "host"), ("198.51", "srflx")]
            [host as usize % 4];
        let _ = write!(
            text,
            "a=candidate:{host} 1 UDP {} {net}.{high}.{low} {} typ {kind}\r\n",
            1 + host,
            1024 + host % 60_000
        );
    }
    text
}

/// What a minute of such a peer costs, from the third second of a call that is relayed.
struct Cost {
    /// By destination, but for the relay and the discovery service.
    checks: HashMap<SocketAddr, usize>,
    discovery: usize,
    sockets: u32,
    /// Most datagrams within a second.
    busiest: usize,
    /// Frames of audio that were not there in time.
    missing: usize,
}

fn cost(says: impl Fn(u64) -> Option<String>) -> Cost {
    let mut world = World::new(&Options::new(3, RANDOM, RANDOM));
    world.run_until(MS(3000));
    world.capture = Some(Vec::new());
    let heard = world.phones[0].steps.len();
    for tick in 0..6000 {
        if let Some(text) = says(tick) {
            world.input(0, Input::Trickle(&text));
        }
        world.run_until(MS(3000 + tick * 10));
    }
    let sent: Vec<_> =
        world.captured().into_iter().filter(|sent| sent.side == 0 && is_stun(&sent.bytes)).collect();
    let mut cost = Cost {
        checks: HashMap::new(),
        discovery: 0,
        sockets: world.phones[0].agent.effort().sockets,
        busiest: 0,
        missing: world.phones[0].steps[heard..].iter().filter(|(_, step)| *step == Heard::Missing).count(),
    };
    let mut seconds: HashMap<u64, usize> = HashMap::new();
    for one in &sent {
        *seconds.entry(one.at.as_secs()).or_default() += 1;
        match world.relay.addresses.contains(&one.to.ip()) {
            true if [3478, 3479].contains(&one.to.port()) => cost.discovery += 1,
            true => {}
            false => *cost.checks.entry(one.to).or_default() += 1,
        }
    }
    cost.busiest = seconds.into_values().max().unwrap_or(0);
    cost
}

#[test]
fn candidates_by_the_thousand_in_one_generation_are_those_of_the_first_message_and_some() {
    // 300 messages of 25 new candidates each, 20 a second.
    let cost = cost(|tick| {
        (tick < 1500 && tick % 5 == 0).then(|| {
            let first = tick as u32 / 5 * 25;
            fragment(1, first..first + 25, "")
        })
    });
    assert!(cost.checks.len() <= 32, "{}", cost.checks.len());
    assert!(cost.checks.values().all(|checks| *checks <= 8), "{:?}", cost.checks);
    assert!(cost.busiest <= 29 && cost.missing == 0, "{} {}", cost.busiest, cost.missing);
}

#[test]
fn generations_without_end_are_twelve_a_minute_and_begin_nothing_anew_without_limit() {
    // 30 a second, each with the same candidates: what never answers is not asked more often for that.
    let cost = cost(|tick| (tick % 3 == 0).then(|| fragment(tick, 0..25, "")));
    assert!(cost.checks.values().all(|checks| *checks <= 8), "{:?}", cost.checks);
    assert!(cost.discovery <= 13 * 20 && cost.sockets <= 40, "{} {}", cost.discovery, cost.sockets);
    assert!(cost.busiest <= 29 && cost.missing == 0, "{} {}", cost.busiest, cost.missing);
}

#[test]
fn other_candidates_in_each_of_many_generations_come_to_an_end() {
    let cost = cost(|tick| {
        (tick % 3 == 0).then(|| {
            let first = tick as u32 * 25;
            fragment(tick, first..first + 25, "")
        })
    });
    assert!(
        cost.checks.len() <= 256 && cost.checks.values().all(|checks| *checks <= 8),
        "{}",
        cost.checks.len()
    );
    assert!(cost.missing == 0, "{}", cost.missing);
}

#[test]
fn absurd_numbers_move_nothing_but_bounded_work() {
    let cost = cost(|tick| {
        (tick % 5 == 0).then(|| {
        let nat = format!("{}{tick} round={}", NAT, tick * 4_294_967);
        let absurd = ["a=candidate:1 1 UDP 99999999999999999999 10.1.1.1 99999 typ host", "a=candidate:2 1 UDP -1 10.1.1.1 -1 typ srflx raddr x rport 70000",
            "a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential step=-99999 last=999999 round=99999999"].join("\r\n");
        fragment(1, 0..3, &format!("{nat}\r\n{absurd}"))
    })
    });
    assert!(cost.sockets <= 64 && cost.missing == 0, "{} {}", cost.sockets, cost.missing);
    // One of them is public: the search goes there, in its pace and time.
    let sprayed: usize = cost.checks.values().sum();
    assert!(sprayed <= 29 * 62 && cost.busiest <= 29, "{sprayed} {}", cost.busiest);
}

#[test]
fn a_search_that_was_given_up_sends_nothing_more() {
    for (a, b) in [(RANDOM, CONE), (COUNTING, CONE), (COUNTING, COUNTING), (CONE, CONE)] {
        let mut world = World::new(&Options::new(3, a, b));
        world.cut(0, 1);
        world.cut(1, 0);
        world.run_until(MS(90_000));
        assert!(world.phones.iter().all(|phone| phone.gave_up_at().is_some()), "{a:?} {b:?}");
        world.capture = Some(Vec::new());
        world.run_until(MS(150_000));
        let relay = world.relay.addresses;
        let others: HashSet<SocketAddr> =
            world.captured().into_iter().map(|sent| sent.to).filter(|to| !relay.contains(&to.ip())).collect();
        assert!(others.is_empty(), "{a:?} {b:?}: {others:?}");
    }
}
