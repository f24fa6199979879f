//! What the RFCs say of single answers, and peers hold us to.

use std::time::Duration;

use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_engine::ua::Abilities;
use sip_wire::{Message, Method, Name};

use crate::by_hand::asked;
use crate::line::{ACCESS, CORE, DOMAIN, Line, PASSWORD, address, config, policy, trunk};

fn with_trunk() -> (Line, std::net::SocketAddr, std::net::SocketAddr) {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    line.sent.clear();
    (line, alice, address("198.51.100.9:5060"))
}

/// What a phone was answered, but for 100 and challenges.
fn answers(line: &Line, phone: std::net::SocketAddr) -> Vec<&Message> {
    let all = line.sent.iter().filter(|(to, _)| *to == phone).map(|(_, message)| message);
    all.filter(|message| !matches!(message.status(), None | Some(100 | 401 | 407))).collect()
}

/// RFC 3261 §8.2.6.2.
#[test]
fn a_failure_bears_the_tag_of_the_ringing_before_it() {
    let (mut line, alice, gateway) = with_trunk();
    line.call(alice, "4930", &[]);
    line.answer_by_hand(gateway, 180, "");
    line.answer_by_hand(gateway, 486, "");
    let answers = answers(&line, alice);
    assert_eq!(answers.iter().map(|answer| answer.status()).collect::<Vec<_>>(), [Some(180), Some(486)]);
    let tags: Vec<_> = answers.iter().map(|answer| answer.to().unwrap().tag()).collect();
    assert!(tags[0].is_some() && tags[0] == tags[1], "{tags:?}");
}

/// RFC 4320 §4.2.
#[test]
fn no_408_answers_what_is_no_invite() {
    let (mut line, alice, gateway) = with_trunk();
    let target = format!("sip:4930@{DOMAIN}");
    line.ask(alice, &asked(Method::MESSAGE, &target, "Content-Type: text/plain\r\n", b"hello"));
    assert!(
        line.sent.iter().any(|(to, message)| *to == gateway && message.method() == Some(Method::MESSAGE))
    );
    line.pass(Duration::from_secs(60));
    assert_eq!(
        answers(&line, alice).iter().filter_map(|answer| answer.status()).collect::<Vec<_>>(),
        [0_u16; 0]
    );
}

fn to_the_domain(method: &str) -> String {
    format!(
        "{method} sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 10.0.0.5;branch=z9hG4bK{method}\r\nFrom: <sip:alice@{DOMAIN}>;tag=t\r\n\
         To: <sip:alice@{DOMAIN}>\r\nCall-ID: {method}\r\nCSeq: 1 {method}\r\nMax-Forwards: 70\r\nContact: <sip:alice@10.0.0.5>\r\n\
         Content-Length: 0\r\n\r\n"
    )
}

/// RFC 3261 §8.2.1, §20.5.
#[test]
fn an_unknown_method_to_the_domain_gets_405_and_allow_lists_what_the_realm_does() {
    for (side, from, method, registers) in [
        (ACCESS, "10.0.0.5:5060", "TELEPORT", true),
        (CORE, "198.51.100.9:5060", "TELEPORT", false),
        (CORE, "198.51.100.9:5060", "REGISTER", false),
    ] {
        let (mut line, _, _) = with_trunk();
        let from = address(from);
        line.hear_at(side, from, to_the_domain(method).into());
        let answers = answers(&line, from);
        let [answer] = &*answers else { panic!("{method}: {answers:?}") };
        assert_eq!(answer.status(), Some(405), "{method}");
        assert!(answer.has_token(Name::Allow, "INVITE"));
        assert_eq!(answer.has_token(Name::Allow, "REGISTER"), registers, "{method}");
    }
}

#[test]
fn an_instance_cannot_write_a_contact_of_its_own_into_the_answer() {
    let (mut line, alice, _) = with_trunk();
    let forged = "\"<urn:x>\\\";expires=1, <sip:evil@evil.example>;a=\\\"\"";
    let mut credentials = String::new();
    for cseq in 1..=2 {
        let register = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {alice};branch=z9hG4bKi{cseq}\r\nFrom: <sip:alice@{DOMAIN}>;tag=t\r\n\
             To: <sip:alice@{DOMAIN}>\r\nCall-ID: i\r\nCSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\nExpires: 600\r\n\
             Contact: <sip:alice@{alice}>;+sip.instance={forged}\r\n{credentials}Content-Length: 0\r\n\r\n"
        );
        line.hear(alice, register.into());
        let (uri, mut ids) = (format!("sip:{DOMAIN}"), Ids::new([9; 32], 9));
        let challenge = &line.sent.last().unwrap().1;
        let answer = digest::answer(
            challenge,
            Method::REGISTER,
            uri.as_bytes(),
            digest::Login { username: "alice", password: PASSWORD },
            &mut ids,
        );
        if let Some((name, value)) = answer {
            credentials = format!("{}: {value}\r\n", name.as_str());
        }
    }
    let answer = &line.sent.iter().rfind(|(to, _)| *to == alice).unwrap().1;
    assert_eq!(answer.status(), Some(200));
    let uris: Vec<_> = answer.contacts().map(|contact| contact.unwrap().uri.as_bytes().to_vec()).collect();
    assert!(uris.iter().all(|uri| uri.starts_with(b"sip:alice@")), "{uris:?}");
}

#[test]
fn a_call_is_over_with_its_record_though_a_second_contact_never_answers() {
    let (mut line, alice, _) = with_trunk();
    let phones =
        ["10.0.0.6:5060", "10.0.0.7:5060"].map(|at| line.add("bob", at, ACCESS, Abilities::default()));
    phones.iter().for_each(|phone| line.register(*phone));
    line.cut.push(phones[1]);
    let call = line.call(alice, "bob", &[]);
    line.accept(phones[0]);
    let _ = line.by(alice, |agent, now| agent.hang_up(call, now));
    assert!(line.cause().is_some());
    assert_eq!(line.engine.sizes().0, 0);
}

#[test]
fn a_refusal_asks_nobody_to_stay_away_for_longer_than_five_minutes() {
    let (mut line, alice, gateway) = with_trunk();
    line.call(alice, "4930", &[]);
    line.answer_by_hand(gateway, 486, "Retry-After: 18000 (in a meeting);duration=60\r\n");
    let answers = answers(&line, alice);
    let refusal = answers.last().unwrap();
    assert_eq!(refusal.value(Name::RetryAfter), Some(b"300 (in a meeting);duration=60".as_slice()));
}

#[test]
fn a_notify_that_only_holds_a_nat_open_is_answered_and_one_that_commands_is_not_passed() {
    let (mut line, alice, _) = with_trunk();
    let stranger = address("10.0.0.99:5060");
    for (from, event, status) in
        [(alice, "keep-alive", 200), (stranger, "keep-alive", 489), (stranger, "check-sync;reboot=true", 407)]
    {
        line.sent.clear();
        let notify = format!(
            "NOTIFY sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-{status}\r\nFrom: <sip:alice@{DOMAIN}>;tag=k\r\n\
             To: <sip:{DOMAIN}>\r\nCall-ID: k{status}\r\nCSeq: 1 NOTIFY\r\nMax-Forwards: 70\r\nEvent: {event}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        line.hear(from, notify.into());
        let [(to, answer)] = &*line.sent else { panic!("{event}: {:?}", line.sent) };
        assert_eq!((*to, answer.status()), (from, Some(status)), "{event}");
    }
}
