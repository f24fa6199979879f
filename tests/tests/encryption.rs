//! Calls with SRTP and keys in SDP: the project's phones on their way off the relay and back, and with phones of other makers.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use crush_tests::crossing::{Crossing, Plan, story, told};
use crush_tests::hearing::audio_to;
use crush_tests::home::Player;
use crush_tests::packet::is_rtp;
use crush_tests::phone::{Account, Event, Kind as Product};
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::tone::Recording;
use crush_tests::{Network, sbc, skip_unless_possible};
use nat_lab::Kind;

/// One way, at each NAT.
const OPTIONS: [&str; 2] = ["--delay", "10ms"];
const FOUND: Duration = Duration::from_secs(30);
const MS: fn(u64) -> Duration = Duration::from_millis;
/// What the phones of a crossing play.
const TONES: [f64; 2] = [430.0, 600.0];

fn secured(name: &str, kinds: [Kind; 2]) -> Crossing {
    let plan = Plan { options: &["--srtp", "require"], ..Plan::default() };
    let call = Crossing::planned(name, kinds.map(Player::Tun), &OPTIONS, &plan).unwrap();
    call.both("secured", 1, FOUND).unwrap();
    for phone in &call.phones {
        let timeline = phone.timeline();
        let secured = told(&timeline, "secured")[0];
        assert_eq!(secured["suite"], "AES_CM_128_HMAC_SHA1_80", "{}", story(phone));
        assert_eq!(secured["signalling"], "udp", "{}", story(phone));
        // An SDP body with its key is in no log.
        let trace = crush_tests::phone::Phone::trace(phone);
        assert!(trace.contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:...\r\n"), "{trace}");
    }
    call
}

/// Each phone hears the other's tone through the last seconds, and what is on the wire to it is not that tone.
fn assert_only_the_other_end_hears(call: &mut Crossing, seconds: f64) {
    for side in 0..2 {
        let tone = TONES[1 - side];
        let heard = crush_tests::phone::Phone::heard(&call.phones[side]).unwrap().last(seconds);
        assert!(
            heard.has_tone(tone) && heard.longest_hole(tone) < 0.1,
            "{side}\n{}",
            story(&call.phones[side])
        );
        let packets = call.taps[side].packets().unwrap();
        let hosts: HashSet<IpAddr> = packets.iter().map(|packet| packet.destination.ip()).collect();
        let wire: Vec<Recording> = hosts.into_iter().map(|host| audio_to(packets, host)).collect();
        assert!(wire.iter().map(Recording::seconds).sum::<f64>() > 6.0, "{side}");
        assert!(
            !wire.iter().any(|wire| TONES.iter().any(|tone| wire.has_tone(*tone))),
            "{side}: plain sound"
        );
    }
}

#[test]
fn a_secured_call_is_ciphertext_on_both_paths_and_heard_on_both() {
    skip_unless_possible!("curl", "openssl");
    let mut call = secured("secured", [Kind::Cone, Kind::SymmetricSequential]);
    std::thread::sleep(MS(3000));
    assert_only_the_other_end_hears(&mut call, 2.5);
    call.cut(true).unwrap();
    call.both("returned", 1, MS(2000)).unwrap();
    std::thread::sleep(MS(3000));
    assert_only_the_other_end_hears(&mut call, 2.5);
    call.end().unwrap();
    let billed =
        "SELECT relayed_ms + direct_ms = duration_ms AND direct_ms > 1500 AND relayed_ms > 1500 FROM call";
    assert_eq!(call.sbc.sql(billed).unwrap(), "t");
    for phone in &call.phones {
        let timeline = phone.timeline();
        assert!(told(&timeline, "ended")[0].get("not_authentic").is_none(), "{}", story(phone));
    }
}

#[test]
fn a_secured_phone_that_changes_networks_keeps_its_keys() {
    skip_unless_possible!("curl", "openssl");
    let mut call = secured("secured-switch", [Kind::Cone, Kind::Cone]);
    call.switch(0).unwrap();
    call.both("secured", 2, FOUND).unwrap();
    std::thread::sleep(MS(3000));
    assert_only_the_other_end_hears(&mut call, 2.5);
    // With other keys each would have begun anew.
    for side in 0..2 {
        let packets = call.taps[side].packets().unwrap();
        let rtp = packets.iter().map(|packet| &packet.payload).filter(|payload| is_rtp(payload));
        let sources: HashSet<Vec<u8>> = rtp.map(|payload| payload[8..12].to_vec()).collect();
        assert_eq!(sources.len(), 2, "{side}\n{}", story(&call.phones[side]));
    }
    call.end_by(1).unwrap();
}

#[test]
fn pictures_are_secured_with_a_key_of_their_own_on_the_path_that_they_share_with_sound() {
    skip_unless_possible!("curl", "openssl");
    let plan = Plan { options: &["--srtp", "require", "--video"], ..Plan::default() };
    let kinds = [Kind::Cone, Kind::SymmetricSequential].map(Player::Tun);
    let mut call = Crossing::planned("secured-pictures", kinds, &OPTIONS, &plan).unwrap();
    call.both("secured", 2, FOUND).unwrap();
    std::thread::sleep(MS(3000));
    call.end().unwrap();
    for phone in &call.phones {
        let timeline = phone.timeline();
        let streams: HashSet<_> =
            told(&timeline, "secured").iter().map(|one| one["stream"].as_u64()).collect();
        assert_eq!(streams, HashSet::from([Some(0), Some(1)]), "{}", story(phone));
        let ended = told(&timeline, "ended")[0];
        let [shown, missing] = ["shown", "missing"].map(|name| ended["pictures"][name].as_u64().unwrap());
        assert!(shown > 25 && missing == 0, "{ended}\n{}", story(phone));
    }
}

/// A stage with the project's phone and another product, which both take nothing but SRTP if they `encrypt`.
fn two(name: &str, other: Product, encrypt: [bool; 2]) -> (Stage, Extension, Extension) {
    let users = [("a1", Network::Access), ("c1", Network::Core)];
    let mut stage = Stage::new(name, &sbc::phones(), &sbc::subscribers(&users)).unwrap();
    let mut phone = |kind, index: usize| {
        let (user, network) = users[index];
        let account = Account { srtp: encrypt[index], ..Account::of(user, network, "tls") };
        let mut phone = stage.phone(kind, network, &account).unwrap();
        phone.registered().unwrap();
        phone
    };
    let (ours, theirs) = (phone(Product::Softphone, 0), phone(other, 1));
    (stage, ours, theirs)
}

fn connect(caller: &mut Extension, callee: &mut Extension) {
    caller.dial(&callee.user.clone()).unwrap();
    callee.wait(Event::Incoming).unwrap();
    caller.wait(Event::Ringing).unwrap();
    callee.phone.answer().unwrap();
    caller.wait(Event::Established).unwrap();
    callee.wait(Event::Established).unwrap();
}

fn talk(caller: &mut Extension, callee: &mut Extension) {
    connect(caller, callee);
    caller.records(callee).unwrap();
    callee.records(caller).unwrap();
    for hold in [true, false] {
        let done = if hold { caller.phone.hold() } else { caller.phone.resume() };
        done.unwrap();
        std::thread::sleep(MS(1000));
    }
    // baresip records nothing after a hold, plain calls neither.
    if caller.kind == Product::Softphone { caller.records(callee) } else { callee.records(caller) }.unwrap();
    caller.phone.hang_up().unwrap();
    callee.wait(Event::Ended).unwrap();
    caller.wait(Event::Ended).unwrap();
}

/// Both ways; ours takes what comes in the first round, and nothing but SRTP in the second.
fn talks_encrypted_with(other: Product) {
    for strict in [false, true] {
        let (stage, mut ours, mut theirs) = two("encrypted", other, [strict, true]);
        talk(&mut theirs, &mut ours);
        if strict {
            talk(&mut ours, &mut theirs);
        }
        let trace = ours.phone.trace();
        assert!(trace.contains("\"signalling\":\"tls\",\"suite\":\"AES_CM_128_HMAC_SHA1_80\""), "{trace}");
        assert!(!trace.contains("not_authentic"), "{trace}");
        stage.close([ours, theirs]).unwrap();
    }
}

#[test]
fn our_phone_and_baresip_talk_encrypted() {
    skip_unless_possible!("phone", "baresip", "curl", "openssl");
    talks_encrypted_with(Product::Baresip);
}

#[test]
fn our_phone_and_linphone_talk_encrypted() {
    skip_unless_possible!("phone", "linphonec", "curl", "openssl");
    talks_encrypted_with(Product::Linphone);
}

#[test]
fn our_phone_and_pjsip_talk_encrypted() {
    skip_unless_possible!("phone", "pjsua2", "curl", "openssl");
    talks_encrypted_with(Product::Pjsua);
}

#[test]
fn two_phones_that_a_third_joins_agree_on_keys_with_each_other() {
    skip_unless_possible!("phone", "curl", "openssl");
    let users = [("c1", Network::Core), ("c2", Network::Core), ("a1", Network::Access)];
    let mut stage = Stage::new("joined", &sbc::phones(), &sbc::subscribers(&users)).unwrap();
    let [mut middle, mut left, mut right] = users.map(|(user, network)| {
        let account = Account { srtp: true, ..Account::of(user, network, "tls") };
        let mut phone = stage.phone(Product::Softphone, network, &account).unwrap();
        phone.registered().unwrap();
        phone
    });
    connect(&mut middle, &mut left);
    middle.phone.hold().unwrap();
    connect(&mut middle, &mut right);
    middle.phone.join().unwrap();
    middle.wait(Event::Ended).unwrap();
    middle.phone.hang_up().unwrap();
    middle.wait(Event::Ended).unwrap();
    left.records(&right).unwrap();
    right.records(&left).unwrap();
    right.phone.hang_up().unwrap();
    left.wait(Event::Ended).unwrap();
    stage.close([middle, left, right]).unwrap();
}

#[test]
fn who_requires_encryption_and_a_plain_phone_do_not_talk_and_are_told_488() {
    skip_unless_possible!("phone", "baresip", "curl", "openssl");
    let (stage, mut ours, mut theirs) = two("plain", Product::Baresip, [true, false]);
    for (caller, callee) in [(&mut ours, "c1"), (&mut theirs, "a1")] {
        caller.dial(callee).unwrap();
        caller.wait(Event::Ended).unwrap();
        let latest = "SELECT ended_by, status FROM call ORDER BY started_at DESC LIMIT 1";
        stage.sbc.eventually_sql(latest, "callee|488", SOON).unwrap();
    }
    let trace = ours.phone.trace();
    assert!(trace.contains("\"how\":\"refused\",\"status\":488"), "{trace}");
    assert!(trace.contains("media is plain, and must be encrypted"), "{trace}");
    stage.close([ours, theirs]).unwrap();
}
