//! Media types as RFC 3261 §25.1 and RFC 2045 §5.1 write them. Every reader of a Content-Type comes here: white space,
//! folds and comments round its parts, letters of either case and quoted parameters are all the same type, and a type
//! that one reader does not recognise, another acts on.

use crate::text::{is_space, is_token, trim};

/// A Content-Type, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaType {
    /// `type/subtype` in lower case.
    name: Vec<u8>,
    slash: usize,
    /// Names in lower case, values without quotes.
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl MediaType {
    /// Reads a value; `None` if it does not name one type, or if it names two boundaries, of which the next reader may
    /// take the other one.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let value = without_comments(value)?;
        if value.iter().any(|byte| byte.is_ascii_control()) {
            return None;
        }
        let mut fields = split_unquoted(&value)?.into_iter();
        let (kind, subtype) = {
            let name = fields.next()?;
            let slash = memchr::memchr(b'/', name)?;
            let (kind, subtype) = name.split_at_checked(slash)?;
            (trim(kind), trim(subtype.get(1..)?))
        };
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut name = kind.to_ascii_lowercase();
        let slash = name.len();
        name.push(b'/');
        name.extend(subtype.iter().map(u8::to_ascii_lowercase));
        let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for field in fields {
            let mut halves = field.splitn(2, |byte| *byte == b'=');
            let name = trim(halves.next().unwrap_or_default()).to_ascii_lowercase();
            if name.is_empty() {
                continue;
            }
            // RFC 2231 cuts parameters into pieces (`boundary*0`); who does not know that takes another one.
            let is_boundary = name.starts_with(b"boundary");
            if is_boundary && parameters.iter().any(|known| known.0.starts_with(b"boundary")) {
                return None;
            }
            let value = crate::text::unquote(trim(halves.next().unwrap_or_default())).into_owned();
            parameters.push((name, value));
        }
        Some(Self { name, slash, parameters })
    }

    /// Of a part without a Content-Type (RFC 2046 §5.1).
    pub(crate) fn of(name: &'static str) -> Self {
        let slash = memchr::memchr(b'/', name.as_bytes()).unwrap_or(name.len());
        Self { name: name.as_bytes().to_vec(), slash, parameters: Vec::new() }
    }

    /// Whether it is `name`, which is in lower case, for example `application/sdp`.
    pub fn is(&self, name: &str) -> bool {
        self.name == name.as_bytes()
    }

    /// `application`, `multipart`, ... in lower case.
    pub fn kind(&self) -> &[u8] {
        self.name.get(..self.slash).unwrap_or_default()
    }

    /// What follows the slash, in lower case.
    pub fn subtype(&self) -> &[u8] {
        self.name.get(self.slash.saturating_add(1)..).unwrap_or_default()
    }

    /// The value of a parameter, whose name is in lower case, without quotes.
    pub fn parameter(&self, name: &[u8]) -> Option<&[u8]> {
        self.parameters.iter().find(|known| known.0 == name).map(|known| &*known.1)
    }

    /// The boundary of a multipart (RFC 2046 §5.1.1): 1 to 70 characters that need no escape. Longer ones are read up
    /// to 200.
    pub fn boundary(&self) -> Option<&[u8]> {
        let boundary = self.parameter(b"boundary")?;
        let is_plain = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\');
        let is_sound = (1..=200).contains(&boundary.len())
            && boundary.iter().all(is_plain)
            && boundary.last() != Some(&b' ')
            && boundary.first() != Some(&b' ');
        is_sound.then_some(boundary)
    }

    /// As it is written, with another boundary.
    pub(crate) fn with_boundary(&self, boundary: &[u8]) -> Vec<u8> {
        let mut out = self.name.clone();
        for (name, value) in &self.parameters {
            let value = if name == b"boundary" { boundary } else { value };
            out.push(b';');
            out.extend_from_slice(name);
            out.push(b'=');
            if is_token(value) {
                out.extend_from_slice(value);
                continue;
            }
            out.push(b'"');
            for byte in value {
                if matches!(byte, b'"' | b'\\') {
                    out.push(b'\\');
                }
                out.push(*byte);
            }
            out.push(b'"');
        }
        out
    }
}

/// Without comments (RFC 822 §3.4.3, which parts of multiparts may have), each of which stands for a space; `None` if
/// one does not end.
fn without_comments(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let (mut depth, mut is_quoted) = (0u32, false);
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_quoted || depth > 0 => {
                let escaped = bytes.next()?;
                if depth == 0 {
                    out.extend_from_slice(&[byte, escaped]);
                }
                continue;
            }
            b'"' if depth == 0 => is_quoted = !is_quoted,
            b'(' if !is_quoted => depth = depth.checked_add(1)?,
            b')' if depth > 0 => {
                depth = depth.saturating_sub(1);
                out.push(b' ');
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            out.push(if is_space(byte) { b' ' } else { byte });
        }
    }
    (depth == 0 && !is_quoted).then_some(out)
}

/// The fields between semicolons outside quoted strings.
fn split_unquoted(value: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let fields = value.split(|byte| {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b';' => return !is_quoted,
            _ => {}
        }
        false
    });
    let fields: Vec<&[u8]> = fields.map(trim).collect();
    (fields.len() <= 32).then_some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_description(value: &str) -> bool {
        MediaType::parse(value.as_bytes()).is_some_and(|kind| kind.is("application/sdp"))
    }

    #[test]
    fn a_type_is_the_same_however_it_is_spaced_folded_cased_or_commented() {
        for value in [
            "application/sdp",
            " Application / SDP ",
            "application/\r\n sdp",
            "application\t/\tsdp;charset=\"utf-8\"",
            "application/sdp ; ; a=b",
            "(a) application/(b (c) \\) d)sdp(e)",
            "application/sdp;x=\"a;b/c\"",
        ] {
            assert!(is_description(value), "{value}");
        }
        for value in [
            "",
            "application",
            "application/",
            "/sdp",
            "appli cation/sdp",
            "application/sdp x",
            "a/b/c",
            "(a/b",
        ] {
            assert_eq!(MediaType::parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn a_boundary_is_unquoted_and_there_is_only_one() {
        let boundary = |value: &str| MediaType::parse(value.as_bytes())?.boundary().map(<[u8]>::to_vec);
        assert_eq!(boundary("multipart / mixed ; boundary = b"), Some(b"b".to_vec()));
        assert_eq!(boundary("Multipart/Mixed; charset=utf-8; BOUNDARY=\"a b;c\""), Some(b"a b;c".to_vec()));
        assert_eq!(boundary("multipart/mixed;boundary=a;boundary=b"), None);
        assert_eq!(boundary("multipart/mixed;boundary=a;boundary*0=b"), None);
        assert_eq!(boundary("multipart/mixed;boundary=\"\""), None);
        assert_eq!(boundary("multipart/mixed"), None);
    }

    #[test]
    fn another_boundary_leaves_the_other_parameters() {
        let kind = MediaType::parse(b"multipart/Related;start=\"<a@b>\";boundary=x").unwrap();
        assert_eq!(kind.with_boundary(b"y z"), b"multipart/related;start=\"<a@b>\";boundary=\"y z\"");
    }
}
