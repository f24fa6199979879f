//! Datagrams in batches: recvmmsg into buffers that are never copied, and sends straight out of them.

#![allow(
    unsafe_code,
    reason = "recvmmsg and sendto with addresses that need no conversion by the standard library"
)]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use crate::address;

/// Datagrams of one system call.
pub(crate) const BATCH: usize = 64;
/// Greater ones are cut and dropped: no path carries them unfragmented.
pub(crate) const LARGEST: usize = 2048;

/// For one address beside each datagram, aligned as the kernel wants it.
type Control = [u64; 8];

/// Buffers for one batch.
pub(crate) struct Batch {
    buffers: Box<[[u8; LARGEST]; BATCH]>,
    addresses: Box<[libc::sockaddr_storage; BATCH]>,
    controls: Box<[Control; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    messages: Box<[libc::mmsghdr; BATCH]>,
    filled: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        // SAFETY: all of these are plain C structures for which zeros are valid; the pointers are set below.
        let (addresses, vectors, messages) =
            unsafe { (Box::new(mem::zeroed()), Box::new(mem::zeroed()), Box::new(mem::zeroed())) };
        let (buffers, controls) = (Box::new([[0; LARGEST]; BATCH]), Box::new([[0; 8]; BATCH]));
        let mut batch = Self { buffers, addresses, controls, vectors, messages, filled: 0 };
        let rooms = batch.buffers.iter_mut().zip(batch.addresses.iter_mut()).zip(batch.controls.iter_mut());
        let heads = batch.vectors.iter_mut().zip(batch.messages.iter_mut());
        for (((buffer, address), control), (vector, message)) in rooms.zip(heads) {
            *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: LARGEST };
            let header = &mut message.msg_hdr;
            header.msg_name = (&raw mut *address).cast();
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = control.as_mut_ptr().cast();
        }
        batch.make_room(BATCH);
        batch
    }

    /// What is there now, at most `limit` and [`BATCH`]: how many.
    pub(crate) fn receive(&mut self, fd: RawFd, limit: usize) -> usize {
        self.make_room(self.filled);
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
        self.filled = usize::try_from(count).unwrap_or(0).min(BATCH);
        self.filled
    }

    /// What the kernel wrote there must not limit what it writes next.
    fn make_room(&mut self, used: usize) {
        for message in self.messages.iter_mut().take(used) {
            message.msg_hdr.msg_namelen = address::ROOM;
            message.msg_hdr.msg_controllen = mem::size_of::<Control>();
        }
    }

    /// The datagram with that index of the last batch, and whose it is; `None` if it was cut.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let message = self.messages.get(index)?;
        if message.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let source = address::read(self.addresses.get(index)?)?;
        Some((source, self.buffers.get(index)?.get(..message.msg_len as usize)?))
    }

    /// Where it was sent to, if the socket asks for that.
    #[inline]
    pub(crate) fn destination(&self, index: usize) -> Option<SocketAddr> {
        read_destination(&self.messages.get(index)?.msg_hdr)
    }
}

/// Where a datagram was sent to, as the kernel said beside it (`IP_RECVORIGDSTADDR`).
fn read_destination(header: &libc::msghdr) -> Option<SocketAddr> {
    // SAFETY: `header` and the control buffer it names were filled by recvmmsg; the macro stays inside of it.
    let message = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    // SAFETY: as above; the kernel writes the address behind the header, aligned to four bytes at least.
    let data = unsafe { libc::CMSG_DATA(message) };
    match (message.cmsg_level, message.cmsg_type) {
        // SAFETY: the type says that this structure is there.
        (libc::SOL_IP, libc::IP_ORIGDSTADDR) => {
            Some(address::v4(&unsafe { data.cast::<libc::sockaddr_in>().read_unaligned() }))
        }
        // SAFETY: as above.
        (libc::SOL_IPV6, libc::IPV6_ORIGDSTADDR) => {
            Some(address::v6(&unsafe { data.cast::<libc::sockaddr_in6>().read_unaligned() }))
        }
        _ => None,
    }
}

/// Sends one datagram, if the kernel takes it.
pub(crate) fn send(fd: RawFd, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
    // SAFETY: zeros are a valid address of no family.
    let mut storage = unsafe { mem::zeroed() };
    let length = address::write(&mut storage, to, to.port());
    // SAFETY: `datagram` and the written part of `storage` live over the call.
    let sent = unsafe {
        libc::sendto(
            fd,
            datagram.as_ptr().cast(),
            datagram.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            (&raw const storage).cast(),
            length,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
