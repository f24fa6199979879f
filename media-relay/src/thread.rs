//! One worker's life.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use media_core::Worker;
use media_core::session::Action;

use crate::batch::{self, BATCH, Batch};
use crate::counters::{Snapshot, WorkerCounters};
use crate::poll::Waker;
use crate::ports::{Ports, WAKE};
use crate::relay::Event;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Command {
    Do { session: u64, number: u32, action: Action },
    Stop,
}

pub(crate) struct Thread {
    pub(crate) worker: Worker,
    pub(crate) ports: Ports,
    pub(crate) commands: Receiver<Command>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) origin: Instant,
    pub(crate) tell: Arc<dyn Fn(Event) + Send + Sync>,
}

impl Thread {
    pub(crate) fn run(mut self) {
        let mut ready = Vec::with_capacity(512);
        let mut batch = Batch::new();
        let mut numbers = Snapshot::default();
        loop {
            let now = self.origin.elapsed();
            let timeout = self
                .worker
                .poll_timeout()
                .map_or(Duration::from_secs(3600), |due| due.saturating_sub(now) + Duration::from_millis(1));
            self.ports.poll().wait(timeout, &mut ready);
            let now = self.origin.elapsed();
            for token in &ready {
                if *token == WAKE {
                    if !self.obey(now) {
                        return;
                    }
                } else {
                    self.drain(*token as u32, &mut batch, &mut numbers, now);
                }
            }
            if self.worker.poll_timeout().is_some_and(|due| due <= now) {
                let tell = &self.tell;
                self.worker.handle_timeout(now, |session| tell(Event::Inactive { session }));
            }
            numbers.dropped = self.worker.dropped;
            numbers.sessions = self.worker.len() as u64;
            numbers.ports_in_use = self.ports.in_use;
            self.counters.store(&numbers);
        }
    }

    /// False: to stop.
    fn obey(&mut self, now: Duration) -> bool {
        self.waker.clear();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Stop => return false,
                Command::Do { session, number, action } => {
                    if let Some(reply) = self.worker.handle(session, action, now, &mut self.ports) {
                        (self.tell)(Event::Reply { session, number, reply });
                    }
                }
            }
        }
        true
    }

    fn drain(&mut self, socket: u32, batch: &mut Batch, numbers: &mut Snapshot, now: Duration) {
        let Some(fd) = self.ports.fd(socket) else { return };
        // One batch per turn, level-triggered: a flood on one port does not starve the others.
        let count = batch.receive(fd).min(BATCH);
        numbers.received += count as u64;
        for index in 0..count {
            let Some((source, packet)) = batch.get(index) else { continue };
            let ports = &self.ports;
            self.worker.packet(socket, source, packet, now, |out, to, bytes| {
                if ports.fd(out).is_some_and(|fd| batch::send(fd, to, bytes)) {
                    numbers.sent += 1;
                } else {
                    numbers.send_failed += 1;
                }
            });
        }
    }
}
