//! Reading a message: the one pass over what arrived, which finds its lines, names them and settles its framing.

use memchr::memchr3;
use smallvec::SmallVec;

use crate::name::Name;
use crate::refused::{Cause, Malformed};
use crate::text::{TOKEN, cut, from, is_space, is_token, number};
use crate::uri::Uri;

/// The greatest message accepted: what a UDP datagram can hold.
pub const MAX_MESSAGE: usize = 65_535;

/// The greatest head: what is longer than that is not SIP.
pub const MAX_HEAD: usize = 32_768;

/// The greatest Request-URI.
pub const MAX_URI: usize = 4_096;

/// More header lines than this are an attack.
pub const MAX_LINES: usize = 512;

const VERSION: &[u8] = b"SIP/2.0";

/// A header line's place in the buffer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) start: u32,
    pub(crate) value: u32,
    pub(crate) end: u32,
    pub(crate) name_length: u16,
    pub(crate) name: Name,
}

/// Of most messages, without an allocation.
pub(crate) type Places = SmallVec<[Place; 32]>;

#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Request { method: u32, uri: (u32, u32) },
    Response { status: u16, reason: (u32, u32) },
}

/// Where everything of a message is.
pub(crate) struct Table {
    pub(crate) start: Start,
    pub(crate) lines: Places,
    pub(crate) start_line_end: u32,
    /// From its first byte to the one after its last, which is the message's end.
    pub(crate) body: (u32, u32),
}

/// Reads one message from the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Table, Cause> {
    let line_end = end_of_line(bytes, 0)?;
    let start = read_start_line(bytes.get(..line_end).unwrap_or_default())?;
    let mut table = Table { start, lines: SmallVec::new(), start_line_end: line_end as u32, body: (0, 0) };
    let mut content_length = None;
    let mut at = line_end.saturating_add(2);
    loop {
        if at > MAX_HEAD || table.lines.len() > MAX_LINES {
            return Err(Cause::TooLarge);
        }
        if from(bytes, at).starts_with(b"\r\n") {
            break;
        }
        at = read_line(bytes, at, &mut table.lines)?;
        if let Some(place) = table.lines.last().filter(|place| place.name == Name::ContentLength) {
            let value = bytes.get(place.value as usize..place.end as usize).unwrap_or_default();
            content_length = Some(agreed_length(content_length, value)?);
        }
    }
    at = at.saturating_add(2);
    let rest = bytes.len().saturating_sub(at);
    let length = content_length.map_or(rest, |length| length as usize);
    let end = at.saturating_add(length);
    if end > MAX_MESSAGE {
        return Err(Cause::BodyTooLarge);
    }
    if length > rest {
        return Err(Cause::Incomplete);
    }
    table.body = (at as u32, end as u32);
    Ok(table)
}

/// Content-Length so far and another value of it, which must be the same (RFC 3261 §20.14, RFC 4475 §3.3.9).
pub(crate) fn agreed_length(so_far: Option<u32>, value: &[u8]) -> Result<u32, Cause> {
    number(value)
        .filter(|length| so_far.is_none_or(|other| other == *length))
        .ok_or(Cause::Malformed(Malformed::ContentLength))
}

/// One line, folds included, which is added to those before it; where the next one starts.
pub(crate) fn read_line(bytes: &[u8], start: usize, lines: &mut Places) -> Result<usize, Cause> {
    let line = from(bytes, start);
    let name_length = line.iter().take_while(|byte| TOKEN.has(**byte)).count();
    let name_end = start.saturating_add(name_length);
    let gap = from(line, name_length).iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let colon = name_end.saturating_add(gap);
    match bytes.get(colon) {
        None => return Err(Cause::Incomplete),
        Some(b':') if name_length > 0 => {}
        Some(_) => return Err(Cause::Malformed(Malformed::HeaderName)),
    }
    let value = colon.saturating_add(1);
    let mut end = end_of_line(bytes, value)?;
    let mut next = end.saturating_add(2);
    while matches!(bytes.get(next), Some(b' ' | b'\t')) {
        end = end_of_line(bytes, next)?;
        next = end.saturating_add(2);
    }
    let text = bytes.get(value..end).unwrap_or_default();
    let before = text.iter().take_while(|byte| is_space(**byte)).count();
    let text = from(text, before);
    let behind = text.iter().rev().take_while(|byte| is_space(**byte)).count();
    lines.push(Place {
        start: start as u32,
        value: value.saturating_add(before) as u32,
        end: end.saturating_sub(behind) as u32,
        name_length: u16::try_from(name_length).map_err(|_| Cause::TooLarge)?,
        name: Name::of(line.get(..name_length).unwrap_or_default()),
    });
    Ok(next)
}

/// The position of the CRLF at or after `from`. A bare CR or LF is refused, because the next hop may take it for one;
/// so is NUL, which some take for the end, but for the one of a quoted pair (RFC 3261 §25.1).
fn end_of_line(bytes: &[u8], start: usize) -> Result<usize, Cause> {
    let mut at = start;
    loop {
        let Some(found) = memchr3(b'\r', b'\n', 0, from(bytes, at)) else {
            return Err(Cause::Incomplete);
        };
        let found = found.saturating_add(at);
        match from(bytes, found) {
            [b'\r', b'\n', ..] => return Ok(found),
            [b'\r'] => return Err(Cause::Incomplete),
            [0, ..] if bytes.get(start..found).is_some_and(|before| before.ends_with(b"\\")) => {
                at = found.saturating_add(1);
            }
            _ => return Err(Cause::Malformed(Malformed::LineEnd)),
        }
    }
}

fn read_start_line(line: &[u8]) -> Result<Start, Cause> {
    const BROKEN: Cause = Cause::Malformed(Malformed::StartLine);
    let number_of = |version| split_ignoring_case(version, b"SIP/");
    if number_of(line).is_some() {
        return read_status_line(line).ok_or(BROKEN);
    }
    let (method, rest) = cut(line, b' ').ok_or(BROKEN)?;
    if !is_token(method) {
        return Err(BROKEN);
    }
    let (uri, version) = cut(rest, b' ').ok_or(BROKEN)?;
    if !version.eq_ignore_ascii_case(VERSION) {
        let is_version = number_of(version).is_some_and(|number| {
            number.len() >= 3 && number.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        });
        return Err(if is_version { Cause::Version } else { BROKEN });
    }
    if uri.len() > MAX_URI {
        return Err(Cause::UriTooLong);
    }
    // RFC 3261 §19.1.1: a Request-URI has no headers. Phones that are referred send them all the same (baresip puts the
    // Replaces of a Refer-To there), so they are borne, and nothing acts on them.
    if Uri::parse(uri).is_err() {
        return Err(Cause::Malformed(Malformed::RequestUri));
    }
    let uri_start = method.len().saturating_add(1);
    let uri_end = uri_start.saturating_add(uri.len());
    Ok(Start::Request { method: method.len() as u32, uri: (uri_start as u32, uri_end as u32) })
}

/// What is behind a beginning, in whatever case that stands.
fn split_ignoring_case<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (known, rest) = text.split_at_checked(start.len())?;
    known.eq_ignore_ascii_case(start).then_some(rest)
}

/// `SIP/2.0 200 OK`; the space before an empty reason phrase must be there (RFC 4475 §3.1.1.13).
fn read_status_line(line: &[u8]) -> Option<Start> {
    let (version, rest) = line.split_at_checked(VERSION.len())?;
    let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    if !version.eq_ignore_ascii_case(VERSION) || reason.first() != Some(&b' ') {
        return None;
    }
    let status = number(code).filter(|status| (100..700).contains(status))?;
    // Behind the space that was looked for.
    let start = line.len().saturating_sub(reason.len()).saturating_add(1);
    Some(Start::Response { status: status as u16, reason: (start as u32, line.len() as u32) })
}
