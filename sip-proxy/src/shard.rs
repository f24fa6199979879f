//! One shard: a thread, an engine, its sockets.
//!
//! Tasks of the thread borrow the shard for the length of one step and never across an await, so that nothing is
//! locked and everything an input causes is carried out before the next one is looked at.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip_engine::Engine;
use sip_engine::io::{ConnectionId, Flow, Input, ListenerId, Output, Transport};
use sip_engine::slot::slot_of;
use sip_wire::Message;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::filter::{Filter, FilterSettings, Verdict};
use crate::link::{Letter, ShardHandle, Transmission, owner};
use crate::plane::{Host, PlaneSettings};
use crate::stream::{self, Connections, Listening, Outgoing};
use crate::udp;

/// Letters taken from the inbox before their outputs are carried out.
const LETTERS: usize = 64;

/// Outputs and the inputs that answer them at once are worked off in turns; this many turns without an end would be a
/// loop between engine and host.
const TURNS: usize = 10_000;

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
    pub(crate) inbox: mpsc::UnboundedReceiver<Letter>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) engine: Engine,
    pub(crate) host: Box<dyn Host + Send>,
}

pub(crate) struct Shard {
    pub(crate) index: usize,
    pub(crate) settings: PlaneSettings,
    pub(crate) clock: Clock,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) connections: Connections,
    engine: Engine,
    host: Box<dyn Host + Send>,
    links: Vec<ShardHandle>,
    datagram: Vec<Option<Rc<UdpSocket>>>,
    filters: Vec<Filter>,
    armed: Option<Duration>,
    rearm: Rc<Notify>,
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
        let listeners = settings.engine.listeners.len();
        let filters = (0..listeners)
            .map(|listener| {
                let filter = settings.listeners.get(listener).map(|listener| listener.filter.clone());
                Filter::new(filter.unwrap_or_else(FilterSettings::default))
            })
            .collect();
        let rearm = Rc::new(Notify::new());
        let shard = Rc::new(RefCell::new(Shard {
            index,
            clock,
            counters,
            connections: Connections::new(index, settings.connections),
            engine,
            host,
            links,
            datagram: vec![None; listeners],
            filters,
            armed: None,
            rearm: rearm.clone(),
            settings,
        }));
        shard.borrow_mut().connections.belong_to(&shard);

        for (listener, socket) in sockets.datagram {
            match UdpSocket::from_std(socket) {
                Ok(socket) => {
                    let socket = Rc::new(socket);
                    shard.borrow_mut().datagram[listener] = Some(socket.clone());
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
            for letter in letters.drain(..) {
                match letter {
                    Letter::Input(input) => shard.input(*input),
                    Letter::Transmit(transmission) => shard.transmit(transmission),
                    Letter::Close(connection) => shard.connections.close(connection),
                    Letter::Stop => return,
                }
            }
            shard.settle();
        }
    }
}

/// Wakes the engine at its next timeout, and sooner when an earlier one was set.
async fn keep_time(shard: Rc<RefCell<Shard>>, rearm: Rc<Notify>) {
    loop {
        let due = {
            let mut shard = shard.borrow_mut();
            let due = shard.engine.poll_timeout();
            shard.armed = due;
            due.map(|due| shard.clock.instant(due))
        };
        match due {
            None => rearm.notified().await,
            Some(due) => {
                tokio::select! {
                    () = rearm.notified() => continue,
                    () = tokio::time::sleep_until(due.into()) => {}
                }
                let mut shard = shard.borrow_mut();
                let now = shard.clock.now();
                shard.engine.handle_timeout(now);
                shard.settle();
            }
        }
    }
}

fn listener_id(index: usize) -> ListenerId {
    ListenerId(u16::try_from(index).unwrap_or(u16::MAX))
}

impl Shard {
    /// The filter's word on a message, counted. Keepalives over UDP (RFC 5626 §4.4.1 asks for STUN, phones send CRLF)
    /// end here.
    pub(crate) fn admits(&mut self, listener: ListenerId, source: SocketAddr, datagram: &[u8]) -> bool {
        if datagram.len() <= 4 && datagram.iter().all(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            self.counters.keepalives.up();
            return false;
        }
        self.admits_source(listener, source)
    }

    /// The filter's word on a source, counted.
    pub(crate) fn admits_source(&mut self, listener: ListenerId, source: SocketAddr) -> bool {
        let now = self.clock.now().monotonic;
        let Some(filter) = self.filters.get_mut(usize::from(listener.0)) else { return false };
        match filter.judge(source.ip(), now) {
            Verdict::Pass => true,
            Verdict::Denied => {
                self.counters.denied.up();
                false
            }
            Verdict::Limited => {
                self.counters.limited.up();
                false
            }
        }
    }

    pub(crate) fn datagram(&mut self, listener: ListenerId, source: SocketAddr, datagram: Bytes) {
        let flow = Flow { listener, transport: Transport::Udp, remote: source, connection: None };
        match Message::parse(datagram) {
            Ok(message) => self.received(flow, message),
            Err(refused) => {
                self.counters.refused.up();
                self.input(Input::Refused { flow, refused });
            }
        }
    }

    /// To the engine, here or in the shard that is the message's home.
    pub(crate) fn received(&mut self, flow: Flow, message: Message) {
        self.counters.received.up();
        let home = if self.links.len() == 1 {
            self.index
        } else {
            usize::from(slot_of(&message).number()) % self.links.len()
        };
        let input = Input::Received { flow, message };
        if home == self.index {
            self.input(input);
        } else if let Some(link) = self.links.get(home) {
            self.counters.forwarded.up();
            link.input(input);
        }
    }

    pub(crate) fn input(&mut self, input: Input) {
        let now = self.clock.now();
        self.engine.handle(input, now);
    }

    /// A connection of this shard is gone: every engine may hold a flow over it.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        for (index, link) in self.links.iter().enumerate() {
            if index != self.index {
                link.input(Input::Closed { connection });
            }
        }
        self.input(Input::Closed { connection });
    }

    /// Carries out all outputs, in order, and sees to the timer.
    pub(crate) fn settle(&mut self) {
        let mut turns = 0;
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { flow, server_name, message, ticket } => {
                    let transmission =
                        Transmission { flow, server_name, message, ticket, sender: self.index };
                    self.send(transmission);
                }
                Output::Close(connection) => match owner(connection) {
                    home if home == self.index => self.connections.close(connection),
                    home => {
                        if let Some(link) = self.links.get(home) {
                            link.send(Letter::Close(connection));
                        }
                    }
                },
                other => {
                    let now = self.clock.now();
                    if let Some(input) = self.host.carry_out(other, now) {
                        self.engine.handle(input, now);
                    }
                }
            }
            turns += 1;
            if turns == TURNS {
                tracing::error!("{TURNS} outputs from one input; the rest waits for the next");
                break;
            }
        }
        let due = self.engine.poll_timeout();
        if due.is_some_and(|due| self.armed.is_none_or(|armed| due < armed)) {
            self.rearm.notify_one();
        }
        let (calls, transactions, bindings) = self.engine.sizes();
        self.counters.calls.set(calls as u64);
        self.counters.transactions.set(transactions as u64);
        self.counters.bindings.set(bindings as u64);
    }

    fn send(&mut self, transmission: Transmission) {
        self.counters.sent.up();
        if transmission.flow.transport == Transport::Udp {
            self.send_datagram(transmission);
            return;
        }
        let home = transmission.flow.connection.map_or(self.index, owner);
        if home == self.index {
            self.transmit(transmission);
        } else if let Some(link) = self.links.get(home) {
            link.send(Letter::Transmit(transmission));
        }
    }

    /// Over a connection that this shard owns or opens.
    pub(crate) fn transmit(&mut self, transmission: Transmission) {
        let Transmission { flow, server_name, message, ticket, sender } = transmission;
        let outgoing = Outgoing { message, ticket, sender };
        if let Err(outgoing) = self.connections.send(flow, server_name, outgoing, &self.settings) {
            self.failed(outgoing.ticket, outgoing.sender);
        }
    }

    fn send_datagram(&mut self, transmission: Transmission) {
        let Transmission { flow, message, ticket, sender, .. } = transmission;
        let Some(Some(socket)) = self.datagram.get(usize::from(flow.listener.0)) else {
            return self.failed(ticket, sender);
        };
        match socket.try_send_to(&message, flow.remote) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let socket = socket.clone();
                // Rare (a full send buffer); the datagram goes when there is room, or its retransmission does.
                tokio::task::spawn_local(async move {
                    let _ = socket.send_to(&message, flow.remote).await;
                });
            }
            Err(_) => self.failed(ticket, sender),
        }
    }

    /// Tells the engine that sent it, which may be another shard's.
    pub(crate) fn failed(&mut self, ticket: sip_engine::io::Ticket, sender: usize) {
        self.counters.send_failed.up();
        if let Some(link) = self.links.get(sender) {
            // Always by letter: a failure inside `settle` must not enter the engine before the outputs ahead of it.
            link.input(Input::SendFailed { ticket });
        }
    }
}
