//! A telephone that speaks info packages, and one that changes its network.

use std::time::Duration;

use play::settings::signalling::{flow, listener};
use seam::Action;
use sip_engine::io::Transport;
use sip_engine::ua::{Ending, Event, Info};

use crate::line::{ACCESS, Line, PACKAGE, SDP, TWO, address, config, sbc};

const HOUR: Duration = Duration::from_secs(3600);

fn two_phones() -> (Line, [std::net::SocketAddr; 2]) {
    Line::joined(config(), TWO)
}

#[test]
fn info_of_a_package_that_both_ends_know_arrives_and_another_is_refused_with_469() {
    let (mut line, [alice, bob]) = two_phones();
    let call = line.call(alice, "bob", &[]);
    line.accept(bob);
    let invite = line.incoming(bob).map(|(_, invite)| invite.named("Recv-Info").map(<[u8]>::to_vec));
    assert_eq!(invite, Some(Some(PACKAGE.into())));
    for (package, status) in [(PACKAGE, 200), ("dtmf", 469)] {
        let info = Info { package, content_type: b"text/plain", body: "a=x".into() };
        line.by(alice, |agent, now| agent.info_of(call, info, now)).unwrap();
        let done = |(at, event): &(_, Event)| matches!(event, Event::Done { method: "INFO", status: s, .. } if (*at, *s) == (alice, status));
        assert!(line.events.iter().any(done), "{package}: {:?}", line.events.last());
    }
    let came = line.events.iter().filter_map(|(at, event)| match event {
        Event::Info { request, .. } if *at == bob => Some(request),
        _ => None,
    });
    let came: Vec<_> = came.collect();
    assert_eq!(came.len(), 1);
    assert_eq!(came[0].named("Info-Package"), Some(PACKAGE.as_bytes()));
    assert_eq!(came[0].named("Content-Disposition"), Some(b"Info-Package".as_slice()));
}

/// Alice trickles a fragment that names her network; the status that she hears, and what bob received.
fn trickled(shown: Option<&'static str>) -> (Option<u16>, Vec<bytes::Bytes>) {
    const SAID: &str = "a=candidate:1 1 UDP 2130706431 10.0.0.5 4000 typ host\r\n";
    let (mut line, [alice, bob]) = two_phones();
    let call = line.call(alice, "bob", &[]);
    line.accept(bob);
    line.fragment = shown.map(Into::into);
    let content_type = b"application/trickle-ice-sdpfrag";
    line.by(alice, |agent, now| {
        agent.info_of(call, Info { package: PACKAGE, content_type, body: SAID.into() }, now)
    })
    .unwrap();
    let asked = line.media.iter().filter(
        |request| matches!(&request.action, Action::Trickle { fragment, .. } if *fragment == SAID.as_bytes()),
    );
    assert_eq!(asked.count(), 1);
    let mut status = None;
    let mut came = Vec::new();
    for (at, event) in &line.events {
        match event {
            Event::Done { method: "INFO", status: heard, .. } if *at == alice => status = Some(*heard),
            Event::Info { request, .. } if *at == bob => came.push(request.body_bytes()),
            _ => {}
        }
    }
    (status, came)
}

#[test]
fn candidates_pass_as_media_shows_them_and_end_here_if_it_shows_nothing() {
    let shown = "a=candidate:1 1 UDP 1 203.0.113.9 4000 typ srflx\r\n";
    assert_eq!(trickled(Some(shown)), (Some(200), vec![shown.into()]));
    assert_eq!(trickled(None), (Some(200), Vec::new()));
}

#[test]
fn a_phone_that_moves_in_mid_call_registers_and_offers_again_and_the_far_bye_finds_it() {
    let (mut line, [alice, bob]) = two_phones();
    let call = line.call(alice, "bob", &[]);
    let incoming = line.accept(bob);
    let elsewhere = address("10.0.7.7:5062");
    let mut agent = line.agents.remove(&alice).unwrap();
    let now = line.time();
    agent.moved(vec![listener(0, Transport::Udp, elsewhere)], flow(ACCESS, sbc(ACCESS)), now);
    agent.register(HOUR, now);
    agent.reinvite(call, Some(SDP), now).unwrap();
    line.agents.insert(elsewhere, agent);
    line.settle();
    line.hang_up(bob, incoming);
    assert_eq!(line.ending(elsewhere, call), Some(Ending::Bye));
    // New calls find it there, too.
    line.call(bob, "alice", &[]);
    assert!(line.incoming(elsewhere).is_some());
}

/// Alice and bob talk, and she sends him to carol; the line, alice's call, and carol at her port.
fn referred() -> (Line, std::net::SocketAddr, std::net::SocketAddr, sip_engine::ua::CallNumber) {
    let (mut line, [alice, bob]) = two_phones();
    let carol = line.join("carol", "10.0.0.7:5060");
    let call = line.call(alice, "bob", &[]);
    line.accept(bob);
    line.by(alice, |agent, now| agent.refer(call, b"sip:carol@example.net", now)).unwrap();
    obey(&mut line, bob);
    (line, alice, carol, call)
}

/// A phone does what a REFER asks of it.
fn obey(line: &mut Line, phone: std::net::SocketAddr) {
    let asked = line.events.iter().rev().find_map(|(at, event)| match event {
        Event::TransferRequested { call, .. } if *at == phone => Some(*call),
        _ => None,
    });
    let invite = sip_engine::ua::Invite { offer: Some(SDP), ..Default::default() };
    line.by(phone, |agent, now| agent.accept_transfer(asked.unwrap(), invite, now)).unwrap();
}

#[test]
fn who_has_transferred_a_call_leaves_it_when_the_two_talk_and_not_before() {
    let (mut line, alice, carol, call) = referred();
    line.pass(Duration::from_secs(5));
    assert_eq!(line.ending(alice, call), None);
    line.accept(carol);
    assert_eq!(line.ending(alice, call), Some(Ending::HungUp));
    assert_eq!(line.agents[&alice].calls().count(), 0);
    assert!(line.agents[&alice].has_taken_leave());
    assert_eq!(line.agents[&carol].calls().count(), 1);
}

#[test]
fn a_transfer_that_fails_leaves_the_call_as_it_was() {
    let (mut line, alice, carol, call) = referred();
    let refused = line.incoming(carol).unwrap().0;
    line.by(carol, |agent, now| agent.refuse(refused, 486, now)).unwrap();
    line.pass(Duration::from_secs(5));
    let told = line.events.iter().any(|(at, event)| {
        matches!(event, Event::TransferProgress { status: 486, is_last: true, .. } if *at == alice)
    });
    assert!(told);
    assert_eq!(line.ending(alice, call), None);
    assert_eq!(line.agents[&alice].calls().count(), 1);
}

#[test]
fn who_has_joined_two_calls_leaves_both() {
    let (mut line, [alice, bob]) = two_phones();
    let carol = line.join("carol", "10.0.0.7:5060");
    let first = line.call(alice, "bob", &[]);
    line.accept(bob);
    let second = line.call(alice, "carol", &[]);
    line.accept(carol);
    line.by(alice, |agent, now| agent.refer_to_call(first, second, now)).unwrap();
    obey(&mut line, bob);
    assert_eq!(line.agents[&alice].calls().count(), 2);
    line.accept(carol);
    assert_eq!(line.agents[&alice].calls().count(), 0);
    assert_eq!(line.ending(alice, first), Some(Ending::HungUp));
    assert_eq!([bob, carol].map(|phone| line.agents[&phone].calls().count()), [1, 1]);
}
