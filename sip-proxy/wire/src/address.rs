//! name-addr and addr-spec with header parameters: From, To, Contact, Route, Refer-To ... (RFC 3261 §20.10).

use memchr::memchr;

use crate::refused::Malformed;
use crate::text::{Parameters, Values, after_quoted, around, cut, find_from, trim};
use crate::uri::Uri;

/// One such value.
#[derive(Debug, Clone, Copy)]
pub struct Address<'a> {
    /// The display name as written, quotes included; empty if there is none.
    pub display: &'a [u8],
    /// The URI.
    pub uri: Uri<'a>,
    parameters: &'a [u8],
}

impl<'a> Address<'a> {
    /// Without angle brackets every parameter belongs to the header, not the URI (RFC 3261 §20.10).
    pub fn parse(value: &'a [u8]) -> Result<Self, Malformed> {
        let value = trim(value);
        let after_display =
            if value.first() == Some(&b'"') { after_quoted(value, 0).ok_or(Malformed::Address)? } else { 0 };
        let Some(open) = find_from(value, after_display, b'<') else {
            if after_display > 0 {
                return Err(Malformed::Address);
            }
            let end = memchr(b';', value).unwrap_or(value.len());
            let (text, parameters) = value.split_at_checked(end).unwrap_or((value, b""));
            let text = trim(text);
            if memchr(b'?', text).is_some() || memchr(b',', text).is_some() {
                return Err(Malformed::Address);
            }
            return Ok(Self { display: b"", uri: Uri::parse(text)?, parameters });
        };
        let (display, enclosed) = around(value, open);
        let (uri, after) = cut(enclosed, b'>').ok_or(Malformed::Address)?;
        let display = trim(display);
        if display.first().is_some_and(|first| *first != b'"')
            && display.iter().any(|byte| matches!(byte, b',' | b';' | b'"' | b':'))
        {
            return Err(Malformed::Address);
        }
        let after = trim(after);
        if after.first().is_some_and(|first| *first != b';') {
            return Err(Malformed::Address);
        }
        Ok(Self { display, uri: Uri::parse(uri)?, parameters: after })
    }

    /// Header parameters.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters::new(self.parameters)
    }

    /// `tag`.
    pub fn tag(&self) -> Option<&'a [u8]> {
        self.parameters().get(b"tag").flatten()
    }

    /// A parameter's value, still quoted.
    pub fn parameter(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.parameters().get(name).flatten()
    }
}

/// The values of a header, read one by one.
#[derive(Debug, Clone)]
pub struct Addresses<'a, I: Iterator<Item = &'a [u8]>> {
    pub(crate) lines: I,
    pub(crate) values: Option<Values<'a>>,
}

impl<'a, I: Iterator<Item = &'a [u8]>> Iterator for Addresses<'a, I> {
    type Item = Result<Address<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(value) = self.values.as_mut().and_then(Iterator::next) {
                return Some(Address::parse(value));
            }
            self.values = Some(Values::new(self.lines.next()?, true));
        }
    }
}
