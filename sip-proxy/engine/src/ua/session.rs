//! Requests inside a dialog that we receive, and answers to the offers in them.

use bytes::Bytes;
use sip_wire::{Message, Method, Name, multipart};

use super::call::{Call, Owed, Phase};
use super::core::Core;
use super::event::{Ending, Event, Fork, Misuse};
use crate::negotiation::Carrier;
use crate::transaction::{self, Incoming, ServerId};

impl Call {
    /// A request in one of this call's dialogs.
    pub(super) fn on_request(&mut self, fork: Fork, incoming: Incoming, core: &mut Core) {
        let Incoming { server, flow, request } = &incoming;
        let Some(method) = request.method() else { return };
        let Some(leg) = self.leg(fork) else { return };
        if let Err(fault) = leg.dialog.accepts(request) {
            core.respond_plainly(&incoming, fault.status());
            return;
        }
        leg.dialog.flow = *flow;
        leg.learn(request);
        if [Method::INVITE, Method::UPDATE, Method::REFER, Method::NOTIFY].contains(&method) {
            leg.dialog.refresh_target(request);
        }
        if method == Method::BYE {
            self.on_bye(&incoming, core);
        } else if method == Method::INVITE {
            self.on_reinvite(fork, incoming, core);
        } else if method == Method::UPDATE {
            self.on_update(fork, incoming, core);
        } else if method == Method::PRACK {
            self.on_prack(fork, incoming, core);
        } else if method == Method::INFO {
            let package = info_package(request).map(<[u8]>::to_ascii_lowercase);
            let packages = &core.account.info_packages;
            if package.is_some_and(|package| !packages.iter().any(|known| known.as_bytes() == package)) {
                // RFC 6086 §4.2.2.
                let response = transaction::response_to(request, 469, None, None);
                core.respond(*server, 469, core.info_packages(response).finish());
                return;
            }
            core.respond_plainly(&incoming, 200);
            core.tell(Event::Info { call: self.number, request: Box::new(incoming.request) });
        } else if method == Method::REFER {
            self.on_refer(incoming, core);
        } else if method == Method::NOTIFY {
            self.on_notify(&incoming, core);
        } else if method == Method::OPTIONS || method == Method::MESSAGE {
            let response = transaction::response_to(request, 200, None, None);
            core.respond(*server, 200, core.abilities(response, flow).finish());
        } else {
            let response = transaction::response_to(request, 501, None, None);
            core.respond(*server, 501, core.abilities(response, flow).finish());
        }
    }

    fn on_bye(&mut self, incoming: &Incoming, core: &mut Core) {
        core.respond_plainly(incoming, 200);
        if self.phase == Phase::Early {
            // RFC 3261 §15: a caller may end an early dialog so; the INVITE still wants its answer.
            self.decline_with(487, Ending::Cancelled, &[], core);
        } else {
            self.end(Ending::Bye, None, core);
        }
    }

    /// Refuses a request that offers, or asks for an offer, out of turn.
    fn refuse_for_now(&self, incoming: &Incoming, status: u16, core: &mut Core) {
        let response = transaction::response_to(&incoming.request, status, None, None);
        let response = if status == 500 {
            // RFC 3261 §14.2, RFC 3311 §5.2: between 0 and 10 seconds.
            let after = (core.ids.number() % 11).to_string();
            response.header(Name::RetryAfter, after.as_bytes())
        } else {
            response
        };
        core.respond(incoming.server, status, response.finish());
    }

    fn is_interval_refused(&self, incoming: &Incoming, core: &mut Core) -> bool {
        let request = &incoming.request;
        let Some(least) = crate::session_timer::too_small(request, core.account.session_timer) else {
            return false;
        };
        let response = transaction::response_to(request, 422, None, None)
            .header(Name::MinSe, least.to_string().as_bytes());
        core.respond(incoming.server, 422, response.finish());
        true
    }

    fn on_reinvite(&mut self, fork: Fork, incoming: Incoming, core: &mut Core) {
        let call = self.number;
        let is_ours_open = self.has_open_invite();
        let phase = self.phase;
        let Some(leg) = self.leg(fork) else { return };
        let status = if phase == Phase::Early || leg.owed.is_some() {
            Some(500)
        } else if is_ours_open {
            Some(491)
        } else {
            leg.negotiation.check_offer().err().map(|fault| fault.status())
        };
        if let Some(status) = status {
            self.refuse_for_now(&incoming, status, core);
            return;
        }
        if self.is_interval_refused(&incoming, core) {
            return;
        }
        let sdp = description_in(&incoming.request);
        let Some(leg) = self.leg(fork) else { return };
        match sdp {
            Some(sdp) => {
                let _ = leg.negotiation.offered(Carrier::Invite, sdp.clone());
                leg.owed = Some(Owed::Response(Box::new(incoming)));
                core.tell(Event::Offered { call, fork, carrier: Carrier::Invite, sdp });
            }
            None => {
                leg.owed = Some(Owed::Offer(Box::new(incoming)));
                core.tell(Event::OfferWanted { call, fork });
            }
        }
    }

    fn on_update(&mut self, fork: Fork, incoming: Incoming, core: &mut Core) {
        let call = self.number;
        if self.is_interval_refused(&incoming, core) {
            return;
        }
        let sdp = description_in(&incoming.request);
        let Some(sdp) = sdp else {
            self.succeed(fork, (&incoming).into(), None, core);
            return;
        };
        let is_ours_open = self.has_open_invite();
        let Some(leg) = self.leg(fork) else { return };
        let refused = leg.negotiation.check_offer().err().map(|fault| fault.status());
        let refused = match refused {
            None if leg.owed.is_some() => Some(500),
            None if is_ours_open => Some(491),
            other => other,
        };
        if let Some(status) = refused {
            self.refuse_for_now(&incoming, status, core);
            return;
        }
        let _ = leg.negotiation.offered(Carrier::Update, sdp.clone());
        leg.owed = Some(Owed::Response(Box::new(incoming)));
        core.tell(Event::Offered { call, fork, carrier: Carrier::Update, sdp });
    }

    fn on_prack(&mut self, fork: Fork, incoming: Incoming, core: &mut Core) {
        let call = self.number;
        let request = &incoming.request;
        let Some(leg) = self.leg(fork) else { return };
        let is_of =
            |repeat: &mut super::call::Repeat| crate::dialog::acknowledges(request, repeat.rseq, repeat.cseq);
        let Some(repeat) = leg.provisional.take_if(is_of) else {
            if leg.overtaken.is_some_and(|(rseq, cseq)| crate::dialog::acknowledges(request, rseq, cseq)) {
                self.succeed(fork, (&incoming).into(), None, core);
                return;
            }
            core.respond_plainly(&incoming, 481);
            return;
        };
        repeat.stop(core);
        let sdp = description_in(&incoming.request);
        match sdp {
            Some(sdp) if leg.negotiation.awaited() == Some(Carrier::Response) => {
                let _ = leg.negotiation.answered(sdp.clone());
                self.succeed(fork, (&incoming).into(), None, core);
                core.tell(Event::Answered { call, fork, sdp });
            }
            Some(sdp) => match leg.negotiation.offered(Carrier::Prack, sdp.clone()) {
                Ok(()) => {
                    leg.owed = Some(Owed::Response(Box::new(incoming)));
                    core.tell(Event::Offered { call, fork, carrier: Carrier::Prack, sdp });
                }
                Err(fault) => self.refuse_for_now(&incoming, fault.status(), core),
            },
            None => self.succeed(fork, (&incoming).into(), None, core),
        }
    }

    /// Their CANCEL of a re-INVITE.
    pub(super) fn on_cancelled(&mut self, invite: ServerId, core: &mut Core) {
        let call = self.number;
        if let super::call::Origin::Callee(callee) = &self.origin
            && callee.server() == invite
        {
            self.decline_with(487, Ending::Cancelled, &[], core);
            return;
        }
        let is_it = |owed: &mut Owed| matches!(owed, Owed::Response(asked) | Owed::Offer(asked) if asked.server == invite);
        for leg in &mut self.legs {
            if let Some(Owed::Response(asked) | Owed::Offer(asked)) = leg.owed.take_if(is_it) {
                leg.negotiation.abandon();
                core.respond_plainly(&*asked, 487);
                core.tell(Event::Withdrawn { call, fork: leg.fork });
            }
        }
    }

    /// Answers their offer, by whatever must carry the answer.
    pub(super) fn answer(&mut self, fork: Fork, sdp: Bytes, core: &mut Core) -> Result<(), Misuse> {
        let leg = self.leg(fork).ok_or(Misuse::NotNow)?;
        if matches!(leg.owed, None | Some(Owed::Offer(..))) {
            return Err(Misuse::OutOfTurn);
        }
        leg.negotiation.answer(sdp.clone()).map_err(|_| Misuse::OutOfTurn)?;
        match leg.owed.take() {
            Some(Owed::Response(asked)) => self.succeed(fork, (&*asked).into(), Some(sdp), core),
            Some(Owed::Prack(rseq)) => self.acknowledge_provisional(fork, rseq, Some(sdp), core),
            Some(Owed::Ack) => leg.acknowledge(Some(&sdp), core),
            Some(Owed::Offer(..)) | None => {}
        }
        Ok(())
    }

    /// Makes the offer that their INVITE asks for.
    pub(super) fn offer(&mut self, fork: Fork, sdp: Bytes, core: &mut Core) -> Result<(), Misuse> {
        let leg = self.leg(fork).ok_or(Misuse::NotNow)?;
        let Some(Owed::Offer(asked)) = leg.owed.take_if(|owed| matches!(owed, Owed::Offer(..))) else {
            return Err(Misuse::OutOfTurn);
        };
        leg.negotiation.offer(Carrier::Response, sdp.clone()).map_err(|_| Misuse::OutOfTurn)?;
        self.succeed(fork, (&*asked).into(), Some(sdp), core);
        Ok(())
    }

    /// Refuses their offer, or their wish for one of ours. An offer that came in a response can't be refused: the call
    /// ends (RFC 3261 §13.2.1 wants an answer in the ACK).
    pub(super) fn refuse_offer(&mut self, fork: Fork, status: u16, core: &mut Core) -> Result<(), Misuse> {
        let leg = self.leg(fork).ok_or(Misuse::NotNow)?;
        match leg.owed.take().ok_or(Misuse::OutOfTurn)? {
            Owed::Response(asked) | Owed::Offer(asked) => {
                leg.negotiation.abandon();
                core.respond_plainly(&*asked, status);
            }
            owed @ Owed::Ack => {
                leg.owed = Some(owed);
                self.hang_up(Ending::NoAnswer, core);
            }
            Owed::Prack(_) => {
                leg.negotiation.abandon();
                self.hang_up(Ending::NoAnswer, core);
            }
        }
        Ok(())
    }

    /// Whether an INVITE of ours is open in the dialog.
    fn has_open_invite(&self) -> bool {
        self.sent.iter().any(|sent| sent.is_open_invite())
    }
}

/// The session description in a message.
fn description_in(message: &Message) -> Option<Bytes> {
    multipart::session_description(message).map(|range| message.body_bytes().slice(range))
}

/// The package of an INFO, without parameters (RFC 6086 §4.2.1).
fn info_package(request: &Message) -> Option<&[u8]> {
    let value = request.named("Info-Package")?;
    value.split(|byte| *byte == b';').next().map(<[u8]>::trim_ascii)
}
