//! Sessions in virtual time: what signalling agrees decides which packets go where.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::Duration;

use media_core::Worker;
use media_core::policy::{Mode, RealmRelease};
use media_core::worker::Settings;
use play::anchor::{Anchor, at, rtp};
use play::ports::Counted;
use play::settings::media::{party, release};
use seam::path::{Entry, PathEntry, Stay};
use seam::{Action, Endpoint, Event, ExchangeId, Refusal, Reply, StreamStatistics};

const A: Endpoint = Endpoint { party: 0, branch: 0 };
const B: Endpoint = Endpoint { party: 1, branch: 0 };
const B2: Endpoint = Endpoint { party: 1, branch: 1 };
const C: Endpoint = Endpoint { party: 2, branch: 0 };
const KEY: &str = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";

/// A description with these m-lines (and their attributes).
fn sdp(address: &str, media: &[&str]) -> String {
    let family = if address.contains(':') { "IP6" } else { "IP4" };
    let lines: String = media.iter().map(|line| format!("m={line}\r\n")).collect();
    format!("v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n{lines}")
}

fn audio(address: &str, port: u16) -> String {
    sdp(address, &[&format!("audio {port} RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000")])
}

/// A in one realm, B and C in another.
fn anchor() -> Anchor {
    let parties = [(1, "10.0.0.5:5060"), (2, "10.9.0.1:5060"), (2, "10.9.0.2:5060")];
    let parties = parties.map(|(realm, signalling)| party(realm, at(signalling)));
    Anchor::new(Settings::default(), Counted::default().at_most(20), parties.into())
}

/// A call between A at 10.0.0.5:4000 (sockets 0 and 1) and B at 10.9.0.1:5000 (sockets 2 and 3).
fn call() -> Anchor {
    let mut world = anchor();
    world.agree(1, [A, B], [audio("10.0.0.5", 4000), audio("10.9.0.1", 5000)]);
    world
}

fn end(world: &mut Anchor) -> Vec<StreamStatistics> {
    let Some(Reply::Deleted { streams, .. }) = world.act(Action::Delete) else { panic!() };
    assert_eq!((world.ports.open_pairs(), world.worker.len()), (0, 0), "nothing is left of a session");
    streams
}

/// A sender report of `ssrc` at NTP time `time` (middle bits) with a report about `heard`, and a name.
fn rtcp(ssrc: u32, time: u32, heard: u32, lost: u32, echo: u32, delay: u32) -> Vec<u8> {
    let mut packet = vec![0x81, 200, 0, 12];
    for word in [ssrc, time >> 16, time << 16, 0, 0, 0, heard, lost, 100, 0, echo, delay] {
        packet.extend(word.to_be_bytes());
    }
    packet.extend([0x81, 202, 0, 3]);
    packet.extend(ssrc.to_be_bytes());
    packet.extend([1, 5]);
    packet.extend(b"alice\0");
    packet[55] = 3;
    packet.truncate(52 + 16);
    packet
}

#[test]
fn packets_cross_between_families_and_strangers_are_dropped_and_counted() {
    let mut world = anchor();
    world.parties[1].signalling = at("[2001:db8:9::1]:5060");
    let offered = world.offer(1, A, B, audio("10.0.0.5", 4000)).unwrap();
    assert!(offered.contains("c=IN IP6 2001:db8::2\r\n"), "{offered}");
    world.answer(1, B, A, audio("2001:db8:9::1", 5000)).unwrap();
    assert_eq!(world.places(0, "10.0.0.5:4000", &rtp(1, 7)), [(2, at("[2001:db8:9::1]:5000"))]);
    assert_eq!(world.places(2, "[2001:db8:9::1]:5000", &rtp(1, 8)), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(world.places(2, "[2001:db8:9::666]:5000", &rtp(2, 8)), []);
    let counted: Vec<_> = end(&mut world).iter().map(|one| (one.packets, one.strangers)).collect();
    assert_eq!(counted, [(1, 0), (1, 1)]);
}

#[test]
fn no_port_is_lost_when_there_are_too_few() {
    let mut world = anchor();
    world.ports.limit = 1;
    assert_eq!(world.offer(1, A, B, audio("10.0.0.5", 4000)), Err(Refusal::NoPorts));
    assert_eq!((world.ports.open_pairs(), world.worker.len()), (0, 0));
    let mut world = call();
    world.ports.limit = 3;
    let two = sdp("10.0.0.5", &["audio 4000 RTP/AVP 0", "video 4002 RTP/AVP 99"]);
    assert_eq!(world.offer(2, A, B, two), Err(Refusal::NoPorts));
    assert_eq!(world.ports.open_pairs(), 2, "the call goes on with what it had");
    assert_eq!(world.places(0, "10.0.0.5:4000", &rtp(1, 7)), [(2, at("10.9.0.1:5000"))]);
}

#[test]
fn the_origin_version_grows_only_with_a_change() {
    let mut world = call();
    let first = world.offer(2, A, B, audio("10.0.0.5", 4000)).unwrap();
    assert_eq!(
        world.offer(3, A, B, audio("10.0.0.5", 4444)).unwrap(),
        first,
        "B sees our ports, which did not change"
    );
    let held = format!("{}a=sendonly\r\n", audio("10.0.0.5", 4444));
    let changed = world.offer(4, A, B, held).unwrap();
    let version =
        |sdp: &str| -> u64 { sdp.split_once("o=- ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap() };
    assert_eq!(version(&changed), version(&first) + 1);
}

#[test]
fn a_quiet_session_is_reported_once_and_a_held_one_never() {
    let mut world = call();
    let mut reported = 0;
    for second in 0..700 {
        world.worker.handle_timeout(Duration::from_secs(second), &mut world.ports);
        while let Some(event) = world.worker.poll_event() {
            assert_eq!(event, (9, Event::Inactive));
            reported += 1;
        }
    }
    assert_eq!(reported, 1);
    let mut world = call();
    let held = [audio("10.0.0.5", 4000) + "a=sendonly\r\n", audio("10.9.0.1", 5000) + "a=recvonly\r\n"];
    world.agree(2, [A, B], held);
    for second in 0..700 {
        world.worker.handle_timeout(Duration::from_secs(second), &mut world.ports);
        assert_eq!(world.worker.poll_event(), None, "held");
    }
}

#[test]
fn multiplexing_is_answered_per_leg_and_reports_reach_each_side_as_it_agreed() {
    let mut world = anchor();
    let mux = |address: &str, port: u16| format!("{}a=rtcp-mux\r\n", audio(address, port));
    let offered = world.offer(1, A, B, mux("10.0.0.5", 4000)).unwrap();
    assert!(offered.contains("a=rtcp-mux"));
    let answered = world.answer(1, B, A, audio("10.9.0.1", 5000)).unwrap();
    assert!(answered.contains("a=rtcp-mux"), "A gets what it offered, though B does not want it: {answered}");
    world.places(0, "10.0.0.5:4000", &rtp(1, 7));
    let report = rtcp(7, 1, 8, 0, 0, 0);
    assert_eq!(world.places(0, "10.0.0.5:4000", &report), [(3, at("10.9.0.1:5001"))]);
    assert_eq!(world.places(3, "10.9.0.1:5001", &report), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(world.places(2, "10.9.0.1:5000", &report), [], "B did not agree to it");

    let mut world = anchor();
    assert!(!world.offer(1, A, B, audio("10.0.0.5", 4000)).unwrap().contains("mux"));
    let answered = world.answer(1, B, A, mux("10.9.0.1", 5000)).unwrap();
    assert!(!answered.contains("mux"), "nobody offered it");
    assert_eq!(world.places(1, "10.0.0.5:4001", &report), [(3, at("10.9.0.1:5001"))]);
}

#[test]
fn reports_pass_without_names_and_tell_the_round_trip_and_the_far_loss() {
    let mut world = call();
    for number in 1..=100 {
        world.places(0, "10.0.0.5:4000", &rtp(number, 7));
        world.places(2, "10.9.0.1:5000", &rtp(number, 8));
    }
    let sent = world.send(1, "10.0.0.5:4001", &rtcp(7, 0x1234_5678, 8, 0, 0, 0));
    assert_eq!((sent[0].0, sent[0].1), (3, at("10.9.0.1:5001")));
    assert!(!sent[0].2.windows(5).any(|window| window == b"alice"));
    world.now += Duration::from_millis(180);
    // B rested for 100 ms, and has lost 30 of A's packets.
    world.send(3, "10.9.0.1:5001", &rtcp(8, 1, 7, 30, 0x1234_5678, 6_554));
    let counted = end(&mut world);
    assert_eq!(counted[1].rtt_ms.map(|time| time.round()), Some(80.0));
    assert_eq!(counted[0].lost, 0, "they were lost behind us");
    assert!(counted[0].mos.unwrap() < 3.0 && counted[1].mos.unwrap() > 4.0, "{counted:?}");
}

#[test]
fn that_a_source_leaves_which_goes_on_is_not_told_to_who_would_forget_it() {
    for (product, is_told) in [("baresip v1.1.0 (x86_64/Linux)", false), ("Linphone/4.4.10", true)] {
        let mut world = anchor();
        world.parties[1].product = product.into();
        world.agree(1, [A, B], [audio("10.0.0.5", 4000), audio("10.9.0.1", 5000)]);
        world.places(0, "10.0.0.5:4000", &rtp(1, 7));
        let leaving = [&rtcp(7, 1, 8, 0, 0, 0)[..], &[0x81, 203, 0, 1, 0, 0, 0, 7]].concat();
        let sent = world.send(1, "10.0.0.5:4001", &leaving);
        assert_eq!(sent[0].2[..2], [0x81, 200], "{product}");
        assert_eq!(sent[0].2.windows(2).any(|pair| pair == [0x81, 203]), is_told, "{product}");
        assert!(
            world.send(1, "10.0.0.5:4001", &leaving[leaving.len() - 8..]).is_empty() != is_told,
            "{product}"
        );
    }
}

#[test]
fn encrypted_media_passes_untouched_and_its_reports_are_not_read() {
    let mut world = anchor();
    let keys = |address: &str, port: u16| sdp(address, &[&format!("audio {port} RTP/SAVP 0\r\n{KEY}")]);
    assert!(world.offer(1, A, B, keys("10.0.0.5", 4000)).unwrap().contains("a=crypto:1"));
    assert!(world.answer(1, B, A, keys("10.9.0.1", 5000)).unwrap().contains("a=crypto:1"));
    // Padding whose encrypted length would be nonsense.
    let mut padded = rtp(1, 7);
    padded[0] |= 0x20;
    assert_eq!(world.send(0, "10.0.0.5:4000", &padded), [(2, at("10.9.0.1:5000"), padded.clone())]);
    world.places(2, "10.9.0.1:5000", &rtp(1, 8));
    // The trailer of SRTCP; without it a report is in clear, and nobody's.
    let sealed = |report: Vec<u8>| [&report[..], &[0x80, 0, 0, 1, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9]].concat();
    assert!(world.send(1, "10.0.0.5:4001", &rtcp(7, 9, 8, 1, 0, 0)).is_empty());
    let report = sealed(rtcp(7, 9, 8, 1, 0, 0));
    assert_eq!(world.send(1, "10.0.0.5:4001", &report), [(3, at("10.9.0.1:5001"), report.clone())]);
    world.send(3, "10.9.0.1:5001", &sealed(rtcp(8, 9, 7, 1, 9, 0)));
    assert!(end(&mut world).iter().all(|one| one.rtt_ms.is_none() && one.packets == 1));
}

#[test]
fn fingerprints_pass_from_end_to_end_with_who_begins() {
    let mut world = anchor();
    let dtls = |address: &str, port: u16, octet: &str, setup: &str| {
        let lines = format!("a=fingerprint:sha-256 {octet}:AB:CD\r\na=setup:{setup}");
        (sdp(address, &[&format!("audio {port} UDP/TLS/RTP/SAVP 0\r\n{lines}")]), lines)
    };
    let (offer, lines) = dtls("10.0.0.5", 4000, "01", "actpass");
    let offered = world.offer(1, A, B, offer).unwrap();
    assert!(offered.contains(&lines) && offered.contains("UDP/TLS/RTP/SAVP 0"), "{offered}");
    let (answer, lines) = dtls("10.9.0.1", 5000, "02", "active");
    let answered = world.answer(1, B, A, answer).unwrap();
    assert!(answered.contains(&lines) && answered.contains("UDP/TLS/RTP/SAVP 0"), "{answered}");
    // A handshake's first octets are no RTP (RFC 7983), and pass all the same once both ends are known.
    world.places(0, "10.0.0.5:4000", &rtp(1, 7));
    world.places(2, "10.9.0.1:5000", &rtp(1, 8));
    let hello = [22u8, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1].to_vec();
    assert_eq!(world.send(0, "10.0.0.5:4000", &hello), [(2, at("10.9.0.1:5000"), hello.clone())]);
}

#[test]
fn two_branches_of_one_invite_share_its_ports_and_are_told_apart_by_their_sources() {
    let mut world = anchor();
    world.offer(1, A, B, audio("10.0.0.5", 4000)).unwrap();
    world.answer(1, B, A, audio("10.9.0.11", 5000)).unwrap();
    world.answer(1, B2, A, audio("10.9.0.12", 6000)).unwrap();
    assert_eq!(world.ports.open_pairs(), 2);
    assert_eq!(world.places(2, "10.9.0.12:6000", &rtp(1, 8)), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(
        world.places(2, "10.9.0.11:5000", &rtp(1, 9)),
        [],
        "the caller is fed by whoever answered last"
    );
    assert_eq!(world.places(0, "10.0.0.5:4000", &rtp(1, 7)), [(2, at("10.9.0.12:6000"))]);
    world.act(Action::Select(B));
    assert_eq!(world.places(2, "10.9.0.11:5000", &rtp(2, 9)), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(world.places(0, "10.0.0.5:4000", &rtp(2, 7)), [(2, at("10.9.0.11:5000"))]);
    assert_eq!(world.places(2, "10.9.0.12:6000", &rtp(2, 8)), [], "its branch is gone");
    let counted = end(&mut world);
    let heard: Vec<_> = counted.iter().map(|one| (one.endpoint, one.packets)).collect();
    assert_eq!(heard, [(A, 2), (B, 2), (B2, 1)]);
}

#[test]
fn a_branch_that_wins_before_it_has_answered_takes_over_the_ports_of_its_invite() {
    let mut world = anchor();
    world.offer(1, A, B, audio("10.0.0.5", 4000)).unwrap();
    world.offer(1, A, C, audio("10.0.0.5", 4000)).unwrap();
    world.answer(1, B, A, audio("10.9.0.11", 5000)).unwrap();
    world.act(Action::Select(B2));
    assert_eq!(world.ports.open_pairs(), 2, "the other party is gone");
    world.answer(1, B2, A, audio("10.9.0.12", 6000)).unwrap();
    assert_eq!(world.places(0, "10.0.0.5:4000", &rtp(1, 7)), [(2, at("10.9.0.12:6000"))]);
    end(&mut world);
}

#[test]
fn media_that_outruns_its_answer_is_heard_from_the_host_of_the_signalling_only() {
    let mut world = anchor();
    world.offer(1, A, B, audio("10.0.0.5", 4000)).unwrap();
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(1, 8)), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(world.places(2, "10.9.0.66:5000", &rtp(1, 8)), []);
    world.answer(1, B, A, audio("10.9.0.1", 5000)).unwrap();
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(2, 8)), [(0, at("10.0.0.5:4000"))]);
    assert_eq!(end(&mut world)[1].packets, 2);
}

#[test]
fn who_is_first_heard_from_behind_a_nat_hears_at_once_what_was_said_last() {
    let behind_nat = |wait: u64| {
        let mut world = anchor();
        world.agree(1, [A, B], [audio("192.168.7.7", 4000), audio("10.9.0.1", 5000)]);
        for sequence in 1..=2 {
            let sent = world.places(2, "10.9.0.1:5000", &rtp(sequence, 8));
            assert_eq!(sent, [(0, at("192.168.7.7:4000"))]);
        }
        world.now += Duration::from_millis(wait);
        world
    };
    let onward = (2, at("10.9.0.1:5000"), rtp(1, 7));
    let mut world = behind_nat(40);
    let heard = (0, at("10.0.0.5:61000"), rtp(2, 8));
    assert_eq!(world.send(0, "10.0.0.5:61000", &rtp(1, 7)), [heard, onward.clone()]);
    assert_eq!(world.places(0, "10.0.0.5:61000", &rtp(2, 7)), [(2, at("10.9.0.1:5000"))], "once");
    // Not what was said long before, not to a stranger, and not twice to one that is where it says.
    let mut world = behind_nat(61);
    assert_eq!(world.send(0, "10.0.0.5:61000", &rtp(1, 7)), std::slice::from_ref(&onward));
    let mut world = behind_nat(40);
    assert_eq!(world.send(0, "10.6.6.6:61000", &rtp(1, 7)), []);
    assert_eq!(world.send(0, "192.168.7.7:4000", &rtp(1, 7)), [onward]);
}

#[test]
fn nothing_is_sent_to_the_unspecified_address_until_the_call_is_resumed() {
    let mut world = call();
    world.agree(2, [A, B], [audio("0.0.0.0", 4000), audio("10.9.0.1", 5000)]);
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(1, 8)), []);
    // Its own packets do not end the hold.
    world.places(0, "10.0.0.5:4000", &rtp(1, 7));
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(2, 8)), []);
    world.agree(3, [A, B], [audio("10.0.0.5", 4000), audio("10.9.0.1", 5000)]);
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(3, 8)), [(0, at("10.0.0.5:4000"))]);
}

#[test]
fn a_call_that_becomes_a_fax_is_relayed_on_the_same_ports_and_counted_apart() {
    let mut world = call();
    world.places(0, "10.0.0.5:4000", &rtp(1, 7));
    let fax = |address: &str, port: u16| sdp(address, &[&format!("image {port} udptl t38")]);
    let [offered, _] = world.agree(2, [A, B], [fax("10.0.0.5", 4000), fax("10.9.0.1", 5000)]);
    assert!(offered.contains("m=image 10002 udptl t38"), "{offered}");
    // A sequence number that looks like STUN's first byte, and one that looks like RTCP's first two.
    let packets = [
        vec![0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        vec![0x80, 200, 0, 1, 2, 3, 4, 5],
    ];
    for packet in &packets {
        assert_eq!(world.send(0, "10.0.0.5:4000", packet), [(2, at("10.9.0.1:5000"), packet.clone())]);
    }
    let counted: Vec<_> =
        end(&mut world).into_iter().map(|one| (one.endpoint, one.kind, one.packets)).collect();
    assert_eq!(counted, [(A, "audio".into(), 1), (A, "image".into(), 2), (B, "image".into(), 0)]);
}

#[test]
fn a_refused_offer_leaves_everything_as_it_was_agreed() {
    let mut world = call();
    let two = sdp("10.0.0.7", &["audio 4444 RTP/AVP 0", "video 4002 RTP/AVP 99"]);
    for end in [Action::Reject { exchange: ExchangeId(2), from: B }, Action::Cancel(ExchangeId(2))] {
        world.offer(2, A, B, two.clone()).unwrap();
        assert_eq!(world.ports.open_pairs(), 4);
        world.act(end);
        assert_eq!(world.ports.open_pairs(), 2);
        assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(1, 8)), [(0, at("10.0.0.5:4000"))]);
    }
    assert_eq!(world.answer(2, B, A, two), Err(Refusal::Unknown));
}

#[test]
fn a_stream_that_the_answer_leaves_out_gives_its_ports_back() {
    let mut world = anchor();
    world.offer(1, A, B, sdp("10.0.0.5", &["audio 4000 RTP/AVP 0", "video 4002 RTP/AVP 99"])).unwrap();
    assert_eq!(world.ports.open_pairs(), 4);
    world.act(Action::Select(B));
    let answered =
        world.answer(1, B, A, sdp("10.9.0.1", &["audio 5000 RTP/AVP 0", "video 0 RTP/AVP 99"])).unwrap();
    assert!(answered.contains("m=video 0 "), "{answered}");
    assert_eq!(world.ports.open_pairs(), 2);
    assert_eq!(world.answer(1, B, A, audio("10.9.0.1", 5000)), Err(Refusal::Unknown), "answered for good");
    end(&mut world);
}

#[test]
fn each_m_line_has_ports_and_statistics_of_its_own() {
    let mut world = anchor();
    let many =
        ["audio 4000 RTP/AVP 0", "video 4002 RTP/AVP 99\r\na=rtpmap:99 H264/90000", "audio 4004 RTP/AVP 8"];
    let answer = ["audio 5000 RTP/AVP 0", "video 5002 RTP/AVP 99", "audio 5004 RTP/AVP 8"];
    world.agree(1, [A, B], [sdp("10.0.0.5", &many), sdp("10.9.0.1", &answer)]);
    for (line, socket) in [(0u16, 0), (1, 2), (2, 4)] {
        let out = world.places(socket, &format!("10.0.0.5:{}", 4000 + 2 * line), &rtp(1, 7));
        assert_eq!(out, [(socket + 6, at(&format!("10.9.0.1:{}", 5000 + 2 * line)))]);
    }
    let streams: Vec<_> =
        end(&mut world).into_iter().map(|one| (one.stream, one.kind, one.packets)).collect();
    assert_eq!(streams[..3].iter().map(|one| one.2).collect::<Vec<_>>(), [1, 1, 1]);
    assert_eq!(&*streams[1].1, "video");
}

#[test]
fn a_nat_that_rebinds_is_followed_with_its_reports() {
    let mut world = call();
    world.places(0, "10.0.0.5:4000", &rtp(1, 7));
    world.places(1, "10.0.0.5:4001", &rtcp(7, 1, 8, 0, 0, 0));
    world.now += Duration::from_secs(60);
    assert_eq!(world.places(0, "10.0.0.5:7777", &rtp(2, 9)), [], "another source");
    assert_eq!(world.places(0, "10.0.0.5:7777", &rtp(2, 7)).len(), 1);
    assert_eq!(world.places(2, "10.9.0.1:5000", &rtp(1, 8)), [(0, at("10.0.0.5:7777"))]);
    assert_eq!(world.places(1, "10.0.0.5:7778", &rtcp(7, 1, 8, 0, 0, 0)).len(), 1);
}

#[test]
fn telephone_events_are_counted_once_each() {
    let mut world = call();
    for (sequence, timestamp) in [(1u16, 160u32), (2, 160), (3, 160), (4, 4000)] {
        let mut packet = rtp(sequence, 7);
        packet[1] = 101;
        packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        world.places(0, "10.0.0.5:4000", &packet);
    }
    assert_eq!(end(&mut world)[0].dtmf, 2);
}

/// Why calls between realms of this mode stay, as their records tell, one re-INVITE after the other.
fn told_stays(mode: Mode, exchanges: &[String]) -> Vec<Stay> {
    let mut world = anchor();
    let realm = RealmRelease { mode, ..RealmRelease::default() };
    let settings = Settings { release: Some(release(vec![realm; 3])), ..Settings::default() };
    world.worker = Worker::new(settings, "anchor".to_owned());
    for (exchange, media) in (1..).zip(exchanges) {
        let lines: Vec<&str> = media.split(" + ").collect();
        world.agree(exchange, [A, B], [sdp("10.0.0.5", &lines), sdp("10.9.0.1", &lines)]);
        world.now += Duration::from_secs(1);
    }
    let mut told = Vec::new();
    while let Some((_, event)) = world.worker.poll_event() {
        if let Event::Path(PathEntry { entry: Entry::Stays(stay), .. }) = event {
            told.push(stay);
        }
    }
    told
}

#[test]
fn a_call_with_nothing_that_could_move_says_once_why_and_again_when_that_changes() {
    let plain = "audio 4000 RTP/AVP 0";
    let fax = "image 4000 udptl t38";
    let secure = format!("audio 4000 RTP/SAVP 0\r\n{KEY}");
    let muxed = format!("{plain}\r\na=rtcp-mux");
    let of = |mode, exchanges: &[&str]| {
        told_stays(mode, &exchanges.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    };
    assert_eq!(of(Mode::Anchor, &[plain, fax]), [], "its realms say it for all of their calls");
    assert_eq!(of(Mode::Allow, &[fax, fax]), [Stay::NotRtp]);
    assert_eq!(of(Mode::Allow, &[&secure]), [Stay::Srtp]);
    assert_eq!(of(Mode::Allow, &[&muxed, fax]), [Stay::Muxed, Stay::NotRtp]);
    assert_eq!(of(Mode::Allow, &[&format!("{plain} + image 4002 udptl t38")]), [Stay::NotRtp]);
    assert_eq!(of(Mode::Allow, &["audio 0 RTP/AVP 0"]), [Stay::NoMedia]);
    assert_eq!(of(Mode::Allow, &[plain]), [], "it is about to try");
}
