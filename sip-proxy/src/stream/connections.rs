//! The table of a shard's connections: how many, of whom, and which one a message leaves by.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use sip_engine::io::{ConnectionId, Flow, ListenerId, Notice, Ticket, Transport};
use tokio::sync::mpsc;

use super::converse::Origin;
use super::crowd::Crowd;
use super::dial;
use crate::settings::PlaneSettings;
use crate::shard::{NOBODY, Shard};
use crate::spread::OWNER_SHIFT;

/// Messages that may wait for a slow peer: what hanging up all calls of a busy trunk sends at once.
const QUEUE: usize = 8192;

/// The same in bytes.
const QUEUED_BYTES: usize = 4 << 20;

/// Bytes that may wait for all peers together, so that many that do not read can't take the memory.
const QUEUED_IN_ALL: usize = 64 << 20;

/// Strangers have little to hear: the same two bounds for those who have not shown who they are, apart from the others'.
const QUEUED_BY_STRANGER: usize = 256 << 10;
const QUEUED_BY_STRANGERS: usize = 16 << 20;

/// Connections that we open to one address: a stranger whose Via wants its answers by new connections has no more.
const DIALLED_PER_ADDRESS: usize = 64;

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
    pub(super) standing: Rc<Standing>,
}

/// Whether a peer has still to show who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// It is known by its address, or it is we who went to it.
    Given,
    /// It is a stranger until the engine says otherwise.
    Wanted,
}

/// What one peer is to us, and how many bytes wait for it.
pub(super) struct Standing {
    is_proven: Cell<bool>,
    here: Cell<usize>,
    /// Of `here`, what was added while the peer was a stranger.
    as_stranger: Cell<usize>,
    in_all: Rc<InAll>,
}

/// Bytes that wait for all peers.
#[derive(Default)]
struct InAll {
    proven: Cell<usize>,
    strangers: Cell<usize>,
}

impl Standing {
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.get()
    }

    fn add(&self, bytes: usize) -> bool {
        let (here, of_one, in_all, of_all) = if self.is_proven() {
            (&self.here, QUEUED_BYTES, &self.in_all.proven, QUEUED_IN_ALL)
        } else {
            (&self.as_stranger, QUEUED_BY_STRANGER, &self.in_all.strangers, QUEUED_BY_STRANGERS)
        };
        let fits = here.get() < of_one && in_all.get() < of_all;
        if fits {
            here.set(here.get().saturating_add(bytes));
            in_all.set(in_all.get().saturating_add(bytes));
        }
        fits
    }

    /// What was written was queued in order: what was queued for a stranger comes first.
    pub(super) fn remove(&self, bytes: usize) {
        let early = bytes.min(self.as_stranger.get());
        give_back(&self.as_stranger, &self.in_all.strangers, early);
        give_back(&self.here, &self.in_all.proven, bytes.saturating_sub(early));
    }

    /// Takes back what was just added.
    fn unqueue(&self, bytes: usize) {
        if self.is_proven() {
            give_back(&self.here, &self.in_all.proven, bytes);
        } else {
            give_back(&self.as_stranger, &self.in_all.strangers, bytes);
        }
    }

    fn is_idle(&self) -> bool {
        self.here.get() == 0 && self.as_stranger.get() == 0
    }
}

fn give_back(here: &Cell<usize>, in_all: &Cell<usize>, bytes: usize) {
    let bytes = bytes.min(here.get());
    here.set(here.get().saturating_sub(bytes));
    in_all.set(in_all.get().saturating_sub(bytes));
}

impl Drop for Standing {
    fn drop(&mut self) {
        give_back(&self.here, &self.in_all.proven, usize::MAX);
        give_back(&self.as_stranger, &self.in_all.strangers, usize::MAX);
    }
}

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
    fn enter(
        &mut self,
        flow: Flow,
        origin: Origin,
        proof: Proof,
        name: Option<Arc<str>>,
        settings: &PlaneSettings,
    ) -> Option<Entry> {
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
        let standing = Rc::new(Standing {
            is_proven: Cell::new(proof == Proof::Given),
            here: Cell::new(0),
            as_stranger: Cell::new(0),
            in_all: self.in_all.clone(),
        });
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
            && !entry.standing.is_proven.replace(true)
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
    pub(super) fn enter(
        &mut self,
        flow: Flow,
        origin: Origin,
        proof: Proof,
        name: Option<Arc<str>>,
    ) -> Option<Entered> {
        let Some(Entry { entered, victim }) =
            self.connections.enter(flow, origin, proof, name, &self.settings)
        else {
            self.counters.connections_refused.up();
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
        self.counters.connections.up();
        if let Some(victim) = victim {
            self.counters.connections_evicted.up();
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
        let Some(entered) = self.enter(flow, Origin::Dialled, Proof::Given, name.clone()) else {
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
        shard.counters.connections.down();
        shard.closed(self.connection);
        shard.settle();
    }
}
