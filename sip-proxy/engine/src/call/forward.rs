//! Requests inside a pair: what one end sends reaches the other, in its dialog.

use bytes::Bytes;
use sip_wire::{Address, Message, Method, Name, Uri, multipart};

use super::branch::with_body;
use super::media::Wait;
use super::pair::{CALLER, Exchange, cseq_of, flow_of, said_in};
use super::renegotiate::Wish;
use super::{Call, CallTimer, is_target_refresh};
use crate::core::{Core, Owner, dialog_key};
use crate::event::{EndCause, Side};
use crate::io::{DialogEnd, Flow, Output, Replica};
use crate::media::{Described, MediaAction, Refusal};
use crate::passing::{copy_headers, passing_options};
use crate::session_timer::Agreement;
use crate::transaction::{self, ClientId, ServerId};

/// A request on its way from one end to the other.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) id: u32,
    pub(super) pair: u32,
    /// The end it came from.
    pub(super) from: usize,
    pub(super) origin: Origin,
    pub(super) request: Message,
    pub(super) client: Option<ClientId>,
    /// What it became: an UPDATE may have to be an INVITE.
    pub(super) sent_invite: bool,
    /// The offer in it, or asked for by it.
    exchange: Option<Exchange>,
    /// The description for the other end.
    pub(super) description: Option<Bytes>,
    summary: crate::media::Summary,
    attempts: u8,
}

/// Whose request it is.
#[derive(Debug)]
pub(super) enum Origin {
    /// The end's that it came from.
    End(ServerId),
    /// Ours: it keeps a session alive (RFC 4028).
    Refresh,
    /// Ours: the media plane wished for it.
    Media(Wish),
    /// Ours: an end has agreed to what the other will never hear of, and is put back to what both know.
    Restore,
}

impl Forward {
    /// A request of ours to the end `to`: it takes the way of any forward, and its request holds nothing but the method.
    /// It is not tried again.
    pub(super) fn of_ours(
        id: u32,
        pair: u32,
        to: usize,
        method: &str,
        origin: Origin,
        description: Option<Bytes>,
    ) -> Option<Self> {
        let request = Message::parse(format!("{method} sip:ours.invalid SIP/2.0\r\n\r\n").into()).ok()?;
        Some(Self {
            id,
            pair,
            from: 1 - to,
            origin,
            sent_invite: request.method() == Some(Method::INVITE),
            request,
            client: None,
            exchange: None,
            description,
            summary: Default::default(),
            attempts: ATTEMPTS,
        })
    }

    /// The transaction of who asked for it; `None` if that was ourselves.
    pub(super) fn server(&self) -> Option<ServerId> {
        if let Origin::End(server) = self.origin { Some(server) } else { None }
    }

    /// Whether it describes the session, or asks for that.
    pub(super) fn offers(&self) -> bool {
        self.exchange.is_some() || self.sent_invite
    }

    /// Whether its offer is open, rather than waiting for another try.
    fn is_open(&self) -> bool {
        self.offers() && (self.exchange.is_some() || self.client.is_some())
    }

    /// Whether an offer has to wait for it: while a phone's own waits for another try, its transaction is open.
    fn blocks(&self) -> bool {
        self.is_open() || (self.offers() && self.server().is_some())
    }

    /// Its INVITE, if it is one and on its way.
    pub(super) fn client(&self) -> Option<ClientId> {
        self.client.filter(|_| self.sent_invite)
    }
}

/// A phone's re-INVITE that meets 491 is tried again so often: most phones never do it themselves.
const ATTEMPTS: u8 = 3;

impl Call {
    /// A request inside one of this call's dialogs.
    pub(crate) fn on_dialog_request(
        &mut self,
        id: u32,
        side: usize,
        server: ServerId,
        flow: Flow,
        request: Message,
        core: &mut Core,
    ) {
        let Some(method) = request.method() else { return };
        let Some(pair) = self
            .pairs
            .iter_mut()
            .find(|pair| pair.id == id)
            .filter(|_| matches!(self.ended, super::Ended::No))
        else {
            let is_farewell = method == Method::BYE && self.is_left_by(id, side, core);
            let status = if is_farewell { 200 } else { 481 };
            core.reject(server, &request, status, |response| response);
            return;
        };
        let end = &mut pair.ends[side];
        if let Err(fault) = end.dialog.accepts(&request) {
            core.reject(server, &request, fault.status(), |response| response);
            return;
        }
        end.dialog.flow = flow_of(&end.dialog.flow, flow);
        if is_target_refresh(method) {
            end.dialog.refresh_target(&request);
        }
        end.learn(&request);
        self.secrets[side].add_message(&request, flow.remote);
        if method == Method::BYE {
            self.on_bye(id, side, server, &request, core);
            return;
        }
        if method == Method::INVITE || method == Method::UPDATE {
            let realm = core.realm_of(&flow);
            if let Some(minimum) =
                realm.and_then(|realm| crate::session_timer::too_small(&request, realm.session_timer))
            {
                core.reject(server, &request, 422, |response| {
                    response.header(Name::MinSe, minimum.to_string().as_bytes())
                });
                return;
            }
            if method == Method::INVITE && self.answered {
                self.stop_repeating_if_acknowledged(id, side, core);
            }
            if !self.may_offer_now(id, side, server, &request, core) {
                return;
            }
        }
        self.forward(id, side, server, request, core);
    }

    /// Only who has the 2xx to its INVITE can send another INVITE in the dialog: the ACK was lost, the call must not die
    /// of that. (An UPDATE may have been sent in the early dialog, before the 2xx.)
    fn stop_repeating_if_acknowledged(&mut self, id: u32, side: usize, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        let is_repeated = pair.ends[side].repeat.as_ref().is_some_and(|repeat| repeat.status >= 200);
        if pair.owed_ack.is_none() && is_repeated {
            pair.ends[side].is_acknowledged = true;
            self.stop_repeating(id, side, core);
        }
    }

    /// RFC 3261 §14.2, RFC 3311 §5.2, and what phones make of them.
    fn may_offer_now(
        &mut self,
        id: u32,
        side: usize,
        server: ServerId,
        request: &Message,
        core: &mut Core,
    ) -> bool {
        let has_offer = multipart::session_description(request).is_some();
        let is_invite = request.method() == Some(Method::INVITE);
        if !is_invite && !has_offer {
            return true;
        }
        let open = || self.forwards.iter().filter(|forward| forward.pair == id && forward.blocks());
        let own = open().any(|forward| forward.from == side && forward.server().is_some());
        // Of the other end, or of ours, to whichever end.
        let others = open().any(|forward| forward.from != side || forward.server().is_none());
        // Something that this very end has not answered.
        let is_glare = open().any(|forward| forward.from != side);
        let Some(pair) = self.pair(id) else { return false };
        let is_pending = pair.exchange.map(|exchange| exchange.offerer);
        let early = is_invite && !self.answered;
        if own || is_pending == Some(side) || early {
            let after = (core.ids.number() % 10).to_string();
            core.reject(server, request, 500, |response| response.header(Name::RetryAfter, after.as_bytes()));
            return false;
        }
        if !others && is_pending.is_none() {
            return true;
        }
        let is_phone = core.realm(pair.ends[side].realm).is_some_and(|realm| !realm.is_trunk_side);
        // Two of us must not wait for each other: only where nothing of ours is open in the trunk's own leg may it wait.
        if (is_phone || !is_glare) && (others || is_pending.is_some()) && pair.crossing.is_none() {
            let timer = self.schedule(core.config.timers.glare, CallTimer::Glare(id), core);
            let request = request.clone();
            if let Some(pair) = self.pair_mut(id) {
                pair.crossing = Some((side, server, request, timer));
            }
            return false;
        }
        core.reject(server, request, 491, |response| response);
        false
    }

    pub(super) fn on_glare_timeout(&mut self, id: u32, core: &mut Core) {
        if let Some((_, server, request, _)) = self.pair_mut(id).and_then(|pair| pair.crossing.take()) {
            core.reject(server, &request, 491, |response| response);
        }
    }

    /// Our own refresh of an end's session (RFC 4028 §7.4): UPDATE without a description, or the last description again.
    pub(super) fn refresh(&mut self, id: u32, side: usize, core: &mut Core) {
        if self.forwards.iter().any(|forward| forward.pair == id) {
            return;
        }
        let Some(pair) = self.pair(id) else { return };
        let (has_update, description) = (pair.ends[side].has_update, pair.ends[side].description.clone());
        let method = if has_update { "UPDATE" } else { "INVITE" };
        let description = description.filter(|_| !has_update);
        let forward = self.next_forward;
        self.next_forward += 1;
        self.forwards.extend(Forward::of_ours(forward, id, side, method, Origin::Refresh, description));
        self.send_forward(forward, core);
    }

    fn forward(&mut self, id: u32, from: usize, server: ServerId, request: Message, core: &mut Core) {
        let method_is = |method| request.method() == Some(method);
        let description =
            multipart::session_description(&request).map(|range| request.body_bytes().slice(range));
        let Some(pair) = self.pair(id) else { return };
        let pending = pair.exchange;
        let is_confirmed = self.answered;
        let to_has_update = pair.ends[1 - from].has_update;
        let forward = Forward {
            id: self.next_forward,
            pair: id,
            from,
            origin: Origin::End(server),
            client: None,
            sent_invite: method_is(Method::INVITE)
                || (method_is(Method::UPDATE) && !to_has_update && is_confirmed),
            exchange: None,
            description: None,
            summary: Default::default(),
            attempts: 0,
            request: request.clone(),
        };
        let number = forward.id;
        self.next_forward += 1;
        if method_is(Method::UPDATE) && description.is_none() && !to_has_update {
            // A refresh of the sender's own leg: answered here (RFC 4028 is per leg).
            self.forwards.push(forward);
            self.answer_refresh(number, core);
            return;
        }
        if method_is(Method::PRACK) {
            let known = self.acknowledged_provisional(id, &request, core);
            if !known {
                core.reject(server, &request, 481, |response| response);
                return;
            }
        }
        self.forwards.push(forward);
        let is_offering = method_is(Method::INVITE) || method_is(Method::UPDATE) || method_is(Method::PRACK);
        match (description, pending) {
            (Some(sdp), Some(exchange)) if method_is(Method::PRACK) && exchange.offerer != from => {
                // The answer to an offer in a reliable response.
                if let Some(pair) = self.pair_mut(id) {
                    pair.exchange = None;
                }
                if let Some(action) = self.answer_action(id, exchange.id, from, sdp) {
                    self.ask_media(action, Wait::Forward(number), core);
                }
            }
            (Some(sdp), _) if is_offering => {
                let exchange = self.new_exchange();
                if let Some(forward) = self.forwards.iter_mut().find(|forward| forward.id == number) {
                    forward.exchange = Some(Exchange { id: exchange, offerer: from });
                }
                if let Some(action) = self.offer_action(id, exchange, from, sdp) {
                    self.ask_media(action, Wait::Forward(number), core);
                }
            }
            _ => self.send_forward(number, core),
        }
    }

    /// A PRACK: what it acknowledges is no longer repeated (RFC 3262 §3).
    fn acknowledged_provisional(&mut self, id: u32, prack: &Message, core: &mut Core) -> bool {
        let Ok(cseq) = self.upstream.request.cseq().map(|cseq| cseq.number) else { return false };
        let Some(pair) = self.pair(id) else { return false };
        let found =
            pair.reliable.iter().any(|reliable| crate::dialog::acknowledges(prack, reliable.ours, cseq));
        // The 2xx may be out already, and is not what a PRACK acknowledges.
        let is_provisional = pair.ends[CALLER].repeat.as_ref().is_some_and(|repeat| repeat.status < 200);
        if found && is_provisional {
            self.stop_repeating(id, CALLER, core);
        }
        found
    }

    pub(super) fn on_forward_description(
        &mut self,
        number: u32,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        match result {
            Ok(described) => {
                self.forwards[position].description = Some(described.sdp);
                self.forwards[position].summary = described.summary;
                self.send_forward(number, core);
            }
            Err(refusal) => {
                let forward = self.forwards.remove(position);
                if let Some(server) = forward.server() {
                    core.reject(server, &forward.request, refusal.status(), |response| response);
                }
                if matches!(forward.origin, Origin::Restore) {
                    self.hang_up(EndCause::MediaRefused, Side::Sbc, core);
                    return;
                }
                self.after_forward(forward.pair, core);
            }
        }
    }

    pub(super) fn send_forward(&mut self, number: u32, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let Some(request) = self.build_forward(position, core) else { return };
        let forward = &self.forwards[position];
        let Some(pair) = self.pair(forward.pair) else { return };
        let flow = pair.flow(1 - forward.from);
        let client = core.send_request(flow, None, request, Owner::Forward(self.key, number));
        self.forwards[position].client = Some(client);
    }

    fn build_forward(&mut self, position: usize, core: &mut Core) -> Option<Bytes> {
        let config = core.config.clone();
        let (id, from) = (self.forwards[position].pair, self.forwards[position].from);
        let to = 1 - from;
        let forward = &self.forwards[position];
        let own_method = forward.request.method()?;
        let method = if forward.sent_invite { Method::INVITE } else { own_method };
        let timer = self.session_headers(id, to, method, core);
        let request = forward.request.clone();
        let sdp = forward.description.clone();
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id)?;
        let (from_realm, to_realm) =
            (config.realm(pair.ends[from].realm)?, config.realm(pair.ends[to].realm)?);
        let flow = pair.flow(from);
        let end = &mut pair.ends[to];
        let listener = end.dialog.flow.listener;
        let mut out = core.dialog_request(&mut end.dialog, method)?;
        if forward.sent_invite {
            end.invite_cseq = end.dialog.local_cseq;
        }
        if is_target_refresh(method) {
            out = out.header(Name::Contact, &core.contact(listener));
        }
        let mut supported = passing_options(&request, Name::Supported);
        if timer.is_some() {
            supported.extend_from_slice(if supported.is_empty() { b"timer" } else { b", timer" });
        }
        for (name, options) in
            [(Name::Supported, supported), (Name::Require, passing_options(&request, Name::Require))]
        {
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        if let Some((interval, minimum)) = timer {
            out =
                out.header(Name::SessionExpires, interval.as_bytes()).header(Name::MinSe, minimum.as_bytes());
        }
        if method == Method::PRACK {
            let cseq = self.upstream.request.cseq().ok()?.number;
            let theirs = pair
                .reliable
                .iter()
                .find(|reliable| crate::dialog::acknowledges(&request, reliable.ours, cseq))?
                .theirs;
            let invite = self.branches.get(usize::from(pair.branch))?.request.as_ref()?.cseq().ok()?.number;
            out = out.header(Name::RAck, format!("{theirs} {invite} INVITE").as_bytes());
        }
        if let Some(refer_to) = request.value(Name::ReferTo) {
            let host =
                to_realm.domains.first().map_or_else(|| "localhost".to_owned(), |domain| domain.to_string());
            out =
                out.header(Name::ReferTo, &translate_refer_to(refer_to, &host, self.slot, from_realm, core)?);
        }
        let (out, dropped) = copy_headers(out, &request, from_realm, to_realm, &self.secrets[from]);
        let (out, bodies) = with_body(out, &request, sdp.as_ref(), &self.secrets[from]);
        core.count_hidden(flow, dropped + bodies);
        Some(out.finish())
    }

    /// The response to a forwarded request.
    pub(crate) fn on_forward_response(
        &mut self,
        number: u32,
        client: ClientId,
        response: Message,
        core: &mut Core,
    ) {
        let Some(status) = response.status() else { return };
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else {
            // A 2xx to a re-INVITE that crossed the end of its dialog.
            if (200..300).contains(&status) {
                core.take_down(client, &response, false);
            }
            return;
        };
        if status < 200 || self.is_over() {
            return;
        }
        let (id, to) = (self.forwards[position].pair, 1 - self.forwards[position].from);
        if let Some(flow) = self.pair(id).map(|pair| pair.flow(to)) {
            self.secrets[to].add_message(&response, flow.remote);
        }
        if status >= 300 {
            self.on_forward_failure(number, status, Some(response), core);
            return;
        }
        let Some(pair) = self.pair_mut(id) else { return };
        let end = &mut pair.ends[to];
        end.learn(&response);
        if response.cseq().is_ok_and(|cseq| cseq.method == Method::INVITE) {
            end.open_invite = Some(client);
        }
        let forward = &self.forwards[position];
        let method = forward.request.method().unwrap_or(Method::INFO);
        let is_offering = forward.sent_invite || method == Method::UPDATE;
        if is_target_refresh(method) {
            let Some(pair) = self.pairs.iter_mut().find(|pair| pair.id == id) else { return };
            pair.ends[to].dialog.refresh_target(&response);
            if is_offering && response.count(Name::SessionExpires) > 0 {
                pair.ends[to].session.agreed = Agreement::of_answer(&response);
            }
        }
        if is_offering {
            self.arm_session_timer(id, to, core);
        }
        let forward = &self.forwards[position];
        let description =
            multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        match &forward.origin {
            Origin::End(_) | Origin::Restore => {}
            Origin::Refresh => {
                // The description has not changed, so its answer has not either.
                if forward.sent_invite {
                    self.acknowledge(id, to, None, core);
                }
                self.forwards.remove(position);
                self.after_forward(id, core);
                return;
            }
            Origin::Media(_) => {
                self.on_renegotiation_success(number, status, description, core);
                return;
            }
        }
        match (description, forward.exchange) {
            (Some(sdp), Some(exchange)) => {
                if let Some(action) = self.answer_action(id, exchange.id, to, sdp) {
                    self.ask_media(action, Wait::ForwardResponse(number, Box::new(response)), core);
                }
            }
            (Some(sdp), None) if forward.sent_invite => {
                let exchange = self.new_exchange();
                let action = self.offer_action(id, exchange, to, sdp);
                if let Some(pair) = self.pair_mut(id) {
                    pair.exchange = Some(Exchange { id: exchange, offerer: to });
                }
                if let Some(action) = action {
                    self.ask_media(action, Wait::ForwardResponse(number, Box::new(response)), core);
                }
            }
            (None, Some(exchange)) => {
                // An offer without an answer: nothing was agreed.
                self.tell_media(MediaAction::Cancel { exchange: exchange.id }, core);
                if forward_sent_invite(&self.forwards, number) {
                    self.acknowledge(id, to, None, core);
                }
                self.on_forward_failure(number, 488, None, core);
            }
            (_, None) => self.complete_forward(number, &response, None, core),
        }
    }

    pub(super) fn on_forward_answer(
        &mut self,
        number: u32,
        response: Message,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let (id, from) = (self.forwards[position].pair, self.forwards[position].from);
        match result {
            Ok(described) => {
                let forward = &self.forwards[position];
                let (offerer, summary) = match forward.exchange {
                    Some(_) => (from, forward.summary.clone()),
                    None => (1 - from, described.summary),
                };
                self.note_agreement(id, offerer, summary, core);
                self.complete_forward(number, &response, Some(described.sdp), core);
            }
            Err(_) => self.on_refused_answer(number, core),
        }
    }

    /// The media plane refused what an end has answered: whoever asked hears 488, and the end, which has agreed, is put back
    /// to what both know. An offer in a 2xx that was refused has no such way: its ACK owes an answer that nobody can give,
    /// and BYE follows (RFC 3261 §13.2.2.4).
    fn on_refused_answer(&mut self, number: u32, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let forward = &mut self.forwards[position];
        let (id, to, sent_invite) = (forward.pair, 1 - forward.from, forward.sent_invite);
        let is_restore = matches!(forward.origin, Origin::Restore);
        let exchange = forward.exchange.take();
        if sent_invite {
            self.acknowledge(id, to, None, core);
        }
        if let Some(pair) = self.pair_mut(id) {
            pair.exchange = None;
        }
        let is_answer = exchange.is_some();
        if let Some(exchange) = exchange {
            self.tell_media(MediaAction::Cancel { exchange: exchange.id }, core);
        }
        let is_being_restored = is_answer && !is_restore && self.restore(id, to, core);
        self.on_forward_failure(number, 488, None, core);
        if !is_being_restored {
            // No session is left that both ends know.
            self.hang_up(EndCause::MediaRefused, Side::Sbc, core);
        }
    }

    /// Offers an end once more what the other has described last; false if that cannot be.
    fn restore(&mut self, id: u32, to: usize, core: &mut Core) -> bool {
        let Some(pair) = self.pair(id) else { return false };
        let Some(said) = pair.ends[1 - to].said.clone() else { return false };
        let method = match (self.answered, pair.ends[to].has_update) {
            (true, _) => "INVITE",
            (false, true) => "UPDATE",
            (false, false) => return false,
        };
        let (number, exchange) = (self.next_forward, self.new_exchange());
        self.next_forward += 1;
        let Some(mut forward) = Forward::of_ours(number, id, to, method, Origin::Restore, None) else {
            return false;
        };
        forward.exchange = Some(Exchange { id: exchange, offerer: 1 - to });
        forward.attempts = 0;
        self.forwards.push(forward);
        let Some(action) = self.offer_action(id, exchange, 1 - to, said) else { return false };
        self.ask_media(action, Wait::Forward(number), core);
        true
    }

    /// The end that asked gets its 2xx.
    fn complete_forward(&mut self, number: u32, response: &Message, sdp: Option<Bytes>, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let forward = self.forwards.remove(position);
        let (id, from, to) = (forward.pair, forward.from, 1 - forward.from);
        let is_invite = forward.request.method() == Some(Method::INVITE);
        let is_late =
            self.pair(id).and_then(|pair| pair.exchange).is_some_and(|exchange| exchange.offerer == to)
                && is_invite;
        if forward.sent_invite && !is_late {
            self.acknowledge(id, to, None, core);
        }
        if let Some(pair) = self.pair_mut(id) {
            pair.ends[to].accept(&forward, response);
            if forward.server().is_some() {
                pair.ends[from].said = said_in(&forward.request).or_else(|| pair.ends[from].said.take());
            }
        }
        if forward.server().is_none() {
            // What the one end is told now, the other has known all the time.
            self.after_forward(id, core);
            return;
        }
        if let (Some(server), Some(answer)) =
            (forward.server(), self.build_forward_response(&forward, response, sdp, core))
        {
            let status = response.status().unwrap_or(200);
            core.respond(server, status, answer.clone());
            if is_invite {
                let cseq = cseq_of(&forward.request);
                self.repeat_until_acknowledged(id, from, server, (status, cseq), answer, core);
                if let Some(pair) = self.pair_mut(id) {
                    pair.owed_ack = is_late.then_some(to);
                }
            }
            self.arm_session_timer(id, from, core);
        }
        self.after_notify(&forward, core);
        self.after_forward(id, core);
    }

    fn build_forward_response(
        &mut self,
        forward: &Forward,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let config = core.config.clone();
        let (from, to) = (forward.from, 1 - forward.from);
        let pair = self.pairs.iter_mut().find(|pair| pair.id == forward.pair)?;
        let (near, far) = (config.realm(pair.ends[from].realm)?, config.realm(pair.ends[to].realm)?);
        let reason =
            response.reason().filter(|reason| !reason.is_empty() && !self.secrets[to].are_in(reason));
        let mut out = transaction::response_to(&forward.request, response.status()?, reason, None);
        let method = forward.request.method()?;
        if is_target_refresh(method) {
            out = out.header(Name::Contact, &core.contact(pair.flow(from).listener));
        }
        let mut supported = passing_options(response, Name::Supported);
        if method == Method::INVITE || method == Method::UPDATE {
            supported.extend_from_slice(if supported.is_empty() { b"timer" } else { b", timer" });
            if let Some(agreed) = Agreement::answering(&forward.request, near.session_timer) {
                pair.ends[from].session.agreed = Some(agreed);
                out = out.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    out = out.header(Name::Require, b"timer");
                }
            }
        }
        if !supported.is_empty() {
            out = out.header(Name::Supported, &supported);
        }
        if let Some(product) = &config.product {
            out = out.header(Name::Server, product.as_bytes());
        }
        if let Some(sdp) = &sdp {
            pair.ends[from].description = Some(sdp.clone());
        }
        let flow = pair.flow(to);
        let (out, dropped) = copy_headers(out, response, far, near, &self.secrets[to]);
        let (out, bodies) = with_body(out, response, sdp.as_ref(), &self.secrets[to]);
        core.count_hidden(flow, dropped + bodies);
        Some(out.finish())
    }

    /// An UPDATE that refreshes only its sender's leg.
    fn answer_refresh(&mut self, number: u32, core: &mut Core) {
        if let Ok(ok) = Message::parse(Bytes::from_static(b"SIP/2.0 200 OK\r\n\r\n")) {
            self.complete_forward(number, &ok, None, core);
        }
    }

    /// A failure response, or none (408), or no way (503).
    pub(crate) fn on_forward_failure(
        &mut self,
        number: u32,
        status: u16,
        response: Option<Message>,
        core: &mut Core,
    ) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        if status == 422 && self.raise_interval(position, response.as_ref()) {
            self.send_forward(number, core);
            return;
        }
        let forward = &self.forwards[position];
        if let Origin::Media(_) = forward.origin {
            self.on_renegotiation_failure(number, status, core);
            return;
        }
        let (id, from) = (forward.pair, forward.from);
        let is_session_request = forward.sent_invite || forward.request.method() == Some(Method::UPDATE);
        let is_gone = matches!(status, 408 | 481) && is_session_request && self.answered;
        // It refused even what was agreed before.
        let is_lost = matches!(forward.origin, Origin::Restore);
        let is_phone = self
            .pair(id)
            .and_then(|pair| core.realm(pair.ends[from].realm))
            .is_some_and(|realm| !realm.is_trunk_side);
        if status == 491 && forward.attempts < ATTEMPTS && (is_phone || is_lost) && forward.sent_invite {
            // RFC 3261 §14.1: whoever owns the Call-ID waits longer. We made that of the target's dialog.
            let spread = std::time::Duration::from_millis(core.ids.number() % 200 * 10);
            let wait = if from == CALLER { std::time::Duration::from_millis(2100) + spread } else { spread };
            self.forwards[position].attempts += 1;
            self.forwards[position].client = None;
            // Its offer is void meanwhile: theirs may change what it would be made from.
            if let Some(exchange) = self.forwards[position].exchange.take() {
                self.tell_media(MediaAction::Cancel { exchange: exchange.id }, core);
            }
            self.schedule(wait, CallTimer::Retry(number), core);
            // Theirs goes first.
            self.take_crossing(id, core);
            return;
        }
        let forward = self.forwards.remove(position);
        if let Some(exchange) = forward.exchange {
            self.tell_media(MediaAction::Cancel { exchange: exchange.id }, core);
        }
        if let Some(server) = forward.server() {
            // 408 and 481 would make a phone end its call (RFC 5057); a BYE says it properly.
            let shown = match status {
                408 | 481 if is_session_request => 500,
                503 => 500,
                401 | 407 => 403,
                status => status,
            };
            let answer = response
                .as_ref()
                .filter(|response| response.status() == Some(shown))
                .and_then(|response| self.build_forward_response(&forward, response, None, core));
            match answer {
                Some(answer) => core.respond(server, shown, answer),
                None => core.reject(server, &forward.request, shown, |response| response),
            }
        }
        if is_gone || is_lost {
            let cause = if is_gone { EndCause::Failed } else { EndCause::MediaRefused };
            self.hang_up(cause, Side::Sbc, core);
            return;
        }
        if self.purpose == super::Purpose::Subscription && matches!(status, 481 | 408 | 489) {
            self.done_once(core);
            return;
        }
        self.after_forward(id, core);
    }

    /// The interval is ours, and so is the second try with the end's own least (RFC 4028 §7.3), once.
    fn raise_interval(&mut self, position: usize, response: Option<&Message>) -> bool {
        let least = response.and_then(|response| response.number(Name::MinSe)?.ok());
        let (id, to) = (self.forwards[position].pair, 1 - self.forwards[position].from);
        let (Some(least), Some(pair)) = (least, self.pair_mut(id)) else { return false };
        let known = pair.ends[to].session.least.replace(std::time::Duration::from_secs(u64::from(least)));
        known.is_none()
    }

    pub(super) fn on_retry(&mut self, number: u32, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let forward = &self.forwards[position];
        if forward.client.is_some() || self.is_over() {
            return;
        }
        let (id, from) = (forward.pair, forward.from);
        // What went first must have ended: one offer at a time.
        let is_busy = self.forwards.iter().any(|other| other.pair == id && other.is_open())
            || self.pair(id).is_some_and(|pair| pair.exchange.is_some());
        if is_busy {
            self.schedule(core.config.timers.t1, CallTimer::Retry(number), core);
            return;
        }
        let request = &forward.request;
        let description = match forward.origin {
            Origin::Restore => self.pair(id).and_then(|pair| pair.ends[from].said.clone()),
            _ => multipart::session_description(request).map(|range| request.body_bytes().slice(range)),
        };
        let Some(sdp) = description else {
            self.send_forward(number, core);
            return;
        };
        let exchange = self.new_exchange();
        self.forwards[position].exchange = Some(Exchange { id: exchange, offerer: from });
        if let Some(action) = self.offer_action(id, exchange, from, sdp) {
            self.ask_media(action, Wait::Forward(number), core);
        }
    }

    /// What waited for the end of a forward goes on.
    pub(super) fn after_forward(&mut self, id: u32, core: &mut Core) {
        let is_settled = self.pair(id).is_some_and(|pair| pair.exchange.is_none());
        if is_settled && !self.forwards.iter().any(|forward| forward.pair == id && forward.blocks()) {
            self.take_crossing(id, core);
        }
    }

    fn take_crossing(&mut self, id: u32, core: &mut Core) {
        if let Some((side, server, request, timer)) = self.pair_mut(id).and_then(|pair| pair.crossing.take())
        {
            core.timers.cancel(timer);
            self.forward(id, side, server, request, core);
        }
    }

    /// CANCEL of a re-INVITE.
    pub(super) fn cancel_forward(&mut self, server: ServerId, reason: Option<&[u8]>, core: &mut Core) {
        let waiting = self
            .pairs
            .iter_mut()
            .find(|pair| pair.crossing.as_ref().is_some_and(|crossing| crossing.1 == server));
        if let Some((_, server, request, timer)) = waiting.and_then(|pair| pair.crossing.take()) {
            core.timers.cancel(timer);
            core.reject(server, &request, 487, |response| response);
            return;
        }
        let Some(forward) = self.forwards.iter().find(|forward| forward.server() == Some(server)) else {
            return;
        };
        match forward.client {
            Some(client) => core.cancel(client, reason),
            None => {
                let number = forward.id;
                self.on_forward_failure(number, 487, None, core);
            }
        }
    }

    /// A SUBSCRIBE was accepted (RFC 6665 §4.1).
    pub(super) fn accept_subscription(&mut self, id: u32, response: &Message, core: &mut Core) {
        let Some(answer) = self.build_response(id, response, None, core) else { return };
        self.answered = true;
        core.respond(self.upstream.server, response.status().unwrap_or(200), answer);
        self.extend_subscription(response, core);
    }

    fn extend_subscription(&mut self, response: &Message, core: &mut Core) {
        let expires = response.number(Name::Expires).and_then(Result::ok).unwrap_or(3600);
        if let Some(timer) = self.ringing.take() {
            core.timers.cancel(timer);
        }
        let life = std::time::Duration::from_secs(u64::from(expires)) + 64 * core.config.timers.t1;
        self.ringing = Some(self.schedule(life, CallTimer::Expiry, core));
    }

    /// A NOTIFY that says the subscription is over ends ours; a refresh prolongs it.
    fn after_notify(&mut self, forward: &Forward, core: &mut Core) {
        if self.purpose != super::Purpose::Subscription {
            return;
        }
        if forward.request.method() == Some(Method::SUBSCRIBE) {
            let request = forward.request.clone();
            self.extend_subscription(&request, core);
        }
        let is_over = forward.request.value(Name::SubscriptionState).is_some_and(|state| {
            state.get(..10).is_some_and(|word| word.eq_ignore_ascii_case(b"terminated"))
        });
        if is_over {
            self.done_once(core);
        }
    }

    /// A NOTIFY before the 2xx to its SUBSCRIBE makes the dialog (RFC 6665 §4.4.1).
    pub(crate) fn on_early_notify(
        &mut self,
        index: u16,
        flow: Flow,
        notify: &Message,
        core: &mut Core,
    ) -> Option<u32> {
        let branch = self.branches.get(usize::from(index))?;
        let (sent, party, realm) = (branch.request.as_ref()?, branch.party, branch.realm);
        // Seen as a response to our SUBSCRIBE, a NOTIFY's From is its To.
        let tag = notify.from().ok()?.tag()?;
        let to = [sent.value(Name::To)?, b";tag=", tag].concat();
        let as_response = sip_wire::Builder::response(200, b"OK")
            .header(Name::From, sent.value(Name::From)?)
            .header(Name::To, &to)
            .header(Name::CallId, sent.call_id().ok()?)
            .header(Name::CSeq, sent.value(Name::CSeq)?)
            .header(Name::Contact, notify.value(Name::Contact)?)
            .finish();
        let dialog = crate::dialog::Dialog::uac(sent, &Message::parse(as_response).ok()?, flow).ok()?;
        self.make_pair(index, dialog, realm, party, None, core)
    }
}

fn forward_sent_invite(forwards: &[Forward], number: u32) -> bool {
    forwards.iter().any(|forward| forward.id == number && forward.sent_invite)
}

/// The Replaces (RFC 3891) of a request for the other side. A phone that does not know the header (baresip) follows a
/// Refer-To without it: then the token that we gave as its user tells which dialog is meant.
pub(super) fn replaces_of(request: &Message, core: &Core) -> Option<Vec<u8>> {
    if let Some(value) = request.value(Name::Replaces) {
        return translate_replaces(value, core);
    }
    let uri = Uri::parse(request.request_uri()?).ok()?;
    core.transfers.get(uri.user()).map(|peer| peer.replaces.to_vec())
}

/// A Replaces value as the other side knows the dialog that it names; `None` if we don't know it.
fn translate_replaces(value: &[u8], core: &Core) -> Option<Vec<u8>> {
    let (call_id, to_tag, from_tag) = read_replaces(value)?;
    if let Some(peer) = core.transfers.get(call_id) {
        return Some(peer.replaces.to_vec());
    }
    Some(core.dialog_peer(&dialog_key(call_id, to_tag, from_tag))?.replaces.to_vec())
}

/// Call-ID, to-tag and from-tag of a Replaces value.
pub(crate) fn read_replaces(value: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let end = value.iter().position(|byte| *byte == b';')?;
    Some((
        value[..end].trim_ascii(),
        sip_wire::parameter(value, b"to-tag")?,
        sip_wire::parameter(value, b"from-tag")?,
    ))
}

/// Refer-To (RFC 3515) for the other side: a host of the referrer's side becomes one of theirs, a Replaces names what
/// we know the dialog by.
fn translate_refer_to(
    value: &[u8],
    host: &str,
    slot: crate::slot::Slot,
    from: &crate::config::Realm,
    core: &mut Core,
) -> Option<Vec<u8>> {
    let address = Address::parse(value).ok()?;
    let uri = address.uri;
    if let Some(replaces) = uri.header(b"Replaces") {
        let (call_id, to_tag, from_tag) = read_replaces(&replaces)?;
        if let Some(peer) = core.dialog_peer(&dialog_key(call_id, to_tag, from_tag)) {
            let token = core.ids.call_id(slot);
            let header = Uri::escape(format!("{token};to-tag=x;from-tag=x").as_bytes());
            let out = format!("<sip:{token}@{host}?Replaces={header}>").into_bytes();
            let token: Box<[u8]> = token.into_bytes().into();
            let end = DialogEnd { token: token.clone(), peer: peer.clone() };
            core.out.push_back(Output::Replicate(Replica::End(end)));
            core.remember_transfer(token, peer);
            return Some(out);
        }
    }
    let named = String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase();
    let is_ours = from.domains.iter().any(|domain| **domain == *named) || uri.host().address().is_some();
    if !is_ours {
        return Some(value.to_vec());
    }
    let user = String::from_utf8_lossy(uri.user()).into_owned();
    Some(format!("<sip:{user}@{host}>").into_bytes())
}

/// How the target of a pair is reached by an INVITE that replaces its dialog.
pub(super) fn peer_of(end: &super::pair::End) -> crate::core::Peer {
    let dialog = &end.dialog;
    let replaces =
        [&*dialog.call_id, b";to-tag=", &dialog.remote_tag, b";from-tag=", &dialog.local_tag].concat();
    crate::core::Peer {
        replaces: replaces.into(),
        realm: end.realm,
        flow: dialog.flow,
        uri: Bytes::copy_from_slice(&dialog.target),
    }
}
