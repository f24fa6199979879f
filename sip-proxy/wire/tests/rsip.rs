//! rsip as an oracle: on ordinary traffic both read the same, and where rsip is known to be wrong, it still is. A known
//! deviation that a new rsip mends fails here, so that its exception can go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking and says why")]

use std::convert::TryFrom;

use proptest::prelude::*;
use rsip::prelude::*;
use sip_wire::{Message, Name};

/// A request that rsip reads: no folds, no compact names, no IPv6, no dots in user parts, known methods and transports.
fn ordinary() -> impl Strategy<Value = String> {
    let method = prop_oneof![
        Just("INVITE"),
        Just("OPTIONS"),
        Just("REGISTER"),
        Just("BYE"),
        Just("PRACK"),
        Just("UPDATE"),
        Just("MESSAGE"),
        Just("SUBSCRIBE"),
        Just("NOTIFY"),
        Just("REFER"),
        Just("INFO"),
        Just("PUBLISH"),
        Just("CANCEL"),
        Just("ACK"),
    ];
    let host = prop_oneof!["[a-z]{1,8}\\.example\\.com", "192\\.0\\.2\\.[1-9]"];
    let port = prop_oneof![Just(String::new()), "[1-9][0-9]{0,3}".prop_map(|port| format!(":{port}"))];
    let word = "[a-zA-Z0-9]{1,16}";
    let others =
        proptest::collection::vec(("X-[A-Za-z]{1,10}", "[a-zA-Z0-9][a-zA-Z0-9 =,;/.]{0,30}[a-z0-9]"), 0..6);
    let body = "[ -~\r\n]{0,80}";
    (method, (host, port), word, (word, word, word), 0u32..0x7fff_ffff, others, body).prop_map(
        |(method, (host, port), user, (branch, tag, call_id), cseq, others, body)| {
            let others: String = others.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
            format!(
                "{method} sip:{user}@{host}{port} SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {host}{port};branch=z9hG4bK{branch};rport\r\n\
                 From: \"{user}\" <sip:{user}@{host}>;tag={tag}\r\n\
                 To: <sip:{user}@{host}>\r\n\
                 Call-ID: {call_id}@{host}\r\n\
                 CSeq: {cseq} {method}\r\n\
                 Max-Forwards: 70\r\n\
                 {others}Content-Length: {}\r\n\r\n{body}",
                body.len()
            )
        },
    )
}

/// Name and value of each header, as rsip has them.
fn headers(request: &rsip::Request) -> Vec<(String, String)> {
    request
        .headers
        .iter()
        .filter_map(|header| {
            let text = header.to_string();
            let (name, value) = text.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ordinary_requests_are_read_alike(text in ordinary()) {
        let ours = Message::parse(text.clone().into()).unwrap();
        let theirs = rsip::Request::try_from(text.as_bytes()).unwrap();

        prop_assert_eq!(ours.method().unwrap().to_string(), theirs.method.to_string());
        let uri = sip_wire::Uri::parse(ours.request_uri().unwrap()).unwrap();
        prop_assert_eq!(Some(uri.user()), theirs.uri.user().map(str::as_bytes));
        prop_assert_eq!(String::from_utf8_lossy(uri.host().as_bytes()), theirs.uri.host().to_string());
        prop_assert_eq!(uri.port(), theirs.uri.port().map(|port| *port.value()));
        let lines: Vec<(String, String)> = ours
            .lines()
            .map(|line| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                (text(line.text).to_ascii_lowercase(), text(line.value))
            })
            .collect();
        prop_assert_eq!(lines, headers(&theirs));
        prop_assert_eq!(ours.body(), &theirs.body[..]);

        let via = theirs.via_header().unwrap().typed().unwrap();
        prop_assert_eq!(ours.via().unwrap().branch(), via.branch().map(|branch| branch.value().as_bytes()));
        let from = theirs.from_header().unwrap().typed().unwrap();
        prop_assert_eq!(ours.from().unwrap().tag(), from.tag().map(|tag| tag.value().as_bytes()));
        let cseq = theirs.cseq_header().unwrap().typed().unwrap();
        prop_assert_eq!(ours.cseq().unwrap().number, cseq.seq);
    }
}

/// Lines put into an ordinary request in the place of its own.
struct Deviation {
    what: &'static str,
    from: &'static str,
    to: &'static str,
    /// Whether rsip, unlike us, refuses it or reads something else.
    is_there: fn(&Message, Result<rsip::Request, rsip::Error>) -> bool,
}

const REQUEST: &str = "INVITE sip:bob@example.com SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKa\r\nFrom: <sip:a@example.com>;tag=1\r\nTo: <sip:bob@example.com>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\nContact: <sip:a@192.0.2.1>\r\nContent-Length: 0\r\n\r\n";

const REFUSED: fn(&Message, Result<rsip::Request, rsip::Error>) -> bool = |_, theirs| theirs.is_err();

const DEVIATIONS: &[Deviation] = &[
    Deviation { what: "folded header", from: "To: <", to: "To:\r\n <", is_there: REFUSED },
    Deviation { what: "space before the colon", from: "To: <", to: "To : <", is_there: REFUSED },
    Deviation {
        what: "IPv6 Request-URI",
        from: "sip:bob@example.com SIP",
        to: "sip:[2001:db8::1] SIP",
        is_there: REFUSED,
    },
    Deviation {
        what: "tel Request-URI",
        from: "sip:bob@example.com SIP",
        to: "tel:+14155550123 SIP",
        is_there: REFUSED,
    },
    Deviation {
        what: "urn Request-URI",
        from: "sip:bob@example.com SIP",
        to: "urn:service:sos SIP",
        is_there: REFUSED,
    },
    Deviation {
        what: "unknown transport",
        from: "bob@example.com SIP",
        to: "bob@example.com;transport=quic SIP",
        is_there: REFUSED,
    },
    Deviation {
        what: "Latin-1 in a header",
        from: "Call-ID: 1",
        to: "Subject: \u{1}\r\nCall-ID: 1",
        is_there: REFUSED,
    },
    Deviation {
        what: "user part with a dot",
        from: "sip:bob@example.com SIP",
        to: "sip:john.doe@example.com SIP",
        is_there: |ours, theirs| {
            let uri = sip_wire::Uri::parse(ours.request_uri().unwrap()).unwrap();
            uri.user() == b"john.doe" && theirs.is_ok_and(|theirs| theirs.uri.user().is_none())
        },
    },
    Deviation {
        what: "compact names",
        from: "Via: ",
        to: "v: ",
        is_there: |ours, theirs| {
            ours.via().is_ok() && theirs.is_ok_and(|theirs| theirs.via_header().is_err())
        },
    },
    Deviation {
        what: "two Vias in a line",
        from: "z9hG4bKa",
        to: "z9hG4bKa, SIP/2.0/UDP 192.0.2.2;branch=z9hG4bKb",
        is_there: |ours, theirs| {
            let vias = theirs.map(|theirs| theirs.via_header().unwrap().typed().map(|via| via.to_string()));
            ours.values(Name::Via).count() == 2
                && vias.is_ok_and(|via| via.is_ok_and(|via| !via.contains("192.0.2.2")))
        },
    },
    Deviation {
        what: "IPv6 sent-by",
        from: "192.0.2.1:5060",
        to: "[2001:db8::1]:5060",
        is_there: |ours, theirs| {
            ours.via().unwrap().port == Some(5060)
                && theirs.is_ok_and(|theirs| theirs.via_header().unwrap().typed().is_err())
        },
    },
    Deviation {
        what: "quoted parameter of Contact",
        from: "<sip:a@192.0.2.1>",
        to: "<sip:a@192.0.2.1>;+sip.instance=\"<urn:uuid:1>\"",
        is_there: |ours, theirs| {
            ours.contacts().next().unwrap().unwrap().parameter(b"+sip.instance") == Some(b"\"<urn:uuid:1>\"")
                && theirs.is_ok_and(|theirs| theirs.contact_header().unwrap().typed().is_err())
        },
    },
    Deviation {
        what: "octets behind Content-Length",
        from: "Content-Length: 0\r\n\r\n",
        to: "Content-Length: 0\r\n\r\nnoise",
        is_there: |ours, theirs| ours.body().is_empty() && theirs.is_ok_and(|theirs| theirs.body == b"noise"),
    },
];

#[test]
fn the_known_deviations_of_rsip_are_still_there() {
    for deviation in DEVIATIONS {
        let text = REQUEST.replacen(deviation.from, deviation.to, 1);
        assert_ne!(text, REQUEST, "{}", deviation.what);
        let text: Vec<u8> = text.bytes().map(|byte| if byte == 1 { 0xe4 } else { byte }).collect();
        let ours = Message::parse(text.clone().into()).expect(deviation.what);
        let theirs = rsip::Request::try_from(&text[..]);
        assert!((deviation.is_there)(&ours, theirs), "rsip now reads: {}", deviation.what);
    }
}

#[test]
fn what_frames_a_lie_is_refused_by_us_and_not_by_rsip() {
    for length in ["-999", "9999", "0\r\nl: 5"] {
        let text = REQUEST.replacen("Content-Length: 0", &format!("Content-Length: {length}"), 1);
        assert!(Message::parse(text.clone().into()).is_err(), "{length}");
        assert!(rsip::Request::try_from(text.as_bytes()).is_ok(), "rsip now checks Content-Length: {length}");
    }
}
