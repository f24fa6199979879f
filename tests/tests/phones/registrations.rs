//! Registrations that are refreshed, that end, and that move to another connection.

use std::time::{Duration, Instant};

use crush_tests::phone::{Account, Kind};
use crush_tests::stage::SOON;
use crush_tests::{Network, sbc, skip_unless_possible};

use crate::cast::{call, hang_up, phone, stage_with};

/// What the SBC grants, whatever is asked for.
const GRANTED: u64 = 6;

/// Through three lives of its binding a phone refreshes it, and it stays one; then the phone is called, and vanishes.
fn refreshes(kind: Kind, transport: &'static str) {
    skip_unless_possible!(kind.program(), "baresip", "curl", "openssl");
    let mut stage = stage_with("refresh", &sbc::phones_with(&format!("max_expires_seconds = {GRANTED}")));
    let mut caller = phone(&mut stage, Kind::Baresip, "a1", "udp");
    let mut callee = stage.phone(kind, Network::Core, &Account::of("c1", Network::Core, transport)).unwrap();
    callee.registered().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3 * GRANTED) {
        let bindings = stage.sbc.sql("SELECT string_agg(aor, ' ' ORDER BY aor) FROM binding").unwrap();
        assert_eq!(bindings, "a1@198.51.100.1 c1@203.0.113.1");
        assert_eq!(stage.sbc.metric(&stage.lab, "sbc_bindings").unwrap(), 2);
        std::thread::sleep(Duration::from_millis(300));
    }
    call(&mut caller, &mut callee);
    hang_up(&mut caller, &mut callee);
    // Without a farewell: over a connection its end tells, over UDP the binding's end.
    crush_tests::process::run(&["kill", "-s", "KILL", &callee.phone.id().to_string()]).unwrap();
    stage.sbc.eventually_sql("SELECT aor FROM binding", "a1@198.51.100.1", SOON).unwrap();
    stage.close([caller, callee]).unwrap();
}

#[test]
fn baresip_stays_registered_over_udp() {
    refreshes(Kind::Baresip, "udp");
}

#[test]
fn linphone_stays_registered_over_tls() {
    refreshes(Kind::Linphone, "tls");
}

#[test]
#[ignore = "every product over every transport: make test-phones"]
fn everybody_stays_registered() {
    for kind in [Kind::Baresip, Kind::Linphone, Kind::Pjsua] {
        for transport in ["udp", "tcp", "tls"] {
            eprintln!("{kind:?} {transport}");
            refreshes(kind, transport);
        }
    }
}
