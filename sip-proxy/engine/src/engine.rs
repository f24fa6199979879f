//! The engine: one input in, any number of outputs out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use seam::{Replied, SessionId, Told};
use sip_wire::{Message, Method};

use crate::admission;
use crate::call::{Call, End, Final, Purpose};
use crate::config::Config;
use crate::core::{Asker, AtHand, Core, Owner, Questions, TimerKey};
use crate::dialog::{DialogKey, dialog_key};
use crate::dialogs::Dialogs;
use crate::digest::Verdict;
use crate::door::NotDone;
use crate::farewells::Farewells;
use crate::flow::Flow;
use crate::guards::Guards;
use crate::ids::Ids;
use crate::io::{Command, DialogEnd, Input, Load, Output, Replica};
use crate::keys::CallKey;
use crate::proven::Proven;
use crate::registrar::Registrar;
use crate::replaces::read_replaces;
use crate::slot::{self, Slot};
use crate::slots::Slots;
use crate::spirals::Spirals;
use crate::strangers::{Sender, Strangers};
use crate::time::{self, Now};
use crate::timer::TimerQueue;
use crate::transaction::{Context, Event, Reply, ServerId, Transactions};
use crate::trunks::pings;
use crate::watchers::Watchers;
use crate::withheld::Withheld;

mod handover;
mod requests;

use requests::merge_key;

/// What a step of the transactions works with, by fields, so that they stay borrowable.
macro_rules! context {
    ($self:ident) => {
        Context { now: $self.core.now, out: &mut $self.core.out }
    };
}

/// A SIP node's signalling, without I/O. Feed it [`Input`]s, carry out its [`Output`]s in order, and call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
#[derive(Debug)]
pub struct Engine {
    core: Core,
    registrar: Registrar,
    calls: Slots<Call>,
    /// Of these, registrations on their way to a registrar behind us.
    registering: usize,
    sessions: AHashMap<SessionId, CallKey>,
    /// Calls whose INVITE or other first request is still open, by its transaction.
    upstream: AHashMap<ServerId, CallKey>,
    /// The first requests of calls, by what a proxy's fork does not change.
    firsts: AHashMap<DialogKey, CallKey>,
}

impl Engine {
    /// `seed` must be unpredictable in production; in tests it makes a run repeatable.
    pub fn new(config: Arc<Config>, seed: [u8; 32]) -> Self {
        let mut transactions = Transactions::new(config.timers, config.limits.transactions);
        transactions.configure(&config);
        let mut ids = Ids::new(seed, config.node);
        let mut key = [0; 32];
        ids.fill(&mut key);
        transactions.await_proof(key);
        let strangers = Strangers::new(&config.limits, &mut ids);
        let spirals = Spirals::new([ids.number(), ids.number()]);
        let mut core = Core {
            now: Now::default().own(),
            ids,
            config,
            policy: None,
            transactions,
            timers: TimerQueue::new(),
            out: VecDeque::new(),
            dialogs: Dialogs::new(),
            questions: Questions::new(),
            trunks: Default::default(),
            certificates: AHashMap::new(),
            guards: Guards {
                load: Load::Fine,
                draining: false,
                strangers,
                spirals,
                withheld: Withheld::new(),
                proven: Proven::new(),
            },
            watchers: Watchers::new(),
            farewells: Farewells::new(),
            at_hand: AtHand { sender: Sender::Stranger, verdict: None },
        };
        let registrar = Registrar::new(&mut core);
        Self {
            core,
            registrar,
            calls: Slots::new(),
            registering: 0,
            sessions: AHashMap::new(),
            upstream: AHashMap::new(),
            firsts: AHashMap::new(),
        }
    }

    /// One thing happened.
    pub fn handle(&mut self, input: Input, now: Now) {
        self.core.now = now.own();
        match input {
            Input::Received { flow, message } => self.receive(flow, message),
            Input::Judged { flow, message, verdict } => {
                self.core.at_hand.verdict = Some(verdict);
                self.receive(flow, message);
                self.core.at_hand.verdict = None;
            }
            Input::Refused { flow, refused } => self.core.refuse(flow, &refused),
            Input::SendFailed { ticket } => {
                if let Some(event) = self.core.transactions.send_failed(ticket, &mut context!(self)) {
                    self.on_event(event);
                }
            }
            Input::Identified { connection, names } => drop(self.core.certificates.insert(connection, names)),
            Input::Closed { connection } => {
                self.core.certificates.remove(&connection);
                self.core.guards.proven.closed(connection);
                for event in self.core.transactions.connection_closed(connection, &mut context!(self)) {
                    self.on_event(event);
                }
                self.registrar.connection_closed(connection, &mut self.core);
                self.follow_moves();
                if self.core.dialogs.streams.remove(&connection) {
                    for key in self.call_keys() {
                        self.with_call(key, |call, core, _| call.connection_closed(connection, core));
                    }
                }
            }
            Input::Resolved { question, addresses } => {
                match self.core.questions.resolving.remove(&question) {
                    Some(Asker::Branch(key, branch)) => self.with_call(key, |call, core, registrar| {
                        call.on_resolved(branch, addresses, core, registrar)
                    }),
                    Some(Asker::Ping(name)) => pings::send(&name, addresses, &mut self.core),
                    None => {}
                }
            }
            Input::Media(Replied { session, number, reply }) => {
                if let Some(key) = self.sessions.get(&session).copied() {
                    self.with_call(key, |call, core, registrar| {
                        call.on_media(number, reply, core, registrar)
                    });
                }
            }
            Input::MediaEvent(Told { session, event }) => {
                if let Some(key) = self.sessions.get(&session).copied() {
                    self.with_call(key, |call, core, registrar| call.on_media_event(event, core, registrar));
                }
            }
            Input::Replicate(Replica::Binding(change)) => self.registrar.replicate(change, &self.core),
            Input::Replicate(Replica::Watch(watch)) => self.core.watchers.began(watch),
            Input::Replicate(Replica::Unwatch(watch)) => self.core.watchers.ended(&watch),
            Input::Replicate(Replica::End(end)) => self.core.dialogs.remember(end.token, end.peer),
            Input::Command(command) => self.on_command(command),
        }
        self.follow_moves();
    }

    fn receive(&mut self, flow: Flow, message: Message) {
        if !self.core.is_sound(flow, &message) {
            return;
        }
        if let Some(event) = self.core.transactions.receive(flow, message, &mut context!(self)) {
            self.on_event(event);
        }
    }

    /// This engine judges the answers to nonces of this home. Each engine of a node has another one, and what answers a
    /// nonce is taken to the engine that made it ([`digest::home_of`](crate::digest::home_of)), which alone knows what
    /// was used before.
    pub fn set_home(&mut self, home: Slot) {
        self.registrar.authenticator.set_home(home);
    }

    /// Judges the credentials of a request for another engine, which gets [`Input::Judged`].
    pub fn judge(&mut self, flow: &Flow, request: &Message, now: Now) -> Verdict {
        self.core.now = now.own();
        let Some(realm) = self.core.realm_of(flow) else { return Verdict::Missing };
        let wanted = admission::wanted_credentials(request, realm);
        self.registrar.judge(flow, request, &wanted, &mut self.core)
    }

    /// A phone that has registered by another flow is to be reached there in its calls, too (RFC 5626 §5.3): behind a NAT
    /// that has rebound, the old one leads nowhere.
    fn follow_moves(&mut self) {
        for (from, to) in self.registrar.take_moves() {
            for key in self.call_keys() {
                self.with_call(key, |call, core, _| call.follow_move(from, to, core));
            }
            for mut farewell in self.core.farewells.of(from, self.core.now.monotonic) {
                farewell.dialog.flow = to;
                self.core.say_farewell(farewell);
            }
        }
    }

    /// The end that a request of another home wants to replace (`Replaces` of an INVITE, or in the Refer-To of a REFER),
    /// for the shard that asks; `None` if its dialog is not here.
    pub fn end_for(&self, message: &Message) -> Option<Replica> {
        let replaces = slot::replaces_of(message)?;
        let (call_id, to_tag, from_tag) = read_replaces(&replaces)?;
        // Named as either end knows it.
        let tokens = [dialog_key(call_id, to_tag, from_tag), dialog_key(call_id, from_tag, to_tag)];
        tokens.into_iter().find_map(|token| {
            let peer = self.core.dialogs.places.get(&token)?.peer.clone()?;
            Some(Replica::End(DialogEnd { token, peer }))
        })
    }

    /// How far the shell is behind with its work: strangers are refused first. What is in a dialog, CANCEL and ACK are
    /// always served.
    pub fn set_load(&mut self, load: Load) {
        self.core.guards.load = load;
    }

    /// What is due at `now`.
    pub fn handle_timeout(&mut self, now: Now) {
        self.core.now = now.own();
        while let Some(event) = self.core.transactions.handle_timeout(&mut context!(self)) {
            self.on_event(event);
        }
        while let Some(key) = self.core.timers.pop(self.core.now.monotonic) {
            match key {
                TimerKey::Registrar => {
                    self.registrar.tick(&mut self.core);
                    pings::ping(&mut self.core);
                }
                TimerKey::Call(key, timer) => {
                    self.with_call(key, |call, core, registrar| call.on_timer(timer, core, registrar))
                }
            }
        }
    }

    /// The next output, to be carried out before the one after it.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.out.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do; monotonic.
    pub fn poll_timeout(&self) -> Option<Duration> {
        let next = [self.core.transactions.poll_timeout(), self.core.timers.next()];
        next.into_iter().flatten().min().map(time::outside)
    }

    /// Calls, transactions, bindings.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.calls.len(), self.core.transactions.len(), self.registrar.len())
    }

    /// Whether calls, transactions, dialogs and timers but the registrar's are all gone.
    pub fn is_idle(&self) -> bool {
        self.calls.len() == 0
            && self.core.transactions.is_empty()
            && self.core.dialogs.places.is_empty()
            && self.core.dialogs.halves.is_empty()
            && self.sessions.is_empty()
            && self.upstream.is_empty()
            && self.firsts.is_empty()
            && self.core.timers.len() <= 1
            && self.core.guards.strangers.is_idle()
            && self.core.guards.spirals.is_idle()
            && self.core.watchers.is_idle()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Drain => self.core.guards.draining = true,
            Command::HangUpAll => {
                for key in self.call_keys() {
                    self.with_call(key, |call, core, _| call.hang_up(End::Shutdown, core));
                }
            }
            Command::Call { id, number, order } => match self.key_of(id) {
                Some(key) => self.with_call(key, |call, core, _| call.obey(number, order, core)),
                None if id.node() != self.core.config.node => {
                    self.core.answer_order(number, Err(NotDone::Elsewhere));
                }
                None => self.core.answer_order(number, Err(NotDone::Unknown)),
            },
            Command::Policy(policy) => {
                self.core.trunks.follow(policy.trunks(), self.core.now.monotonic);
                self.core.policy = Some(policy);
            }
            Command::Load(records) => self.registrar.load(records, &mut self.core),
        }
    }

    fn call_keys(&self) -> Vec<CallKey> {
        self.sessions.values().copied().collect()
    }

    fn has_call(&self, key: CallKey) -> bool {
        self.calls.get(key.index, key.generation).is_some()
    }

    /// Runs a step of a call and forgets the call if it is finished.
    fn with_call(&mut self, key: CallKey, step: impl FnOnce(&mut Call, &mut Core, &mut Registrar)) {
        let Some(call) = self.calls.get_mut(key.index, key.generation) else { return };
        step(call, &mut self.core, &mut self.registrar);
        if call.is_over() {
            for (aor, kind) in call.standing.counted.drain(..) {
                self.core.guards.strangers.ended(&aor, kind);
            }
        }
        if (call.is_over() || call.is_answered())
            && let Some(turn) = call.standing.turn.take()
        {
            self.core.guards.spirals.ended(turn);
        }
        if call.is_over()
            && let Some(watch) = call.standing.watch.take()
        {
            self.core.watchers.ended(&watch);
            self.core.out.push_back(Output::Replicate(Replica::Unwatch(watch)));
        }
        if call.is_finished() {
            if matches!(call.purpose(), Purpose::Register(_)) {
                self.registering = self.registering.saturating_sub(1);
            }
            let session = call.session();
            let server = call.upstream_server();
            if let Some(first) = merge_key(call.first_request()) {
                self.firsts.remove(&first);
            }
            self.calls.remove(key.index, key.generation);
            self.sessions.remove(&session);
            self.upstream.remove(&server);
        }
    }

    fn on_event(&mut self, event: Event<Owner>) {
        match event {
            Event::Request(incoming) => {
                let server = incoming.server;
                self.on_request(incoming);
                self.core.transactions.forget_unproven(server);
            }
            Event::Cancelled { invite, cancel } => {
                let key = self
                    .upstream
                    .get(&invite)
                    .copied()
                    .or_else(|| self.place_of(&cancel).map(|place| place.call));
                if let Some(key) = key {
                    self.with_call(key, |call, core, _| call.on_cancelled(invite, &cancel, core));
                }
            }
            Event::Ack { message, .. } => {
                if let Some(place) = self.place_of(&message) {
                    self.with_call(place.call, |call, core, _| call.on_ack(place.leg, &message, core));
                }
            }
            Event::Response { client, owner, message } => match owner {
                Owner::Branch(key, branch) if self.has_call(key) => {
                    self.with_call(key, |call, core, registrar| {
                        call.on_branch_response(branch, Reply { client, response: message }, core, registrar)
                    });
                }
                Owner::Forward(key, forward) if self.has_call(key) => {
                    self.with_call(key, |call, core, _| {
                        call.on_forward_response(forward, client, message, core)
                    });
                }
                // The call is gone; a 2xx to an INVITE of it still wants its ACK.
                Owner::Branch(..) | Owner::Forward(..) => {
                    let is_success = message.status().is_some_and(|status| (200..300).contains(&status));
                    if is_success && message.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE) {
                        self.core.take_down(client, &message, matches!(owner, Owner::Branch(..)));
                    }
                }
                Owner::Ping(trunk) => pings::answered(trunk, Some(&message), &mut self.core),
                Owner::Farewell(number) if message.status().is_some_and(|status| status >= 200) => {
                    self.core.farewells.heard(number)
                }
                Owner::Farewell(_) | Owner::Nobody | Owner::First(_) | Owner::Inside(_) => {}
            },
            Event::Timeout { owner, .. } => self.on_no_response(owner, 408),
            Event::TransportFailed { owner, .. } => self.on_no_response(owner, 503),
            // What answers a keepalive is awaited by nobody.
            Event::Stray { message, .. }
                if message.cseq().is_ok_and(|cseq| cseq.method == Method::OPTIONS) => {}
            Event::Stray { flow, message } if self.ends_stray(flow, &message) => {}
            Event::Stray { flow, message } => {
                let line: Vec<u8> = message.start_line().iter().copied().take(60).collect();
                let line = String::from_utf8_lossy(&line);
                self.core.notice(
                    "stray",
                    Some(flow.remote),
                    format!("{line}: a response to no request of ours"),
                );
            }
            Event::NoAck { .. } => {}
        }
    }

    fn ends_stray(&mut self, flow: Flow, message: &Message) -> bool {
        let is_known = self.core.peer_of(&flow).is_some() || self.registrar.by_flow(&flow, None).is_some();
        self.core.ends_stray(flow, message, is_known)
    }

    fn on_no_response(&mut self, owner: Owner, status: u16) {
        match owner {
            Owner::Branch(key, branch) => {
                self.with_call(key, |call, core, registrar| {
                    call.on_branch_failure(branch, Final::of_silence(status), core, registrar)
                });
            }
            Owner::Forward(key, forward) => {
                self.with_call(key, |call, core, _| call.on_forward_failure(forward, status, None, core))
            }
            Owner::Ping(trunk) => pings::answered(trunk, None, &mut self.core),
            Owner::Farewell(number) => self.core.farewells.unheard(number, self.core.now.monotonic),
            Owner::Nobody | Owner::First(_) | Owner::Inside(_) => {}
        }
    }
}
