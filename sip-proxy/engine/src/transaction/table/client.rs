//! Client transactions: how they begin, are repeated, fail and end.

use std::sync::Arc;

use sip_wire::{Message, Method};

use super::ticket::ticket;
use super::{Client, ClientMachine, Transactions};
use crate::flow::{Flow, ListenerId, Transport};
use crate::transaction::invite_client::InviteClient;
use crate::transaction::machine::{Clock, Handle, Port, Step};
use crate::transaction::non_invite_client::NonInviteClient;
use crate::transaction::{ClientId, Context, Event, address, key};

/// A request that leaves.
pub(super) struct Outgoing<O> {
    pub(super) flow: Flow,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) request: Arc<Message>,
    /// `None` for a CANCEL of the layer's own.
    pub(super) owner: Option<O>,
    /// What goes instead, and which way, should this one fail.
    pub(super) fallback: Option<Box<(Flow, Arc<Message>)>>,
}

impl<O: Copy> Transactions<O> {
    pub(super) fn start_client(&mut self, outgoing: Outgoing<O>, context: &mut Context<'_>) -> ClientId {
        let Outgoing { flow, server_name, request, owner, fallback } = outgoing;
        let key: Arc<[u8]> = key::of_client(&request).unwrap_or_default().into();
        let is_invite = request.method() == Some(Method::INVITE);
        let mut clock = Clock::default();
        let Self { clients, timers, values, .. } = self;
        let (index, generation) = clients.insert(|index, generation| {
            let id = ClientId { index, generation };
            let mut port = Port {
                now: context.now.monotonic,
                values,
                timers,
                out: &mut *context.out,
                clock: &mut clock,
                handle: Handle::Client(id),
                flow,
                server_name: server_name.as_ref(),
                ticket: ticket(Handle::Client(id), 0),
            };
            let machine = if is_invite {
                ClientMachine::Invite(InviteClient::start(request, &mut port))
            } else {
                ClientMachine::NonInvite(NonInviteClient::start(request.as_bytes().clone(), &mut port))
            };
            Client { key: Arc::clone(&key), owner, flow, server_name, clock, machine, fallback, attempt: 0 }
        });
        let id = ClientId { index, generation };
        self.client_keys.insert(key, id);
        if let Some(connection) = flow.connection {
            self.connections.insert((connection.0, Handle::Client(id)));
        }
        id
    }

    /// The transport took the request no further: by datagram if TCP was only tried for its size, else it failed.
    pub(super) fn client_failed(&mut self, id: ClientId, context: &mut Context<'_>) -> Option<Event<O>> {
        let client = self.clients.get_mut(id.index, id.generation)?;
        if let Some((flow, request)) = client.fallback.take().map(|fallback| *fallback) {
            client.flow = flow;
            client.attempt ^= 1;
            let mut port = client_port!(self, client, id, context);
            port.stop_ending();
            match &mut client.machine {
                ClientMachine::Invite(machine) => {
                    let cancel = machine.take_cancel();
                    *machine = InviteClient::start(request, &mut port).with_cancel(cancel);
                }
                ClientMachine::NonInvite(machine) => {
                    *machine = NonInviteClient::start(request.as_bytes().clone(), &mut port);
                }
            }
            return None;
        }
        let owner = client.owner;
        self.remove_client(id);
        Some(Event::TransportFailed { client: id, owner: owner? })
    }

    pub(super) fn client_resend(&mut self, id: ClientId, context: &mut Context<'_>) -> Option<Event<O>> {
        let client = self.clients.get_mut(id.index, id.generation)?;
        let mut port = client_port!(self, client, id, context);
        match &mut client.machine {
            ClientMachine::Invite(machine) => machine.resend(&mut port),
            ClientMachine::NonInvite(machine) => machine.resend(&mut port),
        }
        None
    }

    pub(super) fn client_end(&mut self, id: ClientId) -> Option<Event<O>> {
        let client = self.clients.get(id.index, id.generation)?;
        let step = match &client.machine {
            ClientMachine::Invite(machine) => machine.end(),
            ClientMachine::NonInvite(machine) => machine.end(),
        };
        let owner = client.owner;
        self.remove_client(id);
        owner.filter(|_| step == Step::TellAndEnd).map(|owner| Event::Timeout { client: id, owner })
    }

    pub(super) fn send_cancel_if_due(&mut self, id: ClientId, context: &mut Context<'_>) {
        let Some(client) = self.clients.get_mut(id.index, id.generation) else { return };
        let (flow, server_name) = (client.flow, client.server_name.clone());
        let mut port = client_port!(self, client, id, context);
        let ClientMachine::Invite(machine) = &mut client.machine else { return };
        let Some(cancel) = machine.cancel_due(&mut port) else { return };
        let outgoing = Outgoing { flow, server_name, request: cancel.into(), owner: None, fallback: None };
        self.start_client(outgoing, context);
    }

    pub(super) fn remove_client(&mut self, id: ClientId) {
        let Some(client) = self.clients.remove(id.index, id.generation) else { return };
        client.clock.stop(&mut self.timers);
        if self.client_keys.get(&client.key) == Some(&id) {
            self.client_keys.remove(&client.key);
        }
        if let Some(connection) = client.flow.connection {
            self.connections.remove(&(connection.0, Handle::Client(id)));
        }
    }

    /// Where a request too large for a datagram goes instead.
    pub(super) fn over_stream(&self, to: &Flow, request: &Message) -> Option<(Flow, Message)> {
        let listener = self.listeners.get(usize::from(to.listener.0))?;
        if to.transport != Transport::Udp || request.as_bytes().len() <= listener.datagram_limit {
            return None;
        }
        let sibling = self.listeners.iter().position(|other| {
            other.realm == listener.realm
                && other.transport == Transport::Tcp
                && other.address.is_ipv4() == listener.address.is_ipv4()
        })?;
        let flow = Flow {
            listener: ListenerId(u16::try_from(sibling).ok()?),
            transport: Transport::Tcp,
            remote: to.remote,
            connection: None,
        };
        Some((flow, address::over_tcp(request, self.listeners.get(sibling)?)?))
    }
}

impl<O> Client<O> {
    pub(super) fn is_waiting(&self) -> bool {
        match &self.machine {
            ClientMachine::Invite(machine) => machine.is_waiting(),
            ClientMachine::NonInvite(machine) => machine.is_waiting(),
        }
    }
}
