//! Targets that send elsewhere, loops, and what a transfer is told by.

use std::net::SocketAddr;

use sip_engine::event::{CallChange, CallEventKind, EndCause};
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Method, Name};

use crate::line::{ACCESS, CORE, DOMAIN, Line, address, config, policy, sbc, trunk};

fn with_trunk() -> (Line, SocketAddr, SocketAddr) {
    let mut config = config();
    // Its own calls may come back to it, so that what makes a loop of them is seen.
    config.realms[1].hairpin = sip_engine::config::Hairpin::All;
    let mut line = Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    (line, alice, address("198.51.100.9:5060"))
}

/// The trunk has sent alice's call on to a phone of ours.
fn sent_on_to_bob() -> (Line, SocketAddr) {
    let (mut line, alice, gateway) = with_trunk();
    let bob = line.join("bob", "10.0.0.6:5060");
    line.call(alice, "4930", &[]);
    line.answer_by_hand(gateway, 302, &format!("Contact: <sip:bob@{DOMAIN}>\r\n"));
    (line, bob)
}

#[test]
fn a_redirection_to_one_of_ours_is_followed_and_one_to_a_stranger_is_not() {
    let (line, bob) = sent_on_to_bob();
    assert!(line.incoming(bob).is_some());
    let (mut line, alice, gateway) = with_trunk();
    let call = line.call(alice, "4930", &[]);
    line.answer_by_hand(gateway, 302, "Contact: <sip:nobody@elsewhere.example>\r\n");
    assert!(line.ending(alice, call).is_some());
    let shown = line.sent.iter().filter(|(to, _)| *to == alice);
    assert!(
        shown.into_iter().all(|(_, message)| !message.as_bytes().windows(9).any(|text| text == b"elsewhere"))
    );
}

/// Who answered, and by which URI, as the records tell.
fn reached(line: &Line) -> Vec<(String, String)> {
    let answers = line.records.iter().filter_map(|record| match &record.what {
        CallEventKind::Answered { reached, uri, .. } => Some((reached.to_string(), uri.to_string())),
        _ => None,
    });
    answers.collect()
}

#[test]
fn the_record_names_who_answered_and_not_who_sent_the_call_on() {
    let (mut line, bob) = sent_on_to_bob();
    line.accept(bob);
    let [(who, uri)] = &*reached(&line) else { panic!("{:?}", reached(&line)) };
    assert_eq!(who, &format!("bob@{DOMAIN}"));
    assert!(uri.starts_with("sip:bob@10.0.0.6"), "{uri}");
    // A trunk is named by the number that it was sent.
    let (mut line, alice, _) = with_trunk();
    let carrier = line.add("4930", "198.51.100.9:5060", CORE, Abilities::default());
    line.call(alice, "4930", &[]);
    line.accept(carrier);
    let [(who, uri)] = &*reached(&line) else { panic!("{:?}", reached(&line)) };
    assert_eq!((who.as_str(), who), ("sip:4930@198.51.100.9", uri));
}

#[test]
fn a_subscriber_without_a_phone_did_not_ring() {
    let (mut line, alice, _) = with_trunk();
    line.call(alice, "bob", &[]);
    assert_eq!(line.cause(), Some(EndCause::NotRegistered));
}

#[test]
fn who_dials_himself_rings_his_other_phones_and_is_busy_without_any() {
    let (mut line, alice, _) = with_trunk();
    let call = line.call(alice, "alice", &[]);
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(486)));
    assert_eq!(line.cause(), Some(EndCause::OwnPhone));
    let asked =
        line.sent.iter().filter(|(to, message)| *to == alice && message.method() == Some(Method::INVITE));
    assert_eq!(asked.count(), 0, "it does not ring itself");

    let desk = line.join("alice", "10.0.0.7:5060");
    line.call(alice, "alice", &[]);
    line.accept(desk);
    assert_eq!(reached(&line).len(), 1);
    let asked =
        line.sent.iter().filter(|(to, message)| *to == alice && message.method() == Some(Method::INVITE));
    assert_eq!(asked.count(), 0, "it does not ring itself");
}

#[test]
fn a_request_that_comes_back_for_the_same_target_is_a_loop_and_for_another_is_not() {
    for (user, status) in [("4930", Some(482)), ("4931", None)] {
        let (mut line, alice, gateway) = with_trunk();
        line.call(alice, "4930", &[]);
        let (_, went) = line
            .sent
            .iter()
            .rfind(|(to, message)| *to == gateway && message.method() == Some(Method::INVITE))
            .unwrap();
        // The carrier's proxy sends it back to us, with its own Via above ours; another target if it means that.
        let mut back = went.edit();
        back.request_uri(format!("sip:{user}@{}", sbc(CORE)).as_bytes());
        back.prepend(Name::Via, b"SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK-back");
        let back = back.finish();
        line.hear_at(CORE, gateway, back);
        let refusals =
            line.sent.iter().filter(|(to, _)| *to == gateway).filter_map(|(_, message)| message.status());
        assert_eq!(refusals.filter(|status| *status >= 400).last(), status, "{user}");
    }
}

#[test]
fn a_fragment_that_names_its_own_side_passes_as_its_status_line() {
    let (mut line, alice, gateway) = with_trunk();
    let trunk_phone = line.add("4930", "198.51.100.9:5060", CORE, Abilities::default());
    let call = line.call(alice, "4930", &[]);
    line.accept(trunk_phone);
    let ok =
        line.heard.iter().rfind(|(from, message)| *from == gateway && message.status() == Some(200)).unwrap();
    let (from, to, call_id) =
        (ok.1.value(Name::To).unwrap(), ok.1.value(Name::From).unwrap(), ok.1.call_id().unwrap());
    let text = String::from_utf8_lossy;
    let body = "SIP/2.0 180 Ringing\r\nContact: <sip:198.51.100.9>\r\n\r\n";
    let notify = format!(
        "NOTIFY sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {gateway};branch=z9hG4bK-n\r\nMax-Forwards: 70\r\nFrom: {}\r\nTo: {}\r\n\
         Call-ID: {}\r\nCSeq: 1 NOTIFY\r\nContact: <sip:{gateway}>\r\nEvent: refer\r\n\
         Subscription-State: active;expires=60\r\nContent-Type: message/sipfrag;version=2.0\r\nContent-Length: {}\r\n\r\n{body}",
        sbc(CORE),
        text(from),
        text(to),
        text(call_id),
        body.len(),
    );
    line.hear_at(CORE, gateway, notify.into());
    let told = line
        .sent
        .iter()
        .rfind(|(to, message)| *to == alice && message.method() == Some(Method::NOTIFY))
        .unwrap();
    assert_eq!(told.1.body(), b"SIP/2.0 180 Ringing\r\n");
    assert_eq!(line.ending(alice, call), None::<Ending>);
}

/// Phones of three subscribers, and a carrier that answers by hand.
fn with_phones() -> (Line, SocketAddr, SocketAddr, SocketAddr) {
    let (mut line, alice, gateway) = with_trunk();
    let bob = line.join("bob", "10.0.0.6:5060");
    (line, alice, bob, gateway)
}

fn dialled(line: &Line, at: SocketAddr) -> Vec<String> {
    let invites =
        line.sent.iter().filter(|(to, message)| *to == at && message.method() == Some(Method::INVITE));
    let mut all: Vec<_> = invites
        .map(|(_, message)| String::from_utf8_lossy(message.request_uri().unwrap()).into_owned())
        .collect();
    all.dedup();
    all
}

#[test]
fn a_phone_that_forwards_its_calls_is_who_calls_on() {
    let (mut line, alice, bob, gateway) = with_phones();
    line.call(alice, "bob", &[]);
    line.agents.remove(&bob);
    line.answer_by_hand_from(ACCESS, bob, 302, &format!("Contact: <sip:49555@{DOMAIN};user=phone>\r\n"));
    let invite =
        line.sent.iter().rfind(|(to, message)| *to == gateway && message.method() == Some(Method::INVITE));
    let invite = &invite.expect("the number is called").1;
    assert!(invite.value(Name::Diversion).unwrap().starts_with(b"<sip:bob@"));
    assert!(invite.value(Name::PAssertedIdentity).unwrap().starts_with(b"<sip:bob@"));
    let told = line.records.iter().any(|record| matches!(&record.what,
        CallEventKind::Changed(CallChange::Diverted { by, to }) if **by == *format!("bob@{DOMAIN}") && **to == *"49555"));
    assert!(told, "{:?}", line.records);
}

#[test]
fn the_next_target_is_told_who_sent_the_call_on_and_why() {
    for (rings, contact, reason, cause) in [
        (false, format!("<sip:49555@{DOMAIN}>"), "unconditional", 302),
        (true, format!("<sip:49555@{DOMAIN}>"), "no-answer", 408),
        (true, format!("<sip:49555@{DOMAIN};cause=486>"), "user-busy", 486),
    ] {
        let (mut line, alice, bob, gateway) = with_phones();
        line.agents.remove(&bob);
        line.call(alice, "bob", &[]);
        if rings {
            line.answer_by_hand_from(ACCESS, bob, 180, "");
        }
        line.answer_by_hand_from(ACCESS, bob, 302, &format!("Contact: {contact}\r\n"));
        let invite =
            line.sent.iter().rfind(|(to, sent)| *to == gateway && sent.method() == Some(Method::INVITE));
        let invite = &invite.expect("the number is called").1;
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let host = DOMAIN;
        assert_eq!(
            text(invite.value(Name::Diversion).unwrap()),
            format!("<sip:bob@{host}>;reason={reason};counter=1")
        );
        let history: Vec<_> = invite.values(Name::HistoryInfo).map(text).collect();
        assert_eq!(
            history,
            [format!("<sip:bob@{host}>;index=1"), format!("<sip:49555@{host};cause={cause}>;index=1.1;mp=1")]
        );
    }
}

#[test]
fn a_phone_cannot_send_a_call_to_a_host_of_its_choice() {
    let (mut line, alice, bob, gateway) = with_phones();
    let call = line.call(alice, "bob", &[]);
    line.agents.remove(&bob);
    line.answer_by_hand_from(
        ACCESS,
        bob,
        300,
        "Contact: <sip:49555@198.51.100.9:5060>\r\nContact: <mailto:bob@example.net>\r\n",
    );
    assert!(dialled(&line, gateway).is_empty());
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(480)));
}

#[test]
fn a_trunk_names_numbers_by_preference_and_none_of_them_twice() {
    let (mut line, alice, _, gateway) = with_phones();
    let call = line.call(alice, "4930", &[]);
    let contacts = "Contact: <sip:491@203.0.113.1>;q=0.5\r\nContact: <sip:492@203.0.113.2>, <sip:493@203.0.113.3>;q=0.7\r\n";
    line.answer_by_hand(gateway, 300, contacts);
    line.answer_by_hand(gateway, 503, "");
    line.answer_by_hand(gateway, 503, "");
    let users: Vec<_> = dialled(&line, gateway)
        .iter()
        .map(|uri| uri.split('@').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(users, ["sip:4930", "sip:492", "sip:493", "sip:491"]);
    line.answer_by_hand(
        gateway,
        302,
        &format!("Contact: <sip:493@{DOMAIN}>\r\nContact: <sip:4930@{DOMAIN}>\r\n"),
    );
    assert_eq!(dialled(&line, gateway).len(), 4);
    assert!(matches!(line.ending(alice, call), Some(Ending::Refused(_))));
}

#[test]
fn a_dialog_that_is_not_ours_is_not_replaced_by_a_new_call() {
    let (mut line, alice, _, gateway) = with_phones();
    let call =
        line.call(alice, "4930", &[("Replaces", "nobody;to-tag=1;from-tag=2"), ("Require", "replaces")]);
    assert!(dialled(&line, gateway).is_empty());
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(481)));
}

#[test]
fn what_is_dialled_for_tls_is_not_brought_by_less() {
    let (mut line, alice, bob, _) = with_phones();
    let call = line.call_uri(alice, &format!("sips:bob@{DOMAIN}"), &[]);
    assert!(dialled(&line, bob).is_empty());
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(480)));
}

#[test]
fn a_number_for_which_nobody_used_tls_goes_to_trunks_as_the_routes_say() {
    let (mut line, alice, _, gateway) = with_phones();
    line.call_uri(alice, &format!("sips:4930@{DOMAIN}"), &[]);
    assert!(dialled(&line, gateway)[0].starts_with("sip:4930@"), "{:?}", dialled(&line, gateway));
}
