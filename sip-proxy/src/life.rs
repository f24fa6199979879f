//! The life of a shard's thread: its tasks, its inbox, its timer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use sip_engine::Engine;
use sip_engine::io::ListenerId;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::link::{Letter, ShardHandle};
use crate::plane::{Host, PlaneSettings};
use crate::shard::Shard;
use crate::stream::{self, Listening};
use crate::udp::{self, Endpoint};

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
    pub(crate) index: usize,
    pub(crate) settings: PlaneSettings,
    pub(crate) clock: Clock,
    pub(crate) sockets: Sockets,
    pub(crate) links: Vec<ShardHandle>,
    pub(crate) inbox: mpsc::Receiver<Letter>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) engine: Engine,
    pub(crate) host: Box<dyn Host + Send>,
}

impl Part {
    /// The thread's life.
    pub(crate) fn run(self) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "signalling shard {}: no runtime; raise the limit on open files", self.index);
                return;
            }
        };
        LocalSet::new().block_on(&runtime, self.live());
    }

    async fn live(self) {
        let Part { index, settings, clock, sockets, links, mut inbox, counters, engine, host } = self;
        let rearm = Rc::new(Notify::new());
        let shard = Shard::new(index, settings, clock, links, counters, engine, host, rearm.clone());

        for (listener, socket) in sockets.datagram {
            match UdpSocket::from_std(socket) {
                Ok(socket) => {
                    let socket = Rc::new(socket);
                    shard.borrow_mut().listen(listener, Endpoint::new(socket.clone()));
                    tokio::task::spawn_local(udp::read(socket, listener_id(listener), shard.clone()));
                }
                Err(error) => {
                    tracing::error!(%error, "a datagram listener can't be polled; its phones hear nothing")
                }
            }
        }
        for (listener, socket) in sockets.stream {
            match TcpListener::from_std(socket) {
                Ok(socket) => {
                    tokio::task::spawn_local(stream::accept(
                        Listening { socket, listener: listener_id(listener) },
                        shard.clone(),
                    ));
                }
                Err(error) => {
                    tracing::error!(%error, "a stream listener can't be polled; its phones can't connect")
                }
            }
        }
        tokio::task::spawn_local(keep_time(shard.clone(), rearm));

        let mut letters = Vec::with_capacity(LETTERS);
        while inbox.recv_many(&mut letters, LETTERS).await > 0 {
            let mut shard = shard.borrow_mut();
            shard.tick();
            for letter in letters.drain(..) {
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
