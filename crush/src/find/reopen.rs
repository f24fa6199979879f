//! Sockets that send before the peer knows of them (docs/crush.md §5.2, "reopen").
//!
//! A NAT may give a flow another port because the peer's packet was there before it: then neither end looks where the other is. A
//! socket that nobody knows has no such past.

use std::time::Duration;

use super::plan::Part;
use crate::agent::SocketId;
use crate::count::Count;

/// So many are opened.
const MOST: u8 = 4;
/// Between them, where only checks are made.
const INTERVAL: Duration = Duration::from_secs(1);
/// Probes of a sweep after which such a socket is told: its two narrowest windows.
const SWEPT: u32 = 81;

/// When the next one is opened, and what the newest has still to send.
#[derive(Debug, Default)]
pub(crate) struct Reopen {
    next: Option<Duration>,
    interval: Duration,
    opened: u8,
    most: u8,
    probes: u32,
    fresh: Option<(SocketId, u32)>,
}

impl Reopen {
    /// The part of an endpoint begins. `sweep`: what a sweep has to meet the peer's flow before it goes on from another socket.
    pub(crate) fn new(part: Part, sweep: Duration, now: Duration) -> Self {
        let (next, interval, probes) = match part {
            Part::Reopen => (Some(now), INTERVAL, 1),
            Part::Sweep => (Some(now.saturating_add(sweep)), sweep, SWEPT),
            _ => return Self::default(),
        };
        Self { next, interval, opened: 0, most: MOST, probes, fresh: None }
    }

    /// Checks to each public address of the peer that such sockets have still to send: none where they sweep.
    pub(crate) fn left(&self) -> u8 {
        if self.probes == 1 { self.most.saturating_sub(self.opened) } else { 0 }
    }

    /// Whether another one is due; then it is to be opened.
    pub(crate) fn is_due(&mut self, now: Duration) -> bool {
        if self.next.is_none_or(|at| now < at) {
            return false;
        }
        self.opened.up();
        self.next = Some(now.saturating_add(self.interval)).filter(|_| self.opened < MOST);
        true
    }

    pub(crate) fn opened(&mut self, socket: SocketId) {
        self.fresh = Some((socket, self.probes));
    }

    /// A socket has sent to the peer's address; true once that is enough for the peer to know of it.
    pub(crate) fn sent(&mut self, socket: SocketId) -> bool {
        let Some((_, left)) = self.fresh.as_mut().filter(|fresh| fresh.0 == socket) else { return false };
        *left = left.saturating_sub(1);
        *left == 0 && self.fresh.take().is_some()
    }

    /// When another one is due.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_four_is_told_once_it_has_sent_and_none_of_other_parts_is_opened() {
        let seconds = Duration::from_secs;
        let mut reopen = Reopen::new(Part::Sweep, seconds(4), seconds(1));
        for round in 1..=4u32 {
            let at = seconds(1) + seconds(4) * round;
            assert!(!reopen.is_due(at - Duration::from_millis(1)) && reopen.is_due(at), "{round}");
            reopen.opened(SocketId(round));
            let told: Vec<u32> = (1..=100).filter(|_| reopen.sent(SocketId(round))).collect();
            assert_eq!(told.len(), 1);
            assert!(!reopen.sent(SocketId(round - 1)));
        }
        assert_eq!(reopen.next(), None);
        assert_eq!(Reopen::new(Part::Shots, seconds(4), seconds(1)).next(), None);
    }
}
