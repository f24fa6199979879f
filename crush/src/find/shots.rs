//! Random ports without repetition: one half of the birthday method (docs/crush.md §5.2, "shots").

use super::sweep::LOWEST;
use crate::count::Count;
use crate::random::Random;

/// Draws each port of 1024–65535 once, then begins again.
#[derive(Debug)]
pub(crate) struct Shots {
    ports: Vec<u16>,
    drawn: usize,
}

impl Shots {
    pub(crate) fn new() -> Self {
        Self { ports: (LOWEST..=u16::MAX).collect(), drawn: 0 }
    }

    /// The next port.
    pub(crate) fn next(&mut self, random: &mut Random) -> u16 {
        if self.drawn == self.ports.len() {
            self.drawn = 0;
        }
        // Fisher and Yates, one step a draw.
        let left = self.ports.get_mut(self.drawn..).unwrap_or_default();
        let chosen = random.below(left.len() as u32) as usize;
        left.swap(0, chosen);
        self.drawn.up();
        left.first().copied().unwrap_or(LOWEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::sweep::PORTS;

    #[test]
    fn the_documented_share_is_hit_by_the_documented_number_of_shots() {
        // 256 random holes, 1,161 shots: 99 of 100 (docs/crush.md §5.2).
        let mut random = Random::new([1; 32]);
        let runs = 1000;
        let hits = (0..runs)
            .filter(|_| {
                let mut holes = Shots::new();
                let holes: std::collections::HashSet<u16> =
                    (0..256).map(|_| holes.next(&mut random)).collect();
                let mut shots = Shots::new();
                (0..1161).any(|_| holes.contains(&shots.next(&mut random)))
            })
            .count();
        assert!((980..1000).contains(&hits), "{hits} of {runs}");
    }

    #[test]
    fn no_port_comes_twice() {
        let mut random = Random::new([2; 32]);
        let mut shots = Shots::new();
        let mut drawn: Vec<u16> = (0..PORTS).map(|_| shots.next(&mut random)).collect();
        drawn.sort_unstable();
        assert!(drawn.iter().copied().eq(LOWEST..=u16::MAX));
    }
}
