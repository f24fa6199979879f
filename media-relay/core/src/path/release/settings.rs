//! What an operator says of releases: of one call, and of all.

use std::time::Duration;

use seam::path::Constraint;
use serde::{Deserialize, Serialize};

use crate::path::timeline::Timeline;

/// Time limits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Settings {
    /// How long a call is left alone after its answer.
    pub settle: Duration,
    /// How long a phone may take to answer a re-INVITE to move.
    pub answering: Duration,
    /// How long a trial lasts, from when both phones have moved: as long as a path that does not work is silent.
    pub trial: Duration,
    /// How long a phone may take to show its mapping at the second address.
    pub learning: Duration,
    /// How long both phones may take to be heard at the relay after a return.
    pub homecoming: Duration,
    /// Rest between a return and the next try of a path that has worked.
    pub rest: Duration,
    /// How often a path that has worked may fail before the call stays.
    pub failures: u8,
    /// Share of packets lost, in percent, above which two reports in a row end a direct path.
    pub loss_percent: u32,
    /// Jitter above which a report ends a direct path.
    pub jitter: Duration,
    /// How long such phones in such networks are left alone whose path has failed twice.
    pub remember: Duration,
    /// Share of calls, in percent, that stay on the relay for no reason, and of the others that come back to it.
    pub cover_percent: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(500),
            answering: Duration::from_secs(2),
            trial: Duration::from_millis(700),
            learning: Duration::from_secs(2),
            homecoming: Duration::from_secs(2),
            rest: Duration::from_secs(60),
            failures: 2,
            loss_percent: 10,
            jitter: Duration::from_millis(150),
            remember: Duration::from_secs(3_600),
            cover_percent: 0,
        }
    }
}

/// What a machine begins with.
#[derive(Debug)]
pub struct Outset {
    /// Limits.
    pub settings: Settings,
    /// What policy says.
    pub constraint: Constraint,
    /// How many m-lines could move.
    pub lines: usize,
    /// What was before, if the call has been moved before.
    pub past: Option<Timeline>,
}
