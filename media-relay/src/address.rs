//! Socket addresses as the kernel writes them.

#![allow(unsafe_code, reason = "the standard library has no conversion in place")]

use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// Room for any of them.
pub(crate) const ROOM: u32 = mem::size_of::<libc::sockaddr_storage>() as u32;

pub(crate) fn read(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds this structure, and it is large and aligned enough.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            Some(v4(address))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            Some(v6(address))
        }
        _ => None,
    }
}

pub(crate) fn v4(address: &libc::sockaddr_in) -> SocketAddr {
    let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
    SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port)))
}

pub(crate) fn v6(address: &libc::sockaddr_in6) -> SocketAddr {
    let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
    SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0))
}

/// Writes the address of `to` with `port`; its length there.
#[inline]
pub(crate) fn write(storage: &mut libc::sockaddr_storage, to: SocketAddr, port: u16) -> u32 {
    match to {
        SocketAddr::V4(to) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: port.to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than any address and aligned for all of them.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in>().write(address) };
            mem::size_of::<libc::sockaddr_in>() as u32
        }
        SocketAddr::V6(to) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: port.to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                sin6_scope_id: to.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut *storage).cast::<libc::sockaddr_in6>().write(address) };
            mem::size_of::<libc::sockaddr_in6>() as u32
        }
    }
}
