//! Wrong passwords: each one of a user from one address makes the next wait longer. Nobody is locked out: the same user
//! is served from everywhere else, and so is every other user from there.

use std::net::IpAddr;
use std::time::Duration;

use ahash::{AHashMap, RandomState};

use crate::buckets::{network_of, source_of};

/// Wrong ones of a user from one address that cost no time: typing errors, and a phone that tries both of its
/// accounts.
const FREE: u32 = 5;
/// The same from all addresses of a network together.
const FREE_OF_NETWORK: u32 = 50;
/// The longest wait: a phone repeats its request for 32 s (RFC 3261 §17.1.2.2), so that a right one still arrives.
const LONGEST: Duration = Duration::from_secs(16);
/// After so long without a wrong one all is forgotten.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Pairs that are remembered. Beyond it the oldest memories are given up first.
const PAIRS: usize = 32_768;

#[derive(Debug, Clone, Copy)]
struct Pair {
    wrong: u32,
    waits_until: Duration,
    last: Duration,
}

/// Who has guessed wrong, and from where.
#[derive(Debug)]
pub(crate) struct Guesses {
    pairs: AHashMap<u64, Pair>,
    hasher: RandomState,
}

impl Guesses {
    /// `seed` keeps strangers from choosing pairs that are taken for others.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { pairs: AHashMap::new(), hasher: RandomState::with_seeds(seed[0], seed[1], 2, 0) }
    }

    fn keys(&self, user: &str, from: IpAddr) -> [(u64, u32); 2] {
        [
            (self.hasher.hash_one((user, source_of(from), 0_u8)), FREE),
            (self.hasher.hash_one((user, network_of(from), 1_u8)), FREE_OF_NETWORK),
        ]
    }

    /// How long credentials of a user from an address are not looked at. `user` names the domain too.
    pub(crate) fn delay(&self, user: &str, from: IpAddr, now: Duration) -> Option<Duration> {
        let waits = self.keys(user, from).into_iter().filter_map(|(key, _)| self.pairs.get(&key));
        waits.map(|pair| pair.waits_until.saturating_sub(now)).max().filter(|wait| !wait.is_zero())
    }

    /// Wrong ones have come.
    pub(crate) fn wrong(&mut self, user: &str, from: IpAddr, now: Duration) {
        self.make_room(now);
        for (key, free) in self.keys(user, from) {
            let fresh = Pair { wrong: 0, waits_until: now, last: now };
            let pair = self.pairs.entry(key).or_insert(fresh);
            if now.saturating_sub(pair.last) > FORGOTTEN {
                *pair = fresh;
            }
            pair.wrong = pair.wrong.saturating_add(1);
            pair.last = now;
            if let Some(beyond) = pair.wrong.checked_sub(free).filter(|beyond| *beyond > 0) {
                let wait = Duration::from_secs(
                    1_u64.checked_shl(beyond.saturating_sub(1).min(16)).unwrap_or(u64::MAX),
                );
                pair.waits_until = now.saturating_add(wait.min(LONGEST));
            }
        }
    }

    /// The right one has come: its address has nothing to wait for. What others of the network do is not forgiven.
    pub(crate) fn right(&mut self, user: &str, from: IpAddr) {
        let [(key, _), _] = self.keys(user, from);
        self.pairs.remove(&key);
    }

    fn make_room(&mut self, now: Duration) {
        let mut age = FORGOTTEN;
        while self.pairs.len() >= PAIRS && !age.is_zero() {
            self.pairs.retain(|_, pair| now.saturating_sub(pair.last) <= age);
            age = age.checked_div(4).unwrap_or_default();
            if age < Duration::from_secs(1) {
                self.pairs.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn guesses_wait_longer_and_longer_and_only_for_that_user_from_there() {
        let mut guesses = Guesses::new([1, 2]);
        let (here, there) = (ip("192.0.2.1"), ip("198.51.100.1"));
        let mut now = Duration::from_secs(100);
        let mut tries = 0;
        while now < Duration::from_secs(3700) {
            if guesses.delay("alice@a", here, now).is_none() {
                guesses.wrong("alice@a", here, now);
                tries += 1;
            }
            now += Duration::from_millis(100);
        }
        assert!(tries < 240, "{tries} in an hour");
        assert!(guesses.delay("alice@a", here, now).is_some());
        assert_eq!(guesses.delay("alice@a", ip("192.0.2.2"), now + LONGEST), None);
        assert_eq!(guesses.delay("alice@a", there, now), None);
        assert_eq!(guesses.delay("bob@a", here, now), None);
        assert_eq!(guesses.delay("alice@a", here, now + LONGEST), None, "nobody is locked out");
    }

    #[test]
    fn a_network_that_guesses_from_all_its_addresses_waits_as_well_and_memory_is_bounded() {
        let mut guesses = Guesses::new([1, 2]);
        let now = Duration::from_secs(100);
        for last in 0..=255 {
            guesses.wrong("alice@a", IpAddr::from([192, 0, 2, last]), now);
        }
        assert!(guesses.delay("alice@a", ip("192.0.2.99"), now).is_some());
        for number in 0..200_000_u32 {
            guesses.wrong(&format!("user{number}@a"), ip("192.0.2.1"), now);
        }
        assert!(guesses.pairs.len() <= PAIRS + 2, "{}", guesses.pairs.len());
    }

    #[test]
    fn the_right_password_ends_the_wait_of_its_address() {
        let mut guesses = Guesses::new([1, 2]);
        let (here, now) = (ip("2001:db8::1"), Duration::from_secs(100));
        for _ in 0..=FREE {
            guesses.wrong("alice@a", here, now);
        }
        assert!(guesses.delay("alice@a", here, now).is_some());
        guesses.right("alice@a", here);
        assert_eq!(guesses.delay("alice@a", here, now), None);
    }
}
