//! One of two parties, in one m-line.

use std::ops::Not;

use seam::Side;

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
