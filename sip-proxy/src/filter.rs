//! The filter in front of the parser: what it drops costs a hash lookup.

use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashMap;
use ipnet::IpNet;

/// How many sources are remembered. A flood from more addresses than that falls back to a shared bucket.
const SOURCES: usize = 65_536;

/// Address lists and rates of one listener.
#[derive(Debug, Clone, Default)]
pub struct FilterSettings {
    /// If not empty, only these may send.
    pub allow: Vec<IpNet>,
    /// These may not; wins over `allow`.
    pub deny: Vec<IpNet>,
    /// Never limited in rate: trunks and peers.
    pub unlimited: Vec<IpNet>,
    /// Messages a second and the burst of one source; `None` sets no limit.
    pub rate: Option<Rate>,
}

/// A token bucket's measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: f64,
    /// Tokens at most.
    pub burst: f64,
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// On to the parser.
    Pass,
    /// Its source is not allowed.
    Denied,
    /// Its source sends too much.
    Limited,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Duration,
}

/// One listener's filter. Time is handed in.
#[derive(Debug)]
pub struct Filter {
    settings: FilterSettings,
    buckets: AHashMap<IpAddr, Bucket>,
    overflow: Bucket,
}

impl Filter {
    /// A filter that has seen nobody yet.
    pub fn new(settings: FilterSettings) -> Self {
        let burst = settings.rate.map_or(0.0, |rate| rate.burst);
        Self {
            settings,
            buckets: AHashMap::new(),
            overflow: Bucket { tokens: burst, filled_at: Duration::ZERO },
        }
    }

    /// Judges one message by its source address. `now` is monotonic.
    pub fn judge(&mut self, source: IpAddr, now: Duration) -> Verdict {
        let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&source));
        if within(&self.settings.deny) || (!self.settings.allow.is_empty() && !within(&self.settings.allow)) {
            return Verdict::Denied;
        }
        let Some(rate) = self.settings.rate else { return Verdict::Pass };
        if within(&self.settings.unlimited) {
            return Verdict::Pass;
        }
        if self.buckets.len() >= SOURCES && !self.buckets.contains_key(&source) {
            self.forget_idle(rate, now);
        }
        let bucket = if self.buckets.len() < SOURCES || self.buckets.contains_key(&source) {
            self.buckets.entry(source).or_insert(Bucket { tokens: rate.burst, filled_at: now })
        } else {
            &mut self.overflow
        };
        let elapsed = now.saturating_sub(bucket.filled_at).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * rate.per_second).min(rate.burst);
        bucket.filled_at = now;
        if bucket.tokens < 1.0 {
            return Verdict::Limited;
        }
        bucket.tokens -= 1.0;
        Verdict::Pass
    }

    /// A source whose bucket is full again is like one never seen.
    fn forget_idle(&mut self, rate: Rate, now: Duration) {
        self.buckets.retain(|_, bucket| {
            let elapsed = now.saturating_sub(bucket.filled_at).as_secs_f64();
            bucket.tokens + elapsed * rate.per_second < rate.burst
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(per_second: f64, burst: f64) -> Filter {
        Filter::new(FilterSettings { rate: Some(Rate { per_second, burst }), ..FilterSettings::default() })
    }

    fn host(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    #[test]
    fn a_source_gets_its_burst_then_its_rate() {
        let mut filter = limited(10.0, 5.0);
        let passed = (0..20).filter(|_| filter.judge(host(1), Duration::ZERO) == Verdict::Pass).count();
        assert_eq!(passed, 5);
        let later = Duration::from_millis(300);
        let passed = (0..20).filter(|_| filter.judge(host(1), later) == Verdict::Pass).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn one_source_does_not_use_up_another_ones_tokens() {
        let mut filter = limited(1.0, 1.0);
        assert_eq!(filter.judge(host(1), Duration::ZERO), Verdict::Pass);
        assert_eq!(filter.judge(host(1), Duration::ZERO), Verdict::Limited);
        assert_eq!(filter.judge(host(2), Duration::ZERO), Verdict::Pass);
    }

    #[test]
    fn deny_wins_over_allow_and_an_allow_list_excludes_the_rest() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let mut filter = Filter::new(FilterSettings {
            allow: vec![net("10.0.0.0/24")],
            deny: vec![net("10.0.0.7/32")],
            ..FilterSettings::default()
        });
        assert_eq!(filter.judge(host(1), Duration::ZERO), Verdict::Pass);
        assert_eq!(filter.judge(host(7), Duration::ZERO), Verdict::Denied);
        assert_eq!(filter.judge(host(0x100), Duration::ZERO), Verdict::Denied);
    }

    #[test]
    fn a_flood_from_countless_sources_is_bounded_in_memory_and_rate() {
        let mut filter = limited(10.0, 5.0);
        let passed =
            (0..100_000).filter(|&last| filter.judge(host(last), Duration::ZERO) == Verdict::Pass).count();
        assert!(filter.buckets.len() <= SOURCES);
        assert!(passed <= SOURCES + 5);
        let later = Duration::from_secs(2);
        assert_eq!(filter.judge(host(99_999), later), Verdict::Pass, "those who went quiet are forgotten");
        assert!(filter.buckets.len() < SOURCES);
    }
}
