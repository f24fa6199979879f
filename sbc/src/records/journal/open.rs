//! What the journal knows of a call that has not ended.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_engine::event::{CallEvent, CallEventKind};

/// A call without its end, as far as the journal tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    pub(super) started: Duration,
    pub(super) answered: Option<Duration>,
    /// The last moment known of it, on both clocks.
    pub(super) alive: (Duration, Duration),
    pub(super) sequence: u32,
    /// How long its media had been off the relay when the media plane said so last, and when that was if it still is.
    direct: Duration,
    direct_since: Option<Duration>,
    /// Of the process that wrote last; calls of one before it no longer live.
    #[serde(skip, default = "yes")]
    pub(super) is_of_this_life: bool,
}

fn yes() -> bool {
    true
}

impl Open {
    /// A call that begins with this event.
    pub(super) fn new(event: &CallEvent) -> Self {
        Self {
            started: event.monotonic,
            answered: None,
            alive: (event.wall, event.monotonic),
            sequence: event.sequence,
            direct: Duration::ZERO,
            direct_since: None,
            is_of_this_life: true,
        }
    }

    /// What happened next in it. How long its media was direct is what was measured, never what the timeline's words say: media
    /// may be direct by those with some of its streams on the relay.
    pub(super) fn follow(&mut self, event: &CallEvent) {
        self.sequence = event.sequence;
        self.alive = (event.wall, event.monotonic);
        match &event.what {
            CallEventKind::Answered { .. } => self.answered = Some(event.monotonic),
            CallEventKind::Metered { direct, is_direct } => {
                self.direct = *direct;
                self.direct_since = is_direct.then_some(event.monotonic);
            }
            _ => {}
        }
    }

    pub(super) fn direct_until(&self, now: Duration) -> Duration {
        let since = self.direct_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.direct.saturating_add(since)
    }
}
