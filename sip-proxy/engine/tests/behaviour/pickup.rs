//! Calls that are picked up by who was told of them (RFC 4235, RFC 3891).

use sip_engine::config::Pickup;
use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Message, Method, Name};

use crate::by_hand::asked;
use crate::line::{ACCESS, DOMAIN, Line, address, config, policy, sbc, trunk};

pub(crate) fn text(value: Option<&[u8]>) -> String {
    String::from_utf8_lossy(value.unwrap_or_default()).into_owned()
}

/// The value of an attribute in an event's text.
fn attribute(event: &str, name: &str) -> String {
    let (_, rest) = event.split_once(&format!(" {name}=\"")).unwrap();
    rest.split_once('"').unwrap().0.to_owned()
}

pub(crate) fn last_to<'l>(line: &'l Line, at: &str, method: Method<'_>) -> Option<&'l Message> {
    let (at, of) = (address(at), Some(method));
    line.sent.iter().rfind(|(to, sent)| *to == at && sent.method() == of).map(|(_, sent)| sent)
}

pub(crate) const GATEWAY: &str = "198.51.100.9:5060";
pub(crate) const ALICE: &str = "10.0.0.5:5060";
pub(crate) const BOB: &str = "10.0.0.6:5060";
/// What bob's phone says to a subscription, for ten minutes.
pub(crate) const SUBSCRIBED: &str = "200 OK\r\nContact: <sip:bob@10.0.0.6:5060>\r\nExpires: 600\r\n";

/// Bob's phone tells who has subscribed of his call, in such a state of the subscription: the event as alice gets it.
pub(crate) fn tells(line: &mut Line, cseq: u32, state: &str) -> String {
    let (alice, bob) = (address(ALICE), address(BOB));
    let first = |is_it: &dyn Fn(&Message) -> bool| {
        let found = line.sent.iter().find(|(to, sent)| *to == bob && is_it(sent));
        &found.expect("it was sent to bob").1
    };
    let is_invites = |sent: &Message| sent.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE);
    let answer = first(&|sent| sent.status() == Some(200) && is_invites(sent));
    let event = format!(
        "<dialog-info><dialog id=\"1\" call-id=\"{}\" local-tag=\"{}\" remote-tag=\"{}\"/></dialog-info>",
        text(answer.call_id().ok()),
        text(answer.from().unwrap().tag()),
        text(answer.to().unwrap().tag())
    );
    let subscribe = first(&|sent| sent.method() == Some(Method::SUBSCRIBE));
    let (from, to) = (text(subscribe.value(Name::From)), text(subscribe.value(Name::To)));
    let notify = format!(
        "NOTIFY sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {bob};branch=z9hG4bK-n{cseq}\r\nMax-Forwards: 70\r\nFrom: {to};tag=replied\r\n\
         To: {from}\r\nCall-ID: {}\r\nCSeq: {cseq} NOTIFY\r\nContact: <sip:bob@{bob}>\r\nEvent: dialog\r\n\
         Subscription-State: {state}\r\nContent-Type: application/dialog-info+xml\r\nContent-Length: {}\r\n\r\n{event}",
        sbc(ACCESS),
        text(subscribe.call_id().ok()),
        event.len()
    );
    // Her own user agent knows of no subscription, and would end it.
    line.deaf.push(alice);
    line.hear(bob, notify.into());
    line.deaf.clear();
    line.reply_at(ACCESS, alice, Method::NOTIFY, ("200 OK\r\n", ""));
    text(Some(last_to(line, ALICE, Method::NOTIFY).expect("alice is told").body()))
}

/// What names the call of an event to who wants to pick it up (RFC 3891).
pub(crate) fn replaces(event: &str) -> String {
    let [call_id, to, from] = ["call-id", "remote-tag", "local-tag"].map(|name| attribute(event, name));
    format!("{call_id};to-tag={to};from-tag={from}")
}

/// Bob talks with the carrier, and alice, who is subscribed to his dialogs, has been told so: the event as she got it.
pub(crate) fn told_of_bobs_call(pickup: Pickup) -> (Line, String) {
    let mut config = config();
    config.realms[0].pickup = pickup;
    let mut line = Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let [alice, bob] =
        [("alice", ALICE), ("bob", BOB)].map(|(user, at)| line.add(user, at, ACCESS, Abilities::default()));
    [alice, bob].into_iter().for_each(|phone| line.register(phone));
    line.call(bob, "4930", &[]);
    let contact = format!("Contact: <sip:{GATEWAY}>\r\n");
    line.answer_by_hand_with(
        address(GATEWAY),
        200,
        &format!("{contact}Content-Type: application/sdp\r\n"),
        &crate::line::SDP,
    );
    // From here on bob's phone speaks by hand.
    line.agents.remove(&bob);
    line.ask(
        alice,
        &asked(Method::SUBSCRIBE, &format!("sip:bob@{DOMAIN}"), "Event: dialog\r\nExpires: 600\r\n", b""),
    );
    line.reply_at(ACCESS, bob, Method::SUBSCRIBE, (SUBSCRIBED, ""));
    let event = tells(&mut line, 1, "active;expires=600");
    (line, event)
}

#[test]
fn an_event_names_a_call_as_the_end_knows_it_that_it_is_picked_up_from() {
    let (mut line, event) = told_of_bobs_call(Pickup::Subscribed);
    let alice = address(ALICE);
    let invite = last_to(&line, GATEWAY, Method::INVITE).unwrap();
    let ours = text(invite.from().unwrap().tag());
    let expected = format!("{};to-tag=by-hand;from-tag={ours}", text(invite.call_id().ok()));
    let replaces = replaces(&event);
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
    let alice = address(ALICE);
    let [call_id, remote, local] = ["call-id", "remote-tag", "local-tag"].map(|name| attribute(&event, name));
    for (to_tag, from_tag) in [(&remote, &local), (&local, &remote)] {
        let replaces = format!("{call_id};to-tag={to_tag};from-tag={from_tag}");
        let call = line.call(alice, "4930", &[("Replaces", &replaces)]);
        assert_eq!(line.ending(alice, call), Some(Ending::Refused(403)));
    }
}
