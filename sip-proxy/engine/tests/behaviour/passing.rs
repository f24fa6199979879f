//! What a message says besides its offer reaches the other side as that side can read it.

use std::net::SocketAddr;
use std::sync::Arc;

use play::settings::signalling::{listener, realm};
use sip_engine::config::Realm;
use sip_engine::digest;
use sip_engine::ids::Ids;
use sip_engine::io::{ListenerId, RealmId, Transport};
use sip_engine::question::TrunkTarget;
use sip_engine::ua::{CallNumber, Event};
use sip_wire::{Message, Method, Name};

use crate::by_hand::asked;
use crate::line::{ACCESS, CORE, DOMAIN, Line, PASSWORD, SDP, address, config, policy, sbc, trunk};

const GATEWAY: &str = "198.51.100.9:5060";

fn line() -> (Line, SocketAddr) {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    (line, alice)
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// Alice talks with a gateway that speaks by hand.
fn talking() -> (Line, SocketAddr, CallNumber) {
    let (mut line, alice) = line();
    let call = line.call(alice, "4930", &[]);
    let headers =
        format!("Contact: <sip:{GATEWAY}>\r\nAllow: INVITE, UPDATE\r\nContent-Type: application/sdp\r\n");
    line.answer_by_hand_with(address(GATEWAY), 200, &headers, &SDP);
    (line, alice, call)
}

fn last_to<'l>(line: &'l Line, at: SocketAddr, method: Method<'_>) -> &'l Message {
    let found = line.sent.iter().rfind(|(to, sent)| *to == at && sent.method() == Some(method));
    &found.expect("a request").1
}

/// The gateway says something in its call.
fn says(line: &mut Line, method: &str, headers: &str) {
    let invite = last_to(line, address(GATEWAY), Method::INVITE);
    let request = format!(
        "{method} sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {GATEWAY};branch=z9hG4bK-{method}\r\nMax-Forwards: 70\r\n\
         From: {};tag=by-hand\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: 1 {method}\r\nContact: <sip:{GATEWAY}>\r\n{headers}\
         Content-Length: 0\r\n\r\n",
        sbc(CORE),
        text(invite.value(Name::To)),
        text(invite.value(Name::From)),
        text(invite.call_id().ok()),
    );
    line.hear_at(CORE, address(GATEWAY), request.into());
}

/// RFC 3326 §2: one for each protocol.
#[test]
fn a_goodbye_gives_all_its_reasons() {
    let (mut line, alice, _) = talking();
    says(&mut line, "BYE", "Reason: SIP;cause=200;text=\"done\"\r\nReason: Q.850;cause=16\r\n");
    let reasons: Vec<_> =
        last_to(&line, alice, Method::BYE).values(Name::Reason).map(|reason| text(Some(reason))).collect();
    assert_eq!(reasons, ["SIP;cause=200;text=\"done\"", "Q.850;cause=16"]);
}

/// RFC 6665 §8.4.
#[test]
fn a_state_with_a_broken_parameter_is_told_as_it_can_be_read() {
    let (mut line, alice, _) = talking();
    says(&mut line, "NOTIFY", "Event: refer\r\nSubscription-State: terminated;reason=reason=noresource\r\n");
    let state = last_to(&line, alice, Method::NOTIFY).value(Name::SubscriptionState);
    assert_eq!(text(state), "terminated;reason=noresource");
}

/// RFC 3261 §19.1.1, RFC 4694.
#[test]
fn a_number_keeps_that_it_is_one_and_where_it_was_ported_to() {
    let (mut line, alice) = line();
    let policy = format!("sip:4930;npdi;rn=4940@{DOMAIN};user=phone");
    line.ask(alice, &asked(Method::INVITE, &policy, "", b""));
    let invite = last_to(&line, address(GATEWAY), Method::INVITE);
    assert_eq!(text(invite.request_uri()), "sip:4930;npdi;rn=4940@198.51.100.9;user=phone");
    assert!(text(invite.value(Name::To)).contains(";user=phone>"));
}

/// RFC 4235 §4.1.1.
#[test]
fn an_event_names_a_dialog_as_its_reader_knows_it() {
    let (mut line, alice, _) = talking();
    let own = line.sent.iter().rfind(|(to, sent)| *to == alice && sent.status() == Some(200)).unwrap();
    let tag = |message: &Message| {
        (text(message.to().unwrap().tag()), text(message.from().unwrap().tag()), text(message.call_id().ok()))
    };
    let (ours, hers, call_id) = tag(&own.1);
    let event = format!("dialog;call-id=\"{call_id}\";to-tag={ours};from-tag={hers}");
    let there = tag(last_to(&line, address(GATEWAY), Method::INVITE));
    let headers = format!("Event: {event}\r\nExpires: 600\r\n");
    line.ask(alice, &asked(Method::SUBSCRIBE, &format!("sip:4930@{DOMAIN}"), &headers, b""));
    let subscribe = last_to(&line, address(GATEWAY), Method::SUBSCRIBE);
    assert_eq!(
        text(subscribe.value(Name::Event)),
        format!("dialog;call-id=\"{}\";to-tag=by-hand;from-tag={}", there.2, there.1)
    );
}

/// Bob's phone registers one of its two flows (RFC 5626 §4.2.1).
fn registers(line: &mut Line, from: &str, flow: u32) {
    let (bob, mut credentials) = (address(from), String::new());
    for cseq in 1..=2 {
        let register = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKf{flow}{cseq}\r\nFrom: <sip:bob@{DOMAIN}>;tag=t\r\n\
             To: <sip:bob@{DOMAIN}>\r\nCall-ID: flow{flow}\r\nCSeq: {cseq} REGISTER\r\nMax-Forwards: 70\r\nExpires: 600\r\n\
             Supported: path, outbound\r\n\
             Contact: <sip:bob@{from}>;reg-id={flow};+sip.instance=\"<urn:uuid:00000000-0000-1000-8000-000a95a0e128>\"\r\n\
             {credentials}Content-Length: 0\r\n\r\n"
        );
        line.hear(bob, register.into());
        let mut ids = Ids::new([flow as u8; 32], 9);
        let (uri, answer) =
            (format!("sip:{DOMAIN}"), &line.sent.iter().rfind(|(to, _)| *to == bob).unwrap().1);
        if let Some((name, value)) = digest::answer(
            answer,
            Method::REGISTER,
            uri.as_bytes(),
            digest::Login { username: "bob", password: PASSWORD },
            &mut ids,
        ) {
            credentials = format!("{}: {value}\r\n", name.as_str());
        }
    }
    let answer = &line.sent.iter().rfind(|(to, _)| *to == bob).unwrap().1;
    assert_eq!(answer.status(), Some(200));
    assert!(answer.has_token(Name::Require, "outbound"));
}

/// RFC 5626 §7.
#[test]
fn a_phone_with_two_flows_rings_once_and_over_the_other_when_one_is_dead() {
    let (mut line, alice) = line();
    let flows = ["10.0.0.6:5060", "10.0.0.6:5062"];
    (1..).zip(flows).for_each(|(number, flow)| registers(&mut line, flow, number));
    line.call(alice, "bob", &[]);
    let rung = |line: &Line| -> Vec<SocketAddr> {
        let invites = line.sent.iter().filter(|(_, sent)| sent.method() == Some(Method::INVITE));
        invites.map(|(to, _)| *to).collect()
    };
    let [first] = *rung(&line) else { panic!("{:?}", rung(&line)) };
    line.answer_by_hand_from(ACCESS, first, 430, "");
    let both = rung(&line);
    assert_eq!(both.len(), 2);
    assert!(flows.iter().all(|flow| both.contains(&address(flow))), "{both:?}");
}

const BROKEN: &str = "Content-Type: multipart/mixed;boundary=b\r\n";

/// RFC 3261 §21.5.3.
#[test]
fn what_comes_with_a_success_and_cannot_be_passed_makes_it_a_failure_in_a_call_too() {
    for method in [Method::INVITE, Method::UPDATE, Method::INFO] {
        let (mut line, alice, call) = talking();
        let now = line.time();
        let fork = line.events.iter().find_map(|(_, event)| match event {
            Event::Answered { fork, .. } => Some(*fork),
            _ => None,
        });
        let agent = line.agents.get_mut(&alice).unwrap();
        match method {
            Method::INVITE => agent.reinvite(call, Some(SDP), now).unwrap(),
            Method::UPDATE => agent.update(call, fork.unwrap(), Some(SDP), now).unwrap(),
            _ => agent.info(call, b"text/plain", "a=x".into(), now).unwrap(),
        }
        line.settle();
        let head = format!("200 OK\r\nContact: <sip:{GATEWAY}>\r\n{BROKEN}");
        line.reply(address(GATEWAY), method, &head, "no part of it begins");
        let status = line.events.iter().find_map(|(at, event)| match event {
            Event::Refused { status, .. } | Event::Done { status, .. } if *at == alice => Some(*status),
            _ => None,
        });
        // Of an offer's answer that cannot be found the media says so first.
        let expected: &[u16] = if method == Method::INFO { &[502] } else { &[502, 488] };
        assert!(status.is_some_and(|status| expected.contains(&status)), "{method:?}: {status:?}");
    }
    let (mut line, alice) = line();
    let to = format!("sip:4930@{DOMAIN}");
    line.ask(alice, &asked(Method::SUBSCRIBE, &to, "Event: presence\r\nExpires: 600\r\n", b""));
    let head = format!("200 OK\r\nContact: <sip:{GATEWAY}>\r\nExpires: 600\r\n{BROKEN}");
    line.reply(address(GATEWAY), Method::SUBSCRIBE, &head, "no part of it begins");
    let told = line.sent.iter().rfind(|(to, sent)| *to == alice && sent.status().is_some()).unwrap();
    assert_eq!(told.1.status(), Some(502));
}

/// What passes of a refusal is what the realm of its author may say, whoever was asked after him.
#[test]
fn a_refusal_says_what_its_own_realm_may_say() {
    const CHARGE: &str = "P-Charge-Info: <sip:4930@carrier.example>\r\n";
    let distant = ListenerId(2);
    let (trusted, other) = (trunk("carrier", "198.51.100.9", None), trunk("distant", "203.0.113.9", None));
    let other = Arc::new(TrunkTarget { realm: RealmId(2), ..TrunkTarget::clone(&other) });
    for (trunks, passes) in [([&other, &trusted], false), ([&trusted, &other], true)] {
        let mut config = config();
        config.realms.push(Realm { is_trunk_side: true, ..realm(2, "distant") });
        config.listeners.push(listener(2, Transport::Udp, address("203.0.113.1:5060")));
        let mut line = Line::new(config, policy(trunks.map(Arc::clone).into()));
        let alice = line.join("alice", "10.0.0.5:5060");
        line.call(alice, "4930", &[]);
        for (trunk, status) in trunks.into_iter().zip([480, 503]) {
            let side = if trunk.realm == RealmId(2) { distant } else { CORE };
            let at = SocketAddr::new(trunk.host.parse().unwrap(), 5060);
            line.answer_by_hand_from(side, at, status, if status == 480 { CHARGE } else { "" });
        }
        let (_, refusal) = line.sent.iter().rfind(|(to, _)| *to == alice).unwrap();
        let charged = refusal.lines().any(|line| line.text.eq_ignore_ascii_case(b"P-Charge-Info"));
        assert_eq!((refusal.status(), charged), (Some(480), passes));
    }
}
