//! One pair of a socket and a remote address, and its place in the order of checks (docs/crush.md §5).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_wire::sdp::crush::CandidateKind;

use super::pace::Flow;
use super::reach::Cause;
use crate::agent::SocketId;

/// Transmissions of one check.
pub(crate) const TRANSMISSIONS: u8 = 8;

/// How promising a pair looks; greater is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// A private address that is in none of our subnets.
    Distant,
    /// Nothing special.
    Ordinary,
    /// Host addresses behind one public address: a trombone.
    Trombone,
    /// Host addresses of one subnet.
    SameSubnet,
}

/// Where a check on a pair stands (RFC 8445 §6.1.2.6; nothing is frozen, since there is one stream of checks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waiting,
    /// So many transmissions so far, the next at this moment.
    InProgress {
        sent: u8,
        next: Duration,
    },
    Succeeded,
    Failed,
}

/// One pair.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) socket: SocketId,
    pub(crate) remote: SocketAddr,
    pub(crate) class: Class,
    /// RFC 8445 §6.1.2.3 without the roles, which do not change the order of one side's list noticeably.
    pub(crate) priority: u64,
    pub(crate) state: State,
    /// A request of ours was answered here.
    pub(crate) answered: bool,
    /// A request of the peer was answered here.
    pub(crate) asked: bool,
    /// The peer (controlling) nominated it.
    pub(crate) nominated: bool,
    pub(crate) round_trip: Option<Duration>,
    /// Of its check.
    pub(crate) transmissions: u8,
}

impl Pair {
    pub(crate) fn new(socket: SocketId, remote: SocketAddr, class: Class, priority: u64) -> Self {
        Self {
            socket,
            remote,
            class,
            priority,
            state: State::Waiting,
            answered: false,
            asked: false,
            nominated: false,
            round_trip: None,
            transmissions: TRANSMISSIONS,
        }
    }

    /// Something authentic has come on it: the flow is there. Of all others nobody knows whether a NAT or a limiter has taken what was sent
    /// on them, so each packet counts as one that makes a new flow.
    pub(crate) fn is_proven(&self) -> bool {
        self.answered || self.asked
    }

    /// What its next check is.
    pub(crate) fn flow(&self) -> Flow {
        match self.state {
            _ if self.is_proven() => Flow::Proven,
            State::Waiting => Flow::New,
            State::InProgress { .. } | State::Succeeded | State::Failed => Flow::Unproven,
        }
    }

    /// Why it is checked.
    pub(crate) fn cause(&self) -> Cause {
        if self.asked { Cause::Asked } else { Cause::Named }
    }

    /// Proven in both directions.
    pub(crate) fn works(&self) -> bool {
        self.answered && self.asked
    }

    /// For sorting; greater is better.
    pub(crate) fn rank(&self) -> (Class, u64) {
        (self.class, self.priority)
    }
}

/// RFC 8445 §6.1.2.3 with G = max and D = min, which both sides agree on without roles.
pub(crate) fn pair_priority(one: u32, other: u32) -> u64 {
    (u64::from(one.min(other)) << 32).saturating_add(u64::from(one.max(other)) << 1)
}

/// Whether both lie in one /24 or /64.
pub(crate) fn same_subnet(one: IpAddr, other: IpAddr) -> bool {
    match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => one.octets()[..3] == other.octets()[..3],
        (IpAddr::V6(one), IpAddr::V6(other)) => one.octets()[..8] == other.octets()[..8],
        _ => false,
    }
}

/// Not routed on the Internet: RFC 1918, RFC 6598, link-local, unique local (RFC 4193).
pub(crate) fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || ip.is_loopback() || (a == 100 && b & 0xC0 == 64)
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unique_local(),
    }
}

/// The class of a pair. `trombone`: both ends show the same public address.
pub(crate) fn classify(local: IpAddr, remote: IpAddr, kind: CandidateKind, trombone: bool) -> Class {
    match kind {
        CandidateKind::Host if same_subnet(local, remote) => Class::SameSubnet,
        CandidateKind::Host if trombone && is_private(remote) => Class::Trombone,
        _ if is_private(remote) && !same_subnet(local, remote) => Class::Distant,
        _ => Class::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_subnet_comes_before_a_trombone_and_distant_private_addresses_last() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let class = |remote: &str, kind, trombone| classify(ip("192.168.1.10"), ip(remote), kind, trombone);
        assert_eq!(class("192.168.1.20", CandidateKind::Host, false), Class::SameSubnet);
        assert_eq!(class("192.168.2.20", CandidateKind::Host, true), Class::Trombone);
        assert_eq!(class("192.168.2.20", CandidateKind::Host, false), Class::Distant);
        assert_eq!(class("198.51.100.7", CandidateKind::ServerReflexive, true), Class::Ordinary);
        assert_eq!(class("100.64.3.1", CandidateKind::Host, false), Class::Distant);
        assert!(Class::SameSubnet > Class::Trombone && Class::Ordinary > Class::Distant);
        assert!(same_subnet(ip("2001:db8:1:2::3"), ip("2001:db8:1:2:9::4")));
    }
}
