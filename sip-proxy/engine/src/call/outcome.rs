//! How a request inside a pair comes out: its response reaches the end that asked, and what was agreed is kept.

use bytes::Bytes;
use seam::{Action, Described, Refusal};
use sip_wire::{Message, Method, Name, multipart};

use super::body::with_body;
use super::forward::{ATTEMPTS, Forward, Origin};
use super::media::Wait;
use super::pair::{Exchange, cseq_of, said_in};
use super::side::{EndId, Side};
use super::{Call, CallTimer, is_target_refresh};
use crate::core::Core;
use crate::event::{EndCause, EndedBy};
use crate::passing::{copy_headers, passing_options};
use crate::session_timer::Agreement;
use crate::transaction::{self, Answer, ClientId};

impl Call {
    /// The response to a forwarded request.
    pub(crate) fn on_forward_response(
        &mut self,
        number: u32,
        client: ClientId,
        response: Message,
        core: &mut Core,
    ) {
        let Some(status) = response.status() else { return };
        let Some(forward) = self.forward_of(number) else {
            // A 2xx to a re-INVITE that crossed the end of its dialog.
            if (200..300).contains(&status) {
                core.take_down(client, &response, false);
            }
            return;
        };
        if status < 200 || self.is_over() {
            return;
        }
        let (id, to) = (forward.pair, !forward.from);
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
        let Some(forward) = self.forwards.iter().find(|forward| forward.id == number) else { return };
        let method = forward.request.method().unwrap_or(Method::INFO);
        let is_offering = forward.sent_invite || method == Method::UPDATE;
        if is_target_refresh(method) {
            self.refresh_target(id, to, &response, core);
            let Some(pair) = self.pairs.iter_mut().find(|pair| pair.id == id) else { return };
            if is_offering && response.count(Name::SessionExpires) > 0 {
                pair.ends[to].session.agreed = Agreement::of_answer(&response);
            }
        }
        if is_offering {
            self.arm_session_timer(id, to, core);
        }
        let Some(forward) = self.forward_of(number) else { return };
        let description =
            multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        match &forward.origin {
            Origin::End(_) | Origin::Restore => {}
            Origin::Refresh => {
                // The description has not changed, so its answer has not either.
                if forward.sent_invite {
                    self.acknowledge(id, to, None, core);
                }
                self.take_forward(number);
                self.after_forward(id, core);
                return;
            }
            Origin::Liveness => {
                self.take_forward(number);
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
                self.tell_media(Action::Cancel(exchange.id), core);
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
        let Some(forward) = self.forward_of(number) else { return };
        let (id, from) = (forward.pair, forward.from);
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

    /// The media plane refused what an end has answered: whoever asked hears 488, and the end, which has agreed, is put back
    /// to what both know. An offer in a 2xx that was refused has no such way: its ACK owes an answer that nobody can give,
    /// and BYE follows (RFC 3261 §13.2.2.4).
    pub(super) fn on_refused_answer(&mut self, number: u32, refusal: Refusal, core: &mut Core) {
        let Some(forward) = self.forward_mut(number) else { return };
        let (id, to, sent_invite) = (forward.pair, !forward.from, forward.sent_invite);
        let is_restore = matches!(forward.origin, Origin::Restore);
        let exchange = forward.exchange.take();
        if sent_invite {
            self.acknowledge(id, to, None, core);
        }
        if let Some(pair) = self.pair_mut(id) {
            pair.exchange = None;
        }
        // A media plane that has not replied at all may have taken it: nobody knows what is agreed.
        let is_answer = exchange.is_some() && refusal != Refusal::Unavailable;
        if let Some(exchange) = exchange {
            self.tell_media(Action::Cancel(exchange.id), core);
        }
        let is_being_restored = is_answer && !is_restore && self.restore(id, to, core);
        self.on_forward_failure(number, 488, None, core);
        if !is_being_restored {
            // No session is left that both ends know.
            self.hang_up(EndCause::MediaRefused, EndedBy::Sbc, core);
        }
    }

    /// Offers an end once more what the other has described last; false if that cannot be.
    pub(super) fn restore(&mut self, id: u32, to: Side, core: &mut Core) -> bool {
        let Some(pair) = self.pair(id) else { return false };
        let Some(said) = pair.ends[!to].said.clone() else { return false };
        let method = match (self.answered, pair.ends[to].has_update) {
            (true, _) => Method::INVITE,
            (false, true) => Method::UPDATE,
            (false, false) => return false,
        };
        let (number, exchange) = (self.next_forward, self.new_exchange());
        self.next_forward = self.next_forward.saturating_add(1);
        let end = EndId { pair: id, side: to };
        let mut forward = Forward::of_ours(number, end, method, Origin::Restore, None);
        forward.exchange = Some(Exchange { id: exchange, offerer: !to });
        forward.attempts = 0;
        self.forwards.push(forward);
        let Some(action) = self.offer_action(id, exchange, !to, said) else { return false };
        self.ask_media(action, Wait::Forward(number), core);
        true
    }

    /// The end that asked gets its 2xx.
    pub(super) fn complete_forward(
        &mut self,
        number: u32,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) {
        let Some(forward) = self.take_forward(number) else { return };
        let (id, from, to) = (forward.pair, forward.from, !forward.from);
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
        let status = response.status().unwrap_or(200);
        let answer = self.build_forward_response(&forward, response, sdp, core);
        if let (Some(asked), None) = (forward.asked(), &answer) {
            // What came with the 2xx cannot be passed: it is no 2xx for who asked (RFC 3261 §21.5.3), and if an offer may
            // have been in it, nobody can answer that.
            core.reject(asked, 502);
            if is_invite {
                self.hang_up(EndCause::MediaRefused, EndedBy::Sbc, core);
                return;
            }
        }
        if let (Some(server), Some(response)) = (forward.server(), answer) {
            core.respond(server, status, response.clone());
            if is_invite {
                let cseq = cseq_of(&forward.request);
                let answer = Answer { server, status, response };
                self.repeat_until_acknowledged(EndId { pair: id, side: from }, answer, cseq, core);
                if let Some(pair) = self.pair_mut(id) {
                    pair.owed_ack = is_late.then_some(to);
                }
            }
            self.arm_session_timer(id, from, core);
        }
        self.after_notify(&forward, core);
        self.after_forward(id, core);
    }

    pub(super) fn build_forward_response(
        &mut self,
        forward: &Forward,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let config = core.config.clone();
        let (from, to) = (forward.from, !forward.from);
        let mut names = self.pair_names(&config, forward.pair, to)?;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == forward.pair)?;
        let near = config.realm(pair.ends[from].realm)?;
        let reason = response.reason().filter(|reason| !reason.is_empty()).map(|reason| names.apply(reason));
        let mut out = transaction::response_to(&forward.request, response.status()?, reason.as_deref(), None);
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
        let out = copy_headers(out, response, &names, core);
        match with_body(out, response, sdp.as_ref(), &mut names, core) {
            Ok(out) => Some(out.finish().into()),
            Err(fault) => {
                core.body_refused(flow, fault);
                None
            }
        }
    }

    /// An UPDATE that refreshes only its sender's leg.
    pub(super) fn answer_refresh(&mut self, number: u32, core: &mut Core) {
        let ok = sip_wire::Builder::response(200, b"OK").finish();
        self.complete_forward(number, &ok, None, core);
    }

    /// A failure response, or none (408), or no way (503).
    pub(crate) fn on_forward_failure(
        &mut self,
        number: u32,
        status: u16,
        response: Option<Message>,
        core: &mut Core,
    ) {
        if status == 422 && self.raise_interval(number, response.as_ref()) {
            self.send_forward(number, core);
            return;
        }
        let Some(forward) = self.forward_of(number) else { return };
        if let Origin::Media(_) = forward.origin {
            self.on_renegotiation_failure(number, status, core);
            return;
        }
        if let Origin::Liveness = forward.origin {
            self.on_liveness_failure(number, status, response.is_some(), core);
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
            let spread = (core.ids.number() % 200).saturating_mul(10);
            let wait = if from == Side::Caller { spread.saturating_add(2100) } else { spread };
            let wait = std::time::Duration::from_millis(wait);
            let Some(forward) = self.forward_mut(number) else { return };
            forward.attempts = forward.attempts.saturating_add(1);
            forward.client = None;
            // Its offer is void meanwhile: theirs may change what it would be made from.
            if let Some(exchange) = forward.exchange.take() {
                self.tell_media(Action::Cancel(exchange.id), core);
            }
            self.schedule(wait, CallTimer::Retry(number), core);
            // Theirs goes first.
            self.take_crossing(id, core);
            return;
        }
        let Some(forward) = self.take_forward(number) else { return };
        if let Some(exchange) = forward.exchange {
            self.tell_media(Action::Cancel(exchange.id), core);
        }
        if let Some(asked) = forward.asked() {
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
                None if shown == 408 => core.stay_silent(asked.server),
                Some(answer) => core.respond(asked.server, shown, answer),
                None => core.reject(asked, shown),
            }
        }
        if is_gone || is_lost {
            let cause = if is_gone { EndCause::Failed } else { EndCause::MediaRefused };
            self.hang_up(cause, EndedBy::Sbc, core);
            return;
        }
        if matches!(forward.origin, Origin::Refresh) {
            self.on_refused_refresh(id, !from, core);
        }
        if self.purpose == super::Purpose::Subscription && matches!(status, 481 | 408 | 489) {
            self.done_once(core);
            return;
        }
        self.after_forward(id, core);
    }

    /// The interval is ours, and so is the second try with the end's own least (RFC 4028 §7.3), once.
    pub(super) fn raise_interval(&mut self, number: u32, response: Option<&Message>) -> bool {
        let least = response.and_then(crate::times::min_se_of);
        let Some(forward) = self.forward_of(number) else { return false };
        let (id, to) = (forward.pair, !forward.from);
        let (Some(least), Some(pair)) = (least, self.pair_mut(id)) else { return false };
        let known = pair.ends[to].session.least.replace(std::time::Duration::from_secs(u64::from(least)));
        known.is_none()
    }
}

fn forward_sent_invite(forwards: &[Forward], number: u32) -> bool {
    forwards.iter().any(|forward| forward.id == number && forward.sent_invite)
}
