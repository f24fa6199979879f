//! The one place of the signalling plane that reads clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use sip_engine::time::Now;

/// Both clocks, from one origin that all shards share.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// The origin is the moment of this call.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The present moment.
    pub fn now(&self) -> Now {
        Now {
            monotonic: self.origin.elapsed(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO),
        }
    }

    /// When `monotonic` will be, for a timer of the runtime.
    pub(crate) fn instant(&self, monotonic: Duration) -> Instant {
        // Beyond what the clock can show is as good as never, and now is when to look again.
        self.origin.checked_add(monotonic).unwrap_or_else(Instant::now)
    }
}
