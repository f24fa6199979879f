//! The way out for all ports of one address: a raw socket, so that one system call sends the packets of many.

#![allow(unsafe_code, reason = "sendmmsg with addresses that need no conversion by the standard library")]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

use socket2::{Domain, Protocol, Socket, Type};

use crate::address;
use crate::batch::{BATCH, LARGEST};
use crate::counters::Snapshot;
use crate::header::{self, LARGEST_HEADER};
use crate::socket;

/// Never received from (raw(7): IPPROTO_RAW is for sending only).
const RAW: i32 = libc::IPPROTO_RAW;
const ROOM: usize = LARGEST + LARGEST_HEADER;
/// For what a slow interface has not taken yet.
const SEND_BUFFER: usize = 4 * 1024 * 1024;

/// Packets of one address that wait to leave together.
pub(crate) struct Exit {
    socket: Socket,
    address: IpAddr,
    traffic_class: u8,
    packets: Box<[[u8; ROOM]; BATCH]>,
    addresses: Box<[libc::sockaddr_storage; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    messages: Box<[libc::mmsghdr; BATCH]>,
    /// From port and to whom each goes, for the ones that must be cut.
    ends: [(u16, SocketAddr); BATCH],
    waiting: usize,
}

impl std::fmt::Debug for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Exit").field("address", &self.address).finish_non_exhaustive()
    }
}

// SAFETY: its pointers go to boxes of its own.
unsafe impl Send for Exit {}

impl Exit {
    /// Needs the capability NET_RAW.
    pub(crate) fn open(address: IpAddr, traffic_class: u8) -> io::Result<Self> {
        let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(RAW)))?;
        // Packets are routed as from this address.
        socket.bind(&SocketAddr::new(address, 0).into())?;
        // The system may allow less.
        let _ = socket.set_send_buffer_size(SEND_BUFFER);
        // SAFETY: plain C structures for which zeros are valid; the pointers are set below.
        let (addresses, vectors, messages) =
            unsafe { (Box::new(mem::zeroed()), Box::new(mem::zeroed()), Box::new(mem::zeroed())) };
        let nobody = (0, SocketAddr::new(address, 0));
        let packets = vec![[0; ROOM]; BATCH].into_boxed_slice();
        let packets = packets.try_into().map_err(|_| io::ErrorKind::OutOfMemory)?;
        let mut exit = Self {
            socket,
            address,
            traffic_class,
            packets,
            addresses,
            vectors,
            messages,
            ends: [nobody; BATCH],
            waiting: 0,
        };
        let rooms = exit.packets.iter_mut().zip(exit.addresses.iter_mut());
        let heads = exit.vectors.iter_mut().zip(exit.messages.iter_mut());
        for ((packet, address), (vector, message)) in rooms.zip(heads) {
            vector.iov_base = packet.as_mut_ptr().cast();
            message.msg_hdr.msg_name = (&raw mut *address).cast();
            message.msg_hdr.msg_iov = &raw mut *vector;
            message.msg_hdr.msg_iovlen = 1;
        }
        Ok(exit)
    }

    /// Sends a datagram from `port`, at the latest with the next [`flush`](Self::flush).
    #[inline]
    pub(crate) fn send(&mut self, port: u16, to: SocketAddr, datagram: &[u8], numbers: &mut Snapshot) {
        if self.waiting == BATCH {
            self.flush(numbers);
        }
        let index = self.waiting;
        let from = SocketAddr::new(self.address, port);
        let rooms = (self.packets.get_mut(index), self.vectors.get_mut(index), self.messages.get_mut(index));
        let places = (self.addresses.get_mut(index), self.ends.get_mut(index));
        // Never otherwise: a full batch has left.
        let ((Some(room), Some(vector), Some(message)), (Some(address), Some(end))) = (rooms, places) else {
            return;
        };
        let Some(length) = header::write(room, self.traffic_class, from, to, datagram) else {
            numbers.send_failed = numbers.send_failed.saturating_add(1);
            return;
        };
        vector.iov_len = length;
        // The destination's port stands in the packet; IPv6 wants none here.
        message.msg_hdr.msg_namelen = address::write(address, to, 0);
        *end = (port, to);
        self.waiting = index.saturating_add(1);
    }

    /// Sends what waits, and counts what has become of it.
    pub(crate) fn flush(&mut self, numbers: &mut Snapshot) {
        let mut next = 0;
        while let Some(rest) = self.messages.get_mut(next..self.waiting).filter(|rest| !rest.is_empty()) {
            // SAFETY: every pointer, set in `open`, goes to boxes that `self` owns and that live over the call.
            let count = unsafe {
                libc::sendmmsg(
                    self.socket.as_raw_fd(),
                    rest.as_mut_ptr(),
                    rest.len() as u32,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            if let Ok(count @ 1..) = usize::try_from(count) {
                numbers.sent = numbers.sent.saturating_add(count as u64);
                next = next.saturating_add(count);
                continue;
            }
            // An error is the first packet's.
            let mut error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EMSGSIZE) {
                match self.send_cut(next) {
                    Ok(()) => {
                        numbers.sent = numbers.sent.saturating_add(1);
                        next = next.saturating_add(1);
                        continue;
                    }
                    Err(other) => error = other,
                }
            }
            numbers.missed(&error);
            next = next.saturating_add(1);
        }
        self.waiting = 0;
    }

    /// A packet greater than the interface carries: an ordinary socket, bound for a moment, cuts it.
    fn send_cut(&self, index: usize) -> io::Result<()> {
        let header = if self.address.is_ipv4() { LARGEST_HEADER - 20 } else { LARGEST_HEADER };
        let of = |index: usize| {
            let length = self.vectors.get(index)?.iov_len;
            Some((*self.ends.get(index)?, self.packets.get(index)?.get(header..length)?))
        };
        let ((port, to), datagram) = of(index).ok_or(io::ErrorKind::NotFound)?;
        socket::bind(SocketAddr::new(self.address, port), self.traffic_class)?.send_to(datagram, to)?;
        Ok(())
    }
}
