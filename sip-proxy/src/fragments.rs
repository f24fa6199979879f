//! Datagrams that are larger than a path may leave in fragments.
//!
//! A request to a phone goes over the flow that it registered, however large it is (RFC 5626 §5.3); with the path MTU
//! discovery of the kernel it would vanish wherever a path is narrower than the interface and no ICMP comes back, and
//! be refused here where one had come. Without it routers may fragment IPv4; IPv6, which only its sender fragments
//! (RFC 8200 §5), leaves in pieces that every path takes.

#![allow(unsafe_code, reason = "setsockopt of options that no safe interface names")]

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd;

use libc::c_int;

/// What every IPv6 path takes (RFC 8200 §5).
const LEAST_IPV6: c_int = 1280;

/// Lets datagrams of a socket be fragmented on their way.
pub(crate) fn allow(socket: &impl AsRawFd, is_ipv6: bool) -> io::Result<()> {
    if is_ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU, LEAST_IPV6)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
    }
}

fn set(socket: &impl AsRawFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the pointer is to an integer of the length that is given, which lives until the call is over.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
