//! Which external port a new mapping gets.

use std::time::Duration;

use crate::behaviour::{Behaviour, Ports};
use crate::random::Random;

/// Tries at random before the range is searched in order; Linux makes as many.
const TRIES: u32 = 128;

/// Chooses ports by a NAT's behaviour.
#[derive(Debug, Clone)]
pub(crate) struct Allocator {
    /// The latest port of a sequential NAT, counted from the start of its range.
    latest: u16,
    /// When another user makes the next mapping.
    next_other: Option<Duration>,
    random: Random,
}

impl Allocator {
    pub(crate) fn new(mut random: Random) -> Self {
        Self { latest: random.word() as u16, next_other: None, random }
    }

    /// A free port for an internal one; `None` if all are taken.
    pub(crate) fn port(
        &mut self,
        behaviour: &Behaviour,
        internal: u16,
        now: Duration,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let range = &behaviour.port_range;
        let (start, size) = (*range.start(), u32::from(range.end().saturating_sub(*range.start())) + 1);
        match behaviour.ports {
            Ports::Preserving if is_free(internal) => Some(internal),
            Ports::Preserving | Ports::Random => {
                let at_random = (0..TRIES).map(|_| start + self.random.below(size) as u16);
                let found = at_random.into_iter().find(|port| is_free(*port));
                found.or_else(|| range.clone().find(|port| is_free(*port)))
            }
            Ports::Sequential { step } => {
                self.let_others_pass(step, size, behaviour.other_users, now);
                (0..size).find_map(|_| {
                    self.advance(step, size);
                    let port = start + self.latest;
                    is_free(port).then_some(port)
                })
            }
        }
    }

    fn advance(&mut self, step: i16, size: u32) {
        let place = (i64::from(self.latest) + i64::from(step)).rem_euclid(i64::from(size));
        self.latest = place as u16;
    }

    fn let_others_pass(&mut self, step: i16, size: u32, per_second: f64, now: Duration) {
        if per_second <= 0.0 {
            self.next_other = None;
            return;
        }
        let mut pause = || Duration::from_secs_f64(self.random.interval(per_second));
        let mut next = match self.next_other {
            Some(next) => next,
            None => now + pause(),
        };
        let mut passed = 0u32;
        while next <= now {
            next += pause();
            passed += 1;
        }
        self.next_other = Some(next);
        for _ in 0..passed {
            self.advance(step, size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::behaviour::Kind;

    fn ports(behaviour: &Behaviour, count: usize, between: Duration) -> Vec<u16> {
        let mut allocator = Allocator::new(Random::new(3));
        let at = |index: usize| between * index as u32;
        (0..count).map(|index| allocator.port(behaviour, 5004, at(index), |_| true).unwrap()).collect()
    }

    #[test]
    fn sequential_ports_follow_each_other_and_wrap_within_their_range() {
        let mut behaviour = Behaviour::from(Kind::SymmetricSequential);
        behaviour.ports = Ports::Sequential { step: -2 };
        behaviour.port_range = 50_000..=50_009;
        let ports = ports(&behaviour, 6, Duration::ZERO);
        assert!(ports.windows(2).all(|pair| matches!(pair, [a, b] if (a + 8 - b) % 10 == 0)), "{ports:?}");
        assert!(ports.iter().all(|port| behaviour.port_range.contains(port)));
    }

    #[test]
    fn other_users_take_ports_between() {
        let mut behaviour = Behaviour::from(Kind::SymmetricSequential);
        behaviour.other_users = 100.0;
        let ports = ports(&behaviour, 101, Duration::from_millis(100));
        let passed = ports.last().unwrap().wrapping_sub(ports[0]);
        assert!((950..1_250).contains(&passed), "{passed} ports in 10 s of 100 a second, and 100 of ours");
    }

    #[test]
    fn a_preserved_port_is_replaced_when_it_is_taken_and_none_is_given_when_all_are() {
        let mut behaviour = Behaviour::from(Kind::Cone);
        behaviour.port_range = 6000..=6001;
        let mut allocator = Allocator::new(Random::new(3));
        let mut port =
            |taken: &[u16]| allocator.port(&behaviour, 5004, Duration::ZERO, |port| !taken.contains(&port));
        assert_eq!(port(&[]), Some(5004));
        assert_eq!(port(&[5004, 6000]), Some(6001));
        assert_eq!(port(&[5004, 6000, 6001]), None);
    }
}
