//! Calls through the SBC: SIPp on both sides, media both ways, one exact record each.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::thread::sleep;
use std::time::Duration;

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
