//! Routers open ports for calls of the softphone, and close them when the call is over.
#![allow(clippy::unwrap_used, reason = "a laboratory that fails ends its test")]

use std::time::Duration;

use crush_tests::home::{Home, Player};
use crush_tests::process::{eventually, run};
use crush_tests::{Lab, skip_unless_possible, softphone};
use nat_lab::nft::Rules;

/// Where the router sends what comes to ports that it opened.
fn open_ports(lab: &Lab) -> String {
    let chain = ["nft", "list", "chain", "inet", "filter", "prerouting_miniupnpd"];
    run(&[&["ip", "netns", "exec", &lab.namespace("a")][..], &chain].concat()).unwrap()
}

#[test]
fn a_router_opens_the_port_of_a_call_and_closes_it_afterwards() {
    skip_unless_possible!("miniupnpd");
    opens_and_closes(None);
}

#[test]
fn a_router_that_only_knows_upnp_does_so_too() {
    skip_unless_possible!("miniupnpd");
    // PCP and NAT-PMP live at this port.
    opens_and_closes(Some(
        "table ip mute { chain input { type filter hook input priority 0; udp dport 5351 drop; }; }",
    ));
}

fn opens_and_closes(rules: Option<&str>) {
    let mut lab = Lab::new("mapping").unwrap();
    let mut home = Home::new(&mut lab, "a", Player::Upnp(Rules::SymmetricRandom), 20, &[]).unwrap();
    let (host, address) = home.host(&mut lab).unwrap();
    if let Some(rules) = rules {
        run(&["ip", "netns", "exec", &lab.namespace("a"), "nft", rules]).unwrap();
    }
    let program = softphone::program();
    // Nobody answers there: the call rings in vain, which is long enough.
    let account = ["--register", "sip:alice@198.51.100.1", "--expires", "0"];
    let call = ["--call", "sip:bob@198.51.100.1", "--json"];
    let mut phone = lab.start(&host, "phone", &[&[program.as_str()][..], &account, &call].concat()).unwrap();
    phone.says("\"event\":\"mapped\"", Duration::from_secs(10)).unwrap();
    let told = phone.output();
    assert!(told.contains(&format!("\"address\":\"{}:", home.external())), "{told}");
    let opened = open_ports(&lab);
    assert!(opened.contains(&format!("dnat ip to {address}:")), "{opened}");
    phone.write(b"quit\n").unwrap();
    assert!(eventually(Duration::from_secs(10), || !open_ports(&lab).contains("dnat")));
}
