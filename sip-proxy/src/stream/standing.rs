//! A connection's place among the others, as its task holds it: who opened it, what is known of its peer, what waits for it.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use sip_engine::io::{ConnectionId, Flow, Ticket};
use tokio::sync::mpsc;

/// Bytes that may wait for a slow peer.
const QUEUED_BYTES: usize = 4 << 20;

/// Bytes that may wait for all peers together, so that many that do not read can't take the memory.
const QUEUED_IN_ALL: usize = 64 << 20;

/// Strangers have little to hear: the same two bounds for those who have not shown who they are, apart from the others'.
const QUEUED_BY_STRANGER: usize = 256 << 10;
const QUEUED_BY_STRANGERS: usize = 16 << 20;

/// Who opened a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The peer.
    Accepted,
    /// We.
    Dialled,
}

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
pub(super) struct InAll {
    proven: Cell<usize>,
    strangers: Cell<usize>,
}

impl Standing {
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.get()
    }

    pub(super) fn new(proof: Proof, in_all: Rc<InAll>) -> Self {
        Self {
            is_proven: Cell::new(proof == Proof::Given),
            here: Cell::new(0),
            as_stranger: Cell::new(0),
            in_all,
        }
    }

    /// The peer has shown who it is; whether it had before.
    pub(super) fn prove(&self) -> bool {
        self.is_proven.replace(true)
    }

    pub(super) fn add(&self, bytes: usize) -> bool {
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
    pub(super) fn unqueue(&self, bytes: usize) {
        if self.is_proven() {
            give_back(&self.here, &self.in_all.proven, bytes);
        } else {
            give_back(&self.as_stranger, &self.in_all.strangers, bytes);
        }
    }

    pub(super) fn is_idle(&self) -> bool {
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
