//! Media of real phones of one LAN leaves the relay, is proven by their reports, and comes back when policy calls.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::net::IpAddr;
use std::time::Duration;

use crush_tests::hearing::is_rtp_to;
use crush_tests::network::SBC;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::stage::{Extension, Stage};
use crush_tests::{Network, sbc, skip_unless_possible};

const USERS: [(&str, Network); 2] = [("a1", Network::Access), ("a2", Network::Access)];
/// From answer to proof, and a look at the database.
const TO_DIRECT: Duration = Duration::from_secs(13);
/// Looking at a database takes its time too.
const RETURN: Duration = Duration::from_secs(3);

/// Two phones of the access network, in a call that was just answered.
fn call(name: &str, kinds: [Kind; 2]) -> (Stage, [Extension; 2]) {
    let realms = sbc::phones_with("release = \"allow\"\nlan_release = true");
    let mut stage = Stage::new(name, &realms, &sbc::subscribers(&USERS)).unwrap();
    let mut phones = [0, 1].map(|index| {
        let account = Account::of(USERS[index].0, Network::Access, "udp");
        stage.phone(kinds[index], Network::Access, &account).unwrap()
    });
    phones.iter_mut().for_each(|phone| phone.registered().unwrap());
    let [one, other] = &mut phones;
    one.dial(USERS[1].0).unwrap();
    other.wait(Event::Incoming).unwrap();
    other.phone.answer().unwrap();
    one.wait(Event::Established).unwrap();
    other.wait(Event::Established).unwrap();
    (stage, phones)
}

/// Waits for a state of the path, with its reason.
fn path(stage: &Stage, what: &str, why: &str, within: Duration) {
    let query = format!("SELECT count(*) > 0 FROM call_path WHERE what = '{what}' AND why = '{why}'");
    if let Err(failure) = stage.sbc.eventually_sql(&query, "t", within) {
        panic!("{failure}\n{}", story(stage));
    }
}

fn story(stage: &Stage) -> String {
    stage.sbc.sql("SELECT after_ms, what, why, party, evidence FROM call_path").unwrap()
}

fn relay() -> IpAddr {
    Network::Access.address(SBC).parse().unwrap()
}

/// The longest pause in the RTP that reaches a phone since a mark, and whence its last half second came.
fn heard(phone: &mut Extension, mark: usize) -> (Duration, Vec<IpAddr>) {
    let address = phone.address;
    let packets = phone.tap().since(mark).unwrap();
    let rtp: Vec<_> = packets.iter().filter(|packet| is_rtp_to(packet, address)).collect();
    let gap = rtp.windows(2).map(|pair| pair[1].at.saturating_sub(pair[0].at)).max().unwrap_or_default();
    let last = rtp.last().map(|packet| packet.at).unwrap_or_default();
    let mut sources: Vec<IpAddr> = rtp
        .iter()
        .filter(|packet| packet.at + Duration::from_millis(500) > last)
        .map(|packet| packet.source.ip())
        .collect();
    sources.sort();
    sources.dedup();
    (gap, sources)
}

/// A pause that may be heard: PJSIP throws the first packets of a new source away, which is no pause on the wire.
const GAP: Duration = Duration::from_millis(200);

/// Out, proven, heard; called back by an operator, heard again; and billed to the millisecond.
fn leaves_and_comes_back(name: &str, kinds: [Kind; 2]) {
    let (stage, mut phones) = call(name, kinds);
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    path(&stage, "direct", "proven", TO_DIRECT);
    std::thread::sleep(Duration::from_secs(1));
    for (index, mark) in marks.into_iter().enumerate() {
        let far = phones[1 - index].address;
        let (gap, sources) = heard(&mut phones[index], mark);
        assert_eq!(sources, [far], "{}", story(&stage));
        assert!(gap <= GAP, "{gap:?}\n{}", story(&stage));
    }
    let [one, other] = &mut phones;
    one.hears(other).unwrap();
    other.hears(one).unwrap();
    let marks = phones.each_mut().map(|phone| phone.mark().unwrap());
    stage.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call").unwrap();
    path(&stage, "anchored", "heard", RETURN);
    std::thread::sleep(Duration::from_secs(1));
    for (index, mark) in marks.into_iter().enumerate() {
        let (gap, sources) = heard(&mut phones[index], mark);
        assert_eq!(sources, [relay()], "{}", story(&stage));
        assert!(gap <= GAP, "{gap:?}\n{}", story(&stage));
    }
    let [one, other] = &mut phones;
    one.hears(other).unwrap();
    other.hears(one).unwrap();
    one.phone.hang_up().unwrap();
    other.wait(Event::Ended).unwrap();
    let billed = "SELECT count(*) FROM call WHERE cause = 'bye' AND relayed_ms + direct_ms = duration_ms AND direct_ms > 1000 AND relayed_ms > 2000";
    stage.sbc.eventually_sql(billed, "1", Duration::from_secs(10)).unwrap();
}

// Seen so far: baresip with linphone and two linphones pass. Two baresips come back unproven, because baresip begins its report interval
// anew at each re-INVITE (docs/release.md); no pair with PJSIP has been tried.

#[test]
#[ignore = "make test-release; fails: two baresips report too late"]
fn two_baresips_of_one_lan() {
    skip_unless_possible!("baresip", "curl", "openssl");
    leaves_and_comes_back("release", [Kind::Baresip, Kind::Baresip]);
}

#[test]
#[ignore = "make test-release"]
fn baresip_and_linphone_of_one_lan() {
    skip_unless_possible!("baresip", "linphonec", "curl", "openssl");
    leaves_and_comes_back("release", [Kind::Baresip, Kind::Linphone]);
}

#[test]
#[ignore = "make test-release"]
fn two_linphones_of_one_lan() {
    skip_unless_possible!("linphonec", "curl", "openssl");
    leaves_and_comes_back("release", [Kind::Linphone, Kind::Linphone]);
}

#[test]
#[ignore = "make test-release"]
fn two_pjsips_of_one_lan() {
    skip_unless_possible!("pjsua2", "curl", "openssl");
    leaves_and_comes_back("release", [Kind::Pjsua, Kind::Pjsua]);
}

#[test]
#[ignore = "make test-release"]
fn baresip_and_pjsip_of_one_lan() {
    skip_unless_possible!("baresip", "pjsua2", "curl", "openssl");
    leaves_and_comes_back("release", [Kind::Baresip, Kind::Pjsua]);
}
