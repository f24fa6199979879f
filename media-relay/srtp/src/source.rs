//! How far a synchronisation source has counted (RFC 3711 §3.3.1), and what came already (§3.3.2).

use crate::Error;

/// Highest index of an RTP packet: 32 bits of roll-over counter, 16 of sequence number.
const LAST: u64 = (1 << 48) - 1;
/// Most sources of a key. Only who has the key adds one.
const MOST_SOURCES: usize = 32;

/// Which of the 128 indices up to the highest have come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    highest: u64,
    /// Bit n: the highest less n.
    seen: u128,
}

impl Window {
    pub(crate) fn is_new(&self, index: u64) -> bool {
        match self.highest.checked_sub(index) {
            Some(age) => age < 128 && self.seen >> age & 1 == 0,
            None => true,
        }
    }

    pub(crate) fn mark(&mut self, index: u64) {
        if let Some(age) = self.highest.checked_sub(index) {
            self.seen |= 1 << age.min(127);
        } else {
            let ahead = u32::try_from(index.abs_diff(self.highest)).unwrap_or(u32::MAX);
            self.seen = self.seen.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = index;
        }
    }
}

/// One source, seen by a number of paths.
#[derive(Debug, Clone)]
pub(crate) struct Source<const PATHS: usize> {
    ssrc: u32,
    /// The highest index of an authentic packet, whatever its path.
    highest: Option<u64>,
    windows: [Window; PATHS],
    pub(crate) reports: Window,
    /// Index of the next report to be sent.
    pub(crate) next_report: u32,
}

impl<const PATHS: usize> Source<PATHS> {
    fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            highest: None,
            windows: [Window::default(); PATHS],
            reports: Window::default(),
            next_report: 0,
        }
    }

    /// The index that a sequence number most likely means: the nearest to the highest, and of a new source that of its first round.
    pub(crate) fn index(&self, sequence: u16) -> Result<u64, Error> {
        let Some(highest) = self.highest else { return Ok(u64::from(sequence)) };
        let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
        let index = highest.checked_add_signed(i64::from(ahead)).ok_or(Error::Replayed)?;
        if index <= LAST { Ok(index) } else { Err(Error::KeyExhausted) }
    }

    /// Whether no packet with this index has come by a path; by one that there is not, none is.
    pub(crate) fn is_new(&self, path: usize, index: u64) -> bool {
        self.windows.get(path).is_some_and(|window| window.is_new(index))
    }

    /// A packet is authentic.
    pub(crate) fn advance(&mut self, path: usize, index: u64) {
        self.highest = self.highest.max(Some(index));
        if let Some(window) = self.windows.get_mut(path) {
            window.mark(index);
        }
    }
}

/// All sources of one key.
#[derive(Debug, Clone)]
pub(crate) struct Sources<const PATHS: usize>(Vec<Source<PATHS>>);

impl<const PATHS: usize> Sources<PATHS> {
    pub(crate) fn new() -> Self {
        Self(Vec::with_capacity(1))
    }

    /// The source as it is, or as it would begin; what becomes of it is kept by [`Sources::keep`] once the packet is authentic.
    pub(crate) fn find(&self, ssrc: u32) -> Result<Source<PATHS>, Error> {
        match self.0.iter().find(|source| source.ssrc == ssrc) {
            Some(source) => Ok(source.clone()),
            None if self.0.len() < MOST_SOURCES => Ok(Source::new(ssrc)),
            None => Err(Error::TooManySources),
        }
    }

    pub(crate) fn keep(&mut self, source: Source<PATHS>) {
        match self.0.iter_mut().find(|kept| kept.ssrc == source.ssrc) {
            Some(kept) => *kept = source,
            None => self.0.push(source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_takes_each_index_once_and_nothing_older_than_128() {
        let mut window = Window::default();
        for index in [0, 5, 3, 200, 73] {
            assert!(window.is_new(index), "{index}");
            window.mark(index);
            assert!(!window.is_new(index), "{index}");
        }
        assert!(!window.is_new(72) && window.is_new(74) && window.is_new(201) && !window.is_new(5));
        window.mark(1 << 47);
        assert!(window.is_new((1 << 47) - 1) && !window.is_new(200));
    }

    #[test]
    fn sequence_numbers_mean_the_nearest_index_over_many_rounds() {
        let mut source = Source::<1>::new(7);
        assert_eq!(source.index(40_000), Ok(40_000));
        for index in (40_000u64..300_000).step_by(9_000) {
            assert_eq!(source.index(index as u16), Ok(index));
            source.advance(0, index);
            assert_eq!(source.index((index - 20_000) as u16), Ok(index - 20_000));
        }
        let mut young = Source::<1>::new(7);
        young.advance(0, 3);
        assert_eq!(young.index(65_535), Err(Error::Replayed));
        young.advance(0, LAST);
        assert_eq!(young.index(0), Err(Error::KeyExhausted));
    }
}
