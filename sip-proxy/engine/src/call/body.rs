//! Which bodies pass from one side to the other, and as what.

use bytes::Bytes;
use sip_wire::{Builder, Message, Name, multipart};

/// Adds a message's body, with `sdp` in the place of its session description, and how many bodies were dropped because they
/// name their own side.
pub(super) fn with_body(
    out: Builder,
    message: &Message,
    sdp: Option<&Bytes>,
    secrets: &crate::passing::Secrets,
) -> (Builder, u32) {
    let content_type = message.value(Name::ContentType).unwrap_or(b"application/octet-stream");
    let Some(range) = multipart::session_description(message) else {
        return match sdp {
            Some(sdp) => (out.body(b"application/sdp", sdp.clone()), 0),
            None if message.body().is_empty() => (out, 0),
            None if !secrets.are_in(message.body()) => (out.body(content_type, message.body_bytes()), 0),
            None => match bare_fragment(message) {
                Some(fragment) => (out.body(content_type, fragment), 0),
                None => (out, 1),
            },
        };
    };
    match sdp {
        None => (out, 0),
        Some(sdp) if range.len() == message.body().len() => (out.body(b"application/sdp", sdp.clone()), 0),
        Some(sdp) => {
            let body = multipart::replace(message.body(), range, sdp);
            if secrets.are_in(&body) {
                (out.body(b"application/sdp", sdp.clone()), 1)
            } else {
                (out.body(content_type, body), 0)
            }
        }
    }
}

/// Of a message/sipfrag (RFC 3420) the status line, which is all that a transfer is told by (RFC 3515 §2.4.5).
fn bare_fragment(message: &Message) -> Option<Bytes> {
    let content_type = message.value(Name::ContentType)?;
    let is_fragment =
        content_type.get(..15).is_some_and(|kind| kind.eq_ignore_ascii_case(b"message/sipfrag"));
    let body = message.body_bytes();
    let end = memchr::memchr(b'\n', &body)? + 1;
    (is_fragment && body.starts_with(b"SIP/2.0 ")).then(|| body.slice(..end))
}
