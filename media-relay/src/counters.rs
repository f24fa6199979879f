//! What a worker counts, for the metrics endpoint.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// One per worker, written by it alone, once per batch.
#[derive(Debug, Default)]
pub struct WorkerCounters {
    received: AtomicU64,
    sent: AtomicU64,
    dropped: AtomicU64,
    keepalives: AtomicU64,
    strangers_learnt: AtomicU64,
    copies_lost: AtomicU64,
    send_failed: AtomicU64,
    unreachable: AtomicU64,
    sessions: AtomicU64,
    ports_in_use: AtomicU64,
    panicked: AtomicU64,
    descriptions_panicked: AtomicU64,
}

/// A copy of the numbers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Snapshot {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets that belonged to nobody.
    pub dropped: u64,
    /// What only holds a NAT's mapping open, consumed.
    pub keepalives: u64,
    /// How often a stranger was believed to be a party.
    pub strangers_learnt: u64,
    /// Copies that who listens will not get, since too many waited.
    pub copies_lost: u64,
    /// Packets the kernel refused to send.
    pub send_failed: u64,
    /// Packets to addresses that no route leads to.
    pub unreachable: u64,
    /// Sessions now.
    pub sessions: u64,
    /// Pairs of ports in use now.
    pub ports_in_use: u64,
    /// Packets and descriptions dropped because their reading panicked.
    pub panicked: u64,
}

impl Snapshot {
    /// The kernel did not take a packet. What a phone behind a NAT names as its address, before it is heard, is often one that no route
    /// leads to: nothing is wrong with that, and it is counted apart.
    pub(crate) fn missed(&mut self, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => {
                self.unreachable = self.unreachable.saturating_add(1)
            }
            _ => self.send_failed = self.send_failed.saturating_add(1),
        }
    }
}

impl WorkerCounters {
    pub(crate) fn store(&self, now: &Snapshot) {
        self.received.store(now.received, Ordering::Relaxed);
        self.sent.store(now.sent, Ordering::Relaxed);
        self.dropped.store(now.dropped, Ordering::Relaxed);
        self.keepalives.store(now.keepalives, Ordering::Relaxed);
        self.strangers_learnt.store(now.strangers_learnt, Ordering::Relaxed);
        self.copies_lost.store(now.copies_lost, Ordering::Relaxed);
        self.send_failed.store(now.send_failed, Ordering::Relaxed);
        self.unreachable.store(now.unreachable, Ordering::Relaxed);
        self.sessions.store(now.sessions, Ordering::Relaxed);
        self.ports_in_use.store(now.ports_in_use, Ordering::Relaxed);
        self.panicked.store(now.panicked, Ordering::Relaxed);
    }

    /// The reading of a description panicked.
    pub(crate) fn panicked(&self) {
        self.descriptions_panicked.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            received: self.received.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            keepalives: self.keepalives.load(Ordering::Relaxed),
            strangers_learnt: self.strangers_learnt.load(Ordering::Relaxed),
            copies_lost: self.copies_lost.load(Ordering::Relaxed),
            send_failed: self.send_failed.load(Ordering::Relaxed),
            unreachable: self.unreachable.load(Ordering::Relaxed),
            sessions: self.sessions.load(Ordering::Relaxed),
            ports_in_use: self.ports_in_use.load(Ordering::Relaxed),
            panicked: self
                .panicked
                .load(Ordering::Relaxed)
                .saturating_add(self.descriptions_panicked.load(Ordering::Relaxed)),
        }
    }
}
