//! What is wrong with a message, and the answer that a broken request still gets.

use bytes::Bytes;
use memchr::memmem;

use crate::builder::Builder;
use crate::name::Name;
use crate::text::trim;
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
    /// Greater than [`MAX_MESSAGE`](crate::MAX_MESSAGE), or with too many lines.
    #[error("the message is too large")]
    TooLarge,
    /// Not SIP/2.0.
    #[error("another version of SIP")]
    Version,
    /// Max-Forwards is 0.
    #[error("too many hops")]
    TooManyHops,
    /// A scheme that nothing here routes.
    #[error("unsupported URI scheme")]
    Scheme,
}

impl Cause {
    /// The status of the answer to a request (RFC 3261 §21.4, §21.5).
    pub fn status(self) -> u16 {
        match self {
            Cause::Incomplete | Cause::Malformed(_) => 400,
            Cause::TooLarge => 513,
            Cause::Version => 505,
            Cause::TooManyHops => 483,
            Cause::Scheme => 416,
        }
    }

    /// A short word for a metric's label.
    pub fn label(self) -> &'static str {
        match self {
            Cause::Incomplete => "incomplete",
            Cause::Malformed(_) => "malformed",
            Cause::TooLarge => "too_large",
            Cause::Version => "version",
            Cause::TooManyHops => "too_many_hops",
            Cause::Scheme => "scheme",
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

    /// A response for whoever sent it, if it is a request other than ACK and its Via, From, To, Call-ID and CSeq can be
    /// found; `to_tag` is added to a To without one.
    pub fn response(&self, to_tag: &str) -> Option<Bytes> {
        let head_end = memmem::find(&self.bytes, b"\r\n\r\n").unwrap_or(self.bytes.len());
        let mut lines = self
            .bytes
            .get(..head_end)?
            .split(|byte| *byte == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let start = lines.next()?;
        if start.len() < 4 || start[..4].eq_ignore_ascii_case(b"SIP/") || start.starts_with(b"ACK ") {
            return None;
        }
        let status = self.cause.status();
        let reason = match status {
            400 => "Bad Request",
            416 => "Unsupported URI Scheme",
            483 => "Too Many Hops",
            505 => "Version Not Supported",
            _ => "Message Too Large",
        };
        let mut response = Builder::response(status, reason.as_bytes());
        let mut seen = [false; 5];
        for line in lines {
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if line.iter().any(|byte| matches!(byte, b'\r' | 0)) {
                continue;
            }
            let (name, value) = (Name::of(trim(&line[..colon])), trim(&line[colon + 1..]));
            let place = match name {
                Name::Via => 0,
                Name::From => 1,
                Name::To => 2,
                Name::CallId => 3,
                Name::CSeq => 4,
                _ => continue,
            };
            if seen[place] && place > 0 {
                continue;
            }
            seen[place] = true;
            if name == Name::To && memmem::find(value, b"tag=").is_none() {
                response = response.header(name, &[value, b";tag=", to_tag.as_bytes()].concat());
            } else {
                response = response.header(name, value);
            }
        }
        seen.iter().all(|seen| *seen).then(|| response.finish())
    }

    /// The top Via, if it can be read: where the response goes.
    pub fn via(&self) -> Option<Via<'_>> {
        let mut lines =
            self.bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.find_map(|line| {
            let colon = memchr::memchr(b':', line)?;
            let value = line.get(colon + 1..)?;
            if Name::of(trim(&line[..colon])) != Name::Via {
                return None;
            }
            Via::parse(crate::text::Values::new(value, true).next()?).ok()
        })
    }
}
