//! Idle phones behind NATs of their own, all waiting at the same time.

use std::time::{Duration, Instant};

use crush_tests::network::SBC;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::stage::{Extension, Stage};
use crush_tests::{Lab, Network, kamailio, sbc, skip_unless_possible};

/// How long routers remember a flow, how often keepalives come, and how long nothing else happens.
#[derive(Clone, Copy)]
struct Times {
    forgets: Duration,
    keepalive: Duration,
    idle: Duration,
}

const SHORT: Times = Times {
    forgets: Duration::from_secs(6),
    keepalive: Duration::from_secs(2),
    idle: Duration::from_secs(30),
};
const FULL: Times = Times {
    forgets: Duration::from_secs(30),
    keepalive: Duration::from_secs(20),
    idle: Duration::from_secs(300),
};

/// What holds the flows open: a realm of its own for each, apart by its port.
const KEEPALIVES: [(&str, u16); 3] = [("crlf", 5060), ("options", 5070), ("none", 5080)];

/// The registration must not hold the flow open: it lasts longer than the test.
const EXPIRES: u32 = 1200;

fn settings(keepalive: &str, times: Times) -> String {
    let (seconds, kind) = match keepalive {
        "none" => (0, "crlf"),
        kind => (times.keepalive.as_secs(), kind),
    };
    format!(
        "keepalive_seconds = {seconds}\nkeepalive = \"{kind}\"\nnat_expires_seconds = {EXPIRES}\nmax_expires_seconds = {EXPIRES}"
    )
}

/// Each phone is behind a router of its own, registers and is left alone. Then it is called.
fn idle(mut stage: Stage, domain: &str, mut caller: Extension, times: Times) {
    let mut phones: Vec<_> = KEEPALIVES
        .into_iter()
        .map(|(keepalive, port)| {
            let account = Account {
                expires: EXPIRES,
                domain: domain.to_owned(),
                proxy: format!("{}:{port}", Network::Access.address(SBC)),
                ..Account::of(&format!("n-{keepalive}"), Network::Access, "udp")
            };
            let mut phone = stage.phone_behind_nat(Kind::Baresip, &account, times.forgets).unwrap();
            phone.registered().unwrap();
            phone
        })
        .collect();
    let knows = |stage: &Stage, keepalive: &str, port: u16| {
        let flows = stage.lab.nat_flows(&format!("n-{keepalive}")).unwrap();
        flows.contains(&format!("dport={port} "))
    };
    let start = Instant::now();
    let mut forgotten = None;
    while start.elapsed() < times.idle {
        for (keepalive, port) in KEEPALIVES {
            let known = knows(&stage, keepalive, port);
            if keepalive != "none" {
                assert!(known, "{keepalive}: the flow is forgotten after {:?}", start.elapsed());
            } else if !known {
                forgotten.get_or_insert(start.elapsed());
            }
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let forgotten = forgotten.unwrap();
    assert!(forgotten < times.forgets + Duration::from_secs(5), "without keepalives after {forgotten:?}");

    for phone in &mut phones {
        let mark = phone.mark().unwrap();
        let is_held_open = phone.user != "n-none";
        caller.dial(&phone.user.clone()).unwrap();
        if is_held_open {
            phone.wait(Event::Incoming).unwrap();
            phone.phone.answer().unwrap();
            caller.wait(Event::Established).unwrap();
            phone.wait(Event::Established).unwrap();
            phone.hears(&caller).unwrap();
            caller.hears(phone).unwrap();
            caller.phone.hang_up().unwrap();
            phone.wait(Event::Ended).unwrap();
            caller.wait(Event::Ended).unwrap();
        } else {
            // The INVITE and its first retransmissions, 0.5, 1.5 and 3.5 s later, get no further than the router.
            std::thread::sleep(Duration::from_secs(5));
            let reached =
                phone.tap().since(mark).unwrap().iter().any(|packet| packet.payload.starts_with(b"INVITE"));
            assert!(!reached, "a flow that the router has forgotten lets an INVITE in");
            caller.phone.hang_up().unwrap();
            caller.wait(Event::Ended).unwrap();
        }
    }
    phones.push(caller);
    stage.close(phones).unwrap();
}

/// The SBC is the registrar.
fn idle_at_a_local_registrar(times: Times) {
    let access = Network::Access.address(SBC);
    let core = Network::Core.address(SBC);
    let realms = KEEPALIVES.map(|(keepalive, port)| {
        sbc::phone_realm(keepalive, &access, [port, port + 1], &settings(keepalive, times))
    });
    let realms = realms.concat() + &sbc::phone_realm("core", &core, [5060, 5061], "");
    let users = KEEPALIVES.map(|(keepalive, _)| format!("n-{keepalive}"));
    let mut subscribers: Vec<_> = users.iter().map(|user| (user.as_str(), Network::Access)).collect();
    subscribers.push(("c1", Network::Core));
    let mut stage = Stage::new("idle", &realms, &sbc::subscribers(&subscribers)).unwrap();
    let mut caller =
        stage.phone(Kind::Baresip, Network::Core, &Account::of("c1", Network::Core, "udp")).unwrap();
    caller.registered().unwrap();
    idle(stage, &access, caller, times);
}

/// The registrar is in the core, and the caller there too.
fn idle_at_a_registrar_in_the_core(times: Times) {
    let mut lab = Lab::new("idle-forward").unwrap();
    let registrar = lab.host("registrar", Network::Core, 5).unwrap();
    let _kamailio = kamailio::start(&lab, "registrar", &registrar).unwrap();
    let realms = KEEPALIVES.map(|(keepalive, port)| {
        sbc::forwarding_realm(keepalive, port, &format!("{registrar}:5060/udp"), &settings(keepalive, times))
    });
    let realms = realms.concat() + &sbc::open_core();
    let mut stage = Stage::with(lab, &realms, "").unwrap();
    stage.knows(Network::Core, &registrar).unwrap();
    let account = Account {
        domain: registrar.clone(),
        proxy: registrar.clone(),
        ..Account::of("c1", Network::Core, "udp")
    };
    let mut caller = stage.phone(Kind::Baresip, Network::Core, &account).unwrap();
    caller.registered().unwrap();
    idle(stage, sbc::FORWARDED_DOMAIN, caller, times);
}

#[test]
fn a_phone_of_a_local_registrar_is_reached_after_idle_time_if_its_nat_is_held_open() {
    skip_unless_possible!("baresip", "conntrack", "curl", "openssl");
    idle_at_a_local_registrar(SHORT);
}

#[test]
fn a_phone_of_a_registrar_in_the_core_is_reached_after_idle_time_if_its_nat_is_held_open() {
    skip_unless_possible!("baresip", "kamailio", "conntrack", "curl", "openssl");
    idle_at_a_registrar_in_the_core(SHORT);
}

#[test]
#[ignore = "five minutes: make test-phones"]
fn five_idle_minutes_at_a_local_registrar() {
    skip_unless_possible!("baresip", "conntrack", "curl", "openssl");
    idle_at_a_local_registrar(FULL);
}

#[test]
#[ignore = "five minutes: make test-phones"]
fn five_idle_minutes_at_a_registrar_in_the_core() {
    skip_unless_possible!("baresip", "kamailio", "conntrack", "curl", "openssl");
    idle_at_a_registrar_in_the_core(FULL);
}
