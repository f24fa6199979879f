//! The two sides of a call, and what there is once for each.

use std::ops::{Index, IndexMut, Not};

/// Whom an end faces. There is no third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Caller,
    Target,
}

impl Not for Side {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Side::Caller => Side::Target,
            Side::Target => Side::Caller,
        }
    }
}

/// One for the caller's side and one for the target's.
#[derive(Debug, Default)]
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

/// Names a pair inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct PairId(pub(super) u32);

impl PairId {
    pub(super) fn leg(self, side: Side) -> LegId {
        LegId { pair: self, side }
    }
}

/// Names a branch inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct BranchId(pub(super) u16);

/// Names a request that travels inside a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ForwardId {
    pub(super) pair: PairId,
    pub(super) number: u32,
}

/// Names a leg inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LegId {
    pub(crate) pair: PairId,
    pub(crate) side: Side,
}

impl Not for LegId {
    type Output = Self;

    /// The other leg of the pair.
    fn not(self) -> Self {
        Self { side: !self.side, ..self }
    }
}
