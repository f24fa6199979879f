//! The table of a shard's connections: how many, of whom, and which one a message leaves by.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use sip_engine::io::{ConnectionId, Flow, ListenerId, Ticket, Transport};
use tokio::sync::mpsc;

use super::converse::Origin;
use super::dial;
use crate::link::OWNER_SHIFT;
use crate::plane::PlaneSettings;
use crate::shard::{NOBODY, Shard};

/// Messages that may wait for a slow peer: what hanging up all calls of a busy trunk sends at once.
const QUEUE: usize = 8192;

/// The same in bytes.
const QUEUED_BYTES: usize = 4 << 20;

/// Bytes that may wait for all peers together, so that many that do not read can't take the memory.
const QUEUED_IN_ALL: usize = 64 << 20;

/// Marks the number of a connection that we opened: its remote port is one that listens, so that it can be opened again.
const DIALLED: u64 = 1 << (OWNER_SHIFT - 1);

/// The answer to a keepalive (RFC 5626 §4.4.1).
static PONG: Bytes = Bytes::from_static(b"\r\n");

/// A message for a connection's writer.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) message: Bytes,
    pub(crate) ticket: Ticket,
    /// The shard whose engine wants to know of a failure.
    pub(crate) sender: usize,
}

/// A connection's place in the table, as its task holds it.
pub(crate) struct Entered {
    pub(crate) connection: ConnectionId,
    pub(crate) flow: Flow,
    pub(super) waiting: mpsc::Receiver<Outgoing>,
    /// Taken from `waiting`, and not known to have been written.
    pub(super) writing: Vec<Outgoing>,
    pub(super) queued: Rc<Queued>,
}

/// Bytes that wait for one peer, and for all.
pub(super) struct Queued {
    here: Cell<usize>,
    in_all: Rc<Cell<usize>>,
}

impl Queued {
    fn add(&self, bytes: usize) -> bool {
        let fits = self.here.get() < QUEUED_BYTES && self.in_all.get() < QUEUED_IN_ALL;
        if fits {
            self.here.set(self.here.get() + bytes);
            self.in_all.set(self.in_all.get() + bytes);
        }
        fits
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.here.set(self.here.get() - bytes);
        self.in_all.set(self.in_all.get() - bytes);
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.in_all.set(self.in_all.get() - self.here.get());
    }
}

struct Connection {
    queue: mpsc::Sender<Outgoing>,
    queued: Rc<Queued>,
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
pub(crate) struct Connections {
    next: u64,
    open: AHashMap<ConnectionId, Connection>,
    by_peer: AHashMap<Peer, ConnectionId>,
    per_source: AHashMap<IpAddr, usize>,
    /// The names that connections to an address were opened for, while these were open or not: a dialog outlives them.
    names: AHashMap<(ListenerId, SocketAddr), Arc<str>>,
    queued: Rc<Cell<usize>>,
    shard: Weak<RefCell<Shard>>,
}

impl Connections {
    pub(crate) fn new(shard: usize, me: Weak<RefCell<Shard>>) -> Self {
        Self {
            next: (shard as u64) << OWNER_SHIFT,
            open: AHashMap::new(),
            by_peer: AHashMap::new(),
            per_source: AHashMap::new(),
            names: AHashMap::new(),
            queued: Rc::default(),
            shard: me,
        }
    }

    /// A new connection; `None` if there are too many.
    fn enter(
        &mut self,
        flow: Flow,
        origin: Origin,
        name: Option<Arc<str>>,
        settings: &PlaneSettings,
    ) -> Option<Entered> {
        let of_source = self.per_source.get(&flow.remote.ip()).copied().unwrap_or(0);
        if self.open.len() >= settings.connections || of_source >= settings.connections_per_source {
            return None;
        }
        self.per_source.insert(flow.remote.ip(), of_source + 1);
        let mark = if origin == Origin::Dialled { DIALLED } else { 0 };
        let connection = ConnectionId(self.next | mark);
        self.next += 1;
        let flow = Flow { connection: Some(connection), ..flow };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let queued = Rc::new(Queued { here: Cell::new(0), in_all: self.queued.clone() });
        if origin == Origin::Dialled || flow.transport == Transport::Tcp {
            self.by_peer.insert(peer(&flow, name.clone()), connection);
        }
        let entry = Connection { queue, queued: queued.clone(), flow, name };
        self.open.insert(connection, entry);
        Some(Entered { connection, flow, waiting, writing: Vec::new(), queued })
    }

    /// Takes a connection off the table. Its task writes what is queued, and ends.
    pub(crate) fn close(&mut self, connection: ConnectionId) {
        let Some(closed) = self.open.remove(&connection) else { return };
        let peer = peer(&closed.flow, closed.name);
        if self.by_peer.get(&peer) == Some(&connection) {
            self.by_peer.remove(&peer);
        }
        let source = closed.flow.remote.ip();
        match self.per_source.get_mut(&source) {
            Some(of_source) if *of_source > 1 => *of_source -= 1,
            _ => drop(self.per_source.remove(&source)),
        }
    }

    /// Answers a keepalive. A peer that does not read its answers gets none.
    pub(super) fn pong(&self, connection: ConnectionId) {
        if let Some(entry) = self.open.get(&connection)
            && entry.queued.here.get() == 0
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
        if !self.queued.add(length) {
            return Err(outgoing);
        }
        self.queue.try_send(outgoing).map_err(|error| {
            self.queued.remove(length);
            error.into_inner()
        })
    }
}

impl Shard {
    /// A new connection; `None`, counted, if there are too many.
    pub(super) fn enter(&mut self, flow: Flow, origin: Origin, name: Option<Arc<str>>) -> Option<Entered> {
        let entered = self.connections.enter(flow, origin, name, &self.settings);
        match entered {
            Some(_) => self.counters.connections.up(),
            None => self.counters.connections_refused.up(),
        }
        entered
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
        let Some(entered) = self.enter(flow, Origin::Dialled, name.clone()) else { return Err(outgoing) };
        if let Some(name) = &name {
            if self.connections.names.len() > self.settings.connections {
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
        shard.counters.connections.down();
        shard.closed(self.connection);
        shard.settle();
    }
}
