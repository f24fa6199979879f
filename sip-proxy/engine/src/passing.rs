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
        for contact in message.contacts().flatten() {
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

/// What to do with one header line.
enum Fate {
    Pass,
    Drop,
    /// Passes if nothing of the other side is in it.
    PassIfClean,
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
    for line in message.lines() {
        match fate(line.name, from, to) {
            Fate::Drop => {}
            Fate::PassIfClean if secrets.are_in(line.value) => dropped += 1,
            Fate::PassIfClean
                if hidden_domains(from, to).any(|domain| memmem::find(line.value, domain).is_some()) =>
            {
                match in_domain_of(line.name, line.value, from, to) {
                    Some(value) => out = out.header(line.name, &value),
                    None => dropped += 1,
                }
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

/// Who referred or diverted a call keeps his name, in a domain of the side that reads it.
fn in_domain_of(name: Name, value: &[u8], from: &Realm, to: &Realm) -> Option<Vec<u8>> {
    if !matches!(name, Name::ReferredBy | Name::Diversion | Name::HistoryInfo) {
        return None;
    }
    let ours = to.domains.first()?;
    Some(hidden_domains(from, to).fold(value.to_vec(), |value, domain| {
        let mut out = Vec::with_capacity(value.len());
        let mut copied = 0;
        for at in memmem::find_iter(&value, domain) {
            out.extend_from_slice(&value[copied..at]);
            out.extend_from_slice(ours.as_bytes());
            copied = at + domain.len();
        }
        out.extend_from_slice(&value[copied..]);
        out
    }))
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
