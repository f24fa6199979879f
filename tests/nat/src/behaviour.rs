//! What a NAT does, in the terms of RFC 4787, and the kinds that people meet.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::limiter::FlowLimit;

/// On how much of the remote end something depends: a mapping (RFC 4787 §4.1) or a filter (§5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// EI: one for all remote ends.
    EndpointIndependent,
    /// AD: one for each remote address.
    AddressDependent,
    /// APD: one for each remote address and port.
    AddressAndPortDependent,
}

/// Stands for every remote end.
const ANYBODY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

impl Dependence {
    /// The part of a remote end that matters; equal for all remote ends that are treated alike.
    pub(crate) fn part(self, remote: SocketAddr) -> SocketAddr {
        match self {
            Dependence::EndpointIndependent => ANYBODY,
            Dependence::AddressDependent => SocketAddr::new(remote.ip(), 0),
            Dependence::AddressAndPortDependent => remote,
        }
    }
}

/// How an external port is chosen for a new mapping (RFC 4787 §4.2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The internal port; a random one if that is taken.
    Preserving,
    /// The port after the latest mapping's, by this step.
    Sequential {
        /// From one mapping to the next; may be negative.
        step: i16,
    },
    /// Any that is free.
    Random,
}

/// Which of several external addresses an internal host gets (RFC 4787 §4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// Always the same one.
    Paired,
    /// Any, for each mapping anew.
    Arbitrary,
}

/// How long a mapping lives without traffic, and which traffic counts (RFC 4787 §4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetime {
    /// Before anything came back.
    pub unreplied: Duration,
    /// After that.
    pub replied: Duration,
    /// Outbound packets keep it alive.
    pub outbound: bool,
    /// Inbound packets keep it alive.
    pub inbound: bool,
}

impl Lifetime {
    /// Packets of both directions keep it alive for this time.
    pub const fn of(time: Duration) -> Self {
        Self { unreplied: time, replied: time, outbound: true, inbound: true }
    }

    /// Linux: nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream.
    pub const LINUX: Self = Self {
        unreplied: Duration::from_secs(30),
        replied: Duration::from_secs(120),
        outbound: true,
        inbound: true,
    };
}

/// All that a NAT does. Start from a [`Kind`] and change what differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// Whether IPv4 addresses are translated. IPv6 never is: there, and everywhere if this is false, the NAT is a
    /// stateful firewall that filters by the same rules.
    pub translates: bool,
    /// How mappings depend on the remote end.
    pub mapping: Dependence,
    /// Whom a mapping lets in: everybody, or the remote ends (by address, or address and port) that it sent to.
    pub filtering: Dependence,
    /// How ports are chosen.
    pub ports: Ports,
    /// From which ports, for all but preserved ones. For random ports its size is what port spraying is up against.
    pub port_range: RangeInclusive<u16>,
    /// Whether two mappings may share an external port as long as their remote ends differ ("port overloading", RFC
    /// 4787 §4.2.1); Linux does it.
    pub overloading: bool,
    /// Which external address is used, if there are several.
    pub pooling: Pooling,
    /// Whether internal hosts reach each other by their external addresses; the source is then the external one (RFC
    /// 4787 §6).
    pub hairpin: bool,
    /// Whether an unsolicited packet takes its place in the table, so that a later flow of a host to that remote end
    /// cannot have the external port that it was sent to. Linux does it when its INPUT chain lets such packets in.
    pub leaky: bool,
    /// How long mappings live.
    pub lifetime: Lifetime,
    /// A limit of new flows for each internal host.
    pub limit: Option<FlowLimit>,
    /// Whether it lets UDP through at all.
    pub is_udp_blocked: bool,
    /// New mappings per second that other users of the same NAT make: they move the ports of a sequential one.
    pub other_users: f64,
}

/// Kinds of NAT that people meet, named as their users call them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// EI mapping, EI filtering, ports preserved, hairpinning.
    FullCone,
    /// EI mapping, AD filtering, ports preserved, hairpinning.
    RestrictedCone,
    /// EI mapping, APD filtering, ports preserved, hairpinning: "port-restricted cone".
    Cone,
    /// AD mapping, APD filtering, random ports.
    SymmetricAddress,
    /// APD mapping, APD filtering, each mapping's port one above the last's.
    SymmetricSequential,
    /// APD mapping, APD filtering, random ports.
    SymmetricRandom,
    /// Linux's masquerading with unsolicited packets dropped: seen from outside a cone, inside APD with overloaded ports.
    LinuxCone,
    /// The same where the router takes unsolicited packets for itself.
    LinuxLeaky,
    /// No UDP.
    UdpBlocked,
    /// A stateful firewall in front of public addresses.
    Firewall,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::FullCone,
        Self::RestrictedCone,
        Self::Cone,
        Self::SymmetricAddress,
        Self::SymmetricSequential,
        Self::SymmetricRandom,
        Self::LinuxCone,
        Self::LinuxLeaky,
        Self::UdpBlocked,
        Self::Firewall,
    ];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::FullCone => "full-cone",
            Self::RestrictedCone => "restricted-cone",
            Self::Cone => "cone",
            Self::SymmetricAddress => "symmetric-address",
            Self::SymmetricSequential => "symmetric-sequential",
            Self::SymmetricRandom => "symmetric-random",
            Self::LinuxCone => "linux-cone",
            Self::LinuxLeaky => "linux-leaky",
            Self::UdpBlocked => "udp-blocked",
            Self::Firewall => "firewall",
        }
    }
}

impl From<Kind> for Behaviour {
    fn from(kind: Kind) -> Self {
        use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
        let cone = Behaviour {
            translates: true,
            mapping: EndpointIndependent,
            filtering: AddressAndPortDependent,
            ports: Ports::Preserving,
            port_range: 1024..=u16::MAX,
            overloading: false,
            pooling: Pooling::Paired,
            hairpin: true,
            leaky: false,
            // RFC 4787 REQ-5: not less than two minutes.
            lifetime: Lifetime::of(Duration::from_secs(120)),
            limit: None,
            is_udp_blocked: false,
            other_users: 0.0,
        };
        let symmetric = Behaviour {
            mapping: AddressAndPortDependent,
            ports: Ports::Random,
            hairpin: false,
            ..cone.clone()
        };
        let linux = Behaviour {
            ports: Ports::Preserving,
            overloading: true,
            lifetime: Lifetime::LINUX,
            ..symmetric.clone()
        };
        match kind {
            Kind::FullCone => Behaviour { filtering: EndpointIndependent, ..cone },
            Kind::RestrictedCone => Behaviour { filtering: AddressDependent, ..cone },
            Kind::Cone => cone,
            Kind::SymmetricAddress => Behaviour { mapping: AddressDependent, ..symmetric },
            Kind::SymmetricSequential => Behaviour { ports: Ports::Sequential { step: 1 }, ..symmetric },
            Kind::SymmetricRandom => symmetric,
            Kind::LinuxCone => linux,
            Kind::LinuxLeaky => Behaviour { leaky: true, ..linux },
            Kind::UdpBlocked => Behaviour { is_udp_blocked: true, ..cone },
            Kind::Firewall => Behaviour { translates: false, hairpin: false, ..cone },
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No kind has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no kind of NAT is called {0:?}; there are {names}", names = Kind::ALL.map(Kind::name).join(", "))]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
