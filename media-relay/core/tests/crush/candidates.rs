//! Candidates of the two, as far as they pass.

use bytes::Bytes;
use media_core::policy::Mode;
use media_wire::sdp::crush::{Candidate, Policy};
use play::settings::media::ENDS;
use proptest::prelude::*;
use seam::path::Constraint;
use seam::{Action, Renegotiated, Reply};

use crate::policy::wishes;
use crate::world::{MS, SEEN, World, addresses};

#[test]
fn candidates_pass_as_far_as_they_may_be_the_endpoints_and_the_relay_adds_what_it_saw() {
    let mut world = World::call();
    let candidates = [
        "1 1 UDP 2130706431 192.168.20.10 4000 typ host",
        "2 1 UDP 2130706430 203.0.113.5 10002 typ host",
        "3 1 UDP 1694498815 192.0.2.200 53 typ srflx raddr 192.168.20.10 rport 4000",
        "4 1 TCP 1694498815 192.168.20.10 9 typ host tcptype active",
        "5 2 UDP 1694498815 192.168.20.10 4001 typ host",
        "6 1 UDP 1694498815 127.0.0.1 4001 typ host",
    ];
    let fragment = world.trickle(0, &candidates).unwrap();
    assert_eq!(addresses(&fragment), ["192.168.20.10:4000", SEEN[0]]);
    assert!(fragment.ended);
    let own = "2 1 UDP 1694498815 198.51.100.20 4321 typ srflx raddr 192.168.20.10 rport 4000";
    let fragment = world.trickle(0, &[candidates[0], own]).unwrap();
    assert_eq!(addresses(&fragment), ["192.168.20.10:4000", "198.51.100.20:4321"], "it is there already");
    assert!(fragment.candidates[1].related.is_some());
}

#[test]
fn what_passes_is_bounded_for_a_generation_and_for_a_minute_and_not_for_each_message() {
    let mut world = World::call();
    let mut passed = std::collections::HashSet::new();
    // More at a time than anybody needs.
    for message in 0..20_u32 {
        let lines: Vec<String> = (0..25)
            .map(|line| format!("1 1 UDP 2130706431 192.168.{message}.{line} 4000 typ host"))
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        passed.extend(addresses(&world.trickle(0, &lines).unwrap()));
    }
    // And what the relay has seen.
    assert!(passed.len() <= 33, "{}", passed.len());
    // One generation after the other: the first of the call, and twelve.
    let mut world = World::call();
    let (from, to) = (ENDS[0], ENDS[1]);
    let taken = (0..24).filter(|number| {
        let text = format!(
            "a=ice-ufrag:8hhYabc{number:04}\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n"
        );
        let reply = world.act(Action::Trickle { from, to, fragment: Bytes::from(text) });
        matches!(reply, Some(Reply::Fragment(Some(_))))
    });
    assert_eq!(taken.count(), 13);
}

#[test]
fn between_two_realms_local_addresses_stay_hidden() {
    let mut world = World::new(Mode::Allow);
    world.set_realms([0, 1]);
    world.connect([true, true]);
    world.talk(0);
    let own = "2 1 UDP 1694498815 198.51.100.20 4321 typ srflx raddr 192.168.20.10 rport 4000";
    let fragment = world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host", own]).unwrap();
    let expected = Candidate::read("a=candidate:2 1 UDP 1694498815 198.51.100.20 4321 typ srflx").unwrap();
    assert_eq!(fragment.candidates, [expected], "nor as a related address");
}

#[test]
fn who_showed_candidates_in_a_moment_of_policy_that_nobody_was_told_of_is_asked_for_them_again() {
    let mut world = World::call();
    world.wait(MS(1000));
    world.act(Action::Constrain(Constraint::MustAnchor));
    assert_eq!(world.trickle(1, &[]), None);
    world.act(Action::Constrain(Constraint::MayRelease));
    let asked = wishes(&world.wait(MS(100)));
    assert_eq!(asked.iter().map(|one| (one.1, one.2)).collect::<Vec<_>>(), [(ENDS[1], Policy::Direct)]);
    // It is busy with an offer of its own, and is asked again.
    let answer = |wish, outcome| Action::Renegotiated { wish, endpoint: ENDS[1], outcome };
    world.act(answer(asked[0].0, Renegotiated::Superseded));
    let again = wishes(&world.wait(MS(300)));
    assert_eq!(again.iter().map(|one| one.1).collect::<Vec<_>>(), [ENDS[1]]);
    world.act(answer(again[0].0, Renegotiated::Accepted(World::sdp(1, true).into())));
    assert!(world.trickle(1, &[]).is_some());
    assert_eq!(wishes(&world.wait(MS(3000))), []);
}

#[test]
fn a_call_without_video_shows_no_candidates_where_policy_lets_only_video_go() {
    let mut world = World::new(Mode::Video);
    world.connect([true, true]);
    world.talk(0);
    assert_eq!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]), None);
    world.act(Action::Constrain(Constraint::MayRelease));
    assert!(world.trickle(0, &["1 1 UDP 2130706431 192.168.20.10 4000 typ host"]).is_some());
}

/// A line that a hostile endpoint may write, with an address that must not pass.
fn hostile_line() -> impl Strategy<Value = String> {
    let address = prop_oneof![Just("203.0.113.5"), Just("192.0.2.200"), Just("127.0.0.1"), Just("0.0.0.0")];
    let form = prop_oneof![
        Just("a=candidate:1 1 UDP 5 {} 53 typ srflx"),
        Just("a=candidate:1 1 UDP 5 192.168.20.10 53 typ srflx raddr {} rport 9"),
        Just("a=candidate:1 2 UDP 5 {} 53 typ host"),
        Just("a=candidate:1 1 TCP 5 {} 53 typ host tcptype passive"),
        Just("a=candidate:1 1 UDP 5 {} 53 typ relay raddr {} rport 9"),
        Just("a=remote-candidates:1 {} 53"),
        Just("c=IN IP4 {}"),
        Just("o=- 1 1 IN IP4 {}"),
        Just("a=candidate:1 1 udp 5 {}"),
        Just("a=x:{}"),
    ];
    prop_oneof![
        3 => (form, address).prop_map(|(form, address)| form.replace("{}", address)),
        1 => "[ -~]{0,40}".prop_filter("without digits of addresses", |text| !text.contains('.')),
    ]
}

proptest! {
    #[test]
    fn whatever_a_fragment_holds_no_address_passes_that_is_not_the_endpoints(
        lines in proptest::collection::vec(hostile_line(), 0..40)
    ) {
        let mut world = World::call();
        let body = lines.join("\r\n");
        let text = format!("a=ice-ufrag:8hhYabcd\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\n{body}");
        let (from, to) = (ENDS[0], ENDS[1]);
        let reply = world.act(Action::Trickle { from, to, fragment: Bytes::from(text) });
        if let Some(Reply::Fragment(Some(fragment))) = reply {
            let text = String::from_utf8(fragment.to_vec()).unwrap();
            for hidden in ["203.0.113.5", "192.0.2.200", "127.0.0.1", "0.0.0.0"] {
                prop_assert!(!text.contains(hidden), "{text}");
            }
        }
    }
}
