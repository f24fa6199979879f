//! Stream transports: connections opened and accepted, framed, reused, kept alive, bounded.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use rustls::pki_types::ServerName;
use sip_engine::io::{ConnectionId, Flow, Input, ListenerId, Ticket, Transport};
use sip_wire::{Framed, StreamFramer};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::link::OWNER_SHIFT;
use crate::plane::PlaneSettings;
use crate::shard::Shard;

/// Messages that may wait for a slow peer before it counts as dead.
const QUEUE: usize = 512;

/// A peer that takes nothing for so long is dead.
const WRITE: Duration = Duration::from_secs(10);

/// For the TCP handshake of a connection that we open: below the time-out of any transaction.
const CONNECT: Duration = Duration::from_secs(4);

/// For the TLS handshake, and for a first message of a connection that we accepted: bounds what idle strangers hold.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The answer to a keepalive (RFC 5626 §4.4.1).
static PONG: Bytes = Bytes::from_static(b"\r\n");

/// Connections of one source address, so that one host can't take all.
const PER_SOURCE: usize = 1_000;

/// A message for a connection's writer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) ticket: Ticket,
    pub(crate) sender: usize,
}

/// A bound stream listener.
pub(crate) struct Listening {
    pub(crate) socket: TcpListener,
    pub(crate) listener: ListenerId,
}

struct Connection {
    queue: mpsc::Sender<Outgoing>,
    listener: ListenerId,
    remote: SocketAddr,
}

/// The connections that a shard owns.
pub(crate) struct Connections {
    next: u64,
    limit: usize,
    open: AHashMap<ConnectionId, Connection>,
    by_peer: AHashMap<(ListenerId, SocketAddr), ConnectionId>,
    per_source: AHashMap<std::net::IpAddr, usize>,
    shard: Weak<RefCell<Shard>>,
}

/// Each shard has a listener of its own on the same address; the kernel spreads connections over them.
pub(crate) fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// Takes connections until the shard ends.
pub(crate) async fn accept(listening: Listening, shard: Rc<RefCell<Shard>>) {
    let Listening { socket, listener } = listening;
    loop {
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: what is open goes on, and a moment later there may be room.
                tracing::warn!(%error, "a connection can't be accepted; raise the limit on open files");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let mut borrowed = shard.borrow_mut();
        if !borrowed.admits_source(listener, remote) {
            continue;
        }
        let Some((connection, queue)) = borrowed.connections.enter(listener, remote) else {
            borrowed.counters.limited.up();
            continue;
        };
        borrowed.counters.connections.up();
        let tls = borrowed
            .settings
            .listeners
            .get(usize::from(listener.0))
            .and_then(|settings| settings.tls.clone());
        let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
        let flow = Flow { listener, transport, remote, connection: Some(connection) };
        drop(borrowed);
        let shard = shard.clone();
        tokio::task::spawn_local(async move {
            tune(&stream);
            match tls {
                None => converse(stream, flow, queue, &shard).await,
                Some(tls) => match timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                    Ok(Ok(stream)) => converse(stream, flow, queue, &shard).await,
                    Ok(Err(_)) | Err(_) => shard.borrow().counters.handshakes_failed.up(),
                },
            }
            leave(&shard, connection);
        });
    }
}

impl Connections {
    pub(crate) fn new(shard: usize, limit: usize) -> Self {
        Self {
            next: (shard as u64) << OWNER_SHIFT,
            limit,
            open: AHashMap::new(),
            by_peer: AHashMap::new(),
            per_source: AHashMap::new(),
            shard: Weak::new(),
        }
    }

    pub(crate) fn belong_to(&mut self, shard: &Rc<RefCell<Shard>>) {
        self.shard = Rc::downgrade(shard);
    }

    fn enter(
        &mut self,
        listener: ListenerId,
        remote: SocketAddr,
    ) -> Option<(ConnectionId, mpsc::Receiver<Outgoing>)> {
        let from_source = self.per_source.entry(remote.ip()).or_default();
        if self.open.len() >= self.limit || *from_source >= PER_SOURCE {
            return None;
        }
        *from_source += 1;
        let connection = ConnectionId(self.next);
        self.next += 1;
        let (queue, waiting) = mpsc::channel(QUEUE);
        self.open.insert(connection, Connection { queue, listener, remote });
        self.by_peer.insert((listener, remote), connection);
        Some((connection, waiting))
    }

    /// Closes when what is queued has been written.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        let Some(closed) = self.open.remove(&connection) else { return };
        if self.by_peer.get(&(closed.listener, closed.remote)) == Some(&connection) {
            self.by_peer.remove(&(closed.listener, closed.remote));
        }
        if let Some(from_source) = self.per_source.get_mut(&closed.remote.ip()) {
            *from_source -= 1;
            if *from_source == 0 {
                self.per_source.remove(&closed.remote.ip());
            }
        }
    }

    /// Queues a message; opens a connection where none is named and none to that address stands.
    pub(crate) fn send(
        &mut self,
        flow: Flow,
        server_name: Option<Arc<str>>,
        outgoing: Outgoing,
        settings: &PlaneSettings,
    ) -> Result<(), Outgoing> {
        let known = match flow.connection {
            Some(connection) => self.open.get(&connection),
            None => self
                .by_peer
                .get(&(flow.listener, flow.remote))
                .and_then(|connection| self.open.get(connection)),
        };
        if let Some(connection) = known {
            return connection.queue.try_send(outgoing).map_err(|error| error.into_inner());
        }
        // RFC 5626 §5.3: a flow that is gone is gone; only its owner can come back.
        if flow.connection.is_some() {
            return Err(outgoing);
        }
        let Some(listener) = settings.engine.listener(flow.listener) else { return Err(outgoing) };
        let Some(shard) = self.shard.upgrade() else { return Err(outgoing) };
        let Some((connection, waiting)) = self.enter(flow.listener, flow.remote) else {
            return Err(outgoing);
        };
        let tls =
            settings.listeners.get(usize::from(flow.listener.0)).and_then(|settings| settings.tls.clone());
        let flow = Flow { connection: Some(connection), ..flow };
        let local = SocketAddr::new(listener.address.ip(), 0);
        let queued = match self.open.get(&connection) {
            Some(entered) => entered.queue.try_send(outgoing).map_err(|error| error.into_inner()),
            None => Err(outgoing),
        };
        tokio::task::spawn_local(async move {
            shard.borrow().counters.connections.up();
            match open(flow, local, server_name, tls).await {
                Ok(Opened::Clear(stream)) => converse(stream, flow, waiting, &shard).await,
                Ok(Opened::Tls(stream)) => converse(*stream, flow, waiting, &shard).await,
                Err(error) => {
                    tracing::debug!(%error, remote = %flow.remote, "connection failed");
                    give_back(waiting, &shard);
                }
            }
            leave(&shard, connection);
        });
        queued
    }
}

enum Opened {
    Clear(TcpStream),
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

async fn open(
    flow: Flow,
    local: SocketAddr,
    server_name: Option<Arc<str>>,
    tls: Option<Arc<crate::tls::TlsIdentity>>,
) -> io::Result<Opened> {
    let socket = if flow.remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(local)?;
    let stream = timeout(CONNECT, socket.connect(flow.remote)).await??;
    tune(&stream);
    let Some(tls) = tls else { return Ok(Opened::Clear(stream)) };
    // RFC 5922 §7.2: the certificate must bear the name that was looked up, or the address if that was all.
    let name = match server_name {
        Some(name) => ServerName::try_from(name.to_string()).map_err(io::Error::other)?,
        None => ServerName::IpAddress(flow.remote.ip().into()),
    };
    let stream = timeout(HANDSHAKE, tls.connector().connect(name, stream)).await??;
    Ok(Opened::Tls(Box::new(stream)))
}

/// No Nagle delay on requests; dead peers are noticed within minutes even if they said nothing.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

/// Reads and writes until either side ends it.
async fn converse<S>(stream: S, flow: Flow, mut waiting: mpsc::Receiver<Outgoing>, shard: &Rc<RefCell<Shard>>)
where
    S: AsyncRead + AsyncWrite + 'static,
{
    let (reader, mut writer) = tokio::io::split(stream);
    let (pongs, mut to_pong) = mpsc::channel::<()>(4);
    let reading = tokio::task::spawn_local(read(reader, flow, pongs, shard.clone()));
    loop {
        let outgoing = tokio::select! {
            outgoing = waiting.recv() => match outgoing {
                Some(outgoing) => Some(outgoing),
                None => break,
            },
            pong = to_pong.recv() => match pong {
                Some(()) => None,
                // The reader has ended: nothing more will come, and what we sent may not arrive.
                None => break,
            },
        };
        let message = outgoing.as_ref().map_or(&PONG, |outgoing| &outgoing.message);
        let written = timeout(WRITE, async {
            writer.write_all(message).await?;
            writer.flush().await
        });
        if !matches!(written.await, Ok(Ok(()))) {
            if let Some(outgoing) = outgoing {
                shard.borrow_mut().failed(outgoing.ticket, outgoing.sender);
            }
            break;
        }
    }
    reading.abort();
    let _ = timeout(WRITE, writer.shutdown()).await;
    give_back(waiting, shard);
}

/// What was queued and not written has failed.
fn give_back(mut waiting: mpsc::Receiver<Outgoing>, shard: &Rc<RefCell<Shard>>) {
    waiting.close();
    while let Ok(outgoing) = waiting.try_recv() {
        shard.borrow_mut().failed(outgoing.ticket, outgoing.sender);
    }
}

fn leave(shard: &Rc<RefCell<Shard>>, connection: ConnectionId) {
    let mut shard = shard.borrow_mut();
    shard.connections.close(connection);
    shard.counters.connections.down();
    shard.closed(connection);
    shard.settle();
}

async fn read<R: AsyncRead + Unpin>(
    mut reader: R,
    flow: Flow,
    pongs: mpsc::Sender<()>,
    shard: Rc<RefCell<Shard>>,
) {
    let mut framer = StreamFramer::default();
    let mut buffer = vec![0; 16 * 1024];
    let idle = shard.borrow().settings.idle;
    let mut patience = HANDSHAKE;
    loop {
        let length = match timeout(patience, reader.read(&mut buffer)).await {
            Ok(Ok(length)) if length > 0 => length,
            _ => return,
        };
        let mut shard = shard.borrow_mut();
        framer.push(&buffer[..length]);
        loop {
            match framer.next() {
                Ok(Some(Framed::Message(message))) => {
                    if shard.admits_source(flow.listener, flow.remote) {
                        shard.received(flow, message);
                    }
                }
                Ok(Some(Framed::Ping)) => {
                    shard.counters.keepalives.up();
                    let _ = pongs.try_send(());
                }
                Ok(Some(Framed::Pong)) => shard.counters.keepalives.up(),
                Ok(None) => break,
                Err(refused) => {
                    // The framing is lost with it: answered if it can be, then closed (RFC 3261 §18.3).
                    shard.counters.refused.up();
                    shard.input(Input::Refused { flow, refused });
                    shard.settle();
                    return;
                }
            }
        }
        shard.settle();
        // A message that was begun must end soon; between messages a peer may be silent.
        patience = if framer.is_empty() { idle } else { HANDSHAKE };
    }
}
