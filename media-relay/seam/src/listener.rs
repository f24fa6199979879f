//! Who listens to a session without being a party.

use serde::{Deserialize, Serialize};

/// As what somebody listens who is no party.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Unknown to the parties, for whom the law has sent.
    Tap,
    /// Keeps it.
    Recorder,
    /// Mixes it with others'.
    Mixer,
}

/// Somebody who listens to a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listener {
    /// Tells it apart from others of its role; whoever sets it counts.
    pub number: u32,
    /// As what.
    pub role: Role,
}
