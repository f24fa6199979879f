//! Reading a message: the one pass over what arrived, which finds its lines, names them and settles its framing.

use memchr::{memchr, memchr3};
use smallvec::SmallVec;

use crate::name::Name;
use crate::refused::{Cause, Malformed};
use crate::text::{TOKEN, is_space, is_token, number};
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

#[derive(Debug, Clone, Copy)]
pub(crate) enum Start {
    Request { method: u32, uri: (u32, u32) },
    Response { status: u16, reason: (u32, u32) },
}

/// Where everything of a message is.
pub(crate) struct Table {
    pub(crate) start: Start,
    pub(crate) lines: SmallVec<[Place; 32]>,
    pub(crate) start_line_end: u32,
    /// From its first byte to the one after its last, which is the message's end.
    pub(crate) body: (u32, u32),
}

/// Reads one message from the start of `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Table, Cause> {
    let line_end = end_of_line(bytes, 0)?;
    let start = read_start_line(&bytes[..line_end])?;
    let mut table = Table { start, lines: SmallVec::new(), start_line_end: line_end as u32, body: (0, 0) };
    let mut content_length = None;
    let mut at = line_end + 2;
    loop {
        if at > MAX_HEAD || table.lines.len() > MAX_LINES {
            return Err(Cause::TooLarge);
        }
        if bytes[at..].starts_with(b"\r\n") {
            break;
        }
        let (place, next) = read_line(bytes, at)?;
        if place.name == Name::ContentLength {
            let value = &bytes[place.value as usize..place.end as usize];
            content_length = Some(agreed_length(content_length, value)?);
        }
        table.lines.push(place);
        at = next;
    }
    at += 2;
    let rest = bytes.len() - at;
    let length = content_length.map_or(rest, |length| length as usize);
    if at + length > MAX_MESSAGE {
        return Err(Cause::BodyTooLarge);
    }
    if length > rest {
        return Err(Cause::Incomplete);
    }
    table.body = (at as u32, (at + length) as u32);
    Ok(table)
}

/// Content-Length so far and another value of it, which must be the same (RFC 3261 §20.14, RFC 4475 §3.3.9).
pub(crate) fn agreed_length(so_far: Option<u32>, value: &[u8]) -> Result<u32, Cause> {
    number(value)
        .filter(|length| so_far.is_none_or(|other| other == *length))
        .ok_or(Cause::Malformed(Malformed::ContentLength))
}

/// One line, folds included, and where the next one starts.
fn read_line(bytes: &[u8], start: usize) -> Result<(Place, usize), Cause> {
    let mut name_end = start;
    while name_end < bytes.len() && TOKEN[usize::from(bytes[name_end])] {
        name_end += 1;
    }
    let mut colon = name_end;
    while matches!(bytes.get(colon), Some(b' ' | b'\t')) {
        colon += 1;
    }
    match bytes.get(colon) {
        None => return Err(Cause::Incomplete),
        Some(b':') if name_end > start => {}
        Some(_) => return Err(Cause::Malformed(Malformed::HeaderName)),
    }
    let mut end = end_of_line(bytes, colon + 1)?;
    while matches!(bytes.get(end + 2), Some(b' ' | b'\t')) {
        end = end_of_line(bytes, end + 2)?;
    }
    let next = end + 2;
    let mut value = colon + 1;
    while value < end && is_space(bytes[value]) {
        value += 1;
    }
    while end > value && is_space(bytes[end - 1]) {
        end -= 1;
    }
    let place = Place {
        start: start as u32,
        value: value as u32,
        end: end as u32,
        name_length: u16::try_from(name_end - start).map_err(|_| Cause::TooLarge)?,
        name: Name::of(&bytes[start..name_end]),
    };
    Ok((place, next))
}

/// The position of the CRLF at or after `from`. A bare CR or LF is refused, because the next hop may take it for one;
/// so is NUL, which some take for the end, but for the one of a quoted pair (RFC 3261 §25.1).
fn end_of_line(bytes: &[u8], from: usize) -> Result<usize, Cause> {
    let mut at = from;
    loop {
        let Some(found) = memchr3(b'\r', b'\n', 0, bytes.get(at..).unwrap_or_default()) else {
            return Err(Cause::Incomplete);
        };
        let found = at + found;
        match (bytes[found], bytes.get(found + 1)) {
            (b'\r', Some(b'\n')) => return Ok(found),
            (b'\r', None) => return Err(Cause::Incomplete),
            (0, _) if found > from && bytes[found - 1] == b'\\' => at = found + 1,
            _ => return Err(Cause::Malformed(Malformed::LineEnd)),
        }
    }
}

fn read_start_line(line: &[u8]) -> Result<Start, Cause> {
    const BROKEN: Cause = Cause::Malformed(Malformed::StartLine);
    if line.len() >= 4 && line[..4].eq_ignore_ascii_case(b"SIP/") {
        return read_status_line(line).ok_or(BROKEN);
    }
    let method = memchr(b' ', line).ok_or(BROKEN)?;
    if !is_token(&line[..method]) {
        return Err(BROKEN);
    }
    let uri = method + 1;
    let uri_end = uri + memchr(b' ', &line[uri..]).ok_or(BROKEN)?;
    let version = &line[uri_end + 1..];
    if !version.eq_ignore_ascii_case(VERSION) {
        let is_version = version.len() >= 7
            && version[..4].eq_ignore_ascii_case(b"SIP/")
            && version[4..].iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
        return Err(if is_version { Cause::Version } else { BROKEN });
    }
    if uri_end - uri > MAX_URI {
        return Err(Cause::UriTooLong);
    }
    // RFC 3261 §19.1.1: a Request-URI has no headers. Phones that are referred send them all the same (baresip puts the
    // Replaces of a Refer-To there), so they are borne, and nothing acts on them.
    if Uri::parse(&line[uri..uri_end]).is_err() {
        return Err(Cause::Malformed(Malformed::RequestUri));
    }
    Ok(Start::Request { method: method as u32, uri: (uri as u32, uri_end as u32) })
}

/// `SIP/2.0 200 OK`; the space before an empty reason phrase must be there (RFC 4475 §3.1.1.13).
fn read_status_line(line: &[u8]) -> Option<Start> {
    let (version, rest) = line.split_at_checked(VERSION.len())?;
    let (code, reason) = rest.strip_prefix(b" ")?.split_at_checked(3)?;
    if !version.eq_ignore_ascii_case(VERSION) || reason.first() != Some(&b' ') {
        return None;
    }
    let status = number(code).filter(|status| (100..700).contains(status))?;
    Some(Start::Response { status: status as u16, reason: (VERSION.len() as u32 + 5, line.len() as u32) })
}
