//! Calls that last, calls that must not, and the bound on their number.

use std::time::Duration;

use bytes::Bytes;
use sip_engine::config::{Limits, SessionTimer};
use sip_engine::event::EndCause;
use sip_engine::ua::{Abilities, Ending, Event};
use sip_wire::{Method, Name};

use crate::line::{Line, SDP, TWO, Temper, address, config, policy, trunk};

const HOUR: Duration = Duration::from_secs(3600);

fn with_timer() -> sip_engine::config::Config {
    let mut config = config();
    for realm in &mut config.realms {
        realm.session_timer =
            Some(SessionTimer { interval: Duration::from_secs(600), minimum: Duration::from_secs(90) });
    }
    config
}

fn two_phones(config: sip_engine::config::Config, abilities: Abilities) -> (Line, [std::net::SocketAddr; 2]) {
    Line::joined_by(config, TWO, abilities)
}

#[test]
fn a_call_with_refreshed_session_timers_lasts() {
    for update in [true, false] {
        let (mut line, [alice, bob]) = two_phones(with_timer(), Abilities { update, ..Abilities::default() });
        let call = line.call(alice, "bob", &[]);
        let incoming = line.accept(bob);
        line.pass(2 * HOUR);
        assert_eq!((line.ending(alice, call), line.ending(bob, incoming), line.cause()), (None, None, None));
    }
}

#[test]
fn a_refresh_that_is_refused_is_tried_again_in_time() {
    let (mut line, [alice, bob]) =
        two_phones(with_timer(), Abilities { update: false, ..Abilities::default() });
    let call = line.call(alice, "bob", &[]);
    let incoming = line.accept(bob);
    line.temper.insert(bob, Temper::Refuses(500));
    line.pass(Duration::from_secs(305));
    line.temper.clear();
    line.pass(HOUR);
    assert_eq!((line.ending(alice, call), line.ending(bob, incoming), line.cause()), (None, None, None));
}

#[test]
fn a_call_whose_phone_is_gone_ends_when_its_session_timer_does() {
    let (mut line, [alice, bob]) = two_phones(with_timer(), Abilities::default());
    let call = line.call(alice, "bob", &[]);
    line.accept(bob);
    line.cut.push(bob);
    line.pass(HOUR);
    assert_eq!(line.ending(alice, call), Some(Ending::Bye));
    assert!(matches!(line.cause(), Some(EndCause::SessionExpired | EndCause::Failed)), "{:?}", line.cause());
}

#[test]
fn beyond_the_limit_of_calls_new_ones_get_503_and_running_ones_are_served() {
    let mut config = config();
    config.limits = Limits { calls: 1, ..Limits::default() };
    let (mut line, [alice, bob]) = two_phones(config, Abilities::default());
    let first = line.call(alice, "bob", &[]);
    line.accept(bob);
    let second = line.call(alice, "bob", &[]);
    assert_eq!(line.ending(alice, second), Some(Ending::Refused(503)));
    line.hang_up(alice, first);
    assert_eq!(line.cause(), Some(EndCause::Bye));
    line.pass(Duration::from_secs(1));
    line.call(alice, "bob", &[]);
    line.accept(bob);
}

#[test]
fn a_late_ack_of_the_invite_before_does_not_stop_the_repetition_of_a_2xx() {
    let (mut line, [alice, bob]) = two_phones(config(), Abilities::default());
    let call = line.call(alice, "bob", &[]);
    line.accept(bob);
    let first = line
        .heard
        .iter()
        .rfind(|(from, message)| *from == alice && message.method() == Some(Method::ACK))
        .cloned();
    // The 200 to a re-INVITE is lost, and the ACK of the INVITE comes once more.
    line.deaf.push(alice);
    line.by(alice, |agent, now| agent.reinvite(call, Some(SDP), now)).unwrap();
    let (from, ack) = first.expect("an ACK");
    line.hear(from, ack.as_bytes().clone());
    line.deaf.clear();
    line.pass(Duration::from_secs(2));
    let answers =
        line.events.iter().filter(|(at, event)| *at == alice && matches!(event, Event::Answered { .. }));
    assert_eq!(answers.count(), 2);
}

#[test]
fn an_answer_that_media_refuses_costs_the_change_and_not_the_call() {
    const OTHER: Bytes =
        Bytes::from_static(b"v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 11 RTP/AVP 8\r\n");
    for refusals in [&[][..], &[491], &[488]] {
        let (mut line, [alice, bob]) = two_phones(config(), Abilities::default());
        let call = line.call(alice, "bob", &[]);
        let incoming = line.accept(bob);
        line.refuses_answers = true;
        let now = line.time();
        line.agents.get_mut(&alice).unwrap().reinvite(call, Some(OTHER), now).unwrap();
        // Bob takes the change. He is offered again what Alice has said before, and may refuse that, too.
        line.next_temper = refusals.first().map(|status| (bob, Temper::Refuses(*status)));
        line.settle();
        line.temper.clear();
        line.pass(Duration::from_secs(5));
        let refused = line
            .events
            .iter()
            .any(|(at, event)| *at == alice && matches!(event, Event::Refused { status: 488, .. }));
        assert!(refused);
        if refusals == [488] {
            assert_eq!(line.cause(), Some(EndCause::MediaRefused));
            continue;
        }
        assert_eq!((line.ending(alice, call), line.ending(bob, incoming), line.cause()), (None, None, None));
        let agreed = |phone, call| line.agents[&phone].agreed(call).unwrap().clone();
        assert_eq!(agreed(bob, incoming).remote, SDP);
        assert_eq!(agreed(alice, call).local, SDP);
    }
}

#[test]
fn a_target_that_wants_longer_intervals_is_asked_again_and_the_caller_hears_nothing_of_it() {
    let mut line = Line::new(with_timer(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    let gateway = address("198.51.100.9:5060");
    line.call(alice, "4930", &[]);
    line.answer_by_hand(gateway, 422, "Min-SE: 1800\r\n");
    let again =
        line.sent.iter().rfind(|(to, message)| *to == gateway && message.method() == Some(Method::INVITE));
    let again = &again.expect("a second INVITE").1;
    assert_eq!(again.value(Name::SessionExpires), Some(b"1800".as_slice()));
    assert_eq!(again.value(Name::MinSe), Some(b"1800".as_slice()));
    assert!(!line.sent.iter().any(|(to, message)| *to == alice && message.status() == Some(422)));
    // It has said so once; another time is the caller's to hear.
    line.answer_by_hand(gateway, 422, "Min-SE: 3600\r\n");
    assert!(line.sent.iter().any(|(to, message)| *to == alice && message.status() == Some(422)));
}

#[test]
fn a_request_that_comes_by_two_ways_is_served_once() {
    let (mut line, [alice, bob]) = two_phones(config(), Abilities::default());
    line.call(alice, "bob", &[]);
    let (_, invite) =
        line.heard.iter().rfind(|(_, message)| message.method() == Some(Method::INVITE)).unwrap();
    let mut fork = invite.edit();
    fork.prepend(Name::Via, b"SIP/2.0/UDP 10.0.0.5:5060;branch=z9hG4bK-another-way");
    let fork = fork.finish();
    let rings =
        line.events.iter().filter(|(at, event)| *at == bob && matches!(event, Event::Incoming { .. }));
    assert_eq!(rings.count(), 1);
    line.hear(alice, fork);
    let statuses =
        line.sent.iter().filter(|(to, _)| *to == alice).filter_map(|(_, message)| message.status());
    assert_eq!(statuses.last(), Some(482));
    assert_eq!(line.engine.sizes().0, 1);
}

#[test]
fn a_provisional_response_without_a_tag_passes_with_ours_which_the_call_keeps() {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.join("alice", "10.0.0.5:5060");
    line.call(alice, "4930", &[]);
    let gateway = address("198.51.100.9:5060");
    for (status, tag) in [(180, ""), (180, ""), (183, ";tag=theirs")] {
        line.answer_by_hand_tagged(gateway, status, tag, "Contact: <sip:198.51.100.9>\r\n");
    }
    let to_alice = line.sent.iter().filter(|(to, _)| *to == alice);
    let tags: std::collections::BTreeSet<Vec<u8>> = to_alice
        .filter(|(_, message)| matches!(message.status(), Some(180 | 183)))
        .map(|(_, message)| message.to().unwrap().tag().expect("a tag").to_vec())
        .collect();
    assert_eq!(tags.len(), 1);
}
