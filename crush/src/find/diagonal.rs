//! Two NATs that both count up: one side opens holes in counting order, the other looks for the one number by which
//! both predictions are off together (docs/crush.md §5.2, "fan and scan").

use super::sweep::{fresh, port};
use crate::count::Count;
use crate::random::Random;

/// Holes of a fan, and probes of a scan.
pub(crate) const HOLES: i32 = 128;
/// Holes by which the fan is ahead of the scan.
pub(crate) const LAG: u32 = 20;
/// Offsets around the expected one. Flows of others only ever add to a counter, so it looks further upwards.
const OFFSETS: [std::ops::RangeInclusive<i32>; 3] = [-2..=6, -8..=24, -32..=64];

/// One round of the side that opens holes.
#[derive(Debug)]
pub(crate) struct Fan {
    last: u16,
    step: i16,
    sent: i32,
}

impl Fan {
    /// From the peer's `last` and `step`.
    pub(crate) fn new(last: u16, step: i16) -> Self {
        Self { last, step, sent: 0 }
    }

    /// The peer's port that hole `k` lets in; `None` when the round is over.
    pub(crate) fn next(&mut self) -> Option<u16> {
        if self.sent == HOLES {
            return None;
        }
        self.sent.up();
        Some(port(self.last, self.step, self.sent))
    }
}

/// One round of the side that looks for a hole.
#[derive(Debug)]
pub(crate) struct Scan {
    last: u16,
    step: i16,
    expected: i32,
    sent: i32,
    window: usize,
    pending: Vec<i32>,
}

impl Scan {
    /// From the peer's `last` and `step`; `expected`: flows that are known to have been made on either side since
    /// they were measured.
    pub(crate) fn new(last: u16, step: i16, expected: i32) -> Self {
        Self { last, step, expected, sent: 0, window: 0, pending: Vec::new() }
    }

    /// Where the next probe goes; `None` when the round is over.
    pub(crate) fn next(&mut self, random: &mut Random) -> Option<u16> {
        if self.sent == HOLES {
            return None;
        }
        if self.pending.is_empty() {
            self.pending = fresh(&OFFSETS, self.window);
            random.shuffle(&mut self.pending);
            self.window.up();
        }
        let offset = self.expected.saturating_add(self.pending.pop()?);
        self.sent.up();
        Some(port(self.last, self.step, self.sent.saturating_add(offset)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// Whether a round meets, with counters that stand `a_error` and `b_error` flows further than was said.
    fn meets(a_error: i32, b_error: i32, seed: u8) -> Option<i32> {
        let (a_step, b_step) = (1, 2);
        let mut random = Random::new([seed; 32]);
        let mut fan = Fan::new(50_000, b_step);
        // Hole: source that may pass -> port it leads to.
        let mut holes = HashMap::new();
        let mut k = 0;
        while let Some(target) = fan.next() {
            k += 1;
            holes.insert(target, port(30_000, a_step, k + a_error));
        }
        let mut scan = Scan::new(30_000, a_step, 0);
        let mut j = 0;
        while let Some(target) = scan.next(&mut random) {
            j += 1;
            if holes.get(&port(50_000, b_step, j + b_error)) == Some(&target) {
                return Some(j);
            }
        }
        None
    }

    #[test]
    fn any_pair_of_errors_with_a_small_sum_is_met_within_its_window() {
        for seed in 0..20 {
            for a_error in 0..4 {
                for b_error in 0..3 {
                    assert!(meets(a_error, b_error, seed).is_some_and(|probes| probes <= 9));
                }
            }
            assert!(meets(20, 4, seed).is_some_and(|probes| probes <= 33));
            assert!(meets(40, 20, seed).is_some());
            assert!(meets(-5, 3, seed).is_some());
        }
    }
}
