//! Between those who must not wait for a disk and the thread that writes: lines in order, and tickets for who wants to know when
//! they are written.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sip_engine::registrar::BindingChange;

use super::segment::Line;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Entry {
    Line(Line),
    Binding(BindingChange),
}

#[derive(Debug, Default)]
struct State {
    entries: Vec<Entry>,
    /// The ticket of the last entry; the first is 1.
    last: u64,
    /// Since when the writer works on what it took.
    busy: Option<Instant>,
    /// Entries that came while too many waited for a writer that does not come back.
    lost: u64,
    is_closed: bool,
}

type Wake = Box<dyn Fn() + Send + Sync>;

/// Filled from any thread, emptied by one. The lock is held for moments, never over a system call of the disk.
#[derive(Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    work: Condvar,
    done: Condvar,
    settled: AtomicU64,
    /// The greatest ticket that somebody waits for elsewhere.
    awaited: AtomicU64,
    wake: Mutex<Option<Wake>>,
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("settled", &self.settled).finish_non_exhaustive()
    }
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn push(&self, entry: Entry) -> u64 {
        let mut state = self.state();
        if state.entries.len() >= super::WAITING {
            state.lost = state.lost.saturating_add(1);
            return state.last;
        }
        state.entries.push(entry);
        state.last = state.last.saturating_add(1);
        let ticket = state.last;
        let was_empty = state.entries.len() == 1;
        drop(state);
        if was_empty {
            self.work.notify_one();
        }
        ticket
    }

    /// Waits until there is something to write or a moment has passed; false when nothing more will come.
    pub(super) fn wait_for_work(&self, moment: Duration) -> bool {
        let state = self.state();
        if state.entries.is_empty() && !state.is_closed {
            let waited = self.work.wait_timeout(state, moment).unwrap_or_else(PoisonError::into_inner);
            return !(waited.0.is_closed && waited.0.entries.is_empty());
        }
        !(state.is_closed && state.entries.is_empty())
    }

    /// All entries, and the ticket of the last.
    pub(super) fn take(&self) -> (Vec<Entry>, u64) {
        let mut state = self.state();
        state.busy = Some(Instant::now());
        (std::mem::take(&mut state.entries), state.last)
    }

    /// Everything up to this ticket is on disk, or known to wait.
    pub(super) fn settle(&self, ticket: u64) {
        let mut state = self.state();
        state.busy = None;
        drop(state);
        self.advance(ticket);
    }

    fn advance(&self, ticket: u64) {
        let before = self.settled.fetch_max(ticket, Ordering::AcqRel);
        self.done.notify_all();
        if before < self.awaited.load(Ordering::Acquire) {
            self.wake();
        }
    }

    /// Tells who waits elsewhere to look again.
    pub(super) fn wake(&self) {
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            wake();
        }
    }

    /// Nobody shall wait for the disk any longer.
    pub(super) fn give_up(&self) {
        let last = self.state().last;
        self.advance(last);
    }

    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Acquire)
    }

    pub(super) fn await_ticket(&self, ticket: u64) {
        self.awaited.fetch_max(ticket, Ordering::AcqRel);
    }

    pub(super) fn when_settled(&self, wake: Wake) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }

    pub(super) fn wait_for(&self, ticket: u64) {
        let mut state = self.state();
        while self.settled() < ticket && !state.is_closed {
            // With a limit, because who settles does so without the lock.
            let waited = self.done.wait_timeout(state, Duration::from_millis(5));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How many entries were lost since the last time.
    pub(super) fn take_lost(&self) -> u64 {
        std::mem::take(&mut self.state().lost)
    }

    /// For how long the writer has been at the same entries, if there are any.
    pub(super) fn stalled(&self) -> Option<Duration> {
        let state = self.state();
        let busy = state.busy.map(|since| since.elapsed());
        busy.or((!state.entries.is_empty()).then_some(Duration::ZERO))
    }

    pub(super) fn close(&self) {
        self.state().is_closed = true;
        self.work.notify_all();
        self.done.notify_all();
    }
}
