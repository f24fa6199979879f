//! What of a description must not reach the other side: attributes that let the ends find each other past the relay, and whatever names an
//! address.

use std::net::{IpAddr, Ipv6Addr};

/// Answered per leg or removed, never passed; each of them names a place, or a product.
const PER_LEG: [&[u8]; 18] = [
    b"candidate",
    b"remote-candidates",
    b"end-of-candidates",
    b"ice-ufrag",
    b"ice-pwd",
    b"ice-options",
    b"ice-lite",
    b"ice-mismatch",
    b"ice-pacing",
    b"rtcp-mux",
    b"rtcp-mux-only",
    b"rtcp",
    b"crush",
    b"bundle-only",
    // Other addresses of the same media (RFC 6947 §4, RFC 4091, RFC 7006 §3.1) and whom it takes media from (RFC 4570).
    b"alt",
    b"altc",
    b"ccap",
    b"source-filter",
];

/// The name of an attribute, what stands before its colon.
pub(super) fn name(attribute: &[u8]) -> &[u8] {
    attribute.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii()
}

pub(super) fn is_per_leg(attribute: &[u8]) -> bool {
    let name = name(attribute);
    let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
    PER_LEG.into_iter().any(is)
        // Names the author's product, as User-Agent does (RFC 4566 §6).
        || is(b"tool")
        || (is(b"group") && memchr::memmem::find(&attribute.to_ascii_uppercase(), b"BUNDLE").is_some())
}

/// Whether a literal address stands in a text. The unspecified one is nobody's.
pub(super) fn names_an_address(text: &[u8]) -> bool {
    let is_part = |byte: &u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    text.split(|byte| !is_part(byte)).any(|run| is_ipv6(run) || has_ipv4(run))
}

/// Four numbers, with leading zeros or without.
fn has_ipv4(run: &[u8]) -> bool {
    run.split(|byte| !byte.is_ascii_digit() && *byte != b'.').any(|word| {
        let mut word = word;
        while let [b'.', rest @ ..] | [rest @ .., b'.'] = word {
            word = rest;
        }
        let mut numbers = word.split(|byte| *byte == b'.').map(|digits| {
            let text = std::str::from_utf8(digits).ok().filter(|_| digits.len() <= 3)?;
            text.parse::<u8>().ok()
        });
        let four = [numbers.next(), numbers.next(), numbers.next(), numbers.next()].map(Option::flatten);
        numbers.next().is_none() && four.iter().all(Option::is_some) && four != [Some(0); 4]
    })
}

fn is_ipv6(run: &[u8]) -> bool {
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified());
    let Ok(run) = std::str::from_utf8(run) else { return false };
    run.len() > 2
        && (is_address(run)
            || is_address(run.trim_end_matches('.'))
            || is_address(run.strip_prefix(':').unwrap_or(run)))
}

/// An address, or a name with a domain: a word that means its author wherever it stands. (`o=- 1 1 IN IP4 101` must not
/// cost the line `a=rtpmap:101`.)
pub(super) fn names_a_host(word: &[u8]) -> bool {
    let is_name = memchr::memchr(b'.', word).is_some()
        && word.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
    let address = std::str::from_utf8(word).ok().and_then(|word| word.parse::<IpAddr>().ok());
    address.map_or(is_name && word.len() >= 4, |address| !address.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_wherever_they_stand() {
        for text in [
            "10.1.1.9",
            "x=10.1.1.9:4000",
            "http://user@10.1.1.9/",
            "mapped=::ffff:10.1.1.9",
            "[2001:db8::1]:5060",
            "addr:2001:db8::1",
            "fe80::1%eth0",
            "a 010.001.001.009 b",
            "10.1.1.9.",
            "(10.1.1.9)",
            "IP4 10.1.1.9/127",
        ] {
            assert!(names_an_address(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        for text in [
            "rtpmap:101 telephone-event/8000",
            "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:32",
            "fingerprint:sha-1 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB",
            "fmtp:96 profile-level-id=42e01f; max-br=1.5",
            "extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            "x-version:1.2.3",
            "x-oid:1.2.840.113549.1",
            "x-number:1.2.3.400",
            "rtcp-fb:* nack 0.0.0.0",
            "12:30:45",
        ] {
            assert!(!names_an_address(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_lets_the_ends_meet_past_the_relay_is_known_in_every_form() {
        for attribute in [
            "candidate:1 1 UDP 1 x.local 1 typ host",
            "Candidate :1",
            "ALTC:1 IP4 pbx.example 4000",
            "source-filter: incl IN IP4 * x",
            "ice-lite",
            "group: BUNDLE a v",
            "tool:x",
        ] {
            assert!(is_per_leg(attribute.as_bytes()), "{attribute}");
        }
        for attribute in ["rtcp-fb:* nack", "rtcp-rsize", "group:LS 1 2", "sendrecv", "candidates-of-ours"] {
            assert!(!is_per_leg(attribute.as_bytes()), "{attribute}");
        }
    }
}
