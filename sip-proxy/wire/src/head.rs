//! A head that need not be right: what an answer to a refused message is made of, and what frames a stream.

use crate::name::Name;
use crate::read::MAX_LINES;
use crate::text::{cut, find_from, trim};

/// A message from its first byte on; all from its first empty line on is ignored.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a>(&'a [u8]);

impl<'a> Head<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn start_line(&self) -> &'a [u8] {
        trim(cut(self.0, b'\n').map_or(self.0, |(line, _)| line))
    }

    /// Name and trimmed value of each line that has a colon, folds included; no more of them than a message may have.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (Name, &'a [u8])> + use<'a> {
        let mut rest = cut(self.0, b'\n').map_or(&b""[..], |(_, rest)| rest);
        let lines = std::iter::from_fn(move || {
            if rest.is_empty() || rest.starts_with(b"\r\n") || rest.starts_with(b"\n") {
                return None;
            }
            let mut end = 0;
            loop {
                end = find_from(rest, end, b'\n').map_or(rest.len(), |feed| feed.saturating_add(1));
                if !matches!(rest.get(end), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (line, after) = rest.split_at_checked(end)?;
            rest = after;
            Some(line)
        });
        lines.take(MAX_LINES).filter_map(|line| {
            let (name, value) = cut(line, b':')?;
            Some((Name::of(trim(name)), trim(value)))
        })
    }
}
