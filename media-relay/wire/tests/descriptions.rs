//! Session descriptions as properties, with sdp-types as the oracle: both read the same of what peers send, and what is
//! written for another party differs from what was read in what the relay changes and in nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use media_wire::sdp::{Description, Edition, Place};
use proptest::prelude::*;

/// Attributes that pass as they are.
fn attribute() -> impl Strategy<Value = String> {
    prop_oneof![
        "a=x-[a-z]{1,10}:[a-zA-Z0-9 ;=/+-]{0,30}[a-z]\r\n",
        (96u8..128).prop_map(|number| format!("a=rtpmap:{number} opus/48000/2\r\n")),
        Just("a=fmtp:101 0-16\r\n".to_owned()),
        Just("a=ptime:20\r\n".to_owned()),
        Just(
            "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\n"
                .to_owned()
        ),
    ]
}

/// A stream: its m-line's words, a c= of its own if it has one, its attributes.
fn stream() -> impl Strategy<Value = (String, u16, String, Option<String>, Vec<String>)> {
    (
        prop_oneof![Just("audio"), Just("video"), Just("image"), Just("application")].prop_map(str::to_owned),
        1u16..65_534,
        prop_oneof![Just("RTP/AVP 0 8 101"), Just("RTP/SAVPF 96 97"), Just("udptl t38"), Just("TCP/MSRP *")]
            .prop_map(str::to_owned),
        proptest::option::of(address()),
        proptest::collection::vec(attribute(), 0..5),
    )
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        (1u8..250, 1u8..250).prop_map(|(third, fourth)| format!("IN IP4 10.77.{third}.{fourth}")),
        (1u16..9_999).prop_map(|last| format!("IN IP6 2001:db8:77::{last}")),
    ]
}

/// A description and the attributes that each stream of it has.
fn description() -> impl Strategy<Value = (String, Vec<Vec<String>>)> {
    (
        address(),
        0u64..u64::MAX,
        proptest::collection::vec(attribute(), 0..3),
        proptest::collection::vec(stream(), 0..6),
    )
        .prop_map(|(address, id, session, streams)| {
            let mut text = format!(
                "v=0\r\no=alice {id} 1 {address}\r\ns=-\r\nc={address}\r\nt=0 0\r\n{}",
                session.concat()
            );
            for (kind, port, rest, own, attributes) in &streams {
                text.push_str(&format!("m={kind} {port} {rest}\r\n"));
                if let Some(own) = own {
                    text.push_str(&format!("c={own}\r\n"));
                }
                text.push_str(&attributes.concat());
            }
            (text, streams.into_iter().map(|stream| stream.4).collect())
        })
}

fn places(count: usize) -> Vec<Option<Place>> {
    (0..count)
        .map(|index| {
            let rtp = SocketAddr::new([192, 0, 2, 9].into(), 20_000 + 2 * index as u16);
            (index % 3 != 2).then_some(Place::at(rtp))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sdp_types_reads_the_same((text, _) in description()) {
        let ours = Description::parse(text.clone().into()).unwrap();
        let theirs = sdp_types::Session::parse(text.as_bytes()).unwrap();
        prop_assert_eq!(ours.media.len(), theirs.medias.len());
        for (ours, oracle) in ours.media.iter().zip(&theirs.medias) {
            prop_assert_eq!((&ours.kind, ours.port, &ours.profile), (&oracle.media, oracle.port, &oracle.proto));
            let connection = oracle.connections.first().or(theirs.connection.as_ref()).unwrap();
            prop_assert_eq!(ours.rtp.unwrap().ip().to_string(), connection.connection_address.clone());
        }
    }

    #[test]
    fn what_is_written_is_read_by_sdp_types_with_only_our_addresses((text, attributes) in description()) {
        let places = places(attributes.len());
        let written = Description::parse(text.into()).unwrap().rewrite(&Edition::new("- 7 2 IN IP4 192.0.2.9", &places, "anchor"));
        let shown = String::from_utf8_lossy(&written).into_owned();
        prop_assert!(!shown.contains("10.77.") && !shown.contains("2001:db8:77:"), "{}", shown);
        let theirs = sdp_types::Session::parse(&written).unwrap();
        prop_assert_eq!(&theirs.origin.unicast_address, "192.0.2.9");
        for ((oracle, place), attributes) in theirs.medias.iter().zip(&places).zip(&attributes) {
            prop_assert_eq!(oracle.port, place.map_or(0, |place| place.rtp.port()));
            prop_assert_eq!(oracle.attributes.len(), attributes.len());
            if place.is_some() {
                let connection = oracle.connections.first().or(theirs.connection.as_ref()).unwrap();
                prop_assert_eq!(&connection.connection_address, "192.0.2.9");
            }
            // Line for line, byte for byte.
            let all = attributes.concat();
            prop_assert!(shown.contains(&all), "{} not in {}", all, shown);
        }
    }

    #[test]
    fn writing_twice_is_writing_once((text, attributes) in description()) {
        let places = places(attributes.len());
        let once = Description::parse(text.into()).unwrap().rewrite(&Edition::new("- 7 2 IN IP4 192.0.2.9", &places, "anchor"));
        let twice = Description::parse(once.clone()).unwrap().rewrite(&Edition::new("- 7 2 IN IP4 192.0.2.9", &places, "anchor"));
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn cut_and_changed_descriptions_never_panic((text, attributes) in description(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bytes in [bytes[..at].to_vec(), bytes] {
            if let Ok(description) = Description::parse(bytes.into()) {
                description.rewrite(&Edition::new("- 7 2 IN IP4 192.0.2.9", &places(attributes.len()), "anchor"));
            }
        }
    }
}
