//! Calls that do not come about, and registrations that are refused.

use crush_tests::phone::{Account, Event, Kind};
use crush_tests::process::eventually;
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::{Network, skip_unless_possible};

use crate::cast::{TRANSPORTS, call, hang_up, phone, stage};

/// Waits until the latest call has ended so: cause, by whom, status.
fn ended(stage: &Stage, how: &str) {
    let latest = "SELECT cause, ended_by, status FROM call ORDER BY started_at DESC LIMIT 1";
    stage.sbc.eventually_sql(latest, how, SOON).unwrap();
}

fn ring(caller: &mut Extension, callee: &mut Extension) {
    caller.dial(&callee.user.clone()).unwrap();
    callee.wait(Event::Incoming).unwrap();
    caller.wait(Event::Ringing).unwrap();
}

/// The caller gives up; the callee refuses; the callee does not answer; it has no line free; nobody is there.
fn calls_that_fail(transports: [&'static str; 2], [access, core]: [Kind; 2]) {
    skip_unless_possible!(access.program(), core.program(), "curl", "openssl");
    let mut stage = stage("refusals");
    let mut caller = phone(&mut stage, access, "a1", transports[0]);
    let one_line = Account { calls: 1, rings: 4, ..Account::of("c1", Network::Core, transports[1]) };
    let mut callee = stage.phone(core, Network::Core, &one_line).unwrap();
    callee.registered().unwrap();

    ring(&mut caller, &mut callee);
    caller.phone.hang_up().unwrap();
    callee.wait(Event::Ended).unwrap();
    caller.wait(Event::Ended).unwrap();
    ended(&stage, "cancelled|caller|487");

    ring(&mut caller, &mut callee);
    callee.phone.refuse().unwrap();
    caller.wait(Event::Ended).unwrap();
    callee.wait(Event::Ended).unwrap();
    // linphone declines, the others say that they are busy.
    ended(&stage, if core == Kind::Linphone { "declined|callee|603" } else { "busy|callee|486" });

    // PJSIP rings for ever.
    if core != Kind::Pjsua {
        ring(&mut caller, &mut callee);
        callee.wait(Event::Ended).unwrap();
        caller.wait(Event::Ended).unwrap();
        // Nobody answered, and so both products say that they are busy.
        ended(&stage, "busy|callee|486");
    }

    let mut second = phone(&mut stage, Kind::Baresip, "a2", transports[0]);
    call(&mut caller, &mut callee);
    second.dial("c1").unwrap();
    second.wait(Event::Ended).unwrap();
    ended(&stage, "busy|callee|486");
    hang_up(&mut callee, &mut caller);

    for (user, how) in [("nobody", "not_found|sbc|404"), ("c3", "not_registered|sbc|480")] {
        caller.dial(user).unwrap();
        caller.wait(Event::Ended).unwrap();
        ended(&stage, how);
    }
    let left = || {
        ["sbc_calls", "sbc_media_sessions", "sbc_media_port_pairs"]
            .iter()
            .all(|metric| stage.sbc.metric(&stage.lab, metric).is_ok_and(|value| value == 0))
    };
    assert!(eventually(SOON, left), "a call, session or port is left");
    stage.close([caller, callee, second]).unwrap();
}

/// Neither who guesses a password nor who has none gets in, to register or to call.
fn strangers(kind: Kind, transport: &'static str) {
    skip_unless_possible!(kind.program(), "baresip", "curl", "openssl");
    let mut stage = stage("strangers");
    let mut callee = phone(&mut stage, Kind::Baresip, "c1", "udp");
    let guess = Account { password: "guess".into(), ..Account::of("a1", Network::Access, transport) };
    let mut guesser = stage.phone(kind, Network::Access, &guess).unwrap();
    let known = || stage.sbc.output().contains("wrong_credentials");
    assert!(eventually(SOON, known), "{}", stage.sbc.output());
    // Two more: who is no subscriber, and who is one but has not registered and does not know its password.
    let nobody = Account { expires: 0, ..Account::of("mallory", Network::Access, transport) };
    let mut nobody = stage.phone(kind, Network::Access, &nobody).unwrap();
    let unregistered =
        Account { expires: 0, password: "guess".into(), ..Account::of("a2", Network::Access, transport) };
    let mut unregistered = stage.phone(kind, Network::Access, &unregistered).unwrap();
    let mark = callee.mark().unwrap();
    for stranger in [&mut guesser, &mut nobody, &mut unregistered] {
        stranger.phone.dial(&format!("sip:c1@{}", Network::Access.address(1))).unwrap();
        // linphone asks its user for another password, and waits.
        if kind == Kind::Linphone {
            assert!(eventually(SOON, || stranger.phone.trace().contains("Password for")));
        } else {
            stranger.wait(Event::Ended).unwrap();
        }
    }
    assert_eq!(stage.sbc.sql("SELECT string_agg(aor, ' ') FROM binding").unwrap(), "c1@203.0.113.1");
    let rings = |packet: &crush_tests::packet::Packet| packet.payload.starts_with(b"INVITE");
    assert!(!callee.tap().since(mark).unwrap().iter().any(rings), "a stranger's call came through");
    stage.close([guesser, nobody, unregistered, callee]).unwrap();
}

#[test]
fn linphone_does_not_take_the_calls_of_baresip() {
    calls_that_fail(["udp", "tcp"], [Kind::Baresip, Kind::Linphone]);
}

#[test]
fn baresip_does_not_take_the_calls_of_linphone() {
    calls_that_fail(["tls", "udp"], [Kind::Linphone, Kind::Baresip]);
}

#[test]
fn a_stranger_with_baresip_gets_nowhere_over_udp() {
    strangers(Kind::Baresip, "udp");
}

#[test]
fn a_stranger_with_linphone_gets_nowhere_over_tls() {
    strangers(Kind::Linphone, "tls");
}

#[test]
#[ignore = "nine pairs of transports: make test-phones"]
fn nobody_takes_calls_over_any_transports() {
    for (index, transports) in TRANSPORTS.into_iter().enumerate() {
        let callers = [Kind::Baresip, Kind::Linphone, Kind::Pjsua];
        let callees = [Kind::Linphone, Kind::Baresip, Kind::Linphone, Kind::Pjsua];
        let kinds = [callers[index % 3], callees[index % 4]];
        eprintln!("{transports:?} {kinds:?}");
        calls_that_fail(transports, kinds);
    }
}

#[test]
#[ignore = "every product over every transport: make test-phones"]
fn no_stranger_gets_anywhere() {
    for kind in [Kind::Baresip, Kind::Linphone, Kind::Pjsua] {
        for transport in ["udp", "tcp", "tls"] {
            eprintln!("{kind:?} {transport}");
            strangers(kind, transport);
        }
    }
}
