//! A direct path that nothing may use is left alone (docs/crush.md §8.3): no keepalives, no checks, no copies, nor is its death
//! looked for.

use std::time::Duration;

use super::Agent;
use super::switching::Incoming;

/// Until somebody says otherwise.
pub(super) const FOR_GOOD: Duration = Duration::MAX;

impl Agent {
    pub(super) fn is_resting(&self) -> bool {
        !self.rests_until.is_zero()
    }

    /// Our policy forbids the path, or the peer says that its own does.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(until);
    }

    /// The peer has come home because its policy says so. It is asked after the hold-off whether that still holds.
    pub(super) fn rest_with_peer(&mut self) {
        if let Incoming::Relay { not_before, .. } = self.incoming {
            self.rest(not_before);
        }
    }

    /// The path is of use again, or may be: as if it had just been found.
    pub(super) fn wake(&mut self, now: Duration) {
        if std::mem::take(&mut self.rests_until).is_zero() {
            return;
        }
        if let Some(link) = &mut self.link {
            link.found_again(now);
        }
    }

    /// A rest of its time is over.
    pub(super) fn wake_if_due(&mut self, now: Duration) {
        if now >= self.rests_until {
            self.wake(now);
        }
    }

    pub(super) fn rest_timeout(&self) -> Option<Duration> {
        self.link.as_ref()?;
        Some(self.rests_until).filter(|until| !until.is_zero() && *until < FOR_GOOD)
    }
}
