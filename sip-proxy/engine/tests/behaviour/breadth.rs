//! How many phones one request may ring at once (RFC 5393 §5).

use std::net::SocketAddr;

use sip_engine::ua::{Abilities, Ending};
use sip_wire::{Method, Name};

use crate::line::{ACCESS, CORE, Line, address, config, policy, trunk};

/// Alice, and three phones of bob's.
fn line() -> (Line, SocketAddr, [SocketAddr; 3]) {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let alice = line.add("alice", "10.0.0.5:5060", ACCESS, Abilities::default());
    let bobs = ["10.0.0.6:5060", "10.0.0.7:5060", "10.0.0.8:5060"]
        .map(|at| line.add("bob", at, ACCESS, Abilities::default()));
    [alice].iter().chain(&bobs).for_each(|phone| line.register(*phone));
    line.sent.clear();
    (line, alice, bobs)
}

/// Who was invited, and with which breadth.
fn invited(line: &Line) -> Vec<(SocketAddr, String)> {
    let invites = line.sent.iter().filter(|(_, sent)| sent.method() == Some(Method::INVITE));
    let breadth = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    invites.map(|(to, sent)| (*to, breadth(sent.value(Name::MaxBreadth)))).collect()
}

#[test]
fn what_a_caller_allows_is_divided_among_the_phones_that_ring() {
    let (mut line, alice, _) = line();
    line.call(alice, "bob", &[]);
    assert_eq!(invited(&line).into_iter().map(|one| one.1).collect::<Vec<_>>(), ["20", "20", "20"]);
    let (mut line, alice, _) = self::line();
    line.call(alice, "bob", &[("Max-Breadth", "8")]);
    assert_eq!(invited(&line).into_iter().map(|one| one.1).collect::<Vec<_>>(), ["4", "2", "2"]);
}

#[test]
fn whom_it_does_not_suffice_for_rings_when_another_has_refused() {
    let (mut line, alice, bobs) = line();
    let call = line.call(alice, "bob", &[("Max-Breadth", "2")]);
    let rung = invited(&line);
    assert_eq!(rung.iter().map(|one| &*one.1).collect::<Vec<_>>(), ["1", "1"]);
    let last = *bobs.iter().find(|phone| rung.iter().all(|one| one.0 != **phone)).unwrap();
    let (incoming, _) = line.incoming(rung[0].0).unwrap();
    line.by(rung[0].0, |agent, now| agent.refuse(incoming, 486, now)).unwrap();
    assert_eq!(invited(&line).last(), Some(&(last, "1".to_owned())));
    line.accept(last);
    assert_eq!(line.ending(alice, call), None);
    assert!(line.cause().is_none());
}

#[test]
fn nothing_is_sent_on_where_nothing_is_allowed_and_nobody_may_allow_more_than_we_do() {
    let (mut line, alice, _) = line();
    let call = line.call(alice, "bob", &[("Max-Breadth", "0")]);
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(440)));
    assert!(invited(&line).is_empty());
    line.add("4930", "198.51.100.9:5060", CORE, Abilities::default());
    line.call(alice, "4930", &[("Max-Breadth", "4000")]);
    assert_eq!(invited(&line), [(address("198.51.100.9:5060"), "60".to_owned())]);
}
