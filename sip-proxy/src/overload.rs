//! Whether a shard is behind: what arrives waits longer than a caller should.
//!
//! Measured on the monotonic clock alone, so that a stepped wall clock is no overload. When a shard is behind, its
//! engine answers what is new with 503 and Retry-After, which costs a small part of a call, and serves what is in a
//! dialog.

use std::time::Duration;

/// Work that is older than this means that the shard is behind: well below T1 (500 ms), after which peers begin to
/// repeat themselves and make it worse.
const LATE: Duration = Duration::from_millis(200);

/// For how long a timer that fired late counts.
const MEMORY: Duration = Duration::from_millis(500);

/// Letters of other threads that wait.
const LETTERS: usize = 2_048;

/// What is known of one shard's delay.
#[derive(Debug)]
pub(crate) struct Overload {
    /// Per datagram socket: since when it was never found empty.
    undrained: Vec<Option<Duration>>,
    timer_was_late: Option<Duration>,
}

impl Overload {
    pub(crate) fn new(sockets: usize) -> Self {
        Self { undrained: vec![None; sockets], timer_was_late: None }
    }

    /// A read of a socket came back: `more` datagrams may be waiting in it, or none.
    pub(crate) fn read(&mut self, socket: usize, more: bool, now: Duration) {
        if let Some(since) = self.undrained.get_mut(socket) {
            *since = if more { Some(since.unwrap_or(now)) } else { None };
        }
    }

    /// A timer fired that was due at `due`.
    pub(crate) fn fired(&mut self, due: Duration, now: Duration) {
        if now.saturating_sub(due) > LATE {
            self.timer_was_late = Some(now);
        }
    }

    /// Whether the shard is behind, with so many letters in its inbox.
    pub(crate) fn is_behind(&self, letters: usize, now: Duration) -> bool {
        letters > LETTERS
            || self.timer_was_late.is_some_and(|late| now.saturating_sub(late) < MEMORY)
            || self.undrained.iter().flatten().any(|since| now.saturating_sub(*since) > LATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_socket_that_is_never_empty_means_behind_until_it_is() {
        let mut overload = Overload::new(2);
        overload.read(1, true, ms(0));
        overload.read(1, true, ms(150));
        assert!(!overload.is_behind(0, ms(150)), "a burst");
        overload.read(1, true, ms(201));
        assert!(overload.is_behind(0, ms(201)));
        overload.read(0, false, ms(202));
        assert!(overload.is_behind(0, ms(202)), "another socket's silence changes nothing");
        overload.read(1, false, ms(203));
        assert!(!overload.is_behind(0, ms(203)));
    }

    #[test]
    fn a_late_timer_and_a_long_queue_mean_behind() {
        let mut overload = Overload::new(0);
        overload.fired(ms(100), ms(150));
        assert!(!overload.is_behind(0, ms(150)));
        overload.fired(ms(200), ms(500));
        assert!(overload.is_behind(0, ms(500)));
        assert!(!overload.is_behind(0, ms(1000)));
        assert!(overload.is_behind(LETTERS + 1, ms(1000)));
    }
}
