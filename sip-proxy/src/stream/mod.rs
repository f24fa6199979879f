//! Stream transports: connections opened and accepted, framed, reused, kept alive, bounded.

mod connections;
mod converse;
mod crowd;
mod dial;
mod door;
pub(crate) mod opened;
mod socket;
mod standing;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sip_engine::io::{Flow, Transport};
use socket2::{Domain, Protocol, SockRef, TcpKeepalive, Type};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

pub(crate) use connections::Connections;
use connections::Newcomer;
use converse::converse;
pub(crate) use door::Door;
use opened::{Accepted, Opened};
use socket::Socket;
pub(crate) use standing::Outgoing;
use standing::{Origin, Proof};

use crate::shard::Shard;
use crate::tls::peer_names;

/// For the TLS handshake, and then for a first message of a connection that we accepted: bounds what idle strangers
/// hold.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Each shard has a listener of its own on the same address; the kernel spreads connections over them.
pub(crate) fn bind(address: SocketAddr, is_shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(is_shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

impl Shard {
    /// Somebody got through the door.
    pub(crate) fn accepted(&mut self, accepted: Accepted) {
        let Accepted { listener, remote, opened, since } = accepted;
        let (transport, names) = match &opened {
            Opened::Clear(_) => (Transport::Tcp, Arc::default()),
            Opened::Tls(stream) => (Transport::Tls, peer_names(stream.get_ref().1.peer_certificates())),
        };
        let Some(shard) = self.connections.shard() else { return };
        let flow = Flow { listener, transport, remote, connection: None };
        let proof = if self.is_trunk(&flow, &names) { Proof::Given } else { Proof::Wanted };
        let newcomer = Newcomer { flow, origin: Origin::Accepted, proof, name: None };
        let Some(entered) = self.enter(newcomer) else { return };
        self.identified(entered.connection, names);
        tokio::task::spawn_local(vitals::belonging(async move {
            match arrived(opened) {
                Ok(Arrived::Clear(stream)) => {
                    converse(stream, entered, Origin::Accepted, since, &shard).await
                }
                Ok(Arrived::Tls(stream)) => converse(*stream, entered, Origin::Accepted, since, &shard).await,
                Err(_) => entered.leave(&shard),
            }
        }));
    }

    /// Whether a peer is a trunk of the listener's realm: by its address, or by the names in its certificate.
    fn is_trunk(&self, flow: &Flow, names: &[Arc<str>]) -> bool {
        let realm = self.settings.engine.realm_of(flow.listener);
        let ip = flow.remote.ip().to_canonical();
        realm
            .zip(self.policy.as_ref())
            .is_some_and(|(realm, policy)| policy.peer(realm.id, ip, names).is_some())
    }
}

/// A stream that this thread's reactor knows.
enum Arrived {
    Clear(TcpStream),
    Tls(Box<TlsStream<Socket>>),
}

fn arrived(opened: Opened) -> io::Result<Arrived> {
    Ok(match opened {
        Opened::Clear(stream) => Arrived::Clear(TcpStream::from_std(stream)?),
        Opened::Tls(mut stream) => {
            stream.get_mut().0.arrive()?;
            Arrived::Tls(stream)
        }
    })
}

/// A time of the runtime's clock, which shows more than any of ours.
fn after(instant: Instant, time: Duration) -> Instant {
    instant.checked_add(time).unwrap_or(instant)
}

/// No Nagle delay on requests; dead peers are noticed within minutes even if they said nothing.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
