//! Numbers that follow from a seed.

/// SplitMix64 (Steele, Lea and Flood, 2014): one addition and three multiplications a number, seeded at no cost, and
/// good enough for jitter and ports. Nothing here needs to be unpredictable.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A source of its own for a part of the whole, so that what one part draws does not shift another's numbers.
    pub fn fork(&mut self) -> Self {
        Self(self.word())
    }

    /// 64 random bits.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Uniform in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u32) -> u32 {
        // Lemire's multiplication, without his rejection: the bias of at most 2^-32 does not show.
        (((self.word() >> 32) * u64::from(bound)) >> 32) as u32
    }

    /// Uniform in `[0, 1)`.
    pub fn share(&mut self) -> f64 {
        // The 53 bits that an f64 holds exactly.
        (self.word() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in `probability` of the cases; draws nothing when it is 0.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.share() < probability
    }

    /// The time to the next of events that come `per_second` on average (a Poisson process), in seconds.
    pub fn interval(&mut self, per_second: f64) -> f64 {
        -(1.0 - self.share()).ln() / per_second
    }

    /// Puts items in random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u32 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_reference_implementation() {
        let mut random = Random::new(1_234_567);
        let first = [random.word(), random.word(), random.word()];
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn intervals_of_a_hundred_a_second_have_that_mean() {
        let mut random = Random::new(7);
        let sum: f64 = (0..10_000).map(|_| random.interval(100.0)).sum();
        assert!((95.0..105.0).contains(&sum), "{sum}");
    }
}
