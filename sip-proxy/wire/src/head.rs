//! A head that need not be right: what an answer to a refused message is made of, and what frames a stream.

use memchr::memchr;

use crate::name::Name;
use crate::read::MAX_LINES;
use crate::text::trim;

/// A message from its first byte on; all from its first empty line on is ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn start_line(&self) -> &'a [u8] {
        trim(&self.0[..memchr(b'\n', self.0).unwrap_or(self.0.len())])
    }

    /// Name and trimmed value of each line that has a colon, folds included; no more of them than a message may have.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Name, &'a [u8])> + use<'a> {
        let mut rest = memchr(b'\n', self.0).map_or(&b""[..], |end| &self.0[end + 1..]);
        let lines = std::iter::from_fn(move || {
            if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
                return None;
            }
            let mut end = 0;
            loop {
                end += memchr(b'\n', &rest[end..]).map_or(rest.len() - end, |feed| feed + 1);
                if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (line, after) = rest.split_at(end);
            rest = after;
            Some(line)
        });
        lines.take(MAX_LINES).filter_map(|line| {
            let colon = memchr(b':', line)?;
            Some((Name::of(trim(&line[..colon])), trim(&line[colon + 1..])))
        })
    }
}
