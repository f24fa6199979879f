//! What is wrong with a message, and the answer that a broken request still gets.

use bytes::Bytes;
use memchr::memmem;

use crate::address::Address;
use crate::builder::Builder;
use crate::head::Head;
use crate::message::Message;
use crate::method::Method;
use crate::name::Name;
use crate::text::Values;
use crate::via::Via;

/// A part that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Neither a request line nor a status line.
    #[error("broken start line")]
    StartLine,
    /// The Request-URI.
    #[error("broken Request-URI")]
    RequestUri,
    /// A line ends otherwise than in CRLF, or holds NUL.
    #[error("bare CR or LF, or NUL, in a header")]
    LineEnd,
    /// A control character in a header, outside a quoted pair (RFC 3261 §25.1).
    #[error("a control character in a header")]
    Control,
    /// A message on a stream does not say where it ends (RFC 3261 §20.14).
    #[error("no Content-Length on a stream")]
    NoLength,
    /// A header without a name.
    #[error("broken header name")]
    HeaderName,
    /// Not a number, or two that differ.
    #[error("broken or conflicting Content-Length")]
    ContentLength,
    /// A header that every message has is missing.
    #[error("a mandatory header is missing")]
    Missing,
    /// A header that may be there once is there twice.
    #[error("a header came twice that may come once")]
    Twice,
    /// CSeq.
    #[error("broken CSeq")]
    CSeq,
    /// CSeq names another method than the request line.
    #[error("CSeq and request line name different methods")]
    MethodMismatch,
    /// Via.
    #[error("broken Via")]
    Via,
    /// A URI.
    #[error("broken URI")]
    Uri,
    /// From, To, Contact and the like.
    #[error("broken address")]
    Address,
    /// Another number.
    #[error("broken number")]
    Number,
}

/// Why a message was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// It ends before its header or body does.
    #[error("the message is cut off")]
    Incomplete,
    /// It cannot be read.
    #[error("{0}")]
    Malformed(Malformed),
    /// A head greater than [`MAX_HEAD`](crate::MAX_HEAD), or of more than [`MAX_LINES`](crate::MAX_LINES) lines.
    #[error("the head is too large")]
    TooLarge,
    /// A body that would make it greater than [`MAX_MESSAGE`](crate::MAX_MESSAGE).
    #[error("the body is too large")]
    BodyTooLarge,
    /// A Request-URI longer than [`MAX_URI`](crate::MAX_URI).
    #[error("the Request-URI is too long")]
    UriTooLong,
    /// Not SIP/2.0.
    #[error("another version of SIP")]
    Version,
    /// Max-Forwards is 0.
    #[error("too many hops")]
    TooManyHops,
    /// A scheme that nothing here routes.
    #[error("unsupported URI scheme")]
    Scheme,
    /// A method that nobody knows, and that CSeq contradicts (RFC 4475 §3.1.2.18).
    #[error("an unknown method that CSeq contradicts")]
    UnknownMethod,
}

impl Cause {
    /// The status of the answer to a request (RFC 3261 §21.4, §21.5).
    pub fn status(self) -> u16 {
        match self {
            Cause::Incomplete | Cause::Malformed(_) => 400,
            Cause::BodyTooLarge => 413,
            Cause::UriTooLong => 414,
            Cause::Scheme => 416,
            Cause::TooManyHops => 483,
            Cause::UnknownMethod => 501,
            Cause::Version => 505,
            Cause::TooLarge => 513,
        }
    }

    fn reason(self) -> &'static [u8] {
        match self {
            Cause::Incomplete | Cause::Malformed(_) => b"Bad Request",
            Cause::BodyTooLarge => b"Request Entity Too Large",
            Cause::UriTooLong => b"Request-URI Too Long",
            Cause::Scheme => b"Unsupported URI Scheme",
            Cause::TooManyHops => b"Too Many Hops",
            Cause::UnknownMethod => b"Not Implemented",
            Cause::Version => b"Version Not Supported",
            Cause::TooLarge => b"Message Too Large",
        }
    }

    /// Whether it leaves in doubt where the message ends, so that nothing behind it on a stream can be trusted. A start
    /// line or the name of a header that cannot be read does not: Content-Length could be, and one broken answer of a
    /// peer costs the other calls of its connection nothing (RFC 4475 §3.1.2.19).
    pub fn breaks_framing(self) -> bool {
        match self {
            Cause::Incomplete | Cause::TooLarge | Cause::BodyTooLarge => true,
            Cause::Malformed(part) => {
                matches!(part, Malformed::LineEnd | Malformed::ContentLength | Malformed::NoLength)
            }
            Cause::UriTooLong
            | Cause::Scheme
            | Cause::TooManyHops
            | Cause::UnknownMethod
            | Cause::Version => false,
        }
    }
}

/// A refused message, with the bytes that an answer is made of.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Why.
    pub cause: Cause,
    bytes: Bytes,
}

impl Refused {
    pub(crate) fn new(cause: Cause, bytes: Bytes) -> Self {
        Self { cause, bytes }
    }

    /// A message that could be read, and that [`check_request`](crate::check_request) or
    /// [`check_response`](crate::check_response) refuses.
    pub fn of(message: &Message, cause: Cause) -> Self {
        Self::new(cause, message.as_bytes().clone())
    }

    /// All that was received.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether it is something to answer: a request, as far as can be seen, other than ACK (RFC 3261 §17.2.7).
    fn is_request(&self, head: &Head<'_>) -> bool {
        let start = head.start_line();
        let is_response = start.get(..4).is_none_or(|start| start.eq_ignore_ascii_case(b"SIP/"));
        let method = start.split(|byte| *byte == b' ').next().unwrap_or_default();
        !is_response && method != Method::ACK.as_bytes()
    }

    /// The response to whoever sent it, to be finished by the caller: with the Vias, From, To, Call-ID and CSeq as far
    /// as they are there, and `to_tag` in a To without one. `None` for what is not to be answered: responses, ACKs, and
    /// what has no readable Via.
    pub fn response(&self, to_tag: &str) -> Option<Builder> {
        let head = Head::of(&self.bytes);
        if !self.is_request(&head) {
            return None;
        }
        self.via()?;
        let mut response = Builder::response(self.cause.status(), self.cause.reason());
        let mut seen = [false; 4];
        for (name, value) in head.lines() {
            let place = match name {
                Name::Via => {
                    response = response.header(name, value);
                    continue;
                }
                Name::From => 0,
                Name::To => 1,
                Name::CallId => 2,
                Name::CSeq => 3,
                _ => continue,
            };
            if seen.get_mut(place).is_none_or(|seen| std::mem::replace(seen, true)) {
                continue;
            }
            if name == Name::To && !has_tag(value) {
                response = response.header(name, &[value, b";tag=", to_tag.as_bytes()].concat());
            } else {
                response = response.header(name, value);
            }
        }
        Some(response)
    }

    /// The top Via, if it can be read: where the response goes.
    pub fn via(&self) -> Option<Via<'_>> {
        let mut lines = Head::of(&self.bytes).lines().filter(|line| line.0 == Name::Via);
        Via::parse(lines.find_map(|line| Values::of_list(line.1).next())?).ok()
    }
}

/// Of a To that may be broken.
fn has_tag(value: &[u8]) -> bool {
    match Address::parse(value) {
        Ok(address) => address.tag().is_some(),
        Err(_) => memmem::find(value, b"tag=").is_some(),
    }
}
