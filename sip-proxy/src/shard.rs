//! One shard: an engine, its sockets, and the way of a message between them.
//!
//! Tasks of the thread borrow the shard for the length of one step and never across an await, so that nothing is
//! locked and everything an input causes is carried out before the next one is looked at.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sip_engine::Engine;
use sip_engine::digest::home_of;
use sip_engine::io::{
    Command, ConnectionId, Flow, Input, ListenerId, Load, Notice, Output, Replica, Ticket, Transport,
};
use sip_engine::question::Policy;
use sip_engine::registrar::BindingChange;
use sip_engine::slot::{Slot, replaced_slot, slot_of};
use sip_engine::time::Now;
use sip_wire::Message;
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::filter::Filter;
use crate::held::Held;
use crate::host::Host;
use crate::link::{Arrival, Letter, ShardHandle, Transmission};
use crate::overload::Overload;
use crate::settings::PlaneSettings;
use crate::spread::{owner, shard_of};
use crate::stream::opened::Dial;
use crate::stream::{Connections, Outgoing};
use crate::udp::{Datagram, Endpoint, Flushed};

/// Outputs and the inputs that answer them at once are worked off in turns; this many turns without an end would be a
/// loop between engine and host.
const TURNS: usize = 10_000;

/// The ticket of what no engine waits for.
pub(crate) const NOBODY: Ticket = Ticket(u64::MAX);

pub(crate) struct Shard {
    index: usize,
    pub(crate) settings: PlaneSettings,
    time: Time,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) connections: Connections,
    pub(crate) filters: Vec<Filter>,
    /// The engine's too; the filter asks it who is a trunk.
    pub(crate) policy: Option<Arc<dyn Policy>>,
    engine: Engine,
    host: Box<dyn Host + Send>,
    links: Vec<ShardHandle>,
    /// To the door: TLS connections to be opened.
    pub(crate) dials: mpsc::UnboundedSender<Dial>,
    endpoints: Vec<Option<Endpoint>>,
    pace: Pace,
    held: Held,
    alarm: Alarm,
}

/// The clock, and what it said at the begin of this step.
struct Time {
    clock: Clock,
    now: Now,
}

/// How far behind the shard is, and what its engine was told of it.
struct Pace {
    overload: Overload,
    load: Load,
}

/// The engine's next timeout, as far as the task that waits for it knows.
struct Alarm {
    armed: Option<Duration>,
    rearm: Rc<Notify>,
}

/// All that a shard is made of.
pub(crate) struct Ground {
    pub(crate) index: usize,
    pub(crate) settings: PlaneSettings,
    pub(crate) clock: Clock,
    pub(crate) links: Vec<ShardHandle>,
    /// The way to the door.
    pub(crate) dials: mpsc::UnboundedSender<Dial>,
    pub(crate) counters: Arc<ShardCounters>,
    pub(crate) engine: Engine,
    pub(crate) host: Box<dyn Host + Send>,
}

impl Shard {
    pub(crate) fn new(ground: Ground, rearm: Rc<Notify>) -> Rc<RefCell<Self>> {
        let Ground { index, settings, clock, links, dials, counters, mut engine, host } = ground;
        engine.set_home(Slot::new(u16::try_from(index).unwrap_or_default()));
        let listeners = settings.engine.listeners.len();
        let filters = (0..listeners)
            .map(|listener| {
                let filter = settings.listeners.get(listener).map(|listener| listener.filter.clone());
                Filter::new(filter.unwrap_or_default(), seed())
            })
            .collect();
        Rc::new_cyclic(|me| {
            RefCell::new(Self {
                index,
                time: Time { clock, now: clock.now() },
                counters,
                connections: Connections::new(index, &settings, me.clone()),
                filters,
                policy: None,
                engine,
                host,
                links,
                dials,
                endpoints: (0..listeners).map(|_| None).collect(),
                pace: Pace { overload: Overload::new(listeners), load: Load::Fine },
                held: Held::default(),
                alarm: Alarm { armed: None, rearm },
                settings,
            })
        })
    }

    /// A datagram socket is ready for use.
    pub(crate) fn listen(&mut self, listener: usize, endpoint: Endpoint) {
        if let Some(place) = self.endpoints.get_mut(listener) {
            *place = Some(endpoint);
        }
    }

    pub(crate) fn endpoint(&mut self, listener: ListenerId) -> Option<&mut Endpoint> {
        self.endpoints.get_mut(usize::from(listener.0))?.as_mut()
    }

    /// Reads the clocks: at the begin of each step, for all that is done in it.
    pub(crate) fn tick(&mut self) {
        self.time.now = self.time.clock.now();
    }

    pub(crate) fn now(&self) -> Now {
        self.time.now
    }

    /// A letter from the inbox; false means that the shard shall stop.
    pub(crate) fn letter(&mut self, letter: Letter) -> bool {
        match letter {
            Letter::Input(input) => match *input {
                Input::Received { flow, message } => self.received(Arrival { flow, message, verdict: None }),
                Input::Command(command) => self.command(command),
                input => self.input(input),
            },
            Letter::Judge { back, mut arrival } => {
                arrival.verdict = Some(self.engine.judge(&arrival.flow, &arrival.message, self.time.now));
                if let Some(link) = self.links.get(back) {
                    link.send(Letter::Judged { arrival });
                }
            }
            Letter::Judged { arrival } => self.received(*arrival),
            Letter::Join { back, arrival } => {
                let end = self.engine.end_for(&arrival.message);
                if let Some(link) = self.links.get(back) {
                    link.send(Letter::Joined { end: end.map(Box::new), arrival });
                }
            }
            Letter::Joined { end, arrival } => {
                if let Some(end) = end {
                    self.input(Input::Replicate(*end));
                }
                self.arrived(*arrival);
            }
            Letter::Transmit(transmission) => self.transmit(*transmission),
            Letter::Close(connection) => self.connections.close(connection),
            Letter::Accepted(accepted) => self.accepted(*accepted),
            Letter::Proven(connection) => self.connections.proven(connection),
            // Whenever outputs were carried out it is looked.
            Letter::LookAgain => {}
            Letter::Stop => {
                for transmission in self.held.take() {
                    self.send(transmission);
                }
                return false;
            }
        }
        true
    }

    /// To the engine, here or in the shard that is the message's home.
    pub(crate) fn deliver(&mut self, flow: Flow, message: Message) {
        if self.links.len() == 1 {
            return self.input(Input::Received { flow, message });
        }
        let home = shard_of(slot_of(&message), self.links.len());
        if home == self.index {
            self.received(Arrival { flow, message, verdict: None });
        } else if let Some(link) = self.links.get(home) {
            self.counters.forwarded.up();
            link.input(Input::Received { flow, message });
        }
    }

    /// A message of this home. One whose credentials answer a nonce of another home waits until that home has judged
    /// them; one that would replace a dialog of another home, until that home has said what it is.
    fn received(&mut self, arrival: Arrival) {
        let shards = self.links.len();
        let elsewhere = |slot: Slot| {
            let home = shard_of(slot, shards);
            self.links.get(home).filter(|_| home != self.index)
        };
        if shards > 1 {
            let judge = home_of(&arrival.message).filter(|_| arrival.verdict.is_none()).and_then(elsewhere);
            if let Some(link) = judge {
                link.send(Letter::Judge { back: self.index, arrival: Box::new(arrival) });
                return;
            }
            if let Some(link) = replaced_slot(&arrival.message).and_then(elsewhere) {
                link.send(Letter::Join { back: self.index, arrival: Box::new(arrival) });
                return;
            }
        }
        self.arrived(arrival);
    }

    fn arrived(&mut self, arrival: Arrival) {
        let Arrival { flow, message, verdict } = arrival;
        self.input(match verdict {
            Some(verdict) => Input::Judged { flow, message, verdict },
            None => Input::Received { flow, message },
        });
    }

    fn command(&mut self, command: Command) {
        let shards = self.links.len();
        let command = match command {
            Command::Policy(policy) => {
                self.policy = Some(policy.clone());
                Command::Policy(policy)
            }
            Command::Load(records) => {
                let (own, others): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| {
                    shard_of(Slot::of_bytes(record.aor.as_bytes()), shards) == self.index
                });
                for record in others {
                    self.input(Input::Replicate(Replica::Binding(BindingChange::Put(Box::new(record)))));
                }
                Command::Load(own)
            }
            other => other,
        };
        self.input(Input::Command(command));
    }

    pub(crate) fn input(&mut self, input: Input) {
        self.engine.handle(input, self.time.now);
    }

    /// A datagram socket was read, and `more` may wait in it.
    pub(crate) fn read(&mut self, listener: ListenerId, more: bool) {
        self.pace.overload.read(usize::from(listener.0), more, self.time.now.monotonic);
    }

    /// The engine's timer, due at `due`, fired.
    pub(crate) fn timeout(&mut self, due: Duration) {
        self.pace.overload.fired(due, self.time.now.monotonic);
        self.engine.handle_timeout(self.time.now);
    }

    /// The engine's next timeout, for the one task that waits for it.
    pub(crate) fn arm(&mut self) -> Option<(Duration, Instant)> {
        self.alarm.armed = self.engine.poll_timeout();
        self.alarm.armed.map(|due| (due, self.time.clock.instant(due)))
    }

    /// The certificate of a connection's peer bears these names.
    pub(crate) fn identified(&mut self, connection: ConnectionId, names: Arc<[Arc<str>]>) {
        if names.is_empty() {
            return;
        }
        self.tick();
        self.tell_others(|| Input::Identified { connection, names: names.clone() });
        self.input(Input::Identified { connection, names });
    }

    /// A connection of this shard is gone: every engine may hold a flow over it.
    pub(crate) fn closed(&mut self, connection: ConnectionId) {
        self.tell_others(|| Input::Closed { connection });
        self.input(Input::Closed { connection });
    }

    fn tell_others(&self, input: impl Fn() -> Input) {
        for (index, link) in self.links.iter().enumerate() {
            if index != self.index {
                link.input(input());
            }
        }
    }

    /// Something that an operator should know and no engine tells.
    pub(crate) fn notice(&mut self, notice: Notice) {
        let _ = self.host.carry_out(Output::Notice(notice), self.time.now);
    }

    /// Carries out all outputs, in order, and sees to the timer.
    ///
    /// Datagrams leave at the end, many by one system call: what comes before them in the outputs, a record in the
    /// journal among it, has then been carried out too.
    pub(crate) fn settle(&mut self) {
        self.judge();
        let mut turns = 0;
        while let Some(output) = self.engine.poll_output() {
            // One input may end ten thousand calls.
            vitals::beat();
            match output {
                Output::Send { flow, server_name, message, ticket } => {
                    let transmission =
                        Transmission { flow, server_name, message, ticket, sender: self.index };
                    if let Some(transmission) = self.held.hold(transmission, &mut *self.host) {
                        self.send(transmission);
                    }
                }
                Output::Replicate(replica) => self.tell_others(|| Input::Replicate(replica.clone())),
                Output::Close(connection) => match owner(connection) {
                    home if home == self.index => self.connections.close(connection),
                    home => {
                        if let Some(link) = self.links.get(home) {
                            link.send(Letter::Close(connection));
                        }
                    }
                },
                Output::Proven(connection) => match owner(connection) {
                    home if home == self.index => self.connections.proven(connection),
                    home => {
                        if let Some(link) = self.links.get(home) {
                            link.send(Letter::Proven(connection));
                        }
                    }
                },
                Output::Withheld => self.counters.withheld.up(),
                other => {
                    if let Output::Binding(change) = &other {
                        self.tell_others(|| Input::Replicate(Replica::Binding(change.clone())));
                    }
                    if let Some(input) = self.host.carry_out(other, self.time.now) {
                        self.engine.handle(input, self.time.now);
                    }
                }
            }
            turns = usize::saturating_add(turns, 1);
            if turns == TURNS {
                tracing::error!("{TURNS} outputs from one input; the rest waits for the next");
                break;
            }
        }
        if !self.held.is_empty() {
            for transmission in self.held.release(&*self.host) {
                self.send(transmission);
            }
        }
        let (calls, transactions, bindings) = self.engine.sizes();
        self.counters.held.calls.set(calls as u64);
        self.counters.held.transactions.set(transactions as u64);
        self.counters.held.bindings.set(bindings as u64);
        for listener in 0..self.endpoints.len() {
            self.flush(ListenerId(listener as u16));
        }
        let due = self.engine.poll_timeout();
        if due.is_some_and(|due| self.alarm.armed.is_none_or(|armed| due < armed)) {
            // Until the task that waits has looked, it need not be told again.
            self.alarm.armed = due;
            self.alarm.rearm.notify_one();
        }
    }

    /// Tells the engine when the shard falls behind, and when it has caught up.
    fn judge(&mut self) {
        let letters = self.links.get(self.index).map_or(0, ShardHandle::waiting);
        let load = if self.settings.is_short_of_memory.load(Ordering::Relaxed) {
            Load::FarBehind
        } else {
            self.pace.overload.load(letters, self.time.now.monotonic)
        };
        if load != self.pace.load {
            self.pace.load = load;
            self.counters.is_behind.set(u64::from(load != Load::Fine));
            self.engine.set_load(load);
        }
    }

    fn send(&mut self, transmission: Transmission) {
        self.counters.sent.up();
        self.counters.traffic_sent.written(&transmission.message);
        if transmission.flow.transport == Transport::Udp {
            let Transmission { flow, message, ticket, sender, .. } = transmission;
            return self.push(flow.listener, Datagram { remote: flow.remote, message, ticket, sender });
        }
        let home = transmission.flow.connection.map_or(self.index, owner);
        if home == self.index {
            return self.transmit(transmission);
        }
        let (ticket, sender) = (transmission.ticket, transmission.sender);
        if !self.links.get(home).is_some_and(|link| link.send(Letter::Transmit(Box::new(transmission)))) {
            self.failed(ticket, sender);
        }
    }

    /// Over a connection that this shard owns or opens.
    fn transmit(&mut self, transmission: Transmission) {
        let Transmission { flow, server_name, message, ticket, sender } = transmission;
        let outgoing = Outgoing { message, ticket, sender };
        if let Err(outgoing) = self.send_by_stream(flow, server_name, outgoing) {
            self.failed(outgoing.ticket, outgoing.sender);
        }
    }

    /// A datagram that no engine asked for.
    pub(crate) fn send_unasked(&mut self, listener: ListenerId, remote: SocketAddr, message: Bytes) {
        self.push(listener, Datagram { remote, message, ticket: NOBODY, sender: self.index });
    }

    fn push(&mut self, listener: ListenerId, datagram: Datagram) {
        let (ticket, sender) = (datagram.ticket, datagram.sender);
        if self.endpoint(listener).is_none_or(|endpoint| endpoint.push(datagram).is_err()) {
            self.failed(ticket, sender);
        }
    }

    /// Sends the datagrams that wait for a listener's socket.
    pub(crate) fn flush(&mut self, listener: ListenerId) {
        let Some(endpoint) = self.endpoint(listener) else { return };
        let mut failed = Vec::new();
        if let Flushed::Blocked = endpoint.flush(|datagram| failed.push((datagram.ticket, datagram.sender))) {
            endpoint.block();
        }
        for (ticket, sender) in failed {
            self.failed(ticket, sender);
        }
    }

    /// A listener's socket takes datagrams again.
    pub(crate) fn unblocked(&mut self, listener: ListenerId) {
        if let Some(endpoint) = self.endpoint(listener) {
            endpoint.unblock();
        }
        self.flush(listener);
    }

    /// Tells the engine that sent it, which may be another shard's.
    pub(crate) fn failed(&mut self, ticket: Ticket, sender: usize) {
        self.counters.send_failed.up();
        if ticket == NOBODY {
            return;
        }
        if let Some(link) = self.links.get(sender) {
            // Always by letter: a failure inside `settle` must not enter the engine before the outputs ahead of it.
            link.input(Input::SendFailed { ticket });
        }
    }
}

/// Keys of a filter's hash. Without randomness the filter works, and a stranger could choose who shares a bucket.
fn seed() -> [u64; 2] {
    let mut seed = [[0; 8]; 2];
    if getrandom::fill(seed.as_flattened_mut()).is_err() {
        tracing::error!("the system has no randomness; the filter's table can be predicted");
    }
    seed.map(u64::from_ne_bytes)
}
