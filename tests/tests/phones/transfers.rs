//! Transfers: blind (RFC 5589 §6) and attended (§7), within one network and across both.

use crush_tests::phone::{Event, Kind};
use crush_tests::skip_unless_possible;
use crush_tests::stage::SOON;

use crate::cast::{TRANSPORTS, call, connect, hear_each_other, phone, stage};

/// `a1` has called `c1` and sends it to `target`.
fn blind(kinds: [Kind; 3], transports: [&'static str; 2], target: &str) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), kinds[2].program(), "curl", "openssl");
    let mut stage = stage("blind");
    let mut middle = phone(&mut stage, kinds[0], "a1", transports[0]);
    let mut left = phone(&mut stage, kinds[1], "c1", transports[1]);
    let over = if target.starts_with('a') { transports[0] } else { transports[1] };
    let mut right = phone(&mut stage, kinds[2], target, over);
    call(&mut middle, &mut left);
    let uri = format!("sip:{target}@{}", middle.domain);
    middle.phone.transfer(&uri).unwrap();
    right.wait(Event::Incoming).unwrap();
    right.phone.answer().unwrap();
    right.wait(Event::Established).unwrap();
    hear_each_other(&mut left, &mut right);
    middle.wait(Event::Ended).unwrap();
    hear_each_other(&mut left, &mut right);
    right.phone.hang_up().unwrap();
    right.wait(Event::Ended).unwrap();
    stage.sbc.eventually_sql("SELECT count(*), bool_and(cause = 'bye') FROM call", "2|t", SOON).unwrap();
    stage.close([middle, left, right]).unwrap();
}

/// `c1` has called `c2`, holds it, calls `a1` and joins the two.
fn attended(kinds: [Kind; 3], transports: [&'static str; 2]) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), kinds[2].program(), "curl", "openssl");
    let mut stage = stage("attended");
    let mut middle = phone(&mut stage, kinds[0], "c1", transports[1]);
    let mut left = phone(&mut stage, kinds[1], "c2", transports[1]);
    let mut right = phone(&mut stage, kinds[2], "a1", transports[0]);
    call(&mut middle, &mut left);
    middle.phone.hold().unwrap();
    middle.falls_silent(std::time::Duration::from_millis(400)).unwrap();
    connect(&mut middle, &mut right);
    middle.phone.join().unwrap();
    if !right.kind.knows_replaces() {
        right.wait(Event::Incoming).unwrap();
        right.phone.answer().unwrap();
    }
    hear_each_other(&mut left, &mut right);
    // Both of its calls; the second ends by itself only where another has taken its place.
    middle.wait(Event::Ended).unwrap();
    if !right.kind.knows_replaces() {
        middle.phone.hang_up().unwrap();
    }
    middle.wait(Event::Ended).unwrap();
    hear_each_other(&mut left, &mut right);
    right.phone.hang_up().unwrap();
    stage
        .sbc
        .eventually_sql("SELECT count(*) > 1, bool_and(cause IS NOT NULL) FROM call", "t|t", SOON)
        .unwrap();
    stage.close([middle, left, right]).unwrap();
}

#[test]
fn baresip_sends_linphone_to_a_baresip() {
    blind([Kind::Baresip, Kind::Linphone, Kind::Baresip], ["udp", "tls"], "a2");
}

#[test]
fn linphone_sends_baresip_to_a_linphone() {
    blind([Kind::Linphone, Kind::Baresip, Kind::Linphone], ["tcp", "udp"], "c2");
}

#[test]
fn pjsip_sends_baresip_to_a_linphone() {
    blind([Kind::Pjsua, Kind::Baresip, Kind::Linphone], ["udp", "tls"], "a2");
}

#[test]
fn the_softphone_sends_a_baresip_to_a_linphone() {
    blind([Kind::Softphone, Kind::Baresip, Kind::Linphone], ["udp", "udp"], "a2");
}

#[test]
fn the_softphone_joins_a_baresip_and_a_linphone() {
    attended([Kind::Softphone, Kind::Baresip, Kind::Linphone], ["udp", "udp"]);
}

#[test]
fn linphone_joins_two_baresips() {
    attended([Kind::Linphone, Kind::Baresip, Kind::Baresip], ["udp", "udp"]);
}

#[test]
fn linphone_joins_a_linphone_and_a_baresip() {
    attended([Kind::Linphone, Kind::Linphone, Kind::Baresip], ["udp", "tls"]);
}

#[test]
fn linphone_joins_a_baresip_and_a_linphone() {
    attended([Kind::Linphone, Kind::Baresip, Kind::Linphone], ["tls", "udp"]);
}

#[test]
fn pjsip_joins_a_baresip_and_a_linphone() {
    attended([Kind::Pjsua, Kind::Baresip, Kind::Linphone], ["tls", "tcp"]);
}

#[test]
#[ignore = "nine pairs of transports: make test-phones"]
fn everybody_sends_somebody_to_somebody() {
    let kinds = [
        [Kind::Baresip, Kind::Linphone, Kind::Baresip],
        [Kind::Linphone, Kind::Baresip, Kind::Linphone],
        [Kind::Pjsua, Kind::Baresip, Kind::Linphone],
        [Kind::Linphone, Kind::Linphone, Kind::Pjsua],
    ];
    for (index, transports) in TRANSPORTS.into_iter().enumerate() {
        let kinds = kinds[index % kinds.len()];
        eprintln!("{transports:?} {kinds:?}");
        blind(kinds, transports, if index % 2 == 0 { "a2" } else { "c2" });
    }
}

#[test]
#[ignore = "nine pairs of transports: make test-phones"]
fn everybody_who_can_joins_two_others() {
    // Never linphone for PJSIP: the last NOTIFY of linphone is ill-formed (`reason=reason=noresource`), and PJSIP drops it.
    let kinds = [
        [Kind::Linphone, Kind::Baresip, Kind::Linphone],
        [Kind::Pjsua, Kind::Baresip, Kind::Linphone],
        [Kind::Linphone, Kind::Linphone, Kind::Baresip],
        [Kind::Pjsua, Kind::Baresip, Kind::Baresip],
    ];
    for (index, transports) in TRANSPORTS.into_iter().enumerate() {
        let kinds = kinds[index % kinds.len()];
        eprintln!("{transports:?} {kinds:?}");
        attended(kinds, transports);
    }
}
