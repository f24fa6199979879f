//! Messages out of a byte stream (RFC 3261 §18.3), with the keepalives of RFC 5626 §4.4.1 between them.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::message::{MAX_MESSAGE, Message};
use crate::name::Name;
use crate::refused::{Cause, Malformed, Refused};
use crate::text::{number, trim};

/// The greatest head: what comes without an end to it is not SIP.
const MAX_HEAD: usize = 32_768;

/// What a stream holds.
#[expect(
    clippy::large_enum_variant,
    reason = "messages are the rule; a box would cost each of them an allocation"
)]
#[derive(Debug, Clone)]
pub enum Framed {
    /// A message.
    Message(Message),
    /// CRLF CRLF: to be answered with CRLF.
    Ping,
    /// A single CRLF.
    Pong,
}

/// Cuts a byte stream into messages. After a refusal the stream cannot be trusted any more and must be closed.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    searched: usize,
}

impl StreamFramer {
    /// Adds received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether no part of a message waits for its rest.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next message; `None` until more bytes come.
    #[expect(clippy::should_implement_trait, reason = "it fails, and more bytes may make it go on")]
    pub fn next(&mut self) -> Result<Option<Framed>, Refused> {
        if self.buffer.starts_with(b"\r\n") {
            if self.buffer.starts_with(b"\r\n\r\n") {
                self.take(4);
                return Ok(Some(Framed::Ping));
            }
            // A second CRLF that is still on its way would make it a ping; its half then reads as another pong.
            if self.buffer.len() == 3 {
                return Ok(None);
            }
            self.take(2);
            return Ok(Some(Framed::Pong));
        }
        if self.buffer.len() < 4 {
            return Ok(None);
        }
        let from = self.searched.min(self.buffer.len());
        let Some(end) = memmem::find(&self.buffer[from..], b"\r\n\r\n").map(|at| from + at) else {
            self.searched = self.buffer.len().saturating_sub(3);
            return if self.buffer.len() > MAX_HEAD { Err(self.refuse(Cause::TooLarge)) } else { Ok(None) };
        };
        // RFC 3261 §20.14: over a stream Content-Length is mandatory. Its absence is read as no body: what follows is
        // then either the next message or refused.
        let mut length = None;
        for line in self.buffer[..end].split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if Name::of(trim(&line[..colon])) == Name::ContentLength {
                match number(trim(&line[colon + 1..])) {
                    Some(value) if length.is_none_or(|other| other == value) => length = Some(value),
                    _ => return Err(self.refuse(Cause::Malformed(Malformed::ContentLength))),
                }
            }
        }
        let total = end + 4 + length.unwrap_or(0) as usize;
        if total > MAX_MESSAGE {
            return Err(self.refuse(Cause::TooLarge));
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        let message = self.take(total);
        Message::parse(message).map(|message| Some(Framed::Message(message)))
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        self.buffer.split_to(length).freeze()
    }

    fn refuse(&mut self, cause: Cause) -> Refused {
        self.searched = 0;
        Refused::new(cause, self.buffer.split().freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: &str = "OPTIONS sip:a@example.com SIP/2.0\r\nVia: SIP/2.0/TCP h;branch=z9hG4bK1\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn messages_and_keepalives_come_out_whole_however_the_stream_is_cut() {
        let stream = format!("{OPTIONS}\r\n\r\n{OPTIONS}{OPTIONS}");
        for cut in 1..stream.len() {
            let mut framer = StreamFramer::default();
            let mut messages = 0;
            for part in stream.as_bytes().chunks(cut) {
                framer.push(part);
                while let Some(framed) = framer.next().unwrap() {
                    if let Framed::Message(message) = framed {
                        assert_eq!(message.body(), b"body");
                        messages += 1;
                    }
                }
            }
            assert_eq!(messages, 3, "cut every {cut}");
            assert!(framer.is_empty());
        }
    }

    #[test]
    fn conflicting_lengths_and_endless_heads_are_refused() {
        let mut framer = StreamFramer::default();
        framer.push(b"OPTIONS sip:a@b SIP/2.0\r\nContent-Length: 4\r\nl: 5\r\n\r\n");
        assert!(framer.next().is_err());
        let mut framer = StreamFramer::default();
        framer.push(&vec![b'x'; MAX_HEAD + 1]);
        assert!(framer.next().is_err());
    }
}
