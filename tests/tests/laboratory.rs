//! The laboratory itself, peers against peers: when these fail, no result with the SBC between them counts.

use std::thread::sleep;
use std::time::Duration;

use crush_tests::baresip::{Account, Baresip};
use crush_tests::linphone::Linphone;
use crush_tests::sipp::{Load, Outcome, Sipp};
use crush_tests::{Lab, Network, capture, kamailio};

const SOON: Duration = Duration::from_secs(10);

macro_rules! skip_unless_possible {
    ($($program:literal),*) => {
        if let Some(reason) = Lab::impossible(&[$($program),*]) {
            eprintln!("SKIPPED: {reason}");
            return;
        }
    };
}

fn account(user: &str, domain: &str, answers: bool) -> Account {
    let (user, domain) = (user.to_owned(), domain.to_owned());
    Account { user, password: "secret".into(), domain, transport: "udp", expires: 600, answers }
}

#[test]
fn sipp_calls_sipp_without_a_failure() {
    skip_unless_possible!("sipp");
    let mut lab = Lab::new("sipp").unwrap();
    let caller = lab.host("uac", Network::Core, 11).unwrap();
    let answerer = lab.host("uas", Network::Core, 12).unwrap();
    let listening = Load { scenario: "answerer.xml", local: (answerer.clone(), 5060), ..Load::default() };
    let listening = Sipp::start(&lab, "uas", "uas", &listening).unwrap();
    sleep(Duration::from_millis(300));
    let more = ["-s", "load", "-d", "500"].map(str::to_owned).to_vec();
    let remote = Some(format!("{answerer}:5060"));
    let load = Load { scenario: "caller.xml", local: (caller, 5060), remote, calls: 100, rate: 50, more };
    let outcome = Sipp::start(&lab, "uac", "uac", &load).unwrap().finish(SOON * 2).unwrap();
    assert_eq!(outcome, Outcome { successful: 100, failed: 0 });
    drop(listening);
}

#[test]
fn baresip_and_linphone_hear_each_other_through_kamailio() {
    skip_unless_possible!("baresip", "linphonec", "kamailio");
    let mut lab = Lab::new("phones").unwrap();
    let registrar = lab.host("registrar", Network::Core, 5).unwrap();
    let address = lab.host("baresip", Network::Core, 11).unwrap();
    lab.host("linphone", Network::Core, 12).unwrap();
    let _kamailio = kamailio::start(&lab, "registrar", &registrar).unwrap();
    let mut caller =
        Baresip::start(&lab, "baresip", &address, &account("b1", &registrar, false), 500.0).unwrap();
    let mut callee = Linphone::start(&lab, "linphone", &account("l1", &registrar, true), 900.0).unwrap();
    caller.registered().unwrap();
    callee.registered().unwrap();

    caller.command("dial", &format!("sip:l1@{registrar}")).unwrap();
    caller.event("CALL_ESTABLISHED", 1, SOON).unwrap();
    sleep(Duration::from_secs(4));
    caller.command("hangup", "").unwrap();
    sleep(Duration::from_secs(1));

    assert!(caller.heard().unwrap().has_tone(900.0), "baresip does not hear linphone");
    assert!(callee.heard().unwrap().has_tone(500.0), "linphone does not hear baresip");
}

#[test]
fn a_router_forgets_a_silent_flow_after_its_time() {
    skip_unless_possible!("bash");
    let mut lab = Lab::new("nat").unwrap();
    lab.host_behind_nat("phone", 20, Duration::from_secs(2)).unwrap();
    let server = lab.host("server", Network::Access, 30).unwrap();
    let capture = lab.capture_at("server", "eth0").unwrap();
    // Nobody listens: the write after the server's ICMP error only fetches that error, so the second is tried twice.
    let second = "{ echo second >&3 || echo second >&3; }";
    let send = format!("exec 3<>/dev/udp/{server}/7000; echo first >&3; sleep 4; {second}; sleep 1");
    let mut sender = lab.start("phone", "sender", &["bash", "-c", &send]).unwrap();
    sleep(Duration::from_secs(1));
    let router = lab.namespace("phone-nat");
    let flows = || crush_tests::process::run(&["ip", "netns", "exec", &router, "conntrack", "-L"]).unwrap();
    assert!(flows().contains("dport=7000"), "the flow is known at first");
    sleep(Duration::from_secs(2));
    assert!(!flows().contains("dport=7000"), "the flow is forgotten after its time");
    sender.ended(SOON).unwrap();
    let packets = capture.finish().unwrap();
    let heard: Vec<_> = packets.iter().filter(|p| p.ports.1 == 7000).map(|p| p.payload.clone()).collect();
    assert_eq!(heard, [b"first\n".to_vec(), b"second\n".to_vec()]);
    let inside = ["192.168.77.10".to_owned()];
    assert_eq!(capture::leaks(&packets, &inside, &[]), []);
}
