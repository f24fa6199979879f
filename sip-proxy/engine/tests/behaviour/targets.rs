//! Where the requests of a dialog go: to a trunk where it says, to a phone where it was proven to be.

use std::net::SocketAddr;
use std::sync::Arc;

use martian::{Own, Rules};
use play::settings::signalling::listener;
use sip_engine::io::{Flow, Transport};
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Message, Method, Name};

use crate::line::{ACCESS, CORE, DOMAIN, Line, SDP, address, config, policy, sbc, trunk};

const GATEWAY: &str = "198.51.100.9:5060";
/// Where the carrier listens that sends from its gateway.
const ELSEWHERE: &str = "198.51.100.10:5070";

/// A phone, and a trunk whose realm speaks TCP too.
fn with_trunk() -> (Line, SocketAddr, SocketAddr) {
    let mut config = config();
    config.listeners.push(listener(1, Transport::Tcp, sbc(CORE)));
    let mut line = Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    (line, alice, address(GATEWAY))
}

/// The phone has called the trunk.
fn calling() -> (Line, SocketAddr, SocketAddr) {
    let (mut line, alice, gateway) = with_trunk();
    let carrier = line.add("4930", GATEWAY, CORE, Abilities::default());
    line.call(alice, "4930", &[]);
    line.accept(carrier);
    (line, alice, gateway)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The trunk calls the phone; `headers` hold its Contact.
fn invite(line: &mut Line, from: SocketAddr, headers: &str) {
    let invite = format!(
        "INVITE sip:alice@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-i\r\nMax-Forwards: 70\r\nFrom: <sip:4930@{DOMAIN}>;tag=theirs\r\n\
         To: <sip:alice@{DOMAIN}>\r\nCall-ID: by-hand\r\nCSeq: 1 INVITE\r\n{headers}Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{}",
        SDP.len(),
        text(&SDP)
    );
    line.hear_at(CORE, from, invite.into());
}

/// A request of the trunk in the dialog that its INVITE has made.
fn in_dialog(line: &mut Line, from: SocketAddr, method: &str, cseq: u32, headers: &str, body: &str) {
    let to = line.sent.iter().rfind(|(_, message)| {
        message.status() == Some(200) && message.call_id() == Ok(b"by-hand".as_slice())
    });
    let to = text(to.expect("a 200").1.value(Name::To).unwrap());
    let request = format!(
        "{method} sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-{method}{cseq}\r\nMax-Forwards: 70\r\nFrom: <sip:4930@{DOMAIN}>;tag=theirs\r\n\
         To: {to}\r\nCall-ID: by-hand\r\nCSeq: {cseq} {method}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        sbc(CORE),
        body.len()
    );
    line.hear_at(CORE, from, request.into());
}

/// Where the last request of this method went.
fn way_of(line: &Line, method: Method<'_>) -> Option<Flow> {
    let is_it = |message: &Message| message.method() == Some(method);
    let at = line.sent.iter().rposition(|(_, message)| is_it(message))?;
    line.ways.get(at).copied()
}

fn hang_up(line: &mut Line, phone: SocketAddr) {
    let call = line.incoming(phone).unwrap().0;
    line.hang_up(phone, call);
}

/// The trunk's call is answered and acknowledged.
fn called_from(contact: &str) -> (Line, SocketAddr, SocketAddr) {
    let (mut line, alice, gateway) = with_trunk();
    invite(&mut line, gateway, contact);
    line.accept(alice);
    in_dialog(&mut line, gateway, "ACK", 1, "", "");
    (line, alice, gateway)
}

#[test]
fn a_carrier_is_told_of_the_end_where_its_contact_says() {
    let (mut line, alice, _) = called_from(&format!("Contact: <sip:4930@{ELSEWHERE}>\r\n"));
    hang_up(&mut line, alice);
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, address(ELSEWHERE));
}

#[test]
fn a_carrier_is_told_of_the_end_through_the_proxy_that_recorded_itself() {
    let proxy = "198.51.100.77:5062";
    let (mut line, alice, _) =
        called_from(&format!("Record-Route: <sip:{proxy};lr>\r\nContact: <sip:4930@{ELSEWHERE}>\r\n"));
    hang_up(&mut line, alice);
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, address(proxy));
}

#[test]
fn what_a_carrier_sends_from_its_gateway_moves_nothing_and_its_new_contact_does() {
    let (mut line, alice, gateway) = called_from(&format!("Contact: <sip:4930@{ELSEWHERE}>\r\n"));
    in_dialog(&mut line, gateway, "INFO", 2, "", "");
    let new = "198.51.100.11:5080";
    let again = format!("Contact: <sip:4930@{new}>\r\nContent-Type: application/sdp\r\n");
    let offer = text(&SDP);
    in_dialog(&mut line, gateway, "INVITE", 3, &again, &offer);
    in_dialog(&mut line, gateway, "ACK", 3, "", "");
    hang_up(&mut line, alice);
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, address(new));
    let bye = line.sent.iter().rfind(|(_, message)| message.method() == Some(Method::BYE)).unwrap();
    assert_eq!(text(bye.1.request_uri().unwrap()), format!("sip:4930@{new}"));
}

#[test]
fn a_contact_that_names_a_stream_is_reached_by_a_stream() {
    let (mut line, alice, gateway) = with_trunk();
    line.call(alice, "4930", &[]);
    let contact = format!("Contact: <sip:gw@{ELSEWHERE};transport=tcp>\r\nContent-Type: application/sdp\r\n");
    line.answer_by_hand_with(gateway, 200, &contact, &SDP);
    let ack = way_of(&line, Method::ACK).expect("an ACK");
    assert_eq!((ack.transport, ack.remote), (Transport::Tcp, address(ELSEWHERE)));
    let sent = line.sent.iter().rfind(|(_, message)| message.method() == Some(Method::ACK)).unwrap();
    assert!(sent.1.value(Name::Via).unwrap().starts_with(b"SIP/2.0/TCP"));
}

#[test]
fn a_contact_that_nobody_is_sent_to_is_refused_in_a_request_and_not_followed_in_a_response() {
    for unfit in ["224.0.1.75", "255.255.255.255", "169.254.1.1", "127.0.0.1"] {
        let (mut line, alice, gateway) = with_trunk();
        invite(&mut line, gateway, &format!("Contact: <sip:4930@{unfit}>\r\n"));
        let last = line.sent.iter().rfind(|(to, _)| *to == gateway).unwrap().1.status();
        assert_eq!(last, Some(488), "{unfit}");
        line.call(alice, "4930", &[]);
        let contact = format!("Contact: <sip:gw@{unfit}>\r\nContent-Type: application/sdp\r\n");
        line.answer_by_hand_with(gateway, 200, &contact, &SDP);
        assert_eq!(way_of(&line, Method::ACK).unwrap().remote, gateway, "{unfit}");
    }
}

#[test]
fn a_request_of_ours_that_a_proxy_sends_back_to_us_rings_and_one_that_only_names_us_does_not() {
    for (call_id, rings) in [(None, true), (Some("somebody-elses"), false)] {
        let mut config = config();
        let mut own = Own::default();
        own.listener(sbc(CORE));
        config.addresses = Arc::new(Rules::new(own, Vec::new()));
        let mut line = Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]));
        let alice = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
        let bob = line.add("bob", "10.0.0.6:5060", ACCESS, Abilities::default());
        line.register(alice);
        line.register(bob);
        line.call(alice, "4930", &[]);
        let gateway = address(GATEWAY);
        let sent = line
            .sent
            .iter()
            .rfind(|(to, message)| *to == gateway && message.method() == Some(Method::INVITE));
        let invite = &sent.expect("an INVITE").1;
        let ours = text(invite.call_id().unwrap());
        let uri = text(invite.request_uri().unwrap());
        let again = text(invite.as_bytes())
            .replacen(&uri, &format!("sip:bob@{DOMAIN}"), 1)
            .replacen("Via:", &format!("Via: SIP/2.0/UDP {gateway};branch=z9hG4bK-back\r\nVia:"), 1)
            .replace(&ours, call_id.unwrap_or(&ours));
        line.hear_at(CORE, gateway, again.into());
        assert_eq!(line.incoming(bob).is_some(), rings, "{call_id:?}");
    }
}

#[test]
fn whoever_takes_a_call_without_contact_or_tag_is_in_a_call_and_hears_of_its_end() {
    for (tag, headers) in [(";tag=x", ""), ("", "Contact: <sip:gw@198.51.100.9>\r\n"), ("", "")] {
        let (mut line, alice, gateway) = with_trunk();
        let call = line.call(alice, "4930", &[]);
        let headers = format!("{headers}Content-Type: application/sdp\r\n");
        line.answer_by_hand_in_full(gateway, 200, tag, &headers, &SDP);
        assert_eq!(way_of(&line, Method::ACK).unwrap().remote, gateway);
        assert_eq!(line.ending(alice, call), None);
        line.hang_up(alice, call);
        assert_eq!(way_of(&line, Method::BYE).unwrap().remote, gateway);
    }
}

#[test]
fn a_description_in_a_response_without_a_tag_reaches_the_caller_and_the_tag_may_come_later() {
    let (mut line, alice, gateway) = with_trunk();
    let call = line.call(alice, "4930", &[]);
    line.answer_by_hand_in_full(gateway, 183, "", "Content-Type: application/sdp\r\n", &SDP);
    let told = |line: &Line, status| {
        let is_it = |(to, message): &&(SocketAddr, Message)| *to == alice && message.status() == Some(status);
        line.sent
            .iter()
            .rfind(is_it)
            .map(|(_, message)| (text(message.value(Name::To).unwrap()), text(message.body())))
    };
    let early = told(&line, 183).expect("a 183");
    assert!(early.1.contains("m=audio"));
    let headers = "Contact: <sip:gw@198.51.100.9>\r\nContent-Type: application/sdp\r\n";
    line.answer_by_hand_in_full(gateway, 200, ";tag=late", headers, &SDP);
    assert_eq!(told(&line, 200).expect("a 200").0, early.0, "it is one dialog for the caller");
    assert_eq!(line.ending(alice, call), None::<Ending>);
}

#[test]
fn a_callee_that_was_left_ringing_by_a_crash_is_told_that_nobody_is_there() {
    let (mut line, alice, gateway) = with_trunk();
    line.call(alice, "4930", &[]);
    let mut restarted = with_trunk().0;
    restarted.sent = std::mem::take(&mut line.sent);
    restarted.answer_by_hand(gateway, 200, "Contact: <sip:gw@203.0.113.200>\r\n");
    let after: Vec<_> =
        restarted.sent.iter().rev().take(2).map(|(to, message)| (*to, message.method())).collect();
    assert_eq!(after, [(gateway, Some(Method::BYE)), (gateway, Some(Method::ACK))]);
    // Somebody else's call is not ours to end.
    let before = restarted.sent.len();
    let stray = format!(
        "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP {};branch=z9hG4bK-s\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:c@d>;tag=2\r\nCall-ID: not-ours\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
        sbc(CORE)
    );
    restarted.hear_at(CORE, gateway, stray.into());
    assert_eq!(restarted.sent.len(), before);
}

/// A request in the phone's dialog, from another address.
fn from_elsewhere(line: &mut Line, alice: SocketAddr, seen: SocketAddr, method: &str) -> Option<u16> {
    let last =
        line.heard.iter().rfind(|(from, message)| *from == alice && message.method() == Some(Method::ACK));
    let ack = &last.expect("an ACK").1;
    let header = |name: Name| text(ack.value(name).unwrap_or_default());
    let request = format!(
        "{method} {} SIP/2.0\r\nVia: SIP/2.0/UDP {seen};branch=z9hG4bK-e{method}\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\nCall-ID: {}\r\n\
         CSeq: 77 {method}\r\nContact: <sip:alice@{seen}>\r\nContent-Length: 0\r\n\r\n",
        text(ack.request_uri().unwrap()),
        header(Name::From),
        header(Name::To),
        header(Name::CallId)
    );
    line.hear_at(ACCESS, seen, request.into());
    line.sent
        .iter()
        .rfind(|(to, message)| *to == seen && message.status().is_some())
        .and_then(|(_, message)| message.status())
}

#[test]
fn a_stranger_with_the_right_ids_moves_no_phone_and_a_registration_does() {
    let (mut line, alice, gateway) = calling();
    let stranger = address("203.0.113.66:5060");
    assert_eq!(from_elsewhere(&mut line, alice, stranger, "INFO"), Some(407));
    hang_up(&mut line, gateway);
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, alice);

    let (mut line, alice, gateway) = calling();
    let again = line.join("alice", "10.0.0.55:5060");
    assert_ne!(from_elsewhere(&mut line, alice, again, "INFO"), Some(407));
    hang_up(&mut line, gateway);
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, again);
}

#[test]
fn a_call_can_be_ended_from_wherever_its_phone_is() {
    let (mut line, alice, _) = with_trunk();
    let carrier = line.add("4930", GATEWAY, CORE, Abilities::default());
    line.call(alice, "4930", &[]);
    line.accept(carrier);
    assert_eq!(from_elsewhere(&mut line, alice, address("203.0.113.66:5060"), "BYE"), Some(200));
    assert_eq!(way_of(&line, Method::BYE).unwrap().remote, carrier);
}
