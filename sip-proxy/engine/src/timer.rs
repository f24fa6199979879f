//! Timers of one engine: what is due when, in an order that never depends on anything but the calls made.

use std::collections::BinaryHeap;
use std::time::Duration;

/// Names a scheduled timer; stale once it fired or was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerId {
    slot: u32,
    generation: u32,
}

/// A queue of timers. Cancelling only marks an entry; marked entries leave the heap when they reach its top, or all at
/// once when they outnumber the live ones. Of two timers for the same moment the one scheduled first fires first.
///
/// A timer costs 24 bytes in the heap and the size of `K` plus 16 in its slot.
#[derive(Debug)]
pub struct TimerQueue<K: Copy> {
    heap: BinaryHeap<Due>,
    slots: Vec<Slot<K>>,
    free: Vec<u32>,
    sequence: u64,
}

#[derive(Debug)]
struct Slot<K> {
    generation: u32,
    key: Option<K>,
    /// When it is due.
    at: u64,
}

/// The order is reversed: the heap's greatest is the earliest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at: u64,
    sequence: u64,
    slot: u32,
    generation: u32,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.at, other.sequence).cmp(&(self.at, self.sequence))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Copy> Default for TimerQueue<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), slots: Vec::new(), free: Vec::new(), sequence: 0 }
    }
}

impl<K: Copy> TimerQueue<K> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// `at` is monotonic time; a moment in the past fires at the next [`pop`](Self::pop).
    pub fn schedule(&mut self, at: Duration, key: K) -> TimerId {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.slots.push(Slot { generation: 0, key: None, at: 0 });
                self.slots.len().saturating_sub(1) as u32
            }
        };
        let at = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
        let generation = match self.slots.get_mut(slot as usize) {
            Some(entry) => {
                entry.key = Some(key);
                entry.at = at;
                entry.generation
            }
            None => 0,
        };
        self.sequence = self.sequence.wrapping_add(1);
        self.heap.push(Due { at, sequence: self.sequence, slot, generation });
        TimerId { slot, generation }
    }

    /// Nothing happens if it has fired already.
    pub fn cancel(&mut self, id: TimerId) {
        if self.take(id.slot, id.generation).is_some() {
            self.drop_marked();
        }
    }

    /// When a timer is due; `None` if it fired or was cancelled.
    pub fn due(&self, id: TimerId) -> Option<Duration> {
        let slot = self.slots.get(id.slot as usize).filter(|slot| slot.generation == id.generation)?;
        slot.key.map(|_| Duration::from_nanos(slot.at))
    }

    /// When the earliest timer is due.
    pub fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|due| Duration::from_nanos(due.at))
    }

    /// The key of the earliest timer that is due at `now`; call until `None`.
    pub fn pop(&mut self, now: Duration) -> Option<K> {
        let due = *self.heap.peek()?;
        if Duration::from_nanos(due.at) > now {
            return None;
        }
        self.heap.pop();
        let key = self.take(due.slot, due.generation);
        self.drop_marked();
        key
    }

    /// Timers that will fire.
    pub fn len(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    /// Whether none will fire.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self, slot: u32, generation: u32) -> Option<K> {
        let entry = self.slots.get_mut(slot as usize)?;
        if entry.generation != generation {
            return None;
        }
        let key = entry.key.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(slot);
        Some(key)
    }

    /// Keeps the top of the heap live, and the heap no more than twice as large as what is live.
    fn drop_marked(&mut self) {
        let slots = &self.slots;
        let is_live =
            |due: &Due| slots.get(due.slot as usize).is_some_and(|slot| slot.generation == due.generation);
        while self.heap.peek().is_some_and(|due| !is_live(due)) {
            self.heap.pop();
        }
        let live = self.slots.len().saturating_sub(self.free.len());
        if self.heap.len() > 64 && self.heap.len() > live.saturating_mul(2) {
            self.heap.retain(is_live);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn drain(queue: &mut TimerQueue<u32>, now: Duration) -> Vec<u32> {
        std::iter::from_fn(|| queue.pop(now)).collect()
    }

    #[test]
    fn timers_fire_in_order_of_time_and_then_of_scheduling() {
        let mut queue = TimerQueue::new();
        queue.schedule(2 * SECOND, 20);
        queue.schedule(SECOND, 10);
        queue.schedule(2 * SECOND, 21);
        queue.schedule(SECOND, 11);
        assert_eq!(queue.next(), Some(SECOND));
        assert_eq!(drain(&mut queue, SECOND / 2), []);
        assert_eq!(drain(&mut queue, 3 * SECOND), [10, 11, 20, 21]);
        assert!(queue.is_empty());
        assert_eq!(queue.next(), None);
    }

    #[test]
    fn a_cancelled_timer_neither_fires_nor_is_announced() {
        let mut queue = TimerQueue::new();
        let first = queue.schedule(SECOND, 1);
        queue.schedule(2 * SECOND, 2);
        assert_eq!(queue.due(first), Some(SECOND));
        queue.cancel(first);
        assert_eq!(queue.due(first), None);
        assert_eq!(queue.next(), Some(2 * SECOND));
        assert_eq!(drain(&mut queue, 3 * SECOND), [2]);
    }

    #[test]
    fn cancelling_what_fired_does_not_touch_the_timer_that_took_its_place() {
        let mut queue = TimerQueue::new();
        let old = queue.schedule(SECOND, 1);
        assert_eq!(queue.pop(SECOND), Some(1));
        queue.schedule(2 * SECOND, 2);
        queue.cancel(old);
        assert_eq!(drain(&mut queue, 2 * SECOND), [2]);
    }

    #[test]
    fn a_million_cancelled_timers_leave_no_heap_behind() {
        let mut queue = TimerQueue::new();
        let keep = queue.schedule(SECOND, 0);
        for number in 1..1_000_000 {
            let id = queue.schedule(2 * SECOND, number);
            queue.cancel(id);
        }
        assert!(queue.heap.len() <= 128, "{}", queue.heap.len());
        assert_eq!(queue.slots.len(), 2);
        queue.cancel(keep);
        assert!(queue.is_empty());
    }
}
