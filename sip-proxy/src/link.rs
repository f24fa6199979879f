//! What shards tell each other.

use std::sync::Arc;

use bytes::Bytes;
use sip_engine::io::{ConnectionId, Flow, Input, Ticket};
use tokio::sync::mpsc;

/// A send on its way to the shard that owns the connection, and back if it fails.
#[derive(Debug, Clone)]
pub(crate) struct Transmission {
    pub(crate) flow: Flow,
    pub(crate) server_name: Option<Arc<str>>,
    pub(crate) message: Bytes,
    pub(crate) ticket: Ticket,
    /// The shard whose engine wants to know of a failure.
    pub(crate) sender: usize,
}

/// What arrives in a shard's inbox.
#[derive(Debug)]
pub(crate) enum Letter {
    Input(Box<Input>),
    Transmit(Transmission),
    Close(ConnectionId),
    Stop,
}

/// The way into one shard, from any thread.
#[derive(Debug, Clone)]
pub struct ShardHandle {
    pub(crate) inbox: mpsc::UnboundedSender<Letter>,
}

impl ShardHandle {
    /// Hands an input to the shard's engine. A shard that has stopped takes nothing; its calls are gone with it.
    pub fn input(&self, input: Input) {
        let _ = self.inbox.send(Letter::Input(Box::new(input)));
    }

    pub(crate) fn send(&self, letter: Letter) {
        let _ = self.inbox.send(letter);
    }
}

/// Connections are numbered so that the number names the shard that owns them.
pub(crate) const OWNER_SHIFT: u32 = 48;

/// Which shard owns a connection.
pub(crate) fn owner(connection: ConnectionId) -> usize {
    (connection.0 >> OWNER_SHIFT) as usize
}
