//! Real phones in two networks, the SBC between them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::thread::sleep;
use std::time::Duration;

use crush_tests::baresip::{Account, Baresip};
use crush_tests::linphone::Linphone;
use crush_tests::process::eventually;
use crush_tests::sbc::{self, Sbc};
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

fn account(user: &str, network: Network, transport: &'static str, answers: bool) -> Account {
    Account {
        user: user.to_owned(),
        password: "secret".into(),
        domain: network.address(1),
        transport,
        expires: 600,
        answers,
    }
}

fn subscribers() -> String {
    let one = |user: &str, network: Network| {
        format!("SELECT sbc_set_password('{}', '{user}', 'secret');", network.address(1))
    };
    [("b1", Network::Access), ("b2", Network::Access), ("l1", Network::Core), ("b3", Network::Core)]
        .map(|(user, network)| one(user, network))
        .concat()
}

/// baresip on the access side, linphone on the core side, registered.
fn pair(lab: &mut Lab, transports: [&'static str; 2]) -> (Baresip, Linphone) {
    let address = lab.host("b1", Network::Access, 11).unwrap();
    lab.host("l1", Network::Core, 12).unwrap();
    let caller =
        Baresip::start(lab, "b1", &address, &account("b1", Network::Access, transports[0], false), 500.0)
            .unwrap();
    let mut callee =
        Linphone::start(lab, "l1", &account("l1", Network::Core, transports[1], true), 900.0).unwrap();
    caller.registered().unwrap();
    callee.registered().unwrap();
    (caller, callee)
}

fn call_over(transports: [&'static str; 2]) {
    let mut lab = Lab::new("phones").unwrap();
    let sbc = Sbc::start(&lab, &sbc::phones(), &subscribers()).unwrap();
    let (access, core) = (lab.capture(Network::Access).unwrap(), lab.capture(Network::Core).unwrap());
    let (mut caller, callee) = pair(&mut lab, transports);
    caller.command("dial", &format!("sip:l1@{}", Network::Access.address(1))).unwrap();
    caller
        .event("CALL_ESTABLISHED", 1, SOON)
        .unwrap_or_else(|failure| panic!("{failure}\n{}\n{}", caller.output(), sbc.output()));
    sleep(Duration::from_secs(4));
    caller.command("hangup", "").unwrap();
    sbc.eventually_sql("SELECT cause, ended_by, status FROM call", "bye|caller|200", SOON).unwrap();
    sleep(Duration::from_secs(1));
    assert!(caller.heard().unwrap().has_tone(900.0), "baresip does not hear linphone");
    assert!(callee.heard().unwrap().has_tone(500.0), "linphone does not hear baresip");
    let heard = sbc.sql("SELECT min((stream->>'packets')::int) > 150, max((stream->>'lost')::int) FROM call, jsonb_array_elements(media) stream").unwrap();
    assert_eq!(heard, "t|0");

    let (access, core) = (access.finish().unwrap(), core.finish().unwrap());
    let addresses = |network: Network| (1..=12).map(|host| network.address(host)).collect::<Vec<_>>();
    let of_access = capture::identifiers(&access);
    let of_core = capture::identifiers(&core);
    assert_eq!(capture::leaks(&core, &addresses(Network::Access), &of_access), []);
    assert_eq!(capture::leaks(&access, &addresses(Network::Core), &of_core), []);
}

#[test]
fn phones_hear_each_other_over_udp_and_neither_side_sees_the_other() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    call_over(["udp", "udp"]);
}

#[test]
fn phones_hear_each_other_over_tcp_and_tls() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    call_over(["tcp", "tls"]);
}

#[test]
fn a_call_is_held_and_resumed_by_either_phone() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let mut lab = Lab::new("hold").unwrap();
    let sbc = Sbc::start(&lab, &sbc::phones(), &subscribers()).unwrap();
    let (mut caller, mut callee) = pair(&mut lab, ["udp", "udp"]);
    caller.command("dial", &format!("sip:l1@{}", Network::Access.address(1))).unwrap();
    caller.event("CALL_ESTABLISHED", 1, SOON).unwrap();
    sleep(Duration::from_secs(2));
    let changes =
        "SELECT string_agg(detail::text, ' ' ORDER BY sequence) FROM call_event WHERE kind = 'changed'";
    let mut expected = Vec::new();
    let mut expect = |change: &str, party: u8| {
        expected.push(format!("{{\"{change}\": {{\"party\": {party}}}}}"));
        sbc.eventually_sql(changes, &expected.join(" "), SOON).unwrap();
    };
    caller.command("hold", "").unwrap();
    expect("Hold", 0);
    sleep(Duration::from_secs(1));
    caller.command("resume", "").unwrap();
    expect("Resume", 0);
    sleep(Duration::from_secs(1));
    callee.command("pause").unwrap();
    expect("Hold", 1);
    sleep(Duration::from_secs(1));
    callee.command("resume").unwrap();
    expect("Resume", 1);
    sleep(Duration::from_secs(2));
    assert!(
        callee.heard().unwrap().last(1.0).has_tone(500.0),
        "linphone does not hear baresip after the resume"
    );
    callee.command("terminate").unwrap();
    sbc.eventually_sql("SELECT cause, ended_by FROM call", "bye|callee", SOON).unwrap();
}

#[test]
fn a_wrong_password_registers_nobody_and_a_call_is_cancelled_or_busy() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let mut lab = Lab::new("refusals").unwrap();
    let sbc = Sbc::start(&lab, &sbc::phones(), &subscribers()).unwrap();
    let first = lab.host("b1", Network::Access, 11).unwrap();
    let second = lab.host("b3", Network::Core, 13).unwrap();
    let third = lab.host("b2", Network::Access, 14).unwrap();
    let mut caller =
        Baresip::start(&lab, "b1", &first, &account("b1", Network::Access, "udp", false), 500.0).unwrap();
    let mut callee =
        Baresip::start(&lab, "b3", &second, &account("b3", Network::Core, "udp", false), 900.0).unwrap();
    let wrong = Account { password: "guess".into(), ..account("b2", Network::Access, "udp", false) };
    let guesser = Baresip::start(&lab, "b2", &third, &wrong, 700.0).unwrap();
    caller.registered().unwrap();
    callee.registered().unwrap();
    assert!(eventually(SOON, || sbc.output().contains("wrong_credentials")), "{}", sbc.output());
    assert!(guesser.registered().is_err());
    assert_eq!(sbc.metric(&lab, "sbc_bindings").unwrap(), 2);

    let dial = format!("sip:b3@{}", Network::Access.address(1));
    caller.command("dial", &dial).unwrap();
    callee.event("CALL_INCOMING", 1, SOON).unwrap();
    sleep(Duration::from_millis(500));
    caller.command("hangup", "").unwrap();
    sbc.eventually_sql("SELECT cause, ended_by, status FROM call", "cancelled|caller|487", SOON).unwrap();
    callee.event("CALL_CLOSED", 1, SOON).unwrap();

    caller.command("dial", &dial).unwrap();
    callee.event("CALL_INCOMING", 2, SOON).unwrap();
    callee.command("hangup", "").unwrap();
    sbc.eventually_sql(
        "SELECT count(*) FROM call WHERE cause IN ('busy', 'declined') AND ended_by = 'callee'",
        "1",
        SOON,
    )
    .unwrap();
    assert_eq!(sbc.metric(&lab, "sbc_media_port_pairs").unwrap(), 0);
}

#[test]
fn a_blind_transfer_connects_the_other_two() {
    skip_unless_possible!("baresip", "curl", "openssl");
    let mut lab = Lab::new("blind").unwrap();
    let sbc = Sbc::start(&lab, &sbc::phones(), &subscribers()).unwrap();
    let hosts = [("b1", Network::Access, 11), ("b2", Network::Access, 14), ("b3", Network::Core, 13)];
    let mut phones = Vec::new();
    for (index, (user, network, number)) in hosts.into_iter().enumerate() {
        let address = lab.host(user, network, number).unwrap();
        let answers = user != "b1";
        let phone = Baresip::start(
            &lab,
            user,
            &address,
            &account(user, network, "udp", answers),
            500.0 + 200.0 * index as f64,
        )
        .unwrap();
        phone.registered().unwrap();
        phones.push(phone);
    }
    phones[0].command("dial", &format!("sip:b3@{}", Network::Access.address(1))).unwrap();
    phones[0].event("CALL_ESTABLISHED", 1, SOON).unwrap();
    sleep(Duration::from_secs(1));
    phones[0].command("transfer", &format!("sip:b2@{}", Network::Access.address(1))).unwrap();
    phones[1]
        .event("CALL_ESTABLISHED", 1, SOON)
        .unwrap_or_else(|failure| panic!("{failure}\n{}\n{}", phones[2].output(), sbc.output()));
    sleep(Duration::from_secs(3));
    assert!(phones[1].heard().unwrap().last(1.0).has_tone(900.0), "b2 does not hear b3");
    phones[1].command("hangup", "").unwrap();
    sbc.eventually_sql("SELECT count(*) FROM call WHERE cause = 'bye'", "2", SOON).unwrap();
}

#[test]
fn an_attended_transfer_joins_the_two_that_were_called() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    let mut lab = Lab::new("attended").unwrap();
    let sbc = Sbc::start(&lab, &sbc::phones(), &subscribers()).unwrap();
    let first = lab.host("b1", Network::Access, 11).unwrap();
    let third = lab.host("b3", Network::Core, 13).unwrap();
    lab.host("l1", Network::Core, 12).unwrap();
    let target =
        Baresip::start(&lab, "b1", &first, &account("b1", Network::Access, "udp", true), 500.0).unwrap();
    let callee =
        Baresip::start(&lab, "b3", &third, &account("b3", Network::Core, "udp", true), 700.0).unwrap();
    let mut middle = Linphone::start(&lab, "l1", &account("l1", Network::Core, "udp", false), 900.0).unwrap();
    target.registered().unwrap();
    callee.registered().unwrap();
    middle.registered().unwrap();
    let domain = Network::Core.address(1);
    middle.command(&format!("call sip:b3@{domain}")).unwrap();
    callee.event("CALL_ESTABLISHED", 1, SOON).unwrap();
    sleep(Duration::from_secs(1));
    middle.command("pause").unwrap();
    sleep(Duration::from_secs(1));
    middle.command(&format!("call sip:b1@{domain}")).unwrap();
    target.event("CALL_ESTABLISHED", 1, SOON).unwrap();
    sleep(Duration::from_secs(1));
    middle.command("transfer 1 --to-call 2").unwrap();
    callee.event("CALL_ESTABLISHED", 2, SOON).unwrap_or_else(|failure| {
        panic!("{failure}\n{}\n{}\n{}", callee.output(), middle.output(), sbc.output())
    });
    sleep(Duration::from_secs(3));
    assert!(target.heard().unwrap().last(1.0).has_tone(700.0), "b1 does not hear b3");
    assert!(callee.heard().unwrap().last(1.0).has_tone(500.0), "b3 does not hear b1");
}

#[test]
fn a_phone_registers_through_the_sbc_to_a_registrar_in_the_core() {
    skip_unless_possible!("baresip", "linphonec", "kamailio", "curl", "openssl");
    let mut lab = Lab::new("forward").unwrap();
    let registrar = lab.host("registrar", Network::Core, 5).unwrap();
    let kamailio = kamailio::start(&lab, "registrar", &registrar).unwrap();
    let sbc = Sbc::start(&lab, &sbc::forwarding(&registrar), "").unwrap();
    let address = lab.host("b1", Network::Access, 11).unwrap();
    lab.host("l1", Network::Access, 12).unwrap();
    let of = |user: &str, answers| Account { expires: 60, ..account(user, Network::Access, "udp", answers) };
    let mut caller = Baresip::start(&lab, "b1", &address, &of("b1", false), 500.0).unwrap();
    let mut callee = Linphone::start(&lab, "l1", &of("l1", true), 900.0).unwrap();
    caller.registered().unwrap();
    callee.registered().unwrap();
    kamailio.says_times("REGISTER", 2, SOON).unwrap();
    caller.command("dial", &format!("sip:l1@{}", Network::Access.address(1))).unwrap();
    caller.event("CALL_ESTABLISHED", 1, SOON).unwrap_or_else(|failure| {
        panic!("{failure}\n{}\n{}\n{}", caller.output(), kamailio.output(), sbc.output())
    });
    sleep(Duration::from_secs(3));
    caller.command("hangup", "").unwrap();
    // Through the core's proxy: the SBC sees the call twice, from the phone and from the core.
    sbc.eventually_sql("SELECT count(*) FROM call WHERE cause = 'bye'", "2", SOON).unwrap();
    assert!(caller.heard().unwrap().has_tone(900.0), "baresip does not hear linphone");
    assert!(callee.heard().unwrap().has_tone(500.0), "linphone does not hear baresip");
    assert_eq!(kamailio.output().matches("REGISTER").count(), 2, "refreshes stay at the SBC");
}
