//! Requests of those who have proven nothing: they take nothing that others need, and leave nothing behind.

use std::net::SocketAddr;
use std::time::Duration;

use sip_engine::config::Limits;
use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_engine::io::Load;
use sip_engine::ua::{Abilities, Ending, Event};
use sip_wire::{Message, Method, Name};

use crate::line::{ACCESS, DOMAIN, Line, PASSWORD, THREE, TWO, address, config, policy};

/// IPv4 and UDP.
const HEADERS: usize = 28;

fn stranger(number: u32) -> SocketAddr {
    let [_, a, b, c] = number.to_be_bytes();
    address(&format!("10.{}.{b}.{c}:5060", 64 + a % 64))
}

fn request(method: &str, from: SocketAddr, number: u32, headers: &str) -> String {
    format!(
        "{method} sip:bob@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{method}{number};rport\r\n{headers}\
         Max-Forwards: 70\r\nFrom: <sip:mallory@{DOMAIN}>;tag=t{number}\r\nCall-ID: call{number}@{from}\r\n\
         CSeq: 1 {method}\r\nContact: <sip:mallory@{from}>\r\nContent-Length: 0\r\n\r\n"
    )
}

fn without_tag(method: &str, from: SocketAddr, number: u32) -> String {
    request(method, from, number, &format!("To: <sip:bob@{DOMAIN}>\r\n"))
}

fn with_tag(method: &str, from: SocketAddr, number: u32) -> String {
    request(method, from, number, &format!("To: <sip:bob@{DOMAIN}>;tag=none\r\n"))
}

/// Two phones with their calls, in a node with a small table.
fn node() -> (Line, [SocketAddr; 2]) {
    let mut config = config();
    config.limits = Limits { transactions: 200, ..Limits::default() };
    Line::joined(config, TWO)
}

/// A call is set up and answered, and ended.
fn calls(line: &mut Line, [alice, bob]: [SocketAddr; 2]) -> bool {
    let before = line.events.len();
    let call = line.call(alice, "bob", &[]);
    if line.incoming(bob).is_none() {
        return false;
    }
    line.accept(bob);
    let is_up = line.events.iter().skip(before).any(
        |(at, event)| matches!(event, Event::Answered { call: answered, .. } if (*at, *answered) == (alice, call)),
    );
    let _ = line.by(alice, |agent, now| agent.hang_up(call, now));
    line.pass(Duration::from_secs(40));
    is_up
}

fn answers_to(line: &Line, from: SocketAddr) -> Vec<&Message> {
    line.sent.iter().filter(|(to, _)| *to == from).map(|(_, message)| message).collect()
}

#[test]
fn a_flood_of_strangers_leaves_the_table_as_it_was_and_honest_calls_are_served() {
    let (mut line, phones) = node();
    line.pass(Duration::from_secs(40));
    let sizes = line.engine.sizes();
    let mut number = 0;
    for (method, make) in [
        ("INVITE", without_tag as fn(&str, SocketAddr, u32) -> String),
        ("INVITE", with_tag),
        ("REGISTER", without_tag),
        ("CANCEL", without_tag),
        ("BYE", with_tag),
        ("OPTIONS", with_tag),
        ("SUBSCRIBE", without_tag),
        ("MESSAGE", without_tag),
        ("PRACK", without_tag),
        ("ACK", with_tag),
        ("PUBLISH", without_tag),
    ] {
        let (mut octets_in, mut octets_out) = (0, 0);
        line.sent.clear();
        for _ in 0..1_000 {
            number += 1;
            let from = stranger(number);
            let request = make(method, from, number);
            octets_in += request.len() + HEADERS;
            line.hear(from, request.into());
        }
        assert_eq!(line.engine.sizes(), sizes, "{method}");
        assert!(calls(&mut line, phones), "{method}");
        // Until long after, so that whatever would be repeated is.
        line.pass(Duration::from_secs(40));
        let strangers = line.sent.iter().filter(|(to, _)| !phones.contains(to));
        let mut answers = 0;
        for (_, message) in strangers {
            octets_out += message.as_bytes().len() + HEADERS;
            answers += 1;
        }
        assert!(octets_out <= 2 * octets_in, "{method}: {octets_out} of {octets_in}");
        assert_eq!(
            answers,
            if method == "ACK" { 0 } else { 1_000 },
            "{method}: one answer, once, and no 100"
        );
    }
}

#[test]
fn a_stranger_gets_the_same_answer_to_each_retransmission_and_its_ack_is_heard_in_silence() {
    let (mut line, _) = node();
    let from = stranger(1);
    for _ in 0..2 {
        line.hear(from, without_tag("INVITE", from, 1).into());
    }
    let answers = answers_to(&line, from);
    let tags: Vec<_> = answers
        .iter()
        .map(|answer| (answer.status(), answer.to().unwrap().tag().unwrap().to_vec()))
        .collect();
    assert_eq!(tags.len(), 2);
    assert_eq!(tags[0], tags[1]);
    assert_eq!(tags[0].0, Some(407));

    let tag = String::from_utf8(tags[0].1.clone()).unwrap();
    let ack = request("ACK", from, 1, &format!("To: <sip:bob@{DOMAIN}>;tag={tag}\r\n"))
        .replace("bKACK", "bKINVITE");
    let sizes = line.engine.sizes();
    line.notices.clear();
    line.hear(from, ack.into());
    assert_eq!(answers_to(&line, from).len(), 2);
    assert_eq!(line.engine.sizes(), sizes);
    assert!(line.notices.is_empty(), "{:?}", line.notices);
    // Another one's tag is another one.
    line.hear(stranger(2), without_tag("INVITE", stranger(2), 1).into());
    assert_ne!(answers_to(&line, stranger(2))[0].to().unwrap().tag().unwrap(), tag.as_bytes());
}

#[test]
fn a_to_tag_passes_neither_limits_nor_overload() {
    let (mut line, _) = node();
    line.engine.set_load(Load::Behind);
    let from = stranger(1);
    line.hear(from, with_tag("INVITE", from, 1).into());
    line.hear(from, without_tag("INVITE", from, 2).into());
    let statuses: Vec<_> = answers_to(&line, from).iter().map(|answer| answer.status()).collect();
    assert_eq!(statuses, [Some(481), Some(503)]);
}

#[test]
fn a_request_with_more_vias_than_hops_can_have_added_is_dropped() {
    let (mut line, _) = node();
    let from = stranger(1);
    let sizes = line.engine.sizes();
    let via = format!("Via: SIP/2.0/UDP 192.0.2.77;branch=z9hG4bK{}\r\n", "x".repeat(1_000));
    for (number, count) in [(1, 28), (2, 5)] {
        let headers = format!("{}To: <sip:bob@{DOMAIN}>\r\n", via.repeat(count));
        line.hear(from, request("INVITE", from, number, &headers).into());
    }
    assert!(answers_to(&line, from).is_empty(), "what would be long is not sent to a stranger");
    assert_eq!(line.engine.sizes(), sizes);
    let kinds: Vec<_> = line.notices.iter().map(|notice| notice.kind).collect();
    assert!(kinds.contains(&"oversized") && kinds.contains(&"answer_withheld"), "{kinds:?}");
}

#[test]
fn whoever_writes_little_gets_one_challenge_of_a_kind_that_every_phone_knows() {
    let (mut line, _) = node();
    let from = stranger(1);
    let small = format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nv:SIP/2.0/UDP {from};branch=z9hG4bK1\r\nf:<sip:a@{DOMAIN}>;tag=1\r\nt:<sip:a@{DOMAIN}>\r\n\
         i:1\r\nCSeq:1 REGISTER\r\nMax-Forwards:70\r\nm:<sip:a@{from}>\r\n\r\n"
    );
    let asked = small.len();
    line.hear(from, small.into());
    let answers = answers_to(&line, from);
    let challenges: Vec<_> = answers[0].values(Name::WwwAuthenticate).collect();
    assert_eq!(challenges.len(), 1);
    assert!(String::from_utf8_lossy(challenges[0]).contains("algorithm=MD5"));
    assert!(answers[0].as_bytes().len() + HEADERS <= 2 * (asked + HEADERS));
}

#[test]
fn a_source_that_floods_is_limited_and_its_neighbours_and_registered_phones_are_not() {
    let mut config = config();
    config.limits = Limits { unproven_per_source: 10, ..Limits::default() };
    // The flood comes from the very address that both phones share.
    let (mut line, phones) = Line::joined(config, [TWO[0], ("bob", "10.0.0.5:5062")]);
    let (flooder, neighbour) = (address("10.0.0.5:6000"), address("10.0.0.6:6000"));
    for number in 0..1_000 {
        line.hear(flooder, without_tag("INVITE", flooder, number).into());
    }
    assert!(answers_to(&line, flooder).len() <= 40);
    assert!(
        line.notices.iter().any(|notice| notice.kind == "source_limited" && notice.remote == Some(flooder))
    );
    line.hear(neighbour, without_tag("INVITE", neighbour, 1_000).into());
    assert_eq!(answers_to(&line, neighbour).len(), 1);
    assert!(calls(&mut line, phones));
    // Nobody is forgotten for ever.
    line.hear(flooder, without_tag("INVITE", flooder, 1_001).into());
    assert_eq!(answers_to(&line, flooder).last().unwrap().status(), Some(407));
}

#[test]
fn one_user_has_so_many_calls_and_no_more_until_one_ends() {
    let mut config = config();
    config.limits = Limits { calls_per_user: 2, ..Limits::default() };
    let (mut line, [alice, bob, carol]) = Line::joined(config, THREE);
    let first = line.call(alice, "bob", &[]);
    line.accept(bob);
    line.call(alice, "bob", &[]);
    line.accept(bob);
    let third = line.call(alice, "bob", &[]);
    assert_eq!(line.ending(alice, third), Some(Ending::Refused(503)));
    assert!(
        line.notices.iter().any(|notice| notice.kind == "user_limited" && notice.detail.contains("alice@"))
    );
    let other = line.call(carol, "bob", &[]);
    assert_eq!(line.ending(carol, other), None, "the limit is one user's");
    line.hang_up(alice, first);
    let fourth = line.call(alice, "bob", &[]);
    assert_eq!(line.ending(alice, fourth), None);
}

#[test]
fn one_user_that_calls_very_often_is_slowed_down_and_others_are_served() {
    let mut config = config();
    config.limits = Limits { requests_per_user: 2, ..Limits::default() };
    let (mut line, [alice, bob, carol]) = Line::joined(config, THREE);
    let refused = (0..50)
        .filter(|_| {
            let call = line.call(carol, "nobody", &[]);
            line.ending(carol, call) == Some(Ending::Refused(503))
        })
        .count();
    assert_eq!(refused, 50 - 19, "twenty at once, of which the registration was one");
    assert!(calls(&mut line, [alice, bob]));
}

/// A phone by hand: its REGISTER, with or without an answer to the last challenge that it got.
fn register(line: &mut Line, from: SocketAddr, number: u32, password: Option<&str>) -> Option<u16> {
    let challenge = answers_to(line, from)
        .into_iter()
        .rfind(|answer| answer.status() == Some(401))
        .cloned()
        .filter(|_| password.is_some());
    let credentials = challenge.zip(password).and_then(|(challenge, password)| {
        let mut ids = Ids::new([number as u8; 32], 9);
        digest::answer(
            &challenge,
            Method::REGISTER,
            REGISTRAR.as_bytes(),
            digest::Login { username: "alice", password },
            &mut ids,
        )
    });
    let credentials =
        credentials.map(|(name, value)| format!("{}: {value}\r\n", name.as_str())).unwrap_or_default();
    let headers = format!("{credentials}To: <sip:alice@{DOMAIN}>\r\n");
    let before = answers_to(line, from).len();
    let request = request("REGISTER", from, number, &headers)
        .replace(&format!("REGISTER sip:bob@{DOMAIN}"), &format!("REGISTER {REGISTRAR}"))
        .replace("sip:mallory", "sip:alice");
    line.hear(from, request.into());
    answers_to(line, from).get(before).and_then(|answer| answer.status())
}

const REGISTRAR: &str = "sip:example.net";

#[test]
fn guesses_at_a_password_wait_and_the_user_is_served_from_everywhere_else() {
    let (mut line, _) = node();
    let (guesser, elsewhere) = (address("203.0.113.66:5060"), address("198.51.100.77:5060"));
    let mut number = 0;
    let mut next = |line: &mut Line, from, password| {
        number += 1;
        register(line, from, number, password)
    };
    next(&mut line, guesser, None);
    let answered = (0..30).filter(|_| next(&mut line, guesser, Some("guess")).is_some()).count();
    assert!((3..15).contains(&answered), "{answered} guesses in no time");
    assert_eq!(next(&mut line, guesser, Some(PASSWORD)), None, "not even the right one, yet");
    let named =
        |kind| line.notices.iter().any(|notice| notice.kind == kind && notice.detail.contains("alice"));
    assert!(named("wrong_credentials") && named("guesses_delayed"));
    assert_eq!(next(&mut line, elsewhere, None), Some(401));
    assert_eq!(next(&mut line, elsewhere, Some(PASSWORD)), Some(200));
    line.pass(Duration::from_secs(20));
    assert_eq!(next(&mut line, guesser, Some(PASSWORD)), Some(200), "nobody is locked out");
}

/// Ten thousand phones behind ten addresses come back at once after a restart, and repeat what is not answered.
#[test]
fn ten_thousand_phones_behind_ten_addresses_register_within_a_minute_of_a_restart() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let phones: Vec<_> = (0..10_000_u32)
        .map(|number| {
            let at = format!("203.0.113.{}:{}", number % 10, 10_000 + number);
            line.add(&format!("user{number}"), &at, ACCESS, Abilities::default())
        })
        .collect();
    let now = line.time();
    for phone in &phones {
        line.agents.get_mut(phone).unwrap().register(Duration::from_secs(3600), now);
    }
    line.settle();
    line.pass(Duration::from_secs(60));
    assert_eq!(line.engine.sizes().2, phones.len());
    assert!(line.notices.iter().all(|notice| notice.kind != "user_limited"));
}
