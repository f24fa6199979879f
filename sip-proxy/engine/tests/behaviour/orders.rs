//! What is ordered of a running call, and what is answered.

use std::net::SocketAddr;
use std::time::Duration;

use seam::path::Constraint;
use seam::{Action, Listener, Role};
use sip_engine::door::{CallAnswer, CallAnswered, CallId, CallOrder, NotDone};
use sip_engine::event::EndCause;
use sip_engine::io::{Command, Input};
use sip_engine::ua::{CallNumber, Ending};

use crate::line::{Line, TWO, config};

const TAP: Listener = Listener { number: 3, role: Role::Tap };

/// Two phones that have registered.
fn phones() -> (Line, [SocketAddr; 2]) {
    Line::joined(config(), TWO)
}

/// A call between them that is up.
fn up() -> (Line, [SocketAddr; 2], [CallNumber; 2]) {
    let (mut line, phones) = phones();
    let call = line.call(phones[0], "bob", &[]);
    let calls = [call, line.accept(phones[1])];
    (line, phones, calls)
}

/// The call of the latest record.
fn call_of(line: &Line) -> CallId {
    CallId(line.records.last().unwrap().call)
}

/// Orders something; the answer.
fn order(line: &mut Line, id: CallId, order: CallOrder) -> Result<CallAnswer, NotDone> {
    let number = 7 + line.answers.len() as u64;
    let now = line.time();
    line.engine.handle(Input::Command(Command::Call { id, number, order }), now);
    line.settle();
    let CallAnswered { number: answered, result } = line.answers.last().unwrap().clone();
    assert_eq!(answered, number);
    result
}

#[test]
fn a_call_that_is_hung_up_ends_at_both_phones_and_its_record_says_by_whom() {
    let (mut line, phones, calls) = up();
    let id = call_of(&line);
    assert_eq!(order(&mut line, id, CallOrder::HangUp), Ok(CallAnswer::Done));
    assert_eq!([0, 1].map(|phone| line.ending(phones[phone], calls[phone])), [Some(Ending::Bye); 2]);
    assert_eq!(line.cause(), Some(EndCause::Operator));
    assert_eq!(line.answers.len(), 1);
}

#[test]
fn a_call_that_rings_is_taken_back() {
    let (mut line, phones) = phones();
    let call = line.call(phones[0], "bob", &[]);
    let id = call_of(&line);
    assert_eq!(order(&mut line, id, CallOrder::HangUp), Ok(CallAnswer::Done));
    assert!(line.ending(phones[0], call).is_some());
    assert_eq!(line.cause(), Some(EndCause::Operator));
}

#[test]
fn what_concerns_media_goes_to_its_session_in_order() {
    let (mut line, ..) = up();
    let id = call_of(&line);
    let session = line.media.last().unwrap().session;
    line.media.clear();
    for (wanted, action) in [
        (CallOrder::Constrain(Constraint::MustAnchor), Action::Constrain(Constraint::MustAnchor)),
        (CallOrder::Release, Action::Unconstrain),
        (CallOrder::Listen(TAP), Action::Attach(TAP)),
        (CallOrder::Unlisten(TAP), Action::Detach(TAP)),
    ] {
        assert_eq!(order(&mut line, id, wanted), Ok(CallAnswer::Done));
        let told = line.media.pop().unwrap();
        assert_eq!((told.session, told.action), (session, action));
        assert!(line.media.is_empty());
    }
}

#[test]
fn who_asks_how_a_call_is_hears_how_long_it_lasts_and_what_media_has_counted() {
    let (mut line, ..) = up();
    line.pass(Duration::from_secs(5));
    let id = call_of(&line);
    let Ok(CallAnswer::State(state)) = order(&mut line, id, CallOrder::Query) else { panic!("no state") };
    assert!(state.lasts >= Duration::from_secs(5) && state.lasts < Duration::from_secs(6), "{state:?}");
    assert!(state.talks.is_some_and(|talks| talks <= state.lasts), "{state:?}");
    assert_eq!(state.streams, line.counted);
    assert!(!state.streams.is_empty());
}

#[test]
fn a_call_that_is_not_answered_says_so() {
    let (mut line, phones) = phones();
    line.call(phones[0], "bob", &[]);
    let id = call_of(&line);
    let Ok(CallAnswer::State(state)) = order(&mut line, id, CallOrder::Query) else { panic!("no state") };
    assert_eq!(state.talks, None);
}

#[test]
fn a_call_that_has_ended_is_over_and_later_unknown() {
    let (mut line, phones, calls) = up();
    let id = call_of(&line);
    line.is_media_silent = true;
    assert_eq!(order(&mut line, id, CallOrder::HangUp), Ok(CallAnswer::Done));
    for wanted in [CallOrder::HangUp, CallOrder::Query, CallOrder::Constrain(Constraint::MustAnchor)] {
        assert_eq!(order(&mut line, id, wanted), Err(NotDone::Over));
    }
    assert!(line.ending(phones[0], calls[0]).is_some());
    line.pass(Duration::from_secs(70));
    assert_eq!(order(&mut line, id, CallOrder::Query), Err(NotDone::Unknown));
}

#[test]
fn what_is_no_call_of_this_home_is_told_apart() {
    let (mut line, phones, calls) = up();
    let id = call_of(&line);
    let other_slot = CallId(id.0 ^ (1 << 64));
    let other_node = CallId(id.0 ^ (1 << 54));
    let other_call = CallId(id.0 ^ (1 << 52));
    let other_session = CallId(id.0 ^ 1);
    for (id, expected) in [
        (other_slot, NotDone::Unknown),
        (other_node, NotDone::Elsewhere),
        (other_call, NotDone::Unknown),
        (other_session, NotDone::Unknown),
    ] {
        assert_eq!(order(&mut line, id, CallOrder::HangUp), Err(expected));
    }
    assert_eq!([0, 1].map(|phone| line.ending(phones[phone], calls[phone])), [None; 2]);
}

#[test]
fn who_waits_for_a_count_when_the_call_ends_is_told_that_it_is_over() {
    let (mut line, ..) = up();
    let id = call_of(&line);
    line.is_media_silent = true;
    let now = line.time();
    line.engine.handle(Input::Command(Command::Call { id, number: 1, order: CallOrder::Query }), now);
    line.settle();
    assert!(line.answers.is_empty());
    line.engine.handle(Input::Command(Command::Call { id, number: 2, order: CallOrder::HangUp }), now);
    line.settle();
    let told: Vec<_> = line.answers.iter().map(|answer| (answer.number, answer.result.clone())).collect();
    assert_eq!(told, [(1, Err(NotDone::Over)), (2, Ok(CallAnswer::Done))]);
}
