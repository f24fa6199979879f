//! What a readable message must have before anybody acts on it (RFC 3261 §8.1.1, §8.1.3.3, §16.3).

use crate::address::Address;
use crate::message::Message;
use crate::method::Method;
use crate::name::Name;
use crate::refused::{Cause, Malformed};
use crate::text::{Values, has_control};
use crate::uri::{Scheme, Uri};
use crate::via::Via;

/// Whether a header may come once only.
fn comes_once(name: Name) -> bool {
    matches!(
        name,
        Name::From
            | Name::To
            | Name::CallId
            | Name::CSeq
            | Name::MaxForwards
            | Name::ContentLength
            | Name::ContentType
            | Name::ContentDisposition
            | Name::Expires
            | Name::MinExpires
            | Name::Event
            | Name::RSeq
            | Name::RAck
            | Name::ReferTo
            | Name::Replaces
            | Name::SessionExpires
            | Name::SubscriptionState
    )
}

/// Judges a request. Unknown methods, bodies and headers are nobody's fault.
pub fn check_request(request: &Message) -> Result<(), Cause> {
    let bad = Cause::Malformed;
    check_common(request)?;
    // A terminal or a display would obey them. In responses, whose authors cannot be told, they become spaces when they
    // are passed on.
    if request.lines().any(|line| has_control(line.value)) {
        return Err(bad(Malformed::Control));
    }
    let Some(method) = request.method() else { return Err(bad(Malformed::StartLine)) };
    if request.cseq().map_err(bad)?.method != method {
        let is_unknown = !Method::KNOWN.contains(&method);
        return Err(if is_unknown { Cause::UnknownMethod } else { bad(Malformed::MethodMismatch) });
    }
    let uri = Uri::parse(request.request_uri().unwrap_or_default()).map_err(bad)?;
    if uri.scheme() == Scheme::Other {
        return Err(Cause::Scheme);
    }
    match request.number(Name::MaxForwards) {
        Some(Err(broken)) => return Err(bad(broken)),
        Some(Ok(hops)) if hops > 255 => return Err(bad(Malformed::Number)),
        Some(Ok(0)) if method != Method::ACK && method != Method::CANCEL => return Err(Cause::TooManyHops),
        _ => {}
    }
    if let Some(Err(broken)) = request.number(Name::Expires) {
        return Err(bad(broken));
    }
    // RFC 3261 §10.3 step 6: `*` stands alone.
    let is_star = request.value(Name::Contact) == Some(b"*") && method == Method::REGISTER;
    if is_star && request.values(Name::Contact).count() > 1 {
        return Err(bad(Malformed::Twice));
    }
    let mut contacts = 0_usize;
    for contact in request.contacts().filter(|_| !is_star) {
        contact.map_err(bad)?;
        contacts = contacts.saturating_add(1);
    }
    // RFC 3261 §8.1.1.8: exactly one in what makes a dialog; it is where the dialog's requests go. Without one (RFC 2543,
    // door phones) they go to where the request came from.
    let makes_dialog = [Method::INVITE, Method::SUBSCRIBE, Method::REFER].contains(&method);
    match contacts {
        2.. if makes_dialog => Err(bad(Malformed::Twice)),
        _ => Ok(()),
    }
}

/// Judges a response to a request of ours: it is dropped if it fails. Ours had one Via, so the response has one
/// (RFC 3261 §8.1.3.3). A 2xx to an INVITE must only say whose it is: whatever else is wrong with it, its author is in a
/// call and waits for the ACK (RFC 3261 §13.2.2.4).
pub fn check_response(response: &Message) -> Result<(), Cause> {
    let takes_call = response.status().is_some_and(|status| (200..300).contains(&status))
        && response.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE);
    match check_common(response) {
        Err(Cause::Malformed(Malformed::Twice)) if takes_call && is_of_one(response) => {}
        checked => checked?,
    }
    match response.values(Name::Via).nth(1) {
        Some(_) => Err(Cause::Malformed(Malformed::Twice)),
        None => Ok(()),
    }
}

/// Whether a message names one transaction and one dialog.
fn is_of_one(message: &Message) -> bool {
    let counts = [Name::From, Name::To, Name::CallId, Name::CSeq].map(|name| message.count(name));
    counts == [1; 4] && message.count(Name::ContentLength) <= 1
}

/// What requests and responses have in common: Via, From, To, Call-ID and CSeq, and what comes once.
fn check_common(message: &Message) -> Result<(), Cause> {
    let bad = Cause::Malformed;
    let (mut once, mut has_via) = (0u128, false);
    let mut found = [false; 4];
    for line in message.lines() {
        match line.name {
            Name::Via => {
                for value in Values::of_list(line.value) {
                    Via::parse(value).map_err(bad)?;
                    has_via = true;
                }
            }
            Name::From => found[0] = Address::parse(line.value).map(|_| true).map_err(bad)?,
            Name::To => found[1] = Address::parse(line.value).map(|_| true).map_err(bad)?,
            Name::CallId => found[2] = !line.value.is_empty(),
            Name::CSeq => found[3] = message.cseq().map(|_| true).map_err(bad)?,
            _ => {}
        }
        if comes_once(line.name) {
            let bit = 1 << line.name as u8;
            if once & bit != 0 {
                return Err(bad(Malformed::Twice));
            }
            once |= bit;
        }
    }
    if has_via && found == [true; 4] { Ok(()) } else { Err(bad(Malformed::Missing)) }
}
