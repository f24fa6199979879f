//! Several calls of one host behind a limiter that blocks it, with default settings: they count together (docs/crush.md §5.1).

use std::time::Duration;

use crush_tests::home::{Home, Player};
use crush_tests::network::SBC;
use crush_tests::phone::{Account, Event, Phone};
use crush_tests::process::{eventually, run};
use crush_tests::sbc::{self, Sbc};
use crush_tests::softphone::{Softphone, Voice};
use crush_tests::{Lab, Network, skip_unless_possible};
use nat_lab::Kind;

use super::SOON;

/// The spray's limit, and what discovery and the handoff take.
const WITHIN: Duration = Duration::from_secs(66);
/// As in the matrix: 30 new flows a second, and 2 s of nothing for who makes more.
const LIMITER: [&str; 8] = ["--delay", "20ms", "--flows", "30", "--burst", "30", "--block", "2s"];

/// Calls from behind a port-restricted NAT to as many phones behind random ones at once: all get direct, and no limiter strikes.
fn play(calls: usize) {
    let mut lab = Lab::new("together").unwrap();
    let second = format!("{}/23", Network::Access.address(SBC + 1));
    run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &second, "dev", Network::Access.name()]).unwrap();
    let kinds = [Kind::Cone, Kind::SymmetricRandom, Kind::SymmetricRandom, Kind::SymmetricRandom];
    let users = ["a", "b", "c", "d"];
    let mut homes = Vec::new();
    let mut hosts = Vec::new();
    for ((name, kind), number) in users.iter().zip(kinds).zip(20_u8..).take(calls + 1) {
        let mut home = Home::new(&mut lab, name, Player::Tun(kind), number, &LIMITER).unwrap();
        hosts.push(home.host(&mut lab).unwrap().0);
        homes.push(home);
    }
    let addresses = [SBC, SBC + 1].map(|host| format!("\"{}\"", Network::Access.address(host))).join(", ");
    let realms =
        sbc::phones_with("release = \"allow\"") + &format!("\n[discovery]\naddresses = [{addresses}]\n");
    let _sbc =
        Sbc::start(&lab, &realms, &sbc::subscribers(&users.map(|user| (user, Network::Access)))).unwrap();
    let start = |(user, host): (&&str, &String)| {
        let account = Account::of(user, Network::Access, "udp");
        let answers: &[&str] = if *user == "a" { &[] } else { &["--answer"] };
        let mut phone = Softphone::start_with(&lab, host, &account, Voice::Tone(500.0), answers).unwrap();
        phone.registered(SOON).unwrap();
        phone
    };
    let mut phones: Vec<Softphone> = users.iter().zip(&hosts).map(start).collect();
    for user in users.iter().skip(1).take(calls) {
        phones[0].dial(&format!("sip:{user}@{}", Network::Access.address(SBC))).unwrap();
        phones[0].wait(Event::Established, SOON).unwrap();
    }
    let told = |phone: &Softphone, event: &str| {
        phone.timeline().iter().filter(|told| told["event"] == event).count()
    };
    let are_direct = eventually(WITHIN, || told(&phones[0], "direct") == calls);
    let struck: Vec<u64> = homes.iter().map(|home| home.limited(&lab).unwrap()).collect();
    let slowed: usize = phones.iter().map(|phone| told(phone, "slowed-down")).sum();
    let times: Vec<f64> = phones[0]
        .timeline()
        .iter()
        .filter(|told| told["event"] == "direct")
        .filter_map(|told| told["after_ms"].as_f64())
        .collect();
    println!("{calls} calls: direct {times:?}, limiters struck {struck:?}");
    assert!(are_direct, "{} of {calls} direct", told(&phones[0], "direct"));
    assert_eq!((struck.iter().sum::<u64>(), slowed), (0, 0), "{struck:?}");
}

#[test]
#[ignore = "make nat-matrix"]
fn two_and_three_calls_of_a_host_trip_no_limiter() {
    skip_unless_possible!("conntrack", "curl", "openssl");
    play(2);
    play(3);
}
