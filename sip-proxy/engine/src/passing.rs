//! Which headers pass from one side to the other, and as what.
//!
//! From a trusted realm all that we don't understand passes, in order. From others passes what stands in [`is_open`] and
//! what the realm's operator has added: what is not understood could carry an identity or a command. From either what
//! names its own side is rewritten ([`Translation`]), never dropped for that.

use std::borrow::Cow;

use sip_wire::{Builder, Line, Message, Name, Uri, Values};

use crate::config::{DisplayNames, Realm};
use crate::core::Core;
use crate::times::bounded;
use crate::translation::{Translation, event_for};

/// What to do with one header line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Drop,
    /// Passes, with what names its own side rewritten.
    Pass,
    /// Passes with the hosts of its addresses replaced (RFC 5806, RFC 7044, RFC 3892).
    Addresses,
    /// The same, of an untrusted author only what names himself.
    Author,
    /// Passes as the tokens that it is made of.
    Tokens,
    /// Event (RFC 6665 §8.2.1), which may name a dialog.
    Event,
    /// Subscription-State (RFC 6665 §8.2.3).
    State,
    /// A time, no longer than one may be.
    Time,
    /// Its realm is not trusted with it.
    Withhold,
}

/// Why a header does not pass from a realm that is not trusted, whatever its operator has named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barred {
    /// Each leg has its own, or it ends at the next hop: what passes of it is written anew.
    Leg,
    /// Credentials and challenges are between one party and us.
    Credentials,
    /// RFC 3325 and its like: passes between two realms that are trusted.
    Identity,
}

/// The headers that are dropped, silently.
fn barred(name: Name) -> Option<Barred> {
    match name {
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
        | Name::Join => Some(Barred::Leg),
        Name::Authorization
        | Name::ProxyAuthorization
        | Name::WwwAuthenticate
        | Name::ProxyAuthenticate
        | Name::AuthenticationInfo => Some(Barred::Credentials),
        Name::PAssertedIdentity | Name::RemotePartyId | Name::Identity | Name::PAccessNetworkInfo => {
            Some(Barred::Identity)
        }
        _ => None,
    }
}

fn fate(line: &Line<'_>, from: &Realm, to: &Realm) -> Fate {
    fate_by(line, (from.trusted, to.trusted), || from.passing.allows(line.text))
}

/// By whether the realms that it comes from and goes to are trusted, and its author's operator has named it.
fn fate_by(line: &Line<'_>, (from, to): (bool, bool), is_named: impl Fn() -> bool) -> Fate {
    match barred(line.name) {
        Some(Barred::Identity) if from && to => {}
        Some(_) => return Fate::Drop,
        None => {}
    }
    match line.name {
        Name::Event => Fate::Event,
        Name::SubscriptionState => Fate::State,
        Name::RetryAfter | Name::Expires | Name::MinExpires => Fate::Time,
        Name::ReferredBy => Fate::Addresses,
        Name::Diversion | Name::HistoryInfo if from || is_named() => Fate::Addresses,
        Name::Diversion | Name::HistoryInfo => Fate::Author,
        _ if from => Fate::Pass,
        Name::Allow | Name::AllowEvents | Name::ContentLanguage | Name::Unsupported => Fate::Tokens,
        // RFC 3261 §20.26, RFC 4412: precedence is the network's to give.
        Name::Priority if line.value.eq_ignore_ascii_case(b"emergency") && !is_named() => Fate::Withhold,
        _ if is_open(line) || is_named() => Fate::Pass,
        _ => Fate::Withhold,
    }
}

/// What comes of naming a header in [`Passing::headers`](crate::config::Passing::headers), in a realm that is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// It passes, or more of it than without.
    Lets,
    /// It passes as it does without.
    Idle,
    /// It does not pass for all that.
    Vain(Barred),
}

/// What comes of this entry: a name in any form, or how names begin and `*`.
pub fn naming(entry: &str) -> Naming {
    // Of what begins so stands for all a name that nobody has given a meaning.
    let text = entry.replace('*', "~");
    let name = Name::of(text.as_bytes());
    if let Some(why) = barred(name) {
        return Naming::Vain(why);
    }
    let changes = |value: &[u8]| {
        let line = Line { index: 0, name, text: text.as_bytes(), value };
        fate_by(&line, (false, false), || true) != fate_by(&line, (false, false), || false)
    };
    if changes(b"") || changes(b"emergency") { Naming::Lets } else { Naming::Idle }
}

/// Headers that pass from anybody: they say what a message is or can, and neither who its author is nor what it does to
/// the phone that reads it. Others (P-Charge-Info, Resource-Priority, Alert-Info, Call-Info, Answer-Mode, ...) pass where
/// the realm's `pass_headers` names them.
fn is_open(line: &Line<'_>) -> bool {
    const OTHERS: [&str; 10] = [
        "User-to-User",
        "Session-ID",
        "Geolocation",
        "Geolocation-Routing",
        "Geolocation-Error",
        "Info-Package",
        "Recv-Info",
        "Content-ID",
        "Suppress-If-Match",
        "Target-Dialog",
    ];
    match line.name {
        Name::Accept
        | Name::AcceptContact
        | Name::AcceptEncoding
        | Name::AcceptLanguage
        | Name::ContentDisposition
        | Name::ContentEncoding
        | Name::Date
        | Name::InReplyTo
        | Name::MimeVersion
        | Name::Priority
        | Name::Reason
        | Name::ReferSub
        | Name::RejectContact
        | Name::RequestDisposition
        | Name::SipEtag
        | Name::SipIfMatch
        | Name::Subject
        | Name::Warning => true,
        Name::Other => {
            let starts_with_x = line.text.get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"X-"));
            starts_with_x || OTHERS.iter().any(|open| line.text.eq_ignore_ascii_case(open.as_bytes()))
        }
        _ => false,
    }
}

/// Copies what passes.
pub(crate) fn copy_headers(
    mut out: Builder,
    message: &Message,
    names: &Translation<'_>,
    core: &mut Core,
) -> Builder {
    let privacy = Privacy::of(message);
    for line in message.lines().filter(|line| !privacy.hides(line.name)) {
        let name = if line.name == Name::Other { line.text } else { line.name.as_str().as_bytes() };
        let fate = fate(&line, names.from, names.to);
        let value = match fate {
            Fate::Drop => continue,
            Fate::Withhold => {
                core.out.extend(core.guards.withheld.note(names.from, name));
                continue;
            }
            Fate::Time => Cow::Owned(names.apply(&bounded(line.name, line.value)).into_owned()),
            Fate::Pass => names.apply(line.value),
            Fate::Tokens => Cow::Owned(tokens(line.value)),
            Fate::State => Cow::Owned(names.apply(&repaired_state(line.value)).into_owned()),
            Fate::Event => match event_for(line.value, core) {
                Some(event) => Cow::Owned(event),
                None => names.apply(line.value),
            },
            Fate::Addresses | Fate::Author => {
                for value in Values::of_list(line.value) {
                    let value = with_host(value, names.from, &names.host);
                    if !value.is_empty() && (fate == Fate::Addresses || is_of_author(&value, names)) {
                        out = out.header(line.name, &names.apply(&value));
                    }
                }
                continue;
            }
        };
        // What was nothing but broken is nothing.
        if !value.is_empty() || line.value.is_empty() {
            out = out.other(name, &value);
        }
    }
    out
}

/// Whether an address, written for the other side, names the user that has proven who he is.
fn is_of_author(value: &[u8], names: &Translation<'_>) -> bool {
    let Ok(address) = sip_wire::Address::parse(value) else { return false };
    let Some((user, domain)) = names.author.as_deref().and_then(|author| author.rsplit_once('@')) else {
        return false;
    };
    let host = String::from_utf8_lossy(address.uri.host().as_bytes()).to_ascii_lowercase();
    (host == domain.to_ascii_lowercase() || host == names.host) && user_of(&address.uri) == user
}

fn is_token(text: &[u8]) -> bool {
    text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte))
}

/// A list of tokens, without what is none.
fn tokens(value: &[u8]) -> Vec<u8> {
    Values::of_list(value).filter(|token| is_token(token)).collect::<Vec<_>>().join(&b", "[..])
}

/// A Subscription-State that its reader can read: linphone says `terminated;reason=reason=noresource`, for which others
/// drop the NOTIFY and keep a subscription, and with it a call, for ever. Parameters that are broken are left out.
fn repaired_state(value: &[u8]) -> Vec<u8> {
    let mut fields = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let mut out = fields.next().unwrap_or_default().to_vec();
    for field in fields {
        let name = field.split(|byte| *byte == b'=').next().unwrap_or_default();
        let last = field.rsplit(|byte| *byte == b'=').next().unwrap_or_default();
        let equals = field.iter().filter(|byte| **byte == b'=').count();
        if name.is_empty() || (equals > 0 && last.is_empty()) {
            continue;
        }
        out.push(b';');
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let time = if is(b"expires") { Some(Name::Expires) } else { None };
        let time = time.or(is(b"retry-after").then_some(Name::RetryAfter));
        if let Some(time) = time {
            out.extend_from_slice(&[name, b"=", &*bounded(time, last)].concat());
        } else if equals < 2 || field.contains(&b'"') {
            out.extend_from_slice(field);
        } else {
            out.extend_from_slice(&[name, b"=", last].concat());
        }
    }
    out
}

/// Whether a From says that its author does not tell who he is (RFC 3323 §4.1.1.3): the user `anonymous`, at a host that
/// is nobody's or his own side's. Any other name at such a host is a claim like any other.
pub(crate) fn is_anonymous(uri: &Uri<'_>, realm: &Realm) -> bool {
    let host = String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase();
    if uri.user().is_empty() {
        return host == "anonymous.invalid";
    }
    uri.user().eq_ignore_ascii_case(b"anonymous")
        && (host == "invalid"
            || host.ends_with(".invalid")
            || uri.host().address().is_some()
            || realm.domains.iter().any(|domain| **domain == *host))
}

/// The From of somebody who does not tell who he is (RFC 3323 §4.1.1.3), but for its tag.
pub(crate) const ANONYMOUS: &[u8] = b"\"Anonymous\" <sip:anonymous@anonymous.invalid>";

/// The option tags of a message for the other side: those of its author that pass, and ours.
#[derive(Debug, Default)]
pub(crate) struct Options {
    supported: Vec<u8>,
    require: Vec<u8>,
}

impl Options {
    /// Of a message that may require something.
    pub(crate) fn passing(message: &Message) -> Self {
        Self { supported: passing(message, Name::Supported), require: passing(message, Name::Require) }
    }

    /// Of a message that may not.
    pub(crate) fn supported(message: &Message) -> Self {
        Self { supported: passing(message, Name::Supported), require: Vec::new() }
    }

    pub(crate) fn support(&mut self, option: &[u8]) {
        add_option(&mut self.supported, option);
    }

    pub(crate) fn require(&mut self, option: &[u8]) {
        add_option(&mut self.require, option);
    }

    /// Supported and Require, as far as there is something in them.
    pub(crate) fn put(self, mut out: Builder) -> Builder {
        for (name, options) in [(Name::Supported, self.supported), (Name::Require, self.require)] {
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        out
    }
}

fn add_option(options: &mut Vec<u8>, option: &[u8]) {
    if !options.is_empty() {
        options.extend_from_slice(b", ");
    }
    options.extend_from_slice(option);
}

/// Options that concern the two ends; the others (outbound, path, gruu, timer, sec-agree ...) end at each leg.
fn passing(message: &Message, name: Name) -> Vec<u8> {
    let mut out = Vec::new();
    for option in message.values(name) {
        // RFC 3959: an early session would be a second description, which nobody relays.
        let is_ours = ["timer", "path", "outbound", "gruu", "ice", "sec-agree", "eventlist", "early-session"]
            .iter()
            .any(|ours| option.eq_ignore_ascii_case(ours.as_bytes()));
        if !is_ours && is_token(option) {
            add_option(&mut out, option);
        }
    }
    out
}

/// A From or To value for the other side: the display name and user of `value`, the host of the side that reads it, and
/// whether it is a telephone number (RFC 3261 §19.1.1). With another `user` none of them is its author's own.
pub(crate) fn translate_address(
    value: &[u8],
    host: &str,
    user: Option<&str>,
    names: DisplayNames,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len().saturating_add(40));
    let address = sip_wire::Address::parse(value);
    let own_user = address.as_ref().map(|address| address.uri.user()).unwrap_or_default();
    let shown = user.map_or(own_user, str::as_bytes);
    let display = address.as_ref().map(|address| address.display).unwrap_or_default();
    match names {
        DisplayNames::Pass if user.is_none() && !display.is_empty() => {
            out.extend_from_slice(display);
            out.push(b' ');
        }
        DisplayNames::Replace if !shown.is_empty() => {
            out.push(b'"');
            out.extend(Uri::unescape(shown).iter().filter(|byte| !matches!(byte, b'"' | b'\\')));
            out.extend_from_slice(b"\" ");
        }
        _ => {}
    }
    out.extend_from_slice(b"<sip:");
    if !shown.is_empty() {
        out.extend_from_slice(shown);
        out.push(b'@');
    }
    out.extend_from_slice(host.as_bytes());
    if user.is_none() && address.is_ok_and(|address| is_telephone(&address.uri)) {
        out.extend_from_slice(b";user=phone");
    }
    out.push(b'>');
    out
}

/// Whether a URI says that its user is a telephone number.
pub(crate) fn is_telephone(uri: &Uri<'_>) -> bool {
    uri.scheme() == sip_wire::Scheme::Tel
        || uri.parameters().get(b"user").flatten().is_some_and(|kind| kind.eq_ignore_ascii_case(b"phone"))
}

/// What a number says beside itself (RFC 4694, RFC 3966), as it stands in the user part: `;npdi;rn=+4930`.
pub(crate) fn number_parameters(uri: &Uri<'_>) -> String {
    let text = if uri.scheme() == sip_wire::Scheme::Tel { uri.as_bytes() } else { uri.user() };
    let start = memchr::memchr(b';', text).unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default().split(|byte| *byte == b'?').next().unwrap_or_default();
    String::from_utf8_lossy(text).replace('@', "%40")
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
    pub(crate) fn hides(self, name: Name) -> bool {
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
    let offset = |part: &[u8], whole: &[u8]| (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize);
    let (before, rest) = value.split_at_checked(offset(own, value)).unwrap_or((value, b""));
    let mut after = rest.get(own.len()..).unwrap_or_default();
    if address.uri.port().is_some() {
        let digits = after.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
        after = after.get(digits.saturating_add(1)..).unwrap_or_default();
    }
    [before, host.as_bytes(), after].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_lets_a_header_pass_or_does_nothing_or_cannot() {
        let lets = "P-Charge-Info p-charge-info Alert-Info Diversion History-Info Priority P-* X* Geolocation* Via* Unheard-Of";
        for entry in lets.split(' ') {
            assert_eq!(naming(entry), Naming::Lets, "{entry}");
        }
        let idle = "X-Acme x-* X-Acme-* Subject s Reason User-to-User Event Allow Referred-By b Expires";
        for entry in idle.split(' ') {
            assert_eq!(naming(entry), Naming::Idle, "{entry}");
        }
        for (entry, why) in [
            ("Via", Barred::Leg),
            ("v", Barred::Leg),
            ("contact", Barred::Leg),
            ("CSEQ", Barred::Leg),
            ("Content-Length", Barred::Leg),
            ("P-Preferred-Identity", Barred::Leg),
            ("Proxy-Authorization", Barred::Credentials),
            ("P-Asserted-Identity", Barred::Identity),
            ("Remote-Party-ID", Barred::Identity),
        ] {
            assert_eq!(naming(entry), Naming::Vain(why), "{entry}");
        }
    }
}
