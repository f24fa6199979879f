//! What is in a message's body that could hold a session description, and how the body is written for another side.
//!
//! The rule: exactly one description is found, and it is replaced. Whatever else is a description, or might be one and
//! cannot be looked into, makes the whole body a [`BodyFault`]: it is refused with a status, never passed. What a
//! multipart becomes is written anew, so that the next reader finds the same parts in it as this one.

use std::ops::Range;

use bytes::Bytes;

use crate::entity::{Content, Entity, Reader, is_encoding};
use crate::media_type::MediaType;
use crate::message::Message;
use crate::method::Method;
use crate::name::Name;
use crate::text::trim;

/// Why a body is not passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyFault {
    /// Content-Type, boundary or the head of a part can be read in more than one way, or in none.
    #[error("a body whose parts cannot be told apart")]
    Malformed,
    /// Content-Encoding or Content-Transfer-Encoding other than none.
    #[error("an encoded body")]
    Encoded,
    /// Nobody but its reader can look into it.
    #[error("an encrypted body")]
    Encrypted,
    /// A description where none belongs, a second one, or what may hold one.
    #[error("a body that may hold a session description which nobody relays")]
    Describes,
    /// It names its own side where nothing can be written instead.
    #[error("a body that names its own side")]
    Names,
}

impl BodyFault {
    /// The status of the answer to a request with such a body (RFC 3261 §21.4.1, §21.4.13, §21.4.27).
    pub fn status(self) -> u16 {
        match self {
            BodyFault::Malformed => 400,
            BodyFault::Encoded | BodyFault::Describes | BodyFault::Names => 415,
            BodyFault::Encrypted => 493,
        }
    }
}

/// A message's body, read.
#[derive(Debug)]
pub struct Body<'a> {
    message: &'a Message,
    entity: Option<Entity>,
    /// All of them say the same (RFC 2046 §5.1.4), the last one best.
    descriptions: Vec<Range<usize>>,
}

impl<'a> Body<'a> {
    /// Reads it.
    pub fn of(message: &'a Message) -> Result<Self, BodyFault> {
        let body = message.body();
        let mut found = Self { message, entity: None, descriptions: Vec::new() };
        if body.is_empty() {
            return Ok(found);
        }
        if message.lines().any(|line| is_encoding(line.text, line.value)) {
            return Err(BodyFault::Encoded);
        }
        if message.count(Name::ContentType) > 1 {
            return Err(BodyFault::Malformed);
        }
        let media_type = match message.value(Name::ContentType) {
            Some(value) => MediaType::parse(value).ok_or(BodyFault::Malformed)?,
            None if describes(body) => return Err(BodyFault::Malformed),
            None => MediaType::of("application/octet-stream"),
        };
        let entity =
            Reader::new(body).entity(media_type, 0..body.len(), 0).map_err(|_| BodyFault::Malformed)?;
        let method = match message.method() {
            Some(method) => Some(method),
            None => message.cseq().ok().map(|cseq| cseq.method),
        };
        let method = method.unwrap_or(Method::INVITE);
        // RFC 8840 §10: the media plane decides what of it passes.
        let is_trickle =
            method == Method::INFO && entity.media_type.is(FRAGMENT) && message.method().is_some();
        let descriptions =
            if is_trickle { Vec::new() } else { Judge { body, method }.descriptions_of(&entity)? };
        // What reads past boundaries finds none in several parts together either.
        let is_whole = is_trickle || matches!(entity.content, Content::Octets);
        if !is_whole && describes(&without(body, &descriptions)) {
            return Err(BodyFault::Describes);
        }
        // RFC 6337 §2.2: nobody describes a session in other requests.
        let may_describe = [Method::INVITE, Method::UPDATE, Method::PRACK, Method::ACK].contains(&method);
        if !descriptions.is_empty() && !may_describe && message.method().is_some() {
            return Err(BodyFault::Describes);
        }
        found.entity = Some(entity);
        found.descriptions = descriptions;
        Ok(found)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.entity.is_none()
    }

    /// Where the session description stands in the body.
    pub fn description(&self) -> Option<Range<usize>> {
        self.descriptions.last().cloned().filter(|range| !range.is_empty())
    }

    /// Content-Type and octets for another side, `None` if nothing is left. Each description becomes `description`, or
    /// is left out without one; all other text is what `translate` makes of it.
    pub fn write(
        &self,
        description: Option<&Bytes>,
        translate: &dyn Fn(&[u8]) -> Vec<u8>,
    ) -> Result<Option<(Vec<u8>, Bytes)>, BodyFault> {
        let writer = Writer { body: self, description, translate };
        let written = match &self.entity {
            Some(entity) => {
                let kind = self.message.value(Name::ContentType).unwrap_or(b"application/octet-stream");
                writer.entity(entity, kind)?
            }
            None => None,
        };
        let Some(description) = description.filter(|_| self.descriptions.is_empty()) else {
            return Ok(written);
        };
        // The description is ours to add.
        let Some((kind, octets)) = written else {
            return Ok(Some((SDP.into(), description.clone())));
        };
        let boundary = [b"description-", octets.len().to_string().as_bytes()].concat();
        let mut out = Vec::with_capacity(octets.len().saturating_add(description.len()).saturating_add(256));
        for (kind, octets) in [(SDP.as_bytes(), description), (&*kind, &octets)] {
            out.extend_from_slice(&[b"--", &*boundary, b"\r\nContent-Type: "].concat());
            out.extend(kind.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
            out.extend_from_slice(b"\r\n\r\n");
            out.extend_from_slice(octets);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(&[b"--", &*boundary, b"--\r\n"].concat());
        Ok(Some(([b"multipart/mixed;boundary=", &*boundary].concat(), out.into())))
    }
}

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Finds descriptions, and what may be one.
struct Judge<'a> {
    body: &'a [u8],
    method: Method<'a>,
}

impl Judge<'_> {
    /// Those of an entity, all of which say the same; a second one that says another thing is a fault.
    fn descriptions_of(&self, entity: &Entity) -> Result<Vec<Range<usize>>, BodyFault> {
        let kind = &entity.media_type;
        let is_picture = [b"image".as_slice(), b"audio", b"video"].contains(&kind.kind());
        if entity.is_encoded && !is_picture {
            return Err(BodyFault::Encoded);
        }
        let parts = match &entity.content {
            Content::Octets => return self.leaf(entity, entity.range.clone()),
            Content::Parts(parts) => parts,
        };
        if kind.is("multipart/encrypted") {
            return Err(BodyFault::Encrypted);
        }
        let mut found = Vec::new();
        for part in parts {
            let more = self.descriptions_of(part)?;
            if !found.is_empty() && !more.is_empty() && !kind.is("multipart/alternative") {
                return Err(BodyFault::Describes);
            }
            found.extend(more);
        }
        // What is signed cannot be replaced.
        if kind.is("multipart/signed") && !found.is_empty() {
            return Err(BodyFault::Describes);
        }
        Ok(found)
    }

    fn leaf(&self, entity: &Entity, range: Range<usize>) -> Result<Vec<Range<usize>>, BodyFault> {
        let kind = &entity.media_type;
        let octets = self.body.get(range.clone()).unwrap_or_default();
        if kind.is(SDP) {
            return Ok(vec![range]);
        }
        let is_text = self.method == Method::MESSAGE && kind.is("text/plain");
        if memchr::memmem::find(kind.subtype(), b"sdp").is_some() || (describes(octets) && !is_text) {
            return Err(BodyFault::Describes);
        }
        match kind.subtype() {
            b"pkcs7-mime" | b"x-pkcs7-mime" | b"cms" | b"pgp-encrypted" | b"jose" => {
                let is_signed = kind.parameter(b"smime-type").is_some_and(|kind| {
                    kind.eq_ignore_ascii_case(b"signed-data") || kind.eq_ignore_ascii_case(b"certs-only")
                });
                return Err(if is_signed { BodyFault::Describes } else { BodyFault::Encrypted });
            }
            _ => {}
        }
        if kind.kind() == b"message" && !kind.subtype().ends_with(b"+xml") {
            self.message(kind, octets)?;
        }
        Ok(Vec::new())
    }

    /// A message within the message: what has no body of its own may pass, and what has one that is plain (RFC 3862).
    fn message(&self, kind: &MediaType, octets: &[u8]) -> Result<(), BodyFault> {
        let (_, rest) = at_empty_line(octets);
        match kind.subtype() {
            // RFC 3420: a start line and headers.
            b"sipfrag" if trim(rest).is_empty() => Ok(()),
            b"cpim" => {
                let (head, _) = at_empty_line(rest);
                let mut lines = head.split(|byte| *byte == b'\n');
                let is_plain = lines.all(|line| {
                    let mut halves = line.splitn(2, |byte| *byte == b':');
                    let name = trim(halves.next().unwrap_or_default());
                    let value = halves.next().unwrap_or_default();
                    let kind = (Name::of(name) == Name::ContentType).then(|| MediaType::parse(value));
                    let is_simple = kind.is_none_or(|kind| {
                        kind.is_some_and(|kind| kind.kind() == b"text" || kind.subtype().ends_with(b"+xml"))
                    });
                    is_simple && !is_encoding(name, value)
                });
                if is_plain { Ok(()) } else { Err(BodyFault::Describes) }
            }
            _ => Err(BodyFault::Describes),
        }
    }
}

/// What is before the first empty line, and what is behind it.
fn at_empty_line(octets: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0usize;
    for line in octets.split_inclusive(|byte| *byte == b'\n') {
        let next = at.saturating_add(line.len());
        if matches!(line, b"\r\n" | b"\n") {
            return (octets.get(..at).unwrap_or_default(), octets.get(next..).unwrap_or_default());
        }
        at = next;
    }
    (octets, b"")
}

/// The octets beside these ranges, which follow one another.
fn without(body: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(body.len());
    let mut at = 0;
    for range in ranges {
        rest.extend_from_slice(body.get(at..range.start).unwrap_or_default());
        at = range.end;
    }
    rest.extend_from_slice(body.get(at..).unwrap_or_default());
    rest
}

/// Whether octets of another type hold what a reader that sniffs would take for a session description (RFC 8866 §5): a
/// line `v=0`, and behind it one that tells of media or where it goes. However lines end, and whatever is before them.
pub fn describes(octets: &[u8]) -> bool {
    let mut has_version = false;
    for line in octets.split(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        let line = line.trim_ascii_start();
        let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        match line.split_at_checked(2) {
            Some((b"v=", version)) if version.trim_ascii() == b"0" => has_version = true,
            Some((b"m=" | b"c=", _)) if has_version => return true,
            _ => {}
        }
    }
    false
}

/// Writes a body for another side.
struct Writer<'a> {
    body: &'a Body<'a>,
    description: Option<&'a Bytes>,
    translate: &'a dyn Fn(&[u8]) -> Vec<u8>,
}

impl Writer<'_> {
    fn text(&self, range: &Range<usize>) -> &[u8] {
        self.body.message.body().get(range.clone()).unwrap_or_default()
    }

    fn octets(&self, entity: &Entity) -> Bytes {
        self.body.message.body_bytes().slice(entity.range.clone())
    }

    /// An entity's Content-Type, which is written as `kind`, and its octets.
    fn entity(&self, entity: &Entity, kind: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, BodyFault> {
        match &entity.content {
            Content::Octets if self.body.descriptions.contains(&entity.range) => {
                Ok(self.description.map(|description| (SDP.into(), description.clone())))
            }
            Content::Octets => {
                let kind = (self.translate)(kind);
                let octets = self.text(&entity.range);
                let translated = (self.translate)(octets);
                if translated == octets {
                    return Ok(Some((kind, self.octets(entity))));
                }
                // In binary data, and in what is encoded, the lengths of things are written, too.
                if entity.is_encoded || is_binary(octets) {
                    return Err(BodyFault::Names);
                }
                Ok(Some((kind, translated.into())))
            }
            Content::Parts(parts) => self.multipart(entity, parts, kind),
        }
    }

    fn multipart(
        &self,
        entity: &Entity,
        parts: &[Entity],
        kind: &[u8],
    ) -> Result<Option<(Vec<u8>, Bytes)>, BodyFault> {
        // A signature is over the octets, line ends and all: it passes as it is, or not at all.
        if entity.media_type.is("multipart/signed") {
            let is_plain = (self.translate)(kind) == kind
                && self.is_untouched(entity)
                && !describes(self.text(&entity.range));
            return if is_plain {
                Ok(Some((kind.to_vec(), self.octets(entity))))
            } else {
                Err(BodyFault::Names)
            };
        }
        let boundary = entity.media_type.boundary().ok_or(BodyFault::Malformed)?;
        let translated = (self.translate)(boundary);
        let kind = if translated == boundary && (self.translate)(kind) == kind {
            kind.to_vec()
        } else {
            let kind = (self.translate)(&entity.media_type.with_boundary(&translated));
            // What is written between the parts is what it must say.
            let read = MediaType::parse(&kind);
            if read.as_ref().and_then(MediaType::boundary) != Some(&*translated) {
                return Err(BodyFault::Names);
            }
            kind
        };
        let mut out = Vec::with_capacity(self.body.message.body().len());
        let mut written = 0usize;
        for part in parts {
            let own = part.fields.iter().find(|field| Name::of(self.text(&field.0)) == Name::ContentType);
            let own = own.map(|field| trim(self.text(&field.1)));
            let Some((kind, octets)) = self.entity(part, own.unwrap_or_default())? else { continue };
            out.extend_from_slice(&[b"--", &translated[..], b"\r\n"].concat());
            for (name, value) in &part.fields {
                let (name, value) = (self.text(name), trim(self.text(value)));
                let value = match Name::of(name) {
                    Name::ContentType => kind.clone(),
                    // It is the message's, and counted there.
                    Name::ContentLength => continue,
                    _ => (self.translate)(value),
                };
                let name =
                    if Name::of(name) == Name::ContentType { b"Content-Type".as_slice() } else { name };
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend(value.iter().map(|byte| if byte.is_ascii_control() { b' ' } else { *byte }));
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&octets);
            out.extend_from_slice(b"\r\n");
            written = written.saturating_add(1);
        }
        if written == 0 {
            return Ok(None);
        }
        out.extend_from_slice(&[b"--", &translated[..], b"--\r\n"].concat());
        Ok(Some((kind, out.into())))
    }

    fn is_untouched(&self, entity: &Entity) -> bool {
        let text = self.text(&entity.range);
        (self.translate)(text) == text
    }
}

/// Whether it is no text: some octet is a control other than those that text is laid out with.
fn is_binary(octets: &[u8]) -> bool {
    octets.iter().any(|byte| byte.is_ascii_control() && !matches!(byte, b'\t' | b'\r' | b'\n' | 0x0c | 0x1b))
}
