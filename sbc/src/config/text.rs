//! Values that are more than one: listeners, media addresses, ranges, targets.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use ipnet::IpNet;
use media_relay::Address;
use sip_engine::config::Listener;
use sip_engine::io::{RealmId, Transport};

pub(super) fn read_transport(text: &str) -> Option<Transport> {
    match text.to_ascii_lowercase().as_str() {
        "udp" => Some(Transport::Udp),
        "tcp" => Some(Transport::Tcp),
        "tls" => Some(Transport::Tls),
        _ => None,
    }
}

pub(super) fn read_listener(text: &str, realm: RealmId) -> Result<Listener, String> {
    let wrong = || {
        format!("`{text}` is no listener: write `udp:192.0.2.1:5060`, `tcp:...` or `tls:[2001:db8::1]:5061`")
    };
    let (transport, rest) = text.split_once(':').ok_or_else(wrong)?;
    let transport = read_transport(transport).ok_or_else(wrong)?;
    let (address, advertised) = rest.split_once('=').unwrap_or((rest, rest));
    let address: SocketAddr = address.parse().map_err(|_| wrong())?;
    let advertised: SocketAddr = advertised.parse().map_err(|_| wrong())?;
    if advertised.ip().is_unspecified() {
        return Err(format!(
            "`{text}`: phones can't call back to {}; name the address itself",
            advertised.ip()
        ));
    }
    Ok(Listener { realm, transport, address, advertised, datagram_limit: 1300 })
}

pub(super) fn read_media_address(text: &str) -> Result<Address, String> {
    let wrong = || {
        format!(
            "`{text}` is no media address: write `192.0.2.1`, or `10.0.0.1=192.0.2.1` behind a one-to-one NAT"
        )
    };
    let (bind, advertised) = text.split_once('=').unwrap_or((text, text));
    let bind: IpAddr = bind.parse().map_err(|_| wrong())?;
    let advertised: IpAddr = advertised.parse().map_err(|_| wrong())?;
    if advertised.is_unspecified() || bind.is_ipv4() != advertised.is_ipv4() {
        return Err(wrong());
    }
    Ok(Address { bind, advertised })
}

/// A network in CIDR notation, or one address.
pub(super) fn read_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>()
        .or_else(|_| address())
        .map_err(|_| format!("`{text}` is no network: write `192.0.2.0/24`, `2001:db8::/32` or one address"))
}

pub(super) fn read_range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let range = text
        .split_once('-')
        .and_then(|(first, last)| Some(first.trim().parse::<u16>().ok()?..=last.trim().parse::<u16>().ok()?));
    range
        .filter(|range| *range.start() >= 1024 && range.end().saturating_sub(*range.start()) >= 3)
        .ok_or_else(|| {
            format!(
                "`{text}` is no range of ports: write `20000-29999`, from 1024 up, with four ports at least"
            )
        })
}

pub(super) fn read_target(text: &str) -> Result<(String, Option<u16>, Option<Transport>), String> {
    let wrong = || format!("`{text}` is no target: write `host`, `host:5060` or `192.0.2.9:5060/tcp`");
    let (place, transport) = match text.split_once('/') {
        Some((place, transport)) => (place, Some(read_transport(transport).ok_or_else(wrong)?)),
        None => (text, None),
    };
    if let Ok(address) = place.parse::<SocketAddr>() {
        return Ok((address.ip().to_string(), Some(address.port()), transport));
    }
    match place.rsplit_once(':') {
        Some((host, port)) => Ok((host.to_owned(), Some(port.parse().map_err(|_| wrong())?), transport)),
        None if place.is_empty() => Err(wrong()),
        None => Ok((place.to_owned(), None, transport)),
    }
}
