//! Connections that we open.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use sip_engine::io::{Flow, Transport};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

use super::converse::converse;
use super::opened::Dial;
use super::standing::{Entered, Origin};
use super::{Arrived, arrived, tune};
use crate::shard::Shard;
use crate::tls::{TlsIdentity, peer_names};

/// For the TCP handshake: below the time-out of any transaction.
const CONNECT: Duration = Duration::from_secs(4);

/// Opens a connection and speaks over it until its end. What waits for it fails if it can't be opened.
pub(super) async fn dial(entered: Entered, name: Option<Arc<str>>, shard: Rc<RefCell<Shard>>) {
    let flow = entered.flow;
    let (local, tls) = {
        let shard = shard.borrow();
        let index = usize::from(flow.listener.0);
        let local = shard.settings.engine.listener(flow.listener).map(|listener| listener.address.ip());
        (local, shard.settings.listeners.get(index).and_then(|settings| settings.tls.clone()))
    };
    let opened = match local {
        Some(local) => open(flow, SocketAddr::new(local, 0), name, tls, &shard).await,
        None => Err(io::ErrorKind::AddrNotAvailable.into()),
    };
    let since = Instant::now();
    match opened {
        Ok(Arrived::Clear(stream)) => converse(stream, entered, Origin::Dialled, since, &shard).await,
        Ok(Arrived::Tls(stream)) => {
            let names = peer_names(stream.get_ref().1.peer_certificates());
            shard.borrow_mut().identified(entered.connection, names);
            converse(*stream, entered, Origin::Dialled, since, &shard).await;
        }
        Err(error) => {
            tracing::debug!(%error, remote = %flow.remote, "connection failed");
            if flow.transport == Transport::Tls && error.kind() == io::ErrorKind::InvalidData {
                shard.borrow().counters.streams.handshakes_failed.up();
            }
            entered.leave(&shard);
        }
    }
}

/// A TCP connection from one of our addresses.
pub(super) async fn connect(local: SocketAddr, remote: SocketAddr) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(local)?;
    let stream = timeout(CONNECT, socket.connect(remote)).await??;
    tune(&stream);
    Ok(stream)
}

async fn open(
    flow: Flow,
    local: SocketAddr,
    name: Option<Arc<str>>,
    tls: Option<Arc<TlsIdentity>>,
    shard: &Rc<RefCell<Shard>>,
) -> io::Result<Arrived> {
    let Some(tls) = tls else { return connect(local, flow.remote).await.map(Arrived::Clear) };
    // RFC 5922 §7.2: the certificate must bear the name that was looked up, or the address if that was all.
    let name = match name {
        Some(name) => {
            let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
            ServerName::try_from(name).map_err(io::Error::other)?
        }
        None => ServerName::IpAddress(flow.remote.ip().into()),
    };
    // Handshakes are made at the door: the shard's thread has calls to serve.
    let (done, opened) = oneshot::channel();
    let dial = Dial { local, remote: flow.remote, name, tls, done };
    let gone = || io::Error::from(io::ErrorKind::NotConnected);
    shard.borrow().dials.send(dial).map_err(|_| gone())?;
    arrived(opened.await.map_err(|_| gone())??)
}
