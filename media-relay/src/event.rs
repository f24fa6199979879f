//! What workers are told, and what they tell.

use std::sync::Arc;

use media_core::path::memory::{Known, Outcome};
use media_core::session::{self, Action, Reply};

/// What the relay tells.
#[derive(Debug)]
pub enum Event {
    /// The reply to an action.
    Reply {
        /// Its session.
        session: u64,
        /// The action's number.
        number: u32,
        /// The reply.
        reply: Reply,
    },
    /// What a session has to tell.
    Told {
        /// Which.
        session: u64,
        /// What.
        event: session::Event,
    },
    /// What became of a move, for the store.
    Moved(Outcome),
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    Do { session: u64, number: u32, action: Box<Action> },
    Recall(Arc<Known>),
    Stop,
}
