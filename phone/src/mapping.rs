//! Ports that the router opens for us when asked: PCP (RFC 6887), NAT-PMP (RFC 6886) and UPnP IGD.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use crush::agent::SocketId;
use portmapper::{Client, Config};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// A protocol that was answered and opens nothing for so long is left for the next.
const PATIENCE: Duration = Duration::from_secs(2);
/// The first words of a call go before: its router is asked when they are under way.
const FIRST_WORDS: Duration = Duration::from_millis(100);
/// How long taking a mapping back may take.
const RELEASE: Duration = Duration::from_secs(1);
/// Mappings that wait for the phone to look at them.
const WAITING: usize = 16;

/// A socket's port is open at this address of the router.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapped {
    pub(crate) socket: SocketId,
    pub(crate) address: SocketAddr,
}

/// All that was asked for, until it is given back.
#[derive(Debug)]
pub(crate) struct Mappings {
    /// Each word to one asks the router anew; its end gives the port back.
    wanted: HashMap<SocketId, mpsc::Sender<()>>,
    tasks: JoinSet<()>,
    found: mpsc::Sender<Mapped>,
    runtime: Handle,
}

impl Mappings {
    /// And where it tells of mappings. Routers are talked with on `runtime`, which must be none that carries sound: its host's
    /// interfaces and routes are looked at, and XML is read, for tens of milliseconds.
    pub(crate) fn new(runtime: Handle) -> (Self, mpsc::Receiver<Mapped>) {
        let (found, mapped) = mpsc::channel(WAITING);
        (Self { wanted: HashMap::new(), tasks: JoinSet::new(), found, runtime }, mapped)
    }

    /// Asks the router for this socket's port. Only private addresses of IPv4 have one that could be mapped.
    pub(crate) fn want(&mut self, socket: SocketId, local: SocketAddr) {
        // What ended long ago need not be kept.
        while self.tasks.try_join_next().is_some() {}
        let (IpAddr::V4(address), Some(port)) = (local.ip(), NonZeroU16::new(local.port())) else { return };
        if !address.is_private() {
            return;
        }
        let (anew, wishes) = mpsc::channel(1);
        self.wanted.insert(socket, anew);
        self.tasks.spawn_on(keep(socket, port, self.found.clone(), wishes), &self.runtime);
    }

    /// Asks anew for what is wanted of these sockets: a router may have restarted, and forgotten (RFC 6887 §8.5).
    pub(crate) fn renew(&self, sockets: impl Iterator<Item = SocketId>) {
        for anew in sockets.filter_map(|socket| self.wanted.get(&socket)) {
            // Who has been told already, and has not begun, need not be told twice.
            let _ = anew.try_send(());
        }
    }

    /// The socket is closed: so shall its port be.
    pub(crate) fn release(&mut self, socket: SocketId) {
        self.wanted.remove(&socket);
    }

    /// Begins to give everything back.
    pub(crate) fn release_all(&mut self) {
        self.wanted.clear();
    }

    /// Gives everything back, but waits for no router longer than this: what it does not take back ends by itself.
    pub(crate) async fn end(mut self, within: Duration) {
        self.release_all();
        let _ = timeout(within, async { while self.tasks.join_next().await.is_some() {} }).await;
    }
}

/// Keeps a port open until it is no longer wanted. Each wish asks for it anew, of whatever router is there then.
async fn keep(
    socket: SocketId,
    port: NonZeroU16,
    found: mpsc::Sender<Mapped>,
    mut wishes: mpsc::Receiver<()>,
) {
    sleep(FIRST_WORDS).await;
    while open(socket, port, &found, &mut wishes).await.is_some() {}
}

/// Looks for a router that opens ports, and keeps this one open until there is another wish. `None`: it is no longer wanted.
async fn open(
    socket: SocketId,
    port: NonZeroU16,
    found: &mpsc::Sender<Mapped>,
    wishes: &mut mpsc::Receiver<()>,
) -> Option<()> {
    // PCP and NAT-PMP answer within milliseconds; a search for UPnP takes up to a second.
    let protocols = [
        Config { enable_upnp: false, ..Config::default() },
        Config { enable_pcp: false, enable_nat_pmp: false, ..Config::default() },
    ];
    let mut protocols = protocols.into_iter().peekable();
    'protocols: while let Some(protocol) = protocols.next() {
        let client = Client::new(protocol);
        let available = tokio::select! {
            available = client.probe() => available,
            wish = wishes.recv() => return wish,
        };
        let Ok(Ok(available)) = available else { continue };
        if !(available.pcp || available.nat_pmp || available.upnp) {
            continue;
        }
        client.update_local_port(port);
        let mut external = client.watch_external_address();
        let mut is_open = false;
        let wish = loop {
            let is_last = protocols.peek().is_none();
            tokio::select! {
                () = sleep(PATIENCE), if !is_open && !is_last => continue 'protocols,
                changed = external.changed() => if changed.is_err() { break wishes.recv().await },
                wish = wishes.recv() => break wish,
            }
            let address = *external.borrow_and_update();
            if let Some(address) = address {
                is_open = true;
                let _ = found.send(Mapped { socket, address: address.into() }).await;
            }
        };
        if external.borrow().is_some() {
            client.deactivate();
            // Requests are served in order: an answer to the next one means that the port is given back.
            let _ = timeout(RELEASE, client.probe()).await;
        }
        return wish;
    }
    // No router opens ports; one that comes may.
    wishes.recv().await
}
