//! The time, as a core is told it.

use std::time::Duration;

/// A moment on both clocks.
///
/// Timers and durations use `monotonic`; records carry `wall`. A wall clock that an operator steps by an hour changes
/// no duration and fires no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Since an arbitrary fixed origin of this process; never goes back.
    pub monotonic: Duration,
    /// Since 1970-01-01T00:00:00Z.
    pub wall: Duration,
}
