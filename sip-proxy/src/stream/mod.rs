//! Stream transports: connections opened and accepted, framed, reused, kept alive, bounded.

mod connections;
mod converse;
mod dial;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use sip_engine::io::{Flow, ListenerId, Transport};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(crate) use connections::{Connections, Outgoing};
use converse::{Origin, converse};

use crate::shard::Shard;
use crate::tls::peer_names;

/// For the TLS handshake, and then for a first message of a connection that we accepted: bounds what idle strangers
/// hold.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A bound stream listener.
pub(crate) struct Listening {
    pub(crate) socket: TcpListener,
    pub(crate) listener: ListenerId,
}

/// Each shard has a listener of its own on the same address; the kernel spreads connections over them.
pub(crate) fn bind(address: SocketAddr, is_shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
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

/// Takes connections until the shard ends.
pub(crate) async fn accept(listening: Listening, shard: Rc<RefCell<Shard>>) {
    let Listening { socket, listener } = listening;
    loop {
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: what is open goes on, and a moment later there may be room.
                tracing::warn!(%error, "a connection can't be accepted; raise the limit on open files");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let mut borrowed = shard.borrow_mut();
        borrowed.tick();
        if !borrowed.admits(listener, remote) {
            continue;
        }
        let tls = borrowed
            .settings
            .listeners
            .get(usize::from(listener.0))
            .and_then(|settings| settings.tls.clone());
        let transport = if tls.is_some() { Transport::Tls } else { Transport::Tcp };
        let flow = Flow { listener, transport, remote, connection: None };
        let Some(entered) = borrowed.enter(flow, Origin::Accepted, None) else { continue };
        drop(borrowed);
        let shard = shard.clone();
        tokio::task::spawn_local(vitals::belonging(async move {
            tune(&stream);
            match tls {
                None => converse(stream, entered, Origin::Accepted, &shard).await,
                Some(tls) => match timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let names = peer_names(stream.get_ref().1.peer_certificates());
                        shard.borrow_mut().identified(entered.connection, names);
                        converse(stream, entered, Origin::Accepted, &shard).await;
                    }
                    Ok(Err(_)) | Err(_) => {
                        shard.borrow().counters.handshakes_failed.up();
                        entered.leave(&shard);
                    }
                },
            }
        }));
    }
}

/// No Nagle delay on requests; dead peers are noticed within minutes even if they said nothing.
fn tune(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(20));
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
