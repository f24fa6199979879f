//! Randomness from the seed that the application hands in: the agent draws none of its own.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// ICE's alphabet (RFC 8839 §5.4).
const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A stream of unpredictable numbers.
#[derive(Debug, Clone)]
pub(crate) struct Random(ChaCha20Rng);

impl Random {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    pub(crate) fn word(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in `0..bound`; `bound` must not be 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        // Lemire's multiplication; the bias of at most 2^-32 does not matter to ports and timers.
        (u64::from(self.0.next_u32()).saturating_mul(u64::from(bound)) >> 32) as u32
    }

    /// Text of `length` characters of 6 random bits each.
    pub(crate) fn token(&mut self, length: usize) -> String {
        let mut letter = || ICE_CHARS.get(self.below(64) as usize).copied().map(char::from);
        (0..length).filter_map(|_| letter()).collect()
    }

    /// A STUN transaction id (96 bits).
    pub(crate) fn transaction(&mut self) -> u128 {
        (u128::from(self.word()) << 32) | u128::from(self.0.next_u32())
    }

    /// Fisher and Yates.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below((last as u32).saturating_add(1)) as usize);
        }
    }
}
