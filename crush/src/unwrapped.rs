//! Numbers of RTP that wrap, as counts that grow (RFC 3550 appendix A.1).

/// Sequence numbers as one growing count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unwrapped {
    newest: Option<i64>,
}

impl Unwrapped {
    /// The extended number nearest to the newest so far.
    pub(crate) fn extend(&mut self, sequence: u16) -> i64 {
        let extended = match self.newest {
            // Room below, so that packets that come before the first one stay positive.
            None => i64::from(sequence).saturating_add(1 << 16),
            Some(newest) => newest.saturating_add(i64::from(sequence.wrapping_sub(newest as u16) as i16)),
        };
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }
}

/// Timestamps as one growing count.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct UnwrappedTime {
    newest: Option<i64>,
}

impl UnwrappedTime {
    /// The extended timestamp nearest to the newest so far.
    pub(crate) fn extend(&mut self, timestamp: u32) -> i64 {
        let extended = match self.newest {
            None => i64::from(timestamp).saturating_add(1 << 32),
            Some(newest) => newest.saturating_add(i64::from(timestamp.wrapping_sub(newest as u32) as i32)),
        };
        self.newest = Some(self.newest.map_or(extended, |newest| newest.max(extended)));
        extended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_extend_over_the_wrap_in_both_directions() {
        let mut unwrapped = Unwrapped::default();
        let first = unwrapped.extend(65_534);
        assert_eq!(unwrapped.extend(1), first + 3);
        assert_eq!(unwrapped.extend(65_535), first + 1);
        assert_eq!(unwrapped.extend(2), first + 4);
    }
}
