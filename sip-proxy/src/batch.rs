//! Datagrams in batches: one system call for many, both ways.

#![allow(unsafe_code, reason = "recvmmsg and sendmmsg, which no safe interface offers")]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use bytes::Bytes;
use socket2::{SockAddr, SockAddrStorage};

/// Datagrams of one system call.
pub(crate) const BATCH: usize = 32;

/// Largest UDP payload.
const LARGEST: usize = 65_535;

/// Room for one batch of received datagrams. Untouched pages of it cost nothing: a SIP message rarely takes a second.
pub(crate) struct Inbound {
    buffer: Vec<u8>,
    addresses: Vec<libc::sockaddr_storage>,
    lengths: [(u32, libc::socklen_t); BATCH],
}

impl Inbound {
    pub(crate) fn new() -> Self {
        Self {
            buffer: vec![0; BATCH * LARGEST],
            // SAFETY: a plain C structure for which zeros are valid.
            addresses: vec![unsafe { mem::zeroed() }; BATCH],
            lengths: [(0, 0); BATCH],
        }
    }

    /// What is there now, at most [`BATCH`]: how many.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        // SAFETY: plain C structures for which zeros are valid; the pointers are set below.
        let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
            unsafe { (mem::zeroed(), mem::zeroed()) };
        let parts = self.buffer.chunks_exact_mut(LARGEST).zip(&mut self.addresses);
        for ((vector, header), (part, address)) in vectors.iter_mut().zip(&mut headers).zip(parts) {
            *vector = libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: LARGEST };
            header.msg_hdr.msg_name = (&raw mut *address).cast();
            header.msg_hdr.msg_namelen = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every pointer set above points into memory that `self` or this function owns and that lives over
        // the call; the lengths are theirs.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (length, header) in self.lengths.iter_mut().zip(&headers) {
            *length = (header.msg_len, header.msg_hdr.msg_namelen);
        }
        Ok(count)
    }

    /// The datagram with that index of the last batch.
    pub(crate) fn get(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let (length, address_length) = *self.lengths.get(index)?;
        let part = self.buffer.chunks_exact(LARGEST).nth(index)?;
        let datagram = part.get(..length as usize)?;
        let mut storage = SockAddrStorage::zeroed();
        // SAFETY: the one wraps the other, and the kernel wrote an address of that length into it.
        let address = unsafe {
            *storage.view_as::<libc::sockaddr_storage>() = *self.addresses.get(index)?;
            SockAddr::new(storage, address_length)
        };
        Some((address.as_socket()?, datagram))
    }
}

/// Sends the first of `datagrams`, at most [`BATCH`]: how many the kernel took. An error is the first one's.
pub(crate) fn send<'a>(
    socket: BorrowedFd<'_>,
    datagrams: impl Iterator<Item = (SocketAddr, &'a Bytes)>,
) -> io::Result<usize> {
    // SAFETY: plain C structures for which zeros are valid; the pointers are set below.
    let (mut vectors, mut headers): ([libc::iovec; BATCH], [libc::mmsghdr; BATCH]) =
        unsafe { (mem::zeroed(), mem::zeroed()) };
    let mut addresses = [const { None::<SockAddr> }; BATCH];
    let mut count: libc::c_uint = 0;
    let places = vectors.iter_mut().zip(&mut headers).zip(&mut addresses);
    for (((vector, header), place), (remote, datagram)) in places.zip(datagrams) {
        let address = place.insert(SockAddr::from(remote));
        *vector = libc::iovec { iov_base: datagram.as_ptr().cast_mut().cast(), iov_len: datagram.len() };
        header.msg_hdr.msg_name = address.as_ptr().cast_mut().cast();
        header.msg_hdr.msg_namelen = address.len();
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        count = count.saturating_add(1);
    }
    // SAFETY: the first `count` headers point to datagrams and addresses that live over the call; the kernel only reads
    // them.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_batch_arrives_whole_with_its_source_over_both_families() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let (one, other) = (UdpSocket::bind(local).unwrap(), UdpSocket::bind(local).unwrap());
            let to = other.local_addr().unwrap();
            let sizes = [0, 1, 1500, 40_000];
            let datagrams: Vec<_> = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
            let sent = send(one.as_fd(), datagrams.iter().map(|datagram| (to, datagram))).unwrap();
            assert_eq!(sent, sizes.len());
            let mut inbound = Inbound::new();
            assert_eq!(inbound.receive(other.as_fd()).unwrap(), sizes.len());
            for (index, size) in sizes.into_iter().enumerate() {
                let (from, datagram) = inbound.get(index).unwrap();
                assert_eq!((from, datagram.len()), (one.local_addr().unwrap(), size));
            }
            assert_eq!(inbound.receive(other.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn more_than_a_batch_is_sent_in_turns() {
        let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        let to = other.local_addr().unwrap();
        let datagram = Bytes::from_static(b"x");
        let sent = send(one.as_fd(), (0..BATCH + 5).map(|_| (to, &datagram))).unwrap();
        assert_eq!(sent, BATCH);
    }

    #[test]
    fn an_address_that_nothing_leads_to_is_the_first_datagrams_error() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let datagram = Bytes::from_static(b"x");
        let nowhere = "192.0.2.1:9".parse().unwrap();
        // A socket bound to loopback can't reach another network.
        assert!(send(socket.as_fd(), [(nowhere, &datagram)].into_iter()).is_err());
    }
}
