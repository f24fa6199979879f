//! Requests of those who have proven nothing yet: **state comes after proof**.
//!
//! A stranger's request costs what it takes to read and to answer it, and nothing after that: no entry in the table of
//! transactions, no timer, no 100, no repetition (RFC 3261 §8.2.7). Its To tag is computed from it under a key, so that
//! retransmissions get the same answer and the ACK to it is known again. A transaction begins when the user says that
//! the sender is one whom it serves: [`Transactions::keep`].
//!
//! What is sent back by datagram may hit somebody whose address was forged: it is sent once, is at most twice what
//! came in (IP and UDP headers counted), and is small.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use sip_wire::{Message, Method, Name};

use super::{Server, ServerMachine, Transactions, notice, reply_port};
use crate::flow::Flow;
use crate::io::Output;
use crate::transaction::invite_server::InviteServer;
use crate::transaction::machine::{Clock, Handle, Port};
use crate::transaction::non_invite_server::NonInviteServer;
use crate::transaction::{Context, Event, Incoming, ServerId, Share, address, key};

use super::ticket::ticket;

/// IPv4 and UDP headers, octets of each datagram.
const HEADERS: usize = 28;

/// Octets sent to a stranger's address for each that came from there.
const ANSWERED: usize = 2;

/// No answer to a stranger by datagram is longer. What makes it long is copied from the request.
const LONGEST_ANSWER: usize = 4096;

/// All Via values of a request, octets: 70 hops (Max-Forwards) of some 110 each. Every answer copies them and a
/// transaction keeps its answer, so that whoever names more is nobody we serve.
const MOST_VIA: usize = 8192;

impl<O: Copy> Transactions<O> {
    /// From now on requests have a transaction only when [`keep`](Self::keep) says so; `key` must be unpredictable.
    pub fn await_proof(&mut self, key: [u8; 32]) {
        self.proof = Some(key);
    }

    /// The sender of a request is one whom we serve: its transaction begins. False if the table has no room in its
    /// share; then it stays without. To be called in the step in which the request arrived.
    #[must_use]
    pub fn keep(&mut self, server: ServerId, share: Share, context: &mut Context<'_>) -> bool {
        let room = self.room(share);
        // The request itself is counted already.
        let has_room = self.len() <= room;
        let Some(entry) = self.servers.get_mut(server.index, server.generation) else { return false };
        if !matches!(entry.machine, ServerMachine::Unproven { .. }) {
            return true;
        }
        if !has_room {
            return false;
        }
        let is_invite =
            entry.request.as_deref().is_some_and(|request| request.method() == Some(Method::INVITE));
        let mut port = server_port!(self, entry, server, context);
        entry.machine = if is_invite {
            ServerMachine::Invite(InviteServer::start(&mut port))
        } else {
            ServerMachine::NonInvite(NonInviteServer::start())
        };
        let connection = entry.flow.connection;
        self.server_keys.insert(Arc::clone(&entry.key), server);
        if let Some(connection) = connection {
            self.connections.insert((connection.0, Handle::Server(server)));
        }
        true
    }

    /// How many transactions there may be before this share is used up. Those who are known have the last of the table
    /// for themselves; what belongs to a dialog may go beyond it, to twice its size.
    fn room(&self, share: Share) -> usize {
        let limit = self.limit;
        match share {
            Share::Strangers => limit.saturating_sub(limit / 4),
            Share::Users => limit.saturating_sub(limit / 8),
            Share::Known => limit,
            Share::Dialogs => limit.saturating_mul(2),
        }
    }

    /// The step is over: who has not proven anything in it, and has no answer, gets none.
    pub(crate) fn forget_unproven(&mut self, server: ServerId) {
        if self
            .servers
            .get(server.index, server.generation)
            .is_some_and(|entry| matches!(entry.machine, ServerMachine::Unproven { .. }))
        {
            self.servers.remove(server.index, server.generation);
        }
    }

    /// The To tag of an answer without a transaction; `None` if the request has one.
    pub(crate) fn computed_tag(&self, server: ServerId) -> Option<String> {
        let entry = self.servers.get(server.index, server.generation)?;
        match (&entry.machine, &entry.request) {
            (ServerMachine::Unproven { .. }, Some(request)) => self.tag_of(&entry.key, request),
            _ => None,
        }
    }

    /// A request of a new transaction, if there will be one.
    pub(super) fn receive_unproven(
        &mut self,
        key: Box<[u8]>,
        flow: Flow,
        message: Message,
        context: &mut Context<'_>,
    ) -> Option<Event<O>> {
        let asked = message.as_bytes().len();
        let message = address::stamp(message, &flow)?;
        let vias: usize =
            message.lines().filter(|line| line.name == Name::Via).map(|line| line.value.len()).sum();
        if vias > MOST_VIA {
            let detail =
                "a request with Via headers of more than 8,192 octets was dropped: no request passes so many";
            notice(context.out, "oversized", &flow, detail);
            return None;
        }
        // A CANCEL has a transaction if its INVITE has one (RFC 3261 §9.2).
        if message.method() == Some(Method::CANCEL)
            && key::of_cancelled(&message).is_some_and(|key| self.server_keys.contains_key(&*key))
        {
            let server = self.start_server(key.into(), flow, &message, context);
            return self.receive_cancel(server, message, context);
        }
        let (index, generation) = self.servers.insert(|_, _| Server {
            key: key.into(),
            owner: None,
            flow,
            reply_port: reply_port(&flow, &message),
            clock: Clock::default(),
            machine: ServerMachine::Unproven { asked },
            request: Some(Box::new(message.clone())),
        });
        let server = ServerId { index, generation };
        Some(Event::Request(Incoming { server, flow, request: message }))
    }

    pub(super) fn answer_unproven(
        &mut self,
        server: ServerId,
        asked: usize,
        answer: Bytes,
        out: &mut VecDeque<Output>,
    ) {
        if let Some(entry) = self.servers.remove(server.index, server.generation) {
            self.send_to_stranger(entry.reply_flow(), asked, answer, out);
        }
    }

    /// Sends what answers a stranger's request of `asked` octets, if it may be sent.
    pub(super) fn send_to_stranger(
        &mut self,
        to: Flow,
        asked: usize,
        answer: Bytes,
        out: &mut VecDeque<Output>,
    ) {
        if to.transport.is_reliable() {
            return self.send_stateless(to, answer, out);
        }
        match fitting(answer, asked) {
            Some(answer) => self.send_stateless(to, answer, out),
            None => notice(
                out,
                "answer_withheld",
                &to,
                "an answer that would be long, or more than twice what a stranger has sent, was not sent",
            ),
        }
    }

    /// The ACK to a failure that was sent without a transaction: nobody waits for it (RFC 3261 §8.2.7).
    pub(super) fn is_ack_to_stateless(&self, key: &[u8], ack: &Message) -> bool {
        let Some(tag) = ack.to().ok().and_then(|to| to.tag()) else { return false };
        self.tag_of(key, ack).is_some_and(|computed| computed.as_bytes() == tag)
    }

    /// Made of what a request shares with its retransmissions and its ACK.
    fn tag_of(&self, key: &[u8], request: &Message) -> Option<String> {
        let mac = Hmac::<Sha256>::new_from_slice(self.proof.as_ref()?).ok()?;
        let from = request.from().ok().and_then(|from| from.tag()).unwrap_or_default();
        let number = request.cseq().ok()?.number.to_be_bytes();
        let mac = [key, b"\0", request.call_id().ok()?, b"\0", from, b"\0", &number]
            .iter()
            .fold(mac, Mac::chain_update)
            .finalize()
            .into_bytes();
        let half = mac.first_chunk::<8>().copied().map(u64::from_be_bytes)?;
        Some(format!("s{half:016x}"))
    }
}

/// An answer cut to what may be sent for a request of `asked` octets; `None` if nothing can be left out any more. Left
/// out are, in this order, what is only informative and all challenges but the last, which every phone knows.
fn fitting(answer: Bytes, asked: usize) -> Option<Bytes> {
    let most =
        asked.saturating_add(HEADERS).saturating_mul(ANSWERED).saturating_sub(HEADERS).min(LONGEST_ANSWER);
    let mut answer = answer;
    for name in [
        Name::Server,
        Name::Supported,
        Name::Accept,
        Name::Allow,
        Name::WwwAuthenticate,
        Name::ProxyAuthenticate,
    ] {
        if answer.len() <= most {
            return Some(answer);
        }
        let message = Message::parse(answer.clone()).ok()?;
        let mut lines: Vec<usize> =
            message.lines().filter(|line| line.name == name).map(|line| line.index).collect();
        if matches!(name, Name::WwwAuthenticate | Name::ProxyAuthenticate) {
            lines.pop();
        }
        if lines.is_empty() {
            continue;
        }
        let mut edit = message.edit();
        for line in lines {
            edit.remove_line(line);
        }
        answer = edit.finish();
    }
    (answer.len() <= most).then_some(answer)
}
