//! What there is once for each end of a call.

use std::ops::{Index, IndexMut};

/// The end that faces the caller.
pub(super) const CALLER: usize = 0;
/// The end that faces the target.
pub(super) const TARGET: usize = 1;

/// One for the caller's end and one for the target's. Indexed by [`CALLER`] or [`TARGET`]; there is no third end, so what
/// is not the caller's is the target's.
#[derive(Debug, Default)]
pub(super) struct Ends<T>(pub(super) [T; 2]);

impl<T> Index<usize> for Ends<T> {
    type Output = T;

    fn index(&self, side: usize) -> &T {
        let [caller, target] = &self.0;
        if side == CALLER { caller } else { target }
    }
}

impl<T> IndexMut<usize> for Ends<T> {
    fn index_mut(&mut self, side: usize) -> &mut T {
        let [caller, target] = &mut self.0;
        if side == CALLER { caller } else { target }
    }
}

impl<T> Ends<T> {
    /// The caller's, then the target's.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, T> {
        self.0.iter_mut()
    }
}

/// The other end.
pub(super) const fn opposite(side: usize) -> usize {
    if side == CALLER { TARGET } else { CALLER }
}
