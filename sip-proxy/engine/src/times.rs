//! Times that others give have a floor and a ceiling: what somebody asks for must neither keep us busy nor bind us for
//! ever. Whoever reads a new one bounds it here.

use std::borrow::Cow;
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
/// The most that anybody may be asked to ask for (Min-Expires of a 423).
pub(crate) const LONGEST_MIN_EXPIRES: Duration = Duration::from_secs(3_600);
/// How long a subscription is kept without a refresh.
pub(crate) const LONGEST_SUBSCRIPTION: Duration = Duration::from_secs(86_400);

/// Within a floor and a ceiling.
pub(crate) fn within(time: Duration, (floor, ceiling): (Duration, Duration)) -> Duration {
    time.clamp(floor, ceiling)
}

/// A time that passes from one side to the other, cut to what the other may be told; its comment and parameters stay.
pub(crate) fn bounded(name: Name, value: &[u8]) -> Cow<'_, [u8]> {
    let ceiling = match name {
        Name::RetryAfter => LONGEST_REST,
        Name::MinExpires => LONGEST_MIN_EXPIRES,
        Name::Expires => LONGEST_SUBSCRIPTION,
        _ => return Cow::Borrowed(value),
    };
    let digits = value.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (number, rest) = value.split_at_checked(digits).unwrap_or((value, b""));
    // What is larger than any number is larger than this one.
    let seconds = std::str::from_utf8(number).ok().and_then(|number| number.parse::<u64>().ok());
    if digits == 0 || seconds.is_some_and(|seconds| seconds <= ceiling.as_secs()) {
        return Cow::Borrowed(value);
    }
    Cow::Owned([ceiling.as_secs().to_string().as_bytes(), rest].concat())
}

/// What a Retry-After of ours says, in seconds.
pub(crate) fn rest_of(after: Duration) -> String {
    after.as_secs().clamp(1, LONGEST_REST.as_secs()).to_string()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_passes_is_no_longer_than_one_may_be_and_keeps_what_is_said_of_it() {
        for (name, value, expected) in [
            (Name::RetryAfter, "5 (soon);duration=60", "5 (soon);duration=60"),
            (Name::RetryAfter, "18000;duration=3600", "300;duration=3600"),
            (Name::RetryAfter, "99999999999999999999999", "300"),
            (Name::MinExpires, "86400", "3600"),
            (Name::Expires, "4294967295", "86400"),
            (Name::Expires, "0", "0"),
            (Name::Expires, "soon", "soon"),
            (Name::MaxForwards, "400", "400"),
        ] {
            assert_eq!(&*bounded(name, value.as_bytes()), expected.as_bytes(), "{value}");
        }
        let rests = [0, 7, 86_400].map(|seconds| rest_of(Duration::from_secs(seconds)));
        assert_eq!(rests, ["1", "7", "300"]);
    }
}
