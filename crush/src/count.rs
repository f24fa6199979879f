//! Counters.

/// One more, and at its end it stays there: who sends for long enough must not stop a program that checks its sums.
pub(crate) trait Count {
    fn up(&mut self);
}

macro_rules! counts {
    ($($number:ty),*) => {
        $(impl Count for $number {
            fn up(&mut self) {
                *self = self.saturating_add(1);
            }
        })*
    };
}

counts!(u8, u16, u32, u64, usize, i32);
