//! What the watchdog remembers of a part from one look to the next.

use std::time::Duration;

/// What the watchdog has seen of a part.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) beats: u64,
    pub(crate) rounds: u64,
    pub(crate) silent: Duration,
    pub(crate) asked: Duration,
    /// Since the last round.
    pub(crate) waiting: Duration,
    /// The processor time of its thread when its silence was noticed.
    pub(crate) used: Option<(i32, Duration)>,
    pub(crate) is_told: bool,
}
