//! What holds of every message: it is written as it was read, edits touch nothing else, and no value can add a line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking and says why")]

use bytes::Bytes;
use proptest::prelude::*;
use sip_wire::{Builder, Cause, Framed, Malformed, Message, Method, Name, StreamFramer};

/// A header line as peers write them: names in any case or compact, values folded, quoted, in any octets.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("Via".to_owned()),
        Just("v".to_owned()),
        Just("CONTACT".to_owned()),
        Just("Subject".to_owned()),
        "[A-Za-z0-9!%*_+`'~.-]{1,20}",
    ]
    .prop_filter("frames the message", |name| {
        !name.eq_ignore_ascii_case("l") && !name.eq_ignore_ascii_case("content-length")
    });
    let piece = prop_oneof![
        "[ -~]{0,30}".prop_map(String::into_bytes),
        Just(b"\r\n \t folded".to_vec()),
        Just(b"\"quoted \\\" , ; <\"".to_vec()),
        Just("sip:a@[2001:db8::1]:5060;lr".into()),
        Just("Größe".into()),
        Just(b"\xff\xfe\x80".to_vec()),
    ];
    (name, "[ \t]{0,2}", proptest::collection::vec(piece, 0..5)).prop_map(|(name, gap, pieces)| {
        [name.as_bytes(), gap.as_bytes(), b": ", &pieces.concat(), b"\r\n"].concat()
    })
}

fn start() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Z!%*_+`'~.-]{1,12} (sip:[a-z0-9]{1,8}@[a-z0-9.]{1,12}|tel:\\+[0-9]{3,12}|urn:service:sos|sips:\\[2001:db8::1\\]:5061) SIP/2\\.0",
        "SIP/2\\.0 [1-6][0-9][0-9] [ -~]{0,20}",
    ]
}

/// A message with its parts: the start line, the lines, the body.
fn message() -> impl Strategy<Value = (String, Vec<Vec<u8>>, Vec<u8>)> {
    (start(), proptest::collection::vec(line(), 0..12), proptest::collection::vec(any::<u8>(), 0..60))
}

fn written(start: &str, lines: &[Vec<u8>], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    [start.as_bytes(), b"\r\n", &lines.concat(), length.as_bytes(), body].concat()
}

/// Octets that would end a line, a value or a message.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(
        prop_oneof![
            Just(b'\r'),
            Just(b'\n'),
            Just(0u8),
            Just(b' '),
            Just(b':'),
            Just(b'a'),
            Just(b'\\'),
            any::<u8>()
        ],
        0..40,
    )
}

/// What we have written or changed is known without being read.
fn is_as_read(ours: &Message) -> Result<(), TestCaseError> {
    let read = Message::parse(ours.as_bytes().clone());
    prop_assert!(read.is_ok(), "{:?}", read.err());
    let Ok(read) = read else { return Ok(()) };
    let line = |line: sip_wire::Line<'_>| (line.index, line.name, line.text.to_vec(), line.value.to_vec());
    prop_assert_eq!(ours.lines().map(line).collect::<Vec<_>>(), read.lines().map(line).collect::<Vec<_>>());
    prop_assert_eq!(ours.start_line(), read.start_line());
    prop_assert_eq!(ours.method(), read.method());
    prop_assert_eq!(ours.request_uri(), read.request_uri());
    prop_assert_eq!((ours.status(), ours.reason()), (read.status(), read.reason()));
    prop_assert_eq!(ours.body(), read.body());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_is_written_as_it_was_read((start, lines, body) in message()) {
        let text = written(&start, &lines, &body);
        let message = Message::parse(text.clone().into()).unwrap();
        prop_assert_eq!(message.as_bytes(), &text);
        prop_assert_eq!(message.edit().finish(), text);
        prop_assert_eq!(message.lines().count(), lines.len() + 1);
        prop_assert_eq!(message.body(), body);
        prop_assert_eq!(message.start_line(), start.as_bytes());
    }

    #[test]
    fn octets_around_a_datagrams_message_are_no_part_of_it((start, lines, body) in message(), noise in hostile()) {
        let text = written(&start, &lines, &body);
        let message = Message::parse([b"\r\n\r\n", &text[..], &noise].concat().into()).unwrap();
        prop_assert_eq!(message.as_bytes(), &text);
    }

    #[test]
    fn an_edit_copies_untouched_lines_verbatim((start, lines, body) in message(), chosen in any::<prop::sample::Index>(), value in hostile()) {
        prop_assume!(!lines.is_empty());
        let chosen = chosen.index(lines.len());
        let message = Message::parse(written(&start, &lines, &body).into()).unwrap();

        let mut removed = lines.clone();
        removed.remove(chosen);
        prop_assert_eq!(message.edit().remove_line(chosen).finish(), written(&start, &removed, &body));

        let changed = message.edit().replace_line(chosen, &value).message();
        let edited = message.edit().replace_line(chosen, &value).finish();
        is_as_read(&changed)?;
        prop_assert_eq!(changed.as_bytes(), &edited);
        let before = [start.as_bytes(), b"\r\n", &lines[..chosen].concat()].concat();
        let after = written("", &lines[chosen + 1..], &body);
        prop_assert!(edited.starts_with(&before));
        prop_assert!(edited.ends_with(&after[2..]));
        let edited = Message::parse(edited).unwrap();
        prop_assert_eq!(edited.lines().count(), lines.len() + 1);
    }

    #[test]
    fn no_value_adds_a_line(value in hostile(), body in hostile()) {
        let built = Builder::request(Method::INFO, &[b"sip:a@b;x=", &value[..]].concat())
            .header(Name::To, &value)
            .other(b"X-Any", &value)
            .body(&value, body.clone().into())
            .finish();
        match Message::parse(built.as_bytes().clone()) {
            Ok(_) => {
                is_as_read(&built)?;
                prop_assert_eq!(built.lines().count(), 4);
                prop_assert_eq!(built.body(), body);
            }
            // A broken URI is the caller's mistake; it ends neither itself nor its line.
            Err(refused) => prop_assert_eq!(refused.cause, Cause::Malformed(Malformed::RequestUri)),
        }
        let built = Builder::response(486, &value).header(Name::To, &value).finish();
        is_as_read(&built)?;
        prop_assert_eq!(built.lines().count(), 2);
    }

    #[test]
    fn a_changed_message_is_what_a_reader_would_make_of_it((start, lines, body) in message(), value in hostile(), new in hostile()) {
        let message = Message::parse(written(&start, &lines, &body).into()).unwrap();
        let mut edit = message.edit();
        edit.remove(Name::Contact).set(Name::Subject, &value).prepend(Name::Via, b"SIP/2.0/UDP h").prepend(Name::Route, &value);
        edit.append(Name::Reason, &value).set(Name::To, &value).set(Name::To, b"<sip:a@b>").body(new.into());
        edit.request_uri(b"sip:some body@elsewhere");
        let changed = edit.message();
        is_as_read(&changed)?;
        prop_assert_eq!(edit.finish(), changed.as_bytes(), "the length of the body is a line once");
    }

    #[test]
    fn a_stream_gives_the_same_messages_however_it_is_cut(
        messages in proptest::collection::vec(message(), 1..4),
        pings in 0usize..3,
        cuts in proptest::collection::vec(1usize..200, 1..8),
    ) {
        let texts: Vec<Vec<u8>> = messages.iter().map(|(start, lines, body)| written(start, lines, body)).collect();
        let stream = texts.iter().flat_map(|text| [b"\r\n\r\n".repeat(pings), text.clone()].concat()).collect::<Vec<u8>>();
        let mut framer = StreamFramer::default();
        let mut found: Vec<Bytes> = Vec::new();
        let (mut at, mut answered) = (0, 0);
        for length in cuts.iter().cycle() {
            let end = (at + length).min(stream.len());
            framer.push(&stream[at..end]);
            at = end;
            while let Some(framed) = framer.next().unwrap() {
                match framed {
                    Framed::Message(message) => found.push(message.as_bytes().clone()),
                    Framed::Ping => answered += 1,
                    Framed::Pong => {}
                }
            }
            if at == stream.len() {
                break;
            }
        }
        prop_assert_eq!(found, texts);
        prop_assert!(framer.is_empty());
        prop_assert_eq!(answered, pings * messages.len());
    }
}
