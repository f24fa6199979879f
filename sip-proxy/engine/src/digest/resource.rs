//! Whether a digest was made for the request that carries it (RFC 7616 §3.4.6).
//!
//! A digest that a phone has given for one call must be good for no other: whoever reads it would dial any number with
//! it. What phones write differently of one resource is the same: letter case of host and scheme, `sip` and `sips`,
//! a default port, parameters, escapes. Another user, number or host is another resource.

use std::net::IpAddr;

use sip_wire::{Host, Method, Scheme, Uri};

/// Whether the digest's `uri` names the resource of the Request-URI. The user of a REGISTER's says nothing (RFC 3261
/// §10.2).
pub(super) fn is_same(digest: &[u8], requested: &[u8], method: Method<'_>) -> bool {
    if digest == requested {
        return true;
    }
    let (Ok(digest), Ok(requested)) = (Uri::parse(digest), Uri::parse(requested)) else { return false };
    let is_tel = |uri: &Uri<'_>| uri.scheme() == Scheme::Tel;
    if is_tel(&digest) || is_tel(&requested) {
        return is_tel(&digest) && is_tel(&requested) && number(digest.user()) == number(requested.user());
    }
    let is_sip = |uri: &Uri<'_>| matches!(uri.scheme(), Scheme::Sip | Scheme::Sips);
    is_sip(&digest)
        && is_sip(&requested)
        && (method == Method::REGISTER || Uri::unescape(digest.user()) == Uri::unescape(requested.user()))
        && is_same_host(digest.host(), requested.host())
        && port(digest.port()) == port(requested.port())
}

fn is_same_host(one: Host<'_>, other: Host<'_>) -> bool {
    match (one.address().map(|ip| ip.to_canonical()), other.address().map(|ip: IpAddr| ip.to_canonical())) {
        (Some(one), Some(other)) => one == other,
        (None, None) => without_root(one.as_bytes()).eq_ignore_ascii_case(without_root(other.as_bytes())),
        _ => false,
    }
}

fn without_root(host: &[u8]) -> &[u8] {
    host.strip_suffix(b".").unwrap_or(host)
}

/// The ports of both schemes stand for none.
fn port(port: Option<u16>) -> Option<u16> {
    port.filter(|port| !matches!(port, 5060 | 5061))
}

/// A telephone number without what only a reader needs (RFC 3966 §5), its parameters left out.
fn number(user: &[u8]) -> Vec<u8> {
    let end = user.iter().position(|byte| *byte == b';').unwrap_or(user.len());
    let digits = user.get(..end).unwrap_or_default();
    digits.iter().copied().filter(|byte| !b"-.()".contains(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_phones_write_differently_of_one_resource_is_the_same() {
        let requested = b"sip:bob@Example.net;transport=udp";
        for same in [
            "sip:bob@example.net",
            "SIP:bob@EXAMPLE.NET:5060",
            "sips:bob@example.net:5061",
            "sip:b%6fb@example.net.;user=phone",
            "sip:bob:password@example.net",
        ] {
            assert!(is_same(same.as_bytes(), requested, Method::INVITE), "{same}");
        }
        assert!(is_same(b"tel:+49-30-1", b"TEL:+49301;phone-context=x", Method::INVITE));
        assert!(is_same(b"sip:alice@example.net", b"sip:example.net", Method::REGISTER));
    }

    #[test]
    fn another_user_number_host_or_port_is_another_resource() {
        let requested = b"sip:bob@example.net";
        for other in [
            "sip:Bob@example.net",
            "sip:bobby@example.net",
            "sip:+49900@example.net",
            "sip:example.net",
            "sip:bob@example.net.attacker.example",
            "sip:bob@192.0.2.1",
            "sip:bob@example.net:5070",
            "tel:bob",
            "bob@example.net",
            "*",
            "",
        ] {
            assert!(!is_same(other.as_bytes(), requested, Method::INVITE), "{other}");
        }
        assert!(!is_same(b"tel:+491", b"tel:+492", Method::INVITE));
        assert!(!is_same(b"sip:other.example", b"sip:example.net", Method::REGISTER));
    }
}
