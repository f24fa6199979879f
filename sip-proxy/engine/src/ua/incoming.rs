//! Being called (RFC 3261 §13.3, RFC 3262 §3).

use bytes::Bytes;
use sip_wire::{Message, Name, multipart};

use super::call::{Call, Leg, Origin, Phase, Repeat};
use super::core::{Alarm, Core};
use super::event::{CallNumber, Ending, Event, Fork, Misuse};
use super::open::Callee;
use crate::dialog::Dialog;
use crate::negotiation::{Carrier, Negotiation};
use crate::transaction::{self, Answer, Incoming};

impl Call {
    /// `None` if the INVITE makes no dialog; it has its answer then.
    pub(super) fn receive(
        number: CallNumber,
        incoming: Incoming,
        replaces: Option<CallNumber>,
        core: &mut Core,
    ) -> Option<Self> {
        let Incoming { flow, request, .. } = &incoming;
        let tag = core.ids.tag();
        let dialog = match Dialog::uas(request, &tag, *flow) {
            Ok(dialog) => dialog,
            Err(fault) => {
                core.respond_plainly(&incoming, fault.status());
                return None;
            }
        };
        let offer = multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        let mut negotiation = Negotiation::default();
        if let Some(offer) = &offer {
            negotiation.offered(Carrier::Invite, offer.clone()).ok()?;
        }
        let mut leg = Leg::new(Fork(0), dialog, negotiation);
        leg.learn(request);
        let next_rseq = (core.ids.number() % 10_000).saturating_add(1) as u32;
        let invite = Box::new(request.clone());
        let callee = Callee { invite: Box::new(incoming), next_rseq, acknowledged: false };
        let mut call = Self::new(number, Origin::Callee(callee));
        call.legs.push(leg);
        call.replaces = replaces;
        core.tell(Event::Incoming { call: number, replaces, offer, invite });
        Some(call)
    }

    /// A provisional response, with a description if the rules allow one: reliable, it is the answer, or the offer that
    /// the INVITE did not hold; unreliable, it only tells what the answer will be.
    pub(super) fn ring(
        &mut self,
        status: u16,
        sdp: Option<Bytes>,
        reliable: bool,
        core: &mut Core,
    ) -> Result<(), Misuse> {
        let number = self.number;
        let (Phase::Early, Origin::Callee(callee), Some(leg)) =
            (self.phase, &mut self.origin, self.legs.first_mut())
        else {
            return Err(Misuse::NotNow);
        };
        let request = callee.invite.request.clone();
        let knows =
            [Name::Supported, Name::Require].into_iter().any(|name| request.has_token(name, "100rel"));
        if reliable && !(knows && core.account.abilities.reliable) {
            return Err(Misuse::NotSupported);
        }
        if reliable && leg.provisional.is_some() {
            // RFC 3262 §3: one at a time.
            return Err(Misuse::NotNow);
        }
        let turn = (leg.negotiation.owed(), leg.negotiation.is_settled(), leg.negotiation.agreed().is_some());
        match (&sdp, turn) {
            (None, _) => {}
            (Some(_), (Some(Carrier::Invite), ..)) if !reliable => {}
            (Some(sdp), (Some(Carrier::Invite), ..)) => {
                leg.negotiation.answer(sdp.clone()).map_err(|_| Misuse::OutOfTurn)?
            }
            (Some(sdp), (None, true, false)) if reliable => {
                leg.negotiation.offer(Carrier::Response, sdp.clone()).map_err(|_| Misuse::OutOfTurn)?
            }
            _ => return Err(Misuse::OutOfTurn),
        }
        let tag = String::from_utf8_lossy(&leg.dialog.local_tag).into_owned();
        let mut response = transaction::response_to(&request, status, None, Some(&tag));
        for route in request.values(Name::RecordRoute) {
            response = response.header(Name::RecordRoute, route);
        }
        response = core.abilities(response, &leg.dialog.flow);
        response = core.product(response, Name::Server);
        let rseq = callee.next_rseq;
        if reliable {
            callee.next_rseq = callee.next_rseq.saturating_add(1);
            response =
                response.header(Name::Require, b"100rel").header(Name::RSeq, rseq.to_string().as_bytes());
        }
        let describes = sdp.is_some();
        if let Some(sdp) = sdp {
            response = response.body(b"application/sdp", sdp);
        }
        let response = Bytes::from(response.finish());
        let server = callee.invite.server;
        core.respond(server, status, response.clone());
        if reliable {
            let cseq = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
            let alarm = Alarm::Provisional(number);
            let mut repeat = Repeat::start(Answer { server, status, response }, cseq, alarm, core);
            (repeat.rseq, repeat.describes) = (rseq, describes);
            leg.provisional = Some(repeat);
        }
        Ok(())
    }

    /// 2xx. `sdp` is the answer, or the offer if the INVITE held none; not needed where all is agreed already.
    pub(super) fn accept(&mut self, sdp: Option<Bytes>, core: &mut Core) -> Result<(), Misuse> {
        let (Phase::Early, Origin::Callee(callee), Some(leg)) =
            (self.phase, &mut self.origin, self.legs.first_mut())
        else {
            return Err(Misuse::NotNow);
        };
        // RFC 3262 §3: not before the PRACK of a description; nor while an UPDATE or PRACK waits for our answer.
        if leg.provisional.as_ref().is_some_and(|repeat| repeat.describes) || leg.owed.is_some() {
            return Err(Misuse::NotNow);
        }
        let sdp = match (leg.negotiation.owed(), leg.negotiation.agreed()) {
            (Some(Carrier::Invite), _) => {
                let sdp = sdp.ok_or(Misuse::OutOfTurn)?;
                leg.negotiation.answer(sdp.clone()).map_err(|_| Misuse::OutOfTurn)?;
                Some(sdp)
            }
            (None, None) => {
                let sdp = sdp.ok_or(Misuse::OutOfTurn)?;
                leg.negotiation.offer(Carrier::Response, sdp.clone()).map_err(|_| Misuse::OutOfTurn)?;
                Some(sdp)
            }
            _ => None,
        };
        if let Some(repeat) = leg.provisional.take() {
            leg.overtaken = Some((repeat.rseq, repeat.cseq));
            repeat.stop(core);
        }
        leg.dialog.confirmed = true;
        let (invite, fork) = (callee.invite.clone(), leg.fork);
        self.phase = Phase::Up;
        self.succeed(fork, (&*invite).into(), sdp, core);
        Ok(())
    }

    /// Refuses with a final response, and tells the user.
    pub(super) fn decline(&mut self, status: u16, core: &mut Core) {
        self.decline_with(status, Ending::Declined(status), &[], core);
    }

    /// Refuses with a final response and headers that say more.
    pub(super) fn decline_with(
        &mut self,
        status: u16,
        ending: Ending,
        headers: &[(Name, Vec<u8>)],
        core: &mut Core,
    ) {
        let (Phase::Early, Origin::Callee(callee), Some(leg)) = (self.phase, &self.origin, self.legs.first())
        else {
            return;
        };
        let tag = String::from_utf8_lossy(&leg.dialog.local_tag).into_owned();
        let mut response = transaction::response_to(&callee.invite.request, status, None, Some(&tag));
        for (name, value) in headers {
            response = response.header(*name, value);
        }
        let response = core.product(response, Name::Server).finish();
        core.respond(callee.invite.server, status, response);
        self.end(ending, None, core);
    }

    /// The ACK to a 2xx of ours.
    pub(super) fn on_ack(&mut self, fork: Fork, ack: &Message, core: &mut Core) {
        let call = self.number;
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.fork == fork) else { return };
        let is_of = |repeat: &mut Repeat| ack.cseq().is_ok_and(|cseq| cseq.number == repeat.cseq);
        let Some(repeat) = leg.success.take_if(is_of) else { return };
        repeat.stop(core);
        let first = match &mut self.origin {
            Origin::Callee(callee) => !std::mem::replace(&mut callee.acknowledged, true),
            Origin::Caller(_) => false,
        };
        if first {
            core.tell(Event::Established { call, fork });
        }
        if leg.negotiation.awaited() == Some(Carrier::Response) {
            let sdp = multipart::session_description(ack).map(|range| ack.body_bytes().slice(range));
            match sdp {
                Some(sdp) => {
                    if leg.negotiation.answered(sdp.clone()).is_ok() {
                        core.tell(Event::Answered { call, fork, sdp });
                    }
                }
                None => {
                    leg.negotiation.abandon();
                    self.hang_up(Ending::NoAnswer, core);
                    return;
                }
            }
        }
        if self.hangs_up_on_ack {
            self.hang_up(Ending::HungUp, core);
        }
    }
}
