//! What the caller hears of a target that answers: provisional responses, descriptions, and the 2xx.

use bytes::Bytes;
use seam::ExchangeId;
use sip_wire::{Message, Name, multipart};

use super::body::{add, body_for};
use super::media::Wait;
use super::pair::{Exchange, Reliable, cseq_of};
use super::side::{EndId, Side};
use super::{Call, Purpose};
use crate::core::Core;
use crate::event::{CallEventKind, EndCause};
use crate::passing::{copy_headers, passing_options};
use crate::session_timer::Agreement;
use crate::transaction::{self, Answer};

impl Call {
    /// A response that belongs to a pair, in its order.
    pub(super) fn take_response(&mut self, id: u32, response: Message, core: &mut Core) {
        let is_waiting = self.waiting.iter().any(|(_, wait, _)| wait.is_of_pair(id));
        let has_offer = self.branch_has_offer(id);
        let Some(pair) = self.pair_mut(id) else { return };
        if is_waiting {
            pair.deferred.push_back(response);
            return;
        }
        let status = response.status().unwrap_or(500);
        if status < 200
            && let Some(theirs) = response
                .number(Name::RSeq)
                .and_then(Result::ok)
                .filter(|_| response.has_token(Name::Require, "100rel"))
        {
            if pair.reliable.iter().any(|known| known.theirs == theirs) {
                return;
            }
            let ours = pair.reliable.last().map_or(1, |last| last.ours.saturating_add(1));
            pair.reliable.push(Reliable { theirs, ours });
        }
        let is_reliable = status >= 200 || response.has_token(Name::Require, "100rel");
        let description =
            multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        match description {
            // What comes after a reliable answer, unreliably or late, says nothing new (RFC 3261 §13.2.1).
            Some(sdp) if has_offer && (!pair.negotiated || status >= 200) => {
                // A reliable answer is final: what follows it in the same exchange only repeats it (RFC 6337 §3.1.1).
                let is_repeated =
                    pair.negotiated && pair.exchange.is_none() && status >= 200 && !pair.reliable.is_empty();
                if is_repeated {
                    self.answer_call(id, &response, None, core);
                } else {
                    pair.negotiated |= is_reliable;
                    self.answer_initial(id, response, sdp, core);
                }
            }
            Some(sdp) if !has_offer && is_reliable && !pair.negotiated && pair.exchange.is_none() => {
                self.offer_late(id, response, sdp, core)
            }
            _ if status >= 200 => self.answer_call(id, &response, None, core),
            _ => self.pass_response(id, &response, None, core),
        }
    }

    /// Whether a target takes the call and has never answered its offer, or only in a way that the media plane refused.
    pub(super) fn lacks_answer(&self, id: u32) -> bool {
        self.branch_has_offer(id)
            && self
                .pair(id)
                .is_some_and(|pair| !pair.negotiated && pair.ends[Side::Caller].description.is_none())
    }

    pub(super) fn branch_has_offer(&self, id: u32) -> bool {
        self.pair(id)
            .and_then(|pair| self.branches.get(usize::from(pair.branch)))
            .is_some_and(|branch| branch.offer.is_some())
    }

    fn answer_initial(&mut self, id: u32, response: Message, sdp: Bytes, core: &mut Core) {
        if let Some(action) = self.answer_action(id, ExchangeId(1), Side::Target, sdp) {
            self.ask_media(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// The INVITE held no offer: the target's first reliable response does.
    pub(super) fn offer_late(&mut self, id: u32, response: Message, sdp: Bytes, core: &mut Core) {
        let exchange = self.new_exchange();
        let Some(pair) = self.pair_mut(id) else { return };
        pair.exchange = Some(Exchange { id: exchange, offerer: Side::Target });
        pair.negotiated = true;
        let action = self.offer_action(id, exchange, Side::Target, sdp);
        if let Some(action) = action {
            self.ask_media(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// Passes a response of a pair's target to the caller, with the description made for it.
    pub(super) fn pass_response(&mut self, id: u32, response: &Message, sdp: Option<Bytes>, core: &mut Core) {
        let status = response.status().unwrap_or(500);
        if self.answered || self.is_over() {
            return;
        }
        let Some(answer) = self.build_response(id, response, sdp, core) else { return };
        let server = self.upstream.incoming.server;
        core.respond(server, status, answer.clone());
        if status >= 200 {
            return;
        }
        if response.has_token(Name::Require, "100rel") {
            let cseq = cseq_of(&self.upstream.incoming.request);
            let answer = Answer { server, status, response: answer };
            self.repeat_until_acknowledged(EndId { pair: id, side: Side::Caller }, answer, cseq, core);
        }
    }

    /// The caller's version of a response in a pair.
    pub(super) fn build_response(
        &mut self,
        id: u32,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let status = response.status()?;
        let config = core.config.clone();
        let mut names = self.pair_names(&config, id, Side::Target)?;
        let upstream = &self.upstream;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id)?;
        let to_realm = config.realm(upstream.realm)?;
        let tag = String::from_utf8_lossy(&pair.ends[Side::Caller].dialog.local_tag).into_owned();
        let reason = response.reason().filter(|reason| !reason.is_empty()).map(|reason| names.apply(reason));
        let mut out =
            transaction::response_to(&upstream.incoming.request, status, reason.as_deref(), Some(&tag));
        self.shown_tag = Some(tag);
        for record_route in upstream.incoming.request.values(Name::RecordRoute) {
            out = out.header(Name::RecordRoute, record_route);
        }
        out = out.header(Name::Contact, &core.contact(upstream.incoming.flow.listener));
        let mut supported = passing_options(response, Name::Supported);
        let mut require = passing_options(response, Name::Require);
        if status < 200 {
            if let Some(reliable) =
                pair.reliable.last().filter(|_| response.has_token(Name::Require, "100rel"))
            {
                out = out.header(Name::RSeq, reliable.ours.to_string().as_bytes());
            }
        } else if self.purpose == Purpose::Session {
            let agreed = Agreement::answering(&upstream.incoming.request, to_realm.session_timer);
            if let Some(agreed) = agreed {
                pair.ends[Side::Caller].session.agreed = Some(agreed);
                out = out.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    require.extend_from_slice(if require.is_empty() { b"timer" } else { b", timer" });
                }
            }
            supported.extend_from_slice(if supported.is_empty() { b"timer" } else { b", timer" });
        }
        for (name, options) in [(Name::Supported, supported), (Name::Require, require)] {
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        if let Some(product) = &config.product {
            out = out.header(Name::Server, product.as_bytes());
        }
        let out = copy_headers(out, response, &names, core);
        let flow = pair.flow(Side::Target);
        if let Some(sdp) = &sdp {
            pair.ends[Side::Caller].description = Some(sdp.clone());
        }
        // What was agreed by an unreliable response belongs into the final one too.
        let agreed = if sdp.is_none() && status >= 200 && !pair.negotiated {
            pair.ends[Side::Caller].description.clone()
        } else {
            None
        };
        let sdp = sdp.or(agreed);
        match body_for(response, sdp.as_ref(), &mut names, core) {
            Ok(body) => Some(add(out, body).finish().into()),
            Err(fault) => {
                core.body_refused(flow, fault);
                // It costs early media, and not the call.
                (status < 200).then(|| out.finish().into())
            }
        }
    }

    /// The 2xx of a pair has its description: it goes to the caller, and the call is answered.
    pub(super) fn answer_call(&mut self, id: u32, response: &Message, sdp: Option<Bytes>, core: &mut Core) {
        if sdp.is_none() && self.lacks_answer(id) {
            let status = match sip_wire::Body::of(response) {
                Ok(_) => 488,
                Err(fault) => {
                    core.body_refused(self.upstream.incoming.flow, fault);
                    502
                }
            };
            self.fail_upstream(status, EndCause::MediaRefused, core);
            return;
        }
        let Some(answer) = self.build_response(id, response, sdp, core) else {
            // What the target says cannot be passed: it has its ACK and a BYE, and the caller a failure.
            self.fail_upstream(502, EndCause::MediaRefused, core);
            return;
        };
        let server = self.upstream.incoming.server;
        self.answered = true;
        self.times.answered = Some(core.now.monotonic);
        if let Some(timer) = self.ringing.take() {
            core.timers.cancel(timer);
        }
        let longest = core.config.limits.longest_call;
        if !longest.is_zero() {
            self.ringing = Some(self.schedule(longest, super::CallTimer::Longest, core));
        }
        self.stop_repeating(id, Side::Caller, core);
        let (realm, destination, trunk, (reached, uri)) = match self.pair(id) {
            Some(pair) => {
                let realm = core
                    .realm(pair.ends[Side::Target].realm)
                    .map(|realm| realm.name.clone())
                    .unwrap_or_default();
                let trunk = self
                    .branches
                    .get(usize::from(pair.branch))
                    .and_then(|branch| branch.trunk.as_ref())
                    .map(|trunk| trunk.name.clone());
                (realm, pair.flow(Side::Target).remote, trunk, self.reached(pair.branch))
            }
            None => return,
        };
        self.record(CallEventKind::Answered { realm, trunk, destination, reached, uri }, core);
        let status = response.status().unwrap_or(200);
        core.respond(server, status, answer.clone());
        let cseq = cseq_of(&self.upstream.incoming.request);
        let answer = Answer { server, status, response: answer };
        self.repeat_until_acknowledged(EndId { pair: id, side: Side::Caller }, answer, cseq, core);
        // With the offer in the INVITE nothing of the caller's ACK matters to the target; with the offer in the 2xx its
        // ACK carries the answer.
        let is_late = self
            .pair(id)
            .and_then(|pair| pair.exchange)
            .is_some_and(|exchange| exchange.offerer == Side::Target);
        if let Some(pair) = self.pair_mut(id) {
            pair.owed_ack = is_late.then_some(Side::Target);
        }
        if !is_late {
            self.acknowledge(id, Side::Target, None, core);
        }
        for side in [Side::Caller, Side::Target] {
            self.arm_session_timer(id, side, core);
        }
    }
}
