//! Virtual time: what is due later, in order.

use std::collections::BTreeMap;
use std::time::Duration;

/// Letters under way: each comes at its time, of the same time first what was posted first.
#[derive(Debug)]
pub struct Post<T> {
    letters: BTreeMap<(Duration, u64), T>,
    posted: u64,
}

impl<T> Default for Post<T> {
    fn default() -> Self {
        Self { letters: BTreeMap::new(), posted: 0 }
    }
}

impl<T> Post<T> {
    /// Comes at that time.
    pub fn post(&mut self, at: Duration, letter: T) {
        self.posted += 1;
        self.letters.insert((at, self.posted), letter);
    }

    /// When the next comes.
    pub fn next(&self) -> Option<Duration> {
        self.letters.first_key_value().map(|(key, _)| key.0)
    }

    /// The next, if it has come.
    pub fn take(&mut self, now: Duration) -> Option<T> {
        (self.next()? <= now).then(|| self.letters.pop_first())?.map(|(_, letter)| letter)
    }

    /// All that have come, without those that are posted while these are read.
    pub fn due(&mut self, now: Duration) -> Vec<T> {
        std::iter::from_fn(|| self.take(now)).collect()
    }

    /// Nothing is under way any more.
    pub fn clear(&mut self) {
        self.letters.clear();
    }
}
