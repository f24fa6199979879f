//! Changes to a message: patches over its lines; what is not touched is copied verbatim.

use bytes::{BufMut, Bytes, BytesMut};

use crate::builder::{put_text, put_uri};
use crate::message::Message;
use crate::name::Name;

#[derive(Debug, Clone)]
enum Patch {
    Remove,
    Replace(Bytes),
}

/// Changes to one message. Of several to one line the last counts. No value can add a line: line ends in it become
/// spaces.
#[derive(Debug, Clone)]
pub struct Edit<'a> {
    message: &'a Message,
    start_line: Option<Bytes>,
    patches: Vec<(usize, Patch)>,
    first: BytesMut,
    last: BytesMut,
    body: Option<Bytes>,
}

impl<'a> Edit<'a> {
    pub(crate) fn new(message: &'a Message) -> Self {
        Self {
            message,
            start_line: None,
            patches: Vec::new(),
            first: BytesMut::new(),
            last: BytesMut::new(),
            body: None,
        }
    }

    /// Another Request-URI.
    pub fn request_uri(&mut self, uri: &[u8]) -> &mut Self {
        if let Some(method) = self.message.method() {
            let mut line =
                BytesMut::with_capacity(method.as_bytes().len().saturating_add(uri.len()).saturating_add(16));
            line.put_slice(method.as_bytes());
            line.put_u8(b' ');
            put_uri(&mut line, uri);
            line.put_slice(b" SIP/2.0");
            self.start_line = Some(line.freeze());
        }
        self
    }

    /// Replaces the value of the line with that index.
    pub fn replace_line(&mut self, index: usize, value: &[u8]) -> &mut Self {
        self.patches.push((index, Patch::Replace(Bytes::copy_from_slice(value))));
        self
    }

    /// Removes the line with that index.
    pub fn remove_line(&mut self, index: usize) -> &mut Self {
        self.patches.push((index, Patch::Remove));
        self
    }

    /// Removes every line of a name.
    pub fn remove(&mut self, name: Name) -> &mut Self {
        for line in self.message.lines().filter(|line| line.name == name) {
            self.patches.push((line.index, Patch::Remove));
        }
        self
    }

    /// Replaces the first line of a name and removes the others; adds one if there is none.
    pub fn set(&mut self, name: Name, value: &[u8]) -> &mut Self {
        let mut is_first = true;
        for line in self.message.lines().filter(|line| line.name == name) {
            let patch = if is_first { Patch::Replace(Bytes::copy_from_slice(value)) } else { Patch::Remove };
            self.patches.push((line.index, patch));
            is_first = false;
        }
        if is_first { self.append(name, value) } else { self }
    }

    /// Adds a line before all others.
    pub fn prepend(&mut self, name: Name, value: &[u8]) -> &mut Self {
        let rest = self.first.split();
        put_line(&mut self.first, name.as_str().as_bytes(), value);
        self.first.put_slice(&rest);
        self
    }

    /// Adds a line behind all others.
    pub fn append(&mut self, name: Name, value: &[u8]) -> &mut Self {
        put_line(&mut self.last, name.as_str().as_bytes(), value);
        self
    }

    /// Another body; Content-Length follows by itself, Content-Type is the caller's.
    pub fn body(&mut self, body: Bytes) -> &mut Self {
        self.body = Some(body);
        self
    }

    /// The changed message; the message itself if nothing was changed.
    pub fn finish(&mut self) -> Bytes {
        if let Some(body) = &self.body {
            let length = body.len().to_string();
            self.set(Name::ContentLength, length.as_bytes());
        }
        let message = self.message;
        let is_unchanged = self.start_line.is_none() && self.patches.is_empty();
        if is_unchanged && self.first.is_empty() && self.last.is_empty() {
            return message.as_bytes().clone();
        }
        self.patches.sort_by_key(|patch| patch.0);
        let more = self.last.len().saturating_add(self.first.len()).saturating_add(256);
        let mut out = BytesMut::with_capacity(message.as_bytes().len().saturating_add(more));
        out.put_slice(self.start_line.as_deref().unwrap_or_else(|| message.start_line()));
        out.put_slice(b"\r\n");
        out.put_slice(&self.first);
        let mut copied = 0;
        for (position, (index, patch)) in self.patches.iter().enumerate() {
            let is_overruled =
                self.patches.get(position.saturating_add(1)).is_some_and(|next| next.0 == *index);
            let Some(line) = message.line(*index).filter(|_| !is_overruled) else { continue };
            out.put_slice(message.raw_lines(copied, *index));
            if let Patch::Replace(value) = patch {
                put_line(&mut out, line.text, value);
            }
            copied = index.saturating_add(1);
        }
        out.put_slice(message.raw_lines(copied, message.line_count()));
        out.put_slice(&self.last);
        out.put_slice(b"\r\n");
        out.put_slice(self.body.as_deref().unwrap_or_else(|| message.body()));
        out.freeze()
    }
}

fn put_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    put_text(out, value);
    out.put_slice(b"\r\n");
}
