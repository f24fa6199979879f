//! All transactions of one engine, and which of them a message belongs to.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use sip_wire::{Message, Method};

use super::invite_client::InviteClient;
use super::invite_server::InviteServer;
use super::machine::{Alarm, Clock, Handle, NOBODY, Port, Step};
use super::non_invite_client::NonInviteClient;
use super::non_invite_server::NonInviteServer;
use super::{ClientId, Context, Event, Hop, Large, ServerId, address, response};
use crate::config::{Config, Listener, TimerValues};
use crate::flow::{ConnectionId, Flow, Ticket};
use crate::io::{Notice, Output};
use crate::slots::Slots;
use crate::timer::TimerQueue;

/// The transaction layer. `O` tells the user of the layer whose client transaction it was.
#[derive(Debug)]
pub struct Transactions<O: Copy> {
    values: TimerValues,
    limit: usize,
    retry_after: Duration,
    /// The key of the To tags of stateless answers; `None`: every request has a transaction from the start.
    proof: Option<[u8; 32]>,
    listeners: Vec<Listener>,
    clients: Slots<Client<O>>,
    servers: Slots<Server<O>>,
    client_keys: AHashMap<Arc<[u8]>, ClientId>,
    server_keys: AHashMap<Arc<[u8]>, ServerId>,
    connections: BTreeSet<(u64, Handle)>,
    timers: TimerQueue<Alarm>,
}

#[derive(Debug)]
struct Client<O> {
    key: Arc<[u8]>,
    /// `None` for a CANCEL of the layer's own.
    owner: Option<O>,
    flow: Flow,
    server_name: Option<Arc<str>>,
    clock: Clock,
    machine: ClientMachine,
    /// The datagram to send if TCP, tried because of its size, fails.
    fallback: Option<Box<(Flow, Arc<Message>)>>,
    /// Tells the sends before a fallback from those after it.
    attempt: u8,
}

#[derive(Debug)]
enum ClientMachine {
    Invite(InviteClient),
    NonInvite(NonInviteClient),
}

#[derive(Debug)]
struct Server<O> {
    key: Arc<[u8]>,
    /// Whose it is, where that is known.
    owner: Option<O>,
    flow: Flow,
    reply_port: u16,
    clock: Clock,
    machine: ServerMachine,
    /// Until the final response.
    request: Option<Box<Message>>,
}

#[derive(Debug)]
enum ServerMachine {
    /// Nobody has proven anything yet: answered without a transaction, unless [`Transactions::keep`] begins one. `asked` is
    /// the request's length in octets.
    Unproven {
        asked: usize,
    },
    Invite(InviteServer),
    NonInvite(NonInviteServer),
}

/// The client's port, by fields, so that its machine stays borrowable.
macro_rules! client_port {
    ($self:ident, $client:ident, $id:expr, $context:ident) => {
        Port {
            now: $context.now.monotonic,
            values: &$self.values,
            timers: &mut $self.timers,
            out: &mut *$context.out,
            clock: &mut $client.clock,
            handle: Handle::Client($id),
            flow: $client.flow,
            server_name: $client.server_name.as_ref(),
            ticket: ticket(Handle::Client($id), $client.attempt),
        }
    };
}

macro_rules! server_port {
    ($self:ident, $server:ident, $id:expr, $context:ident) => {
        Port {
            flow: $server.reply_flow(),
            now: $context.now.monotonic,
            values: &$self.values,
            timers: &mut $self.timers,
            out: &mut *$context.out,
            clock: &mut $server.clock,
            handle: Handle::Server($id),
            server_name: None,
            ticket: ticket(Handle::Server($id), 0),
        }
    };
}

mod client;
mod receive;
mod taken;
mod ticket;
mod unproven;

use client::Outgoing;
pub(crate) use taken::StoredTransaction;
use ticket::{owner_of, ticket};

impl<O> Server<O> {
    fn reply_flow(&self) -> Flow {
        let mut flow = self.flow;
        flow.remote.set_port(self.reply_port);
        flow
    }
}

impl<O: Copy> Transactions<O> {
    /// At most `limit` transactions of both sides together; requests in dialogs, CANCEL and what the engine itself
    /// sends are let in beyond it. Every request has a transaction at once, unless
    /// [`await_proof`](Self::await_proof) is asked for.
    pub fn new(values: TimerValues, limit: usize) -> Self {
        Self {
            values,
            limit,
            retry_after: Duration::from_secs(5),
            proof: None,
            listeners: Vec::new(),
            clients: Slots::new(),
            servers: Slots::new(),
            client_keys: AHashMap::new(),
            server_keys: AHashMap::new(),
            connections: BTreeSet::new(),
            timers: TimerQueue::new(),
        }
    }

    /// Takes timers, limits and listeners of a configuration; transactions that run keep what they have scheduled.
    pub fn configure(&mut self, config: &Config) {
        self.values = config.timers;
        self.limit = config.limits.transactions;
        self.retry_after = config.limits.retry_after;
        self.listeners.clone_from(&config.listeners);
    }

    /// Where its requests may leave, for those too large for a datagram; [`configure`](Self::configure) does it too.
    pub fn set_listeners(&mut self, listeners: &[Listener]) {
        self.listeners = listeners.to_vec();
    }

    /// A message from the wire. Retransmissions, ACKs to failures, CANCELs and 100s are dealt with here; what the user
    /// must see comes back.
    pub fn receive(&mut self, flow: Flow, message: Message, context: &mut Context<'_>) -> Option<Event<O>> {
        match message.status() {
            Some(status) => self.receive_response(flow, status, message, context),
            None => self.receive_request(flow, message, context),
        }
    }

    /// Starts a client transaction. `request` is complete; its top Via carries the branch (see
    /// [`via`](super::via)). An ACK has no transaction: see [`send_stateless`](Self::send_stateless).
    ///
    /// Where the hop allows it, a datagram greater than the listener's limit goes over TCP if the realm has a TCP
    /// listener, with a Via that says so; if that fails, as a datagram after all (RFC 3261 §18.1.1).
    pub fn request(
        &mut self,
        hop: impl Into<Hop>,
        request: impl Into<Arc<Message>>,
        owner: O,
        context: &mut Context<'_>,
    ) -> ClientId {
        let Hop { flow: to, large, server_name } = hop.into();
        let (request, owner) = (request.into(), Some(owner));
        let outgoing = match self.over_stream(&to, &request).filter(|_| large == Large::OverStream) {
            Some((flow, enlarged)) => {
                let fallback = Some(Box::new((to, request)));
                Outgoing { flow, server_name, request: enlarged.into(), owner, fallback }
            }
            None => Outgoing { flow: to, server_name, request, owner, fallback: None },
        };
        self.start_client(outgoing, context)
    }

    /// Somebody hears nothing as long as an INVITE that has just been sent is lost: over UDP it is repeated after 100, 200 and
    /// 400 ms, besides the RFC's timer.
    pub fn hasten(&mut self, client: ClientId, context: &mut Context<'_>) {
        let Some(entry) = self.clients.get_mut(client.index, client.generation) else { return };
        let mut port = client_port!(self, entry, client, context);
        if let ClientMachine::Invite(machine) = &mut entry.machine {
            machine.hasten(&mut port);
        }
    }

    /// Forgets a request that gets no answer.
    pub fn forget(&mut self, server: ServerId) {
        self.remove_server(server);
    }

    /// Cancels an INVITE, at once or after the first provisional response (RFC 3261 §9.1). Its final response still
    /// comes: 487, a 2xx that crossed, or [`Event::Timeout`]. `reason` is the value of a Reason header (RFC 3326).
    pub fn cancel(&mut self, client: ClientId, reason: Option<&[u8]>, context: &mut Context<'_>) {
        if let Some(entry) = self.clients.get_mut(client.index, client.generation)
            && let ClientMachine::Invite(machine) = &mut entry.machine
        {
            machine.cancel(reason);
            self.send_cancel_if_due(client, context);
        }
    }

    /// Answers a request, along RFC 3261 §18.2.2 and RFC 3581. More 2xx after the first 2xx to an INVITE are sent as
    /// given (the user repeats them until the ACK, RFC 3261 §13.3.1.4); anything else after a final response is dropped.
    pub fn respond(
        &mut self,
        server: ServerId,
        status: u16,
        response: impl Into<Bytes>,
        context: &mut Context<'_>,
    ) {
        let response = response.into();
        let Some(entry) = self.servers.get_mut(server.index, server.generation) else { return };
        let mut port = server_port!(self, entry, server, context);
        let step = match &mut entry.machine {
            ServerMachine::Unproven { asked } => {
                let asked = *asked;
                return self.answer_unproven(server, asked, response, context.out);
            }
            ServerMachine::Invite(machine) => {
                machine.respond(status, response, &mut port);
                Step::Absorb
            }
            ServerMachine::NonInvite(machine) => machine.respond(status, response, &mut port),
        };
        if status >= 200 {
            entry.request = None;
        }
        if step == Step::End {
            self.remove_server(server);
        }
    }

    /// Acknowledges a 2xx to an INVITE, now and whenever it comes again (RFC 3261 §13.2.2.4). The ACK goes where the
    /// dialog's requests go.
    pub fn acknowledge(&mut self, client: ClientId, to: Flow, ack: Message, out: &mut VecDeque<Output>) {
        if let Some(entry) = self.clients.get_mut(client.index, client.generation)
            && let ClientMachine::Invite(machine) = &mut entry.machine
        {
            let tag = ack.to().ok().and_then(|to| to.tag()).unwrap_or_default();
            machine.acknowledge(tag, to, ack.as_bytes().clone());
        }
        self.send_stateless(to, ack, out);
    }

    /// Where a client transaction sends, as long as it lives.
    pub fn client_flow(&self, client: ClientId) -> Option<Flow> {
        self.clients.get(client.index, client.generation).map(|client| client.flow)
    }

    /// Sends what has no transaction: a late ACK, a stateless answer. Its failure is nobody's.
    pub fn send_stateless(&mut self, to: Flow, message: impl Into<Bytes>, out: &mut VecDeque<Output>) {
        let message = message.into();
        out.push_back(Output::Send { flow: to, server_name: None, message, ticket: NOBODY });
    }

    /// A stateless answer to a request, sent where a transaction's would go, with `received` and `rport` in its top Via.
    /// What was asked had `asked` octets.
    pub fn answer_stateless(
        &mut self,
        flow: Flow,
        asked: usize,
        answer: Message,
        out: &mut VecDeque<Output>,
    ) {
        let mut to = flow;
        let bytes = answer.as_bytes().clone();
        let stamped = address::stamp(answer, &flow);
        if let Some(stamped) = &stamped
            && !flow.transport.is_reliable()
        {
            to.remote.set_port(address::reply_port(stamped, &flow));
        }
        let answer = stamped.map_or(bytes, Bytes::from);
        self.send_to_stranger(to, asked, answer, out);
    }

    /// A send failed.
    pub fn send_failed(&mut self, failed: Ticket, context: &mut Context<'_>) -> Option<Event<O>> {
        let (handle, attempt) = owner_of(failed)?;
        match handle {
            Handle::Client(id) => {
                let client = self.clients.get(id.index, id.generation)?;
                if client.attempt != attempt || !client.is_waiting() {
                    return None;
                }
                self.client_failed(id, context)
            }
            // A response that can't be delivered: the transaction ends by its timers, as if the network had lost it
            // (RFC 6026 §8.8 keeps it for the ACK and for retransmissions, which bring a new way).
            Handle::Server(_) => None,
        }
    }

    /// A connection closed. Requests that could only be answered over it have failed; responses find another way.
    pub fn connection_closed(
        &mut self,
        connection: ConnectionId,
        context: &mut Context<'_>,
    ) -> Vec<Event<O>> {
        let lowest = Handle::Client(ClientId { index: 0, generation: 0 });
        let affected: Vec<Handle> = self
            .connections
            .range((connection.0, lowest)..)
            .take_while(|entry| entry.0 == connection.0)
            .map(|entry| entry.1)
            .collect();
        let mut events = Vec::new();
        for handle in affected {
            self.connections.remove(&(connection.0, handle));
            match handle {
                Handle::Client(id) => {
                    let Some(client) = self.clients.get_mut(id.index, id.generation) else { continue };
                    client.flow.connection = None;
                    if client.is_waiting() {
                        events.extend(self.client_failed(id, context));
                    }
                }
                Handle::Server(id) => {
                    let Some(server) = self.servers.get_mut(id.index, id.generation) else { continue };
                    server.flow.connection = None;
                    if let Some(request) = &server.request {
                        server.reply_port = address::listening_port(request, server.flow.transport);
                    }
                }
            }
        }
        events
    }

    /// What is due at `now`, one event at a time: call until it returns `None`.
    pub fn handle_timeout(&mut self, context: &mut Context<'_>) -> Option<Event<O>> {
        while let Some(alarm) = self.timers.pop(context.now.monotonic) {
            let event = match alarm {
                Alarm::Resend(Handle::Client(id)) => self.client_resend(id, context),
                Alarm::Resend(Handle::Server(id)) => self.server_resend(id, context),
                Alarm::End(Handle::Client(id)) => self.client_end(id),
                Alarm::End(Handle::Server(id)) => self.server_end(id),
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; monotonic.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Where the request of a server transaction came from, as long as the transaction lives.
    pub fn server_flow(&self, server: ServerId) -> Option<Flow> {
        self.servers.get(server.index, server.generation).map(|server| server.flow)
    }

    /// Whether a client transaction has had any response, a 100 too. A transaction that is gone had.
    pub fn has_response(&self, client: ClientId) -> bool {
        self.clients.get(client.index, client.generation).is_none_or(|client| match &client.machine {
            ClientMachine::Invite(machine) => machine.has_response(),
            ClientMachine::NonInvite(machine) => machine.has_response(),
        })
    }

    /// Transactions of both sides.
    pub fn len(&self) -> usize {
        self.clients.len().saturating_add(self.servers.len())
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.timers.is_empty()
    }

    fn start_server(
        &mut self,
        key: Arc<[u8]>,
        flow: Flow,
        request: &Message,
        context: &mut Context<'_>,
    ) -> ServerId {
        let reply_port = reply_port(&flow, request);
        let is_invite = request.method() == Some(Method::INVITE);
        let mut clock = Clock::default();
        let Self { servers, timers, values, .. } = self;
        let (index, generation) = servers.insert(|index, generation| {
            let handle = Handle::Server(ServerId { index, generation });
            let mut port = Port {
                now: context.now.monotonic,
                values,
                timers,
                out: &mut *context.out,
                clock: &mut clock,
                handle,
                flow,
                server_name: None,
                ticket: ticket(handle, 0),
            };
            let machine = if is_invite {
                ServerMachine::Invite(InviteServer::start(&mut port))
            } else {
                ServerMachine::NonInvite(NonInviteServer::start())
            };
            Server { key: Arc::clone(&key), owner: None, flow, reply_port, clock, machine, request: None }
        });
        let id = ServerId { index, generation };
        self.server_keys.insert(key, id);
        if let Some(connection) = flow.connection {
            self.connections.insert((connection.0, Handle::Server(id)));
        }
        id
    }

    fn server_resend(&mut self, id: ServerId, context: &mut Context<'_>) -> Option<Event<O>> {
        let server = self.servers.get_mut(id.index, id.generation)?;
        let trying = server
            .request
            .as_deref()
            .map(|request| response::response_to(request, 100, None, None).finish().into());
        let mut port = server_port!(self, server, id, context);
        if let ServerMachine::Invite(machine) = &mut server.machine {
            match trying {
                Some(trying) if machine.wants_trying() => machine.respond(100, trying, &mut port),
                _ => machine.resend(&mut port),
            }
        }
        None
    }

    fn server_end(&mut self, id: ServerId) -> Option<Event<O>> {
        let server = self.servers.get(id.index, id.generation)?;
        let is_unacknowledged =
            matches!(&server.machine, ServerMachine::Invite(machine) if machine.end() == Step::TellAndEnd);
        self.remove_server(id);
        is_unacknowledged.then_some(Event::NoAck { invite: id })
    }

    fn remove_server(&mut self, id: ServerId) {
        let Some(server) = self.servers.remove(id.index, id.generation) else { return };
        server.clock.stop(&mut self.timers);
        self.server_keys.remove(&server.key);
        if let Some(connection) = server.flow.connection {
            self.connections.remove(&(connection.0, Handle::Server(id)));
        }
    }
}

/// Where answers by datagram go (RFC 3261 §18.2.2, RFC 3581), or over a stream.
fn reply_port(flow: &Flow, request: &Message) -> u16 {
    if flow.transport.is_reliable() { flow.remote.port() } else { address::reply_port(request, flow) }
}

fn notice(out: &mut VecDeque<Output>, kind: &'static str, flow: &Flow, detail: &str) {
    out.push_back(Output::Notice(Notice { kind, remote: Some(flow.remote), detail: detail.to_owned() }));
}
