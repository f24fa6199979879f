//! The HANDOFF request that waits for its response, and its retransmissions (docs/crush.md §7.2).

use std::time::Duration;

use media_wire::handoff::Move;
use media_wire::stun::Key;

use crate::count::Count;

/// What a request was for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Purpose {
    /// These streams to the direct path.
    Handoff(Vec<Move>),
    /// Everything back.
    Return,
    /// Audio on both paths until then.
    Compare(Duration),
}

/// A request without response so far.
#[derive(Debug)]
pub(crate) struct Outstanding {
    pub(crate) transaction: u128,
    pub(crate) bytes: Vec<u8>,
    pub(crate) purpose: Purpose,
    /// The key of its generation, which may be over by the time that the response comes.
    pub(crate) key: Key,
    sent: u32,
    next: Duration,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Retry {
    Wait,
    Send,
    Failed,
}

impl Outstanding {
    /// To be sent at once.
    pub(crate) fn new(transaction: u128, bytes: Vec<u8>, purpose: Purpose, key: Key, now: Duration) -> Self {
        Self { transaction, bytes, purpose, key, sent: 0, next: now }
    }

    /// What it asks to send directly.
    pub(crate) fn moves(&self) -> &[Move] {
        match &self.purpose {
            Purpose::Handoff(moves) => moves,
            Purpose::Return | Purpose::Compare(_) => &[],
        }
    }

    /// Exponential for handoffs; a return is urgent.
    fn schedule(&self) -> (Duration, u32) {
        match self.purpose {
            Purpose::Return => (Duration::from_millis(50), 10),
            _ => (Duration::from_millis(100).saturating_mul(1 << self.sent.min(5)), 6),
        }
    }

    pub(crate) fn retry(&mut self, now: Duration) -> Retry {
        if now < self.next {
            return Retry::Wait;
        }
        let (wait, most) = self.schedule();
        if self.sent == most {
            return Retry::Failed;
        }
        self.sent.up();
        self.next = now.saturating_add(wait);
        Retry::Send
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_at(purpose: Purpose) -> Vec<u64> {
        let mut request = Outstanding::new(1, Vec::new(), purpose, Key::new("k"), Duration::ZERO);
        let mut times = Vec::new();
        for ms in 0..10_000 {
            match request.retry(Duration::from_millis(ms)) {
                Retry::Wait => {}
                Retry::Send => times.push(ms),
                Retry::Failed => break,
            }
        }
        times
    }

    #[test]
    fn handoffs_back_off_and_returns_insist() {
        assert_eq!(sent_at(Purpose::Handoff(Vec::new())), [0, 100, 300, 700, 1500, 3100]);
        assert_eq!(sent_at(Purpose::Return), (0..10).map(|n| n * 50).collect::<Vec<_>>());
    }
}
