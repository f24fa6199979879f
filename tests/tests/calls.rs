//! Calls through the SBC: SIPp on both sides, media both ways, one exact record each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::thread::sleep;
use std::time::Duration;

use crush_tests::process::eventually;
use crush_tests::sbc::{self, Sbc};
use crush_tests::sipp::{Load, Outcome, Sipp};
use crush_tests::{Lab, Network, skip_unless_possible};

const SOON: Duration = Duration::from_secs(10);

const TRUNK: &str = "INSERT INTO trunk (name, realm, host, port, transport) VALUES ('uas', 'core', '203.0.113.12', 5060, 'udp');
    INSERT INTO route (prefix, trunk) VALUES ('', 'uas')";

#[test]
fn every_call_of_a_load_succeeds_and_leaves_one_exact_record() {
    skip_unless_possible!("sipp", "curl", "openssl");
    let mut lab = Lab::new("load").unwrap();
    let caller = lab.host("uac", Network::Access, 11).unwrap();
    let answerer = lab.host("uas", Network::Core, 12).unwrap();
    let sbc = Sbc::start(&lab, &sbc::load(), TRUNK).unwrap();
    let more = ["-rtp_echo"].map(str::to_owned).to_vec();
    let listening = Load { scenario: "answerer.xml", local: (answerer, 5060), more, ..Load::default() };
    let listening = Sipp::start(&lab, "uas", "uas", &listening).unwrap();
    sleep(Duration::from_millis(300));
    let more = ["-s", "load", "-d", "1000"].map(str::to_owned).to_vec();
    let remote = Some(format!("{}:5060", Network::Access.address(1)));
    let load = Load { scenario: "caller.xml", local: (caller, 5060), remote, calls: 200, rate: 50, more };
    let outcome = Sipp::start(&lab, "uac", "uac", &load).unwrap().finish(SOON * 2).unwrap();
    assert_eq!(outcome, Outcome { successful: 200, failed: 0 }, "{}", sbc.output());
    sbc.eventually_sql("SELECT count(*), count(distinct id) FROM call WHERE cause = 'bye' AND ended_by = 'caller' AND status = 200", "200|200", SOON).unwrap();
    let exact = "SELECT count(*) FROM call WHERE duration_ms BETWEEN 950 AND 1150 AND setup_ms BETWEEN 40 AND 250 AND trunk = 'uas'";
    assert_eq!(sbc.sql(exact).unwrap(), "200");
    for metric in ["sbc_calls", "sbc_media_sessions", "sbc_media_port_pairs"] {
        assert_eq!(sbc.metric(&lab, metric).unwrap(), 0, "{metric}");
    }
    drop(listening);
}

/// Callers in the access network and an answerer in the core, with five calls up that last `talk_ms`.
struct Running {
    lab: Lab,
    sbc: Sbc,
    callers: Sipp,
    answerer: Sipp,
    late: String,
}

fn five_calls(name: &str, talk_ms: u32) -> Running {
    let mut lab = Lab::new(name).unwrap();
    let [caller, late] = [11, 13].map(|host| lab.host(&format!("uac{host}"), Network::Access, host).unwrap());
    let answerer = lab.host("uas", Network::Core, 12).unwrap();
    let sbc = Sbc::start(&lab, &sbc::load(), TRUNK).unwrap();
    let listening = Load { scenario: "answerer.xml", local: (answerer, 5060), ..Load::default() };
    let answerer = Sipp::start(&lab, "uas", "uas", &listening).unwrap();
    sleep(Duration::from_millis(300));
    let callers = calls(&lab, "uac11", caller, 5, talk_ms);
    let answered = "SELECT count(*) FROM call WHERE answered_at IS NOT NULL";
    sbc.eventually_sql(answered, "5", SOON).unwrap();
    Running { lab, sbc, callers, answerer, late }
}

fn calls(lab: &Lab, host: &str, address: String, calls: u32, talk_ms: u32) -> Sipp {
    let more = ["-s", "load", "-d", &talk_ms.to_string()].map(str::to_owned).to_vec();
    let remote = Some(format!("{}:5060", Network::Access.address(1)));
    let load = Load { scenario: "caller.xml", local: (address, 5060), remote, calls, rate: 50, more };
    Sipp::start(lab, host, host, &load).unwrap()
}

#[test]
fn asked_to_end_it_refuses_new_calls_and_lets_running_ones_finish() {
    skip_unless_possible!("sipp", "curl", "openssl");
    let Running { lab, mut sbc, callers, answerer, late } = five_calls("drain", 1600);
    sbc.signal("TERM").unwrap();
    let refused = calls(&lab, "uac13", late, 1, 1000).finish(SOON).unwrap();
    assert_eq!(refused, Outcome { successful: 0, failed: 1 });
    let reason = std::fs::read_to_string(lab.folder().join("uac13-errors.log")).unwrap();
    assert!(reason.contains("503"), "{reason}");
    assert_eq!(callers.finish(SOON).unwrap(), Outcome { successful: 5, failed: 0 });
    sbc.ended(SOON).unwrap();
    let ended = "SELECT count(*), min(duration_ms) > 1550, max(duration_ms) < 1900 FROM call WHERE cause = 'bye' AND ended_by = 'caller'";
    assert_eq!(sbc.sql(ended).unwrap(), "5|t|t");
    drop(answerer);
}

#[test]
fn calls_that_outlast_the_drain_are_ended_on_both_sides_and_recorded() {
    skip_unless_possible!("sipp", "curl", "openssl");
    // The laboratory's SBC waits two seconds.
    let Running { lab: _lab, mut sbc, callers, answerer, .. } = five_calls("outlast", 60_000);
    sbc.signal("TERM").unwrap();
    // The caller's scenario expects no BYE, the answerer's does.
    assert_eq!(callers.finish(SOON).unwrap(), Outcome { successful: 0, failed: 5 });
    sbc.ended(SOON).unwrap();
    // SIPp counts a call some seconds after its BYE.
    assert!(eventually(SOON, || answerer.counts().unwrap() == Outcome { successful: 5, failed: 0 }));
    let ended = "SELECT count(*), min(duration_ms) > 1900, max(duration_ms) < 5000 FROM call WHERE cause = 'shutdown'";
    assert_eq!(sbc.sql(ended).unwrap(), "5|t|t");
}
