//! Subscriptions (RFC 6665) that another process goes on with.

use std::time::Duration;

use play::Dice;
use sip_engine::config::Pickup;
use sip_engine::ua::Ending;
use sip_wire::{Method, Name};

use crate::line::{ACCESS, Line, address, sbc};
use crate::pickup::{ALICE, BOB, GATEWAY, SUBSCRIBED, last_to, replaces, tells, text, told_of_bobs_call};

const SECOND: Duration = Duration::from_secs(1);
const ACTIVE: &str = "active;expires=600";

/// Alice is subscribed to bob's dialogs for ten minutes, while he talks; the event as she gets it.
fn subscribed() -> (Line, String) {
    told_of_bobs_call(Pickup::Subscribed)
}

/// She asks for ten minutes more, in the dialog of her subscription.
fn refreshes(line: &mut Line) {
    let alice = address(ALICE);
    let is_accepted = |sent: &sip_wire::Message| {
        sent.status() == Some(200) && sent.cseq().is_ok_and(|cseq| cseq.method == Method::SUBSCRIBE)
    };
    let accepted = &line.sent.iter().find(|(to, sent)| *to == alice && is_accepted(sent)).unwrap().1;
    let [from, to, call_id] = [Name::From, Name::To, Name::CallId].map(|name| text(accepted.value(name)));
    let subscribe = format!(
        "SUBSCRIBE sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {alice};branch=z9hG4bK-again\r\nMax-Forwards: 70\r\nFrom: {from}\r\n\
         To: {to}\r\nCall-ID: {call_id}\r\nCSeq: 70 SUBSCRIBE\r\nContact: <sip:alice@{alice}>\r\nEvent: dialog\r\n\
         Expires: 600\r\nContent-Length: 0\r\n\r\n",
        sbc(ACCESS)
    );
    line.hear(alice, subscribe.into());
}

/// How alice's attempt to pick bob's call up ends; `None`: the carrier is asked.
fn picks_up(line: &mut Line, event: &str) -> Option<Ending> {
    let call = line.call(address(ALICE), "4930", &[("Replaces", &replaces(event))]);
    line.ending(address(ALICE), call)
}

#[test]
fn events_refreshes_and_the_leave_to_pick_up_go_on_in_the_next_process() {
    let (mut line, event) = subscribed();
    let mut dice = Dice::new(6);
    for cseq in 2..6 {
        line.pass(SECOND * 100);
        line.hand_over(&mut dice).unwrap();
        assert_eq!(tells(&mut line, cseq, ACTIVE), event);
        let told = last_to(&line, ALICE, Method::NOTIFY).unwrap();
        assert_eq!(told.cseq().unwrap().number, cseq, "in her dialog");
        let (to, answer) = line.sent.last().unwrap();
        assert_eq!((*to, answer.status()), (address(BOB), Some(200)));
    }
    line.hand_over(&mut dice).unwrap();
    refreshes(&mut line);
    let asked = last_to(&line, BOB, Method::SUBSCRIBE).unwrap();
    assert_eq!((text(asked.to().unwrap().tag()).as_str(), asked.cseq().unwrap().number), ("replied", 2));
    line.reply_at(ACCESS, address(BOB), Method::SUBSCRIBE, (SUBSCRIBED, ""));
    // Longer than it would have lasted.
    line.pass(SECOND * 500);
    line.hand_over(&mut dice).unwrap();
    assert_eq!(tells(&mut line, 6, ACTIVE), event);
    assert_eq!(picks_up(&mut line, &event), None, "{:?}", line.notices);
    assert!(last_to(&line, GATEWAY, Method::INVITE).unwrap().count(Name::Replaces) > 0);
}

#[test]
fn a_subscription_ends_when_it_would_have_and_its_leave_with_it() {
    for is_told in [false, true] {
        let (mut line, event) = subscribed();
        line.pass(SECOND * 400);
        line.hand_over(&mut Dice::new(7)).unwrap();
        if is_told {
            tells(&mut line, 2, "terminated;reason=noresource");
        } else {
            // Ten minutes, and 64 T1 for a refresh that is late.
            line.pass(SECOND * 231);
            assert_eq!(line.engine.sizes().0, 2);
            line.pass(SECOND * 2);
        }
        assert_eq!(line.engine.sizes().0, 1, "bob's call");
        assert_eq!(picks_up(&mut line, &event), Some(Ending::Refused(403)));
    }
}

/// Whoever is asked has not said yet whether it takes it.
#[test]
fn a_refresh_under_way_is_waited_for() {
    let (mut line, _) = subscribed();
    line.pass(SECOND * 40);
    refreshes(&mut line);
    line.hand_over(&mut Dice::new(8)).unwrap_err();
    line.reply_at(ACCESS, address(BOB), Method::SUBSCRIBE, (SUBSCRIBED, ""));
    line.hand_over(&mut Dice::new(8)).unwrap();
}
