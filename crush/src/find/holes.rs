//! What was punched and must be kept open (docs/crush.md §5.2, "Keepalives").

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::agent::SocketId;

/// NATs keep UDP mappings for at least 30 s where they behave; half of that bears one loss.
const REFRESH: Duration = Duration::from_secs(15);

/// Holes by the time of their next refresh.
#[derive(Debug)]
pub(crate) struct Holes {
    most: usize,
    queue: VecDeque<(Duration, SocketId, SocketAddr)>,
}

impl Holes {
    /// Keeps the newest `most`.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, queue: VecDeque::new() }
    }

    pub(crate) fn punched(&mut self, socket: SocketId, to: SocketAddr, now: Duration) {
        if self.queue.len() == self.most {
            self.queue.pop_front();
        }
        self.queue.push_back((now.saturating_add(REFRESH), socket, to));
    }

    /// One that is due; the caller says [`Holes::punched`] again.
    pub(crate) fn due(&mut self, now: Duration) -> Option<(SocketId, SocketAddr)> {
        let (_, socket, to) = self.queue.pop_front_if(|(at, ..)| *at <= now)?;
        Some((socket, to))
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.queue.front().map(|(at, ..)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hole_is_refreshed_every_15_s_and_the_oldest_is_forgotten_first() {
        let to = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let mut holes = Holes::new(2);
        for port in 1..=3 {
            holes.punched(SocketId(0), to(port), Duration::from_secs(u64::from(port)));
        }
        assert_eq!(holes.due(Duration::from_secs(16)), None);
        assert_eq!(holes.due(Duration::from_secs(17)), Some((SocketId(0), to(2))));
        holes.punched(SocketId(0), to(2), Duration::from_secs(17));
        assert_eq!(holes.timeout(), Some(Duration::from_secs(18)));
    }
}
