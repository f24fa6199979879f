//! The relay: its workers, and which of them a session lives on.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use media_core::Worker;
use media_core::session::{Action, Reply};
use media_core::worker::Settings;

use crate::counters::WorkerCounters;
use crate::poll::{Poll, Waker};
use crate::ports::{Ports, RealmMedia, WAKE};
use crate::thread::{Command, Thread};

/// How the relay is set up.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// Threads.
    pub workers: usize,
    /// Indexed by the realm numbers that sessions name.
    pub realms: Vec<RealmMedia>,
    /// Of every session.
    pub sessions: Settings,
    /// What RTCP says instead of the names of the ends.
    pub cname: String,
}

/// What the relay tells.
#[derive(Debug)]
pub enum Event {
    /// The reply to an action.
    Reply {
        /// Its session.
        session: u64,
        /// The action's number.
        number: u32,
        /// The reply.
        reply: Reply,
    },
    /// A session without packets.
    Inactive {
        /// Which.
        session: u64,
    },
}

/// Why the relay does not start.
#[derive(Debug, thiserror::Error)]
#[error("media workers can't be started: {0}; raise the limits on threads and open files")]
pub struct StartError(#[from] io::Error);

#[derive(Debug)]
struct Handle {
    commands: Mutex<Sender<Command>>,
    waker: Arc<Waker>,
    counters: Arc<WorkerCounters>,
}

/// The running relay. Dropping it ends all sessions.
#[derive(Debug)]
pub struct Relay {
    workers: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Starts the workers. `tell` is called on their threads and must not block.
    pub fn start(
        settings: &RelaySettings,
        tell: impl Fn(Event) + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let tell: Arc<dyn Fn(Event) + Send + Sync> = Arc::new(tell);
        let origin = Instant::now();
        let count = settings.workers.max(1);
        let mut relay = Self { workers: Vec::new(), threads: Vec::new() };
        for index in 0..count {
            let (commands, receiver) = channel();
            let waker = Arc::new(Waker::new()?);
            let poll = Poll::new()?;
            poll.add(waker.fd(), WAKE)?;
            let counters = Arc::new(WorkerCounters::default());
            let thread = Thread {
                worker: Worker::new(settings.sessions, settings.cname.clone()),
                ports: Ports::new(&settings.realms, index, count, poll),
                commands: receiver,
                waker: waker.clone(),
                counters: counters.clone(),
                origin,
                tell: tell.clone(),
            };
            relay.threads.push(
                std::thread::Builder::new().name(format!("media-{index}")).spawn(move || thread.run())?,
            );
            relay.workers.push(Handle { commands: Mutex::new(commands), waker, counters });
        }
        Ok(relay)
    }

    /// Hands an action to the session's worker; its reply, if it has one, comes with the same number.
    pub fn handle(&self, session: u64, number: u32, action: Action) {
        let Some(worker) = self.workers.get((session % self.workers.len().max(1) as u64) as usize) else {
            return;
        };
        // Held for a push only; the workers never take it.
        if let Ok(commands) = worker.commands.lock() {
            let _ = commands.send(Command::Do { session, number, action });
        }
        worker.waker.wake();
    }

    /// What each worker counts.
    pub fn counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.workers.iter().map(|worker| &*worker.counters)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        for worker in &self.workers {
            if let Ok(commands) = worker.commands.lock() {
                let _ = commands.send(Command::Stop);
            }
            worker.waker.wake();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media worker panicked; its calls had no media");
            }
        }
    }
}
