//! The relay: its workers, and which of them a session lives on.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use media_core::Worker;
use media_core::ours::OpenPorts;
use media_core::path::memory::{Known, Pair, Record};
use media_core::worker::Settings;
use seam::{Action, ExchangeId, Request, SessionId};
use vitals::Vitals;

use crate::counters::{Snapshot, WorkerCounters};
use crate::event::{Command, Event};
use crate::poll::{Poll, Waker};
use crate::ports::{Ports, WAKE};
use crate::realm::RealmMedia;
use crate::reserve::Reservation;
use crate::steering::{Steering, Unavailable};
use crate::thread::Thread;

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
    /// Whether the ports of an address share a socket where the kernel allows it; otherwise each has its own.
    pub steering: bool,
    /// Where workers say that they live.
    pub vitals: Vitals,
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
    homes: Homes,
    threads: Mutex<Vec<JoinHandle<()>>>,
    is_steered: bool,
    /// Where the workers' time begins.
    origin: Instant,
}

/// Which worker a session lives on: the one that its number says, but for the further halves of a call that a proxy has led back to
/// us. Those live where the first one does, since only one worker can release them as one call. Ports are no matter: any worker
/// opens its own for whatever session.
#[derive(Debug, Default)]
struct Homes {
    open_ports: OpenPorts,
    elsewhere: Mutex<BTreeMap<u64, usize>>,
}

impl Homes {
    fn of(&self, session: SessionId, action: &Action, workers: usize) -> Option<usize> {
        let session = session.0;
        let by_number = session.checked_rem(workers as u64)? as usize;
        if workers == 1 {
            return Some(by_number);
        }
        let mut elsewhere = self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = elsewhere.get(&session).copied() {
            if matches!(action, Action::Delete) {
                elsewhere.remove(&session);
            }
            return Some(known);
        }
        // Only a session that begins is free to choose.
        let Action::Offer { exchange: ExchangeId::INITIAL, sdp, .. } = action else { return Some(by_number) };
        let Some(first) = self.open_ports.session_of(sdp).filter(|first| *first != session) else {
            return Some(by_number);
        };
        let home =
            elsewhere.get(&first).copied().or(first.checked_rem(workers as u64).map(|home| home as usize));
        let home = home.unwrap_or(by_number);
        if home != by_number {
            elsewhere.insert(session, home);
        }
        Some(home)
    }
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
        let (is_steered, ports) = all_ports(settings, count)?;
        let homes = Homes { open_ports: settings.sessions.open_ports.clone(), ..Homes::default() };
        let mut relay = Self { workers: Vec::new(), homes, threads: Mutex::default(), is_steered, origin };
        let mut threads = Vec::new();
        for (index, (ports, waker)) in ports.into_iter().enumerate() {
            let (commands, receiver) = channel();
            let counters = Arc::new(WorkerCounters::default());
            let thread = Thread {
                worker: Worker::new(settings.sessions.clone(), settings.cname.clone()),
                ports,
                commands: receiver,
                waker: waker.clone(),
                counters: counters.clone(),
                origin,
                tell: tell.clone(),
                numbers: Snapshot::default(),
            };
            let part = settings.vitals.part(format!("media {index}"));
            threads.push(
                std::thread::Builder::new()
                    .name(format!("media-{index}"))
                    .spawn(move || part.run(|pulse| thread.run(pulse)))?,
            );
            relay.workers.push(Handle { commands: Mutex::new(commands), waker, counters });
        }
        relay.threads = Mutex::new(threads);
        Ok(relay)
    }

    /// Hands a request to the session's worker; its reply, if it has one, comes with the same number.
    pub fn handle(&self, request: Request) {
        let index = self.homes.of(request.session, &request.action, self.workers.len());
        let Some(worker) = index.and_then(|index| self.workers.get(index)) else { return };
        // Held for a push only; the workers never take it.
        if let Ok(commands) = worker.commands.lock() {
            let _ = commands.send(Command::Do(Box::new(request)));
        }
        worker.waker.wake();
    }

    /// Tells every worker what the store knows: pairs, their failures in a row, and how long they still rest. It takes the place
    /// of what was told before.
    pub fn recall(&self, pairs: impl IntoIterator<Item = (Pair, u32, Duration)>) {
        let now = self.origin.elapsed();
        let records = pairs
            .into_iter()
            .map(|(pair, failures, rest)| (pair, Record { failures, until: now.saturating_add(rest) }));
        let known: Arc<Known> = Arc::new(records.collect());
        for worker in &self.workers {
            if let Ok(commands) = worker.commands.lock() {
                let _ = commands.send(Command::Recall(known.clone()));
            }
            worker.waker.wake();
        }
    }

    /// Whether the ports of an address share a socket per worker; if not, each has its own.
    pub fn is_steered(&self) -> bool {
        self.is_steered
    }

    /// What each worker counts.
    pub fn counters(&self) -> impl Iterator<Item = &WorkerCounters> {
        self.workers.iter().map(|worker| &*worker.counters)
    }
}

/// A worker's ports, and what wakes it.
type Ground = (Ports, Arc<Waker>);

/// Of every worker; and whether these ports are steered.
fn all_ports(settings: &RelaySettings, workers: usize) -> io::Result<(bool, Vec<Ground>)> {
    let open = |steering: Option<&Arc<Steering>>| {
        (0..workers)
            .map(|worker| {
                let waker = Arc::new(Waker::new()?);
                let poll = Poll::new()?;
                poll.add(waker.fd(), WAKE)?;
                Ok((Ports::new(&settings.realms, (worker, workers), steering, poll)?, waker))
            })
            .collect::<Result<Vec<_>, Unavailable>>()
    };
    if settings.steering {
        match steer(&settings.realms, workers).and_then(|steering| open(Some(&Arc::new(steering)))) {
            Ok(ports) => {
                tracing::info!("media ports are steered: those of an address share one socket per worker");
                return Ok((true, ports));
            }
            Err(reason @ Unavailable::Foreign(_)) => {
                tracing::error!(%reason, "no call can have media there: correct `media` of the realm, or give this machine the address and start anew; media ports are not steered");
            }
            Err(reason) => {
                tracing::warn!(%reason, "media ports are not steered: each opens a socket of its own, four a call, and forwarding costs more; media.steering = false says that this is meant");
            }
        }
    }
    Ok((false, open(None).map_err(io::Error::other)?))
}

fn steer(realms: &[RealmMedia], workers: usize) -> Result<Steering, Unavailable> {
    let ranges: Vec<_> = realms.iter().map(|realm| realm.ports.clone()).collect();
    let reservation = Reservation::make(&ranges).map_err(Unavailable::Reserve)?;
    let ports: usize =
        realms.iter().map(|realm| realm.addresses.len().saturating_mul(realm.ports.len())).sum();
    let addresses: usize = realms.iter().map(|realm| realm.addresses.len()).sum();
    let sockets = addresses.saturating_mul(workers).saturating_mul(2);
    Steering::attach(ports as u32, sockets as u32, Some(reservation))
}

impl Relay {
    /// Ends all sessions, and gives back what was taken from the system: ports, sockets, the program in the kernel, reservations. For
    /// who shares a relay with others that may hold it until the process ends.
    pub fn stop(&self) {
        for worker in &self.workers {
            if let Ok(commands) = worker.commands.lock() {
                let _ = commands.send(Command::Stop);
            }
            worker.waker.wake();
        }
        let Ok(mut threads) = self.threads.lock() else { return };
        for thread in threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a media worker panicked while it stopped");
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop();
    }
}
