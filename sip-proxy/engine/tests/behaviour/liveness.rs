//! Calls whose media nobody at the SBC hears: signalling tells whether their phones are there.

use std::net::SocketAddr;
use std::time::Duration;

use seam::{Event, Told};
use sip_engine::event::EndCause;
use sip_engine::io::Input;
use sip_engine::ua::{CallNumber, Ending};
use sip_wire::{Message, Method, Name};

use crate::line::{Line, TWO, config};

/// A call between two phones that is up.
fn up() -> (Line, [SocketAddr; 2], [CallNumber; 2]) {
    let (mut line, phones) = Line::joined(config(), TWO);
    let call = line.call(phones[0], "bob", &[]);
    let calls = [call, line.accept(phones[1])];
    (line, phones, calls)
}

fn ask(line: &mut Line) {
    let session = line.media.first().unwrap().session;
    let now = line.time();
    line.engine.handle(Input::MediaEvent(Told { session, event: Event::Unheard }), now);
    line.settle();
}

fn questions(line: &Line, phone: SocketAddr) -> Vec<Message> {
    let to_it = line.sent.iter().filter(|(to, _)| *to == phone).map(|(_, message)| message);
    to_it.filter(|message| message.method() == Some(Method::OPTIONS)).cloned().collect()
}

/// A phone answers in the place of its agent.
fn answer(line: &mut Line, phone: SocketAddr, status: u16) {
    let question = questions(line, phone).pop().unwrap();
    let same = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq].map(|name| {
        let value = String::from_utf8_lossy(question.value(name).unwrap());
        format!("{}: {value}\r\n", name.as_str())
    });
    let answer = format!("SIP/2.0 {status} By Hand\r\n{}Content-Length: 0\r\n\r\n", same.concat());
    line.hear(phone, answer.into());
}

#[test]
fn phones_that_answer_keep_their_call_and_are_asked_as_often_as_media_wants_to_know() {
    let (mut line, phones, calls) = up();
    for count in 1..4 {
        ask(&mut line);
        assert_eq!(phones.map(|phone| questions(&line, phone).len()), [count; 2]);
        line.pass(Duration::from_secs(64));
    }
    assert_eq!((line.ending(phones[0], calls[0]), line.ending(phones[1], calls[1])), (None, None));
}

#[test]
fn any_final_answer_but_408_and_481_is_a_sign_of_life() {
    for (status, lives) in [(200, true), (405, true), (500, true), (503, true), (408, false), (481, false)] {
        for phone in [0, 1] {
            let (mut line, phones, calls) = up();
            line.deaf.push(phones[phone]);
            ask(&mut line);
            answer(&mut line, phones[phone], status);
            line.deaf.clear();
            line.pass(Duration::from_secs(64));
            let other = 1 - phone;
            let ending = line.ending(phones[other], calls[other]);
            assert_eq!(ending, (!lives).then_some(Ending::Bye), "{status}");
            assert_eq!(line.cause(), (!lives).then_some(EndCause::MediaTimeout), "{status}");
        }
    }
}

#[test]
fn a_phone_that_is_gone_ends_its_call_and_is_asked_once_meanwhile() {
    for phone in [0, 1] {
        let (mut line, phones, calls) = up();
        line.cut.push(phones[phone]);
        ask(&mut line);
        line.pass(Duration::from_secs(20));
        let other = 1 - phone;
        ask(&mut line);
        assert_eq!(questions(&line, phones[other]).len(), 1);
        assert_eq!(line.ending(phones[other], calls[other]), None);
        line.pass(Duration::from_secs(20));
        assert_eq!(line.ending(phones[other], calls[other]), Some(Ending::Bye));
        assert_eq!(line.cause(), Some(EndCause::MediaTimeout));
        line.pass(Duration::from_secs(64));
        assert!(line.engine.is_idle());
    }
}
