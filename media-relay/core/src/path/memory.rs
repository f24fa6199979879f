//! What became of moves between such phones in such networks: what has failed twice is not tried on the next call for a while.

use std::net::IpAddr;
use std::time::Duration;

use ahash::AHashMap;

/// Failures in a row before it is left alone.
const FAILURES: u8 = 2;
/// More pairs than this are a scan: of the oldest nothing is remembered.
const MOST: usize = 20_000;

/// One end of a pair, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct End {
    /// The phone's model and version.
    product: Box<str>,
    /// The /24 or /56 that it is seen in, which stands for its NAT and its carrier.
    network: [u8; 7],
    is_translated: bool,
}

/// Two phones' models, networks and kinds of NAT.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pair([End; 2]);

impl Pair {
    /// Of each end its User-Agent, where its media was observed, and whether a NAT has translated that. Their order does not
    /// matter.
    pub fn new(ends: [(&str, IpAddr, bool); 2]) -> Self {
        let mut ends = ends.map(|(product, address, is_translated)| {
            let mut network = [0; 7];
            match address.to_canonical() {
                IpAddr::V4(ip) => network[..3].copy_from_slice(&ip.octets()[..3]),
                IpAddr::V6(ip) => network.copy_from_slice(&ip.octets()[..7]),
            }
            End { product: product.to_ascii_lowercase().into(), network, is_translated }
        });
        ends.sort_unstable();
        Self(ends)
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    failures: u8,
    /// When it last failed.
    at: Duration,
}

/// The outcomes of one worker's calls.
#[derive(Debug)]
pub struct Memory {
    failed: AHashMap<Pair, Record>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { failed: AHashMap::new() }
    }
}

impl Memory {
    /// Whether it failed too often, and not longer ago than `span`.
    pub fn shuns(&self, pair: &Pair, span: Duration, now: Duration) -> bool {
        self.failed.get(pair).is_some_and(|record| record.failures >= FAILURES && now < record.at + span)
    }

    /// Its path did not work.
    pub fn failed(&mut self, pair: Pair, span: Duration, now: Duration) {
        if self.failed.len() >= MOST {
            self.failed.retain(|_, record| now < record.at + span);
        }
        if self.failed.len() >= MOST {
            self.failed.clear();
        }
        let record = self.failed.entry(pair).or_insert(Record { failures: 0, at: now });
        // After a rest one more failure is enough.
        *record = Record { failures: record.failures.saturating_add(1), at: now };
    }

    /// Its path was direct: whatever it was that failed before.
    pub fn worked(&mut self, pair: &Pair) {
        self.failed.remove(pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn pair(product: &str, network: &str) -> Pair {
        let far = "198.51.100.7".parse().unwrap();
        Pair::new([(product, network.parse().unwrap(), true), ("baresip v1.0.0", far, false)])
    }

    #[test]
    fn what_failed_twice_is_left_alone_for_a_while_and_then_has_one_try() {
        let (mut memory, now) = (Memory::default(), Duration::from_secs(10));
        let one = pair("Acme 1", "203.0.113.8");
        memory.failed(one.clone(), HOUR, now);
        assert!(!memory.shuns(&one, HOUR, now));
        memory.failed(pair("acme 1", "203.0.113.9"), HOUR, now);
        assert!(memory.shuns(&one, HOUR, now), "the same model in the same network");
        assert!(!memory.shuns(&pair("Acme 2", "203.0.113.8"), HOUR, now));
        assert!(!memory.shuns(&pair("Acme 1", "203.0.114.8"), HOUR, now));
        assert!(!memory.shuns(&one, HOUR, now + HOUR));
        memory.failed(one.clone(), HOUR, now + HOUR);
        assert!(memory.shuns(&one, HOUR, now + HOUR));
        memory.worked(&one);
        assert!(!memory.shuns(&one, HOUR, now + HOUR));
    }

    #[test]
    fn a_scan_of_pairs_takes_no_more_room_than_is_given() {
        let mut memory = Memory::default();
        for number in 0..MOST + 10 {
            memory.failed(pair(&format!("Acme {number}"), "203.0.113.8"), HOUR, HOUR);
        }
        assert!(memory.failed.len() <= MOST);
    }
}
