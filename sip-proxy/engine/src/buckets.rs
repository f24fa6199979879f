//! Token buckets of many sources in a table of fixed size. Time and seeds are handed in.

use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use ahash::RandomState;

/// Places of a table: 1 MiB.
const PLACES: usize = 65_536;

/// A source may stand in this many places; with more of them than this in use, it shares one bucket with all others
/// that found none.
const WAYS: usize = 8;

/// A token bucket's measures.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens a second.
    pub per_second: f64,
    /// Tokens at most.
    pub burst: f64,
}

/// 16 bytes. `source` 0 is a free place.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    source: u64,
    tokens: f32,
    /// Milliseconds; wraps after 49 days, when a bucket may be taken for fresher than it is.
    filled_at: u32,
}

/// The buckets. Neither memory nor the work for one message grows with the number of sources, so that a flood from
/// forged addresses costs what any message costs.
#[derive(Debug)]
pub struct Buckets {
    rate: Rate,
    hasher: RandomState,
    places: Box<[Bucket]>,
    shared: Bucket,
}

impl Buckets {
    /// `seed` keeps strangers from choosing addresses that share a place.
    pub fn new(rate: Rate, seed: [u64; 2]) -> Self {
        Self::of_places(rate, seed, PLACES)
    }

    /// With another number of places, at least one way: 16 octets each.
    pub fn of_places(rate: Rate, seed: [u64; 2], places: usize) -> Self {
        let empty = Bucket { source: 0, tokens: rate.burst as f32, filled_at: 0 };
        Self {
            rate,
            hasher: RandomState::with_seeds(seed[0], seed[1], 0, 0),
            places: vec![empty; places.max(WAYS)].into(),
            shared: empty,
        }
    }

    /// Takes a token of the source's; false if it has none left. A source is [`source_of`] an address, or whatever else
    /// has a rate.
    pub fn take(&mut self, source: impl Hash, now: Duration) -> bool {
        self.spend(source, now, 1.0)
    }

    /// Whether the source has a token, which it keeps.
    pub fn has_token(&mut self, source: impl Hash, now: Duration) -> bool {
        self.spend(source, now, 0.0)
    }

    fn spend(&mut self, source: impl Hash, now: Duration, price: f32) -> bool {
        let source = self.hasher.hash_one(source) | 1;
        let now = now.as_millis() as u32;
        let (per_second, burst) = (self.rate.per_second as f32, self.rate.burst as f32);
        let filled = |bucket: &Bucket| {
            let elapsed = now.wrapping_sub(bucket.filled_at) as f32 / 1000.0;
            (bucket.tokens + elapsed * per_second).min(burst)
        };
        // Full buckets tell nothing of their sources: they are free to be taken.
        let sets = (self.places.len() / WAYS).max(1);
        let set = ((source >> 32) as usize).checked_rem(sets).unwrap_or_default().saturating_mul(WAYS);
        let ways = self.places.get_mut(set..set.saturating_add(WAYS)).unwrap_or_default();
        let found = ways.iter().position(|bucket| bucket.source == source).or_else(|| {
            let free = ways.iter().position(|bucket| bucket.source == 0 || filled(bucket) >= burst)?;
            *ways.get_mut(free)? = Bucket { source, tokens: burst, filled_at: now };
            Some(free)
        });
        let bucket = found.and_then(|index| ways.get_mut(index)).unwrap_or(&mut self.shared);
        bucket.tokens = filled(bucket);
        bucket.filled_at = now;
        let has_token = bucket.tokens >= 1.0;
        if has_token {
            bucket.tokens -= price;
        }
        has_token
    }
}

/// The part of an address that one customer has: of IPv6 a /64.
pub fn source_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

/// The network that an address is in: a /24 of IPv4, a /64 of IPv6.
pub fn network_of(address: IpAddr) -> u128 {
    match address.to_canonical() {
        IpAddr::V4(address) => u128::from(address.to_bits() >> 8 << 8),
        IpAddr::V6(address) => address.to_bits() >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(per_second: f64, burst: f64) -> Buckets {
        Buckets::new(Rate { per_second, burst }, [1, 2])
    }

    fn host(last: u32) -> IpAddr {
        IpAddr::from((0x0a00_0000 + last).to_be_bytes())
    }

    fn taken(buckets: &mut Buckets, source: IpAddr, tries: usize, at: Duration) -> usize {
        (0..tries).filter(|_| buckets.take(source_of(source), at)).count()
    }

    #[test]
    fn a_source_gets_its_burst_then_its_rate() {
        let mut buckets = buckets(10.0, 5.0);
        assert_eq!(taken(&mut buckets, host(1), 20, Duration::ZERO), 5);
        assert_eq!(taken(&mut buckets, host(1), 20, Duration::from_millis(300)), 3);
    }

    #[test]
    fn one_source_does_not_use_up_another_ones_tokens() {
        let mut buckets = buckets(1.0, 1.0);
        assert!(buckets.take(source_of(host(1)), Duration::ZERO));
        assert!(!buckets.take(source_of(host(1)), Duration::ZERO));
        assert!(buckets.take(source_of(host(2)), Duration::ZERO));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let mut buckets = buckets(1.0, 1.0);
        assert!(buckets.take(source_of("2001:db8::1".parse().unwrap()), Duration::ZERO));
        assert!(!buckets.take(source_of("2001:db8::2".parse().unwrap()), Duration::ZERO));
        assert!(buckets.take(source_of("2001:db8:0:1::1".parse().unwrap()), Duration::ZERO));
    }

    #[test]
    fn a_million_forged_sources_grow_nothing_and_do_not_free_a_source_that_was_limited() {
        let mut buckets = buckets(1.0, 4.0);
        let limited = host(0xff_ffff);
        assert_eq!(taken(&mut buckets, limited, 20, Duration::ZERO), 4);
        let mut passed = 0;
        for source in 0..1_000_000 {
            passed += usize::from(buckets.take(source_of(host(source)), Duration::ZERO));
        }
        assert_eq!(buckets.places.len(), PLACES);
        assert!(passed <= PLACES + 4, "{passed}");
        assert!(!buckets.take(source_of(limited), Duration::ZERO));
        // Those who went quiet are forgotten.
        assert_eq!(taken(&mut buckets, host(999_999), 20, Duration::from_secs(10)), 4);
    }
}
