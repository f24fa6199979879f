//! A description as everybody reads it: what is only ugly is put right before anything looks at it, and what readers could take for
//! a line of its own is one for us too. So nobody behind us sees a line that we have not judged, and what goes out is clean.

use bytes::{BufMut, Bytes, BytesMut};

use super::Fault;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The text with lines that end in CRLF, without blank lines, without blanks at the end of lines or at the begin of values, its
/// types in lower case. A line that begins with a blank goes: RFC 8866 knows no folding, and who folds would append it to
/// another one. What has no type is a fault. Text that is clean already stays where it is.
pub fn clean(bytes: Bytes) -> Result<Bytes, Fault> {
    if is_clean(&bytes) {
        return Ok(bytes);
    }
    let mut rest = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let mut out = BytesMut::with_capacity(rest.len().saturating_add(64));
    while !rest.is_empty() {
        let (line, after) = first_line(rest);
        rest = after;
        match line {
            [] | [b' ' | b'\t', ..] => {}
            [kind, b'=', value @ ..] if kind.is_ascii_alphabetic() => {
                let kind = kind.to_ascii_lowercase();
                out.put_slice(&[kind, b'=']);
                out.put_slice(tidy(kind, value));
                out.put_slice(b"\r\n");
            }
            _ => return Err(Fault::Malformed),
        }
    }
    Ok(out.freeze())
}

fn is_clean(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while !rest.is_empty() {
        let (line, after) = first_line(rest);
        let is_ended = rest.get(line.len()..).is_some_and(|end| end.starts_with(b"\r\n"));
        let [kind, b'=', value @ ..] = line else { return false };
        if !is_ended || !kind.is_ascii_lowercase() || tidy(*kind, value).len() != value.len() {
            return false;
        }
        rest = after;
    }
    true
}

/// A value without blanks around it; a name may be one blank, and a name or title begin with one (RFC 8866 §5.3).
fn tidy(kind: u8, value: &[u8]) -> &[u8] {
    match value.trim_ascii() {
        b"" if kind == b's' => value,
        _ if matches!(kind, b's' | b'i') => value.trim_ascii_end(),
        trimmed => trimmed,
    }
}

/// What stands before the first end of a line, and what after it. Ends are CRLF, CR, LF, and what other readers split at: NUL, vertical
/// tab, form feed, the separators of ASCII and of Unicode.
fn first_line(text: &[u8]) -> (&[u8], &[u8]) {
    for (at, byte) in text.iter().enumerate() {
        if *byte >= 0x20 && *byte < 0x80 {
            continue;
        }
        let (line, end) = text.split_at_checked(at).unwrap_or((text, b""));
        let length = match end {
            [b'\r', b'\n', ..] | [0xc2, 0x85, ..] => 2,
            [b'\r' | b'\n' | 0 | 0x0b | 0x0c | 0x1c..=0x1e, ..] => 1,
            [0xe2, 0x80, 0xa8 | 0xa9, ..] => 3,
            _ => continue,
        };
        return (line, end.get(length..).unwrap_or_default());
    }
    (text, b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_only_ugly_is_put_right() {
        let cleaned = |text: &'static str| {
            clean(Bytes::from_static(text.as_bytes())).map(|text| String::from_utf8(text.to_vec()).unwrap())
        };
        for (ugly, expected) in [
            ("v=0 \r\nt=0 0\t\r\n", "v=0\r\nt=0 0\r\n"),
            ("\u{feff}v=0\n\n\na= sendonly", "v=0\r\na=sendonly\r\n"),
            ("V=0\r\n folded\r\nA=x\r\n", "v=0\r\na=x\r\n"),
            ("v=0\r\ns= \r\n", "v=0\r\ns= \r\n"),
        ] {
            assert_eq!(cleaned(ugly).as_deref(), Ok(expected), "{ugly:?}");
        }
        for broken in ["v=0\r\n=\r\n", "v=0\r\nhello\r\n", "v =0\r\n", "v=0\r\na=x\x00y\r\n"] {
            assert_eq!(cleaned(broken), Err(Fault::Malformed), "{broken:?}");
        }
    }

    #[test]
    fn nothing_that_another_reader_takes_for_a_line_hides_in_one() {
        for end in [
            "\r", "\n", "\0", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u{85}", "\u{2028}", "\u{2029}",
            "\n\r", "\r\r\n",
        ] {
            let text = format!("v=0\r\na=note:x{end}c=IN IP4 192.0.2.66\r\n");
            let clean = clean(text.into()).unwrap();
            assert_eq!(clean, b"v=0\r\na=note:x\r\nc=IN IP4 192.0.2.66\r\n".as_slice(), "{end:?}");
        }
    }

    #[test]
    fn clean_text_is_not_copied() {
        let text = Bytes::from_static("v=0\r\ns=Caf\u{e9}\r\na=x:\u{20ac}\r\n".as_bytes());
        assert_eq!(clean(text.clone()).unwrap().as_ptr(), text.as_ptr());
    }
}
