//! What the next target is told of those who sent a call on to it: Diversion (RFC 5806), which networks of telephones
//! read, and History-Info (RFC 7044), which says the same in order.

use sip_wire::{Message, Name, Uri, parameter};

use super::redirect::Diverted;

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

    fn word(self) -> &'static str {
        match self {
            Self::Unconditional => "unconditional",
            Self::Busy => "user-busy",
            Self::NoAnswer => "no-answer",
            Self::Unavailable => "unavailable",
        }
    }

    fn cause(self) -> u16 {
        match self {
            Self::Unconditional => 302,
            Self::Busy => 486,
            Self::NoAnswer => 408,
            Self::Unavailable => 503,
        }
    }
}

/// Diversion values, from the last that sent the call on to the first; all at `host`.
pub(super) fn diversions(all: &[&Diverted], host: &str) -> Vec<String> {
    let value = |one: &&Diverted| {
        let user = Uri::escape(one.user.as_bytes());
        format!("<sip:{user}@{host}>;reason={};counter=1", one.why.word())
    };
    all.iter().map(value).collect()
}

/// History-Info values: whom the call was for at first, and each whom it was sent on to, up to `target` (a user part).
/// They continue what the request knows already, if that passes (`before`).
pub(super) fn history(all: &[&Diverted], target: &str, host: &str, before: Option<&Message>) -> Vec<String> {
    let Some(first) = all.last() else { return Vec::new() };
    let known = before.and_then(|request| request.values(Name::HistoryInfo).last());
    let known =
        known.and_then(|value| parameter(value, b"index")).and_then(|index| std::str::from_utf8(index).ok());
    let is_index =
        |index: &&str| index.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && index.len() < 64;
    let mut index = known.filter(is_index).map_or_else(|| "1".to_owned(), |index| format!("{index}.1"));
    let mut out = vec![format!("<sip:{}@{host}>;index={index}", Uri::escape(first.user.as_bytes()))];
    let next = all.iter().rev().skip(1).map(|one| one.user.as_str()).chain(std::iter::once(target));
    for (one, user) in all.iter().rev().zip(next) {
        let (user, from) = (Uri::escape(user.as_bytes()), index.clone());
        index.push_str(".1");
        out.push(format!("<sip:{user}@{host};cause={}>;index={index};mp={from}", one.why.cause()));
    }
    out
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
