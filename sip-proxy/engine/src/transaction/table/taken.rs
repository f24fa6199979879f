//! Transactions that have their final response, taken out of one table and put into another's: what comes again after that is answered as it
//! would have been. Of those under way none is taken.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Client, ClientMachine, Server, ServerMachine, Transactions};
use crate::flow::Flow;
use crate::timer::{TimerId, TimerQueue};
use crate::transaction::invite_client::InviteClient;
use crate::transaction::invite_server::InviteServer;
use crate::transaction::machine::{Alarm, Clock, Handle};
use crate::transaction::non_invite_client::NonInviteClient;
use crate::transaction::non_invite_server::NonInviteServer;
use crate::transaction::rest::Rest;
use crate::transaction::{ClientId, ServerId};

/// A transaction as plain data; `R` says what its user has it for.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredTransaction<R> {
    pub(crate) role: R,
    /// What its messages have in common.
    #[serde(with = "crate::octets")]
    key: Box<[u8]>,
    pub(crate) flow: Flow,
    /// Where a server's answers go.
    reply_port: u16,
    server_name: Option<Arc<str>>,
    rest: Rest,
    left: Left,
}

/// What remains of its timers.
#[derive(Serialize, Deserialize)]
struct Left {
    /// From the last sending to the next.
    interval: Duration,
    /// Until it sends again by itself.
    resend: Option<Duration>,
    /// Until it ends.
    end: Option<Duration>,
}

impl<O: Copy> Transactions<O> {
    /// Whose a server transaction is.
    pub(crate) fn give(&mut self, server: ServerId, owner: O) {
        if let Some(entry) = self.servers.get_mut(server.index, server.generation) {
            entry.owner = Some(owner);
        }
    }

    /// Whether one of these has no final response yet.
    pub(crate) fn is_any_open(&self, is_it: impl Fn(O) -> bool) -> bool {
        let is_its = |owner: Option<O>| owner.is_some_and(&is_it);
        self.clients.iter().any(|(_, client)| is_its(client.owner) && client.is_waiting())
            || self.servers.iter().any(|(_, server)| is_its(server.owner) && server.machine.rest().is_none())
    }

    /// Those with a role, which have their final responses. All are looked at: it is meant for a process that ends.
    pub(crate) fn take_out<R>(
        &mut self,
        role: impl Fn(O) -> Option<R>,
        now: Duration,
    ) -> Vec<StoredTransaction<R>> {
        let role = |owner: Option<O>| owner.and_then(&role);
        let mut taken = Vec::new();
        let clients = self.clients.iter().filter(|(_, client)| role(client.owner).is_some());
        let clients: Vec<ClientId> =
            clients.map(|((index, generation), _)| ClientId { index, generation }).collect();
        for id in clients {
            let Some(client) = self.clients.get(id.index, id.generation) else { continue };
            let rest = match &client.machine {
                ClientMachine::Invite(machine) => machine.rest(),
                ClientMachine::NonInvite(machine) => machine.rest(),
            };
            if let (Some(role), Some(rest)) = (role(client.owner), rest) {
                let left = client.clock.left(&self.timers, now);
                taken.push(StoredTransaction {
                    role,
                    key: (&*client.key).into(),
                    flow: client.flow,
                    reply_port: 0,
                    server_name: client.server_name.clone(),
                    rest,
                    left,
                });
            }
            self.remove_client(id);
        }
        let servers = self.servers.iter().filter(|(_, server)| role(server.owner).is_some());
        let servers: Vec<ServerId> =
            servers.map(|((index, generation), _)| ServerId { index, generation }).collect();
        for id in servers {
            let Some(server) = self.servers.get(id.index, id.generation) else { continue };
            if let (Some(role), Some(rest)) = (role(server.owner), server.machine.rest()) {
                let left = server.clock.left(&self.timers, now);
                taken.push(StoredTransaction {
                    role,
                    key: (&*server.key).into(),
                    flow: server.flow,
                    reply_port: server.reply_port,
                    server_name: None,
                    rest,
                    left,
                });
            }
            self.remove_server(id);
        }
        taken
    }

    /// Goes on with one; its name, if it is a server's. Connections are the process's: what a stream brought is answered over
    /// the one that the request comes by again.
    pub(crate) fn take_in<R>(
        &mut self,
        stored: StoredTransaction<R>,
        owner: impl FnOnce(R) -> O,
        now: Duration,
    ) -> Option<ServerId> {
        let StoredTransaction { role, key, flow, reply_port, server_name, rest, left } = stored;
        let (key, owner): (Arc<[u8]>, _) = (key.into(), Some(owner(role)));
        let flow = flow.without_connection();
        let machine = match Machine::from(rest) {
            Machine::Client(machine) => {
                let Self { clients, timers, .. } = self;
                let (index, generation) = clients.insert(|index, generation| {
                    let handle = Handle::Client(ClientId { index, generation });
                    let clock = left.running(handle, timers, now);
                    Client {
                        key: Arc::clone(&key),
                        owner,
                        flow,
                        server_name,
                        clock,
                        machine,
                        fallback: None,
                        attempt: 0,
                    }
                });
                self.client_keys.insert(key, ClientId { index, generation });
                return None;
            }
            Machine::Server(machine) => machine,
        };
        let Self { servers, timers, .. } = self;
        let (index, generation) = servers.insert(|index, generation| {
            let handle = Handle::Server(ServerId { index, generation });
            let clock = left.running(handle, timers, now);
            Server { key: Arc::clone(&key), owner, flow, reply_port, clock, machine, request: None }
        });
        let id = ServerId { index, generation };
        self.server_keys.insert(key, id);
        Some(id)
    }
}

impl ServerMachine {
    fn rest(&self) -> Option<Rest> {
        match self {
            Self::Unproven { .. } => None,
            Self::Invite(machine) => machine.rest(),
            Self::NonInvite(machine) => machine.rest(),
        }
    }
}

enum Machine {
    Client(ClientMachine),
    Server(ServerMachine),
}

impl From<Rest> for Machine {
    fn from(rest: Rest) -> Self {
        match rest {
            Rest::InviteFailed(ack) => Self::Client(ClientMachine::Invite(InviteClient::Completed { ack })),
            Rest::InviteTaken(taken) => Self::Client(ClientMachine::Invite(InviteClient::of_taken(taken))),
            Rest::Answered => Self::Client(ClientMachine::NonInvite(NonInviteClient::Completed)),
            Rest::InviteRefused(response) => {
                Self::Server(ServerMachine::Invite(InviteServer::Completed { response }))
            }
            Rest::InviteConfirmed => Self::Server(ServerMachine::Invite(InviteServer::Confirmed)),
            Rest::InviteAccepted => Self::Server(ServerMachine::Invite(InviteServer::Accepted)),
            Rest::Responded(response) => {
                Self::Server(ServerMachine::NonInvite(NonInviteServer::Completed { response }))
            }
        }
    }
}

impl Clock {
    fn left(&self, timers: &TimerQueue<Alarm>, now: Duration) -> Left {
        let left = |timer: Option<TimerId>| Some(timers.due(timer?)?.saturating_sub(now));
        Left { interval: self.interval, resend: left(self.resend), end: left(self.end) }
    }
}

impl Left {
    /// What has no end ends at once.
    fn running(&self, handle: Handle, timers: &mut TimerQueue<Alarm>, now: Duration) -> Clock {
        let at = |after: Duration| now.saturating_add(after);
        let resend = self.resend.map(|after| timers.schedule(at(after), Alarm::Resend(handle)));
        let end = timers.schedule(at(self.end.unwrap_or_default()), Alarm::End(handle));
        Clock { resend, end: Some(end), interval: self.interval }
    }
}
