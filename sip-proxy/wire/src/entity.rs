//! A body as a tree of entities (RFC 2046, RFC 5621): what is in a multipart, in a multipart in it, and what each part
//! says of itself. The structure is read strictly, for the next reader must find no other one in it.

use std::ops::Range;

use memchr::memchr;

use crate::media_type::MediaType;
use crate::name::Name;
use crate::text::{is_token, trim};

/// Multiparts within multiparts.
const DEPTH: usize = 6;

/// Parts of all multiparts of a body together.
const PARTS: usize = 64;

/// A body, or a part of one.
#[derive(Debug, Clone)]
pub(crate) struct Entity {
    pub(crate) media_type: MediaType,
    /// Its header fields, of a part: name and value in the body; a message's stand in the message.
    pub(crate) fields: Vec<(Range<usize>, Range<usize>)>,
    /// Where its content is in the body.
    pub(crate) range: Range<usize>,
    pub(crate) content: Content,
    /// Content-Encoding or Content-Transfer-Encoding say that its octets are something else's.
    pub(crate) is_encoded: bool,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// No multipart.
    Octets,
    /// In order.
    Parts(Vec<Entity>),
}

/// It cannot be read in one way only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ambiguous;

/// Reads entities out of one body.
pub(crate) struct Reader<'a> {
    pub(crate) body: &'a [u8],
    left: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, left: PARTS }
    }

    /// The entity of this type that stands in `range`.
    pub(crate) fn entity(
        &mut self,
        media_type: MediaType,
        range: Range<usize>,
        depth: usize,
    ) -> Result<Entity, Ambiguous> {
        let content = if media_type.kind() == b"multipart" {
            let boundary = media_type.boundary().ok_or(Ambiguous)?;
            let default = if media_type.is("multipart/digest") { "message/rfc822" } else { "text/plain" };
            if depth >= DEPTH {
                return Err(Ambiguous);
            }
            let mut parts = Vec::new();
            for part in between(self.body, range.clone(), boundary) {
                self.left = self.left.checked_sub(1).ok_or(Ambiguous)?;
                parts.push(self.part(part, default, depth.saturating_add(1))?);
            }
            if parts.is_empty() {
                return Err(Ambiguous);
            }
            Content::Parts(parts)
        } else {
            Content::Octets
        };
        Ok(Entity { media_type, fields: Vec::new(), range, content, is_encoded: false })
    }

    fn part(
        &mut self,
        range: Range<usize>,
        default: &'static str,
        depth: usize,
    ) -> Result<Entity, Ambiguous> {
        let (fields, content) = self.head(range)?;
        let mut media_type = None;
        let mut is_encoded = false;
        for (name, value) in &fields {
            let text = self.body.get(name.clone()).unwrap_or_default();
            let value = self.body.get(value.clone()).unwrap_or_default();
            if Name::of(text) == Name::ContentType {
                let read = MediaType::parse(value).ok_or(Ambiguous)?;
                if media_type.replace(read).is_some() {
                    return Err(Ambiguous);
                }
            }
            is_encoded |= is_encoding(text, value);
        }
        let media_type = media_type.unwrap_or_else(|| MediaType::of(default));
        let mut entity = self.entity(media_type, content, depth)?;
        entity.fields = fields;
        entity.is_encoded = is_encoded;
        Ok(entity)
    }

    /// The fields of a part's head, and what follows its empty line.
    #[expect(clippy::type_complexity, reason = "read once, where it is taken apart")]
    fn head(
        &self,
        range: Range<usize>,
    ) -> Result<(Vec<(Range<usize>, Range<usize>)>, Range<usize>), Ambiguous> {
        let mut fields: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (line, next) = line_at(self.body, at, range.end);
            let text = self.body.get(line.clone()).unwrap_or_default();
            if text.is_empty() {
                return Ok((fields, next..range.end));
            }
            if fields.len() >= PARTS || text.iter().any(|byte| *byte != b'\t' && byte.is_ascii_control()) {
                return Err(Ambiguous);
            }
            if text.first().is_some_and(|byte| matches!(byte, b' ' | b'\t')) {
                fields.last_mut().ok_or(Ambiguous)?.1.end = line.end;
            } else {
                let colon = memchr(b':', text).ok_or(Ambiguous)?;
                let name = trim(text.get(..colon).unwrap_or_default());
                if !is_token(name) || text.first() != name.first() {
                    return Err(Ambiguous);
                }
                let name = line.start..line.start.saturating_add(name.len());
                fields.push((name, line.start.saturating_add(colon).saturating_add(1)..line.end));
            }
            at = next;
        }
        Ok((fields, range.end..range.end))
    }
}

/// Whether a header field says that the octets are not those that they stand for.
pub(crate) fn is_encoding(name: &[u8], value: &[u8]) -> bool {
    let is_plain = |known: &[&[u8]]| {
        value
            .split(|byte| *byte == b',')
            .map(trim)
            .all(|word| word.is_empty() || known.iter().any(|plain| word.eq_ignore_ascii_case(plain)))
    };
    if Name::of(name) == Name::ContentEncoding {
        return !is_plain(&[b"identity"]);
    }
    name.eq_ignore_ascii_case(b"Content-Transfer-Encoding") && !is_plain(&[b"7bit", b"8bit", b"binary"])
}

/// The line at `at`, without its end, and where the next one starts.
fn line_at(body: &[u8], at: usize, end: usize) -> (Range<usize>, usize) {
    let rest = body.get(at..end).unwrap_or_default();
    match memchr(b'\n', rest) {
        Some(feed) => {
            let has_return = rest.get(..feed).is_some_and(|line| line.ends_with(b"\r"));
            let stop = at.saturating_add(feed);
            (at..stop.saturating_sub(usize::from(has_return)), stop.saturating_add(1))
        }
        None => (at..end, end),
    }
}

/// What stands between the delimiter lines (RFC 2046 §5.1.1), whose line ends belong to them; lines may end in LF alone.
/// What is before the first and behind the last of them is nobody's. A line that only begins like one is content.
fn between(body: &[u8], range: Range<usize>, boundary: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut open: Option<usize> = None;
    let mut at = range.start;
    let mut end_before = range.start;
    while at < range.end && found.len() <= PARTS {
        let (line, next) = line_at(body, at, range.end);
        let text = body.get(line.clone()).unwrap_or_default();
        let after = text.strip_prefix(b"--").and_then(|text| text.strip_prefix(boundary));
        let kind = after.and_then(|after| match after.strip_prefix(b"--") {
            Some(padding) if trim(padding).is_empty() => Some(true),
            _ if trim(after).is_empty() => Some(false),
            _ => None,
        });
        if let Some(is_last) = kind {
            if let Some(start) = open.take() {
                found.push(start..end_before.max(start));
            }
            if is_last {
                return found;
            }
            open = Some(next);
        }
        end_before = line.end;
        at = next;
    }
    // The last delimiter is missing: the body's end stands for it.
    if let Some(start) = open {
        found.push(start..range.end);
    }
    found
}
