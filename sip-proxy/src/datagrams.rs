//! The tasks of a datagram listener: one reads in batches, one waits for room to write.

use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;

use sip_engine::io::ListenerId;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use crate::batch::{BATCH, Inbound};
use crate::shard::Shard;

/// Whenever a send buffer was found full: waits until it has room again, and sends what waited.
pub(crate) async fn write(
    socket: Rc<UdpSocket>,
    listener: ListenerId,
    blocked: Rc<Notify>,
    shard: Rc<RefCell<Shard>>,
) {
    loop {
        blocked.notified().await;
        if socket.writable().await.is_err() {
            return;
        }
        shard.borrow_mut().unblocked(listener);
    }
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
