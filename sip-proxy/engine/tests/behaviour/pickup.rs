//! Calls that are picked up by who was told of them (RFC 4235, RFC 3891).

use sip_engine::config::Pickup;
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Message, Method, Name};

use crate::by_hand::asked;
use crate::line::{ACCESS, DOMAIN, Line, address, config, policy, sbc, trunk};

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The value of an attribute in an event's text.
fn attribute(event: &str, name: &str) -> String {
    let (_, rest) = event.split_once(&format!(" {name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

fn last_to<'l>(line: &'l Line, at: &str, method: Method<'_>) -> Option<&'l Message> {
    let (at, of) = (address(at), Some(method));
    line.sent.iter().rfind(|(to, sent)| *to == at && sent.method() == of).map(|(_, sent)| sent)
}

const GATEWAY: &str = "198.51.100.9:5060";
const BOB: &str = "10.0.0.6:5060";

/// Bob talks with the carrier, and alice, who is subscribed to his dialogs, has been told so: the event as she got it.
fn told_of_bobs_call(pickup: Pickup) -> (Line, String) {
    let mut config = config();
    config.realms[0].pickup = pickup;
    let mut line = Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let [alice, bob] = [("alice", "10.0.0.5:5060"), ("bob", BOB)]
        .map(|(user, at)| line.add(user, at, ACCESS, Abilities::default()));
    [alice, bob].into_iter().for_each(|phone| line.register(phone));
    line.call(bob, "4930", &[]);
    let contact = format!("Contact: <sip:{GATEWAY}>\r\n");
    line.answer_by_hand_with(
        address(GATEWAY),
        200,
        &format!("{contact}Content-Type: application/sdp\r\n"),
        &crate::line::SDP,
    );
    let answer = line.sent.iter().rfind(|(to, sent)| *to == bob && sent.status() == Some(200)).unwrap();
    let (call_id, to, from) =
        (text(answer.1.call_id().ok()), answer.1.to().unwrap(), answer.1.from().unwrap());
    let event = format!(
        "<dialog-info><dialog id=\"1\" call-id=\"{call_id}\" local-tag=\"{}\" remote-tag=\"{}\"/></dialog-info>",
        text(from.tag()),
        text(to.tag())
    );
    // From here on bob's phone speaks by hand.
    line.agents.remove(&bob);
    line.ask(
        alice,
        &asked(Method::SUBSCRIBE, &format!("sip:bob@{DOMAIN}"), "Event: dialog\r\nExpires: 600\r\n", b""),
    );
    let subscribe = last_to(&line, BOB, Method::SUBSCRIBE).expect("bob's phone is asked");
    let (from, to) = (text(subscribe.value(Name::From)), text(subscribe.value(Name::To)));
    let notify = format!(
        "NOTIFY sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {bob};branch=z9hG4bK-n\r\nMax-Forwards: 70\r\nFrom: {to};tag=replied\r\n\
         To: {from}\r\nCall-ID: {}\r\nCSeq: 1 NOTIFY\r\nContact: <sip:bob@{bob}>\r\nEvent: dialog\r\n\
         Subscription-State: active;expires=600\r\nContent-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{event}",
        sbc(ACCESS),
        text(subscribe.call_id().ok()),
        event.len()
    );
    let head = format!("200 OK\r\nContact: <sip:bob@{bob}>\r\nExpires: 600\r\n");
    line.reply_at(ACCESS, bob, Method::SUBSCRIBE, (&head, ""));
    // Her own user agent knows of no subscription, and would end it.
    line.deaf.push(alice);
    line.hear(bob, notify.into());
    line.deaf.clear();
    let told = last_to(&line, "10.0.0.5:5060", Method::NOTIFY).expect("alice is told");
    let event = text(Some(told.body()));
    (line, event)
}

#[test]
fn an_event_names_a_call_as_the_end_knows_it_that_it_is_picked_up_from() {
    let (mut line, event) = told_of_bobs_call(Pickup::Subscribed);
    let alice = address("10.0.0.5:5060");
    let invite = last_to(&line, GATEWAY, Method::INVITE).unwrap();
    let ours = text(invite.from().unwrap().tag());
    let expected = format!("{};to-tag=by-hand;from-tag={ours}", text(invite.call_id().ok()));
    let replaces = format!(
        "{};to-tag={};from-tag={}",
        attribute(&event, "call-id"),
        attribute(&event, "remote-tag"),
        attribute(&event, "local-tag")
    );
    assert_eq!(replaces, expected);
    for early in ["", ";early-only"] {
        let call = line.call(alice, "4930", &[("Replaces", &format!("{replaces}{early}"))]);
        assert_eq!(line.ending(alice, call), None, "{:?}", line.notices);
        let invite = last_to(&line, GATEWAY, Method::INVITE).unwrap();
        assert_eq!(text(invite.value(Name::Replaces)), format!("{expected}{early}"));
    }
}

#[test]
fn the_ids_of_an_event_are_no_leave_to_pick_a_call_up() {
    let (mut line, event) = told_of_bobs_call(Pickup::Own);
    let alice = address("10.0.0.5:5060");
    let [call_id, remote, local] = ["call-id", "remote-tag", "local-tag"].map(|name| attribute(&event, name));
    for (to_tag, from_tag) in [(&remote, &local), (&local, &remote)] {
        let replaces = format!("{call_id};to-tag={to_tag};from-tag={from_tag}");
        let call = line.call(alice, "4930", &[("Replaces", &replaces)]);
        assert_eq!(line.ending(alice, call), Some(Ending::Refused(403)));
    }
}
