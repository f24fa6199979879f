//! Phones that speak ICE: the relay first, then each other, and back.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::net::IpAddr;
use std::time::Duration;

use crush_tests::hearing::is_rtp_to;
use crush_tests::network::SBC;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::process::run;
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::{Network, sbc, skip_unless_possible};

const USERS: [(&str, Network); 2] = [("a1", Network::Access), ("a2", Network::Access)];
/// A pause that nobody hears; and one that a call which policy wants back may have.
const GAP: Duration = Duration::from_millis(60);
const RECALL_GAP: Duration = Duration::from_millis(150);
/// PJSIP reports about every five seconds.
const CUT: Duration = Duration::from_secs(7);

/// The first calls the second; true of those that speak ICE, and of those behind a NAT of their own.
fn call(name: &str, kinds: [Kind; 2], ice: [bool; 2], behind_nats: bool) -> (Stage, [Extension; 2]) {
    let realms = sbc::phones_with("release = \"allow\"");
    let mut stage = Stage::new(name, &realms, &sbc::subscribers(&USERS)).unwrap();
    let mut phones = [0, 1].map(|index| {
        let account = Account { ice: ice[index], ..Account::of(USERS[index].0, Network::Access, "udp") };
        if behind_nats {
            stage.phone_behind_nat(kinds[index], &account, Duration::from_secs(60)).unwrap()
        } else {
            stage.phone(kinds[index], Network::Access, &account).unwrap()
        }
    });
    phones.iter_mut().for_each(|phone| phone.registered().unwrap());
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    let [one, other] = &mut phones;
    one.dial(USERS[1].0).unwrap();
    other.wait(Event::Incoming).unwrap();
    other.phone.answer().unwrap();
    one.wait(Event::Established).unwrap();
    other.wait(Event::Established).unwrap();
    one.hears(other).unwrap();
    other.hears(one).unwrap();
    // The relay first.
    for (phone, mark) in phones.iter_mut().zip(marks) {
        assert_eq!(heard(phone, mark).first().map(|heard| heard.0), Some(relay()));
    }
    (stage, phones)
}

fn relay() -> IpAddr {
    Network::Access.address(SBC).parse().unwrap()
}

/// Since a mark: from where a phone's RTP came, one after the other, and the longest pause up to the end of each.
fn heard(phone: &mut Extension, mark: usize) -> Vec<(IpAddr, Duration)> {
    let address = phone.address;
    let mut found: Vec<(IpAddr, Duration)> = Vec::new();
    let mut last = None;
    for packet in phone.tap().since(mark).unwrap().iter().filter(|packet| is_rtp_to(packet, address)) {
        let pause = packet.at.saturating_sub(last.replace(packet.at).unwrap_or(packet.at));
        match found.last_mut().filter(|latest| latest.0 == packet.source.ip()) {
            Some(latest) => latest.1 = latest.1.max(pause),
            None => found.push((packet.source.ip(), pause)),
        }
    }
    found
}

/// Waits for an entry of the path's timeline, of those after the first `past`.
fn path(stage: &Stage, past: usize, what: &str, why: &str, within: Duration) {
    let query = format!("SELECT count(*) > {past} FROM call_path WHERE what = '{what}' AND why = '{why}'");
    if let Err(failure) = stage.sbc.eventually_sql(&query, "t", within) {
        panic!("{failure}\n{}", story(stage));
    }
}

fn story(stage: &Stage) -> String {
    stage.sbc.sql("SELECT after_ms, what, why, party, evidence FROM call_path").unwrap()
}

/// Since the marks media has come to come from `to`, without a pause of more than `limit`.
fn moved(stage: &Stage, phones: &mut [Extension; 2], marks: [usize; 2], to: [IpAddr; 2], limit: Duration) {
    std::thread::sleep(Duration::from_secs(1));
    for (index, mark) in marks.into_iter().enumerate() {
        let heard = heard(&mut phones[index], mark);
        let longest = heard.iter().map(|heard| heard.1).max().unwrap();
        assert_eq!(heard.last().map(|heard| heard.0), Some(to[index]), "{heard:?}\n{}", story(stage));
        assert!(longest <= limit, "{heard:?}\n{}", story(stage));
    }
    let [one, other] = phones;
    one.hears(other).unwrap();
    other.hears(one).unwrap();
}

/// Each hears the other at its own address, or that of its NAT.
fn far_sides(phones: &[Extension; 2], behind_nats: bool) -> [IpAddr; 2] {
    let outside = |index: usize| -> IpAddr {
        if behind_nats {
            Network::Access.address(11 + index as u8).parse().unwrap()
        } else {
            phones[index].address
        }
    };
    [outside(1), outside(0)]
}

fn out_and_back(name: &str, kinds: [Kind; 2], behind_nats: bool) {
    let (stage, mut phones) = call(name, kinds, [true; 2], behind_nats);
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    path(&stage, 0, "direct", "proven", SOON);
    let far = far_sides(&phones, behind_nats);
    moved(&stage, &mut phones, marks, far, GAP);
    // Policy calls it back, and lets it go.
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    stage.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call").unwrap();
    path(&stage, 0, "anchored", "heard", Duration::from_secs(3));
    moved(&stage, &mut phones, marks, [relay(); 2], RECALL_GAP);
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    stage.sbc.sql("SELECT sbc_call_release(id, 'allow') FROM call").unwrap();
    path(&stage, 1, "direct", "proven", SOON);
    moved(&stage, &mut phones, marks, far, GAP);
    // The path breaks.
    let host = if behind_nats { format!("{}-nat", phones[0].user) } else { phones[0].user.clone() };
    let rules = format!(
        "table ip cut {{ chain cut {{ type filter hook prerouting priority -300; ip saddr {} drop; }}; }}",
        far[0]
    );
    run(&["ip", "netns", "exec", &stage.lab.namespace(&host), "nft", &rules]).unwrap();
    path(&stage, 1, "anchored", "heard", CUT);
    let [one, other] = &mut phones;
    one.hears(other).unwrap();
    other.hears(one).unwrap();
    one.phone.hang_up().unwrap();
    other.wait(Event::Ended).unwrap();
    let billed = "SELECT count(*) FROM call WHERE cause = 'bye' AND relayed_ms + direct_ms = duration_ms AND direct_ms > 1000 AND relayed_ms > 2000";
    stage.sbc.eventually_sql(billed, "1", Duration::from_secs(10)).unwrap();
}

#[test]
fn linphone_and_pjsip_of_one_lan() {
    skip_unless_possible!("linphonec", "pjsua2", "curl", "openssl");
    out_and_back("ice", [Kind::Linphone, Kind::Pjsua], false);
}

#[test]
fn pjsip_and_linphone_behind_nats() {
    skip_unless_possible!("linphonec", "pjsua2", "curl", "openssl");
    out_and_back("ice-nats", [Kind::Pjsua, Kind::Linphone], true);
}

#[test]
fn a_phone_with_ice_and_one_without_hear_each_other() {
    skip_unless_possible!("linphonec", "baresip", "curl", "openssl");
    let (stage, phones) = call("ice-plain", [Kind::Linphone, Kind::Baresip], [true, false], false);
    let asked = stage.sbc.sql("SELECT count(*) FROM call_path WHERE what = 'ice'").unwrap();
    assert_eq!(asked.trim(), "0");
    let [mut one, mut other] = phones;
    one.phone.hang_up().unwrap();
    other.wait(Event::Ended).unwrap();
}
