//! Which headers pass from one side to the other: all that we don't understand, unless topology hiding forbids it.

use std::net::SocketAddr;

use memchr::memmem;
use sip_wire::{Builder, Message, Name, Uri};

use crate::config::Realm;

/// Texts of one side that the other must never see.
#[derive(Debug, Clone, Default)]
pub(crate) struct Secrets(Vec<Box<[u8]>>);

impl Secrets {
    /// Adds a text; very short ones would hit by chance.
    pub(crate) fn add(&mut self, text: &[u8]) {
        if text.len() >= 6 && !self.0.iter().any(|known| **known == *text) {
            self.0.push(text.into());
        }
    }

    /// Adds what a message of that side shows of it.
    pub(crate) fn add_message(&mut self, message: &Message, source: SocketAddr) {
        self.add(source.ip().to_canonical().to_string().as_bytes());
        self.add(message.call_id().unwrap_or_default());
        for address in [message.from(), message.to()].into_iter().flatten() {
            self.add(address.tag().unwrap_or_default());
        }
        // Of a redirection with hundreds of them the first will do: each is searched for in all that follows.
        for contact in message.contacts().flatten().take(CONTACTS) {
            if contact.uri.host().address().is_some() {
                self.add(contact.uri.host().as_bytes());
            }
        }
        if let Ok(via) = message.via() {
            self.add(via.host.as_bytes());
        }
    }

    pub(crate) fn are_in(&self, text: &[u8]) -> bool {
        self.0.iter().any(|secret| memmem::find(text, secret).is_some())
    }
}

/// Contacts of one message that are kept as secrets.
const CONTACTS: usize = 8;

/// What to do with one header line.
enum Fate {
    Pass,
    Drop,
    /// Passes if nothing of the other side is in it.
    PassIfClean,
    /// Passes with its hosts replaced (RFC 5806, RFC 7044, RFC 3892).
    Rewrite,
}

fn fate(name: Name, from: &Realm, to: &Realm) -> Fate {
    match name {
        // Ours per leg, or hop by hop.
        Name::Via
        | Name::Route
        | Name::RecordRoute
        | Name::Path
        | Name::ServiceRoute
        | Name::Contact
        | Name::CallId
        | Name::CSeq
        | Name::From
        | Name::To
        | Name::MaxForwards
        | Name::ContentLength
        | Name::ContentType
        | Name::UserAgent
        | Name::Server
        | Name::Authorization
        | Name::ProxyAuthorization
        | Name::WwwAuthenticate
        | Name::ProxyAuthenticate
        | Name::AuthenticationInfo
        | Name::SessionExpires
        | Name::MinSe
        | Name::Supported
        | Name::Require
        | Name::ProxyRequire
        | Name::RAck
        | Name::RSeq
        | Name::Replaces
        | Name::Privacy
        | Name::ReferTo
        | Name::Timestamp
        | Name::PPreferredIdentity
        | Name::MaxBreadth
        | Name::Join => Fate::Drop,
        Name::PAssertedIdentity | Name::RemotePartyId | Name::Identity | Name::PAccessNetworkInfo
            if !(from.trusted && to.trusted) =>
        {
            Fate::Drop
        }
        Name::Diversion | Name::HistoryInfo | Name::ReferredBy => Fate::Rewrite,
        Name::Allow
        | Name::Accept
        | Name::Expires
        | Name::Event
        | Name::SubscriptionState
        | Name::MimeVersion
        | Name::ContentDisposition
        | Name::ContentEncoding
        | Name::ContentLanguage
        | Name::AllowEvents => Fate::Pass,
        _ => Fate::PassIfClean,
    }
}

/// Copies what passes. Returns how many lines were dropped because they named the other side.
pub(crate) fn copy_headers(
    mut out: Builder,
    message: &Message,
    from: &Realm,
    to: &Realm,
    secrets: &Secrets,
) -> (Builder, u32) {
    let mut dropped = 0;
    let privacy = Privacy::of(message);
    for line in message.lines() {
        match fate(line.name, from, to) {
            Fate::Drop => {}
            _ if privacy.hides(line.name) => {}
            Fate::Rewrite => {
                let host = to.domains.first().map_or("anonymous.invalid", |domain| &**domain);
                for value in message_values(message, line.index) {
                    let value = with_host(value, from, host);
                    if secrets.are_in(&value) {
                        dropped += 1;
                    } else {
                        out = out.header(line.name, &value);
                    }
                }
            }
            Fate::PassIfClean if secrets.are_in(line.value) => dropped += 1,
            Fate::PassIfClean
                if hidden_domains(from, to).any(|domain| memmem::find(line.value, domain).is_some()) =>
            {
                dropped += 1;
            }
            Fate::Pass | Fate::PassIfClean => {
                out = out.other(
                    if line.name == Name::Other { line.text } else { line.name.as_str().as_bytes() },
                    line.value,
                )
            }
        }
    }
    (out, dropped)
}

/// Domains of `from` that are addresses of ours on that side: the other must not see them.
fn hidden_domains<'a>(from: &'a Realm, to: &'a Realm) -> impl Iterator<Item = &'a [u8]> {
    from.domains
        .iter()
        .filter(|domain| {
            domain.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
                && !to.domains.contains(domain)
        })
        .map(|domain| domain.as_bytes())
}

/// Options that concern the two ends; the others (outbound, path, gruu, timer, sec-agree ...) end at each leg.
pub(crate) fn passing_options(message: &Message, name: Name) -> Vec<u8> {
    let mut out = Vec::new();
    for option in message.values(name) {
        let is_ours =
            [b"timer".as_slice(), b"path", b"outbound", b"gruu", b"ice", b"sec-agree", b"eventlist"]
                .iter()
                .any(|ours| option.eq_ignore_ascii_case(ours));
        if !is_ours {
            if !out.is_empty() {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(option);
        }
    }
    out
}

/// A From or To value for the other side: the display name and user of `value`, the host of the side that reads it.
/// `sip:user@host` of a domain both sides know stays.
pub(crate) fn translate_address(value: &[u8], host: &str, user: Option<&str>, tag: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 40);
    let address = sip_wire::Address::parse(value);
    if let Ok(address) = &address
        && !address.display.is_empty()
    {
        out.extend_from_slice(address.display);
        out.push(b' ');
    }
    out.extend_from_slice(b"<sip:");
    let own_user = address.as_ref().map(|address| address.uri.user()).unwrap_or_default();
    let user = user.map_or(own_user, str::as_bytes);
    if !user.is_empty() {
        out.extend_from_slice(user);
        out.push(b'@');
    }
    out.extend_from_slice(host.as_bytes());
    out.push(b'>');
    if let Some(tag) = tag {
        out.extend_from_slice(b";tag=");
        out.extend_from_slice(tag.as_bytes());
    }
    out
}

/// The user part of a URI, unescaped; of a `tel:` URI the number without its visual separators.
pub(crate) fn user_of(uri: &Uri<'_>) -> String {
    let user = Uri::unescape(uri.user());
    let text = String::from_utf8_lossy(&user).into_owned();
    let text = text.split(';').next().unwrap_or_default().to_owned();
    let is_number = text
        .strip_prefix('+')
        .unwrap_or(&text)
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"-.() ".contains(&byte));
    if is_number && !text.is_empty() {
        text.chars().filter(|character| !"-.() ".contains(*character)).collect()
    } else {
        text
    }
}

/// What a message asks us to do for its author's privacy (RFC 3323 §4.2, RFC 3325 §9.3, RFC 7044 §10.1).
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Privacy {
    /// From and whatever else the user wrote of itself.
    pub(crate) user: bool,
    /// What shows its network; topology hiding does most of it anyway.
    header: bool,
    /// The asserted identity, where trust ends.
    id: bool,
    /// History-Info.
    history: bool,
    /// What shows where its media comes from. The relay stands for that, and stays.
    session: bool,
}

impl Privacy {
    pub(crate) fn of(message: &Message) -> Self {
        let has = |wanted: &str| {
            message.value(Name::Privacy).is_some_and(|value| {
                value
                    .split(|byte| *byte == b';')
                    .any(|word| word.trim_ascii().eq_ignore_ascii_case(wanted.as_bytes()))
            })
        };
        if has("none") {
            return Self::default();
        }
        Self {
            user: has("user"),
            header: has("header"),
            id: has("id"),
            history: has("history"),
            session: has("session"),
        }
    }

    /// Whether anything was asked for.
    pub(crate) fn is_any(self) -> bool {
        self.user || self.header || self.id || self.history || self.session
    }

    /// Headers that tell of the user, beyond From (RFC 3323 §4.1.1).
    fn hides(self, name: Name) -> bool {
        match name {
            Name::Subject | Name::CallInfo | Name::Organization | Name::ReplyTo | Name::InReplyTo => {
                self.user || self.header
            }
            Name::HistoryInfo => self.history || self.header,
            Name::ReferredBy | Name::Diversion => self.user,
            _ => false,
        }
    }

    /// What the next boundary still has to do: `id` travels with the identity that it protects.
    pub(crate) fn left(self, to: &Realm) -> Option<&'static [u8]> {
        (self.id && to.trusted).then_some(b"id".as_slice())
    }
}

fn message_values(message: &Message, index: usize) -> Vec<&[u8]> {
    message
        .lines()
        .find(|line| line.index == index)
        .map(|line| sip_wire::Values::of_list(line.value).collect())
        .unwrap_or_default()
}

/// An address with its host, if that is one of its side's own, replaced by `host`; all else stays as written.
fn with_host(value: &[u8], from: &Realm, host: &str) -> Vec<u8> {
    let Ok(address) = sip_wire::Address::parse(value) else { return Vec::new() };
    let own = address.uri.host().as_bytes();
    let named = String::from_utf8_lossy(own).to_ascii_lowercase();
    let is_own =
        address.uri.host().address().is_some() || from.domains.iter().any(|domain| **domain == *named);
    if !is_own || own.is_empty() {
        return value.to_vec();
    }
    let uri = address.uri.as_bytes();
    let offset = |part: &[u8], whole: &[u8]| part.as_ptr() as usize - whole.as_ptr() as usize;
    let start = offset(uri, value) + offset(own, uri);
    let mut end = start + own.len();
    if address.uri.port().is_some() {
        end += value[end..].iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count() + 1;
    }
    [&value[..start], host.as_bytes(), &value[end..]].concat()
}
