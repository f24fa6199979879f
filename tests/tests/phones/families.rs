//! IPv6 on the access side, IPv4 on the core side.

use crush_tests::phone::{Account, Kind};
use crush_tests::stage::Stage;
use crush_tests::{Network, sbc, skip_unless_possible};

use crate::cast::{call, hang_up, phone};

fn across(kind: Kind, transport: &'static str) {
    skip_unless_possible!(kind.program(), "baresip", "curl", "openssl");
    let domain = format!("[{}]", Network::Access.address6(1));
    let seed = format!("SELECT sbc_set_password('{domain}', 'a1', 'secret');");
    let seed = seed + &sbc::subscribers(&[("c1", Network::Core)]);
    let mut stage = Stage::new("families", &sbc::phones_of_both_families(), &seed).unwrap();
    let account = Account {
        domain: domain.clone(),
        proxy: domain.clone(),
        ..Account::of("a1", Network::Access, transport)
    };
    let mut six = stage.phone6(kind, Network::Access, &account).unwrap();
    six.registered().unwrap();
    let mut four = phone(&mut stage, Kind::Baresip, "c1", "udp");
    call(&mut six, &mut four);
    hang_up(&mut four, &mut six);
    call(&mut four, &mut six);
    hang_up(&mut four, &mut six);
    stage.close([six, four]).unwrap();
}

#[test]
fn baresip_with_ipv6_and_one_with_ipv4_hear_each_other() {
    across(Kind::Baresip, "udp");
}

#[test]
fn linphone_with_ipv6_and_baresip_with_ipv4_hear_each_other() {
    across(Kind::Linphone, "tcp");
}

#[test]
#[ignore = "two products over every transport: make test-phones"]
fn everybody_with_ipv6_is_heard_over_ipv4() {
    for kind in [Kind::Baresip, Kind::Linphone] {
        for transport in ["udp", "tcp", "tls"] {
            eprintln!("{kind:?} {transport}");
            across(kind, transport);
        }
    }
}
