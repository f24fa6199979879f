//! The time, as a core is told it.

use std::time::Duration;

/// An engine's own clock is ahead of its shell's by so many seconds, a hundred days: a shell's clock begins with its process, a call that
/// comes from another process ([`state`](crate::state)) may be older than that, and nothing is ever before the beginning. Moments inside
/// are by the own clock, whatever comes in or goes out is by the shell's.
const BEFORE: Duration = Duration::from_secs(100 * 86_400);

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

impl Now {
    /// By the engine's own clock.
    pub(crate) fn own(self) -> Self {
        Self { monotonic: self.monotonic.saturating_add(BEFORE), ..self }
    }
}

/// A moment of the engine's own clock by the shell's.
pub(crate) fn outside(own: Duration) -> Duration {
    own.saturating_sub(BEFORE)
}
