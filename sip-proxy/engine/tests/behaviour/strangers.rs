//! Requests of those who have proven nothing: they take nothing that others need, and leave nothing behind.

use std::net::SocketAddr;
use std::time::Duration;

use sip_engine::config::Limits;
use sip_engine::ua::{Abilities, Event};
use sip_wire::{Message, Name};

use crate::line::{ACCESS, DOMAIN, Line, Snapshot, address, config};

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
    let mut line = Line::new(config, Snapshot::default());
    let phones = [("alice", "10.0.0.5:5060"), ("bob", "10.0.0.6:5060")]
        .map(|(user, at)| line.add(user, at, ACCESS, Abilities::default()));
    for phone in phones {
        line.register(phone);
    }
    (line, phones)
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
    let now = line.time();
    let _ = line.agents.get_mut(&alice).unwrap().hang_up(call, now);
    line.settle();
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
    line.engine.refuse_new(true);
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
