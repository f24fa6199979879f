//! Requests inside a pair: what one end sends reaches the other, in its dialog.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip_wire::{Message, Method, Name, multipart};

use super::end::Leaving;
use super::fault::{End, shown_in_call};
use super::forward::{ATTEMPTS, Forward, Origin, Said};
use super::heard::Heard;
use super::leg::{cseq_of, said_in};
use super::media::{Exchange, Wait};
use super::pair::{Crossing, Turn};
use super::side::{ForwardId, LegId, PairId, Side};
use super::subscription::with_sound_state;
use super::trickle::is_trickle;
use super::{Call, CallTimer, Purpose, is_target_refresh};
use crate::core::{Core, Owner};
use crate::event::EndedBy;
use crate::registrar::Registrar;
use crate::session_timer::Agreement;
use crate::transaction::{Answer, ClientId, Incoming, ServerId};
use seam::{Action, Described, Refusal};

impl Call {
    /// A request inside one of this call's dialogs.
    pub(crate) fn on_dialog_request(
        &mut self,
        at: LegId,
        mut incoming: Incoming,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let LegId { pair: id, side } = at;
        let Incoming { flow, request, .. } = &incoming;
        let Some(method) = request.method() else { return };
        if self.parties.pair(id).is_none() || self.is_over() {
            let is_farewell = method == Method::BYE && Leaving::take(&mut self.leaving, at, core).is_some();
            let status = if is_farewell { 200 } else { 481 };
            core.reject(&incoming, status);
            return;
        }
        let heard = self.parties.hear(at, &incoming, core, registrar);
        if heard == Heard::Challenged {
            return;
        }
        if is_target_refresh(method)
            && let Some(unfit) = crate::unfit::unfit(request, flow, core)
        {
            core.notice("unfit_address", Some(flow.remote), format!("Contact or Record-Route names {unfit}"));
            core.reject(&incoming, 488);
            return;
        }
        let Some(end) = self.parties.leg_mut(at) else { return };
        if let Err(fault) = end.dialog.accepts(request) {
            core.reject(&incoming, fault.status());
            return;
        }
        end.learn(request);
        if is_target_refresh(method) && heard == Heard::Peer {
            self.parties.refresh_target(at, request, core);
        }
        self.parties.secrets[side].add_message(request, flow.remote);
        if method == Method::BYE {
            self.on_bye(at, (&incoming).into(), core);
            return;
        }
        if crate::times::is_too_brief(request) {
            core.refuse_brief(&incoming);
            return;
        }
        if method == Method::INVITE || method == Method::UPDATE {
            let realm = core.realm_of(flow);
            if let Some(minimum) =
                realm.and_then(|realm| crate::session_timer::too_small(request, realm.session_timer))
            {
                core.reject_with(&incoming, 422, |response| {
                    response.header(Name::MinSe, minimum.to_string().as_bytes())
                });
                return;
            }
            if method == Method::INVITE && self.is_answered() {
                self.stop_repeating_if_acknowledged(id, side, core);
            }
            if !self.may_offer_now(id, side, &incoming, core) {
                return;
            }
        }
        if method == Method::NOTIFY {
            incoming.request = with_sound_state(incoming.request);
        }
        self.forward(id, side, incoming, core);
    }

    /// Only who has the 2xx to its INVITE can send another INVITE in the dialog: the ACK was lost, the call must not die
    /// of that. (An UPDATE may have been sent in the early dialog, before the 2xx.)
    fn stop_repeating_if_acknowledged(&mut self, id: PairId, side: Side, core: &mut Core) {
        let Some(pair) = self.parties.pair_mut(id) else { return };
        let is_repeated = pair.legs[side].repeat.as_ref().is_some_and(|repeat| repeat.is_final());
        if pair.owed_ack.is_none() && is_repeated {
            pair.legs[side].invite.is_acknowledged = true;
            self.parties.stop_repeating(id.leg(side), core);
        }
    }

    /// RFC 3261 §14.2, RFC 3311 §5.2, and what phones make of them.
    pub(super) fn may_offer_now(
        &mut self,
        id: PairId,
        side: Side,
        incoming: &Incoming,
        core: &mut Core,
    ) -> bool {
        let request = &incoming.request;
        let has_offer = multipart::session_description(request).is_some();
        let is_invite = request.method() == Some(Method::INVITE);
        if !is_invite && !has_offer {
            return true;
        }
        let early = is_invite && !self.is_answered();
        let Some(pair) = self.parties.pair(id) else { return false };
        let turn = if early { Turn::Own } else { pair.turn(side) };
        let is_glare = match turn {
            Turn::Free => return true,
            Turn::Own => {
                let after = (core.ids.number() % 10).to_string();
                core.reject_with(incoming, 500, |response| {
                    response.header(Name::RetryAfter, after.as_bytes())
                });
                return false;
            }
            Turn::Glare => true,
            Turn::Others => false,
        };
        let is_phone = core.realm(pair.legs[side].realm).is_some_and(|realm| !realm.is_trunk_side);
        // Two of us must not wait for each other: only where nothing of ours is open in the trunk's own leg may it wait.
        if (is_phone || !is_glare) && pair.crossing.is_none() {
            let timer = self.schedule(core.config.timers.glare, CallTimer::Glare(id), core);
            let incoming = incoming.clone();
            if let Some(pair) = self.parties.pair_mut(id) {
                pair.crossing = Some(Crossing { side, incoming, timer });
            }
            return false;
        }
        core.reject(incoming, 491);
        false
    }

    pub(super) fn on_glare_timeout(&mut self, id: PairId, core: &mut Core) {
        if let Some(crossing) = self.parties.pair_mut(id).and_then(|pair| pair.crossing.take()) {
            core.reject(&crossing.incoming, 491);
        }
    }

    pub(super) fn forward(&mut self, id: PairId, from: Side, incoming: Incoming, core: &mut Core) {
        let Incoming { server, request, .. } = &incoming;
        let method_is = |method| request.method() == Some(method);
        let description =
            multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        let Some(pair) = self.parties.pair(id) else { return };
        let pending = pair.exchange;
        let is_confirmed = self.is_answered();
        let to_has_update = pair.legs[!from].abilities.has_update;
        let forward = Forward {
            id: self.parties.new_forward(id),
            from,
            origin: Origin::End(*server),
            client: None,
            sent_invite: method_is(Method::INVITE)
                || (method_is(Method::UPDATE) && !to_has_update && is_confirmed),
            exchange: None,
            description: None,
            summary: Default::default(),
            fragment: None,
            attempts: 0,
            said: Said::Theirs(Arc::new(request.clone())),
        };
        let number = forward.id;
        if method_is(Method::UPDATE) && description.is_none() && !to_has_update {
            // A refresh of the sender's own leg: answered here (RFC 4028 is per leg).
            self.parties.add_forward(forward);
            self.answer_refresh(number, core);
            return;
        }
        if method_is(Method::PRACK) {
            let known = self.parties.acknowledged_provisional(id, request, core);
            if !known {
                core.reject(&incoming, 481);
                return;
            }
        }
        self.parties.add_forward(forward);
        let is_offering = method_is(Method::INVITE) || method_is(Method::UPDATE) || method_is(Method::PRACK);
        match (description, pending) {
            (Some(sdp), Some(exchange)) if method_is(Method::PRACK) && exchange.offerer != from => {
                // The answer to an offer in a reliable response.
                if let Some(pair) = self.parties.pair_mut(id) {
                    pair.exchange = None;
                }
                if let Some(action) = self.parties.answer_action(id, exchange.id, from, sdp) {
                    self.media.ask(action, Wait::Forward(number), core);
                }
            }
            (Some(sdp), _) if is_offering => {
                let exchange = self.media.new_exchange();
                if let Some(forward) = self.parties.forward_mut(number) {
                    forward.exchange = Some(Exchange { id: exchange, offerer: from });
                }
                if let Some(action) = self.parties.offer_action(id, exchange, from, sdp) {
                    self.media.ask(action, Wait::Forward(number), core);
                }
            }
            _ if is_trickle(request) => self.ask_for_fragment(number, core),
            _ => self.send_forward(number, core),
        }
    }

    pub(super) fn on_forward_description(
        &mut self,
        number: ForwardId,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        match result {
            Ok(described) => {
                let Some(forward) = self.parties.forward_mut(number) else { return };
                forward.description = Some(described.sdp);
                forward.summary = described.summary;
                self.send_forward(number, core);
            }
            Err(refusal) => {
                let Some(forward) = self.parties.take_forward(number) else { return };
                if let Some(asked) = forward.asked() {
                    core.reject_with(asked, refusal.status(), |response| {
                        refusal.warning().into_iter().fold(response, |response, warning| {
                            response.header(Name::Warning, warning.as_bytes())
                        })
                    });
                }
                if matches!(forward.origin, Origin::Restore) {
                    self.hang_up(End::MediaRefused, core);
                    return;
                }
                self.after_forward(forward.id.pair, core);
            }
        }
    }

    pub(super) fn send_forward(&mut self, number: ForwardId, core: &mut Core) {
        let (hop, request) = match self.parties.write_forward(number, core) {
            Ok(built) => built,
            // It cannot be said to the other end, and is answered all the same.
            Err(status) => return self.on_forward_failure(number, status, None, core),
        };
        let client = core.send_request(hop, request, Owner::Forward(self.parties.key, number));
        let Some(forward) = self.parties.forward_mut(number) else { return };
        forward.client = Some(client);
        // Media that moves is silent until both ends have moved.
        if matches!(forward.origin, Origin::Media(_)) {
            core.hasten(client);
        }
    }

    /// CANCEL of a re-INVITE.
    pub(super) fn cancel_forward(&mut self, server: ServerId, reason: Option<&[u8]>, core: &mut Core) {
        let is_it = |crossing: &Crossing| crossing.incoming.server == server;
        let mut pairs = self.parties.pairs.iter_mut();
        let waiting = pairs.find(|pair| pair.crossing.as_ref().is_some_and(is_it));
        if let Some(Crossing { incoming, timer, .. }) = waiting.and_then(|pair| pair.crossing.take()) {
            core.timers.cancel(timer);
            core.reject(&incoming, 487);
            return;
        }
        let mut forwards = self.parties.pairs.iter().flat_map(|pair| &pair.forwards);
        let Some(forward) = forwards.find(|forward| forward.server() == Some(server)) else { return };
        match forward.client {
            Some(client) => core.cancel(client, reason),
            None => {
                let number = forward.id;
                self.on_forward_failure(number, 487, None, core);
            }
        }
    }

    /// The response to a forwarded request.
    pub(crate) fn on_forward_response(
        &mut self,
        number: ForwardId,
        client: ClientId,
        response: Message,
        core: &mut Core,
    ) {
        let Some(status) = response.status() else { return };
        let Some(forward) = self.parties.forward(number) else {
            // A 2xx to a re-INVITE that crossed the end of its dialog.
            if (200..300).contains(&status) {
                core.take_down(client, &response, false);
            }
            return;
        };
        if status < 200 || self.is_over() {
            return;
        }
        let (id, to) = (forward.id.pair, !forward.from);
        if let Some(flow) = self.parties.pair(id).map(|pair| pair.flow(to)) {
            self.parties.secrets[to].add_message(&response, flow.remote);
        }
        if status >= 300 {
            self.on_forward_failure(number, status, Some(response), core);
            return;
        }
        let Some(pair) = self.parties.pair_mut(id) else { return };
        let end = &mut pair.legs[to];
        end.learn(&response);
        if response.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE) {
            end.invite.open = Some(client);
        }
        let Some(forward) = self.parties.forward(number) else { return };
        let method = forward.method().unwrap_or(Method::INFO);
        let is_offering = forward.sent_invite || method == Method::UPDATE;
        if is_target_refresh(method) {
            self.parties.refresh_target(id.leg(to), &response, core);
        }
        if let Some(leg) = self.parties.leg_mut(id.leg(to)).filter(|_| is_offering) {
            if response.count(Name::SessionExpires) > 0 {
                leg.session.agreed = Agreement::of_answer(&response);
            }
            leg.arm_session_timer(core);
        }
        let Some(forward) = self.parties.forward(number) else { return };
        let description =
            multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        match &forward.origin {
            Origin::End(_) | Origin::Restore => {}
            Origin::Refresh => {
                // The description has not changed, so its answer has not either.
                let sent_invite = forward.sent_invite;
                if sent_invite {
                    self.parties.acknowledge(id.leg(to), None, core);
                }
                self.parties.take_forward(number);
                self.after_forward(id, core);
                return;
            }
            Origin::Liveness => {
                self.parties.take_forward(number);
                return;
            }
            Origin::Media(_) => {
                self.on_renegotiation_success(number, status, description, core);
                return;
            }
        }
        let sent_invite = forward.sent_invite;
        match (description, forward.exchange) {
            (Some(sdp), Some(exchange)) => {
                if let Some(action) = self.parties.answer_action(id, exchange.id, to, sdp) {
                    self.media.ask(action, Wait::ForwardResponse(number, Box::new(response)), core);
                }
            }
            (Some(sdp), None) if sent_invite => {
                let exchange = self.media.new_exchange();
                let action = self.parties.offer_action(id, exchange, to, sdp);
                if let Some(pair) = self.parties.pair_mut(id) {
                    pair.exchange = Some(Exchange { id: exchange, offerer: to });
                }
                if let Some(action) = action {
                    self.media.ask(action, Wait::ForwardResponse(number, Box::new(response)), core);
                }
            }
            (None, Some(exchange)) => {
                // An offer without an answer: nothing was agreed.
                self.media.tell(Action::Cancel(exchange.id), core);
                if sent_invite {
                    self.parties.acknowledge(id.leg(to), None, core);
                }
                self.on_forward_failure(number, 488, None, core);
            }
            (_, None) => self.complete_forward(number, &response, None, core),
        }
    }

    pub(super) fn on_forward_answer(
        &mut self,
        number: ForwardId,
        response: Message,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let Some(forward) = self.parties.forward(number) else { return };
        let (id, from) = (forward.id.pair, forward.from);
        match result {
            Ok(described) => {
                let (offerer, summary) = match forward.exchange {
                    Some(_) => (from, forward.summary.clone()),
                    None => (!from, described.summary),
                };
                self.note_agreement(id, offerer, summary, core);
                self.complete_forward(number, &response, Some(described.sdp), core);
            }
            Err(refusal) => self.on_refused_answer(number, refusal, core),
        }
    }

    /// The end that asked gets its 2xx.
    pub(super) fn complete_forward(
        &mut self,
        number: ForwardId,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) {
        let Some(forward) = self.parties.take_forward(number) else { return };
        let (id, from, to) = (forward.id.pair, forward.from, !forward.from);
        let is_invite = forward.method() == Some(Method::INVITE);
        let is_late = self
            .parties
            .pair(id)
            .and_then(|pair| pair.exchange)
            .is_some_and(|exchange| exchange.offerer == to)
            && is_invite;
        if forward.sent_invite && !is_late {
            self.parties.acknowledge(id.leg(to), None, core);
        }
        if let Some(pair) = self.parties.pair_mut(id) {
            pair.legs[to].accept(forward.description.as_ref(), response);
            if let Some(said) = forward.request().and_then(said_in) {
                pair.legs[from].descriptions.remote = Some(said);
            }
        }
        if forward.server().is_none() {
            // What the one end is told now, the other has known all the time.
            self.after_forward(id, core);
            return;
        }
        let status = response.status().unwrap_or(200);
        let answer = self.parties.build_forward_response(&forward, response, sdp, core);
        if let (Some(asked), None) = (forward.asked(), &answer) {
            // What came with the 2xx cannot be passed: it is no 2xx for who asked (RFC 3261 §21.5.3), and if an offer may
            // have been in it, nobody can answer that.
            core.reject(asked, 502);
            if is_invite {
                self.hang_up(End::MediaRefused, core);
                return;
            }
        }
        if let (Some(server), Some(response)) = (forward.server(), answer) {
            core.respond(server, status, response.clone());
            if is_invite {
                let cseq = forward.request().map(cseq_of).unwrap_or_default();
                let answer = Answer { server, status, response };
                self.parties.repeat_until_acknowledged(id.leg(from), answer, cseq, core);
                if let Some(pair) = self.parties.pair_mut(id) {
                    pair.owed_ack = is_late.then_some(to);
                }
            }
            self.parties.arm_session_timer(id.leg(from), core);
        }
        self.after_notify(&forward, core);
        self.after_forward(id, core);
    }

    /// An UPDATE that refreshes only its sender's leg.
    pub(super) fn answer_refresh(&mut self, number: ForwardId, core: &mut Core) {
        let ok = sip_wire::Builder::response(200, b"OK").finish();
        self.complete_forward(number, &ok, None, core);
    }

    /// A failure response, or none (408), or no way (503).
    pub(crate) fn on_forward_failure(
        &mut self,
        number: ForwardId,
        status: u16,
        response: Option<Message>,
        core: &mut Core,
    ) {
        if status == 422 && self.raise_interval(number, response.as_ref()) {
            self.send_forward(number, core);
            return;
        }
        let Some(forward) = self.parties.forward(number) else { return };
        if let Origin::Media(_) = forward.origin {
            self.on_renegotiation_failure(number, status, core);
            return;
        }
        if let Origin::Liveness = forward.origin {
            self.on_liveness_failure(number, status, response.is_some(), core);
            return;
        }
        let (id, from) = (forward.id.pair, forward.from);
        let is_session_request = forward.sent_invite || forward.method() == Some(Method::UPDATE);
        let is_gone = matches!(status, 408 | 481) && is_session_request && self.is_answered();
        // It refused even what was agreed before.
        let is_lost = matches!(forward.origin, Origin::Restore);
        let is_phone = self
            .parties
            .leg(id.leg(from))
            .and_then(|leg| core.realm(leg.realm))
            .is_some_and(|realm| !realm.is_trunk_side);
        if status == 491 && forward.attempts < ATTEMPTS && (is_phone || is_lost) && forward.sent_invite {
            // RFC 3261 §14.1: whoever owns the Call-ID waits longer. We made that of the target's dialog.
            let spread = (core.ids.number() % 200).saturating_mul(10);
            let wait = if from == Side::Caller { spread.saturating_add(2100) } else { spread };
            let wait = Duration::from_millis(wait);
            let Some(forward) = self.parties.forward_mut(number) else { return };
            forward.attempts = forward.attempts.saturating_add(1);
            forward.client = None;
            // Its offer is void meanwhile: theirs may change what it would be made from.
            if let Some(exchange) = forward.exchange.take() {
                self.media.tell(Action::Cancel(exchange.id), core);
            }
            self.schedule(wait, CallTimer::Retry(number), core);
            // Theirs goes first.
            self.take_crossing(id, core);
            return;
        }
        let Some(forward) = self.parties.take_forward(number) else { return };
        if let Some(exchange) = forward.exchange {
            self.media.tell(Action::Cancel(exchange.id), core);
        }
        if let Some(asked) = forward.asked() {
            let shown = shown_in_call(status, is_session_request);
            let answer = response
                .as_ref()
                .filter(|response| response.status() == Some(shown))
                .and_then(|response| self.parties.build_forward_response(&forward, response, None, core));
            match answer {
                None if shown == 408 => core.stay_silent(asked.server),
                Some(answer) => core.respond(asked.server, shown, answer),
                None => core.reject(asked, shown),
            }
        }
        if is_gone || is_lost {
            self.hang_up(if is_gone { End::Gone(EndedBy::Sbc) } else { End::MediaRefused }, core);
            return;
        }
        if matches!(forward.origin, Origin::Refresh) {
            self.on_refused_refresh(id.leg(!from), core);
        }
        if self.parties.purpose == Purpose::Subscription && matches!(status, 481 | 408 | 489) {
            self.done_once(core);
            return;
        }
        self.after_forward(id, core);
    }

    /// What waited for the end of a forward goes on.
    pub(super) fn after_forward(&mut self, id: PairId, core: &mut Core) {
        let Some(pair) = self.parties.pair(id) else { return };
        if pair.exchange.is_none() && !pair.forwards.iter().any(Forward::blocks) {
            self.take_crossing(id, core);
        }
    }

    pub(super) fn take_crossing(&mut self, id: PairId, core: &mut Core) {
        if let Some(Crossing { side, incoming, timer }) =
            self.parties.pair_mut(id).and_then(|pair| pair.crossing.take())
        {
            core.timers.cancel(timer);
            self.forward(id, side, incoming, core);
        }
    }

    /// A NOTIFY that says the subscription is over ends ours; a refresh prolongs it.
    pub(super) fn after_notify(&mut self, forward: &Forward, core: &mut Core) {
        if self.parties.purpose != Purpose::Subscription {
            return;
        }
        if let Some(request) = forward.request().filter(|_| forward.method() == Some(Method::SUBSCRIBE)) {
            self.extend_subscription(request, core);
        }
        let is_over = forward.value(Name::SubscriptionState).is_some_and(|state| {
            state.get(..10).is_some_and(|word| word.eq_ignore_ascii_case(b"terminated"))
        });
        if is_over {
            self.done_once(core);
        }
    }
}
