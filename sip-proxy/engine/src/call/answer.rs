//! What the caller hears of a target that answers: provisional responses, descriptions, and the 2xx.

use std::time::Duration;

use bytes::Bytes;
use sip_wire::{Message, Name, multipart};

use super::end::side_of;
use super::fault::{End, Final};
use super::leg::{Repeat, cseq_of, said_in};
use super::media::{Exchange, Wait};
use super::pair::Reliable;
use super::side::{BranchId, LegId, PairId, Side};
use super::{Call, CallTimer, Progress};
use crate::core::Core;
use crate::event::{CallChange, CallEventKind};
use crate::registrar::Registrar;
use crate::transaction::{Answer, Incoming};
use seam::{Described, ExchangeId, Refusal, Reply};

impl Call {
    /// A response that belongs to a pair, in its order.
    pub(super) fn take_response(&mut self, id: PairId, response: Message, core: &mut Core) {
        let is_waiting = self.media.is_asked_of(id);
        let has_offer = self.parties.branch_has_offer(id);
        let Some(pair) = self.parties.pair_mut(id) else { return };
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

    fn answer_initial(&mut self, id: PairId, response: Message, sdp: Bytes, core: &mut Core) {
        if let Some(action) = self.parties.answer_action(id, ExchangeId(1), Side::Target, sdp) {
            self.media.ask(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// The INVITE held no offer: the target's first reliable response does.
    pub(super) fn offer_late(&mut self, id: PairId, response: Message, sdp: Bytes, core: &mut Core) {
        let exchange = self.media.new_exchange();
        let Some(pair) = self.parties.pair_mut(id) else { return };
        pair.exchange = Some(Exchange { id: exchange, offerer: Side::Target });
        pair.negotiated = true;
        let action = self.parties.offer_action(id, exchange, Side::Target, sdp);
        if let Some(action) = action {
            self.media.ask(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// Passes a response of a pair's target to the caller, with the description made for it.
    pub(super) fn pass_response(
        &mut self,
        id: PairId,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) {
        let status = response.status().unwrap_or(500);
        if self.is_answered() || self.is_over() {
            return;
        }
        let Some(answer) = self.parties.build_response(id, response, sdp, core) else { return };
        let server = self.parties.upstream.incoming.server;
        core.respond(server, status, answer.clone());
        if status >= 200 {
            return;
        }
        if response.has_token(Name::Require, "100rel") {
            let cseq = cseq_of(&self.parties.upstream.incoming.request);
            let answer = Answer { server, status, response: answer };
            self.parties.repeat_until_acknowledged(id.leg(Side::Caller), answer, cseq, core);
        }
    }

    /// The 2xx of a pair has its description: it goes to the caller, and the call is answered.
    pub(super) fn answer_call(
        &mut self,
        id: PairId,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) {
        if sdp.is_none() && self.parties.lacks_answer(id) {
            let end = match sip_wire::Body::of(response) {
                Ok(_) => End::NoAnswerInside,
                Err(fault) => {
                    core.body_refused(self.parties.upstream.incoming.flow, fault);
                    End::AnswerUnreadable
                }
            };
            self.fail_upstream(end, core);
            return;
        }
        let Some(answer) = self.parties.build_response(id, response, sdp, core) else {
            // What the target says cannot be passed: it has its ACK and a BYE, and the caller a failure.
            self.fail_upstream(End::AnswerUnreadable, core);
            return;
        };
        let server = self.parties.upstream.incoming.server;
        self.progress = Progress::Answered;
        self.lifetime.answered = Some(core.now.monotonic);
        let longest = core.config.limits.longest_call;
        let timer = (!longest.is_zero()).then(|| self.schedule(longest, CallTimer::Longest, core));
        self.lifetime.limit(timer, core);
        self.parties.stop_repeating(id.leg(Side::Caller), core);
        let (realm, destination, trunk, (reached, uri)) = match self.parties.pair(id) {
            Some(pair) => {
                let realm = core
                    .realm(pair.legs[Side::Target].realm)
                    .map(|realm| realm.name.clone())
                    .unwrap_or_default();
                let branch = self.parties.branches.get(pair.branch);
                let trunk =
                    branch.and_then(|branch| branch.target.trunk.as_ref()).map(|trunk| trunk.name.clone());
                (realm, pair.flow(Side::Target).remote, trunk, self.parties.reached(pair.branch))
            }
            None => return,
        };
        self.record.write(CallEventKind::Answered { realm, trunk, destination, reached, uri }, core);
        let status = response.status().unwrap_or(200);
        core.respond(server, status, answer.clone());
        let cseq = cseq_of(&self.parties.upstream.incoming.request);
        let answer = Answer { server, status, response: answer };
        self.parties.repeat_until_acknowledged(id.leg(Side::Caller), answer, cseq, core);
        // With the offer in the INVITE nothing of the caller's ACK matters to the target; with the offer in the 2xx its
        // ACK carries the answer.
        let is_late = self
            .parties
            .pair(id)
            .and_then(|pair| pair.exchange)
            .is_some_and(|exchange| exchange.offerer == Side::Target);
        if let Some(pair) = self.parties.pair_mut(id) {
            pair.owed_ack = is_late.then_some(Side::Target);
        }
        if !is_late {
            self.parties.acknowledge(id.leg(Side::Target), None, core);
        }
        for side in [Side::Caller, Side::Target] {
            self.parties.arm_session_timer(id.leg(side), core);
        }
    }

    /// A SUBSCRIBE was accepted (RFC 6665 §4.1).
    pub(super) fn accept_subscription(&mut self, id: PairId, response: &Message, core: &mut Core) {
        let Some(answer) = self.parties.build_response(id, response, None, core) else {
            return self.fail_upstream(End::AcceptanceUnreadable, core);
        };
        self.progress = Progress::Answered;
        core.respond(self.parties.upstream.incoming.server, response.status().unwrap_or(200), answer);
        self.extend_subscription(response, core);
    }

    pub(super) fn extend_subscription(&mut self, response: &Message, core: &mut Core) {
        let expires = response.number(Name::Expires).and_then(Result::ok).unwrap_or(3600);
        let life = Duration::from_secs(u64::from(expires)).min(crate::times::LONGEST_SUBSCRIPTION);
        let life = life.saturating_add(core.config.timers.t1.saturating_mul(64));
        let timer = self.schedule(life, CallTimer::Expiry, core);
        self.lifetime.limit(Some(timer), core);
    }

    /// A NOTIFY before the 2xx to its SUBSCRIBE makes the dialog (RFC 6665 §4.4.1).
    pub(crate) fn on_early_notify(
        &mut self,
        index: BranchId,
        incoming: &Incoming,
        core: &mut Core,
    ) -> Option<PairId> {
        let branch = self.parties.branches.get(index)?;
        let sent = branch.attempt.request.as_ref()?;
        let Incoming { flow, request: notify, .. } = incoming;
        // Seen as a response to our SUBSCRIBE, a NOTIFY's From is its To.
        let tag = notify.from().ok()?.tag()?;
        let to = [sent.value(Name::To)?, b";tag=", tag].concat();
        let as_response = sip_wire::Builder::response(200, b"OK")
            .header(Name::From, sent.value(Name::From)?)
            .header(Name::To, &to)
            .header(Name::CallId, sent.call_id().ok()?)
            .header(Name::CSeq, sent.value(Name::CSeq)?);
        let as_response = match notify.value(Name::Contact) {
            Some(contact) => as_response.header(Name::Contact, contact),
            None => as_response,
        };
        let as_response = as_response.finish();
        let dialog = crate::dialog::Dialog::uac(sent, &as_response, *flow).ok()?;
        self.parties.make_pair(index, dialog, None, core)
    }

    /// An ACK to a 2xx.
    pub(crate) fn on_ack(&mut self, at: LegId, ack: &Message, core: &mut Core) {
        // One that was late, or came twice, is of the INVITE before.
        let cseq = cseq_of(ack);
        let is_of = |repeat: &Repeat| repeat.is_acknowledged_by(cseq);
        if self.is_over() {
            let leaving = self.leaving.iter().find(|leaving| leaving.leg.id == at);
            if leaving.is_some_and(|leaving| leaving.leg.repeat.as_ref().is_none_or(is_of)) {
                self.leave(at, core);
            }
            return;
        }
        let LegId { pair: id, side } = at;
        let is_awaited = self.parties.leg(at).is_some_and(|leg| leg.repeat.as_ref().is_some_and(is_of));
        if is_awaited {
            self.parties.stop_repeating(at, core);
        }
        let Some(pair) = self.parties.pair_mut(id) else { return };
        pair.legs[side].invite.is_acknowledged = true;
        if !is_awaited || pair.owed_ack != Some(!side) {
            return;
        }
        pair.owed_ack = None;
        // Until the media plane has it, the exchange stays open.
        let exchange = pair.exchange;
        let description = multipart::session_description(ack).map(|range| ack.body_bytes().slice(range));
        match (exchange, description) {
            (Some(exchange), Some(sdp)) => self.answer_in_ack(id.leg(side), exchange.id, sdp, core),
            (Some(_), None) => {
                // The 2xx held an offer and the ACK no answer: the session has no media it could have (RFC 3261 §13.2.1).
                self.parties.acknowledge(id.leg(!side), None, core);
                self.hang_up(End::NoAnswerInAck(side_of(side)), core);
            }
            (None, _) => {
                self.parties.acknowledge(id.leg(!side), None, core);
                self.after_forward(id, core);
            }
        }
    }

    /// The answer to an offer in a 2xx comes in the ACK.
    pub(super) fn answer_in_ack(&mut self, end: LegId, exchange: ExchangeId, sdp: Bytes, core: &mut Core) {
        if let Some(pair) = self.parties.pair_mut(end.pair) {
            pair.legs[end.side].descriptions.remote = Some(Bytes::copy_from_slice(&sdp));
        }
        if let Some(action) = self.parties.answer_action(end.pair, exchange, end.side, sdp) {
            self.media.ask(action, Wait::Ack(end), core);
        }
    }

    /// A reply.
    pub(crate) fn on_media(&mut self, number: u32, reply: Reply, core: &mut Core, registrar: &mut Registrar) {
        let Some(wait) = self.media.take(number, core) else { return };
        match (wait, reply) {
            (Wait::Delete, Reply::Deleted { streams, direct }) => self.counted(streams, direct, core),
            (Wait::Delete, _) => self.counted(Vec::new(), Duration::ZERO, core),
            (Wait::Fragment(forward), Reply::Fragment(fragment)) => self.on_fragment(forward, fragment, core),
            (Wait::Fragment(forward), _) => self.on_fragment(forward, None, core),
            (Wait::Count(order), Reply::Statistics(streams)) => self.tell_state(order, streams, core),
            (Wait::Count(order), _) => self.tell_state(order, Vec::new(), core),
            (wait, Reply::Description(result)) => self.on_description(wait, result, core, registrar),
            (wait, _) => self.on_description(wait, Err(Refusal::Unknown), core, registrar),
        }
    }

    pub(super) fn on_media_timeout(&mut self, number: u32, core: &mut Core, registrar: &mut Registrar) {
        let Some(wait) = self.media.take(number, core) else { return };
        core.notice(
            "media_timeout",
            None,
            "the media plane did not answer in time: look at its load and at the log of its workers",
        );
        match wait {
            Wait::Delete => self.counted(Vec::new(), Duration::ZERO, core),
            Wait::Fragment(forward) => self.on_fragment(forward, None, core),
            Wait::Count(order) => self.tell_state(order, Vec::new(), core),
            wait => self.on_description(wait, Err(Refusal::Unavailable), core, registrar),
        }
    }

    fn on_description(
        &mut self,
        wait: Wait,
        result: Result<Described, Refusal>,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        if self.is_over() {
            return;
        }
        if let Err(Refusal::Unfit(unfit)) = result {
            core.notice(
                "unfit_address",
                Some(self.parties.upstream.incoming.flow.remote),
                format!("a session description in a call from here names {unfit}, and is refused; see `local_peers` for phones on this machine"),
            );
        }
        match wait {
            Wait::Branch(index) => match result {
                Ok(described) => self.on_branch_offer(index, described.sdp, core),
                Err(refusal) => {
                    self.media.refused = Some(refusal);
                    self.on_branch_failure(index, Final::of_silence(refusal.status()), core, registrar);
                }
            },
            Wait::Response(pair, response) => self.on_response_description(pair, *response, result, core),
            Wait::Forward(forward) => self.on_forward_description(forward, result, core),
            Wait::ForwardResponse(forward, response) => {
                self.on_forward_answer(forward, *response, result, core)
            }
            Wait::Ack(LegId { pair: id, side }) => {
                if let Some(pair) = self.parties.pair_mut(id) {
                    pair.exchange = None;
                }
                match result {
                    Ok(described) => {
                        self.parties.acknowledge(id.leg(!side), Some(described.sdp), core);
                        self.after_forward(id, core);
                    }
                    Err(_) => {
                        self.parties.acknowledge(id.leg(!side), None, core);
                        self.hang_up(End::MediaRefused, core);
                    }
                }
            }
            Wait::Offered(forward) => {
                self.on_renegotiation_answer(forward, result.ok().map(|described| described.sdp), core)
            }
            Wait::Fragment(_) | Wait::Count(_) | Wait::Delete => {}
        }
    }

    fn on_response_description(
        &mut self,
        id: PairId,
        response: Message,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let is_final = response.status().is_some_and(|status| status >= 200);
        match result {
            Ok(described) => {
                if let Some(pair) = self.parties.pair_mut(id) {
                    pair.legs[Side::Target].descriptions.summary = described.summary;
                    pair.legs[Side::Target].descriptions.remote = said_in(&response);
                }
                if is_final {
                    self.answer_call(id, &response, Some(described.sdp), core);
                } else {
                    self.pass_response(id, &response, Some(described.sdp), core);
                }
            }
            Err(refusal) if is_final => self.fail_upstream(End::AnswerRefused(refusal), core),
            // A broken early description costs early media, not the call, unless nothing better comes.
            Err(_) => {
                if let Some(pair) = self.parties.pair_mut(id)
                    && std::mem::take(&mut pair.negotiated)
                {
                    pair.legs[Side::Caller].descriptions.local = None;
                }
                self.pass_response(id, &response, None, core);
            }
        }
        if let Some(next) = self.parties.pair_mut(id).and_then(|pair| pair.deferred.pop_front()) {
            self.take_response(id, next, core);
        }
    }

    /// Notes what a new agreement changed, for the record.
    pub(super) fn note_agreement(
        &mut self,
        id: PairId,
        offerer: Side,
        summary: seam::Summary,
        core: &mut Core,
    ) {
        let Some(pair) = self.parties.pair_mut(id) else { return };
        let before = std::mem::replace(&mut pair.legs[offerer].descriptions.summary, summary);
        let (was, is) = (before.is_hold(), pair.legs[offerer].descriptions.summary.is_hold());
        let party = pair.legs[offerer].endpoint.party;
        let is_change = pair.legs[offerer].descriptions.summary != before;
        let change = match (was, is) {
            (false, true) => CallChange::Hold { party },
            (true, false) => CallChange::Resume { party },
            _ if is_change && !before.streams.is_empty() => CallChange::Media,
            _ => return,
        };
        self.record.write(CallEventKind::Changed(change), core);
    }
}
