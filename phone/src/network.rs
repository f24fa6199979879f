//! Which address of ours leads to the registrar, and that it has changed.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// How often it is looked at. A look sends nothing: the kernel is asked for a route.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Our address on the way there; an error if there is no way now.
pub(crate) fn towards(remote: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
    socket.connect(remote)?;
    Ok(socket.local_addr()?.ip())
}

/// Our address of the other family, if that leads anywhere. Asked about an address for documentation: nothing is sent.
pub(crate) fn other_family(ours: IpAddr) -> Option<IpAddr> {
    let somewhere: IpAddr = match ours {
        IpAddr::V4(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        IpAddr::V6(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
    };
    let other = towards(SocketAddr::new(somewhere, 9)).ok()?;
    let is_local = match other {
        IpAddr::V4(other) => other.is_link_local(),
        IpAddr::V6(other) => other.is_unicast_link_local(),
    };
    (!is_local && !other.is_loopback()).then_some(other)
}
