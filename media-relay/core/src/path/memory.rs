//! What became of moves between such phones in such networks: what has failed twice is not tried on the next call for a while.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Failures in a row before it is left alone.
pub const FAILURES: u32 = 2;
/// More pairs than this are a scan: of the oldest nothing is remembered.
pub const MOST: usize = 20_000;
/// What is kept of a User-Agent, characters: anybody may write one of any length.
const PRODUCT: usize = 100;

/// One end of a pair, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct End {
    /// The phone's model and version, in lower case, without control characters.
    pub product: Box<str>,
    /// The /24 or /56 that it is seen in, which stands for its NAT and its carrier.
    pub network: IpNet,
    /// Whether a NAT has translated what it said of itself.
    pub is_translated: bool,
}

/// Two phones' models, networks and kinds of NAT.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair([End; 2]);

impl Pair {
    /// Of each end its User-Agent, where its media was observed, and whether a NAT has translated that. Their order does not
    /// matter.
    pub fn new(ends: [(&str, IpAddr, bool); 2]) -> Self {
        let mut ends = ends.map(|(product, address, is_translated)| {
            let address = address.to_canonical();
            let length = if address.is_ipv4() { 24 } else { 56 };
            let network = IpNet::new_assert(address, length).trunc();
            let product = product.chars().filter(|letter| !letter.is_control()).take(PRODUCT);
            End { product: product.collect::<String>().to_ascii_lowercase().into(), network, is_translated }
        });
        ends.sort_unstable();
        Self(ends)
    }

    /// In order.
    pub fn ends(&self) -> &[End; 2] {
        &self.0
    }
}

/// A move was direct, or it failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whose.
    pub pair: Pair,
    /// Which of the two.
    pub has_worked: bool,
}

/// How often a pair has failed in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Since it last worked.
    pub failures: u32,
    /// It is left alone until then, if it has failed often enough.
    pub until: Duration,
}

/// What the store knows, for all workers.
pub type Known = AHashMap<Pair, Record>;

/// The outcomes of one worker's calls, on top of what the store has told.
#[derive(Debug)]
pub struct Memory {
    known: Arc<Known>,
    /// What has happened since then.
    own: Known,
    fresh: VecDeque<Outcome>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { known: Arc::new(Known::new()), own: Known::new(), fresh: VecDeque::new() }
    }
}

impl Memory {
    /// The store has counted all workers' outcomes, these too but for those still on their way there.
    pub fn recall(&mut self, known: Arc<Known>) {
        self.known = known;
        self.own.clear();
    }

    /// What is to be written to the store.
    pub fn poll_outcome(&mut self) -> Option<Outcome> {
        self.fresh.pop_front()
    }

    fn record(&self, pair: &Pair) -> Option<Record> {
        self.own.get(pair).or_else(|| self.known.get(pair)).copied()
    }

    /// Whether it failed too often, and not too long ago.
    pub fn shuns(&self, pair: &Pair, now: Duration) -> bool {
        self.record(pair).is_some_and(|record| record.failures >= FAILURES && now < record.until)
    }

    /// Its path did not work: after so many failures it rests for `span`.
    pub fn failed(&mut self, pair: &Pair, span: Duration, now: Duration) {
        if self.own.len() >= MOST {
            self.own.retain(|_, record| now < record.until);
        }
        if self.own.len() >= MOST {
            self.own.clear();
        }
        // After a rest one more failure is enough.
        let failures = self.record(pair).map_or(0, |record| record.failures).saturating_add(1);
        self.own.insert(pair.clone(), Record { failures, until: now.saturating_add(span) });
        self.fresh.push_back(Outcome { pair: pair.clone(), has_worked: false });
    }

    /// Its path was direct: whatever it was that failed before.
    pub fn worked(&mut self, pair: &Pair) {
        if self.known.contains_key(pair) {
            self.own.insert(pair.clone(), Record { failures: 0, until: Duration::ZERO });
        } else {
            self.own.remove(pair);
        }
        self.fresh.push_back(Outcome { pair: pair.clone(), has_worked: true });
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
        memory.failed(&one, HOUR, now);
        assert!(!memory.shuns(&one, now));
        memory.failed(&pair("acme 1", "203.0.113.9"), HOUR, now);
        assert!(memory.shuns(&one, now), "the same model in the same network");
        assert!(!memory.shuns(&pair("Acme 2", "203.0.113.8"), now));
        assert!(!memory.shuns(&pair("Acme 1", "203.0.114.8"), now));
        assert!(!memory.shuns(&one, now + HOUR));
        memory.failed(&one, HOUR, now + HOUR);
        assert!(memory.shuns(&one, now + HOUR));
        memory.worked(&one);
        assert!(!memory.shuns(&one, now + HOUR));
    }

    #[test]
    fn what_the_store_knows_holds_until_the_pair_works_or_is_forgotten_there() {
        let (mut memory, now) = (Memory::default(), Duration::from_secs(10));
        let one = pair("Acme 1", "203.0.113.8");
        let known = |failures| Arc::new(Known::from([(one.clone(), Record { failures, until: HOUR })]));
        memory.recall(known(2));
        assert!(memory.shuns(&one, now) && !memory.shuns(&one, HOUR));
        memory.failed(&one, HOUR, HOUR);
        assert!(memory.shuns(&one, HOUR), "after the rest one more is enough");
        memory.worked(&one);
        assert!(!memory.shuns(&one, HOUR));
        memory.recall(known(1));
        assert!(!memory.shuns(&one, now));
        memory.failed(&one, HOUR, now);
        assert!(memory.shuns(&one, now), "the other failure was another worker's");
        memory.recall(Arc::new(Known::new()));
        assert!(!memory.shuns(&one, now), "an operator has deleted it");
        let told: Vec<bool> =
            std::iter::from_fn(|| memory.poll_outcome()).map(|told| told.has_worked).collect();
        assert_eq!(told, [false, true, false]);
    }

    #[test]
    fn no_text_of_a_phone_is_too_long_or_too_odd_for_a_key() {
        let odd = pair(&format!("Acme\0 {}", "é".repeat(5_000)), "203.0.113.8");
        let product = &*odd.ends().iter().max_by_key(|end| end.product.len()).unwrap().product;
        assert_eq!(product, format!("acme {}", "é".repeat(PRODUCT - 5)));
        let again = odd.ends().each_ref().map(|end| (&*end.product, end.network.addr(), end.is_translated));
        assert_eq!(Pair::new(again), odd, "what the store holds names the same pair");
    }

    #[test]
    fn a_scan_of_pairs_takes_no_more_room_than_is_given() {
        let mut memory = Memory::default();
        for number in 0..MOST + 10 {
            memory.failed(&pair(&format!("Acme {number}"), "203.0.113.8"), HOUR, HOUR);
        }
        assert!(memory.own.len() <= MOST);
    }
}
