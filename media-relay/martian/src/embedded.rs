//! IPv6 addresses that lead to an IPv4 address.

use std::net::{IpAddr, Ipv4Addr};

/// The IPv4 address that packets to this one reach in the end, or may:
/// mapped and compatible (RFC 4291 §2.5.5), translated (RFC 6052 §2.1, and RFC 8215, whose prefixes of other lengths are
/// read as one of 96 bits), 6to4 (RFC 3056 §2), Teredo (RFC 4380 §4, the client's), ISATAP (RFC 5214 §6.1).
pub fn embedded_ipv4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match [a, b, c, d, e, f] {
        [0, 0, 0, 0, 0, 0] if g != 0 => Some(v4(g, h)),
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => Some(v4(g, h)),
        [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, ..] => Some(v4(g, h)),
        [0x2002, high, low, ..] => Some(v4(high, low)),
        [0x2001, 0, ..] => Some(v4(!g, !h)),
        [.., 0 | 0x200, 0x5efe] => Some(v4(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_within_is_found_and_none_where_there_is_none() {
        let within = |text: &str| embedded_ipv4(text.parse().unwrap()).map(|ip| ip.to_string());
        for text in [
            "::ffff:192.0.2.33",
            "::192.0.2.33",
            "::ffff:0:192.0.2.33",
            "64:ff9b::192.0.2.33",
            "64:ff9b:1::192.0.2.33",
            "2002:c000:221::1",
            "2001::3fff:fdde",
            "fe80::5efe:192.0.2.33",
            "2001:db8::200:5efe:192.0.2.33",
        ] {
            assert_eq!(within(text).as_deref(), Some("192.0.2.33"), "{text}");
        }
        for text in ["::", "::1", "2001:db8::1", "192.0.2.33"] {
            assert_eq!(within(text), None, "{text}");
        }
    }
}
