//! What one end may cause at the other by INFO, for the call and not for each message (docs/crush.md §12): who says more is answered, by SIP,
//! and ignored. An endpoint keeps it for its peer, an SBC for each of both.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Generations of the peer's that begin within a minute.
const GENERATIONS: usize = 12;
const MINUTE: Duration = Duration::from_secs(60);
/// Fragments at once; and the time in which one more may come. An endpoint waits for each one's response before it sends another.
const FRAGMENTS: u32 = 24;
const FRAGMENT: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Excess {
    /// When the newest began.
    generations: VecDeque<Duration>,
    /// Up to when fragments have used their time.
    used: Duration,
}

impl Excess {
    /// One more fragment has come: whether it is looked at.
    pub fn admits_fragment(&mut self, now: Duration) -> bool {
        let used = self.used.max(now).saturating_add(FRAGMENT);
        let is_taken = used <= now.saturating_add(FRAGMENT.saturating_mul(FRAGMENTS));
        if is_taken {
            self.used = used;
        }
        is_taken
    }

    /// Another ufrag has come: whether its generation may begin.
    pub fn admits_generation(&mut self, now: Duration) -> bool {
        self.generations.retain(|at| at.saturating_add(MINUTE) > now);
        let is_taken = self.generations.len() < GENERATIONS;
        if is_taken {
            self.generations.push_back(now);
        }
        is_taken
    }

    /// Its moments are by another clock from now on.
    pub fn retime(&mut self, moment: impl Fn(Duration) -> Duration) {
        self.generations.iter_mut().for_each(|at| *at = moment(*at));
        self.used = moment(self.used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twelve_generations_a_minute_and_no_flood_of_fragments() {
        let mut excess = Excess::default();
        let ms = Duration::from_millis;
        let taken = (0..1800).filter(|tick| excess.admits_generation(ms(tick * 1000 / 30))).count();
        assert_eq!(taken, 12);
        assert!(excess.admits_generation(ms(60_000)));
        let taken = (0..300).filter(|tick| excess.admits_fragment(ms(tick * 50))).count();
        assert!((80..90).contains(&taken), "{taken}");
        assert!(excess.admits_fragment(ms(16_000)));
    }
}
