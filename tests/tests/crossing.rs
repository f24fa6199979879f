//! Calls of the project's phones behind NATs, through the SBC: they leave the relay, come back when the direct path dies or a phone
//! changes networks, and are billed by where their packets were.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a laboratory that fails ends its test"
)]

use std::time::Duration;

use crush_tests::crossing::{Crossing, Ipv6, Plan, gap, now, story, told};
use crush_tests::home::Player;
use crush_tests::skip_unless_possible;
use crush_tests::softphone::Voice;
use nat_lab::Kind;

/// One way, at each NAT: a round trip of 20 ms to the relay.
const OPTIONS: [&str; 2] = ["--delay", "10ms"];
const FOUND: Duration = Duration::from_secs(30);
const MS: fn(u64) -> Duration = Duration::from_millis;
/// What a path that dies, and a change of networks, may cost.
const RETURN: Duration = Duration::from_millis(300);
const SWITCH: Duration = Duration::from_millis(500);

fn call(name: &str, kinds: [Kind; 2]) -> Crossing {
    let call = Crossing::call(name, kinds.map(Player::Tun), &OPTIONS).unwrap();
    call.both("direct", 1, FOUND).unwrap();
    call
}

fn stories(call: &Crossing) -> String {
    let path = call.sbc.sql("SELECT after_ms, what, why FROM call_path").unwrap();
    format!("{}\n\n{}\n\n{path}", story(&call.phones[0]), story(&call.phones[1]))
}

/// What each phone hears from now on, once `change` has been made: the longest pause, and whether it ends on the relay.
fn heard(call: &mut Crossing, wait: Duration, change: impl FnOnce(&mut Crossing)) -> [(Duration, bool); 2] {
    let marks = [0, 1].map(|side| call.arrivals(side).unwrap().len().saturating_sub(1));
    change(call);
    std::thread::sleep(wait);
    let end = now();
    [0, 1].map(|side| {
        let mut since = call.arrivals(side).unwrap().split_off(marks[side]);
        let by_relay = since.last().unwrap().1;
        // What has stopped is a pause too.
        since.push((end.max(since.last().unwrap().0), by_relay));
        (gap(&since).0, by_relay)
    })
}

fn comes_back(name: &str, is_both_ways: bool) {
    let mut call = call(name, [Kind::Cone, Kind::SymmetricSequential]);
    let quiet = heard(&mut call, MS(2000), |_| {});
    for (pause, by_relay) in quiet {
        assert!(pause < MS(150) && !by_relay, "{pause:?} {by_relay}\n{}", stories(&call));
    }
    let after = heard(&mut call, MS(1500), |call| call.cut(is_both_ways).unwrap());
    for (pause, by_relay) in after {
        assert!(pause <= RETURN && by_relay, "{pause:?} {by_relay}\n{}", stories(&call));
    }
    call.end().unwrap();
    let billed =
        "SELECT relayed_ms + direct_ms = duration_ms AND direct_ms > 1500 AND relayed_ms > 1500 FROM call";
    assert_eq!(call.sbc.sql(billed).unwrap(), "t", "{}", stories(&call));
    let states =
        "SELECT string_agg(what, ' ' ORDER BY sequence) FROM call_path WHERE what IN ('direct', 'anchored')";
    assert_eq!(call.sbc.sql(states).unwrap(), "anchored direct anchored", "{}", stories(&call));
}

#[test]
fn a_path_cut_in_both_directions_costs_less_than_300_ms_and_the_call_is_billed_by_its_path() {
    skip_unless_possible!("curl", "openssl");
    comes_back("cut", true);
}

#[test]
fn a_path_cut_in_one_direction_costs_less_than_300_ms() {
    skip_unless_possible!("curl", "openssl");
    comes_back("cut-one", false);
}

/// The phones say `voices`; the direct path is cut from the first to the second, or both ways.
fn comes_back_in_silence(name: &str, voices: [Voice; 2], is_both_ways: bool) {
    let players = [Kind::Cone, Kind::SymmetricSequential].map(Player::Tun);
    let mut call = Crossing::planned(name, players, &OPTIONS, &Plan { voices, ..Plan::default() }).unwrap();
    call.both("direct", 1, FOUND).unwrap();
    std::thread::sleep(MS(2000));
    let cut_at = now();
    call.cut(is_both_ways).unwrap();
    call.both("returned", 1, MS(2000)).unwrap();
    std::thread::sleep(MS(1500));
    for side in 0..2 {
        let other = voices[1 - side];
        let heard = call.arrivals(side).unwrap();
        assert_eq!(heard.is_empty(), matches!(other, Voice::Silence), "{side} hears {other:?}");
        let signs = call.signs(side).unwrap();
        let (before, after): (Vec<_>, Vec<_>) = signs.into_iter().partition(|(at, _)| *at < cut_at);
        let quiet: Vec<_> = before.into_iter().filter(|(at, _)| *at + MS(1500) > cut_at).collect();
        let is_direct = quiet.iter().all(|(_, by_relay)| !by_relay);
        assert!(is_direct && gap(&quiet).0 < MS(230), "{quiet:?}\n{}", stories(&call));
        let back = after.iter().find(|(_, by_relay)| *by_relay).map(|(at, _)| *at - cut_at);
        let told = call.told_at(side, "returned").unwrap().saturating_sub(cut_at);
        let is_soon = back.is_some_and(|back| back <= RETURN) && told <= RETURN;
        assert!(is_soon, "{side}: {back:?}, told after {told:?}\n{}", stories(&call));
        println!("{name}, phone {side}: on the relay {:?} after the cut, told after {told:?}", back.unwrap());
    }
    call.end().unwrap();
    let states =
        "SELECT string_agg(what, ' ' ORDER BY sequence) FROM call_path WHERE what IN ('direct', 'anchored')";
    assert_eq!(call.sbc.sql(states).unwrap(), "anchored direct anchored", "{}", stories(&call));
}

#[test]
fn two_silent_phones_leave_the_relay_and_are_back_within_300_ms_of_a_cut_in_both_directions() {
    skip_unless_possible!("curl", "openssl");
    comes_back_in_silence("still", [Voice::Silence; 2], true);
}

#[test]
fn two_silent_phones_are_back_on_the_relay_within_300_ms_of_a_cut_in_one_direction() {
    skip_unless_possible!("curl", "openssl");
    comes_back_in_silence("still-one", [Voice::Silence; 2], false);
}

#[test]
fn a_talker_whose_silent_listener_is_cut_off_is_heard_through_the_relay_within_300_ms() {
    skip_unless_possible!("curl", "openssl");
    comes_back_in_silence("still-half", [Voice::Silence, Voice::Tone(600.0)], false);
}

#[test]
fn a_phone_that_changes_networks_is_heard_within_500_ms_and_still_gets_the_other_ends_bye() {
    skip_unless_possible!("curl", "openssl");
    let mut call = call("switch", [Kind::Cone, Kind::Cone]);
    let after = heard(&mut call, MS(3000), |call| call.switch(0).unwrap());
    for (pause, _) in after {
        assert!(pause <= SWITCH, "{pause:?}\n{}", stories(&call));
    }
    assert_eq!(told(&call.phones[0].timeline(), "moved").len(), 1);
    call.end_by(1).unwrap();
}

#[test]
fn an_operator_calls_the_media_back_and_lets_it_go_again() {
    skip_unless_possible!("curl", "openssl");
    let mut call = call("anchor", [Kind::Cone, Kind::Cone]);
    let back = heard(&mut call, MS(3000), |call| {
        call.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call").map(drop).unwrap();
    });
    for (pause, by_relay) in back {
        assert!(pause < MS(150) && by_relay, "{pause:?} {by_relay}\n{}", stories(&call));
    }
    let why = "SELECT count(*) > 0 FROM call_path WHERE what IN ('returning', 'anchored') AND why = 'policy'";
    call.sbc.eventually_sql(why, "t", MS(3000)).unwrap();
    call.sbc.sql("SELECT sbc_call_release(id, 'allow') FROM call").unwrap();
    call.both("direct", 2, FOUND).unwrap();
    call.end().unwrap();
}

/// A call with video that has found its path.
fn with_video(name: &str, release: &str, found: &str) -> Crossing {
    let plan = Plan { options: &["--video"], release, ..Plan::default() };
    let kinds = [Kind::Cone, Kind::SymmetricSequential].map(Player::Tun);
    let call = Crossing::planned(name, kinds, &OPTIONS, &plan).unwrap();
    call.both(found, 1, FOUND).unwrap();
    // Copies on the direct path, by which it was measured, have ended by then (docs/crush.md §6).
    std::thread::sleep(MS(6000));
    call
}

/// Asserts where the last second of a kind of media came from at both phones.
fn assert_by_relay(call: &mut Crossing, is_video: bool, by_relay: bool) {
    for side in 0..2 {
        let arrivals = call.arrivals_of(side, is_video).unwrap();
        let end = arrivals.last().unwrap().0;
        let last: Vec<bool> =
            arrivals.iter().filter(|(at, _)| *at + MS(1000) >= end).map(|(_, by_relay)| *by_relay).collect();
        let right = last.iter().filter(|found| **found == by_relay).count();
        assert!(last.len() >= 20 && right == last.len(), "{right} of {}\n{}", last.len(), stories(call));
    }
}

/// Ends a call; no picture may be missing.
fn assert_whole_pictures(call: &mut Crossing) {
    call.end().unwrap();
    for phone in &call.phones {
        let timeline = phone.timeline();
        let ended = told(&timeline, "ended")[0];
        let [shown, missing] = ["shown", "missing"].map(|name| ended["pictures"][name].as_u64().unwrap());
        assert!(shown > 25 && missing == 0, "{ended}\n{}", stories(call));
    }
}

#[test]
fn audio_and_video_leave_the_relay_by_one_path_and_no_picture_is_lost() {
    skip_unless_possible!("curl", "openssl");
    let mut call = with_video("pictures", "allow", "direct");
    assert_by_relay(&mut call, false, false);
    assert_by_relay(&mut call, true, false);
    assert_whole_pictures(&mut call);
}

#[test]
fn video_goes_directly_while_policy_keeps_audio_on_the_relay() {
    skip_unless_possible!("curl", "openssl");
    let mut call = with_video("half", "video", "handed-off");
    assert_by_relay(&mut call, false, true);
    assert_by_relay(&mut call, true, false);
    assert_whole_pictures(&mut call);
}

#[test]
fn two_homes_whose_nats_cannot_be_crossed_talk_by_ipv6_through_both_firewalls() {
    skip_unless_possible!("curl", "openssl");
    let kinds = [Kind::SymmetricRandom, Kind::SymmetricRandom].map(Player::Tun);
    let mut call =
        Crossing::planned("six", kinds, &OPTIONS, &Plan { ipv6: Ipv6::Besides, ..Plan::default() }).unwrap();
    call.both("direct", 1, FOUND).unwrap();
    for (pause, by_relay) in heard(&mut call, MS(1000), |_| {}) {
        assert!(pause < MS(150) && !by_relay, "{pause:?} {by_relay}\n{}", stories(&call));
    }
    call.end().unwrap();
}

#[test]
fn two_homes_whose_phones_signal_over_ipv6_talk_by_the_ipv4_that_their_nats_let_through() {
    skip_unless_possible!("curl", "openssl");
    let kinds = [Kind::Cone, Kind::SymmetricSequential].map(Player::Tun);
    let plan = Plan { ipv6: Ipv6::Signalling, ..Plan::default() };
    let mut call = Crossing::planned("signals-six", kinds, &OPTIONS, &plan).unwrap();
    call.both("direct", 1, FOUND).unwrap();
    for (pause, by_relay) in heard(&mut call, MS(1000), |_| {}) {
        assert!(pause < MS(150) && !by_relay, "{pause:?} {by_relay}\n{}", stories(&call));
    }
    call.end().unwrap();
}

#[test]
fn two_homes_without_a_direct_path_talk_through_the_relay() {
    skip_unless_possible!("curl", "openssl");
    let kinds = [Kind::SymmetricRandom, Kind::SymmetricRandom].map(Player::Tun);
    let mut call = Crossing::call("hard", kinds, &OPTIONS).unwrap();
    call.both("gave-up", 1, FOUND).unwrap();
    for (pause, by_relay) in heard(&mut call, MS(1000), |_| {}) {
        assert!(pause < MS(150) && by_relay, "{}", stories(&call));
    }
    call.end().unwrap();
    assert_eq!(call.sbc.sql("SELECT direct_ms FROM call").unwrap(), "0");
}
