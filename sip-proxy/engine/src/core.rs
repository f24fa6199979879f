//! What every layer above the transactions works with.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use ahash::AHashMap;
use bytes::Bytes;
use sip_wire::{Builder, Message, Method, Name};

use crate::config::{Authentication, Config, Listener, Realm, RegistrarMode};
use crate::dialog::Dialog;
use crate::dialogs::Dialogs;
use crate::digest::Verdict;
use crate::door::{CallAnswer, CallAnswered, NotDone};
use crate::event::{CallEvent, CallEventKind};
use crate::farewells::{Farewell, Farewells};
use crate::flow::{ConnectionId, Flow, ListenerId, RealmId};
use crate::guards::Guards;
use crate::hop;
use crate::ids::Ids;
use crate::io::{Notice, Output};
use crate::keys::{BranchId, CallKey, CallTimer, ForwardId};
use crate::question::{Policy, QuestionId, Resolve};
use crate::strangers::Sender;
use crate::time::Now;
use crate::timer::{TimerId, TimerQueue};
use crate::transaction::{self, Asked, ClientId, Context, Hop, Incoming, ServerId, Share, Transactions};
use crate::trunks::Trunks;
use crate::watchers::Watchers;

/// The methods that we say we understand: those of every phone, and what is relayed anyway.
pub(crate) const ALLOW: &[u8] = b"INVITE, ACK, CANCEL, BYE, OPTIONS, REGISTER, PRACK, UPDATE, INFO, REFER, SUBSCRIBE, NOTIFY, MESSAGE, PUBLISH";

/// The same where nobody can register.
const ALLOW_WITHOUT_REGISTER: &[u8] =
    b"INVITE, ACK, CANCEL, BYE, OPTIONS, PRACK, UPDATE, INFO, REFER, SUBSCRIBE, NOTIFY, MESSAGE, PUBLISH";

/// Whose a transaction is. Of a client's, who gets its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The branch of a call.
    Branch(CallKey, BranchId),
    /// A request inside a call's dialogs.
    Forward(CallKey, ForwardId),
    /// The OPTIONS ping of a trunk, by its number there.
    Ping(u32),
    /// A BYE to a phone that may be away, by its number in [`Farewells`].
    Farewell(u32),
    /// Nobody waits for the answer: other BYEs, keepalives.
    Nobody,
    /// The first request of a call, which has come to us.
    First(CallKey),
    /// A request inside a call's dialogs, which has come to us.
    Inside(CallKey),
}

/// Whose timer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimerKey {
    /// Of a call.
    Call(CallKey, CallTimer),
    /// The registrar looks for bindings that expire or want a keepalive.
    Registrar,
}

/// Who has asked for a name to be resolved.
#[derive(Debug, Clone)]
pub(crate) enum Asker {
    /// The branch of a call.
    Branch(CallKey, BranchId),
    /// The ping of a trunk.
    Ping(Arc<str>),
}

/// Names that are being resolved.
#[derive(Debug)]
pub(crate) struct Questions {
    pub(crate) resolving: AHashMap<QuestionId, Asker>,
    next: u64,
}

impl Questions {
    pub(crate) fn new() -> Self {
        Self { resolving: AHashMap::new(), next: 0 }
    }
}

/// What is known of the request at hand.
#[derive(Debug)]
pub(crate) struct AtHand {
    /// How far its sender is known.
    pub(crate) sender: Sender,
    /// What the home of its nonce says of its credentials.
    pub(crate) verdict: Option<Verdict>,
}

/// The engine without its calls and bindings.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) now: Now,
    pub(crate) config: Arc<Config>,
    pub(crate) policy: Option<Arc<dyn Policy>>,
    pub(crate) ids: Ids,
    pub(crate) transactions: Transactions<Owner>,
    pub(crate) timers: TimerQueue<TimerKey>,
    pub(crate) out: VecDeque<Output>,
    pub(crate) dialogs: Dialogs,
    pub(crate) questions: Questions,
    pub(crate) trunks: Trunks,
    /// Names in the certificates of connections' peers.
    pub(crate) certificates: AHashMap<ConnectionId, Arc<[Arc<str>]>>,
    pub(crate) guards: Guards,
    pub(crate) watchers: Watchers,
    pub(crate) farewells: Farewells,
    pub(crate) at_hand: AtHand,
}

impl Core {
    pub(crate) fn realm(&self, id: RealmId) -> Option<&Realm> {
        self.config.realm(id)
    }

    pub(crate) fn listener(&self, id: ListenerId) -> Option<&Listener> {
        self.config.listener(id)
    }

    pub(crate) fn realm_of(&self, flow: &Flow) -> Option<&Realm> {
        self.config.realm_of(flow.listener)
    }

    /// The trunk that a request over `flow` comes from.
    pub(crate) fn peer_of(&self, flow: &Flow) -> Option<Arc<str>> {
        let realm = self.realm_of(flow)?.id;
        let names = flow.connection.and_then(|connection| self.certificates.get(&connection));
        let names = names.map(|names| &**names).unwrap_or_default();
        self.policy.as_ref()?.peer(realm, flow.remote.ip().to_canonical(), names)
    }

    /// Who sent a request over this flow has shown who it is.
    pub(crate) fn proven(&mut self, flow: &Flow) {
        self.out.extend(flow.connection.map(Output::Proven));
    }

    /// The same, by this user's password: whoever has too many connections loses his oldest.
    pub(crate) fn proven_by(&mut self, aor: &Arc<str>, flow: &Flow) {
        self.proven(flow);
        let limits = self.config.limits;
        let closed = flow.connection.and_then(|connection| self.guards.proven.note(aor, connection, &limits));
        if let Some(connection) = closed {
            self.notice(
                "user_connections",
                Some(flow.remote),
                format!("{aor} has more connections than phones and calls can need (limits.calls_per_user, limits.bindings_per_aor): the oldest is closed"),
            );
            self.out.push_back(Output::Close(connection));
        }
    }

    /// What became of an order.
    pub(crate) fn answer_order(&mut self, number: u64, result: Result<CallAnswer, NotDone>) {
        self.out.push_back(Output::Answered(CallAnswered { number, result }));
    }

    pub(crate) fn notice(
        &mut self,
        kind: &'static str,
        remote: Option<SocketAddr>,
        detail: impl Into<String>,
    ) {
        self.out.push_back(Output::Notice(Notice { kind, remote, detail: detail.into() }));
    }

    /// A body of a message over `flow` that is not passed: told, and the status that a request with it deserves.
    pub(crate) fn body_refused(&mut self, flow: Flow, fault: sip_wire::BodyFault) -> u16 {
        self.notice(
            "body_refused",
            Some(flow.remote),
            format!("{fault}: it is answered with {}", fault.status()),
        );
        fault.status()
    }

    pub(crate) fn send_request(
        &mut self,
        hop: impl Into<Hop>,
        request: impl Into<Arc<Message>>,
        owner: Owner,
    ) -> ClientId {
        let mut context = Context { now: self.now, out: &mut self.out };
        self.transactions.request(hop, request, owner, &mut context)
    }

    /// See [`Transactions::hasten`](crate::transaction::Transactions::hasten).
    pub(crate) fn hasten(&mut self, client: ClientId) {
        self.transactions.hasten(client, &mut Context { now: self.now, out: &mut self.out });
    }

    pub(crate) fn respond(&mut self, server: ServerId, status: u16, response: impl Into<Bytes>) {
        let mut context = Context { now: self.now, out: &mut self.out };
        self.transactions.respond(server, status, response, &mut context);
    }

    /// The sender of a request is one whom we serve: from here on it has a transaction. False if there is no room for one
    /// in its share; then it has its answer.
    pub(crate) fn keep(&mut self, incoming: &Incoming, share: Share) -> bool {
        let mut context = Context { now: self.now, out: &mut self.out };
        if self.transactions.keep(incoming.server, share, &mut context) {
            return true;
        }
        let remote = self.transactions.server_flow(incoming.server).map(|flow| flow.remote);
        self.notice(
            "transactions_exhausted",
            remote,
            format!("503: the share of {share} in limits.transactions is used up"),
        );
        self.refuse_for_now(incoming);
        false
    }

    /// Whether a request that has proven nothing may be answered; if not, it is dropped.
    fn may_answer(&mut self, server: ServerId) -> bool {
        let Some(flow) = self.transactions.server_flow(server) else { return false };
        // Where nobody need prove anything, nobody is limited for not doing so.
        let is_open = self.realm_of(&flow).is_some_and(|realm| realm.authentication == Authentication::Open);
        if is_open || self.guards.strangers.take(self.at_hand.sender, &flow, self.now) {
            return true;
        }
        self.transactions.forget_unproven(server);
        self.count_limited(&flow);
        false
    }

    /// A request that has proven nothing was dropped.
    pub(crate) fn count_limited(&mut self, flow: &Flow) {
        let limit = self.config.limits.unproven_per_source;
        self.notice(
            "source_limited",
            Some(flow.remote),
            format!("requests that prove nothing come faster than limits.unproven_per_source = {limit} allows: dropped; deny the address, or raise the limit if its phones are yours"),
        );
    }

    /// A user wanted more than one may have.
    pub(crate) fn count_user_limited(&mut self, aor: &str, flow: &Flow) {
        let detail =
            format!("503: {aor} asks for more than limits.calls_per_user or limits.requests_per_user allows");
        self.notice("user_limited", Some(flow.remote), detail);
    }

    /// 423: a subscription or publication must be asked for longer.
    pub(crate) fn refuse_brief(&mut self, incoming: &Incoming) {
        let least = crate::times::LEAST_EXPIRES.as_secs().to_string();
        self.reject_with(incoming, 423, |response| response.header(Name::MinExpires, least.as_bytes()));
    }

    /// 503 with Retry-After.
    pub(crate) fn refuse_for_now(&mut self, incoming: &Incoming) {
        let after = crate::times::rest_of(self.config.limits.retry_after);
        self.reject_with(incoming, 503, |response| response.header(Name::RetryAfter, after.as_bytes()));
    }

    /// The methods that a realm takes: REGISTER where there is a registrar (RFC 3261 §20.5).
    pub(crate) fn allowed(&self, flow: Option<&Flow>) -> &'static [u8] {
        let realm = flow.and_then(|flow| self.realm_of(flow));
        let has_registrar = realm.is_none_or(|realm| !matches!(realm.registrar, RegistrarMode::None));
        if has_registrar { ALLOW } else { ALLOW_WITHOUT_REGISTER }
    }

    /// Gives no answer at all to a request that is no INVITE: a 408 would come too late to be of use, and make its
    /// sender take a hop for dead that is not (RFC 4320 §4.2).
    pub(crate) fn stay_silent(&mut self, server: ServerId) {
        self.transactions.forget(server);
    }

    /// Answers a request by ourselves; without a transaction as long as its sender has proven nothing.
    pub(crate) fn reject<'a>(&mut self, asked: impl Into<Asked<'a>>, status: u16) {
        self.reject_with(asked, status, |response| response);
    }

    /// The same, with headers that say more.
    pub(crate) fn reject_with<'a>(
        &mut self,
        asked: impl Into<Asked<'a>>,
        status: u16,
        add: impl FnOnce(Builder) -> Builder,
    ) {
        let Asked { server, request } = asked.into();
        let tag = match self.transactions.computed_tag(server) {
            Some(_) if !self.may_answer(server) => return,
            Some(tag) => tag,
            None => self.ids.tag(),
        };
        let mut response = transaction::response_to(request, status, None, Some(&tag));
        if let Some(product) = &self.config.product {
            response = response.header(Name::Server, product.as_bytes());
        }
        if status == 405 || status == 501 {
            let flow = self.transactions.server_flow(server);
            response = response.header(Name::Allow, self.allowed(flow.as_ref()));
        }
        self.respond(server, status, add(response).finish());
    }

    pub(crate) fn cancel(&mut self, client: ClientId, reason: Option<&[u8]>) {
        let mut context = Context { now: self.now, out: &mut self.out };
        self.transactions.cancel(client, reason, &mut context);
    }

    pub(crate) fn schedule(&mut self, after: std::time::Duration, key: TimerKey) -> TimerId {
        self.timers.schedule(self.now.monotonic.saturating_add(after), key)
    }

    /// How long it is yet until a timer is due.
    pub(crate) fn left_of(&self, timer: Option<TimerId>) -> Option<std::time::Duration> {
        Some(self.timers.due(timer?)?.saturating_sub(self.now.monotonic))
    }

    pub(crate) fn resolve(&mut self, asker: Asker, resolve: Resolve) {
        let question = QuestionId(self.questions.next);
        self.questions.next = self.questions.next.wrapping_add(1);
        self.questions.resolving.insert(question, asker);
        self.out.push_back(Output::Resolve { question, resolve });
    }

    /// The Contact of messages that leave over `listener`.
    pub(crate) fn contact(&self, listener: ListenerId) -> Vec<u8> {
        let Some(listener) = self.listener(listener) else { return Vec::new() };
        let transport = listener.transport.uri_parameter();
        format!("<sip:{}{transport}>", listener.advertised).into_bytes()
    }

    pub(crate) fn record(&mut self, call: u128, sequence: u32, what: CallEventKind) {
        let monotonic = crate::time::outside(self.now.monotonic);
        let event = CallEvent { call, sequence, wall: self.now.wall, monotonic, what };
        self.out.push_back(Output::Record(event));
    }

    /// A 2xx to an INVITE that nobody wants: ACK, and BYE unless the dialog has had one (RFC 3261 §13.2.2.4).
    pub(crate) fn take_down(&mut self, client: ClientId, response: &Message, with_bye: bool) {
        let Some(flow) = self.transactions.client_flow(client) else { return };
        let Some(mut dialog) = Dialog::unwanted(response, flow) else { return };
        let Some((flow, ack)) = self.dialog_ack(&dialog, dialog.local_cseq) else { return };
        self.transactions.acknowledge(client, flow, ack.finish(), &mut self.out);
        if with_bye {
            self.say_bye(&mut dialog);
        }
    }

    /// A 2xx to an INVITE that no transaction knows: of a dialog that lives, which wants its ACK again; or of one that
    /// died with the process before us, which gets its ACK and BYE. The latter holds nothing that only we could have
    /// written, so it must name us and come from a trunk or a phone that is known, and what it gets goes to where it
    /// came from, whatever its Contact says. Returns whether it was one of these.
    pub(crate) fn ends_stray(&mut self, flow: Flow, response: &Message, is_known: bool) -> bool {
        let is_success = response.status().is_some_and(|status| (200..300).contains(&status));
        if !is_success || !response.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE) {
            return false;
        }
        let Some(mut dialog) = Dialog::unwanted(response, flow) else { return false };
        let Some(listener) = self.config.listener(flow.listener) else { return false };
        let invite_cseq = dialog.local_cseq;
        if self.dialogs.places.contains_key(&dialog.key()) {
            let ack = dialog.ack_for(invite_cseq, &mut self.ids, listener).finish();
            self.transactions.send_stateless(flow, ack, &mut self.out);
            return true;
        }
        let is_ours =
            crate::slot::Slot::minted(&dialog.call_id).is_some_and(|(node, _)| node == self.config.node);
        let is_here = response.via().is_ok_and(|via| {
            via.host.address() == Some(listener.advertised.ip())
                && via.port.unwrap_or(5060) == listener.advertised.port()
        });
        if !is_ours || !is_here || !is_known {
            return false;
        }
        let ack = dialog.ack_for(invite_cseq, &mut self.ids, listener).finish();
        dialog.skip_forgotten();
        let bye = dialog.request(Method::BYE, &mut self.ids, listener).finish();
        // Without a transaction: who does not hear it says 200 again.
        for message in [ack, bye] {
            self.transactions.send_stateless(flow, message, &mut self.out);
        }
        self.notice("stray_ended", Some(flow.remote), "a call that was answered after a restart was ended");
        true
    }

    /// BYE to a phone, with what the other side says of the reason. If its connection turns out to be gone, it hears of it
    /// when it is back.
    pub(crate) fn say_farewell(&mut self, mut farewell: Farewell) {
        let Some((hop, mut bye)) = self.dialog_request(&mut farewell.dialog, Method::BYE) else { return };
        for reason in sip_wire::Values::of_list(farewell.reason.as_deref().unwrap_or_default()) {
            bye = bye.header(Name::Reason, reason);
        }
        let may_be_away = farewell.dialog.flow.connection.is_some() || farewell.left.is_some();
        let owner = match may_be_away {
            true => Owner::Farewell(self.farewells.sent(farewell)),
            false => Owner::Nobody,
        };
        self.send_request(hop, bye.finish(), owner);
    }

    fn say_bye(&mut self, dialog: &mut Dialog) {
        dialog.skip_forgotten();
        if let Some((hop, bye)) = self.dialog_request(dialog, Method::BYE) {
            self.send_request(hop, bye.finish(), Owner::Nobody);
        }
    }

    /// The ACK of a 2xx in a dialog, and the way that it goes.
    pub(crate) fn dialog_ack(&mut self, dialog: &Dialog, invite_cseq: u32) -> Option<(Flow, Builder)> {
        let flow = hop::next_hop(dialog, &self.config).flow;
        let listener = self.config.listener(flow.listener)?;
        Some((flow, dialog.ack_for(invite_cseq, &mut self.ids, listener)))
    }

    /// A request in a dialog, and the way that it goes.
    pub(crate) fn dialog_request(
        &mut self,
        dialog: &mut Dialog,
        method: Method<'_>,
    ) -> Option<(Hop, Builder)> {
        let hop = hop::next_hop(dialog, &self.config);
        let listener = self.config.listener(hop.flow.listener)?;
        let mut request = dialog.request(method, &mut self.ids, listener);
        if let Some(product) = &self.config.product {
            request = request.header(Name::UserAgent, product.as_bytes());
        }
        Some((hop, request))
    }
}
