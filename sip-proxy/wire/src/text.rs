//! What every header value is made of: comma-separated values, `;name=value` parameters, quoted strings, numbers.

use std::borrow::Cow;

use memchr::{memchr, memchr3};

pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Without white space (folding included) at both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text {
        if !is_space(*first) {
            break;
        }
        text = rest;
    }
    while let [rest @ .., last] = text {
        if !is_space(*last) {
            break;
        }
        text = rest;
    }
    text
}

/// Control characters but for the tab: none belongs into a header (RFC 3261 §25.1).
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
pub(crate) static CONTROL: Class = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte < 0x20 && byte != 0x09) || byte == 0x7f;
        byte += 1;
    }
    Class::of(table)
};

/// Whether a value has a control character other than those of its folds and of quoted pairs in a quoted string.
pub(crate) fn has_control(value: &[u8]) -> bool {
    let is_control = |byte: &u8| CONTROL.has(*byte) && !matches!(byte, b'\r' | b'\n');
    if !value.iter().any(is_control) {
        return false;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    value.iter().any(|byte| {
        let was_escaped = std::mem::take(&mut is_escaped);
        match byte {
            b'"' if !was_escaped => is_quoted = !is_quoted,
            b'\\' if is_quoted && !was_escaped => is_escaped = true,
            _ => return is_control(byte) && !was_escaped,
        }
        false
    })
}

/// A set of octets, looked up in a table.
pub(crate) struct Class([bool; 256]);

impl Class {
    /// From a table that says of each octet whether it belongs.
    pub(crate) const fn of(belongs: [bool; 256]) -> Self {
        Self(belongs)
    }

    pub(crate) fn has(&self, octet: u8) -> bool {
        // An octet is no more than 255: the compiler knows it, and looks up without a test.
        self.0.get(usize::from(octet)).copied().unwrap_or_default()
    }
}

/// Characters of a token (RFC 3261 §25.1).
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
pub(crate) static TOKEN: Class = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric()
            || matches!(character, b'-' | b'.' | b'!' | b'%' | b'*' | b'_' | b'+' | b'`' | b'\'' | b'~');
        byte += 1;
    }
    Class::of(table)
};

pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| TOKEN.has(*byte))
}

/// What is before and what is behind the octet at a place; behind the end there is nothing.
pub(crate) fn around(text: &[u8], place: usize) -> (&[u8], &[u8]) {
    let (before, rest) = text.split_at_checked(place).unwrap_or((text, b""));
    (before, rest.get(1..).unwrap_or_default())
}

/// What is before and what is behind the first of an octet.
pub(crate) fn cut(text: &[u8], octet: u8) -> Option<(&[u8], &[u8])> {
    memchr(octet, text).map(|place| around(text, place))
}

/// From a place on; nothing behind the end.
pub(crate) fn from(text: &[u8], place: usize) -> &[u8] {
    text.get(place..).unwrap_or_default()
}

/// The next of an octet at or behind a place.
pub(crate) fn find_from(text: &[u8], place: usize, octet: u8) -> Option<usize> {
    memchr(octet, from(text, place)).map(|found| found.saturating_add(place))
}

/// The position after a quoted string that starts at `open`; `None` if it does not end.
pub(crate) fn after_quoted(text: &[u8], open: usize) -> Option<usize> {
    let mut at = open.saturating_add(1);
    loop {
        match *text.get(at)? {
            b'\\' => at = at.saturating_add(2),
            b'"' => return Some(at.saturating_add(1)),
            _ => at = at.saturating_add(1),
        }
    }
}

/// The first `stop` outside quoted strings and angle brackets.
pub(crate) fn find_outside(text: &[u8], stop: u8) -> Option<usize> {
    // Most values have neither.
    memchr(stop, text)?;
    let mut at = 0;
    while at < text.len() {
        let found = memchr3(b'"', b'<', stop, from(text, at))?.saturating_add(at);
        match *text.get(found)? {
            byte if byte == stop => return Some(found),
            b'"' => at = after_quoted(text, found)?,
            _ => at = find_from(text, found, b'>')?.saturating_add(1),
        }
    }
    None
}

/// The comma-separated values of a header line (RFC 3261 §7.3.1), trimmed, empty ones left out.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    rest: &'a [u8],
    is_list: bool,
}

impl<'a> Values<'a> {
    pub(crate) fn new(line: &'a [u8], is_list: bool) -> Self {
        Self { rest: line, is_list }
    }

    /// Any comma-separated text, such as the fields of a digest challenge.
    pub fn of_list(text: &'a [u8]) -> Self {
        Self::new(text, true)
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while !self.rest.is_empty() {
            let comma = if self.is_list { find_outside(self.rest, b',') } else { None };
            let (value, rest) = match comma {
                Some(comma) => around(self.rest, comma),
                None => (self.rest, &b""[..]),
            };
            self.rest = rest;
            let value = trim(value);
            if !value.is_empty() {
                return Some(value);
            }
        }
        None
    }
}

/// `;name` and `;name=value`, in order, names as written, values still quoted.
#[derive(Debug, Clone)]
pub struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// `text` starts at, or after, the first semicolon.
    pub fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// The value of the first parameter with that name: `Some(None)` if it has no value.
    pub fn get(&self, name: &[u8]) -> Option<Option<&'a [u8]>> {
        self.clone().find(|parameter| parameter.0.eq_ignore_ascii_case(name)).map(|parameter| parameter.1)
    }
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            let (part, rest) = match find_outside(self.rest, b';') {
                Some(end) => around(self.rest, end),
                None => (self.rest, &b""[..]),
            };
            self.rest = rest;
            let part = trim(part);
            if part.is_empty() {
                continue;
            }
            return Some(match cut(part, b'=') {
                Some((name, value)) => (trim(name), Some(trim(value))),
                None => (part, None),
            });
        }
        None
    }
}

/// The value of a parameter of a header value without angle brackets (`Event`, `Session-Expires`, `Content-Type`).
pub fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let start = find_outside(value, b';')?;
    Parameters::new(from(value, start)).get(name).flatten()
}

/// A decimal number, digits only, in the range of its header.
pub fn number(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 10 {
        return None;
    }
    let mut value = 0u64;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value.saturating_mul(10).saturating_add(u64::from(byte.saturating_sub(b'0')));
    }
    u32::try_from(value).ok()
}

/// Without the quotes of a quoted string and its escapes; as it is otherwise.
pub fn unquote(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")) else {
        return Cow::Borrowed(text);
    };
    if memchr(b'\\', inner).is_none() {
        return Cow::Borrowed(inner);
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        out.push(*byte);
    }
    Cow::Owned(out)
}
