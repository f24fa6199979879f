//! What was seen of a path.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::words::words;

/// Why the verdict on a direction was what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// How far the report is past the last packet known to have been sent.
    pub ahead: i32,
    /// How many packets must have been sent since.
    pub due: i64,
}

/// What became of a trial's packets, but for those that were sent too early to arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialOutcome {
    /// Packets that the relay did not see.
    pub sent: u16,
    /// What the receiver has lost since its last report before, but for what has not even reached the relay since the trial.
    pub lost: i32,
}

impl TrialOutcome {
    /// Loss on the way from the relay is counted against the path; more than half is no accident.
    pub fn is_proof(self) -> bool {
        self.lost.saturating_mul(2) < i32::from(self.sent)
    }

    /// On a path that does not work all are lost. What is between a proof and this says nothing: the next report may.
    pub fn is_refutation(self) -> bool {
        self.lost.saturating_mul(4) >= i32::from(self.sent).saturating_mul(3)
    }
}

words! {
    /// What is wrong with a report.
    pub enum Lie {
        /// About a source that nobody sends as.
        Source = "source",
        /// Its sequence number went backwards.
        Backwards = "backwards",
        /// It has more packets than were sent.
        TooMany = "too_many",
        /// Jitter of many seconds.
        Jitter = "jitter",
    }
}

/// What is known of a direction's audio gap in a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// The relay has carried the packets on both sides of it, and its receiver has missed all of those between.
    Measured(Duration),
    /// As long at most: so many packets are missing between two reports of the receiver.
    Missing {
        /// Packets.
        packets: u32,
        /// What they last.
        length: Duration,
    },
    /// The receiver has begun to count anew: what it had missed before, nobody is told.
    Unknown,
}
