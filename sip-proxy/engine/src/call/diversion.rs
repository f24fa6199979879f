//! Who sent a call on, and why.

use std::sync::Arc;

use sip_wire::{Message, Name, parameter};

use crate::flow::RealmId;
use crate::question::Caller;

/// Who sent a call elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diverted {
    /// As far as it was proven.
    pub(super) by: Caller,
    /// Its realm.
    pub(super) realm: RealmId,
    /// The user part that it was dialled by.
    pub(super) user: String,
    pub(super) why: Why,
    /// Who had sent the call to it.
    pub(super) before: Option<Arc<Diverted>>,
}

/// How often one call may be sent on.
pub(super) const DIVERSIONS: usize = 5;

impl Diverted {
    /// From the last that sent the call on to the first.
    pub(super) fn all(last: Option<&Arc<Self>>) -> impl Iterator<Item = &Self> {
        std::iter::successors(last.map(|last| &**last), |one| one.before.as_deref())
    }
}

/// Why somebody sends a call on (RFC 5806 §3.3; the numbers are those of RFC 7544 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Unconditional,
    Busy,
    NoAnswer,
    Unavailable,
}

impl Why {
    /// As its 3xx says itself: in a Diversion of its own, in a Reason (RFC 3326), or in the cause of its first Contact
    /// (RFC 4458); else as it looks from outside: who has rung was not answered.
    pub(super) fn of(response: &Message, has_rung: bool) -> Self {
        let diversion = response.value(Name::Diversion).and_then(|value| parameter(value, b"reason"));
        let reason = || response.values(Name::Reason).find_map(Self::of_reason);
        let contact = || {
            let uri = response.contacts().flatten().next()?.uri;
            Self::of_status(sip_wire::number(uri.parameters().get(b"cause").flatten()?)?)
        };
        let seen = if has_rung { Self::NoAnswer } else { Self::Unconditional };
        diversion.and_then(Self::of_word).or_else(reason).or_else(contact).unwrap_or(seen)
    }

    fn of_word(word: &[u8]) -> Option<Self> {
        match &*sip_wire::unquote(word).to_ascii_lowercase() {
            b"unconditional" => Some(Self::Unconditional),
            b"user-busy" => Some(Self::Busy),
            b"no-answer" => Some(Self::NoAnswer),
            b"unavailable" | b"out-of-service" | b"away" => Some(Self::Unavailable),
            _ => None,
        }
    }

    fn of_status(status: u32) -> Option<Self> {
        match status {
            300..=399 => Some(Self::Unconditional),
            486 | 600 => Some(Self::Busy),
            408 | 480 | 487 => Some(Self::NoAnswer),
            404 | 410 | 430 | 500..=599 => Some(Self::Unavailable),
            _ => None,
        }
    }

    fn of_reason(reason: &[u8]) -> Option<Self> {
        let cause = sip_wire::number(parameter(reason, b"cause")?)?;
        let protocol = reason.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        if protocol.eq_ignore_ascii_case(b"SIP") {
            return Self::of_status(cause);
        }
        // Of ITU-T Q.850.
        match cause {
            17 => Some(Self::Busy),
            18 | 19 => Some(Self::NoAnswer),
            20 | 27 | 31 => Some(Self::Unavailable),
            _ => None,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Unconditional => "unconditional",
            Self::Busy => "user-busy",
            Self::NoAnswer => "no-answer",
            Self::Unavailable => "unavailable",
        }
    }

    pub(super) fn cause(self) -> u16 {
        match self {
            Self::Unconditional => 302,
            Self::Busy => 486,
            Self::NoAnswer => 408,
            Self::Unavailable => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(headers: &str, has_rung: bool) -> Why {
        let text = format!("SIP/2.0 302 Moved\r\n{headers}\r\n");
        Why::of(&Message::parse(text.into()).unwrap(), has_rung)
    }

    #[test]
    fn a_redirection_has_the_reason_that_it_gives_or_that_it_looks_like() {
        for (headers, expected) in [
            ("", Why::Unconditional),
            ("Diversion: <sip:b@c>;reason=\"user-busy\"\r\n", Why::Busy),
            ("Reason: Q.850;cause=19\r\n", Why::NoAnswer),
            ("Reason: SIP ;cause=503\r\n", Why::Unavailable),
            ("Contact: <sip:1@c;cause=486>\r\n", Why::Busy),
            ("Diversion: <sip:b@c>;reason=follow-me\r\nReason: SIP;cause=408\r\n", Why::NoAnswer),
        ] {
            assert_eq!(why(headers, false), expected, "{headers}");
        }
        assert_eq!(why("", true), Why::NoAnswer);
    }
}
