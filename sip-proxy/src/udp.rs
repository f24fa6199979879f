//! Datagram listeners.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use sip_engine::io::ListenerId;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use crate::shard::Shard;

/// Largest UDP payload.
const DATAGRAM: usize = 65_535;

/// Datagrams read before the outputs they caused are carried out: bounds both latency and system calls.
const BATCH: usize = 32;

/// Each shard has a socket of its own on the same address; the kernel spreads sources over them.
pub(crate) fn bind(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_recv_buffer_size(buffer)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Reads a listener's datagrams until the shard ends.
pub(crate) async fn read(socket: Rc<UdpSocket>, listener: ListenerId, shard: Rc<RefCell<Shard>>) {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let mut shard = shard.borrow_mut();
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut buffer) {
                Ok((length, source)) => {
                    if let Some(datagram) = buffer.get(..length)
                        && shard.admits(listener, source, datagram)
                    {
                        shard.datagram(listener, source, Bytes::copy_from_slice(datagram));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier send; the transaction's timer deals with it.
                Err(_) => {}
            }
        }
        shard.settle();
    }
}
