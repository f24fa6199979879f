//! The two between whom media moves.

use std::ops::{Index, IndexMut, Not};

use crate::words::words;

words! {
    /// One of two parties: the caller is the first, wherever one of them is. What both have is a pair, an array of two, that is indexed by it.
    #[derive(PartialOrd, Ord)]
    pub enum Side {
        /// The caller, where one of them is.
        First = "first",
        /// The other.
        Second = "second",
    }
}

impl Side {
    /// What of a pair is its own.
    pub fn its<T>(self, [first, second]: &[T; 2]) -> &T {
        match self {
            Self::First => first,
            Self::Second => second,
        }
    }

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

impl<T> Index<Side> for [T; 2] {
    type Output = T;

    fn index(&self, side: Side) -> &T {
        side.its(self)
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
