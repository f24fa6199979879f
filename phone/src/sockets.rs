//! UDP sockets of calls: opened, read by a task each, closed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use crush::agent::SocketId;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// Datagrams that wait for the phone to look at them; what is beyond is dropped, as a full buffer of the kernel would.
const WAITING: usize = 1024;
/// Tries to find two ports in a row.
const TRIES: usize = 64;

/// What arrived.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) socket: SocketId,
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
struct Open {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

/// All that are open.
#[derive(Debug)]
pub(crate) struct Sockets {
    open: HashMap<SocketId, Open>,
    next: u32,
    arrivals: mpsc::Sender<Datagram>,
}

impl Sockets {
    /// And where their datagrams come.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Datagram>) {
        let (arrivals, datagrams) = mpsc::channel(WAITING);
        (Self { open: HashMap::new(), next: 1, arrivals }, datagrams)
    }

    /// One on any port.
    pub(crate) fn open(&mut self, address: IpAddr) -> io::Result<(SocketId, SocketAddr)> {
        self.take(std::net::UdpSocket::bind(SocketAddr::new(address, 0))?)
    }

    /// One on the address of another, any port.
    pub(crate) fn open_beside(&mut self, other: SocketId) -> io::Result<(SocketId, SocketAddr)> {
        let other = self.open.get(&other).ok_or(io::ErrorKind::NotFound)?;
        let address = other.socket.local_addr()?.ip();
        self.open(address)
    }

    /// RTP on an even port and RTCP on the next (RFC 3550 §11).
    pub(crate) fn open_pair(&mut self, address: IpAddr) -> io::Result<[(SocketId, SocketAddr); 2]> {
        let bind = |port| std::net::UdpSocket::bind(SocketAddr::new(address, port));
        for _ in 0..TRIES {
            let any = bind(0)?;
            let port = any.local_addr()?.port();
            let (even, odd) = if port.is_multiple_of(2) {
                (any, bind(port + 1))
            } else {
                let Ok(even) = bind(port - 1) else { continue };
                (even, Ok(any))
            };
            if let Ok(odd) = odd {
                return Ok([self.take(even)?, self.take(odd)?]);
            }
        }
        Err(io::ErrorKind::AddrInUse.into())
    }

    fn take(&mut self, socket: std::net::UdpSocket) -> io::Result<(SocketId, SocketAddr)> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let socket = Arc::new(UdpSocket::from_std(socket)?);
        let id = SocketId(self.next);
        self.next += 1;
        let reader = tokio::spawn(read(id, socket.clone(), self.arrivals.clone())).abort_handle();
        self.open.insert(id, Open { socket, reader });
        Ok((id, local))
    }

    /// Sends; what the network does not take is lost, as datagrams are.
    pub(crate) fn send(&self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        if let Some(open) = self.open.get(&socket) {
            let _ = open.socket.try_send_to(bytes, to);
        }
    }

    pub(crate) fn close(&mut self, socket: SocketId) {
        if let Some(open) = self.open.remove(&socket) {
            open.reader.abort();
        }
    }
}

async fn read(id: SocketId, socket: Arc<UdpSocket>, arrivals: mpsc::Sender<Datagram>) {
    let mut buffer = vec![0; 2048];
    loop {
        // An error is an ICMP answer to something sent before: nothing to be done about it here.
        if let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            let _ = arrivals.try_send(Datagram { socket: id, from, bytes });
        }
    }
}
