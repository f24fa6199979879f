//! Rule sets with which Linux itself plays a NAT, for `nft -f -` in a router's namespace. Its device towards the hosts
//! is called `lan`, the other `wan`.

use std::fmt::{self, Write as _};
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::behaviour::UnknownKind;

/// A kind that the kernel can play. TCP passes through all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rules {
    /// Ports kept, unsolicited packets dropped: [`Kind::LinuxCone`](crate::Kind::LinuxCone).
    Cone,
    /// The same without the drop: [`Kind::LinuxLeaky`](crate::Kind::LinuxLeaky).
    Leaky,
    /// A random port for each flow: [`Kind::SymmetricRandom`](crate::Kind::SymmetricRandom).
    SymmetricRandom,
    /// The next port for each flow: [`Kind::SymmetricSequential`](crate::Kind::SymmetricSequential), with ports from
    /// [`SEQUENTIAL_FROM`] in turn.
    SymmetricSequential,
    /// Ports 10000-19999 are the first host's and 20000-29999 the second's, for anybody; others are kept, but closed.
    FullCone,
    /// No UDP.
    UdpBlocked,
}

/// The first of the [`SEQUENTIAL_COUNT`] ports that [`Rules::SymmetricSequential`] gives in turn.
pub const SEQUENTIAL_FROM: u16 = 40_000;
/// How many ports [`Rules::SymmetricSequential`] has.
pub const SEQUENTIAL_COUNT: u16 = 4_096;

impl Rules {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Cone,
        Self::Leaky,
        Self::SymmetricRandom,
        Self::SymmetricSequential,
        Self::FullCone,
        Self::UdpBlocked,
    ];

    /// Its name on command lines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cone => "nft-cone",
            Self::Leaky => "nft-leaky",
            Self::SymmetricRandom => "nft-symmetric-random",
            Self::SymmetricSequential => "nft-symmetric-sequential",
            Self::FullCone => "nft-full-cone",
            Self::UdpBlocked => "nft-udp-blocked",
        }
    }

    /// The rule set of a router with this external address; `hosts` are the two that a full cone serves.
    pub fn text(self, external: Ipv4Addr, hosts: [Ipv4Addr; 2]) -> String {
        let mut text = String::from("table ip nat {\n");
        text += &match self {
            Self::FullCone => full_cone(external, hosts),
            Self::SymmetricRandom => {
                postrouting("oifname wan meta l4proto udp masquerade to :1024-65535 fully-random")
            }
            Self::SymmetricSequential => {
                // A bare `offset` to numgen is taken in the wrong byte order (a step of 256), hence the map.
                let mut map = String::new();
                for index in 0..SEQUENTIAL_COUNT {
                    let _ = write!(map, "{index} : {}, ", SEQUENTIAL_FROM + index);
                }
                let ports = format!("numgen inc mod {SEQUENTIAL_COUNT} map {{ {map} }}");
                postrouting(&format!("oifname wan meta l4proto udp snat to {external} : {ports}"))
            }
            Self::Cone | Self::Leaky | Self::UdpBlocked => postrouting(""),
        };
        if self != Self::Leaky {
            // Without this, what is unsolicited makes an entry for the router itself, and a later flow of a host to that
            // remote end gets another port.
            text += "  chain input {\n    type filter hook input priority filter;\n    iifname wan ct state established,related accept\n    iifname wan meta l4proto udp drop\n  }\n";
        }
        if self == Self::UdpBlocked {
            text += "  chain forward {\n    type filter hook forward priority filter;\n    meta l4proto udp drop\n  }\n";
        }
        text + "}\n"
    }
}

fn postrouting(first: &str) -> String {
    format!(
        "  chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    {first}\n    oifname wan masquerade\n  }}\n"
    )
}

fn full_cone(external: Ipv4Addr, [first, second]: [Ipv4Addr; 2]) -> String {
    format!(
        "  chain prerouting {{\n    type nat hook prerouting priority dstnat;\n    \
         ip daddr {external} udp dport 10000-19999 dnat to {first}\n    \
         ip daddr {external} udp dport 20000-29999 dnat to {second}\n  }}\n  \
         chain postrouting {{\n    type nat hook postrouting priority srcnat;\n    \
         oifname lan ct status dnat ip saddr {{ {first}, {second} }} snat to {external}\n    \
         oifname wan masquerade\n  }}\n"
    )
}

/// A limit of new UDP flows for each host, in addition to a kind's rules.
pub fn limiter(per_second: u32, burst: u32) -> String {
    format!(
        "table ip limiter {{\n  set hosts {{ type ipv4_addr; flags dynamic; timeout 1m; }}\n  chain forward {{\n    \
         type filter hook forward priority -10;\n    iifname lan meta l4proto udp ct state new \
         add @hosts {{ ip saddr limit rate over {per_second}/second burst {burst} packets }} counter drop\n  }}\n}}\n"
    )
}

/// What lets nothing pass between inside and a remote address; `nft delete table ip cut` takes it back.
pub fn cut(remotes: &[Ipv4Addr]) -> String {
    let list = remotes.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "table ip cut {{\n  chain forward {{\n    type filter hook forward priority -20;\n    ip daddr {{ {list} }} drop\n    \
         ip saddr {{ {list} }} drop\n  }}\n}}\n"
    )
}

/// A stateful firewall for IPv6: what is inside speaks first.
pub const FIREWALL6: &str = "table ip6 firewall {\n  chain forward {\n    type filter hook forward priority filter;\n    \
    iifname wan ct state established,related accept\n    iifname wan meta l4proto ipv6-icmp accept\n    iifname wan drop\n  }\n}\n";

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Rules {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Self, UnknownKind> {
        Self::ALL.into_iter().find(|rules| rules.name() == name).ok_or_else(|| UnknownKind(name.to_owned()))
    }
}
