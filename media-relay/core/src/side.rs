//! The two between whom media moves.

use std::ops::{Index, IndexMut, Not};

/// One of two parties: the caller is the first, wherever one of them is. What both have is a pair, an array of two, that is indexed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The caller, where one of them is.
    First,
    /// The other.
    Second,
}

impl Side {
    /// Either, in order.
    pub const BOTH: [Self; 2] = [Self::First, Self::Second];
}

impl Not for Side {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}

/// One m-line, as one of them sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Track {
    /// Which of the m-lines that could move, from 0.
    pub line: usize,
    /// Who sends it.
    pub party: Side,
}

impl Not for Track {
    type Output = Self;

    /// The same m-line as the other sends it.
    fn not(self) -> Self {
        Self { line: self.line, party: !self.party }
    }
}

impl<T> Index<Side> for [T; 2] {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        let [first, second] = self;
        match side {
            Side::First => first,
            Side::Second => second,
        }
    }
}

impl<T> IndexMut<Side> for [T; 2] {
    fn index_mut(&mut self, side: Side) -> &mut T {
        let [first, second] = self;
        match side {
            Side::First => first,
            Side::Second => second,
        }
    }
}
