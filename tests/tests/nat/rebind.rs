//! A router that forgets its flows in the middle of a call and gives them other ports.

use std::time::Duration;

use crush_tests::hearing::is_rtp_to;
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::process::eventually;
use crush_tests::stage::{Extension, SOON, Stage};
use crush_tests::{Network, sbc, skip_unless_possible};

/// How long registrations of phones behind NAT last: the phone comes back by its new port within it.
const EXPIRES: u32 = 10;

/// A call between `n1` behind a NAT and `c1`, up and heard.
fn call(media: &str) -> (Stage, Extension, Extension) {
    let settings = format!("nat_expires_seconds = {EXPIRES}\nkeepalive_seconds = 2");
    let realms = media.to_owned() + &sbc::phones_with(&settings);
    let users = [("n1", Network::Access), ("c1", Network::Core)];
    let mut stage = Stage::new("rebind", &realms, &sbc::subscribers(&users)).unwrap();
    let account = Account::of("n1", Network::Access, "udp");
    let mut inside = stage.phone_behind_nat(Kind::Baresip, &account, Duration::from_secs(30)).unwrap();
    let mut outside =
        stage.phone(Kind::Baresip, Network::Core, &Account::of("c1", Network::Core, "udp")).unwrap();
    inside.registered().unwrap();
    outside.registered().unwrap();
    connect(&mut outside, &mut inside);
    (stage, inside, outside)
}

fn connect(caller: &mut Extension, callee: &mut Extension) {
    caller.dial(&callee.user.clone()).unwrap();
    callee.wait(Event::Incoming).unwrap();
    callee.phone.answer().unwrap();
    caller.wait(Event::Established).unwrap();
    callee.wait(Event::Established).unwrap();
    caller.hears(callee).unwrap();
    callee.hears(caller).unwrap();
}

/// Where the one binding of `n1` says that it is.
fn source(stage: &Stage) -> String {
    stage.sbc.sql("SELECT string_agg(source, ' ') FROM binding WHERE aor LIKE 'n1@%'").unwrap()
}

#[test]
fn media_follows_a_rebinding_after_half_a_second_and_the_phone_registers_anew() {
    skip_unless_possible!("baresip", "conntrack", "curl", "openssl");
    let (stage, mut inside, mut outside) = call("");
    let before = source(&stage);
    // The silence begins with the last packet before it, which may have come before the mark.
    let mark = outside.mark().unwrap().saturating_sub(20);
    stage.lab.rebind_nat("n1").unwrap();
    // Silence first: the old source must have been still for as long.
    let host = outside.address;
    let mut gap = Duration::ZERO;
    let is_over = || {
        let packets = outside.tap().since(mark).unwrap();
        let times: Vec<_> =
            packets.iter().filter(|packet| is_rtp_to(packet, host)).map(|packet| packet.at).collect();
        gap = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or_default();
        gap > Duration::from_millis(300)
    };
    assert!(eventually(SOON, is_over), "no silence");
    assert!((Duration::from_millis(490)..Duration::from_secs(3)).contains(&gap), "{gap:?}");
    outside.hears(&inside).unwrap();
    inside.hears(&outside).unwrap();
    assert_eq!(source(&stage).split(' ').count(), 1);
    let moved = eventually(SOON, || source(&stage) != before);
    assert!(moved, "the binding is still at {before}");
    assert_eq!(source(&stage).split(' ').count(), 1, "{}", source(&stage));
    // The call's own signalling finds the phone again as well, and so does the next call.
    outside.phone.hang_up().unwrap();
    inside.wait(Event::Ended).unwrap();
    outside.wait(Event::Ended).unwrap();
    connect(&mut outside, &mut inside);
    inside.phone.hang_up().unwrap();
    outside.wait(Event::Ended).unwrap();
    stage.close([inside, outside]).unwrap();
}

#[test]
fn media_does_not_follow_a_rebinding_where_a_setting_forbids_it() {
    skip_unless_possible!("baresip", "conntrack", "curl", "openssl");
    let (stage, mut inside, mut outside) = call("[media]\nfollow_rebinding = false\n\n");
    stage.lab.rebind_nat("n1").unwrap();
    outside.falls_silent(Duration::from_secs(2)).unwrap();
    inside.phone.hang_up().unwrap();
    outside.wait(Event::Ended).unwrap();
    let strangers = "SELECT (stream->>'strangers')::int > 50 FROM call, jsonb_array_elements(media) stream \
        WHERE (stream->>'strangers')::int > 0";
    stage.sbc.eventually_sql(strangers, "t", SOON).unwrap();
    assert_eq!(stage.sbc.sql("SELECT cause, status FROM call").unwrap(), "bye|200");
    stage.close([inside, outside]).unwrap();
}
