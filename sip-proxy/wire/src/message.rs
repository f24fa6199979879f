//! The message: one buffer, a start line, a table of lines, a body.

use bytes::Bytes;

use crate::address::{Address, Addresses};
use crate::edit::Edit;
use crate::media_type::MediaType;
use crate::method::Method;
use crate::name::Name;
use crate::read::{Place, Places, Start, Table, read};
use crate::refused::{Malformed, Refused};
use crate::text::{Values, around, is_space, is_token, number, trim};
use crate::via::Via;

/// A SIP message as it was received or written.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Bytes,
    start: Start,
    lines: Places,
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
    /// Reads a datagram's message: exactly one. Line ends before it and octets behind its body (RFC 3261 §7.5, §18.3)
    /// are no part of it.
    pub fn parse(bytes: Bytes) -> Result<Self, Refused> {
        let bytes = without_leading_line_ends(bytes);
        match read(&bytes) {
            Ok(table) => {
                let end = table.body.1 as usize;
                Ok(Self::of(table, if end == bytes.len() { bytes } else { bytes.slice(..end) }))
            }
            Err(cause) => Err(Refused::new(cause, bytes)),
        }
    }

    /// What ends where the table says.
    pub(crate) fn of(table: Table, bytes: Bytes) -> Self {
        let Table { start, lines, start_line_end, body } = table;
        Self { bytes, start, lines, start_line_end, body }
    }

    pub(crate) fn start(&self) -> Start {
        self.start
    }

    pub(crate) fn places(&self) -> &[Place] {
        &self.lines
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

    pub(crate) fn line(&self, index: usize) -> Option<Line<'_>> {
        let place = self.lines.get(index)?;
        Some(Line {
            index,
            name: place.name,
            text: self.slice((place.start, place.start.saturating_add(u32::from(place.name_length)))),
            value: self.slice((place.value, place.end)),
        })
    }

    /// The bytes of the lines from `first` up to but without `end`, with their CRLFs, for copying.
    pub(crate) fn raw_lines(&self, first: usize, end: usize) -> &[u8] {
        let start_of =
            |index: usize| self.lines.get(index).map_or(self.body.0.saturating_sub(2), |place| place.start);
        self.slice((start_of(first), start_of(end)))
    }

    /// How many header lines it has.
    pub(crate) fn line_count(&self) -> usize {
        self.lines.len()
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
        let (digits, method) = around(value, gap);
        let method = trim(method);
        let number = number(digits).filter(|number| *number < 1 << 31).ok_or(Malformed::CSeq)?;
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
        Some(value.get(..end).and_then(number).ok_or(Malformed::Number))
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

    /// What its body is; `None` without a Content-Type, or with one that cannot be read.
    pub fn media_type(&self) -> Option<MediaType> {
        MediaType::parse(self.value(Name::ContentType)?)
    }

    /// Starts changing it.
    pub fn edit(&self) -> Edit<'_> {
        Edit::new(self)
    }
}

impl From<Message> for Bytes {
    fn from(message: Message) -> Self {
        message.bytes
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
        self.next = self.next.saturating_add(1);
        Some(line)
    }
}

/// RFC 3261 §7.5 has a receiver skip line ends before the start line.
fn without_leading_line_ends(bytes: Bytes) -> Bytes {
    let mut rest = &bytes[..];
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    if rest.len() == bytes.len() { bytes } else { bytes.slice_ref(rest) }
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
