//! What names one side, written as the other side may see it.
//!
//! The rule: an address, Call-ID or tag of one side that stands in a header or body of a message never reaches the other
//! side, and is never hidden by dropping what it stands in. It is rewritten: addresses and hosts to the one that the
//! other side knows us by, ids of a dialog to those of the dialog on its own leg. The same text becomes the same text
//! wherever it stands, so that what names each other (`Geolocation: <cid:...>` and a part's Content-ID) still does.

use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use memchr::{memchr, memmem};
use serde::{Deserialize, Serialize};
use sip_wire::Message;

use crate::config::Realm;
use crate::core::Core;
use crate::dialog::dialog_key;

/// Contacts of one message that are kept as secrets: of a redirection with hundreds of them the first will do, for each
/// is searched for in all that follows.
const CONTACTS: usize = 8;

/// Shorter texts would be found by chance.
const LEAST: usize = 6;

/// Texts of one side that the other must never see. Cheap to clone.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Secrets(Arc<Known>);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Known {
    /// Call-IDs and tags.
    #[serde(with = "crate::octets::list")]
    ids: Vec<Box<[u8]>>,
    /// Host names, in lower case.
    #[serde(with = "crate::octets::list")]
    hosts: Vec<Box<[u8]>>,
    addresses: Vec<IpAddr>,
}

impl Secrets {
    /// Adds a Call-ID or tag.
    pub(crate) fn add(&mut self, id: &[u8]) {
        if id.len() >= LEAST && !self.0.ids.iter().any(|known| **known == *id) {
            Arc::make_mut(&mut self.0).ids.push(id.into());
        }
    }

    /// Adds an address.
    pub(crate) fn add_address(&mut self, address: IpAddr) {
        let address = address.to_canonical();
        if !self.0.addresses.contains(&address) {
            Arc::make_mut(&mut self.0).addresses.push(address);
        }
    }

    /// Adds what a message of that side shows of it.
    pub(crate) fn add_message(&mut self, message: &Message, source: SocketAddr) {
        self.add_address(source.ip());
        self.add(message.call_id().unwrap_or_default());
        for address in [message.from(), message.to()].into_iter().flatten() {
            self.add(address.tag().unwrap_or_default());
        }
        for contact in message.contacts().flatten().take(CONTACTS) {
            contact.uri.host().address().into_iter().for_each(|address| self.add_address(address));
        }
        if let Ok(via) = message.via() {
            match via.host.address() {
                Some(address) => self.add_address(address),
                None => self.add_host(via.host.as_bytes()),
            }
        }
    }

    fn add_host(&mut self, host: &[u8]) {
        let host = host.to_ascii_lowercase();
        if host.len() >= LEAST && !self.0.hosts.iter().any(|known| **known == *host) {
            Arc::make_mut(&mut self.0).hosts.push(host.into());
        }
    }
}

/// How one side's texts are written for the other.
#[derive(Debug)]
pub(crate) struct Translation<'a> {
    pub(crate) from: &'a Realm,
    pub(crate) to: &'a Realm,
    /// The user that the message's author has proven to be, where that is known: `user@domain`.
    pub(crate) author: Option<Arc<str>>,
    secrets: Secrets,
    /// Addresses of ours on that side, which the other has no use for.
    own: Vec<IpAddr>,
    /// What stands for any host of that side.
    pub(crate) host: String,
    /// Ids of that side, and what the other calls the same.
    ids: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<'a> Translation<'a> {
    /// `own` is where we are reached on the side that it is translated from, `host` what the other side knows us by.
    pub(crate) fn new(
        (from, to): (&'a Realm, &'a Realm),
        secrets: Secrets,
        own: Option<IpAddr>,
        host: String,
    ) -> Self {
        let literal = |domain: &str| domain.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        let hidden = from.domains.iter().filter(|domain| !to.domains.contains(domain));
        let own = hidden.filter_map(|domain| literal(domain)).chain(own).collect();
        Self { from, to, author: None, secrets, own, host, ids: Vec::new() }
    }

    /// An id of that side, and what the other calls the same.
    pub(crate) fn add_id(&mut self, theirs: &[u8], shown: &[u8]) {
        if theirs.len() >= LEAST && !shown.is_empty() && !self.ids.iter().any(|known| known.0 == theirs) {
            self.ids.push((theirs.to_vec(), shown.to_vec()));
        }
    }

    /// A text, in which what names its side alone is replaced.
    pub(crate) fn apply<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        replaced(text, self.marks(text))
    }

    /// Markup, or a header value made of addresses: also the host of every URI that is a literal address is one of its
    /// side's own.
    pub(crate) fn apply_markup<'t>(&self, text: &'t [u8]) -> Cow<'t, [u8]> {
        let mut marks = self.marks(text);
        for (range, _) in literals(text) {
            if is_host_of_uri(text, range.start) {
                marks.push((self.with_port(text, range), self.host.as_bytes().to_vec()));
            }
        }
        replaced(text, marks)
    }

    /// The dialogs that an event's text (RFC 4235 §4.1) or an Event header names, as the other side knows them; one that
    /// is none of ours gets other names, always the same ones.
    pub(crate) fn add_dialogs(&mut self, text: &[u8], core: &Core) {
        for element in elements(text, b"dialog") {
            let attribute = |name: &[u8]| attribute(text, element.clone(), name);
            let found = [b"call-id".as_slice(), b"local-tag", b"remote-tag"].map(attribute);
            let value = |place: &Option<Range<usize>>| {
                place.clone().and_then(|range| text.get(range)).unwrap_or_default()
            };
            let [call_id, local, remote] = &found;
            let known = known_dialog(core, value(call_id), value(local), value(remote));
            for (place, shown) in found.iter().zip(known.into_iter().flatten()) {
                // With what is before it, so that a short tag is found nowhere else.
                let Some(range) = place.clone().filter(|range| !range.is_empty()) else { continue };
                let start = element_start_of(text, &range);
                let before = text.get(start..range.start).unwrap_or_default();
                let whole = text.get(start..range.end).unwrap_or_default();
                self.ids.push((whole.to_vec(), [before, &*shown].concat()));
            }
        }
    }

    fn marks(&self, text: &[u8]) -> Vec<(Range<usize>, Vec<u8>)> {
        let mut marks = Vec::new();
        let known = |id: &[u8]| self.ids.iter().any(|known| known.0 == id);
        let rest = self.secrets.0.ids.iter().filter(|id| !known(id)).map(|id| (&**id, pseudonym(id)));
        let ids = self.ids.iter().map(|(id, shown)| (&**id, shown.clone())).chain(rest);
        for (id, shown) in ids {
            for at in memmem::find_iter(text, id) {
                marks.push((at..at.saturating_add(id.len()), shown.clone()));
            }
        }
        if !self.secrets.0.hosts.is_empty() {
            let lower = text.to_ascii_lowercase();
            for name in self.secrets.0.hosts.iter().filter(|name| ***name != *self.host.as_bytes()) {
                for at in memmem::find_iter(&lower, &**name) {
                    let range = at..at.saturating_add(name.len());
                    if is_whole(text, &range) {
                        marks.push((self.with_port(text, range), self.host.as_bytes().to_vec()));
                    }
                }
            }
        }
        for (range, address) in literals(text) {
            if self.secrets.0.addresses.contains(&address) || self.own.contains(&address) {
                marks.push((self.with_port(text, range), self.host.as_bytes().to_vec()));
            }
        }
        marks
    }

    /// With the port behind it and the brackets round it.
    fn with_port(&self, text: &[u8], mut range: Range<usize>) -> Range<usize> {
        let before = range.start.checked_sub(1);
        if before.and_then(|at| text.get(at)) == Some(&b'[') && text.get(range.end) == Some(&b']') {
            range = before.unwrap_or_default()..range.end.saturating_add(1);
        }
        let rest = text.get(range.end..).unwrap_or_default();
        let digits = rest.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        if rest.first() == Some(&b':') && (1..=5).contains(&digits) {
            range.end = range.end.saturating_add(1).saturating_add(digits);
        }
        range
    }
}

/// What an id that the other side has none for is called there.
fn pseudonym(id: &[u8]) -> Vec<u8> {
    let seeds = (0x6964_7320_6f66_206f, 0x6e65_2073_6964_6520, 0x6172_6520_6e6f_6e65, 0x206f_6620_7468_6520);
    let mut hasher = ahash::RandomState::with_seeds(seeds.0, seeds.1, seeds.2, seeds.3).build_hasher();
    hasher.write(id);
    format!("x{:016x}", hasher.finish()).into_bytes()
}

/// Call-ID and tags of a dialog that one end names by its own (`local`) and its peer's (`remote`), as the far end of the
/// call knows it; pseudonyms if it is no dialog of ours.
fn known_dialog(core: &Core, call_id: &[u8], local: &[u8], remote: &[u8]) -> Option<[Vec<u8>; 3]> {
    if call_id.is_empty() {
        return None;
    }
    if let Some(peer) = core.dialogs.peer(&dialog_key(call_id, remote, local))
        && let Some((call_id, to_tag, from_tag)) = crate::replaces::read_replaces(&peer.replaces)
    {
        return Some([call_id.to_vec(), from_tag.to_vec(), to_tag.to_vec()]);
    }
    Some([pseudonym(call_id), pseudonym(local), pseudonym(remote)])
}

/// An Event value (RFC 4235 §4.1.1) whose dialog is named as the other side knows it.
pub(crate) fn event_for(value: &[u8], core: &Core) -> Option<Vec<u8>> {
    let call_id = sip_wire::parameter(value, b"call-id")?;
    let to_tag = sip_wire::parameter(value, b"to-tag").unwrap_or_default();
    let from_tag = sip_wire::parameter(value, b"from-tag").unwrap_or_default();
    let plain = sip_wire::unquote(call_id);
    let of = |own: &[u8], other: &[u8]| {
        let peer = core.dialogs.peer(&dialog_key(&plain, other, own))?;
        let (call_id, to_tag, from_tag) = crate::replaces::read_replaces(&peer.replaces)?;
        Some((call_id.to_vec(), from_tag.to_vec(), to_tag.to_vec()))
    };
    let (shown, own, other) = of(from_tag, to_tag).or_else(|| {
        let (shown, own, other) = of(to_tag, from_tag)?;
        Some((shown, other, own))
    })?;
    let mut marks = Vec::new();
    // What may stand outside quotes is a token; a Call-ID has an `@` more often than not.
    let quoted =
        |text: Vec<u8>| if call_id.starts_with(b"\"") { [b"\"", &*text, b"\""].concat() } else { text };
    for (place, text) in [(call_id, quoted(shown)), (to_tag, other), (from_tag, own)] {
        let start = (place.as_ptr() as usize).checked_sub(value.as_ptr() as usize)?;
        if !place.is_empty() {
            marks.push((start..start.saturating_add(place.len()), text));
        }
    }
    Some(replaced(value, marks).into_owned())
}

/// A text with other texts in some places; of two that overlap the earlier counts, of two at one place the longer.
fn replaced(text: &[u8], mut marks: Vec<(Range<usize>, Vec<u8>)>) -> Cow<'_, [u8]> {
    if marks.is_empty() {
        return Cow::Borrowed(text);
    }
    marks.sort_by_key(|(range, _)| (range.start, usize::MAX.saturating_sub(range.end)));
    let mut out = Vec::with_capacity(text.len().saturating_add(64));
    let mut copied = 0usize;
    for (range, shown) in marks {
        if range.start < copied {
            continue;
        }
        out.extend_from_slice(text.get(copied..range.start).unwrap_or_default());
        out.extend_from_slice(&shown);
        copied = range.end;
    }
    out.extend_from_slice(text.get(copied..).unwrap_or_default());
    if out == text { Cow::Borrowed(text) } else { Cow::Owned(out) }
}

/// The literal addresses in a text, however they are written.
fn literals(text: &[u8]) -> Vec<(Range<usize>, IpAddr)> {
    let mut found = Vec::new();
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':');
    let mut at = 0usize;
    while let Some(start) = text.get(at..).and_then(|rest| rest.iter().position(|byte| is_part(*byte))) {
        let start = at.saturating_add(start);
        let length = text
            .get(start..)
            .map_or(0, |rest| rest.iter().position(|byte| !is_part(*byte)).unwrap_or(rest.len()));
        let end = start.saturating_add(length);
        at = end.max(start.saturating_add(1));
        let run = text.get(start..end).unwrap_or_default();
        let is_six = run.iter().filter(|byte| **byte == b':').count() >= 2;
        if is_six && let Some((range, address)) = literal_in(text, start..end, |_| true) {
            found.push((range, address));
            continue;
        }
        // Of version 4: digits and dots, with whatever else before and behind.
        let mut from = start;
        while from < end {
            let is_four = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            let rest = text.get(from..end).unwrap_or_default();
            let Some(skip) = rest.iter().position(|byte| byte.is_ascii_digit()) else { break };
            let first = from.saturating_add(skip);
            let length = text
                .get(first..end)
                .map_or(0, |rest| rest.iter().position(|byte| !is_four(*byte)).unwrap_or(rest.len()));
            let last = first.saturating_add(length);
            if let Some(literal) = literal_in(text, first..last, is_four) {
                found.push(literal);
            }
            from = last.max(first.saturating_add(1));
        }
    }
    found
}

/// The address that a run of its characters is, but for dots and colons that end a sentence.
fn literal_in(
    text: &[u8],
    range: Range<usize>,
    belongs: impl Fn(u8) -> bool,
) -> Option<(Range<usize>, IpAddr)> {
    let mut run = text.get(range.clone())?;
    if run.len() < 3 || run.len() > 400 || !run.iter().all(|byte| belongs(*byte)) {
        return None;
    }
    while let Some(rest) = run.strip_suffix(b".") {
        run = rest;
    }
    let parse = |run: &[u8]| std::str::from_utf8(run).ok()?.parse::<IpAddr>().ok();
    let (length, address) = match parse(run) {
        Some(address) => (run.len(), address),
        None => {
            let run = run.strip_suffix(b":")?;
            (run.len(), parse(run)?)
        }
    };
    Some((range.start..range.start.saturating_add(length), address.to_canonical()))
}

/// Whether what starts at `at` is the host of a URI.
fn is_host_of_uri(text: &[u8], at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let before = before.strip_suffix(b"[").unwrap_or(before);
    let lower = before.get(before.len().saturating_sub(5)..).unwrap_or_default().to_ascii_lowercase();
    lower.ends_with(b"@") || lower.ends_with(b"%40") || lower.ends_with(b"sip:") || lower.ends_with(b"sips:")
}

/// Whether a name is not just a part of a longer one.
fn is_whole(text: &[u8], range: &Range<usize>) -> bool {
    let is_part = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
    let before = range.start.checked_sub(1).and_then(|at| text.get(at));
    !is_part(before) && !is_part(text.get(range.end))
}

/// The start tags of the elements of a name, whatever its prefix.
fn elements<'t>(text: &'t [u8], name: &'t [u8]) -> impl Iterator<Item = Range<usize>> + use<'t> {
    memmem::find_iter(text, name).take(1_000).filter_map(move |at| {
        let end = at.saturating_add(name.len());
        let before = text.get(..at)?;
        let prefix = before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b':');
        let open = at.checked_sub(prefix.count())?.checked_sub(1)?;
        let is_tag = text.get(open) == Some(&b'<')
            && text.get(end).is_some_and(|byte| byte.is_ascii_whitespace() || matches!(byte, b'>' | b'/'));
        let close = memchr(b'>', text.get(end..)?)?;
        is_tag.then(|| end..end.saturating_add(close))
    })
}

/// Where the value of an attribute of a start tag is.
fn attribute(text: &[u8], element: Range<usize>, name: &[u8]) -> Option<Range<usize>> {
    let tag = text.get(element.clone())?;
    memmem::find_iter(tag, name).find_map(|at| {
        let is_start = at.checked_sub(1).and_then(|at| tag.get(at)).is_some_and(u8::is_ascii_whitespace);
        let after = at.saturating_add(name.len());
        let rest = tag.get(after..)?;
        let skip = rest.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b'=').count();
        let quote = *rest.get(skip).filter(|byte| matches!(byte, b'"' | b'\'') && is_start)?;
        let start = after.saturating_add(skip).saturating_add(1);
        let length = memchr(quote, tag.get(start..)?)?;
        let start = element.start.saturating_add(start);
        Some(start..start.saturating_add(length))
    })
}

/// Where the name of the attribute begins whose value is in `range`.
fn element_start_of(text: &[u8], range: &Range<usize>) -> usize {
    let before = text.get(..range.start).unwrap_or_default();
    let equals = memchr::memrchr(b'=', before).unwrap_or(range.start);
    let name = text.get(..equals).unwrap_or_default().trim_ascii_end();
    name.iter().rposition(|byte| byte.is_ascii_whitespace()).map_or(0, |at| at.saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn realm(domain: &str) -> Realm {
        crate::config::tests::realm(domain)
    }

    fn translated(text: &str) -> String {
        let (from, to) = (realm("192.0.2.1"), realm("example.com"));
        let mut secrets = Secrets::default();
        for address in ["10.0.0.5", "2001:db8::7"] {
            secrets.add_address(address.parse().unwrap());
        }
        secrets.add(b"their-call-id@10.0.0.5");
        secrets.add(b"their-tag");
        secrets.add_host(b"Phone.Local");
        let mut names = Translation::new((&from, &to), secrets, None, "example.com".to_owned());
        names.add_id(b"their-call-id@10.0.0.5", b"our-call-id");
        String::from_utf8(names.apply(text.as_bytes()).into_owned()).unwrap()
    }

    #[test]
    fn what_names_a_side_becomes_what_the_other_knows() {
        for (text, expected) in [
            ("sip:a@10.0.0.5", "sip:a@example.com"),
            ("sip:a@10.0.0.5:5070;x", "sip:a@example.com;x"),
            ("10.0.0.50 and 110.0.0.5", "10.0.0.50 and 110.0.0.5"),
            ("ends with 10.0.0.5.", "ends with example.com."),
            ("sip:[2001:DB8:0::7]:5060", "sip:example.com"),
            ("2001:db8::7", "example.com"),
            ("::ffff:10.0.0.5", "example.com"),
            ("a phone.LOCAL, not myphone.local", "a example.com, not myphone.local"),
            ("id=their-call-id@10.0.0.5;x", "id=our-call-id;x"),
            ("http://192.0.2.1/ring.wav", "http://example.com/ring.wav"),
            ("nothing of theirs", "nothing of theirs"),
        ] {
            assert_eq!(translated(text), expected, "{text}");
        }
        let hidden = translated("tag=their-tag");
        assert!(hidden.starts_with("tag=x") && hidden == translated("tag=their-tag"), "{hidden}");
    }

    #[test]
    fn the_hosts_of_uris_in_markup_are_their_sides_own() {
        let (from, to) = (realm("core.example"), realm("example.com"));
        let secrets = Secrets::default();
        let names = Translation::new((&from, &to), secrets, None, "example.com".to_owned());
        let text = b"<contact uri=\"sip:b@172.16.0.9:5060\"/><note>172.16.0.9</note>";
        assert_eq!(
            &*names.apply_markup(text),
            b"<contact uri=\"sip:b@example.com\"/><note>172.16.0.9</note>".as_slice()
        );
    }
}
