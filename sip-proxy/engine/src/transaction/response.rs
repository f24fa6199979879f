//! Messages that a transaction makes from the one it holds.

use sip_wire::{Builder, Message, Method, Name};

/// A response with what every response copies from its request verbatim (RFC 3261 §8.2.6.2): the Via stack, From, To,
/// Call-ID and CSeq. `to_tag` is added to a To that has none; without it (100) the To stays as it is. `reason` is the
/// reason phrase, `None` the usual one.
pub fn response_to(request: &Message, status: u16, reason: Option<&[u8]>, to_tag: Option<&str>) -> Builder {
    let mut response = Builder::response(status, reason.unwrap_or_else(|| reason_of(status).as_bytes()));
    for line in request.lines() {
        match line.name {
            Name::Via | Name::From | Name::CallId | Name::CSeq => {
                response = response.header(line.name, line.value)
            }
            Name::To => {
                let tag = to_tag.filter(|_| request.to().is_ok_and(|to| to.tag().is_none()));
                response = match tag {
                    Some(tag) => response.header(Name::To, &[line.value, b";tag=", tag.as_bytes()].concat()),
                    None => response.header(Name::To, line.value),
                };
            }
            Name::Timestamp if status == 100 => response = response.header(line.name, line.value),
            _ => {}
        }
    }
    response
}

/// The ACK to a failure response (RFC 3261 §17.1.1.3): same Request-URI, top Via, Call-ID, From, Route and CSeq number
/// as the INVITE; the To of the response.
pub(super) fn ack_for_failure(invite: &Message, response: &Message) -> Option<Message> {
    let to = response.value(Name::To)?;
    Some(follower(invite, Method::ACK, to)?.finish())
}

/// The CANCEL of an INVITE (RFC 3261 §9.1), with a Reason (RFC 3326) if there is one.
pub(super) fn cancel_of(invite: &Message, reason: Option<&[u8]>) -> Option<Message> {
    let to = invite.value(Name::To)?;
    let mut cancel = follower(invite, Method::CANCEL, to)?;
    for reason in sip_wire::Values::of_list(reason.unwrap_or_default()) {
        cancel = cancel.header(Name::Reason, reason);
    }
    Some(cancel.finish())
}

/// A request in the footsteps of `invite`: same hop, same branch, same CSeq number.
fn follower(invite: &Message, method: Method<'_>, to: &[u8]) -> Option<Builder> {
    let cseq = invite.cseq().ok()?;
    let mut request = Builder::request(method, invite.request_uri()?);
    request = request.header(Name::Via, invite.values(Name::Via).next()?);
    for route in invite.lines().filter(|line| line.name == Name::Route) {
        request = request.header(Name::Route, route.value);
    }
    let number = [cseq.number.to_string().as_bytes(), b" ", method.as_bytes()].concat();
    Some(
        request
            .header(Name::MaxForwards, b"70")
            .header(Name::From, invite.value(Name::From)?)
            .header(Name::To, to)
            .header(Name::CallId, invite.value(Name::CallId)?)
            .header(Name::CSeq, &number),
    )
}

/// A To tag for an answer that no user of the layer gives: the same for the same request (RFC 3261 §8.2.7).
pub(crate) fn stateless_tag(key: &[u8]) -> String {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("s{hash:016x}")
}

/// The usual reason phrase of a status code (RFC 3261 §21 and the IANA registry).
#[expect(
    clippy::match_overlapping_arm,
    reason = "the classes come last and stand for what has no phrase of its own"
)]
pub fn reason_of(status: u16) -> &'static str {
    match status {
        100 => "Trying",
        180 => "Ringing",
        181 => "Call Is Being Forwarded",
        182 => "Queued",
        183 => "Session Progress",
        199 => "Early Dialog Terminated",
        200 => "OK",
        202 => "Accepted",
        204 => "No Notification",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Moved Temporarily",
        305 => "Use Proxy",
        380 => "Alternative Service",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        410 => "Gone",
        412 => "Conditional Request Failed",
        413 => "Request Entity Too Large",
        414 => "Request-URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Unsupported URI Scheme",
        420 => "Bad Extension",
        421 => "Extension Required",
        422 => "Session Interval Too Small",
        423 => "Interval Too Brief",
        428 => "Use Identity Header",
        429 => "Provide Referrer Identity",
        430 => "Flow Failed",
        433 => "Anonymity Disallowed",
        439 => "First Hop Lacks Outbound Support",
        440 => "Max-Breadth Exceeded",
        469 => "Bad Info Package",
        480 => "Temporarily Unavailable",
        481 => "Call/Transaction Does Not Exist",
        482 => "Loop Detected",
        483 => "Too Many Hops",
        484 => "Address Incomplete",
        485 => "Ambiguous",
        486 => "Busy Here",
        487 => "Request Terminated",
        488 => "Not Acceptable Here",
        489 => "Bad Event",
        491 => "Request Pending",
        493 => "Undecipherable",
        494 => "Security Agreement Required",
        500 => "Server Internal Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Server Time-out",
        505 => "Version Not Supported",
        513 => "Message Too Large",
        580 => "Precondition Failure",
        600 => "Busy Everywhere",
        603 => "Decline",
        604 => "Does Not Exist Anywhere",
        606 => "Not Acceptable",
        607 => "Unwanted",
        608 => "Rejected",
        100..=199 => "Progress",
        200..=299 => "OK",
        300..=399 => "Redirected",
        400..=499 => "Request Failed",
        500..=599 => "Server Failed",
        _ => "Failed",
    }
}
