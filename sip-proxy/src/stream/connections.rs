//! The table of a shard's connections: how many, of whom, and which one a message leaves by.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use sip_engine::io::{ConnectionId, Flow, ListenerId, Notice, Transport};
use tokio::sync::mpsc;

use super::crowd::Crowd;
use super::dial;
use super::standing::{Entered, InAll, Origin, Outgoing, Proof, Standing};
use crate::settings::PlaneSettings;
use crate::shard::{NOBODY, Shard};
use crate::spread::OWNER_SHIFT;

/// Messages that may wait for a slow peer: what hanging up all calls of a busy trunk sends at once.
const QUEUE: usize = 8192;

/// Connections that we open to one address: a stranger whose Via wants its answers by new connections has no more.
const DIALLED_PER_ADDRESS: usize = 64;

/// Marks the number of a connection that we opened: its remote port is one that listens, so that it can be opened again.
const DIALLED: u64 = 1 << (OWNER_SHIFT - 1);

/// The answer to a keepalive (RFC 5626 §4.4.1).
static PONG: Bytes = Bytes::from_static(b"\r\n");

struct Connection {
    queue: mpsc::Sender<Outgoing>,
    standing: Rc<Standing>,
    flow: Flow,
    name: Option<Arc<str>>,
}

/// Who is at the other end of a connection that more than one transaction may use. Of TLS connections only those that we
/// opened can be shared, among messages for the name that the certificate was checked against (RFC 5922 §7.2).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Peer {
    listener: ListenerId,
    remote: SocketAddr,
    name: Option<Arc<str>>,
}

/// The connections that a shard owns.
///
/// Those that we opened have a budget of their own. Of those that peers opened, strangers have a part only: the rest is for
/// peers that have shown who they are. When there are too many, strangers give first ([`Crowd`]).
pub(crate) struct Connections {
    next: u64,
    open: AHashMap<ConnectionId, Connection>,
    by_peer: AHashMap<Peer, ConnectionId>,
    /// How many we opened, to whom.
    dialled: AHashMap<IpAddr, usize>,
    dialled_in_all: usize,
    strangers: Crowd,
    /// The names that connections to an address were opened for, while these were open or not: a dialog outlives them.
    names: AHashMap<(ListenerId, SocketAddr), Arc<str>>,
    in_all: Rc<InAll>,
    shard: Weak<RefCell<Shard>>,
}

/// A connection that wants a place in the table.
pub(super) struct Newcomer {
    pub(super) flow: Flow,
    pub(super) origin: Origin,
    pub(super) proof: Proof,
    /// What its peer's certificate was checked against.
    pub(super) name: Option<Arc<str>>,
}

/// What entering the table led to.
struct Entry {
    entered: Entered,
    /// Whose place it got.
    victim: Option<ConnectionId>,
}

impl Connections {
    pub(crate) fn new(shard: usize, settings: &PlaneSettings, me: Weak<RefCell<Shard>>) -> Self {
        Self {
            next: (shard as u64) << OWNER_SHIFT,
            open: AHashMap::new(),
            by_peer: AHashMap::new(),
            dialled: AHashMap::new(),
            dialled_in_all: 0,
            strangers: Crowd::new(settings.connections_unproven, settings.connections_per_source),
            names: AHashMap::new(),
            in_all: Rc::default(),
            shard: me,
        }
    }

    /// The shard that owns them; `None` while it ends.
    pub(super) fn shard(&self) -> Option<Rc<RefCell<Shard>>> {
        self.shard.upgrade()
    }

    /// A new connection; `None` if there are too many.
    fn enter(&mut self, newcomer: Newcomer, settings: &PlaneSettings) -> Option<Entry> {
        let Newcomer { flow, origin, proof, name } = newcomer;
        let ip = flow.remote.ip();
        let mut victim = None;
        match origin {
            Origin::Dialled => {
                let to_it = self.dialled.get(&ip).copied().unwrap_or(0);
                if self.dialled_in_all >= settings.connections_dialled || to_it >= DIALLED_PER_ADDRESS {
                    return None;
                }
                self.dialled_in_all = self.dialled_in_all.saturating_add(1);
                self.dialled.insert(ip, to_it.saturating_add(1));
            }
            Origin::Accepted => {
                let accepted = self.open.len().saturating_sub(self.dialled_in_all);
                if accepted >= settings.connections {
                    victim = Some(self.strangers.shrink()?);
                }
            }
        }
        let mark = if origin == Origin::Dialled { DIALLED } else { 0 };
        let connection = ConnectionId(self.next | mark);
        self.next = self.next.wrapping_add(1);
        if proof == Proof::Wanted {
            victim = self.strangers.enter(ip, connection.0).or(victim);
        }
        let flow = Flow { connection: Some(connection), ..flow };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let standing = Rc::new(Standing::new(proof, self.in_all.clone()));
        if origin == Origin::Dialled || flow.transport == Transport::Tcp {
            self.by_peer.insert(peer(&flow, name.clone()), connection);
        }
        let entry = Connection { queue, standing: standing.clone(), flow, name };
        self.open.insert(connection, entry);
        let entered = Entered { connection, flow, waiting, writing: Vec::new(), standing };
        Some(Entry { entered, victim: victim.map(ConnectionId) })
    }

    /// The peer of a connection has shown who it is.
    pub(crate) fn proven(&mut self, connection: ConnectionId) {
        if let Some(entry) = self.open.get(&connection)
            && !entry.standing.prove()
        {
            self.strangers.leave(entry.flow.remote.ip(), connection.0);
        }
    }

    /// Takes a connection off the table. Its task writes what is queued, and ends.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        let Some(closed) = self.open.remove(&connection) else { return };
        let peer = peer(&closed.flow, closed.name);
        if self.by_peer.get(&peer) == Some(&connection) {
            self.by_peer.remove(&peer);
        }
        let ip = closed.flow.remote.ip();
        if connection.0 & DIALLED == 0 {
            self.strangers.leave(ip, connection.0);
            return;
        }
        self.dialled_in_all = self.dialled_in_all.saturating_sub(1);
        match self.dialled.get_mut(&ip) {
            Some(to_it) if *to_it > 1 => *to_it = to_it.saturating_sub(1),
            _ => drop(self.dialled.remove(&ip)),
        }
    }

    /// Answers a keepalive. A peer that does not read its answers gets none.
    pub(super) fn pong(&self, connection: ConnectionId) {
        if let Some(entry) = self.open.get(&connection)
            && entry.standing.is_idle()
        {
            let _ = entry.push(Outgoing { message: PONG.clone(), ticket: NOBODY, sender: 0 });
        }
    }

    fn find(&self, flow: &Flow, name: Option<Arc<str>>) -> Option<ConnectionId> {
        match flow.connection {
            Some(connection) if self.open.contains_key(&connection) => Some(connection),
            // RFC 5626 §5.3: a flow that is gone is gone; only its owner can come back.
            Some(connection) if connection.0 & DIALLED == 0 => None,
            _ => self.by_peer.get(&peer(flow, name)).copied(),
        }
    }
}

fn peer(flow: &Flow, name: Option<Arc<str>>) -> Peer {
    let name = name.filter(|_| flow.transport == Transport::Tls);
    Peer { listener: flow.listener, remote: flow.remote, name }
}

impl Connection {
    /// Queues a message; gives it back if too much waits.
    fn push(&self, outgoing: Outgoing) -> Result<(), Outgoing> {
        let length = outgoing.message.len();
        if !self.standing.add(length) {
            return Err(outgoing);
        }
        self.queue.try_send(outgoing).map_err(|error| {
            self.standing.unqueue(length);
            error.into_inner()
        })
    }
}

impl Shard {
    /// A new connection; `None`, counted and told, if there are too many.
    pub(super) fn enter(&mut self, newcomer: Newcomer) -> Option<Entered> {
        let (flow, origin) = (newcomer.flow, newcomer.origin);
        let Some(Entry { entered, victim }) = self.connections.enter(newcomer, &self.settings) else {
            self.counters.streams.refused.up();
            let (kind, detail) = match origin {
                Origin::Accepted => (
                    "connections_full",
                    "a connection was refused: there are limits.connections, and each has proven who it is; raise the limit if the machine bears more",
                ),
                Origin::Dialled => (
                    "connections_dialled_full",
                    "a connection to a peer was not opened: there are limits.connections_dialled of ours, or 64 to its address; raise the limit, or see why the peer wants so many",
                ),
            };
            self.tell(kind, flow.remote, detail);
            return None;
        };
        self.counters.streams.open.up();
        if let Some(victim) = victim {
            self.counters.streams.evicted.up();
            self.tell(
                "connections_evicted",
                flow.remote,
                "strangers hold limits.connections_unproven, or one of them limits.connections_per_source: an old one was closed for a new one; if these are your phones, see why they do not register",
            );
            self.connections.close(victim);
        }
        Some(entered)
    }

    fn tell(&mut self, kind: &'static str, remote: SocketAddr, detail: &str) {
        self.notice(Notice { kind, remote: Some(remote), detail: detail.to_owned() });
    }

    /// Queues a message; opens a connection where none is named, or the named one was ours to open, and none to that
    /// address stands. Gives it back if that can't be.
    pub(crate) fn send_by_stream(
        &mut self,
        flow: Flow,
        name: Option<Arc<str>>,
        outgoing: Outgoing,
    ) -> Result<(), Outgoing> {
        let place = (flow.listener, flow.remote);
        let name = name.or_else(|| self.connections.names.get(&place).cloned());
        if let Some(connection) = self.connections.find(&flow, name.clone())
            && let Some(entry) = self.connections.open.get(&connection)
        {
            return entry.push(outgoing);
        }
        if flow.connection.is_some_and(|connection| connection.0 & DIALLED == 0) {
            return Err(outgoing);
        }
        let Some(shard) = self.connections.shard.upgrade() else { return Err(outgoing) };
        let newcomer = Newcomer { flow, origin: Origin::Dialled, proof: Proof::Given, name: name.clone() };
        let Some(entered) = self.enter(newcomer) else {
            return Err(outgoing);
        };
        if let Some(name) = &name {
            if self.connections.names.len() > self.settings.connections_dialled {
                self.connections.names.clear();
            }
            self.connections.names.insert(place, name.clone());
        }
        let queued = match self.connections.open.get(&entered.connection) {
            Some(entry) => entry.push(outgoing),
            None => Err(outgoing),
        };
        tokio::task::spawn_local(vitals::belonging(dial::dial(entered, name, shard)));
        queued
    }
}

impl Entered {
    /// What was queued and not written has failed; the connection is off the table, and all shards are told.
    pub(super) fn leave(mut self, shard: &Rc<RefCell<Shard>>) {
        let mut shard = shard.borrow_mut();
        shard.tick();
        shard.connections.close(self.connection);
        self.waiting.close();
        let unwritten = self.writing.into_iter().chain(std::iter::from_fn(|| self.waiting.try_recv().ok()));
        for outgoing in unwritten {
            shard.failed(outgoing.ticket, outgoing.sender);
        }
        shard.counters.streams.open.down();
        shard.closed(self.connection);
        shard.settle();
    }
}
