//! `a=candidate` (RFC 8839 §5.1), UDP and component 1 only.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// Where an address comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    /// An interface of the endpoint.
    Host,
    /// Seen by a server, or mapped by the router.
    ServerReflexive,
    /// Seen in a check (never trickled).
    PeerReflexive,
}

/// An address where an endpoint may be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// RFC 8445 §5.1.1.3.
    pub foundation: String,
    /// RFC 8445 §5.1.2.
    pub priority: u32,
    /// Where.
    pub address: SocketAddr,
    /// What.
    pub kind: CandidateKind,
    /// Base of a server-reflexive one.
    pub related: Option<SocketAddr>,
}

impl Candidate {
    /// `None` for other transports, other components, names instead of addresses, and kinds that are not used here.
    pub fn read(line: &str) -> Option<Self> {
        let line = line.strip_prefix("a=").unwrap_or(line).strip_prefix("candidate:")?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [foundation, component, transport, priority, address, port, typ, kind, rest @ ..] = &words[..]
        else {
            return None;
        };
        if *component != "1"
            || !transport.eq_ignore_ascii_case("udp")
            || *typ != "typ"
            || foundation.len() > 32
        {
            return None;
        }
        let address = SocketAddr::new(address.parse::<IpAddr>().ok()?, port.parse().ok()?);
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return None;
        }
        let named = |name: &str| {
            let mut pairs = rest.as_chunks().0.iter();
            pairs.find_map(|[known, value]| (*known == name).then_some(*value))
        };
        let related = named("raddr")
            .zip(named("rport"))
            .and_then(|(ip, port)| Some(SocketAddr::new(ip.parse().ok()?, port.parse().ok()?)));
        Some(Self {
            foundation: (*foundation).to_owned(),
            priority: priority.parse::<u32>().ok().filter(|priority| (1..1 << 31).contains(priority))?,
            address,
            kind: match *kind {
                "host" => CandidateKind::Host,
                "srflx" => CandidateKind::ServerReflexive,
                _ => return None,
            },
            related,
        })
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            CandidateKind::Host => "host",
            CandidateKind::ServerReflexive => "srflx",
            CandidateKind::PeerReflexive => "prflx",
        };
        let (ip, port) = (self.address.ip(), self.address.port());
        write!(f, "a=candidate:{} 1 UDP {} {ip} {port} typ {kind}", self.foundation, self.priority)?;
        match self.related {
            Some(related) => write!(f, " raddr {} rport {}", related.ip(), related.port()),
            None => Ok(()),
        }
    }
}

/// RFC 8445 §5.1.2.1 for component 1; `preference` is the type preference, `local` tells addresses of one kind apart.
pub const fn priority(preference: u8, local: u16) -> u32 {
    ((preference as u32) << 24) | ((local as u32) << 8) | 255
}

/// Type preference (docs/crush.md §4) of an interface's address.
pub const HOST: u8 = 126;
/// Of what a router was asked to map.
pub const MAPPING: u8 = 120;
/// Of what a check discovers.
const REFLEXIVE: u8 = 110;
/// Of what a server, or the relay, has seen.
pub const DISCOVERED: u8 = 100;

/// PRIORITY of every check: what the peer-reflexive candidate would have that it may discover (RFC 8445 §7.1.1).
pub const fn reflexive_priority() -> u32 {
    priority(REFLEXIVE, u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_8839_reads_and_writes() {
        let line = "a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998";
        assert_eq!(Candidate::read(line).unwrap().to_string(), line);
        let six = "a=candidate:1 1 UDP 2130706431 2001:db8::1 9000 typ host";
        assert_eq!(Candidate::read(six).unwrap().to_string(), six);
    }

    #[test]
    fn what_is_not_for_us_is_left_out() {
        for line in [
            "a=candidate:1 2 UDP 1 192.0.2.3 9 typ host",
            "a=candidate:1 1 TCP 1 192.0.2.3 9 typ host tcptype active",
            "a=candidate:1 1 UDP 1 host.local 9 typ host",
            "a=candidate:1 1 UDP 1 192.0.2.3 0 typ host",
            "a=candidate:1 1 UDP 1 224.0.0.1 9 typ host",
            "a=candidate:1 1 UDP 1 192.0.2.3 9 typ relay raddr 0.0.0.0 rport 0",
            "a=candidate:1 1 UDP 4294967296 192.0.2.3 9 typ host",
            "a=candidate:1 1 UDP",
        ] {
            assert_eq!(Candidate::read(line), None, "{line}");
        }
    }
}
