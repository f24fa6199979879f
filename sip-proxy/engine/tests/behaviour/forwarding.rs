//! Registrations that a registrar behind us decides on.

use std::sync::Arc;
use std::time::Duration;

use sip_engine::config::{Authentication, Expiry, Limits, RegistrarMode};
use sip_engine::ua::Abilities;
use sip_wire::{Message, Method, Name};

use crate::line::{ACCESS, DOMAIN, Line, address, config, policy, trunk};

const REGISTRAR: &str = "198.51.100.9:5060";
const PHONE: &str = "10.0.0.5:5060";

fn line() -> Line {
    line_with(Limits::default())
}

fn line_with(limits: Limits) -> Line {
    let mut config = config();
    config.limits = limits;
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3600));
    let phone = Expiry { minimum: minute, default: hour, maximum: hour, nat: hour };
    let registrar: Arc<_> = trunk("registrar", "198.51.100.9", None);
    config.realms[0].registrar = RegistrarMode::Forward { phone, registrar, upstream: hour };
    config.realms[0].authentication = Authentication::RegisteredFlow;
    Line::new(config, policy(vec![trunk("carrier", "198.51.100.9", None)]))
}

fn register(line: &mut Line, cseq: u32, contacts: &[&str], expires: u32) {
    let contacts: String = contacts.iter().map(|user| format!("Contact: <sip:{user}@{PHONE}>\r\n")).collect();
    let request = format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {PHONE};branch=z9hG4bK-r{cseq}\r\nMax-Forwards: 70\r\n\
         From: <sip:alice@{DOMAIN}>;tag=r\r\nTo: <sip:alice@{DOMAIN}>\r\nCall-ID: registers\r\nCSeq: {cseq} REGISTER\r\n\
         {contacts}Expires: {expires}\r\nContent-Length: 0\r\n\r\n"
    );
    line.sent.clear();
    line.hear(address(PHONE), request.into());
}

/// The registrar's word on the last REGISTER that it got: as many seconds for each Contact.
fn granted(line: &mut Line, seconds: u64) {
    let asked =
        |(to, sent): &&(_, Message)| *to == address(REGISTRAR) && sent.method() == Some(Method::REGISTER);
    let contacts: String = line
        .sent
        .iter()
        .rfind(asked)
        .expect("the registrar is asked")
        .1
        .contacts()
        .map(|contact| {
            let uri = String::from_utf8_lossy(contact.unwrap().uri.as_bytes()).into_owned();
            format!("Contact: <{uri}>;expires={seconds}\r\n")
        })
        .collect();
    line.reply(address(REGISTRAR), Method::REGISTER, &format!("200 OK\r\n{contacts}"), "");
}

fn answer(line: &Line) -> &Message {
    &line.sent.iter().rfind(|(to, sent)| *to == address(PHONE) && sent.status().is_some()).unwrap().1
}

/// RFC 3261 §10.3 step 7.
#[test]
fn a_register_that_comes_late_changes_nothing() {
    let mut line = line();
    register(&mut line, 100, &["alice"], 600);
    granted(&mut line, 600);
    assert_eq!((answer(&line).status(), line.engine.sizes().2), (Some(200), 1));
    register(&mut line, 50, &["alice"], 0);
    assert!(line.sent.iter().all(|(to, _)| *to != address(REGISTRAR)));
    assert_eq!((answer(&line).status(), line.engine.sizes().2), (Some(500), 1));
}

#[test]
fn all_contacts_of_a_register_are_kept() {
    let mut line = line();
    register(&mut line, 1, &["alice", "door"], 600);
    granted(&mut line, 600);
    assert_eq!((answer(&line).status(), line.engine.sizes().2), (Some(200), 2));
}

#[test]
fn no_registrar_gives_more_than_it_was_asked_for() {
    let mut line = line();
    register(&mut line, 1, &["alice"], 600);
    granted(&mut line, 4_000_000_000);
    let answer = answer(&line);
    let contact = answer.contacts().next().unwrap().unwrap();
    assert_eq!(contact.parameter(b"expires"), Some(b"600".as_slice()));
    // The registrar is asked again before what we asked it for is over.
    line.pass(Duration::from_secs(590));
    register(&mut line, 2, &["alice"], 600);
    line.pass(Duration::from_secs(2400));
    register(&mut line, 3, &["alice"], 600);
    let asked =
        line.sent.iter().any(|(to, sent)| *to == address(REGISTRAR) && sent.value(Name::CallId).is_some());
    assert!(asked);
}

/// A REGISTER of a stranger that the registrar refuses, or says nothing to.
fn stranger_registers(line: &mut Line, number: u32, is_refused: bool) {
    let [_, a, b, c] = number.to_be_bytes();
    let from = address(&format!("10.{}.{b}.{c}:5060", 64 + a % 64));
    let request = format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK-s{number}\r\nMax-Forwards: 70\r\n\
         From: <sip:u{number}@{DOMAIN}>;tag=s\r\nTo: <sip:u{number}@{DOMAIN}>\r\nCall-ID: s{number}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:u{number}@{from}>\r\nContent-Length: 0\r\n\r\n"
    );
    line.sent.clear();
    line.hear(from, request.into());
    if is_refused {
        let challenge = "401 Unauthorized\r\nWWW-Authenticate: Digest realm=\"x\", nonce=\"n\"\r\n";
        line.reply(address(REGISTRAR), Method::REGISTER, challenge, "");
        let answers =
            line.sent.iter().filter(|(to, _)| *to == from).filter_map(|(_, answer)| answer.status());
        assert_eq!(answers.collect::<Vec<_>>(), [401]);
    }
}

/// The table and the calls are small, and one phone is registered.
fn small() -> Line {
    let mut line = line_with(Limits { transactions: 400, calls: 40, ..Limits::default() });
    line.add("alice", PHONE, ACCESS, Abilities::default());
    register(&mut line, 1, &["alice"], 600);
    granted(&mut line, 600);
    assert_eq!(answer(&line).status(), Some(200));
    line
}

#[test]
fn strangers_whom_the_registrar_refuses_leave_nothing_behind_and_keep_nobody_out() {
    let mut line = small();
    for number in 1..2_000 {
        stranger_registers(&mut line, number, true);
        line.pass(Duration::from_millis(50));
        // What lingers is ours towards the registrar, for the five seconds of timer K.
        let sizes = line.engine.sizes();
        assert!(sizes.0 == 0 && sizes.1 <= 110, "{sizes:?} after {number}");
    }
    register(&mut line, 2, &["alice", "door"], 600);
    granted(&mut line, 600);
    assert_eq!(answer(&line).status(), Some(200));
}

#[test]
fn strangers_who_wait_for_a_silent_registrar_are_so_many_and_take_no_calls_place() {
    let mut line = small();
    for number in 1..2_000 {
        stranger_registers(&mut line, number, false);
    }
    let sizes = line.engine.sizes();
    assert!(sizes.0 <= 50 && sizes.1 <= 110, "{sizes:?}");
    line.sent.clear();
    for _ in 0..30 {
        line.call(address(PHONE), "4930", &[]);
    }
    let invites =
        line.sent.iter().filter(|(_, sent)| sent.method() == Some(Method::INVITE) && sent.via().is_ok());
    let to_carrier = invites.filter(|(to, _)| *to == address(REGISTRAR)).count();
    assert_eq!(to_carrier, 30);
    line.pass(Duration::from_secs(70));
    stranger_registers(&mut line, 3_000, true);
}
