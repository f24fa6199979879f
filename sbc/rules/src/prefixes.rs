//! Beginnings of numbers, a million and more of them, 16 octets each.
//!
//! A prefix is up to 16 of the 13 characters that are dialled, four bits each from the top, so that sorted keys stand as sorted texts
//! do: all beginnings of a number come before it, and the key before a number either is its longest beginning or shares it. Each
//! key knows its own longest beginning in the table, so one search and a few steps give all.

use std::sync::Arc;

/// Characters of a prefix.
pub const LONGEST: usize = 16;

/// No prefix.
const NONE: u32 = u32::MAX;

/// Prefixes with a value each; a copy shares all.
#[derive(Debug, Clone, Default)]
pub struct Prefixes {
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Box<[u64]>,
    values: Box<[u32]>,
    /// Where the longest prefix of each stands.
    parents: Box<[u32]>,
}

/// The characters that a number begins with and that are dialled, packed: at most 16.
pub(crate) fn packed(number: &str) -> u64 {
    let mut key = 0;
    let mut shift = 64;
    for octet in number.bytes().take(LONGEST) {
        let Some(nibble) = nibble(octet) else { break };
        shift -= 4;
        key |= nibble << shift;
    }
    key
}

fn nibble(octet: u8) -> Option<u64> {
    Some(match octet {
        b'0'..=b'9' => u64::from(octet - b'0') + 1,
        b'+' => 11,
        b'*' => 12,
        b'#' => 13,
        _ => return None,
    })
}

/// Whether a text can be a prefix.
pub fn is_prefix(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|octet| nibble(octet).is_some())
}

/// Whether one key begins with another.
fn begins_with(key: u64, prefix: u64) -> bool {
    // What lies below the last character of the prefix.
    let rest = if prefix == 0 { u64::MAX } else { (1 << (prefix.trailing_zeros() & !3)) - 1 };
    (key ^ prefix) & !rest == 0
}

impl Prefixes {
    /// Of these, in any order; of two that are the same the last counts. What [`is_prefix`] refuses is left out.
    pub fn new<'a>(prefixes: impl IntoIterator<Item = (&'a str, u32)>) -> Self {
        let fitting = prefixes.into_iter().filter(|(text, _)| is_prefix(text));
        let mut entries: Vec<(u64, u32)> = fitting.map(|(text, value)| (packed(text), value)).collect();
        entries.sort_by_key(|entry| entry.0);
        entries.dedup_by(|later, kept| {
            let same = later.0 == kept.0;
            if same {
                kept.1 = later.1;
            }
            same
        });
        let mut parents = Vec::with_capacity(entries.len());
        let mut open: Vec<u32> = Vec::new();
        for (place, (key, _)) in entries.iter().enumerate() {
            while let Some(&last) = open.last()
                && !begins_with(*key, entries.get(last as usize).map_or(0, |entry| entry.0))
            {
                open.pop();
            }
            parents.push(open.last().copied().unwrap_or(NONE));
            open.push(place as u32);
        }
        let (keys, values): (Vec<u64>, Vec<u32>) = entries.into_iter().unzip();
        let kept = Kept { keys: keys.into(), values: values.into(), parents: parents.into() };
        Self { kept: Arc::new(kept) }
    }

    /// The values of all that a number begins with, the longest first.
    pub fn of(&self, number: &str) -> impl Iterator<Item = u32> {
        let Kept { keys, values, parents } = &*self.kept;
        let key = packed(number);
        let mut place = keys.partition_point(|known| *known <= key).checked_sub(1);
        std::iter::from_fn(move || {
            loop {
                let at = place?;
                let parent = parents.get(at).copied().filter(|parent| *parent != NONE);
                place = parent.map(|parent| parent as usize);
                if begins_with(key, *keys.get(at)?) {
                    return values.get(at).copied();
                }
            }
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.kept.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What they take in memory.
    pub fn octets(&self) -> usize {
        self.len() * (size_of::<u64>() + 2 * size_of::<u32>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_prefixes_of_a_number_come_the_longest_first() {
        let table =
            Prefixes::new([("+49", 1), ("+4930", 2), ("+", 3), ("+493", 4), ("+48", 5), ("+49301", 6)]);
        let of = |number: &str| table.of(number).collect::<Vec<_>>();
        assert_eq!(of("+49302"), [2, 4, 1, 3]);
        assert_eq!(of("+4930"), [2, 4, 1, 3]);
        assert_eq!(of("+49"), [1, 3]);
        assert_eq!(of("+5"), [3]);
        assert_eq!(of("4930"), [0; 0]);
        assert_eq!(of("bob"), [0; 0]);
        assert_eq!(of("+49301999999999999999999"), [6, 2, 4, 1, 3]);
    }

    #[test]
    fn a_million_prefixes_take_sixteen_octets_each_and_are_what_texts_begin_with() {
        let texts: Vec<String> = (0..1_000_000_u64).map(|n| (n * 7919 % 100_000_007).to_string()).collect();
        let table = Prefixes::new(texts.iter().zip(0..).map(|(text, value)| (text.as_str(), value)));
        assert!(table.octets() <= 16_000_000);
        let known: std::collections::HashMap<&str, u32> = texts.iter().map(String::as_str).zip(0..).collect();
        for number in (0..2000_u64).map(|n| (n * 1_000_003 % 1_000_000_007).to_string()) {
            let slow = (1..=number.len()).rev().filter_map(|end| known.get(&number[..end]).copied());
            assert!(table.of(&number).eq(slow), "{number}");
        }
    }
}
