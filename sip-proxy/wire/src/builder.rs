//! Messages from nothing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::method::Method;
use crate::name::Name;
use crate::text::CONTROL;
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

/// Writes a message from its start line on. No value can add a line: line ends in it become spaces.
#[derive(Debug)]
pub struct Builder {
    out: BytesMut,
    content_type: Option<Bytes>,
    body: Bytes,
}

impl Builder {
    /// A request.
    pub fn request(method: Method<'_>, uri: &[u8]) -> Self {
        let mut builder = Self::empty();
        put_uri(&mut builder.out, method.as_bytes());
        builder.out.put_u8(b' ');
        put_uri(&mut builder.out, uri);
        builder.out.put_slice(b" SIP/2.0\r\n");
        builder
    }

    /// A response.
    pub fn response(status: u16, reason: &[u8]) -> Self {
        let mut builder = Self::empty();
        builder.out.put_slice(b"SIP/2.0 ");
        builder.out.put_slice(status.to_string().as_bytes());
        builder.out.put_u8(b' ');
        put_text(&mut builder.out, reason);
        builder.out.put_slice(b"\r\n");
        builder
    }

    fn empty() -> Self {
        Self { out: BytesMut::with_capacity(1024), content_type: None, body: Bytes::new() }
    }

    /// Adds a line.
    #[must_use]
    pub fn header(self, name: Name, value: &[u8]) -> Self {
        self.other(name.as_str().as_bytes(), value)
    }

    /// Adds a line of any name.
    #[must_use]
    pub fn other(mut self, name: &[u8], value: &[u8]) -> Self {
        put_text(&mut self.out, name);
        self.out.put_slice(b": ");
        put_text(&mut self.out, value);
        self.out.put_slice(b"\r\n");
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
    pub fn finish(mut self) -> Bytes {
        if let Some(content_type) = self.content_type.take() {
            self.out.put_slice(b"Content-Type: ");
            put_text(&mut self.out, &content_type);
            self.out.put_slice(b"\r\n");
        }
        self.out.put_slice(b"Content-Length: ");
        self.out.put_slice(self.body.len().to_string().as_bytes());
        self.out.put_slice(b"\r\n\r\n");
        self.out.put_slice(&self.body);
        self.out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_leaves_in_a_header() {
        let built =
            Builder::response(200, b"O\x1bK").header(Name::Subject, b"a\x07\tb\x7f\r\n c\0d").finish();
        assert!(
            built.starts_with(b"SIP/2.0 200 O K\r\nSubject: a \tb   \x20c d\r\n"),
            "{}",
            built.escape_ascii()
        );
    }
}
