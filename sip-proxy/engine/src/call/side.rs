//! The two sides of a call, and what there is once for each.

use std::ops::{Index, IndexMut};

use serde::{Deserialize, Serialize};

pub(super) use crate::keys::{BranchId, ForwardId, LegId, PairId, Side};

/// One for the caller's side and one for the target's.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Sides<T> {
    pub(super) caller: T,
    pub(super) target: T,
}

impl<T> Sides<T> {
    /// The caller's, then the target's.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Side, &T)> {
        [(Side::Caller, &self.caller), (Side::Target, &self.target)].into_iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.caller, &mut self.target].into_iter()
    }
}

impl<T> Index<Side> for Sides<T> {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        match side {
            Side::Caller => &self.caller,
            Side::Target => &self.target,
        }
    }
}

impl<T> IndexMut<Side> for Sides<T> {
    fn index_mut(&mut self, side: Side) -> &mut T {
        match side {
            Side::Caller => &mut self.caller,
            Side::Target => &mut self.target,
        }
    }
}
