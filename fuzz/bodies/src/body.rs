//! Media types and multiparts: whatever a body is, what is passed of it holds the relay's description and no other.

use bytes::Bytes;
use sip_wire::{Body, Builder, MediaType, Message, Method, describes};

/// What the relay would put there; no input holds it by chance.
const OURS: &[u8] =
    b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=relay\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\nm=audio 20000 RTP/AVP 0\r\n";

/// The first line of `bytes` is the Content-Type (the value; a line that starts with a space or tab goes on), the rest
/// the body.
pub fn body(bytes: &[u8]) {
    let mut end = 0;
    loop {
        end += bytes[end..].iter().position(|byte| *byte == b'\n').map_or(bytes.len() - end, |feed| feed + 1);
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            break;
        }
    }
    let (kind, octets) = bytes.split_at(end);
    if let Some(kind) = MediaType::parse(kind) {
        assert!(!kind.kind().is_empty() && !kind.subtype().is_empty());
    }
    for method in [Method::INVITE, Method::INFO, Method::MESSAGE] {
        let Some(message) = message(method, kind, octets) else { continue };
        passed(&message);
    }
}

fn message(method: Method<'_>, kind: &[u8], octets: &[u8]) -> Option<Message> {
    let built = Builder::request(method, b"sip:a@b").body(kind, Bytes::copy_from_slice(octets)).finish();
    Message::parse(built.into()).ok()
}

fn unchanged(text: &[u8]) -> Vec<u8> {
    text.to_vec()
}

/// What one of our sides is called, on the other; the lengths differ.
fn translated(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text).replace("10.0.0.5", "example.com").into_bytes()
}

/// What becomes of a message's body holds our description where it had one, and none otherwise.
pub(crate) fn passed(message: &Message) {
    let Ok(body) = Body::of(message) else { return };
    let method = message.method().unwrap_or(Method::INVITE);
    let is_text = |kind: &MediaType| method == Method::MESSAGE && kind.kind() != b"message";
    let is_spared = message.media_type().is_none_or(|kind| is_text(&kind));
    let is_trickle = message.media_type().is_some_and(|kind| kind.subtype() == b"trickle-ice-sdpfrag");
    for translate in [unchanged as fn(&[u8]) -> Vec<u8>, translated] {
        if let Ok(Some((_, octets))) = body.write(None, &translate) {
            assert!(is_spared || is_trickle || !describes(&octets), "a description passed");
        }
        let Ok(written) = body.write(Some(&Bytes::from_static(OURS)), &translate) else { continue };
        let (kind, octets) = written.expect("what has a description is written with it");
        // The next reader finds ours, and only ours.
        let Some(again) = self::message(Method::INVITE, &kind, &octets) else { continue };
        if is_spared || is_trickle {
            continue;
        }
        let read = Body::of(&again).unwrap_or_else(|fault| panic!("what we wrote is refused: {fault}"));
        let range = read.description().expect("our description is found");
        assert_eq!(&again.body()[range], OURS);
        let rest = replaced(&octets);
        assert!(!describes(&rest), "a description beside ours: {}", rest.escape_ascii());
    }
}

/// Without any of ours.
fn replaced(octets: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut at = 0;
    while at < octets.len() {
        if octets[at..].starts_with(OURS) {
            at += OURS.len();
        } else {
            rest.push(octets[at]);
            at += 1;
        }
    }
    rest
}
