//! The door of a shard's stream listeners: a thread of its own on which connections are accepted and TLS handshakes are
//! made, ours and theirs. Only who has got through, and over TCP said a first octet, is handed to the shard.
//!
//! Until then nobody is anybody. So the thread yields to those that carry calls ([`NICENESS`]), places at the door are
//! bounded, and who holds most of them gives first ([`Crowd`]).

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use sip_engine::io::ListenerId;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{AbortHandle, LocalSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};

use super::crowd::Crowd;
use super::opened::{Accepted, Dial, Opened};
use super::socket::Socket;
use super::{HANDSHAKE, after, tune};
use crate::counters::ShardCounters;
use crate::link::{Letter, ShardHandle};
use crate::settings::PlaneSettings;
use crate::tls::TlsIdentity;

/// Above the program's own: of one core that is fully used, the door gets a quarter and a thread of calls the rest.
const NICENESS: i32 = 5;

/// How often handshakes that wait for their turn are let in.
const TURN: Duration = Duration::from_millis(10);

/// All that the door's thread takes along.
pub(crate) struct Door {
    pub(crate) index: usize,
    pub(crate) settings: PlaneSettings,
    pub(crate) sockets: Vec<(usize, std::net::TcpListener)>,
    pub(crate) shard: ShardHandle,
    pub(crate) counters: Arc<ShardCounters>,
    /// What the shard wants dialled; closed when the shard has ended.
    pub(crate) dials: mpsc::UnboundedReceiver<Dial>,
}

impl Door {
    /// The thread's life, which ends with the shard's.
    pub(crate) fn run(self) {
        // Of this thread alone. Where the system refuses it, the door is as important as calls are.
        let priority = rustix::process::getpriority_process(None).unwrap_or_default();
        let _ = rustix::process::setpriority_process(None, priority.saturating_add(NICENESS));
        let name = format!("signalling {}: door", self.index);
        let part = self.settings.vitals.part(name);
        let life = part.task(self.live());
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "the door of stream listeners has no runtime; raise the limit on open files");
                return;
            }
        };
        LocalSet::new().block_on(&runtime, life);
    }

    async fn live(self) {
        let Self { index, settings, sockets, shard, counters, mut dials } = self;
        let hall = Rc::new(Hall {
            shard,
            counters,
            turns: Semaphore::new(0),
            waiting: RefCell::new(Waiting::new(&settings)),
        });
        for (place, socket) in sockets {
            let listener = settings.listeners.get(place).cloned().unwrap_or_default();
            let Ok(id) = u16::try_from(place).map(ListenerId) else { continue };
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    let address =
                        socket.local_addr().map(|address| format!(" {address}")).unwrap_or_default();
                    let part = settings.vitals.part(format!("signalling {index}: tcp{address}"));
                    tokio::task::spawn_local(part.task(accept(socket, id, listener, hall.clone())));
                }
                // Its phones could not connect.
                Err(error) => return tracing::error!(%error, "a stream listener can't be polled"),
            }
        }
        if settings.listeners.iter().any(|listener| listener.tls.is_some()) {
            let part = settings.vitals.part(format!("signalling {index}: turns of handshakes"));
            tokio::task::spawn_local(part.task(give_turns(settings.handshakes_per_second, hall)));
        }
        while let Some(dial) = dials.recv().await {
            tokio::task::spawn_local(vitals::belonging(async move {
                let Dial { local, remote, name, tls, done } = dial;
                let opened = async {
                    let stream = super::dial::connect(local, remote).await?;
                    let handshake = tls.connector().connect(name, Socket::new(stream));
                    Opened::tls(timeout(HANDSHAKE, handshake).await??)
                };
                let _ = done.send(opened.await);
            }));
        }
    }
}

/// What the tasks of a door share.
struct Hall {
    shard: ShardHandle,
    counters: Arc<ShardCounters>,
    /// Handshakes that may begin.
    turns: Semaphore,
    waiting: RefCell<Waiting>,
}

/// Who is at the door.
struct Waiting {
    next: u64,
    all: Crowd,
    /// Of them those whose handshake has not begun: as many as have their turn within half a second.
    shaking: Crowd,
    tasks: AHashMap<u64, AbortHandle>,
}

impl Waiting {
    fn new(settings: &PlaneSettings) -> Self {
        let turns = (settings.handshakes_per_second / 2).max(1);
        Self {
            next: 0,
            all: Crowd::new(settings.connections_unproven, settings.connections_per_source),
            shaking: Crowd::new(turns, turns),
            tasks: AHashMap::new(),
        }
    }
}

impl Hall {
    /// A place at the door; who had it is sent away.
    fn enter(self: &Rc<Self>, source: IpAddr) -> Place {
        let mut waiting = self.waiting.borrow_mut();
        let number = waiting.next;
        waiting.next = number.wrapping_add(1);
        let victim = waiting.all.enter(source, number);
        let task = victim.and_then(|victim| waiting.tasks.remove(&victim));
        drop(waiting);
        self.send_away(task);
        self.counters.streams.open.up();
        Place { hall: self.clone(), number, source }
    }

    fn send_away(&self, task: Option<AbortHandle>) {
        if let Some(task) = task {
            self.counters.streams.evicted.up();
            task.abort();
        }
    }

    fn hand_over(&self, accepted: Accepted) {
        if !self.shard.send(Letter::Accepted(Box::new(accepted))) {
            self.counters.streams.refused.up();
        }
    }
}

/// Somebody's place at the door, free again when this is dropped.
struct Place {
    hall: Rc<Hall>,
    number: u64,
    source: IpAddr,
}

impl Place {
    /// Waits for the turn of this one's handshake.
    async fn turn(&self) {
        let victim = {
            let mut waiting = self.hall.waiting.borrow_mut();
            let victim = waiting.shaking.enter(self.source, self.number);
            victim.and_then(|victim| waiting.tasks.remove(&victim))
        };
        self.hall.send_away(victim);
        if let Ok(turn) = self.hall.turns.acquire().await {
            turn.forget();
        }
        self.hall.waiting.borrow_mut().shaking.leave(self.source, self.number);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.hall.waiting.borrow_mut();
        waiting.all.leave(self.source, self.number);
        waiting.shaking.leave(self.source, self.number);
        waiting.tasks.remove(&self.number);
        self.hall.counters.streams.open.down();
    }
}

/// Lets handshakes begin, so many a second, at most a fifth of them at once after a pause.
async fn give_turns(per_second: usize, hall: Rc<Hall>) {
    let mut ticks = interval(TURN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let most = (per_second / 5).max(1);
    let (mut last, mut owed) = (Instant::now(), 0.0);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        owed += now.duration_since(last).as_secs_f64() * per_second as f64;
        last = now;
        let due = (owed as usize).min(most.saturating_sub(hall.turns.available_permits()));
        owed = (owed - due as f64).clamp(0.0, 1.0);
        hall.turns.add_permits(due);
    }
}

/// Takes connections until the shard ends.
async fn accept(
    socket: TcpListener,
    listener: ListenerId,
    settings: crate::settings::ListenerSettings,
    hall: Rc<Hall>,
) {
    loop {
        let (stream, remote) = match socket.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: what is open goes on, and a moment later there may be room.
                tracing::warn!(%error, "a connection can't be accepted; raise the limit on open files");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let source = remote.ip().to_canonical();
        if settings.filter.denies(source) {
            hall.counters.dropped.denied.up();
            continue;
        }
        let place = hall.enter(source);
        let (number, tls) = (place.number, settings.tls.clone());
        let task = tokio::task::spawn_local(vitals::belonging(async move {
            let since = Instant::now();
            tune(&stream);
            let opened = match tls {
                None => speaks(stream, since, &place.hall.counters).await,
                Some(tls) => shake_hands(stream, &tls, since, &place).await,
            };
            let hall = place.hall.clone();
            // The place is given back before the shard counts the connection as its own.
            drop(place);
            if let Some(opened) = opened {
                hall.hand_over(Accepted { listener, remote, opened, since: Instant::now() });
            }
        }));
        hall.waiting.borrow_mut().tasks.insert(number, task.abort_handle());
    }
}

/// Waits for the first octet: who says nothing costs the shard nothing.
async fn speaks(stream: TcpStream, since: Instant, counters: &ShardCounters) -> Option<Opened> {
    match timeout_at(after(since, HANDSHAKE), stream.peek(&mut [0])).await {
        Ok(Ok(1..)) => stream.into_std().ok().map(Opened::Clear),
        Ok(_) => None,
        Err(_) => {
            counters.streams.idle.up();
            None
        }
    }
}

/// The session, once the handshake is done.
async fn shake_hands(stream: TcpStream, tls: &TlsIdentity, since: Instant, place: &Place) -> Option<Opened> {
    let handshake = async {
        // Who knocks and says nothing waits for no turn.
        stream.readable().await?;
        place.turn().await;
        Opened::tls(tls.acceptor().accept(Socket::new(stream)).await?)
    };
    match timeout_at(after(since, HANDSHAKE), handshake).await {
        Ok(Ok(opened)) => Some(opened),
        Ok(Err(_)) | Err(_) => {
            place.hall.counters.streams.handshakes_failed.up();
            None
        }
    }
}
