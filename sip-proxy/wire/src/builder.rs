//! Messages from nothing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::message::Message;
use crate::method::Method;
use crate::name::Name;
use crate::read::{Place, Start, Table};
use crate::text::{CONTROL, is_space};
use crate::uri::FORBIDDEN;

/// Puts a text where a line goes on behind it. Control characters but for the tab become spaces, so that no value can add
/// a line, end a message early or move the cursor of who reads it; that also unfolds.
pub(crate) fn put_text(out: &mut BytesMut, text: &[u8]) {
    let first = text.iter().position(|byte| CONTROL.has(*byte));
    let (clean, rest) = text.split_at_checked(first.unwrap_or(text.len())).unwrap_or((text, b""));
    out.put_slice(clean);
    for byte in rest {
        out.put_u8(if CONTROL.has(*byte) { b' ' } else { *byte });
    }
}

/// Puts a Request-URI. What no URI may hold is escaped, so that it ends neither the URI nor the line.
pub(crate) fn put_uri(out: &mut BytesMut, uri: &[u8]) {
    for byte in uri {
        if !FORBIDDEN.has(*byte) {
            out.put_u8(*byte);
        } else {
            out.put_slice(format!("%{byte:02X}").as_bytes());
        }
    }
}

/// Writes a message from its start line on, and knows where its lines are: what we have written ourselves need not be read. No value
/// can add a line: line ends in it become spaces.
#[derive(Debug)]
pub struct Builder {
    out: BytesMut,
    start: Start,
    start_line_end: u32,
    lines: Vec<Place>,
    content_type: Option<Bytes>,
    body: Bytes,
}

impl Builder {
    /// A request.
    pub fn request(method: Method<'_>, uri: &[u8]) -> Self {
        let mut out = empty();
        put_uri(&mut out, method.as_bytes());
        let method = out.len() as u32;
        out.put_u8(b' ');
        let at = out.len() as u32;
        put_uri(&mut out, uri);
        let uri = (at, out.len() as u32);
        out.put_slice(b" SIP/2.0");
        Self::begun(out, Start::Request { method, uri })
    }

    /// A response.
    pub fn response(status: u16, reason: &[u8]) -> Self {
        let mut out = empty();
        out.put_slice(b"SIP/2.0 ");
        out.put_slice(status.to_string().as_bytes());
        out.put_u8(b' ');
        let at = out.len() as u32;
        put_text(&mut out, reason);
        let reason = (at, out.len() as u32);
        Self::begun(out, Start::Response { status, reason })
    }

    fn begun(mut out: BytesMut, start: Start) -> Self {
        let start_line_end = out.len() as u32;
        out.put_slice(b"\r\n");
        let lines = Vec::with_capacity(32);
        Self { out, start, start_line_end, lines, content_type: None, body: Bytes::new() }
    }

    /// Adds a line.
    #[must_use]
    pub fn header(mut self, name: Name, value: &[u8]) -> Self {
        self.line(name, name.as_str().as_bytes(), value);
        self
    }

    /// Adds a line of any name.
    #[must_use]
    pub fn other(mut self, name: &[u8], value: &[u8]) -> Self {
        self.line(Name::of(name), name, value);
        self
    }

    /// Sets the body and its Content-Type.
    #[must_use]
    pub fn body(mut self, content_type: &[u8], body: Bytes) -> Self {
        self.content_type = Some(Bytes::copy_from_slice(content_type));
        self.body = body;
        self
    }

    /// The message, with Content-Length.
    pub fn finish(mut self) -> Message {
        if let Some(content_type) = self.content_type.take() {
            self.line(Name::ContentType, Name::ContentType.as_str().as_bytes(), &content_type);
        }
        let length = self.body.len().to_string();
        self.line(Name::ContentLength, Name::ContentLength.as_str().as_bytes(), length.as_bytes());
        let Self { mut out, start, start_line_end, lines, body, .. } = self;
        out.put_slice(b"\r\n");
        let at = out.len() as u32;
        out.put_slice(&body);
        let body = (at, out.len() as u32);
        Message::of(Table { start, lines: lines.into(), start_line_end, body }, out.freeze())
    }

    fn line(&mut self, name: Name, text: &[u8], value: &[u8]) {
        let start = self.out.len();
        put_text(&mut self.out, text);
        self.out.put_slice(b": ");
        let at = self.out.len();
        put_text(&mut self.out, value);
        let written = self.out.get(at..).unwrap_or_default();
        let before = written.iter().take_while(|byte| is_space(**byte)).count();
        let behind = written.iter().skip(before).rev().take_while(|byte| is_space(**byte)).count();
        self.lines.push(Place {
            start: start as u32,
            value: at.saturating_add(before) as u32,
            end: self.out.len().saturating_sub(behind) as u32,
            name_length: u16::try_from(text.len()).unwrap_or(u16::MAX),
            name,
        });
        self.out.put_slice(b"\r\n");
    }
}

fn empty() -> BytesMut {
    BytesMut::with_capacity(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_leaves_in_a_header() {
        let built =
            Builder::response(200, b"O\x1bK").header(Name::Subject, b"a\x07\tb\x7f\r\n c\0d").finish();
        assert!(
            built.as_bytes().starts_with(b"SIP/2.0 200 O K\r\nSubject: a \tb   \x20c d\r\n"),
            "{}",
            built.as_bytes().escape_ascii()
        );
    }
}
