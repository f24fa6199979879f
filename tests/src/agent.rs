//! A user agent with sockets, for load: it is polled, holds many calls, and speaks UDP, TCP or TLS.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Result, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use sip_engine::config::{Listener, TimerValues};
use sip_engine::io::{ConnectionId, Flow, Input, ListenerId, Output, RealmId, Transport};
use sip_engine::question::TrunkCredentials;
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, Event, UserAgent};
use sip_wire::{Framed, Message, StreamFramer};

/// How long a connection may take to be opened, and a TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// Whom an agent speaks for, and where.
#[derive(Debug, Clone)]
pub struct Place {
    /// User part of its address of record.
    pub user: String,
    /// The registrar's domain.
    pub domain: String,
    /// With the password "secret"; trunks have none.
    pub has_password: bool,
    /// The SBC.
    pub sbc: SocketAddr,
    /// How to it.
    pub transport: Transport,
    /// From where; port 0 lets the system choose.
    pub local: SocketAddr,
    /// Also takes connections at `local`.
    pub listens: bool,
}

enum Stream {
    Clear(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

struct Connection {
    stream: Stream,
    framer: StreamFramer,
    remote: SocketAddr,
    unsent: Vec<u8>,
}

/// See the module.
pub struct Agent {
    /// The state machine.
    pub ua: UserAgent,
    place: Place,
    started: Instant,
    udp: Option<UdpSocket>,
    listener: Option<TcpListener>,
    connections: HashMap<u64, Connection>,
    next: u64,
    /// Messages that the SBC sent.
    pub heard: u64,
}

impl Agent {
    /// Opens its sockets, and its connection where it is a phone over TCP or TLS.
    pub fn new(mut place: Place, seed: u64) -> Result<Self> {
        let (mut udp, mut listener, mut connections) = (None, None, HashMap::new());
        if place.transport == Transport::Udp {
            let socket = UdpSocket::bind(place.local)?;
            socket.set_nonblocking(true)?;
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 4 << 20);
            place.local = socket.local_addr()?;
            udp = Some(socket);
        } else if place.listens {
            let socket = TcpListener::bind(place.local)?;
            socket.set_nonblocking(true)?;
            place.local = socket.local_addr()?;
            listener = Some(socket);
        } else {
            let stream = connect(place.local.ip(), place.sbc)?;
            place.local = stream.local_addr()?;
            let stream = if place.transport == Transport::Tls {
                Stream::Tls(Box::new(shake_hands(stream)?))
            } else {
                Stream::Clear(stream)
            };
            connections.insert(0, Connection::new(stream, place.sbc)?);
        }
        let account = account(&place, connections.contains_key(&0).then_some(ConnectionId(0)));
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(seed.to_be_bytes()).for_each(|(byte, seed)| *byte = seed);
        bytes.iter_mut().skip(8).zip(place.user.bytes()).for_each(|(byte, user)| *byte = user);
        Ok(Self {
            ua: UserAgent::new(account, bytes),
            place,
            started: Instant::now(),
            udp,
            listener,
            connections,
            next: 1,
            heard: 0,
        })
    }

    /// Where it is.
    pub fn local(&self) -> SocketAddr {
        self.place.local
    }

    /// The clocks, as the agent takes them.
    pub fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.started.elapsed(), wall }
    }

    /// Reads and sends what there is, and gives what has happened.
    pub fn poll(&mut self) -> Vec<Event> {
        let (now, mut came) = (self.now(), Vec::new());
        self.read_datagrams(&mut came);
        self.read_streams(&mut came);
        self.heard += came.len() as u64;
        for (flow, message) in came {
            self.ua.handle(Input::Received { flow, message }, now);
        }
        if self.ua.poll_timeout().is_some_and(|due| due <= now.monotonic) {
            self.ua.handle_timeout(now);
        }
        let mut events = Vec::new();
        loop {
            let mut is_done = true;
            while let Some(output) = self.ua.poll_output() {
                if let Output::Send { flow, message, .. } = output {
                    self.send(flow, &message);
                }
            }
            while let Some(event) = self.ua.poll_event() {
                events.push(event);
                is_done = false;
            }
            if is_done {
                return events;
            }
        }
    }

    /// Waits a moment, or until a datagram is there.
    pub fn rest(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn read_datagrams(&self, came: &mut Vec<(Flow, Message)>) {
        let Some(socket) = &self.udp else { return };
        let mut buffer = vec![0; 65_535];
        while let Ok((length, remote)) = socket.recv_from(&mut buffer) {
            let Some(datagram) = buffer.get(..length) else { continue };
            if let Ok(message) = Message::parse(Bytes::copy_from_slice(datagram)) {
                came.push((Flow { remote, ..self.flow(None) }, message));
            }
        }
    }

    fn read_streams(&mut self, came: &mut Vec<(Flow, Message)>) {
        while let Some(Ok((stream, remote))) = self.listener.as_ref().map(TcpListener::accept) {
            // Otherwise an answer waits 40 ms for the acknowledgement of what was sent before it.
            let _ = stream.set_nodelay(true);
            if let Ok(connection) = Connection::new(Stream::Clear(stream), remote) {
                self.connections.insert(self.next, connection);
                self.next += 1;
            }
        }
        let mut gone = Vec::new();
        let flow = self.flow(None);
        for (number, connection) in &mut self.connections {
            let is_open = connection.read();
            while let Ok(Some(framed)) = connection.framer.next() {
                if let Framed::Message(message) = framed {
                    let flow =
                        Flow { remote: connection.remote, connection: Some(ConnectionId(*number)), ..flow };
                    came.push((flow, message));
                }
            }
            if !is_open || !connection.write() {
                gone.push(*number);
            }
        }
        for number in gone {
            self.connections.remove(&number);
            let now = self.now();
            self.ua.handle(Input::Closed { connection: ConnectionId(number) }, now);
        }
    }

    fn send(&mut self, flow: Flow, message: &[u8]) {
        if let Some(socket) = &self.udp {
            // What the network refuses is lost, as elsewhere.
            let _ = socket.send_to(message, flow.remote);
            return;
        }
        let named = flow.connection.map(|connection| connection.0);
        let named = named.filter(|number| self.connections.contains_key(number));
        // RFC 3261 §18.2.2 and 18.1.1: any connection to there, or a new one.
        let number = named.or_else(|| {
            self.connections.iter().find(|(_, open)| open.remote == flow.remote).map(|(n, _)| *n)
        });
        let number = number.or_else(|| {
            let stream = connect(self.place.local.ip(), flow.remote).ok()?;
            let connection = Connection::new(Stream::Clear(stream), flow.remote).ok()?;
            let number = self.next;
            self.next += 1;
            self.connections.insert(number, connection);
            Some(number)
        });
        if let Some(connection) = number.and_then(|number| self.connections.get_mut(&number)) {
            connection.unsent.extend_from_slice(message);
            connection.write();
        }
    }

    fn flow(&self, connection: Option<ConnectionId>) -> Flow {
        Flow { listener: ListenerId(0), transport: self.place.transport, remote: self.place.sbc, connection }
    }
}

impl Connection {
    fn new(stream: Stream, remote: SocketAddr) -> Result<Self> {
        match &stream {
            Stream::Clear(stream) => stream.set_nonblocking(true)?,
            Stream::Tls(stream) => stream.sock.set_nonblocking(true)?,
        }
        Ok(Self { stream, framer: StreamFramer::default(), remote, unsent: Vec::new() })
    }

    /// False at its end.
    fn read(&mut self) -> bool {
        let mut part = vec![0; 16 * 1024];
        loop {
            let read = match &mut self.stream {
                Stream::Clear(stream) => stream.read(&mut part),
                Stream::Tls(stream) => stream.read(&mut part),
            };
            match read {
                Ok(0) => return false,
                Ok(length) => self.framer.push(part.get(..length).unwrap_or_default()),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// False if it is broken.
    fn write(&mut self) -> bool {
        while !self.unsent.is_empty() {
            let written = match &mut self.stream {
                Stream::Clear(stream) => stream.write(&self.unsent),
                Stream::Tls(stream) => stream.write(&self.unsent).and_then(|length| {
                    stream.flush()?;
                    Ok(length)
                }),
            };
            match written {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        true
    }
}

/// A connection from an address, within a time.
pub fn connect(from: IpAddr, to: SocketAddr) -> Result<TcpStream> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &SocketAddr::new(from, 0))?;
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, Some(CONNECT))?;
    connect(&socket, &to)?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A TLS session over a connection, whatever the certificate says.
pub fn shake_hands(stream: TcpStream) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    stream.set_read_timeout(Some(CONNECT))?;
    let name = ServerName::from(stream.peer_addr()?.ip());
    let mut session = ClientConnection::new(trusting(), name).map_err(std::io::Error::other)?;
    let mut stream = stream;
    while session.is_handshaking() {
        session.complete_io(&mut stream)?;
    }
    Ok(StreamOwned::new(session, stream))
}

/// Each handshake is a whole one: nothing is kept for resumption.
fn trusting() -> Arc<ClientConfig> {
    static CONFIG: std::sync::OnceLock<Arc<ClientConfig>> = std::sync::OnceLock::new();
    let make = || {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = builder
            .map(|builder| {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting)).with_no_client_auth()
            })
            .unwrap_or_else(|_| unreachable!("ring has all protocol versions"));
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    };
    CONFIG.get_or_init(make).clone()
}

#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

fn account(place: &Place, connection: Option<ConnectionId>) -> Account {
    let listener = Listener {
        realm: RealmId(0),
        transport: place.transport,
        address: place.local,
        advertised: place.local,
        datagram_limit: 65_000,
    };
    let password = place
        .has_password
        .then(|| TrunkCredentials { username: place.user.as_str().into(), password: "secret".into() });
    Account {
        aor: format!("sip:{}@{}", place.user, place.domain).into(),
        display: None,
        credentials: password,
        listeners: vec![listener],
        proxy: Flow { listener: ListenerId(0), transport: place.transport, remote: place.sbc, connection },
        instance: None,
        product: Some("callers".into()),
        timers: TimerValues::default(),
        session_timer: None,
        abilities: Abilities { reliable: false, ..Abilities::default() },
        info_packages: Vec::new(),
    }
}
