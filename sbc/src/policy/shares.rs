//! Which of equal routes comes first.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

/// Groups of routes that are remembered; more are as good as new.
const GROUPS: usize = 65_536;
const PARTS: usize = 16;

/// Turns of groups of equal routes, kept across snapshots.
///
/// Smooth weighted round robin: each route gains its weight at every call, the richest is chosen and pays all weights. So shares are
/// exact over the calls of each group, whatever other groups do, and calls alternate instead of coming in runs. Sums are of 64 bits:
/// four thousand million routes of the greatest weight do not overflow them.
#[derive(Debug)]
pub(super) struct Shares {
    parts: [Mutex<HashMap<u64, Vec<i64>>>; PARTS],
    hasher: RandomState,
}

impl Default for Shares {
    fn default() -> Self {
        Self { parts: std::array::from_fn(|_| Mutex::default()), hasher: RandomState::new() }
    }
}

impl Shares {
    /// The place of the route whose turn it is, in a group of ids and weights.
    pub(super) fn choose(&self, group: &[(i64, u32)]) -> usize {
        if group.len() < 2 {
            return 0;
        }
        let key = self.hasher.hash_one(group);
        let Some(part) = self.parts.get(usize::try_from(key).unwrap_or_default() % PARTS) else { return 0 };
        let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
        if part.len() >= GROUPS / PARTS && !part.contains_key(&key) {
            part.clear();
        }
        let credits = part.entry(key).or_default();
        credits.resize(group.len(), 0);
        let mut total = 0_i64;
        for (credit, (_, weight)) in credits.iter_mut().zip(group) {
            *credit = credit.saturating_add(i64::from(*weight));
            total = total.saturating_add(i64::from(*weight));
        }
        // The first of the richest.
        let richest = credits.iter().copied().max().unwrap_or_default();
        let chosen = credits.iter().position(|credit| *credit == richest).unwrap_or_default();
        if let Some(credit) = credits.get_mut(chosen) {
            *credit = credit.saturating_sub(total);
        }
        chosen
    }
}
