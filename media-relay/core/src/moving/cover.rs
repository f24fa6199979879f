//! Calls that are anchored for no reason.

use std::time::Duration;

/// So that an anchored call tells its parties nothing, some are anchored for no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cover {
    None,
    Stays,
    /// So long after its answer.
    ComesBack(Duration),
}

impl Cover {
    /// Nobody outside can tell which: it is drawn from the session's number, which nobody outside knows.
    pub(crate) fn of(id: u64, percent: u32) -> Self {
        let drawn = ahash::RandomState::with_seeds(5, 6, 7, 8).hash_one(id);
        let is_drawn = |number: u64| number % 100 < u64::from(percent);
        if is_drawn(drawn) {
            Self::Stays
        } else if is_drawn(drawn >> 16) {
            Self::ComesBack(Duration::from_secs(((drawn >> 32) % 600).saturating_add(10)))
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_calls_cover_others_as_policy_says() {
        let drawn: Vec<Cover> = (0..10_000).map(|id| Cover::of(id, 10)).collect();
        let stay = drawn.iter().filter(|cover| **cover == Cover::Stays).count();
        let come_back = drawn.iter().filter(|cover| matches!(cover, Cover::ComesBack(_))).count();
        assert!((850..1_150).contains(&stay) && (750..1_050).contains(&come_back), "{stay} {come_back}");
        assert!((0..1_000).all(|id| Cover::of(id, 0) == Cover::None));
    }
}
