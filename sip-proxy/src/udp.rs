//! A datagram listener's socket, and what waits to leave by it: written in batches, when all that an input caused is known.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

use bytes::Bytes;
use sip_engine::io::Ticket;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use crate::batch;

/// Datagrams that wait while the kernel's send buffer is full; what is beyond them is dropped as a network would.
const WAITING: usize = 1024;

/// Each shard has a socket of its own on the same address; the kernel spreads sources over them.
pub(crate) fn bind(address: SocketAddr, buffer: usize, is_shared: bool) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    crate::fragments::allow(&socket, address.is_ipv6())?;
    socket.set_reuse_port(is_shared)?;
    socket.set_recv_buffer_size(buffer)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A datagram on its way out.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) remote: SocketAddr,
    pub(crate) message: Bytes,
    pub(crate) ticket: Ticket,
    /// The shard whose engine wants to know of a failure.
    pub(crate) sender: usize,
}

/// One shard's socket of a datagram listener, and what waits to leave by it.
pub(crate) struct Endpoint {
    socket: Rc<UdpSocket>,
    waiting: VecDeque<Datagram>,
    is_blocked: bool,
    /// Who waits for the socket then.
    blocked: Rc<Notify>,
}

/// What came of an attempt to send all that waits.
pub(crate) enum Flushed {
    /// All is sent, or was given up.
    Done,
    /// The kernel's buffer is full: again when the socket is writable.
    Blocked,
}

impl Endpoint {
    pub(crate) fn new(socket: Rc<UdpSocket>, blocked: Rc<Notify>) -> Self {
        Self { socket, waiting: VecDeque::new(), is_blocked: false, blocked }
    }

    /// Queues a datagram; gives it back if too many wait.
    pub(crate) fn push(&mut self, datagram: Datagram) -> Result<(), Datagram> {
        if self.waiting.len() >= WAITING && self.is_blocked {
            return Err(datagram);
        }
        self.waiting.push_back(datagram);
        Ok(())
    }

    /// Sends what waits. `failed` is given what the kernel refused.
    pub(crate) fn flush(&mut self, mut failed: impl FnMut(Datagram)) -> Flushed {
        while !self.waiting.is_empty() {
            let datagrams = self.waiting.iter().map(|datagram| (datagram.remote, &datagram.message));
            match self.socket.try_io(Interest::WRITABLE, || batch::send(self.socket.as_fd(), datagrams)) {
                Ok(sent) => drop(self.waiting.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(_) => failed_first(&mut self.waiting, &mut failed),
            }
        }
        Flushed::Done
    }

    /// Tells who waits for the socket, unless that was done since it was last writable.
    pub(crate) fn block(&mut self) {
        if !std::mem::replace(&mut self.is_blocked, true) {
            self.blocked.notify_one();
        }
    }

    pub(crate) fn unblock(&mut self) {
        self.is_blocked = false;
    }
}

fn failed_first(waiting: &mut VecDeque<Datagram>, failed: &mut impl FnMut(Datagram)) {
    if let Some(first) = waiting.pop_front() {
        failed(first);
    }
}
