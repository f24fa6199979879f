//! A phone whose connection was gone when its call ended.

use sip_engine::io::ConnectionId;
use sip_engine::ua::{Abilities, Ending};

use crate::line::{ACCESS, Line, address, config, policy};

#[test]
fn a_phone_that_was_away_when_its_call_ended_hears_of_it_when_it_registers_again() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let [alice, bob] = [("alice", "10.0.0.5:5060"), ("bob", "10.0.0.6:5060")]
        .map(|(user, at)| line.add(user, at, ACCESS, Abilities::default()));
    let (before, after) = ("203.0.113.9:41000", "203.0.113.9:42000");
    line.behind_nat(bob, before);
    line.connections.insert(address(before), ConnectionId(1));
    [alice, bob].into_iter().for_each(|phone| line.register(phone));
    let call = line.call(alice, "bob", &[]);
    let incoming = line.accept(bob);
    line.close(before);
    line.hang_up(alice, call);
    assert_eq!(line.ending(bob, incoming), None);
    line.behind_nat(bob, after);
    line.connections.insert(address(after), ConnectionId(2));
    line.register(bob);
    assert_eq!(line.ending(bob, incoming), Some(Ending::Bye));
    // Once is enough.
    let byes = line.sent.len();
    line.register(bob);
    assert!(line.sent[byes..].iter().all(|(_, sent)| sent.method().is_none()));
}
