//! Messages from the wire: to the transaction that they belong to, or to a new one.

use std::collections::VecDeque;

use sip_wire::{Message, Method, Name};

use super::ticket::ticket;
use super::{ClientMachine, ServerMachine, Transactions, notice};
use crate::flow::Flow;
use crate::io::Output;
use crate::transaction::machine::{Handle, Port, Step};
use crate::transaction::{Context, Event, Incoming, ServerId, address, key, response};

impl<O: Copy> Transactions<O> {
    pub(super) fn receive_response(
        &mut self,
        flow: Flow,
        status: u16,
        message: Message,
        context: &mut Context<'_>,
    ) -> Option<Event<O>> {
        let found = key::of_client(&message).and_then(|key| self.client_keys.get(&*key).copied());
        let Some(id) = found else { return Some(Event::Stray { flow, message }) };
        let client = self.clients.get_mut(id.index, id.generation)?;
        let mut port = client_port!(self, client, id, context);
        let step = match &mut client.machine {
            ClientMachine::Invite(machine) => machine.receive(status, &message, &mut port),
            ClientMachine::NonInvite(machine) => machine.receive(status, &mut port),
        };
        client.fallback = None;
        let owner = client.owner;
        match step {
            Step::TellAndEnd | Step::End => self.remove_client(id),
            Step::Absorb | Step::Tell => self.send_cancel_if_due(id, context),
        }
        let owner = owner.filter(|_| matches!(step, Step::Tell | Step::TellAndEnd))?;
        Some(Event::Response { client: id, owner, message })
    }

    pub(super) fn receive_request(
        &mut self,
        flow: Flow,
        message: Message,
        context: &mut Context<'_>,
    ) -> Option<Event<O>> {
        let method = message.method()?;
        let Some(key) = key::of_server(&message) else {
            notice(
                context.out,
                "request_unmatchable",
                &flow,
                "a request without a readable Via, From, Call-ID or CSeq was dropped",
            );
            return None;
        };
        let is_ack = method == Method::ACK;
        if let Some(id) = self.server_keys.get(&*key).copied() {
            return self.receive_again(id, flow, message, context);
        }
        if is_ack {
            return if self.is_ack_to_stateless(&key, &message) {
                None
            } else {
                Some(Event::Ack { flow, message })
            };
        }
        if self.proof.is_some() {
            return self.receive_unproven(key, flow, message, context);
        }
        let is_cancel = method == Method::CANCEL;
        let is_in_dialog = message.to().is_ok_and(|to| to.tag().is_some());
        let message = address::stamp(message, &flow)?;
        if self.len() >= self.limit && !is_in_dialog && !is_cancel {
            self.refuse(&flow, &key, &message, context.out);
            return None;
        }
        let server = self.start_server(key.into(), flow, &message, context);
        if is_cancel {
            return self.receive_cancel(server, message, context);
        }
        self.servers.get_mut(server.index, server.generation)?.request = Some(Box::new(message.clone()));
        Some(Event::Request(Incoming { server, flow, request: message }))
    }

    /// A retransmission, or an ACK.
    pub(super) fn receive_again(
        &mut self,
        id: ServerId,
        flow: Flow,
        message: Message,
        context: &mut Context<'_>,
    ) -> Option<Event<O>> {
        let server = self.servers.get_mut(id.index, id.generation)?;
        let is_ack = message.method() == Some(Method::ACK);
        // A retransmission over a new connection shows where a response can go now.
        if flow.transport.is_reliable() && server.flow.connection != flow.connection {
            if let Some(old) = server.flow.connection {
                self.connections.remove(&(old.0, Handle::Server(id)));
            }
            server.flow = flow;
            server.reply_port = flow.remote.port();
            if let Some(new) = flow.connection {
                self.connections.insert((new.0, Handle::Server(id)));
            }
        }
        let mut port = server_port!(self, server, id, context);
        let step = match &mut server.machine {
            ServerMachine::Invite(machine) if is_ack => machine.ack(&mut port),
            ServerMachine::Invite(machine) => {
                machine.retransmission(&mut port);
                Step::Absorb
            }
            ServerMachine::NonInvite(machine) => {
                machine.retransmission(&mut port);
                Step::Absorb
            }
            // It is found by no key.
            ServerMachine::Unproven { .. } => Step::Absorb,
        };
        match step {
            Step::Tell => Some(Event::Ack { flow, message }),
            Step::End | Step::TellAndEnd => {
                self.remove_server(id);
                None
            }
            Step::Absorb => None,
        }
    }

    /// A CANCEL answers for itself (RFC 3261 §9.2): 200 if its INVITE is known, with the tag that the INVITE's responses
    /// carry where there is one, 481 otherwise. It has no effect on an INVITE that has its final response.
    pub(super) fn receive_cancel(
        &mut self,
        server: ServerId,
        cancel: Message,
        context: &mut Context<'_>,
    ) -> Option<Event<O>> {
        let invite = key::of_cancelled(&cancel).and_then(|key| self.server_keys.get(&*key).copied());
        let entry = invite.and_then(|id| self.servers.get(id.index, id.generation));
        let (status, is_answered, tag) = match entry.map(|entry| &entry.machine) {
            Some(ServerMachine::Invite(machine)) => {
                let last = machine.last().and_then(|last| Message::parse(last.clone()).ok());
                (
                    200,
                    machine.is_answered(),
                    last.and_then(|last| Some(String::from_utf8_lossy(last.to().ok()?.tag()?).into_owned())),
                )
            }
            Some(ServerMachine::NonInvite(_) | ServerMachine::Unproven { .. }) | None => (481, true, None),
        };
        let tag = tag.unwrap_or_else(|| response::stateless_tag(cancel.call_id().unwrap_or_default()));
        let answer = response::response_to(&cancel, status, None, Some(&tag)).finish();
        self.respond(server, status, answer, context);
        invite.filter(|_| !is_answered).map(|invite| Event::Cancelled { invite, cancel })
    }

    /// 503 without a transaction: the same for every retransmission.
    pub(super) fn refuse(&mut self, flow: &Flow, key: &[u8], request: &Message, out: &mut VecDeque<Output>) {
        let tag = response::stateless_tag(key);
        let retry_after = crate::times::rest_of(self.retry_after);
        let answer = response::response_to(request, 503, None, Some(&tag))
            .header(Name::RetryAfter, retry_after.as_bytes())
            .finish();
        self.answer_stateless(*flow, request.as_bytes().len(), answer, out);
        notice(out, "transactions_exhausted", flow, "503: the limit of transactions is reached");
    }
}
