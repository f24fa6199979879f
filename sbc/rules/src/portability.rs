//! Ported numbers: which network has a number now, for tens of millions of them, 12 octets each.
//!
//! Keys are digits of four bits each, sorted; what a number leads to is an index into the few thousand routing numbers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::prefixes::packed;

/// Digits of a number (E.164).
const DIGITS: usize = 15;

/// A number that was looked up and is not ported.
const HOME: u32 = u32::MAX;

/// The table; a copy shares all.
#[derive(Debug, Clone, Default)]
pub struct Ported {
    kept: Arc<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    keys: Box<[u64]>,
    numbers: Box<[u32]>,
    routing: Box<[Arc<str>]>,
}

/// What is known of a number, as `npdi` and `rn` of RFC 4694 say it. That there is an answer is `npdi`: nobody asks again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    /// The routing number; `None` if the number is where its prefix says.
    pub rn: Option<&'a str>,
}

/// Why a row is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The number.
    #[error("the number is not 1 to 15 digits, with or without a + before them")]
    Number,
    /// The routing number.
    #[error("the routing number is not 1 to 32 of hexadecimal digits, with or without a + before them")]
    Routing,
    /// More rows or routing numbers than a table holds.
    #[error("the table holds at most 4,294,967,294 rows")]
    Full,
}

/// Takes rows in any order.
#[derive(Debug)]
pub struct Builder {
    rows: Vec<(u64, u32)>,
    routing: Vec<Arc<str>>,
    known: HashMap<Arc<str>, u32, ahash::RandomState>,
    unsorted: bool,
}

impl Builder {
    /// For so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        // Fixed keys: routing numbers come from the operator, not from strangers.
        let known = HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4));
        Self { rows: Vec::with_capacity(rows), routing: Vec::new(), known, unsorted: false }
    }

    /// One more number; of two rows for one number the later counts.
    ///
    /// # Errors
    /// See [`Unfit`]; the row is left out.
    pub fn add(&mut self, number: &str, rn: Option<&str>) -> Result<(), Unfit> {
        let key = key(number).ok_or(Unfit::Number)?;
        let routing = rn.map_or(Ok(HOME), |rn| self.routing_of(rn))?;
        if self.rows.len() >= HOME as usize {
            return Err(Unfit::Full);
        }
        self.unsorted |= self.rows.last().is_some_and(|last| last.0 >= key);
        self.rows.push((key, routing));
        Ok(())
    }

    fn routing_of(&mut self, rn: &str) -> Result<u32, Unfit> {
        if let Some(known) = self.known.get(rn) {
            return Ok(*known);
        }
        let digits = rn.strip_prefix('+').unwrap_or(rn);
        if !(1..=32).contains(&digits.len()) || !digits.bytes().all(|octet| octet.is_ascii_hexdigit()) {
            return Err(Unfit::Routing);
        }
        let index = u32::try_from(self.routing.len()).map_err(|_| Unfit::Full)?;
        let rn: Arc<str> = rn.into();
        self.routing.push(rn.clone());
        self.known.insert(rn, index);
        Ok(index)
    }

    /// The table.
    pub fn finish(mut self) -> Ported {
        if self.unsorted {
            // Stable, so that the later of two stays the later.
            self.rows.sort_by_key(|row| row.0);
            self.rows.dedup_by(|later, kept| {
                let same = later.0 == kept.0;
                if same {
                    kept.1 = later.1;
                }
                same
            });
        }
        let keys = self.rows.iter().map(|row| row.0).collect();
        let numbers = self.rows.iter().map(|row| row.1).collect();
        Ported { kept: Arc::new(Kept { keys, numbers, routing: self.routing.into() }) }
    }
}

impl Ported {
    /// What is known of a number.
    pub fn get(&self, number: &str) -> Option<Answer<'_>> {
        let key = key(number)?;
        let place = self.kept.keys.binary_search(&key).ok()?;
        let routing = *self.kept.numbers.get(place)?;
        Some(Answer { rn: self.kept.routing.get(routing as usize).map(|rn| &**rn) })
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        self.kept.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the numbers take in memory, without the routing numbers' texts.
    pub fn octets(&self) -> usize {
        self.len() * (size_of::<u64>() + size_of::<u32>())
    }
}

fn key(number: &str) -> Option<u64> {
    let digits = number.strip_prefix('+').unwrap_or(number);
    let fits = (1..=DIGITS).contains(&digits.len()) && digits.bytes().all(|octet| octet.is_ascii_digit());
    fits.then(|| packed(digits))
}
