//! Who holds places that are few, and whose place is taken for a newcomer: the source that holds most gives first, and of
//! equals the one that has waited longest. So a host that opens a thousand connections crowds out itself, and who opens
//! one keeps it until all others hold no more than one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use ahash::AHashMap;

/// Places, by a number that grows.
#[derive(Debug)]
pub(super) struct Crowd {
    places: usize,
    per_source: usize,
    sources: AHashMap<IpAddr, BTreeSet<u64>>,
    /// Of each source: how many, and its oldest.
    ranks: BTreeMap<(usize, Reverse<u64>), IpAddr>,
    size: usize,
}

impl Crowd {
    pub(super) fn new(places: usize, per_source: usize) -> Self {
        Self { places, per_source, sources: AHashMap::new(), ranks: BTreeMap::new(), size: 0 }
    }

    /// Takes a place: whose it was, if none was free.
    pub(super) fn enter(&mut self, address: IpAddr, number: u64) -> Option<u64> {
        let source = source(address);
        let own = self.sources.get(&source);
        let own_oldest = own.filter(|own| own.len() >= self.per_source).and_then(BTreeSet::first).copied();
        let victim = match own_oldest {
            Some(oldest) => Some((source, oldest)),
            None if self.size >= self.places => self.most(),
            None => None,
        };
        if let Some((source, number)) = victim {
            self.take(source, number);
        }
        let held = self.sources.entry(source).or_default();
        if let Some(rank) = rank(held) {
            self.ranks.remove(&rank);
        }
        if held.insert(number) {
            self.size = self.size.saturating_add(1);
        }
        if let Some(rank) = rank(held) {
            self.ranks.insert(rank, source);
        }
        victim.map(|(_, number)| number)
    }

    /// Gives a place back; false if it was taken before.
    pub(super) fn leave(&mut self, address: IpAddr, number: u64) -> bool {
        self.take(source(address), number)
    }

    /// Makes room: whose place that was.
    pub(super) fn shrink(&mut self) -> Option<u64> {
        let (source, number) = self.most()?;
        self.take(source, number);
        Some(number)
    }

    fn most(&self) -> Option<(IpAddr, u64)> {
        self.ranks.last_key_value().map(|((_, Reverse(oldest)), source)| (*source, *oldest))
    }

    fn take(&mut self, source: IpAddr, number: u64) -> bool {
        let Some(held) = self.sources.get_mut(&source) else { return false };
        let before = rank(held);
        if !held.remove(&number) {
            return false;
        }
        self.size = self.size.saturating_sub(1);
        if let Some(rank) = before {
            self.ranks.remove(&rank);
        }
        match rank(held) {
            Some(rank) => drop(self.ranks.insert(rank, source)),
            None => drop(self.sources.remove(&source)),
        }
        true
    }
}

/// Unique among sources, since a number is held once.
fn rank(held: &BTreeSet<u64>) -> Option<(usize, Reverse<u64>)> {
    held.first().map(|oldest| (held.len(), Reverse(*oldest)))
}

/// One IPv6 customer has a /64: that is the source.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn who_holds_most_gives_first_and_of_equals_the_oldest() {
        let mut crowd = Crowd::new(5, 100);
        for (number, last) in [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3)] {
            assert_eq!(crowd.enter(host(last), number), None);
        }
        assert_eq!(crowd.enter(host(4), 6), Some(2), "the oldest of three");
        assert_eq!(crowd.enter(host(5), 7), Some(3), "of two");
        assert_eq!(crowd.enter(host(6), 8), Some(1), "the oldest of all");
        assert_eq!(crowd.size, 5);
        assert!(crowd.leave(host(3), 5));
        assert!(!crowd.leave(host(3), 5), "once");
        assert_eq!(crowd.enter(host(7), 9), None);
    }

    #[test]
    fn a_source_over_its_share_gives_its_own_oldest() {
        let mut crowd = Crowd::new(100, 2);
        assert_eq!(crowd.enter(host(2), 1), None);
        assert_eq!([2, 3, 4, 5].map(|number| crowd.enter(host(1), number)), [None, None, Some(2), Some(3)]);
        assert_eq!(crowd.size, 3);
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source_and_a_mapped_one_is_ipv4() {
        let mut crowd = Crowd::new(100, 1);
        let enter = |crowd: &mut Crowd, address: &str, number| crowd.enter(address.parse().unwrap(), number);
        assert_eq!(enter(&mut crowd, "2001:db8::1", 1), None);
        assert_eq!(enter(&mut crowd, "2001:db8::2", 2), Some(1));
        assert_eq!(enter(&mut crowd, "10.0.0.1", 3), None);
        assert_eq!(enter(&mut crowd, "::ffff:10.0.0.1", 4), Some(3));
    }

    #[test]
    fn thousands_who_come_again_and_again_never_displace_who_holds_one() {
        let mut crowd = Crowd::new(200, 50);
        assert_eq!(crowd.enter(host(200), 0), None);
        let mut number = 0;
        for _ in 0..100 {
            for last in 0..100 {
                number += 1;
                assert_ne!(crowd.enter(host(last), number), Some(0));
            }
        }
        assert_eq!((crowd.size, crowd.ranks.len(), crowd.sources.len()), (200, 101, 101));
        while crowd.shrink().is_some() {}
        assert_eq!((crowd.size, crowd.ranks.len(), crowd.sources.len()), (0, 0, 0));
    }
}
