//! The one test of addresses that peers name (RFC 1812 §5.3.7 calls the unfit ones martian).
//!
//! Descriptions, candidates, Contact, Route, `maddr`, 3xx and Refer-To all say where packets of ours are to go. Whatever
//! names a place goes through [`Rules::judge`] before anything is sent there: a peer that could name our own ports or those of
//! this machine would reach through us what it cannot reach itself. Both cores depend on this crate, which depends on
//! neither.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod embedded;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

pub use embedded::embedded_ipv4;

/// Why nothing is sent to an address that a peer named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
pub enum Unfit {
    /// 0.0.0.0/8 or `::` (RFC 6890 §2.2.2): nobody's. In SDP it may mean hold, or not known yet.
    #[error("the unspecified address")]
    Unspecified,
    /// 127.0.0.0/8 or `::1`, in a realm that is not on loopback itself.
    #[error("a loopback address")]
    Loopback,
    /// 224.0.0.0/4 or ff00::/8.
    #[error("a multicast address")]
    Multicast,
    /// 255.255.255.255.
    #[error("the broadcast address")]
    Broadcast,
    /// 169.254.0.0/16 or fe80::/10: means something else on each link.
    #[error("a link-local address")]
    LinkLocal,
    /// A listener or media port of this node, or another port of this machine in a realm that has no `local_peers`.
    #[error("an address of this node")]
    Ours,
}

/// What this node has of its own: bound or advertised, listeners and ranges of media ports.
#[derive(Debug, Clone, Default)]
pub struct Own {
    ports: Vec<(IpAddr, RangeInclusive<u16>)>,
}

impl Own {
    /// A port where something listens, whatever the protocol.
    pub fn listener(&mut self, address: SocketAddr) {
        self.range(address.ip(), address.port()..=address.port());
    }

    /// Ports that media may have.
    pub fn range(&mut self, address: IpAddr, ports: RangeInclusive<u16>) {
        self.ports.push((plain(address), ports));
    }

    /// Whether something of ours is bound or advertised there. What is bound to the unspecified address is at every
    /// address of this machine.
    fn has(&self, address: IpAddr, port: u16) -> bool {
        let is_here = address.is_loopback() || self.names(address);
        let is_there = |own: &IpAddr| *own == address || (own.is_unspecified() && is_here);
        self.ports.iter().any(|(own, ports)| ports.contains(&port) && is_there(own))
    }

    /// Whether the configuration names this address as ours. Of loopback only what it names is: the peers of a realm on
    /// loopback have other such addresses.
    fn names(&self, address: IpAddr) -> bool {
        self.ports.iter().any(|(own, _)| *own == address)
    }
}

/// What the peers of one realm may name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Realm {
    /// A listener or media address of its own is a loopback one: its peers are on this machine.
    pub is_loopback: bool,
    /// Its peers may name ports of this machine that are not this node's.
    pub has_local_peers: bool,
}

/// What may be named, by realm.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    own: Own,
    realms: Vec<Realm>,
}

impl Rules {
    /// `realms` by number; of any other realm the strictest is assumed.
    pub fn new(own: Own, realms: Vec<Realm>) -> Self {
        Self { own, realms }
    }

    /// Whether packets may be sent where a peer of this realm says. An IPv6 address is judged by the IPv4 address that it
    /// embeds as well: where it goes in the end is what counts.
    pub fn judge(&self, realm: u16, address: SocketAddr) -> Result<(), Unfit> {
        let realm = self.realms.get(usize::from(realm)).copied().unwrap_or_default();
        let embedded = embedded_ipv4(address.ip()).map(IpAddr::V4);
        [Some(plain(address.ip())), embedded]
            .into_iter()
            .flatten()
            .try_for_each(|ip| self.judge_plain(realm, ip, address.port()))
    }

    fn judge_plain(&self, realm: Realm, ip: IpAddr, port: u16) -> Result<(), Unfit> {
        nature(ip).map_or(Ok(()), |unfit| match unfit {
            Unfit::Loopback if realm.is_loopback => Ok(()),
            _ => Err(unfit),
        })?;
        if self.own.has(ip, port) || (self.own.names(ip) && !realm.has_local_peers) {
            return Err(Unfit::Ours);
        }
        Ok(())
    }
}

/// What is wrong with an address wherever it is named, whoever has it. `None` of ordinary ones.
pub fn nature(address: IpAddr) -> Option<Unfit> {
    match plain(address) {
        IpAddr::V4(ip) if ip.octets().first() == Some(&0) => Some(Unfit::Unspecified),
        IpAddr::V4(Ipv4Addr::BROADCAST) => Some(Unfit::Broadcast),
        IpAddr::V4(ip) if ip.is_link_local() => Some(Unfit::LinkLocal),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(Unfit::LinkLocal),
        ip if ip.is_unspecified() => Some(Unfit::Unspecified),
        ip if ip.is_loopback() => Some(Unfit::Loopback),
        ip if ip.is_multicast() => Some(Unfit::Multicast),
        _ => None,
    }
}

/// `::ffff:192.0.2.1` is 192.0.2.1 (RFC 4291 §2.5.5.2).
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Realm 0 is on public addresses, 1 on loopback, 2 has local peers.
    fn rules() -> Rules {
        let mut own = Own::default();
        own.listener("192.0.2.1:5060".parse().unwrap());
        own.range("10.0.0.1".parse().unwrap(), 20000..=29999);
        own.range("192.0.2.2".parse().unwrap(), 20000..=29999);
        own.listener("127.0.60.1:5060".parse().unwrap());
        own.listener("0.0.0.0:8080".parse().unwrap());
        let realm = |is_loopback, has_local_peers| Realm { is_loopback, has_local_peers };
        Rules::new(own, vec![realm(false, false), realm(true, false), realm(false, true)])
    }

    fn judge(realm: u16, address: &str) -> Result<(), Unfit> {
        rules().judge(realm, address.parse().unwrap())
    }

    #[test]
    fn what_is_nobodys_or_everybodys_is_refused_in_whatever_form_it_is_written() {
        for (address, unfit) in [
            ("0.0.0.0:9", Unfit::Unspecified),
            ("0.1.2.3:9", Unfit::Unspecified),
            ("[::]:9", Unfit::Unspecified),
            ("[::ffff:0.0.0.0]:9", Unfit::Unspecified),
            ("127.0.0.1:4000", Unfit::Loopback),
            ("127.200.0.1:4000", Unfit::Loopback),
            ("[::1]:4000", Unfit::Loopback),
            ("[::ffff:127.0.0.1]:4000", Unfit::Loopback),
            ("[::127.0.0.1]:4000", Unfit::Loopback),
            ("[64:ff9b::7f00:1]:4000", Unfit::Loopback),
            ("[64:ff9b:1::127.0.0.1]:4000", Unfit::Loopback),
            ("[2002:7f00:1::1]:4000", Unfit::Loopback),
            ("[2001:0:192.0.2.9:0:0:80ff:fffe]:4000", Unfit::Loopback),
            ("[2001:db8::5efe:127.0.0.1]:4000", Unfit::Loopback),
            ("224.0.0.1:4000", Unfit::Multicast),
            ("239.255.255.250:1900", Unfit::Multicast),
            ("[ff02::1]:4000", Unfit::Multicast),
            ("[2002:e000:1::]:4000", Unfit::Multicast),
            ("255.255.255.255:4000", Unfit::Broadcast),
            ("[::ffff:255.255.255.255]:4000", Unfit::Broadcast),
            ("169.254.169.254:80", Unfit::LinkLocal),
            ("[64:ff9b::169.254.169.254]:80", Unfit::LinkLocal),
            ("[fe80::1]:4000", Unfit::LinkLocal),
        ] {
            let address = address.replace(":192.0.2.9:", ":c000:209:");
            assert_eq!(judge(0, &address), Err(unfit), "{address}");
        }
    }

    #[test]
    fn ordinary_addresses_are_fit_private_ones_too() {
        for address in [
            "203.0.113.9:4000",
            "10.0.0.5:4000",
            "100.64.3.2:4000",
            "[2001:db8::9]:4000",
            "[64:ff9b::203.0.113.9]:4000",
            "[2002:cb00:7109::1]:4000",
            "[fd00::9]:4000",
        ] {
            assert_eq!(judge(0, address), Ok(()), "{address}");
        }
    }

    #[test]
    fn ours_is_every_listener_and_media_port_and_other_ports_of_this_machine_by_a_setting_only() {
        for (realm, address, expected) in [
            (0, "192.0.2.1:5060", Err(Unfit::Ours)),
            (0, "[::ffff:192.0.2.1]:5060", Err(Unfit::Ours)),
            (0, "[64:ff9b::192.0.2.1]:5060", Err(Unfit::Ours)),
            (0, "10.0.0.1:20000", Err(Unfit::Ours)),
            (0, "192.0.2.2:29999", Err(Unfit::Ours)),
            (0, "192.0.2.2:40000", Err(Unfit::Ours)),
            (2, "192.0.2.2:40000", Ok(())),
            (2, "192.0.2.2:20000", Err(Unfit::Ours)),
            (2, "192.0.2.2:8080", Err(Unfit::Ours)),
            (1, "127.0.60.1:5060", Err(Unfit::Ours)),
            (1, "127.0.60.1:4000", Err(Unfit::Ours)),
            (1, "127.0.60.9:8080", Err(Unfit::Ours)),
            (1, "127.0.60.9:4000", Ok(())),
            (7, "192.0.2.2:40000", Err(Unfit::Ours)),
        ] {
            assert_eq!(judge(realm, address), expected, "realm {realm}, {address}");
        }
    }
}
