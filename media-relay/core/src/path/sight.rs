//! What the relay sees of a stream that may move.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// What the relay sees of one direction's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// Its source.
    pub ssrc: u32,
    /// Its codec's clock, Hz.
    pub clock_rate: u32,
    /// Packets relayed.
    pub packets: u64,
    /// The last one's sequence number.
    pub sequence: u16,
    /// When it came.
    pub heard: Duration,
    /// The last silence at the relay: the last packet before it, and the first after.
    pub silence: Option<(Duration, Duration)>,
}

timed!(Sight { heard, silence; ssrc, clock_rate, packets, sequence });
