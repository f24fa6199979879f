//! A direct path of which nothing was heard for too long, and against which nothing was said.
//!
//! Three reports in a row may be lost on a path that works: they do not even take it. That brings the media home, since nobody knows any
//! more whether the path is alive, but it is no failure: the call may leave again as soon as both phones are heard to report. It does
//! not flap: each lapse in a row waits twice as long, and only a long stretch that was spoken for makes the next one the first again.

use std::time::Duration;

use seam::path::Reason;
use serde::{Deserialize, Serialize};

use super::direction::Direction;
use crate::clock::timed;

/// At home after the first lapse at least.
const REST: Duration = Duration::from_secs(5);
/// A direct path that was spoken for for so long has nothing to make good.
const LONG: Duration = Duration::from_secs(60);

/// A call's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Lapse {
    /// The present way home is for one.
    is_present: bool,
    /// How many in a row.
    times: u32,
    /// At home after one since then; both are to report first.
    home: Option<Duration>,
}

timed!(Lapse { home; is_present, times });

impl Lapse {
    /// A path that was direct since `since` is to be left, for it is not known to be alive any more. Who has never reported off the relay
    /// has no lapse: its reports may go elsewhere.
    pub(super) fn note(&mut self, why: Reason, lines: &[[Direction; 2]], since: Duration, now: Duration) {
        let mut unknown =
            lines.iter().flatten().filter(|direction| direction.is_unknown(since, now).is_some());
        self.is_present =
            why == Reason::ReportsStopped && unknown.all(|direction| direction.has_only_lapsed(since));
        if now >= since.saturating_add(LONG) {
            self.times = 0;
        }
    }

    /// Both are at home: when they may leave again if that was for a lapse, at `most` so much later.
    pub(super) fn rest(&mut self, most: Duration, now: Duration) -> Option<Duration> {
        std::mem::take(&mut self.is_present).then(|| {
            let rest = REST.saturating_mul(2u32.saturating_pow(self.times)).min(most);
            self.times = self.times.saturating_add(1);
            self.home = Some(now);
            now.saturating_add(rest)
        })
    }

    /// Whether both have reported since, if they have to.
    pub(super) fn is_over(&mut self, lines: &[[Direction; 2]]) -> bool {
        if let Some(home) = self.home
            && lines.iter().flatten().all(|direction| direction.is_reported_since(home))
        {
            self.home = None;
        }
        self.home.is_none()
    }
}
