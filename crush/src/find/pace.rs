//! How fast new flows are made: what NATs count, and flood limiters punish (docs/crush.md §5.1).

use std::time::Duration;

use crate::count::Count;
use crate::description::Temper;

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
}

impl Tempo {
    /// The documented figures.
    pub(crate) fn of(temper: Temper) -> Self {
        let (flows, burst, packets, spray, head_start) = match temper {
            Temper::Fast => (200.0, 20.0, 200.0, 30, 400),
            Temper::Normal => (50.0, 10.0, 100.0, 60, 1200),
            Temper::Stealth => (20.0, 4.0, 60.0, 180, 2000),
        };
        Self {
            flows,
            burst,
            packets,
            spray: Duration::from_secs(spray),
            head_start: Duration::from_millis(head_start),
        }
    }
}

/// Of new flows: how many a second, and at once.
fn new_flows(tempo: Tempo, limit: Option<f64>) -> (f64, f64) {
    let rate = limit.map_or(tempo.flows, |limit| tempo.flows.min(limit.max(0.1)));
    (rate, tempo.burst.min(rate.max(1.0)))
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    rate: f64,
    depth: f64,
    tokens: f64,
    filled: Duration,
}

impl Bucket {
    fn new(rate: f64, depth: f64, now: Duration) -> Self {
        Self { rate, depth, tokens: depth, filled: now }
    }

    fn fill(&mut self, now: Duration) {
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.rate).min(self.depth);
        self.filled = now;
    }

    fn take(&mut self, now: Duration) -> bool {
        self.fill(now);
        // A billionth short is rounding, not impatience.
        let enough = self.tokens >= 1.0 - 1e-9;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }

    /// When one token is there.
    fn ready(&self) -> Duration {
        if self.tokens >= 1.0 {
            return self.filled;
        }
        // A microsecond more, so that rounding never asks for the same moment again.
        let wait = Duration::try_from_secs_f64((1.0 - self.tokens) / self.rate).unwrap_or(Duration::MAX);
        self.filled.saturating_add(wait).saturating_add(Duration::from_micros(1))
    }
}

/// Token buckets for new flows and for packets on known ones.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    temper: Temper,
    limit: Option<f64>,
    flows: Bucket,
    packets: Bucket,
    paused_until: Duration,
    made: u64,
}

impl Pace {
    /// `limit`: the application's own bound on new flows a second.
    pub(crate) fn new(temper: Temper, limit: Option<f64>, now: Duration) -> Self {
        let tempo = Tempo::of(temper);
        let (rate, burst) = new_flows(tempo, limit);
        Self {
            temper,
            limit,
            flows: Bucket::new(rate, burst, now),
            packets: Bucket::new(tempo.packets, tempo.burst, now),
            paused_until: Duration::ZERO,
            made: 0,
        }
    }

    pub(crate) fn temper(&self) -> Temper {
        self.temper
    }

    pub(crate) fn tempo(&self) -> Tempo {
        Tempo::of(self.temper)
    }

    /// New flows so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// Another bound of the application's. It brings no burst of its own, however often calls come and go.
    pub(crate) fn limit(&mut self, limit: f64, now: Duration) {
        self.limit = Some(limit);
        self.flows.fill(now);
        (self.flows.rate, self.flows.depth) = new_flows(self.tempo(), self.limit);
        self.flows.tokens = self.flows.tokens.min(self.flows.depth);
    }

    /// A limiter seems to have struck: a pause of 3 s, then slower.
    pub(crate) fn slow_down(&mut self, now: Duration) {
        let temper = match self.temper {
            Temper::Fast => Temper::Normal,
            Temper::Normal | Temper::Stealth => Temper::Stealth,
        };
        let made = self.made;
        *self = Self::new(temper, self.limit, now);
        self.made = made;
        self.flows.tokens = 0.0;
        self.paused_until = now.saturating_add(Duration::from_secs(3));
    }

    /// Leave for one packet, which begins a new flow or not.
    pub(crate) fn take(&mut self, new_flow: bool, now: Duration) -> bool {
        if !new_flow {
            return self.packets.take(now);
        }
        let leave = now >= self.paused_until && self.flows.take(now);
        if leave {
            self.made.up();
        }
        leave
    }

    /// When [`Pace::take`] may say yes again.
    pub(crate) fn ready(&self, new_flow: bool) -> Duration {
        if new_flow { self.flows.ready().max(self.paused_until) } else { self.packets.ready() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_sees_more_new_flows_than_a_flood_limiter_of_30_allows_at_the_stealth_temper() {
        let mut pace = Pace::new(Temper::Stealth, None, Duration::ZERO);
        let mut made = Vec::new();
        for tick in 0..60_000 {
            let now = Duration::from_millis(tick);
            while pace.take(true, now) {
                made.push(now);
            }
        }
        for (index, start) in made.iter().enumerate() {
            let within = made[index..].iter().take_while(|at| **at < *start + Duration::from_secs(1)).count();
            assert!(within <= 25, "{within} in the second from {start:?}");
        }
        assert!(made.len() >= 1190);
    }

    #[test]
    fn the_application_limit_rules_and_ready_says_when() {
        let mut pace = Pace::new(Temper::Fast, Some(5.0), Duration::ZERO);
        while pace.take(true, Duration::ZERO) {}
        let ready = pace.ready(true);
        assert!(ready >= Duration::from_millis(200));
        assert!(!pace.take(true, ready - Duration::from_millis(1)));
        assert!(pace.take(true, ready));
    }

    #[test]
    fn another_limit_brings_no_burst_and_takes_away_what_exceeds_its_own() {
        let ms = Duration::from_millis;
        let burst = |pace: &mut Pace, now| std::iter::from_fn(|| pace.take(true, now).then_some(())).count();
        let mut pace = Pace::new(Temper::Fast, Some(20.0), ms(0));
        assert_eq!(burst(&mut pace, ms(0)), 20);
        for (limit, at) in [(10.0, ms(1)), (20.0, ms(2)), (10.0, ms(3))] {
            pace.limit(limit, at);
            assert!(!pace.take(true, at), "a limit of {limit}");
        }
        assert_eq!(burst(&mut pace, ms(2003)), 10);
        // A full bucket is cut to the smaller grant, and fills no sooner than the greater one allows.
        pace.limit(20.0, ms(4000));
        assert_eq!(burst(&mut pace, ms(4000)), 10);
        pace.limit(20.0, ms(9000));
        pace.limit(4.0, ms(9000));
        assert_eq!(burst(&mut pace, ms(9000)), 4);
        assert_eq!(pace.made(), 44);
    }

    #[test]
    fn after_a_strike_it_waits_three_seconds_and_goes_slower() {
        let mut pace = Pace::new(Temper::Fast, None, Duration::ZERO);
        pace.slow_down(Duration::from_secs(1));
        assert_eq!(pace.temper(), Temper::Normal);
        assert!(!pace.take(true, Duration::from_millis(3900)));
        assert!(pace.take(true, Duration::from_millis(4000)));
    }
}
