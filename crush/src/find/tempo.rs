//! The figures of a temper, and the bucket that keeps to them (docs/crush.md §5.1).

use std::time::Duration;

use media_wire::sdp::crush::Temper;

/// The figures of a temper.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Tempo {
    /// New flows a second.
    pub(crate) flows: f64,
    /// New flows at once.
    pub(crate) burst: f64,
    /// Packets a second on known flows.
    pub(crate) packets: f64,
    /// A spray ends after so long.
    pub(crate) spray: Duration,
    /// Checks alone have so long before the spray begins.
    pub(crate) head_start: Duration,
    /// A sweep that has not met for so long goes on from a fresh socket.
    pub(crate) sweep: Duration,
}

impl Tempo {
    /// The documented figures. Above 25 a second only `fast` goes: limiters of 30 a second are common, and count what the call itself needs
    /// besides.
    pub(crate) fn of(temper: Temper) -> Self {
        let (flows, burst, packets, spray, head_start, sweep) = match temper {
            Temper::Fast => (200.0, 20.0, 200.0, 30, 350, 7500),
            Temper::Normal => (25.0, 4.0, 100.0, 60, 1200, 4000),
            Temper::Stealth => (20.0, 4.0, 60.0, 180, 2000, 5000),
        };
        Self {
            flows,
            burst,
            packets,
            spray: Duration::from_secs(spray),
            head_start: Duration::from_millis(head_start),
            sweep: Duration::from_millis(sweep),
        }
    }

    /// A full bucket of new flows. `limit`: how many any second may hold, its burst included.
    pub(super) fn new_flows(self, limit: Option<f64>, now: Duration) -> Bucket {
        let Some(limit) = limit.map(|limit| limit.max(0.1)) else {
            return Bucket::new(self.flows, self.burst, now);
        };
        let burst = (limit / 8.0).clamp(1.0, self.burst);
        Bucket::new(self.flows.min((limit - burst).max(limit / 2.0)), burst, now)
    }
}

/// Tokens that come at a rate, up to a depth.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bucket {
    rate: f64,
    depth: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    pub(super) fn new(rate: f64, depth: f64, now: Duration) -> Self {
        Self { rate, depth, tokens: depth, filled: now }
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.depth);
        self.filled = now.max(self.filled);
    }

    pub(super) fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        // A billionth short is rounding, not impatience.
        let enough = self.tokens >= 1.0 - 1e-9;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// When one token is there.
    pub(super) fn ready(&self) -> Duration {
        if self.tokens >= 1.0 {
            return self.filled;
        }
        // A microsecond more, so that rounding never asks for the same moment again.
        let wait = Duration::try_from_secs_f64((1.0 - self.tokens) / self.rate).unwrap_or(Duration::MAX);
        self.filled.saturating_add(wait).saturating_add(Duration::from_micros(1))
    }

    /// Takes tokens that may not be there; as many as it holds may be owed.
    pub(super) fn charge(&mut self, tokens: u32, now: Duration) {
        self.fill(now);
        self.tokens = (self.tokens - f64::from(tokens)).max(-self.depth);
    }

    pub(super) fn empty(&mut self, now: Duration) {
        self.fill(now);
        self.tokens = self.tokens.min(0.0);
    }

    /// Takes the figures of another one; its tokens are no gift.
    pub(super) fn become_like(&mut self, other: Self, now: Duration) {
        self.fill(now);
        *self = Self { tokens: self.tokens.min(other.depth), ..other };
    }
}
