//! When which AOR wants something.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;

/// When which AOR wants something: the expiry or the keepalive of a binding.
#[derive(Debug)]
pub(super) struct Agenda {
    queue: BinaryHeap<Reverse<(Duration, Arc<str>)>>,
    /// The entry of the queue that counts for an AOR; others are stale.
    next: AHashMap<Arc<str>, Duration>,
}

impl Agenda {
    pub(super) fn new() -> Self {
        Self { queue: BinaryHeap::new(), next: AHashMap::new() }
    }

    /// An AOR wants nothing any more.
    pub(super) fn forget(&mut self, aor: &Arc<str>) {
        self.next.remove(aor);
    }

    /// Not later than `due`.
    pub(super) fn note(&mut self, aor: &Arc<str>, due: Duration) {
        if self.next.get(aor).is_none_or(|known| due < *known) {
            self.next.insert(aor.clone(), due);
            self.queue.push(Reverse((due, aor.clone())));
        }
    }

    /// An AOR whose time has come.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Arc<str>> {
        while self.queue.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Reverse((due, aor)) = self.queue.pop()?;
            if self.next.get(&aor) == Some(&due) {
                self.next.remove(&aor);
                return Some(aor);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aor_is_on_the_agenda_once_and_at_its_earliest_time() {
        let mut agenda = Agenda::new();
        let (one, other): (Arc<str>, Arc<str>) = ("one@x".into(), "other@x".into());
        let at = Duration::from_secs;
        for due in [30, 20, 25] {
            agenda.note(&one, at(due));
        }
        agenda.note(&other, at(21));
        assert_eq!(agenda.pop(at(19)), None);
        assert_eq!(agenda.pop(at(40)), Some(one));
        assert_eq!(agenda.pop(at(40)), Some(other));
        assert_eq!(agenda.pop(at(40)), None);
        assert!(agenda.queue.is_empty() && agenda.next.is_empty());
    }
}
