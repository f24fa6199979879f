//! What an address may cost that never answers (docs/crush.md §12, "Reflection and amplification").
//!
//! A peer names addresses, and may lie: what goes there is bounded for the **call**, over all sockets and all generations, since whoever
//! begins anew at will would else begin the count anew. Whoever answers a check is there, and is counted no more.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::count::Count;

/// Checks to a transport address that never answers.
pub(crate) const CHECKS: u8 = 8;
/// As many more where authenticated requests of the peer come from: a source may be forged, and so is no answer.
const ANSWERING_CHECKS: u8 = 8;
/// Addresses that are counted; one more is not checked.
const ADDRESSES: usize = 256;
/// Addresses whose share of spraying is remembered; one more is not sprayed.
const TARGETS: usize = 8;

/// Why a check is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The peer has named the address.
    Named,
    /// A request of the peer came from there.
    Asked,
}

#[derive(Debug, Clone, Copy, Default)]
struct Address {
    named: u8,
    asked: u8,
    answers: bool,
}

/// One call's counts.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    addresses: BTreeMap<SocketAddr, Address>,
    sprayed: Vec<(IpAddr, Duration)>,
}

impl Reach {
    /// Whether one more check may go there, if so many are to be left over for others.
    pub(crate) fn allows(&self, to: SocketAddr, cause: Cause, left_over: u8) -> bool {
        let Some(known) = self.addresses.get(&to) else { return self.addresses.len() < ADDRESSES };
        known.answers
            || match cause {
                Cause::Named => known.named < CHECKS.saturating_sub(left_over),
                Cause::Asked => known.asked < ANSWERING_CHECKS,
            }
    }

    pub(crate) fn sent(&mut self, to: SocketAddr, cause: Cause) {
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&to) {
            return;
        }
        let known = self.addresses.entry(to).or_default();
        match cause {
            Cause::Named => known.named.up(),
            Cause::Asked => known.asked.up(),
        }
    }

    /// A check was answered from there: a spray found its goal, too.
    pub(crate) fn answered(&mut self, from: SocketAddr) {
        if self.addresses.len() < ADDRESSES || self.addresses.contains_key(&from) {
            self.addresses.entry(from).or_default().answers = true;
        }
        self.sprayed.retain(|(ip, _)| *ip != from.ip());
    }

    /// How long an address may still be sprayed, of so long in all.
    pub(crate) fn spray_left(&self, target: IpAddr, most: Duration) -> Duration {
        match self.sprayed.iter().find(|(ip, _)| *ip == target) {
            Some((_, spent)) => most.saturating_sub(*spent),
            None if self.sprayed.len() < TARGETS => most,
            None => Duration::ZERO,
        }
    }

    pub(crate) fn sprayed(&mut self, target: IpAddr, time: Duration) {
        match self.sprayed.iter_mut().find(|(ip, _)| *ip == target) {
            Some((_, spent)) => *spent = spent.saturating_add(time),
            None => self.sprayed.push((target, time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn an_address_that_never_answers_gets_eight_checks_and_eight_more_if_requests_came_from_there() {
        let mut reach = Reach::default();
        for (cause, most) in [(Cause::Named, 8), (Cause::Asked, 8)] {
            let mut sent = 0;
            while reach.allows(at(1), cause, 0) {
                reach.sent(at(1), cause);
                sent += 1;
            }
            assert_eq!(sent, most);
        }
        assert!(reach.allows(at(2), Cause::Named, 4));
        (0..4).for_each(|_| reach.sent(at(2), Cause::Named));
        assert!(!reach.allows(at(2), Cause::Named, 4) && reach.allows(at(2), Cause::Named, 0));
        reach.answered(at(1));
        assert!(reach.allows(at(1), Cause::Named, 0));
    }

    #[test]
    fn more_addresses_than_are_counted_are_not_checked() {
        let mut reach = Reach::default();
        (0..ADDRESSES as u16).for_each(|port| reach.sent(at(port), Cause::Named));
        assert!(!reach.allows(at(60_000), Cause::Named, 0) && reach.allows(at(1), Cause::Named, 0));
        reach.sent(at(60_000), Cause::Named);
        reach.answered(at(60_001));
        assert_eq!(reach.addresses.len(), ADDRESSES);
    }

    #[test]
    fn the_time_of_spraying_at_one_address_adds_up_until_it_answers() {
        let (mut reach, most) = (Reach::default(), Duration::from_secs(60));
        let target = at(1).ip();
        reach.sprayed(target, Duration::from_secs(50));
        assert_eq!(reach.spray_left(target, most), Duration::from_secs(10));
        reach.sprayed(target, Duration::from_secs(50));
        assert_eq!(reach.spray_left(target, most), Duration::ZERO);
        reach.answered(at(7));
        assert_eq!(reach.spray_left(target, most), most);
        (0..TARGETS as u8).for_each(|host| reach.sprayed([10, 0, 0, host].into(), most));
        assert_eq!(reach.spray_left([10, 0, 1, 1].into(), most), Duration::ZERO);
    }
}
