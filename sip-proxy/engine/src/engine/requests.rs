//! Requests as they come: to the dialog that they belong to, to the registrar, or to a call that they begin.

use sip_wire::{Message, Method, Name};

use super::Engine;
use crate::admission::{self, Admission};
use crate::call::{Admitted, Call, Purpose};
use crate::config::Authentication;
use crate::core::Owner;
use crate::dialog::{DialogKey, dialog_key};
use crate::dialogs::DialogPlace;
use crate::flow::RealmId;
use crate::io::{Load, Output, Replica};
use crate::keys::{BranchId, CallKey, LegId, Side};
use crate::question::Caller;
use crate::registrar::Registration;
use crate::strangers::{Kind, Sender};
use crate::transaction::{Incoming, Share};
use crate::watchers::Watch;

impl Engine {
    pub(super) fn place_of(&self, message: &Message) -> Option<DialogPlace> {
        let local = message.to().ok()?.tag()?;
        let remote = message.from().ok()?.tag().unwrap_or_default();
        let call_id = message.call_id().ok()?;
        // Who answered without a tag may ask with one: its tag was null (RFC 3261 §12.1.2).
        let named = self.core.dialogs.places.get(&dialog_key(call_id, local, remote));
        named.or_else(|| self.core.dialogs.places.get(&dialog_key(call_id, local, b""))).cloned()
    }

    pub(super) fn on_request(&mut self, incoming: Incoming) {
        let Incoming { flow, request, .. } = &incoming;
        let Some(method) = request.method() else { return };
        self.core.at_hand.sender = if self.core.peer_of(flow).is_some() {
            Sender::Trunk
        } else if self.registrar.by_flow(flow, None).is_some() {
            Sender::Registered
        } else {
            Sender::Stranger
        };
        // A request is in a dialog if the dialog is known. A To tag alone proves nothing, and opens nothing.
        if request.to().is_ok_and(|to| to.tag().is_some()) {
            if !self.is_in_dialog(request) {
                self.core.reject(&incoming, 481);
            } else if self.core.keep(&incoming, Share::Dialogs) && !self.core.asks_too_much(&incoming) {
                self.on_dialog_request(incoming);
            }
            return;
        }
        if method == Method::CANCEL {
            self.core.reject(&incoming, 481);
            return;
        }
        if !self.lets_in(&incoming) || self.core.asks_too_much(&incoming) {
            return;
        }
        if merge_key(request).is_some_and(|key| self.firsts.contains_key(&key)) {
            // It came twice, on two ways (RFC 3261 §8.2.2.2).
            self.core.reject(&incoming, 482);
            return;
        }
        match admission::admit(&incoming, &mut self.core, &mut self.registrar) {
            Err(rejection) => rejection.answer(&incoming, &mut self.core, &self.registrar),
            Ok(Admission::Ping) => admission::answer_ping(&incoming, &mut self.core),
            Ok(Admission::Keepalive) => self.core.reject(&incoming, 200),
            Ok(Admission::Register) => match self.registrar.on_register(&incoming, &mut self.core) {
                Registration::Done => {}
                Registration::Forward(forwarded) => {
                    let realm = self.core.realm_of(flow).map(|realm| realm.id).unwrap_or(RealmId(0));
                    let caller = Caller::Anonymous;
                    let admitted = Admitted { incoming, realm, caller, identity: None };
                    self.start(Purpose::Register(forwarded), admitted);
                }
            },
            Ok(Admission::Call(admitted)) => {
                match &admitted.caller {
                    Caller::Subscriber { aor } => self.core.proven_by(aor, flow),
                    _ => self.core.proven(flow),
                }
                let purpose = if method == Method::INVITE {
                    Purpose::Session
                } else if method == Method::SUBSCRIBE {
                    Purpose::Subscription
                } else {
                    Purpose::Once
                };
                self.start(purpose, *admitted);
            }
        }
    }

    /// What a request costs before anything is known of it: nothing, where its sender is in the realm's trust already.
    fn lets_in(&mut self, incoming: &Incoming) -> bool {
        let Incoming { flow, request, .. } = incoming;
        let sender = self.core.at_hand.sender;
        let authentication = self.core.realm_of(flow).map(|realm| realm.authentication);
        let is_trusted = match authentication {
            Some(Authentication::KnownSource) => sender == Sender::Trunk,
            Some(Authentication::RegisteredFlow) => sender == Sender::Registered,
            Some(Authentication::Digest | Authentication::Open) | None => false,
        };
        // Whoever shows credentials is looked at: the right ones are always served.
        let shows = request.count(Name::Authorization) > 0 || request.count(Name::ProxyAuthorization) > 0;
        let is_refused = match (self.core.guards.load, sender) {
            (Load::Fine, _) | (Load::Behind, Sender::Trunk | Sender::Registered) => false,
            (Load::Behind, Sender::Stranger) => !shows,
            (Load::FarBehind, _) => true,
        };
        if is_refused {
            self.core.notice(
                "overloaded",
                Some(flow.remote),
                "503: the signalling thread is behind, or memory is short (the log says it); more shards or another node would help",
            );
            self.core.refuse_for_now(incoming);
            return false;
        }
        let now = self.core.now;
        if !shows
            && authentication != Some(Authentication::Open)
            && !self.core.guards.strangers.may_ask(sender, flow, now)
        {
            self.core.count_limited(flow);
            return false;
        }
        !is_trusted || self.core.keep(incoming, Share::Known)
    }

    fn start(&mut self, purpose: Purpose, admitted: Admitted) {
        let limit = self.core.config.limits.calls;
        // The last quarter is not for who need not say who he is.
        let room = match admitted.caller {
            Caller::Anonymous => limit.saturating_sub(limit / 4),
            Caller::Subscriber { .. } | Caller::Trunk { .. } => limit,
        };
        let is_registration = matches!(purpose, Purpose::Register(_));
        if matches!(&purpose, Purpose::Register(forwarded) if forwarded.is_strangers)
            && self.registering >= self.core.config.limits.registrations()
        {
            self.core.notice(
                "registrations_exhausted",
                Some(admitted.incoming.flow.remote),
                "503: as many registrations as limits.transactions allows wait for the registrar behind this realm: is it up?",
            );
            self.core.refuse_for_now(&admitted.incoming);
            self.core.transactions.forget(admitted.incoming.server);
            return;
        }
        // What waits for a registrar takes no call's place.
        if !is_registration && self.calls.len().saturating_sub(self.registering) >= room {
            self.core.notice(
                "calls_exhausted",
                Some(admitted.incoming.flow.remote),
                "503: the limit of calls is reached; raise limits.calls if the machine bears more",
            );
            self.core.refuse_for_now(&admitted.incoming);
            return;
        }
        let server = admitted.incoming.server;
        let counted = match (&admitted.caller, admission::kind_of(&admitted.incoming.request)) {
            (_, Kind::Once) => None,
            (Caller::Subscriber { aor }, kind) => Some((aor.clone(), kind)),
            _ => None,
        };
        if let Some((aor, kind)) = &counted {
            self.core.guards.strangers.began(aor, *kind);
        }
        let turn = (purpose == Purpose::Session)
            .then(|| self.core.guards.spirals.turn_of(&admitted.incoming.request));
        if let Some(turn) = turn {
            self.core.guards.spirals.began(turn);
        }
        let watch = (purpose == Purpose::Subscription)
            .then(|| Watch::of(&admitted.incoming.request, &admitted.caller))
            .flatten();
        if let Some(watch) = &watch {
            self.core.watchers.began(watch.clone());
            self.core.out.push_back(Output::Replicate(Replica::Watch(watch.clone())));
        }
        let core = &mut self.core;
        let (index, generation) = self
            .calls
            .insert(|index, generation| Call::new(CallKey { index, generation }, purpose, admitted, core));
        let key = CallKey { index, generation };
        if is_registration {
            self.registering = self.registering.saturating_add(1);
        }
        if let Some(call) = self.calls.get_mut(index, generation) {
            call.standing.counted.extend(counted);
            call.standing.turn = turn;
            call.standing.watch = watch;
            self.sessions.insert(call.session(), key);
            self.upstream.insert(server, key);
            self.core.transactions.give(server, Owner::First(key));
            if let Some(first) = merge_key(call.first_request()) {
                self.firsts.insert(first, key);
            }
        }
        self.with_call(key, |call, core, registrar| call.start(core, registrar));
    }

    fn is_in_dialog(&self, request: &Message) -> bool {
        self.place_of(request).is_some()
            || (request.method() == Some(Method::NOTIFY) && self.half_dialog(request).is_some())
    }

    fn half_dialog(&self, request: &Message) -> Option<(CallKey, BranchId)> {
        let local = request.to().ok()?.tag()?;
        self.core.dialogs.halves.get(&dialog_key(request.call_id().ok()?, local, b"")).copied()
    }

    fn on_dialog_request(&mut self, incoming: Incoming) {
        let Incoming { flow, request, .. } = &incoming;
        if let Some(place) = self.place_of(request) {
            self.core.proven(flow);
            self.core.transactions.give(incoming.server, Owner::Inside(place.call));
            self.with_call(place.call, |call, core, registrar| {
                call.on_dialog_request(place.leg, incoming, core, registrar)
            });
            return;
        }
        if request.method() == Some(Method::NOTIFY)
            && let Some((key, branch)) = self.half_dialog(request)
        {
            self.core.transactions.give(incoming.server, Owner::Inside(key));
            self.with_call(key, |call, core, registrar| {
                match call.on_early_notify(branch, &incoming, core) {
                    Some(pair) => {
                        let end = LegId { pair, side: Side::Target };
                        call.on_dialog_request(end, incoming, core, registrar)
                    }
                    None => core.reject(&incoming, 481),
                }
            });
            return;
        }
        self.core.reject(&incoming, 481);
    }
}

/// What two branches of one request have in common: From tag, Call-ID and CSeq.
pub(super) fn merge_key(request: &Message) -> Option<DialogKey> {
    let tag = request.from().ok()?.tag()?;
    Some(dialog_key(request.call_id().ok()?, tag, request.value(Name::CSeq)?))
}
