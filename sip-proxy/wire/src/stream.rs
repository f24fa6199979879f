//! Messages out of a byte stream (RFC 3261 §18.3), with the keepalives of RFC 5626 §4.4.1 between them.

use bytes::{Bytes, BytesMut};
use memchr::memmem;

use crate::head::Head;
use crate::message::Message;
use crate::name::Name;
use crate::read::{MAX_HEAD, MAX_MESSAGE, agreed_length};
use crate::refused::{Cause, Malformed, Refused};
use crate::text::from;

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
    /// A single CRLF: an answer to a ping, or the first half of one.
    Pong,
}

/// Cuts a byte stream into messages. After a refusal that [breaks the framing](Cause::breaks_framing) the stream cannot
/// be trusted any more and must be closed; after others it goes on.
#[derive(Debug, Default)]
pub struct StreamFramer {
    buffer: BytesMut,
    /// No end of the head before here.
    searched: usize,
    /// The message's length, once its head is there.
    expected: Option<usize>,
    /// The last thing taken was a single CRLF, and nothing has followed yet.
    is_half_ping: bool,
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
            return Ok(self.take_line_end());
        }
        // Half a line end says nothing yet.
        self.is_half_ping &= self.buffer.len() < 2;
        let total = match self.expected {
            Some(total) => total,
            None => match self.measure() {
                Ok(Some(total)) => total,
                Ok(None) => return Ok(None),
                Err(cause) => return Err(self.refuse(cause)),
            },
        };
        if self.buffer.len() < total {
            return Ok(None);
        }
        let message = self.take(total);
        Message::parse(message).map(|message| Some(Framed::Message(message)))
    }

    /// RFC 5626 §4.4.1. A ping may come in halves, so a line end that follows another answers for both.
    fn take_line_end(&mut self) -> Option<Framed> {
        if !self.is_half_ping && self.buffer.starts_with(b"\r\n\r\n") {
            self.take(4);
            return Some(Framed::Ping);
        }
        if !self.is_half_ping && self.buffer.len() == 3 {
            return None;
        }
        self.take(2);
        let completes = std::mem::take(&mut self.is_half_ping);
        self.is_half_ping = !completes && self.buffer.is_empty();
        Some(if completes { Framed::Ping } else { Framed::Pong })
    }

    /// The length of the message that the buffer starts with; `None` before the end of its head. RFC 3261 §20.14:
    /// over a stream Content-Length is mandatory. Without it nobody knows whether what follows is a body or the next
    /// message.
    fn measure(&mut self) -> Result<Option<usize>, Cause> {
        let found = memmem::find(from(&self.buffer, self.searched), b"\r\n\r\n");
        let found = found.map(|at| at.saturating_add(self.searched));
        if found.unwrap_or(self.buffer.len()) > MAX_HEAD {
            return Err(Cause::TooLarge);
        }
        let Some(end) = found else {
            self.searched = self.buffer.len().saturating_sub(3);
            return Ok(None);
        };
        let mut length = None;
        for (name, value) in Head::of(self.buffer.get(..end).unwrap_or_default()).lines() {
            if name == Name::ContentLength {
                length = Some(agreed_length(length, value)?);
            }
        }
        let length = length.ok_or(Cause::Malformed(Malformed::NoLength))?;
        let total = end.saturating_add(4).saturating_add(length as usize);
        if total > MAX_MESSAGE {
            return Err(Cause::BodyTooLarge);
        }
        self.expected = Some(total);
        Ok(Some(total))
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.searched = 0;
        self.expected = None;
        self.buffer.split_to(length).freeze()
    }

    fn refuse(&mut self, cause: Cause) -> Refused {
        let all = self.buffer.len();
        Refused::new(cause, self.take(all))
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
    fn a_message_that_cannot_be_read_costs_itself_and_not_the_stream() {
        for broken in [
            "SIP/2.0 4294967301 Big\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 2\r\n\r\nxy",
            "OPTIONS sip:a@b SIP/2.0 \r\nContent-Length: 0\r\n\r\n",
            "OPTIONS sip:a@b SIP/2.0\r\nno name\r\nl: 3\r\n\r\nxyz",
        ] {
            let mut framer = StreamFramer::default();
            framer.push(broken.as_bytes());
            framer.push(OPTIONS.as_bytes());
            assert!(!framer.next().unwrap_err().cause.breaks_framing(), "{broken}");
            assert!(matches!(framer.next(), Ok(Some(Framed::Message(_)))), "{broken}");
        }
    }

    #[test]
    fn a_message_that_does_not_say_where_it_ends_is_refused() {
        let mut framer = StreamFramer::default();
        framer.push(
            b"MESSAGE sip:a@b SIP/2.0\r\nContent-Type: text/plain\r\n\r\nOPTIONS sip:a@b SIP/2.0\r\n\r\n",
        );
        let refused = framer.next().unwrap_err();
        assert_eq!((refused.cause.status(), refused.cause.breaks_framing()), (400, true));
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
