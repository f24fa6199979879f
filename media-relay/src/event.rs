//! What workers are told, and what they tell.

use std::sync::Arc;

use media_core::consumers::Overheard;
use media_core::path::memory::{Known, Outcome};
use seam::{Replied, Request, Told};

/// What the relay tells.
#[derive(Debug)]
pub enum Event {
    /// The reply to a request.
    Reply(Replied),
    /// What a session has to tell.
    Told(Told),
    /// A packet for somebody who listens to a call.
    Overheard(Overheard),
    /// What became of a move, for the store.
    Moved(Outcome),
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    Do(Box<Request>),
    Recall(Arc<Known>),
    Stop,
}
