//! Indications are taken once (docs/crush.md §7.3).

/// A window of 64 numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    newest: u32,
    /// Bit n: `newest - n` was taken.
    taken: u64,
}

impl Window {
    /// Whether this number is new; it is taken then.
    pub(crate) fn take(&mut self, number: u32) -> bool {
        if number > self.newest {
            let shift = number.abs_diff(self.newest);
            self.taken = if shift < 64 { self.taken << shift | 1 } else { 1 };
            self.newest = number;
            return true;
        }
        let age = self.newest.abs_diff(number);
        let bit = 1u64.checked_shl(age).unwrap_or(0);
        let fresh = bit != 0 && self.taken & bit == 0 && number != 0;
        self.taken |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_taken_once_also_out_of_order_but_not_from_long_ago() {
        let mut window = Window::default();
        for number in [1, 3, 2, 100, 90] {
            assert!(window.take(number), "{number}");
        }
        for number in [0, 1, 3, 2, 36, 100, 90] {
            assert!(!window.take(number), "{number}");
        }
        assert!(window.take(37));
    }
}
