//! Phones that register through the SBC at a Kamailio in the core, which knows their passwords, and call through it.

use crush_tests::phone::{Account, Event, Kind};
use crush_tests::process::eventually;
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::{Lab, Network, kamailio, sbc, skip_unless_possible};

use crate::cast::{call, hang_up};

/// Registrations last so long towards the phones; the core's last an hour.
const GRANTED: u32 = 6;

fn through_the_core(kinds: [Kind; 2], transport: &'static str, upstream: &str) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "kamailio", "curl", "openssl");
    let mut lab = Lab::new("forward").unwrap();
    let registrar = lab.host("registrar", Network::Core, 5).unwrap();
    let kamailio = kamailio::start(&lab, "registrar", &registrar).unwrap();
    // Refreshes that only keep the binding alive end at the SBC as long as the core's lasts longer than twice this.
    let settings = format!("max_expires_seconds = {GRANTED}\nnat_expires_seconds = 60");
    let target = format!("{registrar}:5060/{upstream}");
    let realms = sbc::forwarding_realm("access", 5060, &target, &settings) + &sbc::open_core();
    let mut stage = Stage::with(lab, &realms, "").unwrap();
    stage.knows(Network::Core, &registrar).unwrap();
    let account = |user: &str, password: &str| Account {
        domain: sbc::FORWARDED_DOMAIN.into(),
        password: password.into(),
        ..Account::of(user, Network::Access, transport)
    };
    let mut one = stage.phone(kinds[0], Network::Access, &account("a1", "secret")).unwrap();
    let mut other = stage.phone(kinds[1], Network::Access, &account("a2", "secret")).unwrap();
    let mut guesser = stage.phone(Kind::Baresip, Network::Access, &account("a3", "guess")).unwrap();
    let in_core = Account {
        domain: registrar.clone(),
        proxy: registrar.clone(),
        ..Account::of("c1", Network::Core, "udp")
    };
    let mut core = stage.phone(Kind::Baresip, Network::Core, &in_core).unwrap();
    for phone in [&mut one, &mut other, &mut core] {
        phone.registered().unwrap();
    }
    // The core refuses who guesses, and so does the SBC his call.
    let refused = || guesser.phone.trace().matches("SIP/2.0 401").count() > 1;
    assert!(eventually(SOON, refused), "{}", guesser.phone.trace());
    assert_eq!(stage.sbc.metric(&stage.lab, "sbc_bindings").unwrap(), 2);
    let mark = one.mark().unwrap();
    guesser.dial("a1").unwrap();
    guesser.wait(Event::Ended).unwrap();
    let rings = |packet: &crush_tests::packet::Packet| {
        packet.payload.starts_with(b"INVITE") && packet.destination.port() == 5060
    };
    assert!(
        !one.tap().since(mark).unwrap().iter().any(rings),
        "the call of an unregistered phone came through"
    );

    let talk = |caller: &mut Extension, callee: &mut Extension| {
        call(caller, callee);
        hang_up(callee, caller);
    };
    talk(&mut one, &mut other);
    talk(&mut other, &mut one);
    talk(&mut one, &mut core);
    talk(&mut core, &mut other);
    // Each has refreshed by now, and the core has not heard of it.
    let refreshes = |phone: &Extension| phone.phone.trace().matches("CSeq").count();
    let before = [refreshes(&one), refreshes(&other)];
    let refreshed = || before.iter().zip([&one, &other]).all(|(before, phone)| refreshes(phone) > *before);
    assert!(eventually(SOON, refreshed));
    let accepted = |user: &str| kamailio.output().matches(&format!("REGISTER sip:{user}@")).count();
    assert_eq!(["a1", "a2", "a3"].map(accepted), [1, 1, 0], "{}", kamailio.output());
    // Between two phones of the access side the SBC sees each call twice, from the phone and from the core.
    let calls = "SELECT count(*) FROM call WHERE cause = 'bye' AND status = 200";
    stage.sbc.eventually_sql(calls, "6", SOON).unwrap();
    stage.close([one, other, guesser, core]).unwrap();
}

#[test]
fn baresip_and_linphone_at_a_registrar_in_the_core_over_udp() {
    through_the_core([Kind::Baresip, Kind::Linphone], "udp", "udp");
}

#[test]
fn linphone_and_baresip_at_a_registrar_in_the_core_over_tcp() {
    through_the_core([Kind::Linphone, Kind::Baresip], "tcp", "tcp");
}

#[test]
#[ignore = "every pair of transports: make test-phones"]
fn everybody_at_a_registrar_in_the_core() {
    for kinds in
        [[Kind::Baresip, Kind::Linphone], [Kind::Linphone, Kind::Pjsua], [Kind::Pjsua, Kind::Baresip]]
    {
        for (transport, upstream) in [("udp", "udp"), ("udp", "tcp"), ("tcp", "udp"), ("tcp", "tcp")] {
            eprintln!("{kinds:?} {transport} {upstream}");
            through_the_core(kinds, transport, upstream);
        }
    }
}
