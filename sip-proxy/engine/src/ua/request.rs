//! Requests inside a dialog that we send: re-INVITE, UPDATE, PRACK, INFO, REFER, NOTIFY.

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Builder, Message, Method, Name, multipart};

use super::call::{Call, Owed, Phase};
use super::core::{Alarm, Core, Owner, next_hop};
use super::event::{Ending, Event, Fork, Misuse};
use super::open::Sent;
use crate::dialog::{Impact, impact_of};
use crate::negotiation::Carrier;
use crate::session_timer::Agreement;
use crate::transaction::{ClientId, Context};

/// What an INFO of a package says (RFC 6086 §4.2).
#[derive(Debug, Clone)]
pub struct Info<'a> {
    /// The package.
    pub package: &'a str,
    /// What the body is.
    pub content_type: &'a [u8],
    /// The body.
    pub body: Bytes,
}

/// A re-INVITE that meets 491 is tried again so often.
const ATTEMPTS: u8 = 4;

impl Call {
    /// A new INVITE in either direction has to wait for the one before (RFC 3261 §14.1).
    fn may_reinvite(&self) -> Result<Fork, Misuse> {
        let leg = self.legs.first().filter(|_| self.phase == Phase::Up).ok_or(Misuse::NotNow)?;
        let is_busy = leg.success.is_some() || leg.owed.is_some() || self.sent.iter().any(Sent::is_invite);
        if is_busy {
            return Err(Misuse::NotNow);
        }
        leg.negotiation.check_offer().map_err(|_| Misuse::OutOfTurn)?;
        Ok(leg.fork)
    }

    /// A re-INVITE with our offer, or one that asks for theirs.
    pub(super) fn reinvite(&mut self, offer: Option<Bytes>, core: &mut Core) -> Result<(), Misuse> {
        let fork = self.may_reinvite()?;
        if let (Some(leg), Some(offer)) = (self.leg(fork), &offer) {
            leg.negotiation.offer(Carrier::Invite, offer.clone()).map_err(|_| Misuse::OutOfTurn)?;
        }
        self.offer_in(fork, Method::INVITE, offer, core);
        Ok(())
    }

    /// Takes our re-INVITE back (RFC 3261 §9); its response still tells what became of it.
    pub(super) fn cancel_reinvite(&mut self, core: &mut Core) -> Result<(), Misuse> {
        let number = self.number;
        let sent = self.sent.iter_mut().find(|sent| sent.is_invite()).ok_or(Misuse::NotNow)?;
        sent.is_cancelled = true;
        match (sent.client, sent.retry.take()) {
            (Some(client), _) => {
                core.transactions.cancel(client, None, &mut Context { now: core.now, out: &mut core.out })
            }
            (None, timer) => {
                // It waited for another try.
                if let Some(timer) = timer {
                    core.timers.cancel(timer);
                }
                let (id, fork) = (sent.id, sent.fork);
                self.sent.retain(|sent| sent.id != id);
                if let Some(leg) = self.leg(fork) {
                    leg.negotiation.abandon();
                }
                core.tell(Event::Refused { call: number, fork, status: 487 });
            }
        }
        Ok(())
    }

    /// UPDATE, with an offer or as a mere refresh (RFC 3311 §5.1).
    pub(super) fn update(&mut self, fork: Fork, offer: Option<Bytes>, core: &mut Core) -> Result<(), Misuse> {
        let is_busy = self.sent.iter().any(|sent| {
            sent.fork == fork && (sent.is_invite() || sent.message.method() == Some(Method::UPDATE))
        });
        let is_early = self.phase == Phase::Early;
        let leg = self.leg(fork).ok_or(Misuse::NotNow)?;
        if !leg.has_update {
            return Err(Misuse::NotSupported);
        }
        if is_busy || (is_early && leg.provisional.is_some()) || leg.success.is_some() {
            return Err(Misuse::NotNow);
        }
        if let Some(offer) = &offer {
            if leg.owed.is_some() || leg.negotiation.agreed().is_none() {
                return Err(Misuse::OutOfTurn);
            }
            leg.negotiation.offer(Carrier::Update, offer.clone()).map_err(|_| Misuse::OutOfTurn)?;
        }
        self.offer_in(fork, Method::UPDATE, offer, core);
        Ok(())
    }

    /// Sends a request in a dialog, with our offer if there is one.
    fn offer_in(&mut self, fork: Fork, method: Method<'_>, offer: Option<Bytes>, core: &mut Core) {
        let offers = offer.is_some();
        let sent = self.request_in(fork, method, core, |request| match offer {
            Some(offer) => request.body(b"application/sdp", offer),
            None => request,
        });
        if let Some(sent) = sent {
            sent.offers = offers;
        }
    }

    /// Sends a request in a dialog; `None` if it could not be written.
    pub(super) fn request_in(
        &mut self,
        fork: Fork,
        method: Method<'_>,
        core: &mut Core,
        add: impl FnOnce(Builder) -> Builder,
    ) -> Option<&mut Sent> {
        let (number, id) = (self.number, self.next_sent);
        let interval = self.session.map(|agreed| agreed.interval).or_else(|| {
            core.account.session_timer.map(|timer| timer.interval).filter(|_| self.phase == Phase::Up)
        });
        let leg = self.leg(fork)?;
        let mut request = core.dialog_request(&mut leg.dialog, method)?;
        if method == Method::INVITE {
            leg.invite_cseq = leg.dialog.local_cseq;
        }
        let flow = next_hop(&leg.dialog);
        if [Method::INVITE, Method::UPDATE, Method::REFER, Method::NOTIFY].contains(&method) {
            request = core.abilities(request, &flow);
        }
        if let Some(interval) = interval.filter(|_| method == Method::INVITE || method == Method::UPDATE) {
            request = request
                .header(Name::SessionExpires, format!("{};refresher=uac", interval.as_secs()).as_bytes());
        }
        let message = Arc::new(add(request).finish());
        self.next_sent = self.next_sent.saturating_add(1);
        let client = Some(core.send(flow, Arc::clone(&message), Owner::Request(number, id)));
        let (is_authenticated, is_cancelled, attempts, retry) = (false, false, 0, None);
        self.sent.push(Sent {
            id,
            fork,
            client,
            message,
            offers: false,
            is_authenticated,
            attempts,
            is_cancelled,
            retry,
        });
        self.sent.last_mut()
    }

    /// A response to one of them.
    pub(super) fn on_response(&mut self, id: u32, client: ClientId, response: Message, core: &mut Core) {
        let Some(status) = response.status() else { return };
        let Some(position) = self.sent.iter().position(|sent| sent.id == id) else {
            if (200..300).contains(&status) {
                core.take_down(client, &response, false);
            }
            return;
        };
        if status < 200 {
            return;
        }
        if status >= 300 {
            self.on_failure(position, status, Some(&response), core);
            return;
        }
        let sent = self.sent.remove(position);
        let (call, fork) = (self.number, sent.fork);
        let method = sent.message.method().unwrap_or(Method::INFO);
        let sdp = multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        let is_session = sent.is_invite() || method == Method::UPDATE;
        let Some(leg) = self.leg(fork) else { return };
        leg.learn(&response);
        if sent.is_invite() {
            leg.open_invite = Some(client);
        }
        if is_session {
            leg.dialog.refresh_target(&response);
        }
        if sent.offers {
            match sdp {
                Some(sdp) if leg.negotiation.answered(sdp.clone()).is_ok() => {
                    core.tell(Event::Answered { call, fork, sdp });
                }
                _ => {
                    leg.negotiation.abandon();
                    core.tell(Event::Refused { call, fork, status: 488 });
                }
            }
            if sent.is_invite() {
                leg.acknowledge(None, core);
            }
        } else if sent.is_invite() {
            match sdp {
                Some(sdp) if leg.negotiation.offered(Carrier::Response, sdp.clone()).is_ok() => {
                    leg.owed = Some(Owed::Ack);
                    core.tell(Event::Offered { call, fork, carrier: Carrier::Response, sdp });
                }
                _ => {
                    leg.acknowledge(None, core);
                    core.tell(Event::Refused { call, fork, status: 488 });
                }
            }
        } else if method == Method::INFO {
            core.tell(Event::Done { call, method: "INFO", status });
        } else if method == Method::REFER {
            core.tell(Event::Done { call, method: "REFER", status });
        }
        if is_session {
            if response.count(Name::SessionExpires) > 0 || self.session.is_some() {
                self.session = Agreement::of_answer(&response).or(self.session);
            }
            self.arm_session_timer(core);
        }
    }

    /// No response to one of them, or no way.
    pub(super) fn on_no_response(&mut self, id: u32, status: u16, core: &mut Core) {
        if let Some(position) = self.sent.iter().position(|sent| sent.id == id) {
            self.on_failure(position, status, None, core);
        }
    }

    fn on_failure(&mut self, position: usize, status: u16, response: Option<&Message>, core: &mut Core) {
        let (call, alarm_of) = (self.number, |id| Alarm::Retry(self.number, id));
        let Some(sent) = self.sent.get_mut(position) else { return };
        let (fork, is_cancelled) = (sent.fork, sent.is_cancelled);
        if let (Some(response), false, false) = (response, sent.is_authenticated, is_cancelled)
            && let Some(added) = core.credentials(&sent.message, response)
        {
            sent.is_authenticated = true;
            self.repeat_request(position, &[added], core);
            return;
        }
        let is_invite = sent.is_invite();
        if status == 491
            && is_invite
            && !is_cancelled
            && core.account.abilities.retries_glare
            && sent.attempts < ATTEMPTS
        {
            // RFC 3261 §14.1: who made the Call-ID waits longer.
            let (id, step) = (sent.id, core.ids.number());
            let is_owner = matches!(self.origin, super::call::Origin::Caller(_));
            let wait = if is_owner {
                (step % 190).saturating_mul(10).saturating_add(2100)
            } else {
                (step % 200).saturating_mul(10)
            };
            sent.attempts = sent.attempts.saturating_add(1);
            sent.client = None;
            sent.retry = Some(core.schedule(std::time::Duration::from_millis(wait), alarm_of(id)));
            // Meanwhile theirs may come.
            if sent.offers
                && let Some(leg) = self.leg(fork)
            {
                leg.negotiation.abandon();
            }
            return;
        }
        let sent = self.sent.remove(position);
        let method = sent.message.method().unwrap_or(Method::INFO);
        if sent.offers
            && let Some(leg) = self.leg(fork)
        {
            leg.negotiation.abandon();
        }
        if is_invite || method == Method::UPDATE {
            core.tell(Event::Refused { call, fork, status });
        } else if method == Method::INFO {
            core.tell(Event::Done { call, method: "INFO", status });
        } else if method == Method::REFER {
            core.tell(Event::Done { call, method: "REFER", status });
        }
        // RFC 5057 §5.1; RFC 3261 §12.2.1.2 for 408 and 481.
        let is_session = is_invite || method == Method::UPDATE;
        if is_session && self.phase == Phase::Up && impact_of(status) != Impact::Transaction {
            self.hang_up(Ending::Lost(status), core);
        }
    }

    /// A request that met 491 is tried again, unless something came between.
    pub(super) fn on_retry(&mut self, id: u32, core: &mut Core) {
        let Some(position) = self.sent.iter().position(|sent| sent.id == id) else { return };
        let Some(sent) = self.sent.get_mut(position) else { return };
        let (call, fork) = (self.number, sent.fork);
        sent.retry = None;
        let offer = Some(&sent.message).filter(|_| sent.offers).and_then(|message| {
            multipart::session_description(message).map(|at| message.body_bytes().slice(at))
        });
        let Some(leg) = self.leg(fork) else { return };
        let is_free = leg.owed.is_none() && leg.success.is_none() && leg.negotiation.is_settled();
        let is_offered =
            offer.is_none_or(|offer| is_free && leg.negotiation.offer(Carrier::Invite, offer).is_ok());
        if !is_free || !is_offered {
            self.sent.remove(position);
            core.tell(Event::Refused { call, fork, status: 491 });
            return;
        }
        self.repeat_request(position, &[], core);
    }

    fn repeat_request(&mut self, position: usize, added: &[(Name, String)], core: &mut Core) {
        let number = self.number;
        let Some(sent) = self.sent.get_mut(position) else { return };
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.fork == sent.fork) else { return };
        leg.dialog.local_cseq = leg.dialog.local_cseq.saturating_add(1);
        if sent.is_invite() {
            leg.invite_cseq = leg.dialog.local_cseq;
        }
        let flow = next_hop(&leg.dialog);
        let again = core.again(&sent.message, leg.dialog.local_cseq, &flow, added);
        let Some(message) = again.map(Arc::new) else { return };
        sent.client = Some(core.send(flow, Arc::clone(&message), Owner::Request(number, sent.id)));
        sent.message = message;
    }
}
