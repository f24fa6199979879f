//! A table whose ids go stale: an id never finds what took the place of its own.

/// Entries by index and generation.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Entry<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slots<T> {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new(), free: Vec::new() }
    }

    /// Keeps what is made of the index and generation that will find it again.
    pub(crate) fn insert(&mut self, make: impl FnOnce(u32, u32) -> T) -> (u32, u32) {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(Entry { generation: 0, value: None });
                self.entries.len().saturating_sub(1) as u32
            }
        };
        let Some(entry) = self.entries.get_mut(index as usize) else { return (index, 0) };
        entry.value = Some(make(index, entry.generation));
        (index, entry.generation)
    }

    pub(crate) fn get(&self, index: u32, generation: u32) -> Option<&T> {
        self.entries.get(index as usize).filter(|entry| entry.generation == generation)?.value.as_ref()
    }

    pub(crate) fn get_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        self.entries.get_mut(index as usize).filter(|entry| entry.generation == generation)?.value.as_mut()
    }

    pub(crate) fn remove(&mut self, index: u32, generation: u32) -> Option<T> {
        let entry = self.entries.get_mut(index as usize).filter(|entry| entry.generation == generation)?;
        let value = entry.value.take()?;
        // 30 bits, so that an id fits into a ticket.
        entry.generation = entry.generation.wrapping_add(1) & 0x3fff_ffff;
        self.free.push(index);
        Some(value)
    }

    /// All, with the index and generation that find them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = ((u32, u32), &T)> {
        let entries = (0u32..).zip(&self.entries);
        entries.filter_map(|(index, entry)| Some(((index, entry.generation), entry.value.as_ref()?)))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len().saturating_sub(self.free.len())
    }
}
