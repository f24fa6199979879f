//! The laboratory itself, peers against peers: when these fail, no result with the SBC between them counts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::time::Duration;

use crush_tests::leak::Secrets;
use crush_tests::packet::Packet;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::process::eventually;
use crush_tests::sipp::{Load, Outcome, Sipp};
use crush_tests::{Lab, Network, kamailio, skip_unless_possible};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn sipp_calls_sipp_without_a_failure() {
    skip_unless_possible!("sipp");
    let mut lab = Lab::new("sipp").unwrap();
    let caller = lab.host("uac", Network::Core, 11).unwrap();
    let answerer = lab.host("uas", Network::Core, 12).unwrap();
    let listening = Load { scenario: "answerer.xml", local: (answerer.clone(), 5060), ..Load::default() };
    let listening = Sipp::start(&lab, "uas", "uas", &listening).unwrap();
    listening.counts().unwrap();
    let more = ["-s", "load", "-d", "500"].map(str::to_owned).to_vec();
    let remote = Some(format!("{answerer}:5060"));
    let load = Load { scenario: "caller.xml", local: (caller, 5060), remote, calls: 100, rate: 50, more };
    let outcome = Sipp::start(&lab, "uac", "uac", &load).unwrap().finish(SOON * 2).unwrap();
    assert_eq!(outcome, Outcome { successful: 100, failed: 0 });
    drop(listening);
}

fn hear_each_other_through_kamailio(caller: Kind, callee: Kind) {
    let mut lab = Lab::new("peers").unwrap();
    let registrar = lab.host("registrar", Network::Core, 5).unwrap();
    let _kamailio = kamailio::start(&lab, "registrar", &registrar).unwrap();
    let mut phone = |kind: Kind, user: &str, number: u8, hertz: f64| {
        let address = lab.host(user, Network::Core, number).unwrap();
        let account = Account {
            domain: registrar.clone(),
            proxy: registrar.clone(),
            ..Account::of(user, Network::Core, "udp")
        };
        let mut phone = kind.start(&lab, user, &address, &account, hertz).unwrap();
        phone.registered(SOON).unwrap();
        phone
    };
    let mut caller = phone(caller, "x1", 11, 500.0);
    let mut callee = phone(callee, "x2", 12, 900.0);
    caller.dial(&format!("sip:x2@{registrar}")).unwrap();
    callee.wait(Event::Incoming, SOON).unwrap();
    caller.wait(Event::Ringing, SOON).unwrap();
    callee.answer().unwrap();
    caller.wait(Event::Established, SOON).unwrap();
    callee.wait(Event::Established, SOON).unwrap();
    for (phone, hertz) in [(&caller, 900.0), (&callee, 500.0)] {
        let hears = || phone.heard().is_ok_and(|heard| heard.last(1.0).has_tone(hertz));
        assert!(eventually(SOON, hears), "{phone:?} does not hear {hertz} Hz");
    }
    callee.hang_up().unwrap();
    caller.wait(Event::Ended, SOON).unwrap();
    callee.wait(Event::Ended, SOON).unwrap();
}

#[test]
fn baresip_and_linphone_hear_each_other_through_kamailio() {
    skip_unless_possible!("baresip", "linphonec", "kamailio");
    hear_each_other_through_kamailio(Kind::Baresip, Kind::Linphone);
}

#[test]
fn pjsip_and_baresip_hear_each_other_through_kamailio() {
    skip_unless_possible!("baresip", "pjsua2", "kamailio");
    hear_each_other_through_kamailio(Kind::Pjsua, Kind::Baresip);
}

#[test]
fn a_router_forgets_a_silent_flow_after_its_time() {
    skip_unless_possible!("bash", "conntrack");
    let mut lab = Lab::new("router").unwrap();
    lab.host_behind_nat("phone", 20, Duration::from_secs(2)).unwrap();
    let server = lab.host("server", Network::Access, 30).unwrap();
    let mut capture = lab.capture_at("server", "eth0").unwrap();
    // Nobody listens: the write after the server's ICMP error only fetches that error, so the second is tried twice.
    let send = format!(
        "exec 3<>/dev/udp/{server}/7000; echo first >&3; read; echo second >&3 || echo second >&3; read"
    );
    let mut sender = lab.start("phone", "sender", &["bash", "-c", &send]).unwrap();
    let knows = || lab.nat_flows("phone").unwrap().contains("dport=7000");
    assert!(eventually(SOON, knows), "the flow is known at first");
    assert!(eventually(SOON, || !knows()), "the flow is forgotten after its time");
    sender.write(b"\n").unwrap();
    for text in [&b"first\n"[..], b"second\n"] {
        capture.sees("datagram", 0, SOON, |packet: &Packet| packet.payload == text).unwrap();
    }
    let mut inside = Secrets::default();
    inside.add_addresses(["192.168.77.10".parse().unwrap()]);
    assert_eq!(inside.leaks_in(&capture.finish().unwrap()), []);
}

#[test]
fn a_router_that_rebinds_gives_a_flow_another_port() {
    skip_unless_possible!("bash", "conntrack");
    let mut lab = Lab::new("rebind").unwrap();
    lab.host_behind_nat("phone", 20, Duration::from_secs(30)).unwrap();
    let server = lab.host("server", Network::Access, 30).unwrap();
    let mut capture = lab.capture_at("server", "eth0").unwrap();
    let send = format!("exec 3<>/dev/udp/{server}/7000; while read; do echo hi >&3 || echo hi >&3; done");
    let mut sender = lab.start("phone", "sender", &["bash", "-c", &send]).unwrap();
    let mut port = || {
        let mark = capture.mark().unwrap();
        sender.write(b"\n").unwrap();
        let mut port = 0;
        let arrives = |packet: &Packet| {
            port = packet.source.port();
            packet.destination.port() == 7000
        };
        capture.sees("datagram", mark, SOON, arrives).unwrap();
        port
    };
    let (first, again) = (port(), port());
    assert_eq!(first, again);
    lab.rebind_nat("phone").unwrap();
    let (second, again) = (port(), port());
    assert_ne!(first, second);
    assert_eq!(second, again);
}

/// What a person does with `cargo run -p crush-tests --bin lab -- shell`.
#[test]
fn a_shell_in_the_laboratory_lets_phones_call_each_other() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let script = "until_it_says() { for i in $(seq 200); do curl -sf 127.0.0.1:8080/metrics | grep -q \"^$1\" && return; sleep 0.1; done; exit 1; }
        a1 dial c1; until_it_says 'sbc_calls 1'; sleep 0.5; c1 answer; until_it_says 'sbc_media_sent_total [1-9]'
        at c1 ip -brief address show eth0; a1 hangup; until_it_says 'sbc_calls 0'";
    let mut shell = std::process::Command::new(env!("CARGO_BIN_EXE_lab"))
        .arg("shell")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), script.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success());
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains(&Network::Core.address(11)), "{output}");
}
