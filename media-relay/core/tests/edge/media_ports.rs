//! What passes a media port beside RTP, and what of it teaches where a party is.

use std::time::Duration;

use media_core::worker::Settings;

use crate::world::{ENDS, anchor, at, binding, connected, hello, rtcp, rtp};
use play::anchor::Anchor;

const PRIVATE: &str = "10.0.0.5:4000";
const NAT: &str = "203.0.113.1:61000";
const NAT_RTCP: &str = "203.0.113.1:61001";
const FAR: &str = "198.51.100.1:5000";
const FAR_RTCP: &str = "198.51.100.1:5001";
const DTLS: &str = "UDP/TLS/RTP/SAVP a=fingerprint:sha-256 00\r\n";

fn call() -> Anchor {
    connected(Settings::default(), PRIVATE, FAR, "")
}

#[test]
fn what_is_no_media_reaches_nobody_though_its_source_is_known() {
    let mut world = call();
    assert_eq!(world.places(0, NAT, &rtp(1, 7)), [(2, at(FAR))]);
    let zrtp_without_its_name = [&[0x10; 40][..]].concat();
    let foreign: [&[u8]; 7] = [
        b"OPTIONS sip:b@198.51.100.1 SIP/2.0\r\nVia: SIP/2.0/UDP x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x80; 11],
        &[0; 40],
        &[0x40; 172],
        &[0xc0; 172],
        &zrtp_without_its_name,
    ];
    for (place, packet) in foreign.into_iter().enumerate() {
        assert_eq!(world.send(0, NAT, packet), [], "{packet:?}");
        assert_eq!(world.send(1, NAT_RTCP, packet), [], "{packet:?} at the port of RTCP");
        assert_eq!(world.worker.dropped, 2 * (place as u64 + 1));
    }
    assert_eq!(world.places(0, NAT, &rtp(2, 7)), [(2, at(FAR))]);
}

#[test]
fn handshakes_pass_and_other_protocols_where_they_were_agreed_on() {
    let mut world = call();
    let zrtp = [&[0x10, 0, 0, 1][..], b"ZRTP", &[0; 20]].concat();
    for packet in [&hello(), &zrtp] {
        assert_eq!(world.places(0, NAT, packet), [(2, at(FAR))]);
    }
    let mut fax = anchor(Settings::default());
    let sdp = |address: &str| {
        let address = at(address);
        let (ip, port) = (address.ip(), address.port());
        format!("v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=image {port} udptl t38\r\n")
    };
    fax.agree(1, ENDS, [sdp(PRIVATE), sdp(FAR)]);
    assert_eq!(fax.places(0, NAT, &[0, 1, 1, 6, 0]), [(2, at(FAR))]);
}

#[test]
fn keepalives_are_consumed_counted_apart_and_show_where_a_listener_is() {
    for keepalive in [&b""[..], b"\r\n\r\n", b"\0"] {
        let mut world = call();
        assert_eq!(world.send(0, NAT, keepalive), []);
        assert_eq!((world.worker.keepalives, world.worker.dropped), (1, 0));
        assert_eq!(world.places(2, FAR, &rtp(1, 8)), [(0, at(NAT))]);
        assert_eq!(world.send(0, "192.0.2.99:9", keepalive), []);
        assert_eq!((world.worker.keepalives, world.worker.dropped), (1, 1), "a stranger's");
    }
}

#[test]
fn a_known_phones_own_stun_is_no_strangers_and_shows_where_it_is() {
    let mut world = call();
    assert_eq!(world.send(0, NAT, &binding()), [], "who does not take part is not answered");
    assert_eq!(world.places(2, FAR, &rtp(1, 8)), [(0, at(NAT))]);
    assert_eq!(world.send(0, "192.0.2.99:9", &binding()), []);
    let strangers: Vec<u64> = world.statistics().iter().map(|stream| stream.strangers).collect();
    assert_eq!((strangers.as_slice(), world.worker.dropped), (&[1, 0][..], 1));
}

#[test]
fn a_passive_end_behind_a_nat_gets_the_hello_that_waited_when_its_stun_is_heard() {
    let mut world = connected(Settings::default(), PRIVATE, FAR, DTLS);
    world.send(2, FAR, &hello());
    world.now += Duration::from_millis(600);
    let sent = world.send(0, NAT, &binding());
    assert_eq!(sent, [(0, at(NAT), hello())]);
}

#[test]
fn a_handshake_at_the_port_of_rtcp_passes_both_ways() {
    let mut world = connected(Settings::default(), PRIVATE, FAR, DTLS);
    assert_eq!(world.places(1, NAT_RTCP, &hello()), [(3, at(FAR_RTCP))]);
    assert_eq!(world.places(3, FAR_RTCP, &hello()), [(1, at(NAT_RTCP))]);
    assert_eq!(world.places(1, "192.0.2.99:9", &hello()), []);
}

#[test]
fn reports_that_come_first_long_after_the_media_are_heard() {
    let mut world = call();
    world.send(0, NAT, &rtp(1, 7));
    world.now += Duration::from_secs(600);
    assert_eq!(world.places(1, NAT_RTCP, &rtcp(7)), [(3, at(FAR_RTCP))]);
    assert_eq!(world.places(3, FAR_RTCP, &rtcp(8)), [(1, at(NAT_RTCP))]);
}

#[test]
fn a_packet_that_is_not_built_as_it_says_passes_but_teaches_nothing() {
    let mut world = call();
    let mut odd = rtp(1, 7);
    odd.truncate(16);
    odd[0] = 0x9f;
    assert_eq!(world.send(0, NAT, &odd), []);
    world.send(0, NAT, &rtp(2, 7));
    assert_eq!(world.send(0, NAT, &odd), [(2, at(FAR), odd.clone())]);
}
