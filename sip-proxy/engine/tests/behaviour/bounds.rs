//! What bounds a call: in time, in turns, and in who may take it over.

use std::net::SocketAddr;
use std::time::Duration;

use sip_engine::config::{Authentication, Config, Hairpin, Limits, Pickup};
use sip_engine::event::EndCause;
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Message, Method, Name};

use crate::line::{CORE, DOMAIN, Line, THREE, address, config, policy, trunk};

const TRUNK: &str = "203.0.113.9:5060";

fn invite_of_trunk(number: u32, hops: u32, headers: &str) -> String {
    format!(
        "INVITE sip:4930123@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {TRUNK};branch=z9hG4bKt{number}\r\n\
         Max-Forwards: {hops}\r\nFrom: <sip:+49301@carrier.example>;tag=t{number}\r\n\
         To: <sip:4930123@{DOMAIN}>\r\nCall-ID: t{number}@carrier.example\r\nCSeq: 1 INVITE\r\n\
         Contact: <sip:{TRUNK}>\r\n{headers}Content-Length: 0\r\n\r\n"
    )
}

fn answers(line: &Line, to: SocketAddr) -> Vec<u16> {
    line.sent.iter().filter(|sent| sent.0 == to).filter_map(|sent| sent.1.status()).collect()
}

fn invites(line: &Line, to: SocketAddr) -> Vec<&Message> {
    let invite = |message: &&Message| message.method() == Some(Method::INVITE);
    line.sent.iter().filter(|sent| sent.0 == to).map(|sent| &sent.1).filter(invite).collect()
}

#[test]
fn a_call_does_not_go_back_to_the_trunk_that_it_came_from_unless_told() {
    let back = address(TRUNK);
    let only = |name: &str| Hairpin::Trunks(vec![name.into()]);
    for (hairpin, goes_back) in
        [(Hairpin::None, false), (Hairpin::All, true), (only("carrier"), true), (only("other"), false)]
    {
        let expected = if goes_back { vec![100] } else { vec![100, 404] };
        let mut config = config();
        config.realms[1].hairpin = hairpin;
        let trunks = vec![trunk("carrier", "203.0.113.9", None)];
        let mut line = Line::new(config, policy(trunks));
        line.hear_at(CORE, back, invite_of_trunk(1, 70, "").into());
        line.pass(Duration::from_millis(10));
        let answers: Vec<_> = answers(&line, back);
        assert_eq!(answers.last(), expected.last());
        assert_eq!(!invites(&line, back).is_empty(), goes_back);
    }
}

#[test]
fn a_call_that_other_trunks_bring_back_again_and_again_is_ended_before_it_becomes_many() {
    let mut config = config();
    config.realms[1].hairpin = Hairpin::All;
    let trunks = vec![trunk("carrier", "203.0.113.9", None)];
    let mut line = Line::new(config, policy(trunks));
    let back = address(TRUNK);
    // The carrier sends back whatever it gets, with a hop less.
    let mut number = 0;
    let mut hops = 70;
    loop {
        number += 1;
        let before = invites(&line, back).len();
        line.hear_at(CORE, back, invite_of_trunk(number, hops, "").into());
        line.pass(Duration::from_millis(10));
        let all = invites(&line, back);
        if all.len() == before {
            break;
        }
        hops = all.last().unwrap().number(Name::MaxForwards).unwrap().unwrap() - 1;
        assert!(number < 40);
    }
    assert_eq!(number, 5, "the fifth turn is refused");
    assert!(answers(&line, back).contains(&482));
    assert!(line.notices.iter().any(|notice| notice.kind == "call_spirals"));
}

fn three_phones(config: Config) -> (Line, [SocketAddr; 3]) {
    Line::joined(config, THREE)
}

/// Alice's dialog with us, as she knows it.
fn dialog_of_alice(line: &Line, alice: SocketAddr) -> String {
    let answer = line
        .sent
        .iter()
        .rfind(|sent| {
            sent.0 == alice && sent.1.status() == Some(200) && sent.1.cseq().unwrap().method == Method::INVITE
        })
        .map(|sent| &sent.1)
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{};to-tag={};from-tag={}",
        text(answer.call_id().unwrap()),
        text(answer.to().unwrap().tag().unwrap()),
        text(answer.from().unwrap().tag().unwrap())
    )
}

#[test]
fn a_third_user_with_the_ids_of_a_call_takes_it_over_only_where_the_realm_lets_it() {
    for (pickup, domains, taken) in [
        (Pickup::Domain, vec![DOMAIN], true),
        (Pickup::Subscribed, vec![DOMAIN], false),
        (Pickup::Own, vec![DOMAIN], false),
    ] {
        let mut config = config();
        config.realms[0].pickup = pickup;
        config.realms[0].domains = domains.into_iter().map(Into::into).collect();
        let (mut line, [alice, bob, carol]) = three_phones(config);
        line.call(alice, "bob", &[]);
        line.accept(bob);
        let replaces = dialog_of_alice(&line, alice);
        let call = line.call(carol, "bob", &[("Replaces", &replaces)]);
        let refused = line.ending(carol, call) == Some(Ending::Refused(403));
        assert_eq!(refused, !taken, "{pickup:?}");
        // Alice may always replace her own.
        let own = line.call(alice, "bob", &[("Replaces", &replaces)]);
        assert_ne!(line.ending(alice, own), Some(Ending::Refused(403)), "{pickup:?}");
    }
}

#[test]
fn a_user_of_another_realm_does_not_take_over_a_call() {
    let mut config = config();
    config.realms[1].authentication = Authentication::Digest;
    config.realms[1].is_trunk_side = false;
    let (mut line, [alice, bob, _]) = three_phones(config);
    line.call(alice, "bob", &[]);
    line.accept(bob);
    let replaces = dialog_of_alice(&line, alice);
    let mallory = line.add("mallory", "198.51.100.66:5060", CORE, Abilities::default());
    let call = line.call(mallory, "bob", &[("Replaces", &replaces)]);
    assert_eq!(line.ending(mallory, call), Some(Ending::Refused(403)));
}

#[test]
fn a_call_lasts_no_longer_than_it_may() {
    let mut config = config();
    config.limits = Limits { longest_call: Duration::from_secs(3600), ..Limits::default() };
    let (mut line, [alice, bob, _]) = three_phones(config);
    let call = line.call(alice, "bob", &[]);
    let incoming = line.accept(bob);
    line.pass(Duration::from_secs(3590));
    assert_eq!(line.cause(), None);
    line.pass(Duration::from_secs(60));
    assert_eq!(line.cause(), Some(EndCause::TooLong));
    assert_eq!(
        (line.ending(alice, call), line.ending(bob, incoming)),
        (Some(Ending::Bye), Some(Ending::Bye))
    );
    line.pass(Duration::from_secs(60));
    assert!(line.engine.is_idle());
}

#[test]
fn a_subscription_or_publication_must_last_a_minute() {
    let trunks = vec![trunk("other", "203.0.113.10", None)];
    let mut line = Line::new(config(), policy(trunks));
    let from = address(TRUNK);
    for (number, method, expires, refused) in [
        (1, "SUBSCRIBE", 1, true),
        (2, "SUBSCRIBE", 60, false),
        (3, "SUBSCRIBE", 0, false),
        (4, "PUBLISH", 59, true),
    ] {
        let request = invite_of_trunk(number, 70, &format!("Event: dialog\r\nExpires: {expires}\r\n"))
            .replace("INVITE", method);
        line.sent.clear();
        line.hear_at(CORE, from, request.into());
        let answer = line.sent.iter().find(|sent| sent.0 == from && sent.1.status() == Some(423));
        assert_eq!(answer.is_some(), refused, "{method} {expires}");
        if let Some((_, answer)) = answer {
            assert_eq!(answer.value(Name::MinExpires), Some(b"60".as_slice()));
        }
    }
}
