//! Placing a call (RFC 3261 §13.2, RFC 3262 §4).

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Message, Method, Name, multipart};

use super::call::{Call, Leg, Origin, Owed, Phase};
use super::core::{Core, Origination, Owner};
use super::event::{CallNumber, Ending, Event, Fork};
use super::open::Caller;
use crate::dialog::Dialog;
use crate::negotiation::{Carrier, Negotiation};
use crate::session_timer::Agreement;
use crate::transaction::ClientId;

/// What an INVITE holds beyond its target.
#[derive(Debug, Clone, Default)]
pub struct Invite {
    /// Our offer; without one the other side makes it.
    pub offer: Option<Bytes>,
    /// Another body beside the offer: Content-Type and bytes. The two travel as `multipart/mixed`.
    pub attachment: Option<(Bytes, Bytes)>,
    /// Replaces (RFC 3891).
    pub replaces: Option<Bytes>,
    /// Referred-By (RFC 3892).
    pub referred_by: Option<Bytes>,
    /// More header lines, as name and value.
    pub headers: Vec<(String, String)>,
}

impl Call {
    pub(super) fn place(number: CallNumber, target: &[u8], invite: Invite, core: &mut Core) -> Option<Self> {
        let (call_id, tag) = (core.ids.word(24), core.ids.tag());
        let to = [b"<".as_slice(), target, b">"].concat();
        let origination = Origination { to: &to, call_id: &call_id, from_tag: &tag, cseq: 1 };
        let mut request = core.request(Method::INVITE, target, origination)?;
        let flow = core.account.proxy;
        request = core.abilities(request, &flow);
        if let Some(timer) = core.account.session_timer {
            request = request
                .header(Name::SessionExpires, timer.interval.as_secs().to_string().as_bytes())
                .header(Name::MinSe, timer.minimum.as_secs().to_string().as_bytes());
        }
        for (name, value) in [(Name::Replaces, &invite.replaces), (Name::ReferredBy, &invite.referred_by)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        for (name, value) in &invite.headers {
            request = request.other(name.as_bytes(), value.as_bytes());
        }
        request = match (&invite.offer, &invite.attachment) {
            (Some(offer), None) => request.body(b"application/sdp", offer.clone()),
            (Some(offer), Some((kind, body))) => {
                let boundary = core.ids.word(16);
                let part = |kind: &[u8], body: &[u8]| {
                    [b"--", boundary.as_bytes(), b"\r\nContent-Type: ", kind, b"\r\n\r\n", body, b"\r\n"]
                        .concat()
                };
                let whole = [
                    part(b"application/sdp", offer),
                    part(kind, body),
                    [b"--", boundary.as_bytes(), b"--\r\n"].concat(),
                ]
                .concat();
                request.body(format!("multipart/mixed;boundary={boundary}").as_bytes(), whole.into())
            }
            (None, Some((kind, body))) => request.body(kind, body.clone()),
            (None, None) => request,
        };
        let request = Arc::new(request.finish());
        let client = core.send(flow, Arc::clone(&request), Owner::Invite(number));
        let caller = Caller {
            client: Some(client),
            request,
            offer: invite.offer,
            prack_offer: None,
            is_cancelled: false,
            is_authenticated: false,
        };
        Some(Self::new(number, Origin::Caller(Box::new(caller))))
    }

    /// A response to the INVITE; more 2xx may follow the first.
    pub(super) fn on_invite_response(&mut self, client: ClientId, response: Message, core: &mut Core) {
        let Some(status) = response.status() else { return };
        match status {
            0..=199 => self.on_progress(status, &response, core),
            200..=299 => self.on_success(client, &response, core),
            _ => self.on_refusal(status, response, core),
        }
    }

    /// No response, or no way.
    pub(super) fn on_invite_failure(&mut self, status: u16, core: &mut Core) {
        if self.phase != Phase::Early {
            return;
        }
        let is_cancelled = matches!(&self.origin, Origin::Caller(caller) if caller.is_cancelled);
        let ending = if is_cancelled { Ending::Cancelled } else { Ending::Refused(status) };
        self.end(ending, None, core);
    }

    /// The early dialog of a response, made if its To tag is new.
    fn fork_of_response(&mut self, response: &Message, core: &Core) -> Option<Fork> {
        let tag = response.to().ok()?.tag()?;
        if let Some(leg) = self.legs.iter_mut().find(|leg| &*leg.dialog.remote_tag == tag) {
            leg.learn(response);
            return Some(leg.fork);
        }
        let Origin::Caller(caller) = &self.origin else { return None };
        let dialog = Dialog::uac(&caller.request, response, core.account.proxy).ok()?;
        let mut negotiation = Negotiation::default();
        if let Some(offer) = &caller.offer {
            negotiation.offer(Carrier::Invite, offer.clone()).ok()?;
        }
        let fork = Fork(self.legs.iter().map(|leg| leg.fork.0.saturating_add(1)).max().unwrap_or(0));
        let mut leg = Leg::new(fork, dialog, negotiation);
        leg.invite_cseq = leg.dialog.local_cseq;
        leg.learn(response);
        self.legs.push(leg);
        Some(fork)
    }

    fn on_progress(&mut self, status: u16, response: &Message, core: &mut Core) {
        if self.phase != Phase::Early {
            return;
        }
        let call = self.number;
        let fork = self.fork_of_response(response, core);
        let sdp = multipart::session_description(response).map(|range| response.body_bytes().slice(range));
        let rseq = response
            .number(Name::RSeq)
            .and_then(Result::ok)
            .filter(|_| response.has_token(Name::Require, "100rel"));
        let (Some(fork), Some(rseq)) = (fork, rseq) else {
            let is_awaited = fork
                .and_then(|fork| self.leg(fork))
                .is_some_and(|leg| leg.negotiation.awaited() == Some(Carrier::Invite));
            core.tell(Event::Progress { call, fork, status, preview: sdp.filter(|_| is_awaited) });
            self.report(status, core);
            return;
        };
        let Some(leg) = self.leg(fork) else { return };
        // RFC 3262 §4: in order, and each once.
        if leg.rseq.is_some_and(|last| rseq != last.wrapping_add(1)) {
            return;
        }
        leg.rseq = Some(rseq);
        core.tell(Event::Progress { call, fork: Some(fork), status, preview: None });
        self.report(status, core);
        self.take_description(fork, sdp, Owed::Prack(rseq), core);
        let owes = self.leg(fork).is_some_and(|leg| matches!(leg.owed, Some(Owed::Prack(of)) if of == rseq));
        if !owes {
            self.acknowledge_provisional(fork, rseq, None, core);
        }
    }

    /// The description in a reliable response: an answer, an offer, or what was said before.
    fn take_description(&mut self, fork: Fork, sdp: Option<Bytes>, reply: Owed, core: &mut Core) {
        let call = self.number;
        let (Some(sdp), Some(leg)) = (sdp, self.leg(fork)) else { return };
        if leg.negotiation.awaited() == Some(Carrier::Invite) {
            if leg.negotiation.answered(sdp.clone()).is_ok() {
                core.tell(Event::Answered { call, fork, sdp });
            }
        } else if leg.negotiation.agreed().is_none()
            && leg.negotiation.offered(Carrier::Response, sdp.clone()).is_ok()
        {
            leg.owed = Some(reply);
            core.tell(Event::Offered { call, fork, carrier: Carrier::Response, sdp });
        }
    }

    /// Sends the PRACK, with an answer or, where the session is agreed already, with a new offer.
    pub(super) fn acknowledge_provisional(
        &mut self,
        fork: Fork,
        rseq: u32,
        answer: Option<Bytes>,
        core: &mut Core,
    ) {
        let Origin::Caller(caller) = &mut self.origin else { return };
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.fork == fork) else { return };
        let may_offer =
            answer.is_none() && leg.negotiation.agreed().is_some() && leg.negotiation.is_settled();
        let offer = if may_offer { caller.prack_offer.take() } else { None };
        if let Some(offer) = &offer {
            let _ = leg.negotiation.offer(Carrier::Prack, offer.clone());
        }
        let offers = offer.is_some();
        let rack = format!("{rseq} {} INVITE", leg.invite_cseq);
        let sent = self.request_in(fork, Method::PRACK, core, |request| {
            let request = request.header(Name::RAck, rack.as_bytes());
            match answer.or(offer) {
                Some(sdp) => request.body(b"application/sdp", sdp),
                None => request,
            }
        });
        if let Some(sent) = sent {
            sent.offers = offers;
        }
    }

    fn on_success(&mut self, client: ClientId, response: &Message, core: &mut Core) {
        let call = self.number;
        if self.phase != Phase::Early {
            // Another fork was faster.
            core.take_down(client, response, true);
            return;
        }
        let Some(fork) = self.fork_of_response(response, core) else { return };
        let is_cancelled = matches!(&self.origin, Origin::Caller(caller) if caller.is_cancelled);
        self.establish(fork, core);
        self.session = Agreement::of_answer(response);
        self.arm_session_timer(core);
        let sdp = multipart::session_description(response).map(|range| response.body_bytes().slice(range));
        let Some(leg) = self.leg(fork) else { return };
        leg.dialog.confirm(response);
        leg.open_invite = Some(client);
        if is_cancelled {
            leg.acknowledge(None, core);
            self.hang_up(Ending::HungUp, core);
            return;
        }
        core.tell(Event::Established { call, fork });
        self.take_description(fork, sdp, Owed::Ack, core);
        let Some(leg) = self.leg(fork) else { return };
        if matches!(leg.owed, Some(Owed::Ack)) {
            return;
        }
        leg.acknowledge(None, core);
        if leg.negotiation.agreed().is_none() {
            self.hang_up(Ending::NoAnswer, core);
        }
    }

    fn on_refusal(&mut self, status: u16, response: Message, core: &mut Core) {
        if self.phase != Phase::Early {
            return;
        }
        let number = self.number;
        let Origin::Caller(caller) = &mut self.origin else { return };
        let may_repeat = !caller.is_cancelled && !caller.is_authenticated;
        let added = match status {
            401 | 407 if may_repeat => core.credentials(&caller.request, &response).map(|one| vec![one]),
            422 if may_repeat => crate::times::min_se_of(&response).map(|least| {
                vec![(Name::SessionExpires, least.to_string()), (Name::MinSe, least.to_string())]
            }),
            _ => None,
        };
        if let Some(added) = added {
            caller.is_authenticated = status != 422;
            let flow = core.account.proxy;
            let cseq = caller.request.cseq().map(|cseq| cseq.number.saturating_add(1)).unwrap_or(2);
            let again = core.again(&caller.request, cseq, &flow, &added);
            if let Some(request) = again.map(Arc::new) {
                caller.client = Some(core.send(flow, Arc::clone(&request), Owner::Invite(number)));
                caller.request = request;
                std::mem::take(&mut self.legs).into_iter().for_each(|leg| leg.leave(core));
                return;
            }
        }
        let is_cancelled = caller.is_cancelled && status == 487;
        let ending = if is_cancelled { Ending::Cancelled } else { Ending::Refused(status) };
        self.end(ending, Some(Box::new(response)), core);
    }
}
