//! SIP: datagrams, streams, typed views, edits, answers to what is refused.

use bytes::Bytes;
use sip_wire::{
    Address, Builder, Cause, Framed, MAX_LINES, Malformed, Message, Method, Name, Refused, StreamFramer, Uri,
    Values, check_request, check_response,
};

/// Reads `bytes` as a datagram and as a stream.
pub fn sip(bytes: &[u8]) {
    match Message::parse(Bytes::copy_from_slice(bytes)) {
        Ok(message) => {
            accepted(&message, bytes);
            views(&message);
            edits(&message, bytes);
            judged(&message);
        }
        Err(refused) => answered(&refused),
    }
    built(bytes);
    streamed(bytes);
}

/// A message is what arrived, but for line ends before it and octets behind it.
fn accepted(message: &Message, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    assert!(rest.starts_with(message.as_bytes()), "not what arrived");
    assert_eq!(message.edit().finish(), message.as_bytes(), "an edit that changes nothing changed it");
    assert_eq!(message.method().is_some(), message.status().is_none());
    let again = Message::parse(message.as_bytes().clone()).expect("what was read once can be read again");
    assert_eq!(again.lines().count(), message.lines().count());
    assert_eq!(again.body(), message.body());
}

fn views(message: &Message) {
    let _ =
        (message.via(), message.from(), message.to(), message.call_id(), message.cseq(), message.reason());
    for line in message.lines() {
        assert!(
            !line.text.is_empty() && !line.value.contains(&b'\n')
                || line.value.windows(2).any(|two| two == b"\r\n")
        );
        assert_eq!(Name::of(line.text), line.name);
        let _ = message.number(line.name);
        for value in message.values(line.name) {
            assert!(!value.is_empty());
        }
        for value in Values::of_list(line.value) {
            if let Ok(address) = Address::parse(value) {
                for (name, value) in address.parameters() {
                    assert_eq!(address.parameters().get(name).is_some(), !name.is_empty() || value.is_some());
                }
                uri(&address.uri);
            }
        }
        let _ = sip_wire::parameter(line.value, b"boundary").map(sip_wire::unquote);
    }
    if let Some(text) = message.request_uri() {
        uri(&Uri::parse(text).expect("a Request-URI was read with the message"));
    }
    crate::body::passed(message);
}

fn uri(uri: &Uri<'_>) {
    let _ = (uri.host().address(), uri.port(), uri.header(b"replaces"), uri.parameters().count());
    let escaped = Uri::escape(uri.user());
    assert_eq!(Uri::unescape(escaped.as_bytes()), uri.user());
}

/// Untouched lines stay byte for byte, touched ones hold what was put there, and no value adds a line.
fn edits(message: &Message, value: &[u8]) {
    let index = value.len() % (message.lines().count() + 1);
    let mut edit = message.edit();
    edit.replace_line(index, value).prepend(Name::Subject, value).append(Name::Reason, value);
    let body = Bytes::from_static(b"body");
    let keeps_body = message.count(Name::ContentLength) > 0;
    if !keeps_body {
        edit.body(body.clone());
    }
    if message.method().is_some() {
        edit.request_uri(&[b"sip:a@b;x=", value.get(..64).unwrap_or(value)].concat());
    }
    // A Content-Length that is replaced by anything may be refused; so may what is now too large, and a URI that is
    // broken but cannot end its line.
    let is_length = message.lines().nth(index).is_some_and(|line| line.name == Name::ContentLength);
    let changed = match Message::parse(edit.finish()) {
        Ok(changed) => changed,
        Err(refused) => {
            assert!(
                is_length
                    || matches!(
                        refused.cause,
                        Cause::TooLarge | Cause::BodyTooLarge | Cause::Malformed(Malformed::RequestUri)
                    ),
                "an edit broke it: {}",
                refused.cause
            );
            return;
        }
    };
    if is_length {
        return;
    }
    assert!(is_same(&edit.message(), &changed), "what was changed is known without being read");
    let added = 2 + usize::from(!keeps_body);
    assert_eq!(changed.lines().count(), message.lines().count() + added);
    assert_eq!(changed.body(), if keeps_body { message.body() } else { &body });
    for (old, new) in message.lines().zip(changed.lines().skip(1)) {
        assert_eq!(old.text, new.text);
        assert!(old.index == index || old.value == new.value);
    }
}

/// What lacks something is answered with its status, if it is a request.
fn judged(message: &Message) {
    let verdict = if message.status().is_some() { check_response(message) } else { check_request(message) };
    if let Err(cause) = verdict {
        let refused = Refused::of(message, cause);
        answered(&refused);
        let is_answered = refused.response("tag").is_some();
        let is_answerable =
            message.method().is_some_and(|method| method != Method::ACK) && message.via().is_ok();
        assert_eq!(is_answered, is_answerable);
    }
}

fn answered(refused: &Refused) {
    let Some(answer) = refused.response("tag") else { return };
    let answer = answer.finish();
    let written = answer.as_bytes().clone();
    match Message::parse(written.clone()) {
        Ok(answer) => {
            assert_eq!(answer.status(), Some(refused.cause.status()));
            assert!(answer.via().is_ok() && answer.lines().count() <= MAX_LINES);
        }
        // A head at the limit grows by a few bytes.
        Err(again) => assert_eq!(again.cause, Cause::TooLarge, "{}", String::from_utf8_lossy(&written)),
    }
}

/// A message made of anything has the lines that it was given.
fn built(value: &[u8]) {
    let value = value.get(..4_096).unwrap_or(value);
    let uri = [b"sip:a@b;x=", &value[..value.len() / 4]].concat();
    let built = Builder::request(Method::new(b"INFO"), &uri)
        .header(Name::Subject, value)
        .header(Name::To, value)
        .body(value, Bytes::copy_from_slice(value))
        .finish();
    match Message::parse(built.as_bytes().clone()) {
        Ok(read) => {
            assert_eq!(read.lines().count(), 4);
            assert_eq!(read.body(), value);
            assert!(is_same(&built, &read), "what was written is known without being read");
        }
        Err(refused) => assert_eq!(refused.cause, Cause::Malformed(Malformed::RequestUri)),
    }
    let built = Builder::response(200, value).finish();
    let read = Message::parse(built.as_bytes().clone()).expect("a built response can be read");
    assert_eq!(read.lines().count(), 1);
    assert!(is_same(&built, &read), "what was written is known without being read");
}

fn is_same(one: &Message, other: &Message) -> bool {
    let lines = |message: &Message| -> Vec<_> {
        message.lines().map(|line| (line.name, line.text.to_vec(), line.value.to_vec())).collect()
    };
    lines(one) == lines(other)
        && one.start_line() == other.start_line()
        && one.request_uri() == other.request_uri()
        && one.reason() == other.reason()
        && one.body() == other.body()
}

/// What came out of a stream up to where it was lost.
#[derive(Debug, PartialEq)]
enum Cut {
    Message(Bytes),
    Refused(Cause),
}

/// However a stream is cut, the same messages come out.
fn streamed(bytes: &[u8]) {
    let whole = cut(bytes, bytes.len().max(1));
    let step = 1 + usize::from(bytes.first().copied().unwrap_or(0)) % 97;
    assert_eq!(cut(bytes, step), whole, "cut every {step}");
}

fn cut(bytes: &[u8], step: usize) -> Vec<Cut> {
    let mut framer = StreamFramer::default();
    let mut found = Vec::new();
    for part in bytes.chunks(step) {
        framer.push(part);
        loop {
            match framer.next() {
                Ok(Some(Framed::Message(message))) => found.push(Cut::Message(message.as_bytes().clone())),
                Ok(Some(Framed::Ping | Framed::Pong)) => {}
                Ok(None) => break,
                Err(refused) => {
                    answered(&refused);
                    found.push(Cut::Refused(refused.cause));
                    if refused.cause.breaks_framing() {
                        return found;
                    }
                }
            }
        }
    }
    found
}
