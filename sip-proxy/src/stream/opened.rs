//! Streams on their way from one thread to another: those who got through the door, and those that a shard wants opened.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sip_engine::io::ListenerId;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use super::socket::Socket;
use crate::tls::TlsIdentity;

/// An open stream that belongs to no thread's reactor.
#[derive(Debug)]
pub(crate) enum Opened {
    Clear(std::net::TcpStream),
    Tls(Box<TlsStream<Socket>>),
}

impl Opened {
    /// A session whose handshake is done leaves this thread.
    pub(crate) fn tls(stream: impl Into<TlsStream<Socket>>) -> io::Result<Self> {
        let mut stream = Box::new(stream.into());
        stream.get_mut().0.depart()?;
        Ok(Self::Tls(stream))
    }
}

/// Somebody who got through the door.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) listener: ListenerId,
    pub(crate) remote: SocketAddr,
    pub(crate) opened: Opened,
    /// When that was.
    pub(crate) since: Instant,
}

/// A TLS connection that the shard wants.
pub(crate) struct Dial {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    /// The name that the certificate must bear.
    pub(crate) name: rustls::pki_types::ServerName<'static>,
    pub(crate) tls: Arc<TlsIdentity>,
    pub(crate) done: oneshot::Sender<io::Result<Opened>>,
}
