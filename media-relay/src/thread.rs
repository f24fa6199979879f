//! One worker's life.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use media_core::Worker;
use media_core::worker::Arrival;
use seam::{Refusal, Replied, Reply, Request, SessionId, Told};
use vitals::Pulse;

use crate::batch::{BATCH, Batch};
use crate::counters::{Snapshot, WorkerCounters};
use crate::event::{Command, Event};
use crate::poll::{self, Waker};
use crate::ports::{Ports, SHARED, STRANGERS, WAKE};
use crate::reading::{is_readable, is_sayable};

/// From so many packets in a [`WINDOW`] on, waking for each of them would cost more than forwarding it: 20,000 a second.
const BUSY: u64 = 200;
const WINDOW: Duration = Duration::from_millis(10);
/// How long packets gather then: a twentieth of the 20 ms that one of them holds.
const REST: Duration = Duration::from_millis(1);
/// With so many ports ready, a port's second packet waits for the next pass: to look for it costs a fifth of a forwarded packet.
const MANY: usize = 32;
/// Batches of a shared socket at a time; then what has been forwarded leaves, and commands get their turn.
const TURNS: usize = 4;
/// A worker with nothing to do says so often that it lives.
const BEAT: Duration = Duration::from_millis(250);
/// Of a socket with one port: what a call may have waiting.
const FEW: usize = 16;

/// Whether packets come fast enough to let them gather.
#[derive(Debug, Default)]
struct Pace {
    since: Duration,
    before: u64,
    is_busy: bool,
}

impl Pace {
    /// With all packets so far, before each wait.
    fn is_busy(&mut self, received: u64, now: Duration) -> bool {
        if now >= self.since.saturating_add(WINDOW) {
            self.is_busy = received.saturating_sub(self.before) >= BUSY;
            (self.since, self.before) = (now, received);
        }
        self.is_busy
    }
}

pub(crate) struct Thread {
    pub(crate) worker: Worker,
    pub(crate) ports: Ports,
    pub(crate) commands: Receiver<Command>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) origin: Instant,
    pub(crate) tell: Arc<dyn Fn(Event) + Send + Sync>,
    pub(crate) numbers: Snapshot,
}

impl Thread {
    pub(crate) fn run(mut self, pulse: &Pulse) {
        let mut ready = Vec::with_capacity(512);
        let mut batch = Batch::new();
        let mut pace = Pace::default();
        poll::sharpen_timers();
        let mut now = self.origin.elapsed();
        while pulse.beat() {
            let timeout = self.worker.poll_timeout().map_or(BEAT, |due| {
                BEAT.min(due.saturating_sub(now).saturating_add(Duration::from_millis(1)))
            });
            if pace.is_busy(self.numbers.received, now) {
                // Whatever is ready goes first: a worker that is behind never rests.
                self.ports.poll().wait(Duration::ZERO, &mut ready);
                if ready.is_empty() {
                    poll::rest(REST.min(timeout));
                    self.ports.poll().wait(timeout, &mut ready);
                }
            } else {
                self.ports.poll().wait(timeout, &mut ready);
            }
            now = self.origin.elapsed();
            let limit = if ready.len() < MANY { FEW } else { 1 };
            let mut is_woken = false;
            for token in &ready {
                if *token == WAKE {
                    is_woken = true;
                } else if *token >= STRANGERS {
                    // Their turn comes last.
                } else if *token >= SHARED {
                    self.drain_shared((*token & !SHARED) as usize, &mut batch, now);
                } else {
                    self.drain(*token as u32, limit, &mut batch, now);
                }
            }
            for token in ready.iter().filter(|token| **token >= STRANGERS && **token != WAKE) {
                self.drain_strangers((*token & !STRANGERS) as usize, &mut batch, now);
            }
            self.transmit();
            self.ports.flush(&mut self.numbers);
            // After the packets: those of a call came before its end.
            if is_woken && !self.obey(now) {
                return;
            }
            if self.worker.poll_timeout().is_some_and(|due| due <= now) {
                self.worker.handle_timeout(now, &mut self.ports);
                self.transmit();
                self.ports.flush(&mut self.numbers);
            }
            self.tell_events();
            self.count();
        }
    }

    fn count(&mut self) {
        let numbers = &mut self.numbers;
        numbers.dropped = self.worker.dropped.saturating_add(self.ports.flooded);
        numbers.keepalives = self.worker.keepalives;
        numbers.strangers_learnt = self.worker.strangers_learnt;
        numbers.copies_lost = self.worker.unheard_copies();
        numbers.sessions = self.worker.len() as u64;
        numbers.ports_in_use = self.ports.in_use;
        self.counters.store(numbers);
    }

    /// False: to stop.
    fn obey(&mut self, now: Duration) -> bool {
        self.waker.clear();
        while let Ok(command) = self.commands.try_recv() {
            vitals::beat();
            match command {
                Command::Stop => return false,
                Command::Recall(known) => self.worker.recall(known),
                Command::Do(request) if !is_sayable(&request.action) => {
                    self.counters.panicked();
                    let reply = Reply::Description(Err(Refusal::Malformed));
                    let Request { session, number, .. } = *request;
                    (self.tell)(Event::Reply(Replied { session, number, reply }));
                }
                Command::Do(request) => {
                    let Request { session, number, action } = *request;
                    let reply = self.worker.handle(session.0, action, now, &mut self.ports);
                    for socket in self.worker.sockets(session.0) {
                        self.ports.expect(socket, self.worker.expected(socket));
                    }
                    // What led to a reply comes before it: the last count of a call closes its record.
                    self.tell_events();
                    if let Some(reply) = reply {
                        (self.tell)(Event::Reply(Replied { session, number, reply }));
                    }
                }
            }
        }
        true
    }

    fn transmit(&mut self) {
        while let Some((out, to, bytes)) = self.worker.poll_transmit() {
            self.ports.send(out, to, &bytes, &mut self.numbers);
        }
    }

    fn tell_events(&mut self) {
        while let Some(copy) = self.worker.poll_overheard() {
            (self.tell)(Event::Overheard(copy));
        }
        while let Some((session, event)) = self.worker.poll_event() {
            (self.tell)(Event::Told(Told { session: SessionId(session), event }));
        }
        while let Some(outcome) = self.worker.poll_outcome() {
            (self.tell)(Event::Moved(outcome));
        }
    }

    /// Of a port that has a socket of its own.
    fn drain(&mut self, socket: u32, limit: usize, batch: &mut Batch, now: Duration) {
        let Some(fd) = self.ports.fd(socket) else { return };
        // One batch per turn, level-triggered: a flood on one port does not starve the others.
        let count = batch.receive(fd, limit);
        let before = self.worker.dropped;
        self.numbers.received = self.numbers.received.saturating_add(count as u64);
        for index in 0..count {
            if let Some((source, packet)) = batch.get(index) {
                self.forward(socket, source, packet, now);
            }
        }
        let strangers = self.worker.dropped.saturating_sub(before);
        if strangers > 0 || self.ports.is_sieved(socket) {
            self.ports.expect(socket, self.worker.expected(socket));
            self.ports.suffer(socket, strangers, now);
        }
    }

    /// Of a socket that the ports of an address share.
    fn drain_shared(&mut self, pool: usize, batch: &mut Batch, now: Duration) {
        let Some((fd, _)) = self.ports.shared_fds(pool) else { return };
        for _ in 0..TURNS {
            let count = batch.receive(fd, BATCH);
            self.numbers.received = self.numbers.received.saturating_add(count as u64);
            for index in 0..count {
                let Some((source, packet)) = batch.get(index) else { continue };
                match self.steered(pool, batch, index) {
                    Some(socket) => {
                        self.forward(socket, source, packet, now);
                        if self.ports.expects_more_than_one(socket) {
                            self.ports.expect(socket, self.worker.expected(socket));
                        }
                    }
                    None => self.worker.dropped = self.worker.dropped.saturating_add(1),
                }
            }
            if count < BATCH {
                break;
            }
        }
    }

    /// What came to the ports of an address from whom they do not expect: one batch a turn, after everything else. A party whose NAT
    /// has moved it is among them, and expected as soon as it has been heard.
    fn drain_strangers(&mut self, pool: usize, batch: &mut Batch, now: Duration) {
        let Some((_, fd)) = self.ports.shared_fds(pool) else { return };
        let count = batch.receive(fd, BATCH);
        self.numbers.received = self.numbers.received.saturating_add(count as u64);
        for index in 0..count {
            let Some((source, packet)) = batch.get(index) else { continue };
            match self.steered(pool, batch, index) {
                Some(socket) => {
                    self.forward(socket, source, packet, now);
                    self.ports.expect(socket, self.worker.expected(socket));
                }
                None => self.worker.dropped = self.worker.dropped.saturating_add(1),
            }
        }
    }

    /// The socket that a packet of a shared one is for: none if its call has ended since it came.
    #[inline]
    fn steered(&self, pool: usize, batch: &Batch, index: usize) -> Option<u32> {
        self.ports.steered(pool, batch.destination(index)?.port())
    }

    #[inline]
    fn forward(&mut self, socket: u32, source: SocketAddr, packet: &[u8], now: Duration) {
        if !is_readable(packet) {
            self.numbers.panicked = self.numbers.panicked.saturating_add(1);
            return;
        }
        let (ports, numbers) = (&mut self.ports, &mut self.numbers);
        let arrival = Arrival { socket, source, now };
        self.worker.packet(arrival, packet, |out, to, bytes| ports.send(out, to, bytes, numbers));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_gather_only_while_many_come() {
        let mut pace = Pace::default();
        let (mut received, mut now) = (0, Duration::ZERO);
        let mut run = |per_millisecond: u64| {
            (0..100)
                .filter(|_| {
                    received += per_millisecond;
                    now += Duration::from_millis(1);
                    pace.is_busy(received, now)
                })
                .count()
        };
        assert_eq!(run(10), 0, "10,000 a second are served as they come");
        assert!(run(50) > 80);
        assert!(run(10) < 20);
    }
}
