//! URIs (RFC 3261 §19.1, RFC 3966, RFC 5031), read without judging what the product does not need.

use std::borrow::Cow;
use std::net::IpAddr;

use memchr::{memchr, memrchr};

use crate::refused::Malformed;
use crate::text::{Class, Parameters, around, cut, number};

/// The scheme of a URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// `sip:`
    Sip,
    /// `sips:`
    Sips,
    /// `tel:`
    Tel,
    /// `urn:`
    Urn,
    /// Any other.
    Other,
}

impl Scheme {
    /// In any case (RFC 3986 §3.1); `None` if it is no scheme at all.
    fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"sip" => Scheme::Sip,
            b"sips" => Scheme::Sips,
            b"tel" => Scheme::Tel,
            b"urn" => Scheme::Urn,
            _ if name.eq_ignore_ascii_case(b"sip") => Scheme::Sip,
            _ if name.eq_ignore_ascii_case(b"sips") => Scheme::Sips,
            _ if name.eq_ignore_ascii_case(b"tel") => Scheme::Tel,
            _ if name.eq_ignore_ascii_case(b"urn") => Scheme::Urn,
            [first, rest @ ..]
                if first.is_ascii_alphabetic()
                    && rest.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte)) =>
            {
                Scheme::Other
            }
            _ => return None,
        })
    }
}

/// The host of a URI or a Via, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host<'a>(pub(crate) &'a [u8]);

impl<'a> Host<'a> {
    /// As written, an IPv6 address with its brackets.
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// If it is a literal address.
    pub fn address(self) -> Option<IpAddr> {
        let text = std::str::from_utf8(self.0).ok()?;
        let text = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        text.parse().ok()
    }
}

/// A URI, split where `sip:` and `sips:` are; of other schemes `user` is all before parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uri<'a> {
    text: &'a [u8],
    scheme: Scheme,
    user: &'a [u8],
    host: Host<'a>,
    port: Option<u16>,
    parameters: &'a [u8],
    headers: &'a [u8],
}

/// What ends a URI wherever one stands: white space, controls, and the delimiters round it (RFC 3986 §2).
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
pub(crate) static FORBIDDEN: Class = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = byte <= 0x20 || byte == 0x7f || matches!(byte as u8, b'<' | b'>' | b'"');
        byte += 1;
    }
    Class::of(table)
};

/// Letters, digits and what separates them; the underscore is none of RFC 3261's but many a name's.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static HOST_NAME: Class = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let character = byte as u8;
        table[byte] = character.is_ascii_alphanumeric() || matches!(character, b'-' | b'.' | b'_');
        byte += 1;
    }
    Class::of(table)
};

impl<'a> Uri<'a> {
    /// Splits it.
    pub fn parse(text: &'a [u8]) -> Result<Self, Malformed> {
        let (scheme, rest) = cut(text, b':').ok_or(Malformed::Uri)?;
        let scheme = Scheme::of(scheme).ok_or(Malformed::Uri)?;
        if rest.iter().any(|byte| FORBIDDEN.has(*byte)) {
            return Err(Malformed::Uri);
        }
        if !matches!(scheme, Scheme::Sip | Scheme::Sips) {
            let end = memchr(b';', rest).unwrap_or(rest.len());
            let (user, parameters) = rest.split_at(end);
            if user.is_empty() {
                return Err(Malformed::Uri);
            }
            return Ok(Self { text, scheme, user, host: Host(b""), port: None, parameters, headers: b"" });
        }
        // The user part may hold `;` and `?`, so the last `@` before the headers counts; headers must escape theirs.
        let (user, rest) = match memrchr(b'@', rest) {
            Some(at) => around(rest, at),
            None => (&b""[..], rest),
        };
        let (rest, headers) = cut(rest, b'?').unwrap_or((rest, b""));
        let end = memchr(b';', rest).unwrap_or(rest.len());
        let (host, parameters) = rest.split_at_checked(end).unwrap_or((rest, b""));
        let (host, port) = split_host(host)?;
        Ok(Self { text, scheme, user, host, port, parameters, headers })
    }

    /// As written.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    /// Its scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Before the `@`, as written, without a password; a number or service name for `tel:` and `urn:`.
    pub fn user(&self) -> &'a [u8] {
        match cut(self.user, b':') {
            Some((user, _)) if matches!(self.scheme, Scheme::Sip | Scheme::Sips) => user,
            _ => self.user,
        }
    }

    /// The host; empty if the scheme has none.
    pub fn host(&self) -> Host<'a> {
        self.host
    }

    /// The port, if there is one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// `;name=value` after the host.
    pub fn parameters(&self) -> Parameters<'a> {
        Parameters::new(self.parameters)
    }

    /// The headers after `?`, as written.
    pub fn headers(&self) -> &'a [u8] {
        self.headers
    }

    /// The value of a header after `?`, unescaped.
    pub fn header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.headers.split(|byte| *byte == b'&').find_map(|header| {
            let (known, value) = cut(header, b'=')?;
            known.eq_ignore_ascii_case(name).then(|| Uri::unescape(value).into_owned())
        })
    }

    /// `%hh` replaced by what it stands for; broken escapes stay.
    pub fn unescape(text: &[u8]) -> Cow<'_, [u8]> {
        if memchr(b'%', text).is_none() {
            return Cow::Borrowed(text);
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut out = Vec::with_capacity(text.len());
        let mut rest = text;
        while let [byte, after @ ..] = rest {
            let escaped = match rest {
                [b'%', high, low, after @ ..] => digit(*high).zip(digit(*low)).zip(Some(after)),
                _ => None,
            };
            rest = match escaped {
                Some(((high, low), after)) => {
                    out.push((high << 4 | low) as u8);
                    after
                }
                None => {
                    out.push(*byte);
                    after
                }
            };
        }
        Cow::Owned(out)
    }

    /// All but unreserved characters (RFC 3261 §25.1) as `%hh`.
    pub fn escape(text: &[u8]) -> String {
        let mut out = String::with_capacity(text.len().saturating_add(8));
        for byte in text {
            if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(byte) {
                out.push(char::from(*byte));
            } else {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
        out
    }
}

/// `host[:port]`, the host not empty (RFC 3261 §25.1).
pub(crate) fn split_host(text: &[u8]) -> Result<(Host<'_>, Option<u16>), Malformed> {
    let end = if text.first() == Some(&b'[') {
        memchr(b']', text).ok_or(Malformed::Uri)?.saturating_add(1)
    } else {
        memchr(b':', text).unwrap_or(text.len())
    };
    let (host, port) = text.split_at_checked(end).unwrap_or((text, b""));
    let is_host = match host {
        [b'[', inner @ .., b']'] => {
            !inner.is_empty()
                && inner.iter().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.' | b'%'))
        }
        _ => !host.is_empty() && host.iter().all(|byte| HOST_NAME.has(*byte)),
    };
    if !is_host {
        return Err(Malformed::Uri);
    }
    let port = match port {
        [] => None,
        [b':', digits @ ..] => {
            Some(number(digits).and_then(|port| u16::try_from(port).ok()).ok_or(Malformed::Uri)?)
        }
        _ => return Err(Malformed::Uri),
    };
    Ok((Host(host), port))
}
