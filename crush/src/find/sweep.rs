//! Ports around the predicted one, in windows that widen, shuffled inside (docs/crush.md §5.2, "sweep").

use std::ops::RangeInclusive;

use crate::random::Random;

/// Multiples of the step, window by window.
const WINDOWS: [RangeInclusive<i32>; 4] = [-4..=16, -16..=64, -64..=256, -256..=1024];

/// What comes after what in a pass: `None` is the first window again, since one probe of it may have been lost, and the others are long.
const PASS: [Option<usize>; 5] = [Some(0), Some(1), None, Some(2), Some(3)];

/// Lowest port that is tried.
pub(super) const LOWEST: u16 = 1024;
/// How many ports are tried.
pub(super) const PORTS: u32 = 65_536 - LOWEST as u32;

/// `last + step·k`, wrapped into 1024–65535.
pub(super) fn port(last: u16, step: i16, k: i32) -> u16 {
    // Of 16 and 32 bits: neither overflows.
    let away = i64::from(step).saturating_mul(i64::from(k));
    let offset = i64::from(last).saturating_sub(i64::from(LOWEST)).saturating_add(away);
    LOWEST.saturating_add(offset.rem_euclid(i64::from(PORTS)) as u16)
}

/// What the window with this number holds; after the last comes the first. Each number once a pass: what the window before
/// held is left out, except at the start of a pass.
pub(super) fn fresh(windows: &[RangeInclusive<i32>], number: usize) -> Vec<i32> {
    let place = number.checked_rem(windows.len()).unwrap_or(0);
    let seen = place.checked_sub(1).and_then(|before| windows.get(before));
    let window = windows.get(place).cloned().into_iter().flatten();
    window.filter(|k| seen.is_none_or(|seen| !seen.contains(k))).collect()
}

/// One endpoint's sweep; it never ends by itself.
#[derive(Debug)]
pub(crate) struct Sweep {
    last: u16,
    step: i16,
    window: usize,
    pending: Vec<i32>,
}

impl Sweep {
    /// From the peer's `last` and `step`.
    pub(crate) fn new(last: u16, step: i16) -> Self {
        Self { last, step, window: 0, pending: Vec::new() }
    }

    /// The next port.
    pub(crate) fn next(&mut self, random: &mut Random) -> u16 {
        loop {
            if let Some(k) = self.pending.pop() {
                return port(self.last, self.step, k);
            }
            self.pending = match PASS.get(self.window) {
                Some(Some(window)) => fresh(&WINDOWS, *window),
                Some(None) => WINDOWS[0].clone().collect(),
                None => Vec::new(),
            };
            random.shuffle(&mut self.pending);
            self.window = self.window.saturating_add(1).checked_rem(PASS.len()).unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_pass_tries_each_port_and_near_ones_first_and_twice() {
        let mut random = Random::new([7; 32]);
        let mut sweep = Sweep::new(40_000, 1);
        let ports: Vec<u16> = (0..1302).map(|_| sweep.next(&mut random)).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 1281);
        assert!(ports[..21].iter().all(|port| (39_996..=40_016).contains(port)));
        assert!(ports[21..81].iter().all(|port| (39_984..=40_064).contains(port)));
        assert!(ports[81..102].iter().all(|port| (39_996..=40_016).contains(port)));
        assert!(!ports[..21].is_sorted());
        assert!((39_996..=40_016).contains(&sweep.next(&mut random)));
    }

    #[test]
    fn ports_wrap_above_1024() {
        assert_eq!(port(65_535, 1, 1), 1024);
        assert_eq!(port(1024, 1, -1), 65_535);
        assert_eq!(port(5000, -2, 10), 4980);
        assert!(port(80, 1, 0) >= 1024);
    }
}
