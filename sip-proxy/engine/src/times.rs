//! Times that others give have a floor and a ceiling: what somebody asks for must neither keep us busy nor bind us for
//! ever. Whoever reads a new one bounds it here.

use std::time::Duration;

use sip_wire::{Message, Method, Name};

/// Session-Expires: RFC 4028 §4 wants 90 s at least; a session that lasts is refreshed once a day at least.
pub(crate) const SESSION: (Duration, Duration) = (Duration::from_secs(90), Duration::from_secs(86_400));
/// The least interval that a peer may want (Min-SE).
pub(crate) const LONGEST_MIN_SE: Duration = Duration::from_secs(3_600);
/// How long a trunk is left alone at its own word (Retry-After).
pub(crate) const LONGEST_REST: Duration = Duration::from_secs(300);
/// The least that a registration, subscription or publication may be asked for; less gets 423 with Min-Expires.
pub(crate) const LEAST_EXPIRES: Duration = Duration::from_secs(60);
/// How long a subscription is kept without a refresh.
pub(crate) const LONGEST_SUBSCRIPTION: Duration = Duration::from_secs(86_400);

/// Within a floor and a ceiling.
pub(crate) fn within(time: Duration, (floor, ceiling): (Duration, Duration)) -> Duration {
    time.clamp(floor, ceiling)
}

/// Min-SE of a 422, in seconds.
pub(crate) fn min_se_of(response: &Message) -> Option<u32> {
    let least = response.number(Name::MinSe)?.ok()?;
    Some(least.min(u32::try_from(LONGEST_MIN_SE.as_secs()).unwrap_or(u32::MAX)))
}

/// Whether a SUBSCRIBE or PUBLISH asks for less than may be asked for (RFC 6665 §4.2.1.1, RFC 3903 §6); 0 is an end.
pub(crate) fn is_too_brief(request: &Message) -> bool {
    let Some(method) = request.method() else { return false };
    (method == Method::SUBSCRIBE || method == Method::PUBLISH)
        && request
            .number(Name::Expires)
            .and_then(Result::ok)
            .is_some_and(|seconds| seconds > 0 && Duration::from_secs(u64::from(seconds)) < LEAST_EXPIRES)
}
