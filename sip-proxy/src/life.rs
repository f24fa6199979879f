//! The life of a shard's thread: its tasks, its inbox, its timer.

use std::cell::RefCell;
use std::rc::Rc;

use sip_engine::io::ListenerId;
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::datagrams;
use crate::link::Letter;
use crate::shard::{Ground, Shard};
use crate::udp::Endpoint;

/// Letters taken from the inbox before their outputs are carried out.
const LETTERS: usize = 64;

/// Sockets of one shard, bound before its thread starts, so that a failure stops the start.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) datagram: Vec<(usize, std::net::UdpSocket)>,
    pub(crate) stream: Vec<(usize, std::net::TcpListener)>,
}

/// All that a shard's thread takes along.
pub(crate) struct Part {
    pub(crate) ground: Ground,
    /// Of datagram listeners, by their number.
    pub(crate) sockets: Vec<(usize, std::net::UdpSocket)>,
    pub(crate) inbox: mpsc::Receiver<Letter>,
}

impl Part {
    /// The thread's life.
    pub(crate) fn run(self) {
        // The shard is a part from here on: without a runtime it has ended.
        let name = format!("signalling {}", self.ground.index);
        let (index, part) = (self.ground.index, self.ground.settings.vitals.part(name));
        let life = part.task(self.live());
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "signalling shard {}: no runtime; raise the limit on open files", index);
                return;
            }
        };
        LocalSet::new().block_on(&runtime, life);
    }

    async fn live(self) {
        let Part { ground, sockets, mut inbox } = self;
        let (index, settings) = (ground.index, &ground.settings);
        let rearm = Rc::new(Notify::new());
        let addresses: Vec<_> = settings.engine.listeners.iter().map(|listener| listener.address).collect();
        let vitals = settings.vitals.clone();
        let part = |what: &str, listener: usize| {
            let address = addresses.get(listener).map(|address| format!(" {address}")).unwrap_or_default();
            vitals.part(format!("signalling {index}: {what}{address}"))
        };
        let shard = Shard::new(ground, rearm.clone());

        for (listener, socket) in sockets {
            match UdpSocket::from_std(socket) {
                Ok(socket) => {
                    let (socket, blocked) = (Rc::new(socket), Rc::new(Notify::new()));
                    let id = listener_id(listener);
                    shard.borrow_mut().listen(listener, Endpoint::new(socket.clone(), blocked.clone()));
                    let writing = datagrams::write(socket.clone(), id, blocked, shard.clone());
                    tokio::task::spawn_local(vitals::belonging(writing));
                    let reading = datagrams::read(socket, id, shard.clone());
                    tokio::task::spawn_local(part("udp", listener).task(reading));
                }
                // Its phones would hear nothing.
                Err(error) => return tracing::error!(%error, "a datagram listener can't be polled"),
            }
        }
        let timer = vitals.part(format!("signalling {index}: timer"));
        tokio::task::spawn_local(timer.task(keep_time(shard.clone(), rearm)));

        let mut letters = Vec::with_capacity(LETTERS);
        while inbox.recv_many(&mut letters, LETTERS).await > 0 {
            let mut shard = shard.borrow_mut();
            shard.tick();
            for letter in letters.drain(..) {
                vitals::beat();
                if !shard.letter(letter) {
                    shard.settle();
                    return;
                }
            }
            shard.settle();
        }
    }
}

fn listener_id(index: usize) -> ListenerId {
    ListenerId(u16::try_from(index).unwrap_or(u16::MAX))
}

/// Wakes the engine at its next timeout, and sooner when an earlier one was set.
async fn keep_time(shard: Rc<RefCell<Shard>>, rearm: Rc<Notify>) {
    loop {
        let due = shard.borrow_mut().arm();
        match due {
            None => rearm.notified().await,
            Some((due, instant)) => {
                tokio::select! {
                    () = rearm.notified() => continue,
                    () = tokio::time::sleep_until(instant.into()) => {}
                }
                let mut shard = shard.borrow_mut();
                shard.tick();
                shard.timeout(due);
                shard.settle();
            }
        }
    }
}
