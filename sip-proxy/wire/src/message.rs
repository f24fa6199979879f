//! The message: one buffer, a start line, a table of lines, a body.

use bytes::Bytes;
use memchr::memchr;
use smallvec::SmallVec;

use crate::address::{Address, Addresses};
use crate::edit::Edit;
use crate::method::Method;
use crate::name::Name;
use crate::refused::{Cause, Malformed, Refused};
use crate::text::{TOKEN, Values, is_space, is_token, number, trim};
use crate::uri::Uri;
use crate::via::Via;

/// The greatest message accepted: what a UDP datagram can hold.
pub const MAX_MESSAGE: usize = 65_535;

/// More header lines than this are an attack.
const MAX_LINES: usize = 512;

/// A header line's place in the buffer.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u32,
    value: u32,
    end: u32,
    name_length: u16,
    name: Name,
}

#[derive(Debug, Clone, Copy)]
enum Start {
    Request { method: u32, uri: (u32, u32) },
    Response { status: u16, reason: (u32, u32) },
}

/// A SIP message as it was received.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Bytes,
    start: Start,
    lines: SmallVec<[Place; 32]>,
    start_line_end: u32,
    body: (u32, u32),
}

/// A header line.
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// Its place among the header lines, from 0.
    pub index: usize,
    /// Its name.
    pub name: Name,
    /// Its name as written.
    pub text: &'a [u8],
    /// Its value, trimmed; folds inside stay.
    pub value: &'a [u8],
}

/// CSeq (RFC 3261 §20.16).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// Below 2^31.
    pub number: u32,
    /// The method.
    pub method: Method<'a>,
}

impl Message {
    /// Reads a datagram's message: exactly one, octets behind Content-Length ignored (RFC 3261 §18.3).
    pub fn parse(bytes: Bytes) -> Result<Self, Refused> {
        match read(&bytes) {
            Ok((start, lines, start_line_end, body)) => Ok(Self {
                start,
                lines,
                start_line_end: start_line_end as u32,
                body: (body.0 as u32, body.1 as u32),
                bytes,
            }),
            Err(cause) => Err(Refused::new(cause, bytes)),
        }
    }

    /// All of it, as received.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn slice(&self, range: (u32, u32)) -> &[u8] {
        self.bytes.get(range.0 as usize..range.1 as usize).unwrap_or_default()
    }

    /// The method of a request.
    pub fn method(&self) -> Option<Method<'_>> {
        match self.start {
            Start::Request { method, .. } => Some(Method::new(self.slice((0, method)))),
            Start::Response { .. } => None,
        }
    }

    /// The status code of a response, 100 to 699.
    pub fn status(&self) -> Option<u16> {
        match self.start {
            Start::Response { status, .. } => Some(status),
            Start::Request { .. } => None,
        }
    }

    /// The reason phrase of a response.
    pub fn reason(&self) -> Option<&[u8]> {
        match self.start {
            Start::Response { reason, .. } => Some(self.slice(reason)),
            Start::Request { .. } => None,
        }
    }

    /// The Request-URI of a request, as written.
    pub fn request_uri(&self) -> Option<&[u8]> {
        match self.start {
            Start::Request { uri, .. } => Some(self.slice(uri)),
            Start::Response { .. } => None,
        }
    }

    /// The start line, without its CRLF.
    pub fn start_line(&self) -> &[u8] {
        self.slice((0, self.start_line_end))
    }

    /// All header lines, in order.
    pub fn lines(&self) -> Lines<'_> {
        Lines { message: self, next: 0 }
    }

    fn line(&self, index: usize) -> Option<Line<'_>> {
        let place = self.lines.get(index)?;
        Some(Line {
            index,
            name: place.name,
            text: self.slice((place.start, place.start + u32::from(place.name_length))),
            value: self.slice((place.value, place.end)),
        })
    }

    /// The line's bytes with its CRLF, for copying.
    pub(crate) fn raw_line(&self, index: usize) -> &[u8] {
        let Some(place) = self.lines.get(index) else { return b"" };
        let end = self.lines.get(index + 1).map_or(self.body.0 - 2, |next| next.start);
        self.slice((place.start, end))
    }

    fn lines_named(&self, name: Name) -> impl Iterator<Item = &[u8]> + Clone {
        self.lines
            .iter()
            .filter(move |place| place.name == name)
            .map(|place| self.slice((place.value, place.end)))
    }

    /// The first line's whole value.
    pub fn value(&self, name: Name) -> Option<&[u8]> {
        self.lines_named(name).next()
    }

    /// The first line with a name that [`Name`] does not have, in any case.
    pub fn named(&self, text: &str) -> Option<&[u8]> {
        self.lines().find(|line| line.text.eq_ignore_ascii_case(text.as_bytes())).map(|line| line.value)
    }

    /// All comma-separated values of all lines of the name. Where commas don't separate (Authorization and the like,
    /// Date, Subject, ...) one per line.
    pub fn values(&self, name: Name) -> impl Iterator<Item = &[u8]> {
        let is_list = is_list(name);
        self.lines_named(name).flat_map(move |line| Values::new(line, is_list))
    }

    /// How many lines bear the name.
    pub fn count(&self, name: Name) -> usize {
        self.lines.iter().filter(|place| place.name == name).count()
    }

    /// The top Via.
    pub fn via(&self) -> Result<Via<'_>, Malformed> {
        Via::parse(self.values(Name::Via).next().ok_or(Malformed::Missing)?)
    }

    /// From.
    pub fn from(&self) -> Result<Address<'_>, Malformed> {
        Address::parse(self.value(Name::From).ok_or(Malformed::Missing)?)
    }

    /// To.
    pub fn to(&self) -> Result<Address<'_>, Malformed> {
        Address::parse(self.value(Name::To).ok_or(Malformed::Missing)?)
    }

    /// Call-ID.
    pub fn call_id(&self) -> Result<&[u8], Malformed> {
        self.value(Name::CallId).filter(|value| !value.is_empty()).ok_or(Malformed::Missing)
    }

    /// CSeq.
    pub fn cseq(&self) -> Result<CSeq<'_>, Malformed> {
        let value = self.value(Name::CSeq).ok_or(Malformed::Missing)?;
        let gap = value.iter().position(|byte| is_space(*byte)).ok_or(Malformed::CSeq)?;
        let method = trim(&value[gap..]);
        let number = number(&value[..gap]).filter(|number| *number < 1 << 31).ok_or(Malformed::CSeq)?;
        if !is_token(method) {
            return Err(Malformed::CSeq);
        }
        Ok(CSeq { number, method: Method::new(method) })
    }

    /// A header that holds one number: Max-Forwards, Expires, Min-Expires, RSeq. Parameters and comments behind it are
    /// ignored.
    pub fn number(&self, name: Name) -> Option<Result<u32, Malformed>> {
        let value = self.value(name)?;
        let end = value
            .iter()
            .position(|byte| is_space(*byte) || matches!(byte, b';' | b'('))
            .unwrap_or(value.len());
        Some(number(&value[..end]).ok_or(Malformed::Number))
    }

    /// The addresses of a header (Contact, Route, Record-Route, P-Asserted-Identity, ...).
    pub fn addresses(&self, name: Name) -> Addresses<'_, impl Iterator<Item = &[u8]> + Clone> {
        Addresses { lines: self.lines_named(name), values: None }
    }

    /// Contact's addresses; `*` is an error here.
    pub fn contacts(&self) -> Addresses<'_, impl Iterator<Item = &[u8]> + Clone> {
        self.addresses(Name::Contact)
    }

    /// Whether a list of tokens (Supported, Require, Allow, ...) holds one, in any case.
    pub fn has_token(&self, name: Name, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.slice(self.body)
    }

    /// The body, sharing the message's buffer.
    pub fn body_bytes(&self) -> Bytes {
        self.bytes.slice(self.body.0 as usize..self.body.1 as usize)
    }

    /// Content-Type without its parameters is `kind`, for example `application/sdp`.
    pub fn has_content_type(&self, kind: &str) -> bool {
        self.value(Name::ContentType).is_some_and(|value| {
            let end = memchr(b';', value).unwrap_or(value.len());
            trim(&value[..end]).eq_ignore_ascii_case(kind.as_bytes())
        })
    }

    /// Starts changing it.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(self)
    }
}

/// See [`Message::lines`].
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    message: &'a Message,
    next: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let line = self.message.line(self.next)?;
        self.next += 1;
        Some(line)
    }
}

fn is_list(name: Name) -> bool {
    matches!(
        name,
        Name::Via
            | Name::Route
            | Name::RecordRoute
            | Name::Contact
            | Name::Allow
            | Name::Supported
            | Name::Require
            | Name::ProxyRequire
            | Name::Unsupported
            | Name::Path
            | Name::ServiceRoute
            | Name::PAssertedIdentity
            | Name::PPreferredIdentity
            | Name::Diversion
            | Name::HistoryInfo
            | Name::Accept
            | Name::AcceptEncoding
            | Name::AcceptLanguage
            | Name::AllowEvents
            | Name::AlertInfo
            | Name::CallInfo
            | Name::ErrorInfo
            | Name::Reason
            | Name::Warning
            | Name::ContentEncoding
            | Name::InReplyTo
    )
}

type Table = (Start, SmallVec<[Place; 32]>, usize, (usize, usize));

fn read(bytes: &[u8]) -> Result<Table, Cause> {
    if bytes.len() > MAX_MESSAGE {
        return Err(Cause::TooLarge);
    }
    let line_end = end_of_line(bytes, 0)?;
    let start = read_start_line(&bytes[..line_end])?;
    let mut lines = SmallVec::new();
    let mut content_length = None;
    let mut at = line_end + 2;
    loop {
        // One line: its name up to the colon, its value up to a CRLF that no white space follows.
        if bytes[at..].starts_with(b"\r\n") {
            at += 2;
            break;
        }
        let name_start = at;
        while at < bytes.len() && TOKEN[usize::from(bytes[at])] {
            at += 1;
        }
        let name_end = at;
        while at < bytes.len() && matches!(bytes[at], b' ' | b'\t') {
            at += 1;
        }
        if name_end == name_start || bytes.get(at) != Some(&b':') {
            return Err(if at >= bytes.len() {
                Cause::Incomplete
            } else {
                Cause::Malformed(Malformed::HeaderName)
            });
        }
        at += 1;
        let value_start = at;
        let mut end = end_of_line(bytes, at)?;
        while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
            end = end_of_line(bytes, end + 2)?;
        }
        at = end + 2;
        let mut value = value_start;
        while value < end && is_space(bytes[value]) {
            value += 1;
        }
        while end > value && is_space(bytes[end - 1]) {
            end -= 1;
        }
        let name = Name::of(&bytes[name_start..name_end]);
        if name == Name::ContentLength {
            let length = number(&bytes[value..end]).ok_or(Cause::Malformed(Malformed::ContentLength))?;
            if content_length.is_some_and(|other| other != length) {
                return Err(Cause::Malformed(Malformed::ContentLength));
            }
            content_length = Some(length);
        }
        if lines.len() == MAX_LINES {
            return Err(Cause::TooLarge);
        }
        let name_length =
            u16::try_from(name_end - name_start).map_err(|_| Cause::Malformed(Malformed::HeaderName))?;
        lines.push(Place {
            start: name_start as u32,
            value: value as u32,
            end: end as u32,
            name_length,
            name,
        });
    }
    let rest = bytes.len() - at;
    let length = match content_length {
        Some(length) if length as usize > rest => return Err(Cause::Incomplete),
        Some(length) => length as usize,
        None => rest,
    };
    Ok((start, lines, line_end, (at, at + length)))
}

/// The position of the CRLF at or after `from`; a bare CR or LF is refused, because the next hop may take it for one.
fn end_of_line(bytes: &[u8], from: usize) -> Result<usize, Cause> {
    let Some(found) = memchr(b'\n', bytes.get(from..).unwrap_or_default()) else {
        return Err(Cause::Incomplete);
    };
    let feed = from + found;
    if feed == from || bytes[feed - 1] != b'\r' {
        return Err(Cause::Malformed(Malformed::LineEnd));
    }
    if memchr(b'\r', &bytes[from..feed - 1]).is_some() || memchr(0, &bytes[from..feed]).is_some() {
        return Err(Cause::Malformed(Malformed::LineEnd));
    }
    Ok(feed - 1)
}

fn read_start_line(line: &[u8]) -> Result<Start, Cause> {
    const VERSION: &[u8] = b"SIP/2.0";
    const BROKEN: Cause = Cause::Malformed(Malformed::StartLine);
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        if line.len() < 12 || !line[..7].eq_ignore_ascii_case(VERSION) || line[7] != b' ' {
            return Err(BROKEN);
        }
        let status = number(&line[8..11]).and_then(|status| u16::try_from(status).ok()).ok_or(BROKEN)?;
        if !(100..700).contains(&status) || line[11] != b' ' {
            return Err(BROKEN);
        }
        return Ok(Start::Response { status, reason: (12, line.len() as u32) });
    }
    let method = memchr(b' ', line).ok_or(BROKEN)?;
    if !is_token(&line[..method]) {
        return Err(BROKEN);
    }
    let uri = method + 1;
    let uri_end = uri + memchr(b' ', &line[uri..]).ok_or(BROKEN)?;
    let version = &line[uri_end + 1..];
    if Uri::parse(&line[uri..uri_end]).is_err() {
        return Err(Cause::Malformed(Malformed::RequestUri));
    }
    if !version.eq_ignore_ascii_case(VERSION) {
        let is_version = version.len() >= 7
            && version[..4].eq_ignore_ascii_case(b"SIP/")
            && version[4..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        return Err(if is_version { Cause::Version } else { BROKEN });
    }
    Ok(Start::Request { method: method as u32, uri: (uri as u32, uri_end as u32) })
}
