//! What every part of a user agent works with.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Builder, Message, Method, Name};

use super::account::Account;
use super::event::{CallNumber, Event};
use crate::config::Listener;
use crate::dialog::Dialog;
use crate::flow::{Flow, ListenerId};
use crate::ids::Ids;
use crate::io::Output;
use crate::time::Now;
use crate::timer::{TimerId, TimerQueue};
use crate::transaction::{self, Asked, ClientId, Context, ServerId, Transactions};

/// Who gets the events of a client transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Registration,
    /// The INVITE that begins a call.
    Invite(CallNumber),
    /// A request inside a call's dialogs.
    Request(CallNumber, u32),
    /// A BYE: its call is gone.
    Farewell,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// The registration is to be refreshed.
    Registration,
    /// A reliable provisional response waits for its PRACK.
    Provisional(CallNumber),
    /// A 2xx waits for its ACK.
    Final(CallNumber),
    /// A session timer.
    Session(CallNumber),
    /// A re-INVITE that met 491.
    Retry(CallNumber, u32),
}

/// A BYE that has no answer yet.
#[derive(Debug)]
pub(super) struct Farewell {
    client: ClientId,
    flow: Flow,
    /// As it may be sent once more, with an answer to a challenge.
    request: Option<Arc<Message>>,
}

/// What a request outside any dialog is told apart by (RFC 3261 §8.1.1), beside its From, which is the account's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origination<'a> {
    pub(super) to: &'a [u8],
    pub(super) call_id: &'a str,
    pub(super) from_tag: &'a str,
    pub(super) cseq: u32,
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) account: Account,
    pub(super) now: Now,
    pub(super) ids: Ids,
    pub(super) transactions: Transactions<Owner>,
    pub(super) timers: TimerQueue<Alarm>,
    pub(super) out: VecDeque<Output>,
    pub(super) events: VecDeque<Event>,
    /// What calls placed for somebody else's REFER have met: the call of the REFER, and a status.
    pub(super) reports: VecDeque<(CallNumber, u16)>,
    /// Calls that have done what they were for: others' ends have been joined.
    pub(super) served: VecDeque<CallNumber>,
    /// BYEs that have no answer yet.
    pub(super) farewells: Vec<Farewell>,
}

impl Core {
    pub(super) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.account.listeners.get(usize::from(id.0))
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push_back(event);
    }

    pub(super) fn schedule(&mut self, after: std::time::Duration, alarm: Alarm) -> TimerId {
        self.timers.schedule(self.now.monotonic.saturating_add(after), alarm)
    }

    pub(super) fn send(&mut self, flow: Flow, request: impl Into<Arc<Message>>, owner: Owner) -> ClientId {
        let mut context = Context { now: self.now, out: &mut self.out };
        self.transactions.request(flow, request, owner, &mut context)
    }

    /// Sends a BYE.
    pub(super) fn take_leave(&mut self, flow: Flow, bye: Message) {
        let bye = Arc::new(bye);
        let client = self.send(flow, Arc::clone(&bye), Owner::Farewell);
        self.farewells.push(Farewell { client, flow, request: Some(bye) });
    }

    /// A BYE has no answer, and will have none.
    pub(super) fn forget_farewell(&mut self, client: ClientId) -> Option<Farewell> {
        let position = self.farewells.iter().position(|farewell| farewell.client == client)?;
        Some(self.farewells.remove(position))
    }

    /// A challenge to a BYE is answered, once, as to any request inside a dialog (RFC 3261 §22.1): else its peer stays in a
    /// call.
    pub(super) fn on_farewell_response(&mut self, client: ClientId, response: &Message) {
        let Some(status) = response.status().filter(|status| *status >= 200) else { return };
        let Some(Farewell { flow, request: Some(bye), .. }) = self.forget_farewell(client) else { return };
        if !matches!(status, 401 | 407) {
            return;
        }
        let cseq = bye.cseq().map(|cseq| cseq.number.saturating_add(1)).unwrap_or(2);
        let again =
            self.credentials(&bye, response).and_then(|added| self.again(&bye, cseq, &flow, &[added]));
        if let Some(again) = again {
            let client = self.send(flow, again, Owner::Farewell);
            self.farewells.push(Farewell { client, flow, request: None });
        }
    }

    pub(super) fn send_stateless(&mut self, flow: Flow, message: impl Into<Bytes>) {
        self.transactions.send_stateless(flow, message, &mut self.out);
    }

    pub(super) fn respond(&mut self, server: ServerId, status: u16, response: impl Into<Bytes>) {
        let mut context = Context { now: self.now, out: &mut self.out };
        self.transactions.respond(server, status, response, &mut context);
    }

    /// A response with nothing but what it must have.
    pub(super) fn respond_plainly<'a>(&mut self, asked: impl Into<Asked<'a>>, status: u16) {
        let Asked { server, request } = asked.into();
        let tag = self.ids.tag();
        let response =
            self.product(transaction::response_to(request, status, None, Some(&tag)), Name::Server);
        self.respond(server, status, response.finish());
    }

    pub(super) fn product(&self, message: Builder, name: Name) -> Builder {
        match &self.account.product {
            Some(product) => message.header(name, product.as_bytes()),
            None => message,
        }
    }

    /// Our Contact on messages over a listener.
    pub(super) fn contact(&self, id: ListenerId) -> String {
        let Some(listener) = self.listener(id) else { return String::new() };
        let transport = listener.transport.uri_parameter();
        format!("<sip:{}@{}{transport}>", self.account.user(), listener.advertised)
    }

    /// Contact, Allow, Supported and Recv-Info of what makes or changes a dialog.
    pub(super) fn abilities(&self, message: Builder, flow: &Flow) -> Builder {
        let message = message
            .header(Name::Contact, self.contact(flow.listener).as_bytes())
            .header(Name::Allow, self.account.allow().as_bytes())
            .header(Name::Supported, self.account.supported().as_bytes());
        self.info_packages(message)
    }

    /// Recv-Info (RFC 6086 §5.2.2): what an INVITE, its 2xx and a 469 say; nothing if no package is taken.
    pub(super) fn info_packages(&self, message: Builder) -> Builder {
        match &self.account.info_packages[..] {
            [] => message,
            packages => message.other(b"Recv-Info", packages.join(", ").as_bytes()),
        }
    }

    /// A request outside any dialog.
    pub(super) fn request(
        &mut self,
        method: Method<'_>,
        uri: &[u8],
        origination: Origination<'_>,
    ) -> Option<Builder> {
        let Origination { to, call_id, from_tag, cseq } = origination;
        let listener = self.account.listeners.get(usize::from(self.account.proxy.listener.0))?;
        let via = transaction::via(listener, &self.ids.branch());
        let from = format!("{};tag={from_tag}", self.account.identity());
        let cseq = [cseq.to_string().as_bytes(), b" ", method.as_bytes()].concat();
        let request = Builder::request(method, uri)
            .header(Name::Via, via.as_bytes())
            .header(Name::MaxForwards, b"70")
            .header(Name::From, from.as_bytes())
            .header(Name::To, to)
            .header(Name::CallId, call_id.as_bytes())
            .header(Name::CSeq, &cseq);
        Some(self.product(request, Name::UserAgent))
    }

    /// A request inside a dialog.
    pub(super) fn dialog_request(&mut self, dialog: &mut Dialog, method: Method<'_>) -> Option<Builder> {
        let listener = self.account.listeners.get(usize::from(dialog.flow.listener.0))?;
        let request = dialog.request(method, &mut self.ids, listener);
        Some(self.product(request, Name::UserAgent))
    }

    /// The same request once more, with another branch and CSeq number, and `header` added: what a challenge (RFC 3261
    /// §22.2) or too small an interval (RFC 4028 §7.3) asks for.
    pub(super) fn again(
        &mut self,
        request: &Message,
        cseq: u32,
        flow: &Flow,
        headers: &[(Name, String)],
    ) -> Option<Message> {
        let listener = self.account.listeners.get(usize::from(flow.listener.0))?;
        let via = transaction::via(listener, &self.ids.branch());
        let method = request.method()?;
        let mut edit = request.edit();
        edit.set(Name::Via, via.as_bytes());
        edit.set(Name::CSeq, &[cseq.to_string().as_bytes(), b" ", method.as_bytes()].concat());
        for (name, value) in headers {
            edit.set(*name, value.as_bytes());
        }
        Some(edit.message())
    }

    /// What answers a challenge to `request`, if our credentials can.
    pub(super) fn credentials(&mut self, request: &Message, challenged: &Message) -> Option<(Name, String)> {
        let credentials = self.account.credentials.clone()?;
        crate::digest::answer(
            challenged,
            request.method()?,
            request.request_uri()?,
            (&credentials).into(),
            &mut self.ids,
        )
    }

    /// A 2xx that belongs to no call any more: ACK, and BYE unless the dialog has had one (RFC 3261 §13.2.2.4).
    pub(super) fn take_down(&mut self, client: ClientId, response: &Message, with_bye: bool) {
        let flow = self.account.proxy;
        let Some(mut dialog) = Dialog::unwanted(response, flow) else { return };
        let Some(listener) = self.account.listeners.get(usize::from(flow.listener.0)) else { return };
        let ack = dialog.ack_for(dialog.local_cseq, &mut self.ids, listener).finish();
        let flow = next_hop(&dialog);
        self.transactions.acknowledge(client, flow, ack, &mut self.out);
        dialog.skip_forgotten();
        if with_bye && let Some(bye) = self.dialog_request(&mut dialog, Method::BYE) {
            self.take_leave(flow, bye.finish());
        }
    }
}

/// Where a dialog's requests go: to the literal address of the first route or the target (RFC 3261 §8.1.2), else, and
/// on streams, where its messages went before.
pub(super) fn next_hop(dialog: &Dialog) -> Flow {
    if dialog.flow.transport.is_reliable() {
        return dialog.flow;
    }
    let remote = dialog.literal_next_hop().filter(|remote| remote.is_ipv4() == dialog.flow.remote.is_ipv4());
    Flow { remote: remote.unwrap_or(dialog.flow.remote), ..dialog.flow }
}
