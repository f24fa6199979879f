//! A user agent (RFC 3261 §8): what a telephone's signalling is, on the same transactions and dialogs as the
//! [`Engine`](crate::Engine), and like it without sockets, clocks or randomness.
//!
//! It registers, places and answers calls, changes, holds and transfers them. Descriptions of the session are opaque
//! to it; what it knows is whose turn it is to give one ([`negotiation`](crate::negotiation)), and where it travels. A
//! shell feeds [`UserAgent::handle`], carries out [`UserAgent::poll_output`] and shows [`UserAgent::poll_event`] to
//! whoever decides: a person, a program, a test.

mod account;
mod call;
mod core;
mod event;
mod grant;
mod incoming;
mod open;
mod outgoing;
mod register;
mod request;
mod session;
mod transfer;

pub use account::{Abilities, Account, REGISTRATION};
pub use event::{CallNumber, Ending, Event, Fork, Misuse};
pub use outgoing::Invite;
pub use request::Info;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sip_wire::{Message, Method, Name, check_request};

use crate::config::Listener;
use crate::flow::Flow;
use crate::ids::Ids;
use crate::io::{Input, Output};
use crate::negotiation::Agreed;
use crate::question::TrunkCredentials;
use crate::time::Now;
use crate::timer::TimerQueue;
use crate::transaction::{self, ClientId, Context, Incoming, Transactions};

use call::{Call, Origin, Phase};
use core::{Alarm, Core, Owner};
use register::Registration;

/// One account's user agent.
///
/// Every method that takes the time may leave outputs and events; take them all before the next.
#[derive(Debug)]
pub struct UserAgent {
    core: Core,
    calls: BTreeMap<CallNumber, Call>,
    next_call: u32,
    registration: Registration,
}

/// Extensions that an INVITE may require of us.
const KNOWN_OPTIONS: [&str; 4] = ["replaces", "timer", "100rel", "norefersub"];

impl UserAgent {
    /// `seed` must be unpredictable in production; in tests it makes a run repeatable.
    pub fn new(account: Account, seed: [u8; 32]) -> Self {
        let mut transactions = Transactions::new(account.timers, 10_000);
        transactions.set_listeners(&account.listeners);
        let core = Core {
            now: Now::default(),
            ids: Ids::new(seed, 0),
            transactions,
            timers: TimerQueue::new(),
            out: VecDeque::new(),
            events: VecDeque::new(),
            reports: VecDeque::new(),
            served: VecDeque::new(),
            farewells: Vec::new(),
            account,
        };
        Self { core, calls: BTreeMap::new(), next_call: 1, registration: Registration::default() }
    }

    /// Something came from outside. Only messages and what became of sends concern a user agent.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.core.now = now;
        match input {
            Input::Received { flow, message } => {
                if let Some(event) = self.core.transactions.receive(
                    flow,
                    message,
                    &mut Context { now, out: &mut self.core.out },
                ) {
                    self.on_event(event);
                }
            }
            Input::SendFailed { ticket } => {
                if let Some(event) =
                    self.core.transactions.send_failed(ticket, &mut Context { now, out: &mut self.core.out })
                {
                    self.on_event(event);
                }
            }
            Input::Closed { connection } => {
                for event in self
                    .core
                    .transactions
                    .connection_closed(connection, &mut Context { now, out: &mut self.core.out })
                {
                    self.on_event(event);
                }
            }
            Input::Refused { flow, refused } => {
                let tag = self.core.ids.tag();
                if let Some(answer) = refused.response(&tag) {
                    self.core.send_stateless(flow, answer.finish());
                }
            }
            // The rest is a node's business.
            _ => {}
        }
        self.report();
    }

    /// What is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.core.now = now;
        while let Some(event) =
            self.core.transactions.handle_timeout(&mut Context { now, out: &mut self.core.out })
        {
            self.on_event(event);
        }
        while let Some(alarm) = self.core.timers.pop(now.monotonic) {
            match alarm {
                Alarm::Registration => self.registration.on_due(&mut self.core),
                Alarm::Provisional(call) => self.with_call(call, |call, core| call.on_provisional_due(core)),
                Alarm::Final(call) => self.with_call(call, |call, core| call.on_success_due(core)),
                Alarm::Session(call) => self.with_call(call, |call, core| call.on_session_due(core)),
                Alarm::Retry(call, id) => self.with_call(call, |call, core| call.on_retry(id, core)),
            }
        }
        self.report();
    }

    /// The next output, to be carried out before the one after it.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.out.pop_front()
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.core.events.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; monotonic.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [self.core.transactions.poll_timeout(), self.core.timers.next()].into_iter().flatten().min()
    }

    /// Whether no call, transaction or timer is left.
    pub fn is_idle(&self) -> bool {
        self.calls.is_empty() && self.core.transactions.is_empty() && self.core.timers.is_empty()
    }

    /// Whether nobody is owed a word any more: no call is left, and what was said last (BYE, REGISTER) has its answer. Transactions
    /// may linger, for what the network repeats.
    pub fn has_taken_leave(&self) -> bool {
        self.calls.is_empty() && self.core.farewells.is_empty() && !self.registration.is_pending()
    }

    /// What is agreed in a call that is up.
    pub fn agreed(&self, call: CallNumber) -> Option<&Agreed> {
        self.calls.get(&call)?.legs.first()?.negotiation.agreed()
    }

    /// Calls that are not over, and whether each is up.
    pub fn calls(&self) -> impl Iterator<Item = (CallNumber, bool)> + '_ {
        self.calls.values().map(|call| (call.number, call.phase == Phase::Up))
    }

    /// Registers for so long, and stays registered; zero undoes it.
    pub fn register(&mut self, expires: Duration, now: Now) {
        self.core.now = now;
        self.registration.ask(expires, &mut self.core);
    }

    /// Calls `target`, a URI.
    pub fn call(&mut self, target: &[u8], invite: Invite, now: Now) -> CallNumber {
        self.core.now = now;
        self.place(target, invite, None)
    }

    fn place(&mut self, target: &[u8], invite: Invite, referrer: Option<CallNumber>) -> CallNumber {
        let number = CallNumber(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        if let Some(mut call) = Call::place(number, target, invite, &mut self.core) {
            call.referrer = referrer;
            self.calls.insert(number, call);
        }
        number
    }

    /// The next PRACK that confirms an answer carries this offer.
    pub fn offer_in_prack(&mut self, call: CallNumber, sdp: Bytes) -> Result<(), Misuse> {
        match self.calls.get_mut(&call).map(|call| &mut call.origin) {
            Some(Origin::Caller(caller)) => {
                caller.prack_offer = Some(sdp);
                Ok(())
            }
            Some(Origin::Callee(_)) => Err(Misuse::NotNow),
            None => Err(Misuse::NoCall),
        }
    }

    /// A provisional response (101 to 199) to a call that comes in.
    pub fn ring(
        &mut self,
        call: CallNumber,
        status: u16,
        sdp: Option<Bytes>,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.ring(status, sdp, false, core))
    }

    /// The same, repeated until its PRACK comes (RFC 3262), where the caller knows that.
    pub fn ring_reliably(
        &mut self,
        call: CallNumber,
        status: u16,
        sdp: Option<Bytes>,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.ring(status, sdp, true, core))
    }

    /// Takes a call: with the answer, or with the offer if the INVITE held none. A call that it replaces is hung up.
    pub fn accept(&mut self, call: CallNumber, sdp: Option<Bytes>, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.accept(sdp, core))?;
        if let Some(replaced) = self.calls.get_mut(&call).and_then(|call| call.replaces.take()) {
            self.with_call(replaced, |call, core| call.hang_up(Ending::HungUp, core));
        }
        Ok(())
    }

    /// Refuses a call that comes in, with a status from 400 to 699.
    pub fn refuse(&mut self, call: CallNumber, status: u16, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| match (call.phase, &call.origin) {
            (Phase::Early, Origin::Callee(_)) => {
                call.decline(status, core);
                Ok(())
            }
            _ => Err(Misuse::NotNow),
        })
    }

    /// Refuses a call that comes in, and asks for peace for so long (Retry-After).
    pub fn refuse_for(
        &mut self,
        call: CallNumber,
        status: u16,
        rest: Duration,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| match (call.phase, &call.origin) {
            (Phase::Early, Origin::Callee(_)) => {
                let rest = (Name::RetryAfter, crate::times::rest_of(rest).into_bytes());
                call.decline_with(status, Ending::Declined(status), &[rest], core);
                Ok(())
            }
            _ => Err(Misuse::NotNow),
        })
    }

    /// Other credentials, from the next challenge on.
    pub fn authenticate_as(&mut self, username: &str, password: &str) {
        self.core.account.credentials =
            Some(TrunkCredentials { username: username.into(), password: password.into() });
    }

    /// Sends the caller elsewhere (RFC 3261 §13.3.1.2).
    pub fn redirect(&mut self, call: CallNumber, contacts: &[&[u8]], now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| match (call.phase, &call.origin) {
            (Phase::Early, Origin::Callee(_)) => {
                let contacts: Vec<_> =
                    contacts.iter().map(|contact| (Name::Contact, [b"<", *contact, b">"].concat())).collect();
                call.decline_with(302, Ending::Declined(302), &contacts, core);
                Ok(())
            }
            _ => Err(Misuse::NotNow),
        })
    }

    /// Answers an offer.
    pub fn answer(&mut self, call: CallNumber, fork: Fork, sdp: Bytes, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.answer(fork, sdp, core))
    }

    /// Makes the offer that was asked for.
    pub fn offer(&mut self, call: CallNumber, fork: Fork, sdp: Bytes, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.offer(fork, sdp, core))
    }

    /// Refuses an offer, or to make one.
    pub fn refuse_offer(
        &mut self,
        call: CallNumber,
        fork: Fork,
        status: u16,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.refuse_offer(fork, status, core))
    }

    /// Changes a call that is up: hold, resume, other media. Without an offer the other side makes it.
    pub fn reinvite(&mut self, call: CallNumber, offer: Option<Bytes>, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.reinvite(offer, core))
    }

    /// Takes a re-INVITE back that has not been answered.
    pub fn cancel_reinvite(&mut self, call: CallNumber, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.cancel_reinvite(core))
    }

    /// UPDATE, in an early dialog or a call that is up; without an offer it only refreshes.
    pub fn update(
        &mut self,
        call: CallNumber,
        fork: Fork,
        offer: Option<Bytes>,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.update(fork, offer, core))
    }

    /// INFO (RFC 6086), in a call that is up.
    pub fn info(
        &mut self,
        call: CallNumber,
        content_type: &[u8],
        body: Bytes,
        now: Now,
    ) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| {
            let fork = call.legs.first().filter(|leg| leg.dialog.confirmed).ok_or(Misuse::NotNow)?.fork;
            call.request_in(fork, Method::INFO, core, |request| request.body(content_type, body));
            Ok(())
        })
    }

    /// INFO of a package (RFC 6086 §4.2), in a call that is up.
    pub fn info_of(&mut self, call: CallNumber, info: Info<'_>, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| {
            let fork = call.legs.first().filter(|leg| leg.dialog.confirmed).ok_or(Misuse::NotNow)?.fork;
            call.request_in(fork, Method::INFO, core, |request| {
                request
                    .other(b"Info-Package", info.package.as_bytes())
                    .header(Name::ContentDisposition, b"Info-Package")
                    .body(info.content_type, info.body)
            });
            Ok(())
        })
    }

    /// The account's own address has changed: another network. Requests from now on name it. What is to follow at once is
    /// the user's: [`register`](Self::register), and [`reinvite`](Self::reinvite) in each call.
    pub fn moved(&mut self, listeners: Vec<Listener>, proxy: Flow, now: Now) {
        self.core.now = now;
        self.core.transactions.set_listeners(&listeners);
        self.core.account.listeners = listeners;
        self.core.account.proxy = proxy;
        for call in self.calls.values_mut() {
            call.moved(proxy);
        }
        self.registration.moved(&mut self.core);
    }

    /// Asks the other end to call `target` (blind transfer). When it reports that it talks to it, the call is hung up (RFC 5589
    /// §6.1); until then, and if it fails, the call goes on.
    pub fn refer(&mut self, call: CallNumber, target: &[u8], now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.refer(target, None, core))
    }

    /// Asks the other end to take over our other call (attended transfer). When it reports that it has, both calls are hung up,
    /// unless they have ended already (RFC 5589 §7.1).
    pub fn refer_to_call(&mut self, call: CallNumber, other: CallNumber, now: Now) -> Result<(), Misuse> {
        let dialog =
            self.calls.get(&other).and_then(|other| other.legs.first()).map(|leg| leg.dialog.clone());
        let dialog = dialog.filter(|dialog| dialog.confirmed).ok_or(Misuse::NoCall)?;
        self.wish(call, now, |call, core| call.refer(&dialog.target, Some((other, &dialog)), core))
    }

    /// Does what a REFER asks: places the call, with Replaces and Referred-By as it says, and reports on it.
    pub fn accept_transfer(
        &mut self,
        call: CallNumber,
        invite: Invite,
        now: Now,
    ) -> Result<CallNumber, Misuse> {
        let referred = self.wish(call, now, |call, core| call.accept_refer(core))?;
        let invite = Invite { replaces: referred.replaces, referred_by: referred.referred_by, ..invite };
        Ok(self.place(&referred.target, invite, Some(call)))
    }

    /// Refuses a REFER.
    pub fn refuse_transfer(&mut self, call: CallNumber, status: u16, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| call.refuse_refer(status, core))
    }

    /// Ends a call, by whatever its state needs: CANCEL, a refusal, BYE.
    pub fn hang_up(&mut self, call: CallNumber, now: Now) -> Result<(), Misuse> {
        self.wish(call, now, |call, core| {
            call.hang_up(Ending::HungUp, core);
            Ok(())
        })
    }

    fn wish<T>(
        &mut self,
        call: CallNumber,
        now: Now,
        step: impl FnOnce(&mut Call, &mut Core) -> Result<T, Misuse>,
    ) -> Result<T, Misuse> {
        self.core.now = now;
        let mut result = Err(Misuse::NoCall);
        self.with_call(call, |call, core| result = step(call, core));
        self.report();
        result
    }

    fn with_call(&mut self, number: CallNumber, step: impl FnOnce(&mut Call, &mut Core)) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        step(call, &mut self.core);
        if call.phase == Phase::Over {
            self.calls.remove(&number);
        }
    }

    /// Passes on how far calls are that others referred us to, and ends those that have been transferred.
    fn report(&mut self) {
        while let Some((referrer, status)) = self.core.reports.pop_front() {
            self.with_call(referrer, |call, core| call.notify(status, core));
        }
        while let Some(served) = self.core.served.pop_front() {
            self.with_call(served, |call, core| call.hang_up(Ending::HungUp, core));
        }
    }

    fn on_event(&mut self, event: transaction::Event<Owner>) {
        match event {
            transaction::Event::Request(incoming) => self.on_request(incoming),
            transaction::Event::Cancelled { invite, .. } => {
                let numbers: Vec<CallNumber> = self.calls.keys().copied().collect();
                for number in numbers {
                    self.with_call(number, |call, core| call.on_cancelled(invite, core));
                }
            }
            transaction::Event::Ack { message, .. } => {
                if let Some((number, fork)) = self.place_of(&message) {
                    self.with_call(number, |call, core| call.on_ack(fork, &message, core));
                }
            }
            transaction::Event::Response { client, owner, message } => match owner {
                Owner::Registration => self.registration.on_response(client, &message, &mut self.core),
                Owner::Invite(number) if self.calls.contains_key(&number) => {
                    self.with_call(number, |call, core| call.on_invite_response(client, message, core));
                }
                Owner::Request(number, id) if self.calls.contains_key(&number) => {
                    self.with_call(number, |call, core| call.on_response(id, client, message, core));
                }
                // The call is gone; a 2xx to an INVITE of it still wants its ACK.
                Owner::Invite(_) | Owner::Request(..) => {
                    let is_success = message.status().is_some_and(|status| (200..300).contains(&status));
                    if is_success && message.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE) {
                        self.core.take_down(client, &message, matches!(owner, Owner::Invite(_)));
                    }
                }
                Owner::Farewell => self.core.on_farewell_response(client, &message),
            },
            transaction::Event::Timeout { client, owner, .. } => self.on_no_response(client, owner, 408),
            transaction::Event::TransportFailed { client, owner, .. } => {
                self.on_no_response(client, owner, 503);
            }
            transaction::Event::NoAck { .. } | transaction::Event::Stray { .. } => {}
        }
    }

    fn on_no_response(&mut self, client: ClientId, owner: Owner, status: u16) {
        match owner {
            Owner::Registration => self.registration.unanswered(client, status, &mut self.core),
            Owner::Invite(number) => {
                self.with_call(number, |call, core| call.on_invite_failure(status, core));
            }
            Owner::Request(number, id) => {
                self.with_call(number, |call, core| call.on_no_response(id, status, core));
            }
            Owner::Farewell => drop(self.core.forget_farewell(client)),
        }
    }

    fn place_of(&self, request: &Message) -> Option<(CallNumber, Fork)> {
        self.calls.values().find_map(|call| Some((call.number, call.fork_of(request)?)))
    }

    fn on_request(&mut self, incoming: Incoming) {
        let Incoming { server, flow, request } = &incoming;
        if let Err(cause) = check_request(request) {
            self.core.respond_plainly(&incoming, cause.status());
            return;
        }
        let method = request.method().unwrap_or(Method::OPTIONS);
        if request.to().is_ok_and(|to| to.tag().is_some()) {
            match self.place_of(request) {
                Some((number, fork)) => {
                    self.with_call(number, |call, core| call.on_request(fork, incoming, core))
                }
                None => self.core.respond_plainly(&incoming, 481),
            }
        } else if method == Method::INVITE {
            self.on_invite(incoming);
        } else if method == Method::OPTIONS || method == Method::MESSAGE || method == Method::NOTIFY {
            let tag = self.core.ids.tag();
            let response = transaction::response_to(request, 200, None, Some(&tag));
            let response = self.core.abilities(response, flow).header(Name::Accept, b"application/sdp");
            self.core.respond(*server, 200, response.finish());
        } else {
            let status = if method == Method::BYE || method == Method::CANCEL { 481 } else { 405 };
            let tag = self.core.ids.tag();
            let response = transaction::response_to(request, status, None, Some(&tag))
                .header(Name::Allow, self.core.account.allow().as_bytes());
            self.core.respond(*server, status, response.finish());
        }
    }

    fn on_invite(&mut self, incoming: Incoming) {
        let Incoming { server, request, .. } = &incoming;
        let core = &mut self.core;
        let knows_reliable = core.account.abilities.reliable;
        let unknown: Vec<&[u8]> = request
            .values(Name::Require)
            .filter(|option| {
                !KNOWN_OPTIONS.iter().any(|known| {
                    option.eq_ignore_ascii_case(known.as_bytes()) && (*known != "100rel" || knows_reliable)
                })
            })
            .collect();
        if !unknown.is_empty() {
            let tag = core.ids.tag();
            let response = transaction::response_to(request, 420, None, Some(&tag))
                .header(Name::Unsupported, &unknown.join(&b", "[..]));
            core.respond(*server, 420, response.finish());
            return;
        }
        if let Some(least) = crate::session_timer::too_small(request, core.account.session_timer) {
            let tag = core.ids.tag();
            let response = transaction::response_to(request, 422, None, Some(&tag))
                .header(Name::MinSe, least.to_string().as_bytes());
            core.respond(*server, 422, response.finish());
            return;
        }
        let mut replaces = None;
        if let Some(value) = request.value(Name::Replaces) {
            replaces = self.calls.values().find(|call| call.is_named_by(value)).map(|call| call.number);
            if replaces.is_none() {
                // RFC 3891 §3.
                self.core.respond_plainly(&incoming, 481);
                return;
            }
        }
        let number = CallNumber(self.next_call);
        self.next_call = self.next_call.saturating_add(1);
        if let Some(call) = Call::receive(number, incoming, replaces, &mut self.core) {
            self.calls.insert(number, call);
        }
    }
}
