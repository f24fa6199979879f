//! Who is registered over which flow, and for how long.

use std::time::Duration;

use sip_engine::config::{Authentication, Keepalive};
use sip_engine::ua::{Abilities, Ending};

use crate::line::{ACCESS, DOMAIN, Line, Snapshot, config};

#[test]
fn two_subscribers_of_one_gateway_are_each_told_from_the_other() {
    let mut registered = config();
    registered.realms[0].authentication = Authentication::RegisteredFlow;
    let mut line = Line::new(registered, Snapshot::default());
    let carol = line.add("carol", "10.0.0.9:5060", ACCESS, Abilities::default());
    line.register(carol);
    // One address, two accounts, one after the other.
    let gateway = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.register(gateway);
    line.add("bob", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.register(gateway);
    for user in ["alice", "bob"] {
        line.add(user, "10.0.0.5:5060", ACCESS, Abilities::default());
        line.call(gateway, "carol", &[]);
        let from = line.incoming(carol).unwrap().1.from().unwrap();
        assert_eq!(from.uri.as_bytes(), format!("sip:{user}@{DOMAIN}").as_bytes());
    }
    // A third name is nobody's here.
    line.add("mallory", "10.0.0.5:5060", ACCESS, Abilities::default());
    let call = line.call(gateway, "carol", &[]);
    assert_eq!(line.ending(gateway, call), Some(Ending::Refused(403)));
}

#[test]
fn a_phone_behind_nat_hears_a_keepalive_every_interval_until_its_binding_expires() {
    let mut config = config();
    let interval = Duration::from_secs(20);
    config.realms[0].keepalive = Some(Keepalive { interval, options: true });
    let mut line = Line::new(config, Snapshot::default());
    let phone = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    line.behind_nat(phone, "203.0.113.9:41000");
    line.register(phone);
    line.sent.clear();
    line.pass(Duration::from_secs(205));
    let count = |line: &Line| {
        let pings = line.sent.iter().filter(|(_, message)| {
            message.method().is_some_and(|method| method == sip_wire::Method::OPTIONS)
        });
        pings.count()
    };
    assert_eq!(count(&line), 11);
    line.sent.clear();
    line.agents.clear();
    line.pass(Duration::from_secs(7200));
    let after = count(&line);
    assert!((160..=180).contains(&after), "{after}");
    assert_eq!(line.engine.sizes().2, 0);
}
