//! Which trunk a call goes to.

use std::time::Duration;

use sip_engine::ua::{Abilities, Ending};
use sip_wire::Method;

use crate::line::{CORE, Line, address, config, policy, trunk};

const FIRST: &str = "203.0.113.1:5060";
const SECOND: &str = "203.0.113.2:5060";

fn line(ping: Option<Duration>) -> (Line, std::net::SocketAddr) {
    let trunks = vec![trunk("first", "203.0.113.1", ping), trunk("second", "203.0.113.2", ping)];
    let mut line = Line::new(config(), policy(trunks));
    let alice = line.join("alice", "10.0.0.5:5060");
    line.add("1", FIRST, CORE, Abilities::default());
    line.add("2", SECOND, CORE, Abilities::default());
    (line, alice)
}

fn invites(line: &Line, to: &str) -> usize {
    let is_it = |message: &sip_wire::Message| message.method() == Some(Method::INVITE);
    line.sent.iter().filter(|(at, message)| *at == address(to) && is_it(message)).count()
}

#[test]
fn a_trunk_that_asks_for_rest_is_left_alone_until_then() {
    let (mut line, alice) = line(None);
    line.call(alice, "123", &[]);
    let (call, _) = line.incoming(address(FIRST)).expect("the first trunk is asked first");
    let now = line.time();
    line.agents
        .get_mut(&address(FIRST))
        .unwrap()
        .refuse_for(call, 503, Duration::from_secs(60), now)
        .unwrap();
    line.settle();
    assert_eq!((invites(&line, FIRST), invites(&line, SECOND)), (1, 1), "the call goes on at the second");
    line.accept(address(SECOND));
    line.call(alice, "124", &[]);
    assert_eq!((invites(&line, FIRST), invites(&line, SECOND)), (1, 2));
    line.pass(Duration::from_secs(61));
    line.call(alice, "125", &[]);
    assert_eq!(invites(&line, FIRST), 2);
}

#[test]
fn a_trunk_that_answers_no_ping_is_tried_last_until_it_does() {
    let (mut line, alice) = line(Some(Duration::from_secs(10)));
    line.cut.push(address(FIRST));
    line.pass(Duration::from_secs(60));
    line.call(alice, "123", &[]);
    assert_eq!((invites(&line, FIRST), invites(&line, SECOND)), (0, 1));
    line.cut.clear();
    line.pass(Duration::from_secs(60));
    line.call(alice, "124", &[]);
    assert_eq!(invites(&line, FIRST), 1);
}

#[test]
fn when_all_trunks_are_dead_they_are_tried_all_the_same() {
    let (mut line, alice) = line(Some(Duration::from_secs(10)));
    line.cut = vec![address(FIRST), address(SECOND)];
    line.pass(Duration::from_secs(60));
    line.cut.clear();
    line.call(alice, "123", &[]);
    assert_eq!(invites(&line, FIRST), 1);
}

#[test]
fn a_busy_line_is_not_tried_at_the_next_trunk() {
    let (mut line, alice) = line(None);
    let call = line.call(alice, "123", &[]);
    let (incoming, _) = line.incoming(address(FIRST)).unwrap();
    line.by(address(FIRST), |agent, now| agent.refuse(incoming, 486, now)).unwrap();
    assert_eq!(invites(&line, SECOND), 0);
    assert_eq!(line.ending(alice, call), Some(Ending::Refused(486)));
}
