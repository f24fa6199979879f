//! Who is registered over which flow, and for how long.

use std::time::Duration;

use play::settings::signalling::binding;
use sip_engine::config::{Authentication, Keepalive};
use sip_engine::io::{Command, Input, Output};
use sip_engine::registrar::BindingRecord;
use sip_engine::ua::{Abilities, Ending};

use crate::line::{ACCESS, DOMAIN, Line, address, config, policy};

/// How often a phone was called.
fn called(line: &Line, phone: std::net::SocketAddr) -> usize {
    let is_invite = |message: &sip_wire::Message| message.method() == Some(sip_wire::Method::INVITE);
    line.sent.iter().filter(|(to, message)| *to == phone && is_invite(message)).count()
}

/// Alice at her port under one instance, then again under another; how often a call to her reaches her.
fn restarted(instances: [&str; 2], between: Duration) -> (Line, usize) {
    let mut line = Line::new(config(), policy(Vec::new()));
    let bob = line.join("bob", "10.0.0.6:5060");
    let mut alice = bob;
    for instance in instances {
        alice = line.add_instance("alice", "10.0.0.5:5060", instance);
        line.register(alice);
        line.pass(between);
    }
    line.sent.clear();
    line.call(bob, "alice", &[]);
    let called = called(&line, alice);
    (line, called)
}

#[test]
fn a_phone_that_comes_back_at_its_port_takes_its_own_place_whatever_instance_it_makes_up() {
    for instances in [["urn:x:one", "urn:x:one"], ["urn:x:one", "urn:x:two"]] {
        let (line, called) = restarted(instances, Duration::ZERO);
        assert_eq!((called, line.engine.sizes().2), (1, 2), "{instances:?}");
    }
}

#[test]
fn a_phone_that_comes_back_in_the_last_second_of_its_binding_is_registered_at_once() {
    // The registrar grants an hour.
    let (line, called) = restarted(["urn:x:one", "urn:x:two"], Duration::from_millis(3_599_400));
    assert_eq!(called, 1);
    let granted = line.events.iter().filter_map(|(at, event)| match event {
        sip_engine::ua::Event::Registered { seconds } if at.to_string() == "10.0.0.5:5060" => Some(*seconds),
        _ => None,
    });
    assert!(granted.clone().all(|seconds| seconds > 60), "{:?}", granted.collect::<Vec<_>>());
}

#[test]
fn two_phones_of_one_account_are_both_called_though_one_speaks_for_the_other_port() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let bob = line.add("bob", "10.0.0.6:5060", ACCESS, Abilities::default());
    let phones = [("10.0.0.5:5060", "urn:x:one"), ("10.0.0.7:5060", "urn:x:two")]
        .map(|(at, instance)| line.add_instance("alice", at, instance));
    for phone in [bob, phones[0], phones[1]] {
        line.register(phone);
    }
    line.call(bob, "alice", &[]);
    assert_eq!(phones.map(|phone| called(&line, phone)), [1, 1]);
    // One that moves to another port leaves nothing behind.
    let moved = line.add_instance("alice", "10.0.0.5:5070", "urn:x:one");
    line.register(moved);
    line.sent.clear();
    line.call(bob, "alice", &[]);
    assert_eq!([phones[0], phones[1], moved].map(|phone| called(&line, phone)), [0, 1, 1]);
}

#[test]
fn two_subscribers_of_one_gateway_are_each_told_from_the_other() {
    let mut registered = config();
    registered.realms[0].authentication = Authentication::RegisteredFlow;
    let mut line = Line::new(registered, policy(Vec::new()));
    let carol = line.join("carol", "10.0.0.9:5060");
    // One address, two accounts, one after the other.
    let gateway = line.join("alice", "10.0.0.5:5060");
    line.add("bob", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.register(gateway);
    for user in ["alice", "bob"] {
        line.add(user, "10.0.0.5:5060", ACCESS, Abilities::default());
        line.call(gateway, "carol", &[]);
        let from = line.incoming(carol).unwrap().1.from().unwrap();
        assert_eq!(from.uri.as_bytes(), format!("sip:{user}@{DOMAIN}").as_bytes());
    }
    // A third name is nobody's here.
    line.add("mallory", "10.0.0.5:5060", ACCESS, Abilities::default());
    let call = line.call(gateway, "carol", &[]);
    assert_eq!(line.ending(gateway, call), Some(Ending::Refused(403)));
}

#[test]
fn a_phone_behind_nat_hears_a_keepalive_every_interval_until_its_binding_expires() {
    let mut config = config();
    let interval = Duration::from_secs(20);
    config.realms[0].keepalive = Some(Keepalive { interval, options: true });
    let mut line = Line::new(config, policy(Vec::new()));
    let phone = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.behind_nat(phone, "203.0.113.9:41000");
    line.register(phone);
    line.sent.clear();
    line.pass(Duration::from_secs(205));
    let count = |line: &Line| {
        let pings = line.sent.iter().filter(|(_, message)| {
            message.method().is_some_and(|method| method == sip_wire::Method::OPTIONS)
        });
        pings.count()
    };
    assert_eq!(count(&line), 11);
    line.sent.clear();
    line.agents.clear();
    line.pass(Duration::from_secs(7200));
    let after = count(&line);
    assert!((160..=180).contains(&after), "{after}");
    assert_eq!(line.engine.sizes().2, 0);
}

#[test]
fn a_registration_that_asks_us_to_keep_more_than_its_share_is_refused_with_the_reason() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let phone = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    let mut status = |contact: &str, more: &str| {
        line.sent.clear();
        let request = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK{}\r\nFrom: <sip:alice@{DOMAIN}>;tag=t\r\n\
             To: <sip:alice@{DOMAIN}>\r\nCall-ID: c\r\nCSeq: 1 REGISTER\r\nMax-Forwards: 70\r\nContact: {contact}\r\n{more}\
             Content-Length: 0\r\n\r\n",
            contact.len() + 10 * more.len()
        );
        line.hear(phone, request.into());
        let answer = line.sent.iter().find_map(|(_, message)| Some((message.status()?, message.clone())));
        let (status, message) = answer.unwrap();
        (status, message.value(sip_wire::Name::Warning).is_some())
    };
    let uri = |octets: usize| format!("<sip:{}@10.0.0.5>", "a".repeat(octets));
    assert_eq!(status(&uri(1_000), ""), (401, false));
    assert_eq!(status(&uri(1_100), ""), (400, true));
    assert_eq!(status(&uri(3_000), ""), (400, true));
    assert_eq!(status(&format!("<sip:a@10.0.0.5>;+sip.instance=\"{}\"", "b".repeat(1_100)), ""), (400, true));
    assert_eq!(status(&format!("<sip:a@10.0.0.5>{}", ";p".repeat(41)), ""), (400, true));
    assert_eq!(status(&["<sip:a@10.0.0.5>"; 21].join(", "), ""), (400, true));
    assert_eq!(status("<sip:a@10.0.0.5>", &format!("Path: <sip:{}@p>\r\n", "c".repeat(2_100))), (400, true));
}

/// A town behind one proxy, restored after a restart.
fn restored(line: &mut Line, phones: usize) {
    let now = line.time();
    let (own, seen) = (address("10.0.0.5:5060"), address("203.0.113.9:41000"));
    let record = |number: usize| BindingRecord {
        call_id: number.to_string(),
        expires: now.wall + Duration::from_secs(100),
        ..binding(&number.to_string(), own, seen)
    };
    line.engine.handle(Input::Command(Command::Load((0..phones).map(record).collect())), now);
}

#[test]
fn a_town_is_called_to_after_a_restart_and_forgotten_without_stopping_for_it() {
    let mut config = config();
    config.realms[0].keepalive = Some(Keepalive { interval: Duration::from_secs(30), options: false });
    let mut line = Line::new(config, policy(Vec::new()));
    restored(&mut line, 20_000);
    let (mut called, mut ended, begun) = (0, 0, line.now);
    while line.now < begun + Duration::from_secs(110) {
        line.now = line.engine.poll_timeout().expect("the registrar's own");
        line.engine.handle_timeout(line.time());
        let mut at_once = 0;
        while let Some(output) = line.engine.poll_output() {
            at_once += 1;
            match output {
                Output::Send { .. } => called += 1,
                Output::Binding(_) => ended += 1,
                _ => {}
            }
        }
        assert!(at_once <= 1_000, "{at_once}");
        if called < 20_000 {
            assert!(line.now <= begun + Duration::from_secs(2), "all within two seconds");
        }
    }
    assert_eq!((called, ended), (80_000, 20_000));
}
