//! Repeatable chance.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// One stream of chance of a seed. Where a test panics while it holds one, what repeats it is printed.
#[derive(Debug)]
pub struct Dice {
    stream: ChaCha8Rng,
    seed: u64,
}

impl Dice {
    /// The first stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self { stream: ChaCha8Rng::seed_from_u64(seed), seed }
    }

    /// Streams of one seed and different purposes do not depend on each other.
    pub fn of(seed: u64, purpose: u64) -> Self {
        let mut dice = Self::new(seed);
        dice.stream.set_stream(purpose);
        dice
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// A number from 0 on that is smaller than `bound`; 0 if nothing is.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound.max(1)
    }

    /// The same, of places in a slice.
    pub fn index(&mut self, bound: usize) -> usize {
        self.below(bound as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// For what is seeded itself.
    pub fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.stream.fill_bytes(&mut seed);
        seed
    }
}

impl Drop for Dice {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("dice of seed {} (stream {})", self.seed, self.stream.get_stream());
        }
    }
}
