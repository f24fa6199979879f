//! A table of small sorted leaves that a changed copy shares with the one before: what a change does not touch is not copied.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// Leaves of one branch, and branches: 65,536 leaves, so that of a million rows a change copies about sixteen.
const FAN: usize = 256;

/// What a table holds: sorted within its leaf by itself, and put into a leaf by the hash of its key.
pub(super) trait Entry: Ord + Clone {
    /// Entries of one key share a leaf.
    fn key(&self) -> &[u8];
}

type Branch<T> = [Option<Arc<[T]>>; FAN];

/// Cloning it copies 256 pointers.
#[derive(Debug, Clone)]
pub(super) struct Leaves<T> {
    branches: Vec<Option<Arc<Branch<T>>>>,
    hasher: RandomState,
    length: usize,
}

impl<T> Default for Leaves<T> {
    fn default() -> Self {
        Self { branches: vec![None; FAN], hasher: RandomState::new(), length: 0 }
    }
}

impl<T> Leaves<T> {
    fn place(&self, key: &[u8]) -> (usize, usize) {
        let [one, other, ..] = self.hasher.hash_one(key).to_be_bytes();
        (usize::from(one), usize::from(other))
    }

    /// The leaf of a key, with entries of other keys among its own.
    fn leaf(&self, (branch, leaf): (usize, usize)) -> &[T] {
        let branch = self.branches.get(branch).and_then(Option::as_deref);
        branch.and_then(|branch| branch.get(leaf)?.as_deref()).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }
}

impl<T: Entry> Leaves<T> {
    /// All entries of a key, in order.
    pub(super) fn of(&self, key: &[u8]) -> &[T] {
        let leaf = self.leaf(self.place(key));
        let start = leaf.partition_point(|entry| entry.key() < key);
        let rest = leaf.get(start..).unwrap_or_default();
        let length = rest.partition_point(|entry| entry.key() == key);
        rest.get(..length).unwrap_or_default()
    }

    /// A table of these entries.
    pub(super) fn build(mut entries: Vec<T>) -> Self {
        let mut table = Self { length: entries.len(), ..Self::default() };
        let hasher = table.hasher.clone();
        let place = |entry: &T| {
            let [one, other, ..] = hasher.hash_one(entry.key()).to_be_bytes();
            u16::from_be_bytes([one, other])
        };
        // In place: a second list of a million would be felt.
        entries.sort_by_cached_key(place);
        for leaf in entries.chunk_by_mut(|one, other| place(one) == place(other)) {
            leaf.sort_unstable();
            if let Some(first) = leaf.first() {
                table.put(table.place(first.key()), (&*leaf).into());
            }
        }
        table
    }

    fn put(&mut self, (branch, leaf): (usize, usize), entries: Arc<[T]>) {
        let Some(branch) = self.branches.get_mut(branch) else { return };
        let branch = Arc::make_mut(branch.get_or_insert_with(|| Arc::new(std::array::from_fn(|_| None))));
        if let Some(place) = branch.get_mut(leaf) {
            *place = (!entries.is_empty()).then_some(entries);
        }
    }

    /// Replaces the entries of a key that `goes` names by others of that key. Returns those that went.
    pub(super) fn replace(&mut self, key: &[u8], goes: impl Fn(&T) -> bool, come: Vec<T>) -> Vec<T> {
        let place = self.place(key);
        let (gone, mut stay): (Vec<T>, Vec<T>) =
            self.leaf(place).iter().cloned().partition(|entry| entry.key() == key && goes(entry));
        self.length = self.length.saturating_add(come.len()).saturating_sub(gone.len());
        stay.extend(come);
        stay.sort_unstable();
        self.put(place, stay.into());
        gone
    }
}

/// A text of up to 22 octets costs its table no allocation.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Short(u8, [u8; 22]),
    Long(Box<[u8]>),
}

impl Text {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Text::Short(length, octets) => octets.get(..usize::from(*length)).unwrap_or_default(),
            Text::Long(octets) => octets,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.as_bytes().len()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        let mut octets = [0; 22];
        match (octets.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(place), Ok(length)) => {
                place.copy_from_slice(text.as_bytes());
                Text::Short(length, octets)
            }
            _ => Text::Long(text.as_bytes().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
    struct Row(Vec<u8>, u32);

    impl Entry for Row {
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    fn row(key: u32, value: u32) -> Row {
        Row(key.to_string().into_bytes(), value)
    }

    #[test]
    fn a_changed_copy_shares_what_stayed_and_leaves_the_one_before_as_it_was() {
        let before = Leaves::build((0..50_000).map(|number| row(number, 0)).collect());
        let mut after = before.clone();
        let gone = after.replace(b"7", |_| true, vec![row(7, 2), row(7, 1)]);
        assert_eq!((gone, after.len(), before.len()), (vec![row(7, 0)], 50_001, 50_000));
        assert_eq!((before.of(b"7"), after.of(b"7")), (&[row(7, 0)][..], &[row(7, 1), row(7, 2)][..]));
        assert_eq!(after.of(b"50000"), []);
        let shared = |one: &Arc<Branch<Row>>, other: &Arc<Branch<Row>>| {
            one.iter()
                .zip(other.iter())
                .filter(|pair| match pair {
                    (Some(one), Some(other)) => !Arc::ptr_eq(one, other),
                    (one, other) => one.is_some() != other.is_some(),
                })
                .count()
        };
        let copied: usize = before
            .branches
            .iter()
            .zip(&after.branches)
            .map(|pair| match pair {
                (Some(one), Some(other)) => shared(one, other),
                (one, other) => usize::from(one.is_some() != other.is_some()) * FAN,
            })
            .sum();
        assert_eq!(copied, 1);
        assert_eq!(after.replace(b"7", |_| true, Vec::new()).len(), 2);
        assert_eq!((after.of(b"7"), after.len()), (&[][..], 49_999));
    }

    #[test]
    fn texts_of_any_length_stay_what_they_were() {
        for length in [0, 1, 21, 22, 23, 300] {
            let text = "x".repeat(length);
            assert_eq!(Text::from(&*text).as_bytes(), text.as_bytes());
        }
        assert_eq!(size_of::<Text>(), 24);
    }
}
