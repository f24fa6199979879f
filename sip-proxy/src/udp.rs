//! Datagram listeners: read in batches, and written in batches when all that an input caused is known.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::rc::Rc;

use bytes::Bytes;
use sip_engine::io::{ListenerId, Ticket};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::batch::{self, BATCH, Inbound};
use crate::shard::Shard;

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
    pub(crate) socket: Rc<UdpSocket>,
    waiting: VecDeque<Datagram>,
    is_blocked: bool,
}

/// What came of an attempt to send all that waits.
pub(crate) enum Flushed {
    /// All is sent, or was given up.
    Done,
    /// The kernel's buffer is full: again when the socket is writable.
    Blocked,
}

impl Endpoint {
    pub(crate) fn new(socket: Rc<UdpSocket>) -> Self {
        Self { socket, waiting: VecDeque::new(), is_blocked: false }
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

    /// Whether this is the first time since the socket was last writable; the caller then waits for it.
    pub(crate) fn block(&mut self) -> bool {
        !std::mem::replace(&mut self.is_blocked, true)
    }
}

fn failed_first(waiting: &mut VecDeque<Datagram>, failed: &mut impl FnMut(Datagram)) {
    if let Some(first) = waiting.pop_front() {
        failed(first);
    }
}

/// Waits until a full send buffer has room again, and sends what waited.
pub(crate) async fn unblock(socket: Rc<UdpSocket>, listener: ListenerId, shard: Rc<RefCell<Shard>>) {
    if socket.writable().await.is_err() {
        return;
    }
    let mut shard = shard.borrow_mut();
    if let Some(endpoint) = shard.endpoint(listener) {
        endpoint.is_blocked = false;
    }
    shard.flush(listener);
}

/// Reads a listener's datagrams until the shard ends.
pub(crate) async fn read(socket: Rc<UdpSocket>, listener: ListenerId, shard: Rc<RefCell<Shard>>) {
    let mut inbound = Inbound::new();
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let mut count = 0;
        let received = socket.try_io(Interest::READABLE, || {
            count = inbound.receive(socket.as_fd())?;
            // Less than a batch was all there is: without another call, the socket counts as empty until epoll tells
            // of the next datagram.
            if count < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        let mut shard = shard.borrow_mut();
        // Any other error is an ICMP message about an earlier send; the transaction's timer deals with it.
        shard.tick();
        shard.read(listener, received.is_ok());
        for (source, datagram) in (0..count).filter_map(|index| inbound.get(index)) {
            shard.datagram(listener, source, datagram);
        }
        shard.settle();
    }
}
