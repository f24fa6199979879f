//! Tags, branches and Call-IDs: unguessable, and naming the home of what they name.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::slot::Slot;

/// Lower-case letters and digits that are not easily confused; 32 of them, 5 bits each.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// Mints identifiers from a seed that the shell takes from the operating system. RFC 3261 §19.3 asks for 32 bits of
/// randomness in a tag; these have 60 and more.
#[derive(Debug)]
pub struct Ids {
    stream: ChaCha20Rng,
    node: u8,
}

impl Ids {
    /// `seed` must be unpredictable in production; in tests it makes a run repeatable.
    pub fn new(seed: [u8; 32], node: u8) -> Self {
        Self { stream: ChaCha20Rng::from_seed(seed), node }
    }

    /// A tag for From or To.
    pub fn tag(&mut self) -> String {
        self.word(12)
    }

    /// A branch with the cookie of RFC 3261 §8.1.1.7.
    pub fn branch(&mut self) -> String {
        let mut branch = String::with_capacity(23);
        branch.push_str("z9hG4bK");
        self.write_word(&mut branch, 16);
        branch
    }

    /// A Call-ID that names this node and `slot`, so that whoever receives a message of it finds its home.
    /// It says nothing of the other side's Call-ID.
    pub fn call_id(&mut self, slot: Slot) -> String {
        let mut call_id = slot.prefix(self.node);
        self.write_word(&mut call_id, 20);
        call_id
    }

    /// A random (version 4) UUID's bits.
    pub fn uuid(&mut self) -> u128 {
        let random = (u128::from(self.stream.next_u64()) << 64) | u128::from(self.stream.next_u64());
        (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62)
    }

    /// A random number, for spreading timers and choosing by weight.
    pub fn number(&mut self) -> u64 {
        self.stream.next_u64()
    }

    /// Fills `bytes`, for nonces and keys.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.stream.fill_bytes(bytes);
    }

    /// A word of `length` letters and digits, 5 bits each.
    pub fn word(&mut self, length: usize) -> String {
        let mut word = String::with_capacity(length);
        self.write_word(&mut word, length);
        word
    }

    fn write_word(&mut self, to: &mut String, length: usize) {
        let mut bits = 0u64;
        for position in 0..length {
            if position % 12 == 0 {
                bits = self.stream.next_u64();
            }
            to.push(char::from(ALPHABET.get((bits & 31) as usize).copied().unwrap_or(b'x')));
            bits >>= 5;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_mints_the_same_ids_and_another_seed_does_not() {
        let mint = |seed| {
            let mut ids = Ids::new([seed; 32], 1);
            (ids.tag(), ids.branch(), ids.call_id(Slot::new(7)), ids.uuid())
        };
        assert_eq!(mint(1), mint(1));
        assert_ne!(mint(1), mint(2));
    }

    #[test]
    fn a_uuid_says_that_it_is_random() {
        let uuid = Ids::new([3; 32], 1).uuid();
        assert_eq!((uuid >> 76) & 0xf, 4);
        assert_eq!((uuid >> 62) & 0x3, 2);
    }
}
