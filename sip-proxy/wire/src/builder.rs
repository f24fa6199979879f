//! Messages from nothing.

use bytes::{BufMut, Bytes, BytesMut};

use crate::method::Method;
use crate::name::Name;

/// Writes a message from its start line on. Line breaks in values become spaces, so that no value can add a line.
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
        builder.put(method.as_bytes());
        builder.out.put_u8(b' ');
        builder.put(uri);
        builder.out.put_slice(b" SIP/2.0\r\n");
        builder
    }

    /// A response.
    pub fn response(status: u16, reason: &[u8]) -> Self {
        let mut builder = Self::empty();
        builder.out.put_slice(b"SIP/2.0 ");
        builder.put(status.to_string().as_bytes());
        builder.out.put_u8(b' ');
        builder.put(reason);
        builder.out.put_slice(b"\r\n");
        builder
    }

    fn empty() -> Self {
        Self { out: BytesMut::with_capacity(1024), content_type: None, body: Bytes::new() }
    }

    fn put(&mut self, text: &[u8]) {
        if text.iter().any(|byte| matches!(byte, b'\r' | b'\n')) {
            self.out.extend(text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }));
        } else {
            self.out.put_slice(text);
        }
    }

    /// Adds a line.
    #[must_use]
    pub fn header(self, name: Name, value: &[u8]) -> Self {
        self.other(name.as_str().as_bytes(), value)
    }

    /// Adds a line of any name.
    #[must_use]
    pub fn other(mut self, name: &[u8], value: &[u8]) -> Self {
        self.put(name);
        self.out.put_slice(b": ");
        self.put(value);
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
            self.put(&content_type);
            self.out.put_slice(b"\r\n");
        }
        self.out.put_slice(b"Content-Length: ");
        self.out.put_slice(self.body.len().to_string().as_bytes());
        self.out.put_slice(b"\r\n\r\n");
        self.out.put_slice(&self.body);
        self.out.freeze()
    }
}
