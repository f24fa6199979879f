//! Multipart bodies (RFC 2046 §5.1, RFC 5621): finding the session description among the parts, and replacing it.

use std::ops::Range;

use bytes::Bytes;
use memchr::memmem;

use crate::message::Message;
use crate::name::Name;
use crate::text::{parameter, trim, unquote};

/// Where a message's session description stands in its body; `None` if there is none.
pub fn session_description(message: &Message) -> Option<Range<usize>> {
    if message.has_content_type("application/sdp") {
        return (!message.body().is_empty()).then(|| 0..message.body().len());
    }
    let content_type = message.value(Name::ContentType)?;
    if !content_type.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/")) {
        return None;
    }
    let boundary = unquote(parameter(content_type, b"boundary")?);
    parts(message.body(), &boundary).into_iter().find_map(|part| {
        let body = &message.body()[part.clone()];
        let (head, start) = match memmem::find(body, b"\r\n\r\n") {
            Some(end) if !body.starts_with(b"\r\n") => (&body[..end], end + 4),
            _ => (&b""[..], 2),
        };
        is_description(head).then(|| part.start + start..part.end)
    })
}

/// The body with another session description in the place of `range`, the rest as it was.
pub fn replace(body: &[u8], range: Range<usize>, description: &[u8]) -> Bytes {
    if range.len() == body.len() {
        return Bytes::copy_from_slice(description);
    }
    [&body[..range.start], description, &body[range.end..]].concat().into()
}

fn is_description(head: &[u8]) -> bool {
    head.split(|byte| *byte == b'\n').any(|line| {
        let Some(colon) = memchr::memchr(b':', line) else { return false };
        let kind = line[colon + 1..].split(|byte| *byte == b';').next().unwrap_or_default();
        Name::of(trim(&line[..colon])) == Name::ContentType
            && trim(kind).eq_ignore_ascii_case(b"application/sdp")
    })
}

/// The ranges between boundary lines, without the CRLF that belongs to the boundary.
fn parts(body: &[u8], boundary: &[u8]) -> Vec<Range<usize>> {
    let delimiter = [b"--", boundary].concat();
    let mut found = Vec::new();
    let mut open = None;
    for at in memmem::find_iter(body, &delimiter) {
        if at != 0 && !body[..at].ends_with(b"\r\n") {
            continue;
        }
        if let Some(start) = open.take() {
            found.push(start..at.saturating_sub(2).max(start));
        }
        let after = at + delimiter.len();
        if body[after..].starts_with(b"--") {
            break;
        }
        open = memmem::find(&body[after..], b"\r\n").map(|end| after + end + 2);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_description_among_binary_parts_is_found_and_replaced_alone() {
        let body = b"--b1\r\nContent-Type: application/ISUP\r\n\r\n\x01\r\n--b1 \x02\r\n--b1\r\nContent-Type: application/sdp; x=y\r\n\r\nv=0\r\n\r\n--b1--\r\n";
        let text = [
            b"INVITE sip:a@b SIP/2.0\r\nContent-Type: multipart/mixed; boundary=\"b1\"\r\n\r\n".as_slice(),
            body,
        ]
        .concat();
        let message = Message::parse(text.into()).unwrap();
        let range = session_description(&message).unwrap();
        assert_eq!(&message.body()[range.clone()], b"v=0\r\n");
        let changed = replace(message.body(), range, b"v=1\r\n");
        assert_eq!(changed.len(), body.len());
        assert!(memmem::find(&changed, b"v=1\r\n\r\n--b1--").is_some());
    }
}
