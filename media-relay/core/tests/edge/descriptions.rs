//! What descriptions may say: where nothing is sent, what hold is, what is only ugly, what is a trick.

use std::sync::Arc;
use std::time::Duration;

use martian::{Own, Realm, Rules, Unfit};
use media_core::worker::Settings;
use seam::{Action, ExchangeId, Refusal};

use crate::world::{A, B, ENDS, anchor, at, audio, connected, rtp};
use play::anchor::Anchor;

const HERE: &str = "203.0.113.1:4000";
const FAR: &str = "198.51.100.1:5000";

/// Realm 0 is at 192.0.2.0, realm 1 at 192.0.2.1; media has ports 10000 to 19999, signalling 5060.
fn guarded() -> Settings {
    let mut own = Own::default();
    for realm in 0..2 {
        own.range([192, 0, 2, realm].into(), 10_000..=19_999);
        own.listener(([192, 0, 2, realm], 5060).into());
    }
    Settings { addresses: Arc::new(Rules::new(own, vec![Realm::default(); 2])), ..Settings::default() }
}

fn port_of(sdp: &str) -> Vec<u16> {
    let lines = sdp.lines().filter_map(|line| line.strip_prefix("m="));
    lines.map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn what_points_at_us_at_everybody_or_at_nobody_is_refused_in_offer_and_answer() {
    for (address, unfit) in [
        ("192.0.2.1:5060", Unfit::Ours),
        ("192.0.2.0:10000", Unfit::Ours),
        ("192.0.2.1:40000", Unfit::Ours),
        ("127.0.0.1:9999", Unfit::Loopback),
        ("239.1.1.1:4000", Unfit::Multicast),
        ("255.255.255.255:4000", Unfit::Broadcast),
        ("169.254.1.1:4000", Unfit::LinkLocal),
    ] {
        let expected = Err(Refusal::Unfit(unfit));
        assert_eq!(anchor(guarded()).offer(1, A, B, audio(address, "")), expected, "{address}");
        let with_rtcp = |place: &str| {
            let at = at(address);
            audio(place, &format!(" a=rtcp:{} IN IP4 {}\r\n", at.port(), at.ip()))
        };
        assert_eq!(anchor(guarded()).offer(1, A, B, with_rtcp(HERE)), expected, "a=rtcp of {address}");
        let mut world = anchor(guarded());
        world.offer(1, A, B, audio(HERE, "")).unwrap();
        world.act(Action::Select(B));
        assert_eq!(world.answer(1, B, A, audio(address, "")), expected, "an answer with {address}");
        assert_eq!(world.places(0, HERE, &rtp(1, 7)), [], "nothing goes there");
    }
}

#[test]
fn a_description_that_we_wrote_comes_back_and_joins_two_halves_but_never_a_circle() {
    let mut world = anchor(guarded());
    let to_b = world.offer(1, A, B, audio(HERE, "")).unwrap();
    // A proxy in realm 1 sends it back to us: a second call, whose caller is the first one's callee.
    world.session = 77 << 20;
    let caller = seam::Endpoint { party: 0, branch: 0 };
    let from_core = world.party(B);
    let offer = |world: &mut Anchor, sdp: String| {
        let (from_party, to_party) = (from_core.clone(), world.party(A));
        world.described(Action::Offer {
            exchange: ExchangeId(1),
            from: caller,
            to: B,
            from_party,
            to_party,
            sdp: sdp.into(),
        })
    };
    let foreign = to_b.replace("o=- ", "o=- 9");
    assert_eq!(
        offer(&mut world, foreign),
        Err(Refusal::Unfit(Unfit::Ours)),
        "the same port, but not our words"
    );
    let onward = offer(&mut world, to_b.clone()).unwrap();
    // The far end answers with what names the first call: the second would be joined on both sides.
    assert_eq!(world.answer(1, B, caller, to_b), Err(Refusal::Unfit(Unfit::Ours)));
    assert!(onward.contains("m=audio "));
    world.answer(1, B, caller, audio("203.0.113.9:6000", "")).unwrap();
    world.act(Action::Delete);
    world.session = 78 << 20;
    assert_eq!(world.offer(1, A, B, onward), Err(Refusal::Unfit(Unfit::Ours)), "its port is closed");
}

#[test]
fn hold_by_the_unspecified_address_reaches_the_other_side_as_hold() {
    for (said, told) in [
        ("", "sendonly"),
        (" a=sendrecv\r\n", "sendonly"),
        (" a=recvonly\r\n", "inactive"),
        (" a=inactive\r\n", "inactive"),
    ] {
        let mut world = connected(Settings::default(), HERE, FAR, "");
        let held = world.offer(2, A, B, audio("0.0.0.0:4000", said)).unwrap();
        assert!(
            held.contains(&format!("a={told}\r\n")) && held.contains("c=IN IP4 192.0.2.1\r\n"),
            "{said}: {held}"
        );
        assert_eq!(held.matches("a=send").count() + held.matches("a=inactive").count(), 1, "{held}");
        world.answer(2, B, A, audio(FAR, " a=recvonly\r\n")).unwrap();
        assert_eq!(world.places(2, FAR, &rtp(1, 8)), [], "nothing is sent to who holds");
        let [resumed, _] = world.agree(3, ENDS, [audio(HERE, ""), audio(FAR, "")]);
        assert!(!resumed.contains("a=sendonly") && !resumed.contains("a=inactive"), "{resumed}");
        assert_eq!(world.places(2, FAR, &rtp(2, 8)), [(0, at(HERE))]);
    }
    let mut world = connected(Settings::default(), HERE, FAR, "");
    let [_, answer] = world.agree(2, ENDS, [audio(HERE, ""), audio("0.0.0.0:5000", "")]);
    assert!(answer.contains("a=sendonly\r\n"), "{answer}");
}

#[test]
fn with_ice_the_unspecified_address_means_not_known_yet() {
    let trickle = " a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\na=ice-options:trickle\r\n";
    for nowhere in ["0.0.0.0:9", "127.0.0.1:9"] {
        let mut world = anchor(guarded());
        let [offered, _] = world.agree(1, ENDS, [audio(nowhere, trickle), audio(FAR, "")]);
        assert!(!offered.contains("a=sendonly") && !offered.contains("a=inactive"), "{offered}");
        assert_eq!(world.places(2, FAR, &rtp(1, 8)), [], "not known yet");
        assert_eq!(
            world.places(0, HERE, &rtp(1, 7)),
            [(0, at(HERE)), (2, at(FAR))],
            "with what was said last"
        );
        assert_eq!(world.places(2, FAR, &rtp(2, 8)), [(0, at(HERE))], "known");
    }
}

#[test]
fn an_early_refusal_is_not_final() {
    let mut world = anchor(Settings::default());
    world.offer(1, A, B, audio(HERE, "")).unwrap();
    let early = world.answer(1, B, A, audio("198.51.100.1:0", "")).unwrap();
    assert_eq!(port_of(&early), [0]);
    world.act(Action::Select(B));
    let last = world.answer(1, B, A, audio(FAR, "")).unwrap();
    assert_eq!(port_of(&last), [10_000]);
    assert_eq!(world.places(0, HERE, &rtp(1, 7)), [(2, at(FAR))]);
    assert_eq!(world.places(2, FAR, &rtp(1, 8)), [(0, at(HERE))]);
}

#[test]
fn ports_that_an_early_answer_refused_for_good_are_given_back() {
    let two = |address: &str, video: u16| format!("{}m=video {video} RTP/AVP 99\r\n", audio(address, ""));
    let mut world = anchor(Settings::default());
    world.offer(1, A, B, two(HERE, 4002)).unwrap();
    world.answer(1, B, A, two(FAR, 0)).unwrap();
    world.act(Action::Select(B));
    assert_eq!(world.ports.open_pairs(), 4);
    world.now += Duration::from_secs(6);
    world.worker.handle_timeout(world.now, &mut world.ports);
    assert_eq!(world.ports.open_pairs(), 2, "no other answer came");
}

#[test]
fn no_m_lines_are_legal_and_media_may_come_later() {
    let none = |host: &str| format!("v=0\r\no=- 1 1 IN IP4 {host}\r\ns=\r\nc=IN IP4 {host}\r\nt=0 0\r\n");
    let mut world = anchor(Settings::default());
    let [offer, _] = world.agree(1, ENDS, [none("203.0.113.1"), none("198.51.100.1")]);
    assert!(!offer.contains("203.0.113.1"), "{offer}");
    world.agree(2, ENDS, [audio(HERE, ""), audio(FAR, "")]);
    assert_eq!(world.places(0, HERE, &rtp(1, 7)), [(2, at(FAR))]);
}

#[test]
fn an_answer_with_fewer_m_lines_refuses_the_rest_and_refused_ones_too_many_go() {
    let offer = format!("{}m=video 4002 RTP/AVP 99\r\nm=image 4004 udptl t38\r\n", audio(HERE, ""));
    let mut world = anchor(Settings::default());
    let [_, answer] = world.agree(1, ENDS, [offer, audio(FAR, "")]);
    assert_eq!(port_of(&answer), [10_000, 0, 0]);
    assert!(
        answer.contains("m=video 0 RTP/AVP 99\r\n") && answer.contains("m=image 0 udptl t38\r\n"),
        "{answer}"
    );
    let mut world = anchor(Settings::default());
    let more = format!("{}m=application 0 UDP/BFCP *\r\n", audio(FAR, ""));
    let [_, answer] = world.agree(1, ENDS, [audio(HERE, ""), more]);
    assert_eq!(port_of(&answer), [10_000]);
}

#[test]
fn one_invite_takes_eight_pairs_of_ports_at_most() {
    let many: String = (0..32).map(|line| format!("m=audio {} RTP/AVP 0\r\n", 4000 + 2 * line)).collect();
    let mut world = anchor(Settings::default());
    let head = "v=0\r\no=- 1 1 IN IP4 203.0.113.1\r\ns=-\r\nc=IN IP4 203.0.113.1\r\nt=0 0\r\n";
    let offer = world.offer(1, A, B, format!("{head}{many}")).unwrap();
    let ports = port_of(&offer);
    assert_eq!((ports.len(), ports.iter().filter(|port| **port != 0).count()), (32, 8), "{offer}");
    assert_eq!(world.ports.open_pairs(), 16, "eight for each side");
}

#[test]
fn ugly_descriptions_are_read_and_go_out_clean() {
    let plain = audio(HERE, "");
    for ugly in [
        plain.replace("\r\n", " \r\n"),
        plain.replace("v=0", "v=0 "),
        plain.replace("RTP/AVP", "rtp/avp"),
        plain.replace("RTP/AVP 0", "RTP/AVP\t0"),
        plain.replace("c=IN IP4", "c=in ip4"),
        plain.replace("\r\n", "\n"),
        plain.replace("\r\n", "\r"),
        format!("\u{feff}{plain}"),
        format!("{plain}A=x\r\n"),
        format!("{plain} continued\r\n"),
        format!("{plain}a=SendRecv\r\na= rtcp-mux \r\n"),
    ] {
        let mut world = anchor(Settings::default());
        let offer =
            world.offer(1, A, B, ugly.clone()).unwrap_or_else(|refusal| panic!("{refusal:?}: {ugly:?}"));
        assert!(offer.lines().all(|line| line.len() > 1 && line.trim() == line), "{offer:?}");
        world.act(Action::Select(B));
        world.answer(1, B, A, audio(FAR, "")).unwrap();
        assert_eq!(world.places(2, FAR, &rtp(1, 8)), [(0, at(HERE))], "{ugly:?}");
    }
}

#[test]
fn no_address_of_its_author_passes_wherever_it_stands_and_no_line_hides_in_another() {
    let lines = [
        "s=call from 203.0.113.7",
        "i=at 203.0.113.7",
        "u=http://203.0.113.7/",
        "e=a@203.0.113.7",
        "p=203.0.113.7",
        "b=X-203.0.113.7:1",
        "a=altc:1 IP4 203.0.113.7 4000",
        "a=altc:2 IP6 2001:db8::7 4000",
        "a=source-filter: incl IN IP4 * 203.0.113.7",
        "a=Candidate:1 1 UDP 1 203.0.113.7 4000 typ host",
        "a=candidate :1 1 UDP 1 203.0.113.7 4000 typ host",
        "a=rtcp:4001 IN IP4 203.0.113.1",
        "a=remote-candidates:1 203.0.113.7 4000",
        "a=x-vendor:host=203.0.113.7;v=1",
        "a=x-vendor:[2001:db8::7]:4000",
        "a=x:203.000.113.007",
        "a=note:x\rc=IN IP4 203.0.113.7",
        "a=note:x\u{b}c=IN IP4 203.0.113.7",
        "a=note:x\0c=IN IP4 203.0.113.7",
        "a=note:x\u{2028}c=IN IP4 203.0.113.7",
    ];
    for line in lines {
        for text in [
            audio(HERE, &format!(" {line}\r\na=kept:1\r\n")),
            audio(HERE, "").replace("t=0 0\r\n", &format!("t=0 0\r\n{line}\r\na=kept:1\r\n")),
        ] {
            let offer = anchor(Settings::default()).offer(1, A, B, text).unwrap();
            let hides = ["203.0", "203.000", "db8::7"].iter().all(|part| !offer.contains(part));
            assert!(hides && offer.contains("a=kept:1\r\n"), "{line:?}: {offer}");
            assert!(
                offer.lines().filter(|line| line.starts_with("c=")).all(|line| line == "c=IN IP4 192.0.2.1"),
                "{offer}"
            );
        }
    }
}

#[test]
fn a_caller_behind_a_nat_begins_the_handshake_if_the_callee_is_not() {
    let dtls = "UDP/TLS/RTP/SAVP a=fingerprint:sha-256 00\r\na=setup:actpass\r\n";
    let said = |address: &str| anchor(Settings::default()).offer(1, A, B, audio(address, dtls)).unwrap();
    assert!(said("10.0.0.5:4000").contains("a=setup:active\r\n"));
    assert!(said(HERE).contains("a=setup:actpass\r\n"));
}
