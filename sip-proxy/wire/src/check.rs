//! What a readable request must have before anybody acts on it (RFC 3261 §8.1.1, §16.3).

use crate::message::Message;
use crate::method::Method;
use crate::name::Name;
use crate::refused::{Cause, Malformed};
use crate::uri::{Scheme, Uri};

const ONCE: [Name; 10] = [
    Name::From,
    Name::To,
    Name::CallId,
    Name::CSeq,
    Name::MaxForwards,
    Name::ContentLength,
    Name::ContentType,
    Name::Expires,
    Name::Event,
    Name::RSeq,
];

/// Judges a request. Unknown methods, bodies and headers are nobody's fault.
pub fn check_request(request: &Message) -> Result<(), Cause> {
    let bad = Cause::Malformed;
    request.via().map_err(bad)?;
    request.from().map_err(bad)?;
    request.to().map_err(bad)?;
    request.call_id().map_err(bad)?;
    let cseq = request.cseq().map_err(bad)?;
    if Some(cseq.method) != request.method() {
        return Err(bad(Malformed::MethodMismatch));
    }
    if ONCE.iter().any(|name| request.count(*name) > 1) {
        return Err(bad(Malformed::Twice));
    }
    let uri = Uri::parse(request.request_uri().unwrap_or_default()).map_err(bad)?;
    if uri.scheme() == Scheme::Other {
        return Err(Cause::Scheme);
    }
    match request.number(Name::MaxForwards) {
        Some(Err(broken)) => return Err(bad(broken)),
        Some(Ok(hops)) if hops > 255 => return Err(bad(Malformed::Number)),
        Some(Ok(0)) if cseq.method != Method::ACK && cseq.method != Method::CANCEL => {
            return Err(Cause::TooManyHops);
        }
        _ => {}
    }
    if let Some(Err(broken)) = request.number(Name::Expires) {
        return Err(bad(broken));
    }
    let is_star = request.value(Name::Contact) == Some(b"*") && cseq.method == Method::REGISTER;
    if !is_star && request.contacts().any(|contact| contact.is_err()) {
        return Err(bad(Malformed::Address));
    }
    if cseq.method == Method::INVITE && request.contacts().next().is_none() {
        return Err(bad(Malformed::Missing));
    }
    Ok(())
}
