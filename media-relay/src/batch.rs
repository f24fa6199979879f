//! Datagrams in batches: recvmmsg into buffers that are never copied, and sends straight out of them.

#![allow(
    unsafe_code,
    reason = "recvmmsg and sendto with addresses that need no conversion by the standard library"
)]

use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::RawFd;

/// Datagrams of one system call.
pub(crate) const BATCH: usize = 16;
/// Greater ones are cut and dropped: no path carries them unfragmented.
const LARGEST: usize = 2048;

const ADDRESS_ROOM: u32 = mem::size_of::<libc::sockaddr_storage>() as u32;

/// Buffers for one batch.
pub(crate) struct Batch {
    buffers: Box<[[u8; LARGEST]; BATCH]>,
    addresses: Box<[libc::sockaddr_storage; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    messages: Box<[libc::mmsghdr; BATCH]>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: all of these are plain C structures for which zeros are valid; the pointers are set below.
        let (addresses, vectors, messages) =
            unsafe { (Box::new(mem::zeroed()), Box::new(mem::zeroed()), Box::new(mem::zeroed())) };
        let mut batch = Self { buffers: Box::new([[0; LARGEST]; BATCH]), addresses, vectors, messages };
        for index in 0..BATCH {
            batch.vectors[index] =
                libc::iovec { iov_base: batch.buffers[index].as_mut_ptr().cast(), iov_len: LARGEST };
            let header = &mut batch.messages[index].msg_hdr;
            header.msg_name = (&raw mut batch.addresses[index]).cast();
            header.msg_iov = &raw mut batch.vectors[index];
            header.msg_iovlen = 1;
            header.msg_namelen = ADDRESS_ROOM;
        }
        batch
    }

    /// What is there now, at most `limit` and [`BATCH`]: how many.
    pub(crate) fn receive(&mut self, fd: RawFd, limit: usize) -> usize {
        // SAFETY: every pointer, set in `new`, points into boxes that `self` owns and that live over the call.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                self.messages.as_mut_ptr(),
                limit.min(BATCH) as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).unwrap_or(0).min(BATCH);
        // What the kernel wrote there must not limit the next address.
        for message in self.messages.iter_mut().take(count) {
            message.msg_hdr.msg_namelen = ADDRESS_ROOM;
        }
        count
    }

    /// The datagram with that index of the last batch; `None` if it was cut.
    pub(crate) fn get(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let message = &self.messages[index];
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        Some((read_address(&self.addresses[index])?, &self.buffers[index][..message.msg_len as usize]))
    }
}

fn read_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds this structure, and it is large and aligned enough.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(address.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, u16::from_be(address.sin6_port), 0, 0)))
        }
        _ => None,
    }
}

/// Sends one datagram; false if the kernel refused it.
pub(crate) fn send(fd: RawFd, to: SocketAddr, datagram: &[u8]) -> bool {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let length = match to {
        SocketAddr::V4(to) => {
            let address = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: to.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
                sin_zero: [0; 8],
            };
            // SAFETY: the storage is larger than any address and aligned for all of them.
            unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(address) };
            mem::size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(to) => {
            let address = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: to.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr { s6_addr: to.ip().octets() },
                sin6_scope_id: to.scope_id(),
            };
            // SAFETY: as above.
            unsafe { storage.as_mut_ptr().cast::<libc::sockaddr_in6>().write(address) };
            mem::size_of::<libc::sockaddr_in6>()
        }
    };
    // SAFETY: `datagram` and the written part of `storage` live over the call.
    let sent = unsafe {
        libc::sendto(
            fd,
            datagram.as_ptr().cast(),
            datagram.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            storage.as_ptr().cast(),
            length as u32,
        )
    };
    sent >= 0
}
