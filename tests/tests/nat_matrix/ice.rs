//! The same networks with two standard ICE phones (PJSIP), a proxy (Kamailio), and a TURN server (coturn) in the place of the relay.

use crush_tests::home;
use crush_tests::kamailio;
use crush_tests::phone::{Account, Event, Phone};
use crush_tests::pjsua::Pjsua;
use crush_tests::process::eventually;
use crush_tests::{Network, Result};

use crate::SOON;
use crate::audio::FirstAudio;
use crate::scene::{Cell, Party, places};

/// What is heard first in each of some calls of theirs.
pub(super) fn calls(cell: &Cell, runs: usize) -> Result<Vec<FirstAudio>> {
    let (mut lab, _homes, hosts) = places(cell)?;
    let proxy = lab.host("proxy", Network::Access, 40)?;
    let relay = lab.host("turn", Network::Access, 30)?;
    let _registrar = kamailio::start(&lab, "proxy", &proxy)?;
    let _turn = home::turn(&lab, "turn", &[&relay])?;
    let mut parties = Vec::new();
    for (user, (host, address)) in ["a", "b"].into_iter().zip(&hosts) {
        let tap = lab.capture_at(host, "eth0")?;
        let account = Account {
            domain: proxy.clone(),
            proxy: proxy.clone(),
            ice: true,
            turn: Some(relay.clone()),
            ..Account::of(user, Network::Access, "udp")
        };
        let phone = Pjsua::start(&lab, host, address, &account, 500.0)?;
        parties.push(Party { phone, tap, address: address.parse().unwrap() });
    }
    for party in &mut parties {
        party.phone.registered(SOON)?;
    }
    let mut parties = <[_; 2]>::try_from(parties).unwrap_or_else(|_| unreachable!());
    (0..runs).map(|_| call(&mut parties, &proxy)).collect()
}

fn call(parties: &mut [Party<Pjsua>; 2], proxy: &str) -> Result<FirstAudio> {
    let marks = parties.each_mut().map(|party| party.tap.mark().unwrap());
    let [caller, callee] = &mut *parties;
    caller.phone.dial(&format!("sip:b@{proxy}"))?;
    callee.phone.wait(Event::Incoming, SOON)?;
    callee.phone.answer()?;
    for party in &mut *parties {
        party.phone.wait(Event::Established, SOON)?;
    }
    let mut audio = FirstAudio::default();
    eventually(SOON, || {
        audio = FirstAudio::of(parties, marks).unwrap();
        audio.is_whole()
    });
    let [caller, callee] = parties;
    caller.phone.hang_up()?;
    callee.phone.wait(Event::Ended, SOON)?;
    caller.phone.wait(Event::Ended, SOON)?;
    Ok(audio)
}
