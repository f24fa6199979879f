//! Whether a shard is behind: what arrives waits longer than a caller should.
//!
//! Measured on the monotonic clock alone, so that a stepped wall clock is no overload. When a shard is behind, its
//! engine answers strangers' new requests with 503 and Retry-After, which costs a small part of a call; when it is far
//! behind, those of trunks and registered phones too. It always serves what is in a dialog.

use std::time::Duration;

use sip_engine::io::Load;

/// Work that is older than this means that the shard is behind: well below T1 (500 ms), after which peers begin to
/// repeat themselves and make it worse.
const LATE: Duration = Duration::from_millis(200);

/// Older still: nobody gets anything new.
const TOO_LATE: Duration = Duration::from_millis(1_000);

/// For how long a timer that fired late counts.
const MEMORY: Duration = Duration::from_millis(500);

/// Letters of other threads that wait.
const LETTERS: usize = 2_048;
const TOO_MANY_LETTERS: usize = 3_584;

/// What is known of one shard's delay.
#[derive(Debug)]
pub(crate) struct Overload {
    /// Per datagram socket: since when it was never found empty.
    undrained: Vec<Option<Duration>>,
    /// When, and by how much.
    timer_was_late: Option<(Duration, Duration)>,
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
            self.timer_was_late = Some((now, now.saturating_sub(due)));
        }
    }

    /// How far the shard is behind, with so many letters in its inbox.
    pub(crate) fn load(&self, letters: usize, now: Duration) -> Load {
        let timer = self.timer_was_late.filter(|(when, _)| now.saturating_sub(*when) < MEMORY);
        let waits = self.undrained.iter().flatten().map(|since| now.saturating_sub(*since));
        let longest = waits.chain(timer.map(|(_, late)| late)).max().unwrap_or_default();
        if longest > TOO_LATE || letters > TOO_MANY_LETTERS {
            Load::FarBehind
        } else if longest > LATE || letters > LETTERS {
            Load::Behind
        } else {
            Load::Fine
        }
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
        assert_eq!(overload.load(0, ms(150)), Load::Fine, "a burst");
        overload.read(1, true, ms(201));
        assert_eq!(overload.load(0, ms(201)), Load::Behind);
        overload.read(0, false, ms(202));
        assert_eq!(overload.load(0, ms(202)), Load::Behind, "another socket's silence changes nothing");
        overload.read(1, false, ms(203));
        assert_eq!(overload.load(0, ms(203)), Load::Fine);
    }

    #[test]
    fn a_late_timer_and_a_long_queue_mean_behind() {
        let mut overload = Overload::new(0);
        overload.fired(ms(100), ms(150));
        assert_eq!(overload.load(0, ms(150)), Load::Fine);
        overload.fired(ms(200), ms(500));
        assert_eq!(overload.load(0, ms(500)), Load::Behind);
        assert_eq!(overload.load(0, ms(1000)), Load::Fine);
        assert_eq!(overload.load(LETTERS + 1, ms(1000)), Load::Behind);
    }

    #[test]
    fn what_has_waited_for_a_second_means_far_behind() {
        let mut overload = Overload::new(1);
        overload.read(0, true, ms(0));
        assert_eq!(overload.load(0, ms(1_001)), Load::FarBehind);
        overload.read(0, false, ms(1_002));
        overload.fired(ms(0), ms(1_100));
        assert_eq!(overload.load(0, ms(1_200)), Load::FarBehind);
        assert_eq!(overload.load(TOO_MANY_LETTERS + 1, ms(3_000)), Load::FarBehind);
        assert_eq!(overload.load(0, ms(3_000)), Load::Fine);
    }
}
