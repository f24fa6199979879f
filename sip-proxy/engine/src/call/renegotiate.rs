//! Re-INVITEs that the media plane wishes for: a leg's media moves, and the other end need not know.
//!
//! Signalling owns who may offer now. A leg in which an offer is open is not asked; an offer of an end that crosses ours
//! waits for its end; and however a phone takes ours, its call goes on.

use std::time::Duration;

use crate::timer::TimerId;
use seam::Endpoint;

/// How often a leg may be asked in a row, and after how long once more: a release, a failure and a return are five
/// re-INVITEs (learn, move, hold, home), and a media plane that has lost its way must not ring a phone's ears off.
const BURST: u32 = 8;
const REFILL: Duration = Duration::from_secs(5);

/// The leg of a wish.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) number: u32,
    pub(super) endpoint: Endpoint,
    /// Its deadline.
    pub(super) timer: TimerId,
    pub(super) is_late: bool,
}

/// A leaky bucket: the moment when all that was asked is forgotten.
#[derive(Debug, Default)]
pub(super) struct Allowance(Duration);

impl Allowance {
    pub(super) fn has_room(&self, now: Duration) -> bool {
        self.0.saturating_sub(now) <= REFILL.saturating_mul(BURST.saturating_sub(1))
    }

    /// Until all is forgotten.
    pub(super) fn spent(&self, now: Duration) -> Duration {
        self.0.saturating_sub(now)
    }

    pub(super) fn until(moment: Duration) -> Self {
        Self(moment)
    }

    pub(super) fn spend(&mut self, now: Duration) {
        self.0 = self.0.max(now).saturating_add(REFILL);
    }
}
