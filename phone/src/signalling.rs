//! How SIP messages travel: a UDP socket, or a stream to each address that requests go to, opened when it is needed.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::ServerName;
use sip_engine::io::{ConnectionId, Flow, Input, ListenerId, Ticket, Transport};
use sip_wire::{Framed, Message, Refused, StreamFramer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Messages that wait, in either direction.
const WAITING: usize = 256;
/// For the handshakes: below the time-out of any transaction.
const CONNECT: Duration = Duration::from_secs(4);
/// A peer that takes nothing for so long is dead.
const WRITE: Duration = Duration::from_secs(10);
/// The only listener of a user agent.
const LISTENER: ListenerId = ListenerId(0);
/// RFC 5626 §4.4.1.
const PING: &[u8] = b"\r\n\r\n";

/// A stream's writer.
#[derive(Debug)]
struct Stream {
    remote: SocketAddr,
    messages: mpsc::Sender<(Bytes, Ticket)>,
}

/// See the module.
pub(crate) struct Signalling {
    transport: Transport,
    /// Where we are: UDP's socket, and the source address of streams.
    local: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    udp: Option<(Arc<UdpSocket>, AbortHandle)>,
    streams: HashMap<ConnectionId, Stream>,
    next: u64,
    inputs: mpsc::Sender<Input>,
}

impl Signalling {
    /// And where what it receives comes: inputs of a user agent.
    pub(crate) fn new(
        transport: Transport,
        local: SocketAddr,
        tls: Option<(TlsConnector, ServerName<'static>)>,
    ) -> io::Result<(Self, mpsc::Receiver<Input>)> {
        let (inputs, received) = mpsc::channel(WAITING);
        let streams = HashMap::new();
        let mut signalling = Self { transport, local, tls, udp: None, streams, next: 1, inputs };
        signalling.bind(local)?;
        Ok((signalling, received))
    }

    /// Where messages leave from.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// Another address of ours: sockets and streams of the old one are of no use.
    pub(crate) fn bind(&mut self, local: SocketAddr) -> io::Result<()> {
        if let Some((_, reader)) = self.udp.take() {
            reader.abort();
        }
        self.streams.clear();
        self.local = local;
        if self.transport == Transport::Udp {
            let socket = std::net::UdpSocket::bind(local)?;
            socket.set_nonblocking(true)?;
            self.local = socket.local_addr()?;
            let socket = Arc::new(UdpSocket::from_std(socket)?);
            let reader = tokio::spawn(datagrams(socket.clone(), self.inputs.clone())).abort_handle();
            self.udp = Some((socket, reader));
        }
        Ok(())
    }

    /// Sends a message; that it failed comes back as an input.
    pub(crate) async fn send(&mut self, flow: Flow, message: Bytes, ticket: Ticket) {
        if let Some((socket, _)) = &self.udp {
            if socket.send_to(&message, flow.remote).await.is_err() {
                let _ = self.inputs.send(Input::SendFailed { ticket }).await;
            }
            return;
        }
        let known = flow.connection.filter(|connection| self.streams.contains_key(connection));
        let mut to_remote = self.streams.iter().filter(|(_, stream)| stream.remote == flow.remote);
        let connection = known.or_else(|| to_remote.next().map(|(connection, _)| *connection));
        let connection = connection.unwrap_or_else(|| self.dial(flow.remote));
        let Some(stream) = self.streams.get(&connection) else { return };
        if stream.messages.try_send((message, ticket)).is_err() {
            self.streams.remove(&connection);
            let _ = self.inputs.send(Input::SendFailed { ticket }).await;
        }
    }

    /// Keeps a NAT's mapping, and the way to us, open.
    pub(crate) async fn keep_alive(&mut self, registrar: SocketAddr) {
        match &self.udp {
            Some((socket, _)) => drop(socket.send_to(PING, registrar).await),
            None => {
                for stream in self.streams.values() {
                    let _ = stream.messages.try_send((Bytes::from_static(PING), Ticket(0)));
                }
            }
        }
    }

    fn dial(&mut self, remote: SocketAddr) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        let (messages, waiting) = mpsc::channel(WAITING);
        self.streams.insert(connection, Stream { remote, messages });
        let flow =
            Flow { listener: LISTENER, transport: self.transport, remote, connection: Some(connection) };
        tokio::spawn(converse(flow, self.local.ip(), self.tls.clone(), waiting, self.inputs.clone()));
        connection
    }

    /// A stream has ended.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.streams.remove(&connection);
    }
}

fn received(flow: Flow, message: Result<Message, Refused>) -> Input {
    match message {
        Ok(message) => Input::Received { flow, message },
        Err(refused) => Input::Refused { flow, refused },
    }
}

async fn datagrams(socket: Arc<UdpSocket>, inputs: mpsc::Sender<Input>) {
    let mut buffer = vec![0; 65_535];
    loop {
        // An error is an ICMP answer to something sent before; the transaction's timer deals with it.
        let Ok((length, remote)) = socket.recv_from(&mut buffer).await else { continue };
        let bytes = &buffer[..length];
        if bytes.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let flow = Flow { listener: LISTENER, transport: Transport::Udp, remote, connection: None };
        let message = Message::parse(Bytes::copy_from_slice(bytes));
        if inputs.send(received(flow, message)).await.is_err() {
            return;
        }
    }
}

async fn converse(
    flow: Flow,
    local: IpAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    mut waiting: mpsc::Receiver<(Bytes, Ticket)>,
    inputs: mpsc::Sender<Input>,
) {
    let opened = timeout(CONNECT, async {
        let socket = if local.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(local, 0))?;
        let stream = socket.connect(flow.remote).await?;
        stream.set_nodelay(true)?;
        io::Result::Ok(stream)
    });
    let ended = match (opened.await, tls) {
        (Ok(Ok(stream)), None) => speak(stream, flow, &mut waiting, &inputs).await,
        (Ok(Ok(stream)), Some((connector, name))) => {
            match timeout(CONNECT, connector.connect(name, stream)).await {
                Ok(Ok(stream)) => speak(stream, flow, &mut waiting, &inputs).await,
                _ => Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        _ => Err(io::ErrorKind::ConnectionRefused.into()),
    };
    if ended.is_err() {
        waiting.close();
        while let Some((_, ticket)) = waiting.recv().await {
            let _ = inputs.send(Input::SendFailed { ticket }).await;
        }
    }
    if let Some(connection) = flow.connection {
        let _ = inputs.send(Input::Closed { connection }).await;
    }
}

/// Reads and writes until either side ends it.
async fn speak<S: AsyncRead + AsyncWrite>(
    stream: S,
    flow: Flow,
    waiting: &mut mpsc::Receiver<(Bytes, Ticket)>,
    inputs: &mpsc::Sender<Input>,
) -> io::Result<()> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut framer = StreamFramer::default();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            read = reader.read(&mut buffer) => {
                let length = read?;
                if length == 0 {
                    return Ok(());
                }
                framer.push(&buffer[..length]);
                loop {
                    match framer.next() {
                        Ok(Some(Framed::Message(message))) => drop(inputs.send(received(flow, Ok(message))).await),
                        Ok(Some(Framed::Ping)) => timeout(WRITE, writer.write_all(b"\r\n")).await??,
                        Ok(Some(Framed::Pong)) => {}
                        Ok(None) => break,
                        Err(refused) => {
                            let is_lost = refused.cause.breaks_framing();
                            let _ = inputs.send(received(flow, Err(refused))).await;
                            if is_lost {
                                return Ok(());
                            }
                        }
                    }
                }
            }
            message = waiting.recv() => {
                // Nobody holds the writer any more: we have moved.
                let Some((message, ticket)) = message else { return Ok(()) };
                let written = timeout(WRITE, async {
                    writer.write_all(&message).await?;
                    writer.flush().await
                });
                if !matches!(written.await, Ok(Ok(()))) {
                    let _ = inputs.send(Input::SendFailed { ticket }).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
            }
        }
    }
}
