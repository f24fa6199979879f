//! What a call's record says of each target that it went to.

use std::net::SocketAddr;
use std::time::Duration;

use sip_engine::event::{CallEventKind, CallLeg};
use sip_engine::ua::Abilities;

use crate::line::{CORE, DOMAIN, Line, address, config, policy, trunk};

const SECOND: Duration = Duration::from_secs(1);

/// Of the last call that has ended.
fn legs(line: &Line) -> Vec<CallLeg> {
    let ended = line.records.iter().rev().find_map(|record| match &record.what {
        CallEventKind::Ended(ended) => Some(ended.legs.clone()),
        _ => None,
    });
    ended.expect("a call that has ended")
}

fn ring(line: &mut Line, phone: SocketAddr) {
    let call = line.incoming(phone).unwrap().0;
    line.by(phone, |agent, now| agent.ring(call, 180, None, now)).unwrap();
    line.settle();
}

/// Who each is, what became of it, and who had sent the call there.
fn stories(line: &Line) -> Vec<(String, Option<u16>, Option<String>)> {
    let told = |leg: CallLeg| (leg.reached.to_string(), leg.status, leg.sent_by.map(|by| by.to_string()));
    legs(line).into_iter().map(told).collect()
}

#[test]
fn every_phone_that_rang_is_there_with_its_times_and_what_it_said() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let alice = line.join("alice", "10.0.0.5:5060");
    let phones = ["10.0.0.6:5060", "10.0.0.7:5060", "10.0.0.8:5060"].map(|at| line.join("bob", at));
    let call = line.call(alice, "bob", &[]);
    phones.iter().for_each(|phone| ring(&mut line, *phone));
    line.pass(SECOND);
    let (refused, _) = line.incoming(phones[0]).unwrap();
    line.by(phones[0], |agent, now| agent.refuse(refused, 486, now)).unwrap();
    line.settle();
    line.pass(SECOND);
    line.accept(phones[1]);
    line.pass(SECOND);
    line.hang_up(alice, call);
    line.pass(SECOND);
    let mut legs = legs(&line);
    legs.sort_by_key(|leg| leg.destination);
    let bob = format!("bob@{DOMAIN}");
    assert!(
        legs.iter().all(|leg| *leg.reached == bob && leg.trunk.is_none() && &*leg.realm == "access"),
        "{legs:?}"
    );
    assert_eq!(legs.iter().map(|leg| leg.destination).collect::<Vec<_>>(), phones.map(Some));
    assert_eq!(legs.iter().map(|leg| leg.status).collect::<Vec<_>>(), [Some(486), Some(200), Some(487)]);
    assert!(legs.iter().all(|leg| leg.asked.unwrap() < SECOND && leg.rang.unwrap() < SECOND), "{legs:?}");
    let mut parties: Vec<u16> = legs.iter().map(|leg| leg.party).collect();
    parties.sort_unstable();
    assert_eq!(parties, [1, 2, 3]);
}

#[test]
fn a_silent_trunk_and_the_next_one_are_both_there() {
    let trunks = vec![trunk("first", "203.0.113.1", None), trunk("second", "203.0.113.2", None)];
    let mut line = Line::new(config(), policy(trunks));
    let alice = line.join("alice", "10.0.0.5:5060");
    let second = line.add("2", "203.0.113.2:5060", CORE, Abilities::default());
    let call = line.call(alice, "123", &[]);
    line.pass(SECOND * 10);
    line.accept(second);
    line.hang_up(alice, call);
    line.pass(SECOND);
    let legs = legs(&line);
    let told: Vec<_> = legs.iter().map(|leg| (leg.trunk.as_deref(), leg.destination, leg.status)).collect();
    let [one, two] = ["203.0.113.1:5060", "203.0.113.2:5060"].map(|at| Some(address(at)));
    assert_eq!(told, [(Some("first"), one, Some(408)), (Some("second"), two, Some(200))]);
    assert!(legs[1].asked > legs[0].asked && legs[0].rang.is_none(), "{legs:?}");
}

#[test]
fn who_sent_the_call_on_stands_beside_where_it_went() {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let (alice, bob) = (line.join("alice", "10.0.0.5:5060"), line.join("bob", "10.0.0.6:5060"));
    let call = line.call(alice, "4930", &[]);
    line.answer_by_hand(address("198.51.100.9:5060"), 302, &format!("Contact: <sip:bob@{DOMAIN}>\r\n"));
    line.accept(bob);
    line.hang_up(alice, call);
    line.pass(SECOND);
    let by_trunk = ("sip:4930@198.51.100.9".to_owned(), Some(302), None);
    assert_eq!(stories(&line), [by_trunk, (format!("bob@{DOMAIN}"), Some(200), Some("carrier".to_owned()))]);
}

#[test]
fn of_a_call_that_is_cancelled_who_has_said_nothing_final_has_no_status() {
    let mut line = Line::new(config(), policy(Vec::new()));
    let (alice, bob) = (line.join("alice", "10.0.0.5:5060"), line.join("bob", "10.0.0.6:5060"));
    let call = line.call(alice, "bob", &[]);
    ring(&mut line, bob);
    line.pass(SECOND);
    line.cut.push(bob);
    line.hang_up(alice, call);
    line.pass(SECOND);
    assert_eq!(stories(&line), [(format!("bob@{DOMAIN}"), None, None)]);
    assert_eq!(legs(&line)[0].rang.map(|rang| rang < SECOND), Some(true));
}
