//! Changes to a message: patches over its lines; what is not touched is copied verbatim.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use smallvec::SmallVec;

use crate::builder::{put_text, put_uri};
use crate::message::Message;
use crate::name::Name;
use crate::read::{Place, Start, Table, read_line};

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
    /// The length of the body is among the lines.
    is_measured: bool,
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
            is_measured: false,
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
        (self.body, self.is_measured) = (Some(body), false);
        self
    }

    /// The changed message's octets; the message's own if nothing was changed.
    pub fn finish(&mut self) -> Bytes {
        if self.is_idle() {
            return self.message.as_bytes().clone();
        }
        let mut out = self.room();
        self.write(&mut out, |_| {});
        out.freeze()
    }

    /// The changed message, of which nothing but new lines is read again.
    pub fn message(&mut self) -> Message {
        let old = self.message;
        if self.is_idle() {
            return old.clone();
        }
        let start = self.start_line.as_ref().map_or_else(|| old.start(), |line| start_of(line, old));
        let mut out = self.room();
        let mut parts = SmallVec::<[Part; 8]>::new();
        self.write(&mut out, |part| parts.push(part));
        let bytes = out.freeze();
        let (mut lines, mut start_line_end, mut body) = (SmallVec::new(), 0, (0, 0));
        for part in parts {
            match part {
                Part::StartLine { end } => start_line_end = end as u32,
                Part::Copied { first, end, at } => lines.extend(moved(old, first..end, at)),
                Part::New { start, end } => {
                    let mut at = start;
                    while at < end
                        && let Ok(next) = read_line(&bytes, at, &mut lines)
                    {
                        at = next;
                    }
                }
                Part::Body { start } => body = (start as u32, bytes.len() as u32),
            }
        }
        Message::of(Table { start, lines, start_line_end, body }, bytes)
    }

    /// Whether nothing is changed; with a body its length is a line.
    fn is_idle(&mut self) -> bool {
        if let Some(body) = self.body.as_ref().filter(|_| !self.is_measured) {
            self.is_measured = true;
            let length = body.len().to_string();
            self.set(Name::ContentLength, length.as_bytes());
        }
        let is_unchanged = self.start_line.is_none() && self.patches.is_empty();
        is_unchanged && self.first.is_empty() && self.last.is_empty()
    }

    fn room(&self) -> BytesMut {
        let more = self.last.len().saturating_add(self.first.len()).saturating_add(256);
        BytesMut::with_capacity(self.message.as_bytes().len().saturating_add(more))
    }

    /// Writes it, and notes what stands where.
    fn write(&mut self, out: &mut BytesMut, mut note: impl FnMut(Part)) {
        let message = self.message;
        self.patches.sort_by_key(|patch| patch.0);
        out.put_slice(self.start_line.as_deref().unwrap_or_else(|| message.start_line()));
        note(Part::StartLine { end: out.len() });
        out.put_slice(b"\r\n");
        note(Part::New { start: out.len(), end: out.len().saturating_add(self.first.len()) });
        out.put_slice(&self.first);
        let mut copied = 0;
        for (position, (index, patch)) in self.patches.iter().enumerate() {
            let is_overruled =
                self.patches.get(position.saturating_add(1)).is_some_and(|next| next.0 == *index);
            let Some(line) = message.line(*index).filter(|_| !is_overruled) else { continue };
            note(Part::Copied { first: copied, end: *index, at: out.len() });
            out.put_slice(message.raw_lines(copied, *index));
            if let Patch::Replace(value) = patch {
                let start = out.len();
                put_line(out, line.text, value);
                note(Part::New { start, end: out.len() });
            }
            copied = index.saturating_add(1);
        }
        note(Part::Copied { first: copied, end: message.line_count(), at: out.len() });
        out.put_slice(message.raw_lines(copied, message.line_count()));
        note(Part::New { start: out.len(), end: out.len().saturating_add(self.last.len()) });
        out.put_slice(&self.last);
        out.put_slice(b"\r\n");
        note(Part::Body { start: out.len() });
        out.put_slice(self.body.as_deref().unwrap_or_else(|| message.body()));
    }
}

/// What a changed message is made of, by places in it.
#[derive(Debug, Clone, Copy)]
enum Part {
    StartLine {
        end: usize,
    },
    /// Lines that were not there.
    New {
        start: usize,
        end: usize,
    },
    /// Lines `first` up to `end` of the old message, from `at` on.
    Copied {
        first: usize,
        end: usize,
        at: usize,
    },
    Body {
        start: usize,
    },
}

/// The places of lines of a message that stand in another one from `at` on.
fn moved(old: &Message, lines: Range<usize>, at: usize) -> impl Iterator<Item = Place> {
    let places = old.places().get(lines).unwrap_or_default();
    let (at, start) = (at as u32, places.first().map_or(0, |place| place.start));
    let shifted = move |place: u32| place.saturating_sub(start).saturating_add(at);
    places.iter().map(move |place| Place {
        start: shifted(place.start),
        value: shifted(place.value),
        end: shifted(place.end),
        ..*place
    })
}

/// Where all is in a request line of ours.
fn start_of(line: &[u8], old: &Message) -> Start {
    let method = old.method().map_or(0, |method| method.as_bytes().len()) as u32;
    let end = line.len().saturating_sub(b" SIP/2.0".len()) as u32;
    Start::Request { method, uri: (method.saturating_add(1), end) }
}

fn put_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    put_text(out, value);
    out.put_slice(b"\r\n");
}
