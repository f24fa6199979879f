//! Requests of our own inside a call: refreshes of sessions (RFC 4028), questions whether an end is there, re-INVITEs that the media
//! plane wishes for, and those that put an end back to what both know.

use std::time::Duration;

use bytes::Bytes;
use sip_wire::{Message, Method, multipart};

use super::end::side_of;
use super::fault::End;
use super::forward::{Forward, Origin};
use super::media::{Exchange, Wait};
use super::renegotiate::Wish;
use super::side::{ForwardId, LegId, PairId, Side};
use super::{Call, CallTimer};
use crate::core::Core;
use seam::{Action, Endpoint, Refusal, Renegotiated};

/// When a refresh that could not be made, or was refused, is tried again.
const AGAIN: Duration = Duration::from_secs(10);

impl Call {
    /// A session timer of a leg: it has to be refreshed, or is over.
    pub(super) fn on_session_timer(&mut self, at: LegId, core: &mut Core) {
        let Some(pair) = self.parties.pair_mut(at.pair) else { return };
        let is_busy = !pair.forwards.is_empty();
        let leg = &mut pair.legs[at.side];
        leg.session.timer = None;
        if leg.session.agreed.is_none_or(|agreed| !agreed.we_refresh) {
            self.hang_up(End::Expired, core);
        } else if is_busy {
            // Something that is under way may refresh it, too; INFO does not.
            leg.set_session_timer(Some(AGAIN), core);
        } else {
            leg.arm_session_timer(core);
            self.refresh(at, core);
        }
    }

    /// Sends a request of ours to a leg.
    fn ask(&mut self, forward: Forward, core: &mut Core) {
        let id = forward.id;
        self.parties.add_forward(forward);
        self.send_forward(id, core);
    }

    /// UPDATE without a description, or the last description again (RFC 4028 §7.4).
    fn refresh(&mut self, at: LegId, core: &mut Core) {
        let Some(leg) = self.parties.leg(at) else { return };
        let has_update = leg.abilities.has_update;
        let description = leg.descriptions.local.clone().filter(|_| !has_update);
        let method = if has_update { Method::UPDATE } else { Method::INVITE };
        let id = self.parties.new_forward(at.pair);
        self.ask(Forward::of_ours(id, at.side, method, Origin::Refresh, description), core);
    }

    /// A refresh was refused, for now: the session lives for half its interval yet.
    pub(super) fn on_refused_refresh(&mut self, at: LegId, core: &mut Core) {
        if let Some(leg) = self.parties.leg_mut(at).filter(|leg| leg.session.agreed.is_some()) {
            leg.set_session_timer(Some(AGAIN), core);
        }
    }

    /// The interval is ours, and so is the second try with the end's own least (RFC 4028 §7.3), once.
    pub(super) fn raise_interval(&mut self, number: ForwardId, response: Option<&Message>) -> bool {
        let least = response.and_then(crate::times::min_se_of);
        let Some(forward) = self.parties.forward(number) else { return false };
        let (id, to) = (forward.id.pair, !forward.from);
        let (Some(least), Some(pair)) = (least, self.parties.pair_mut(id)) else { return false };
        let known = pair.legs[to].session.least.replace(std::time::Duration::from_secs(u64::from(least)));
        known.is_none()
    }

    /// Asks both ends of a call that is up; what is still unanswered is not asked again.
    pub(super) fn ask_whether_alive(&mut self, core: &mut Core) {
        let mut forwards = self.parties.pairs.iter().flat_map(|pair| &pair.forwards);
        let is_asking = forwards.any(|forward| matches!(forward.origin, Origin::Liveness));
        if self.is_over() || !self.is_answered() || is_asking {
            return;
        }
        let Some(pair) = self.parties.pairs.iter().find(|pair| pair.is_confirmed()).map(|pair| pair.id)
        else {
            return;
        };
        for side in [Side::Caller, Side::Target] {
            let id = self.parties.new_forward(pair);
            self.ask(Forward::of_ours(id, side, Method::OPTIONS, Origin::Liveness, None), core);
        }
    }

    /// Whoever answers is there, even one that does not know OPTIONS inside a dialog (PJSIP: 500). 481 says that its call is
    /// gone, 408 or no way to it that it is gone itself (RFC 5057 §5.1).
    pub(super) fn on_liveness_failure(
        &mut self,
        number: ForwardId,
        status: u16,
        has_answered: bool,
        core: &mut Core,
    ) {
        self.parties.take_forward(number);
        if !has_answered || matches!(status, 408 | 481) {
            self.hang_up(End::NoMedia, core);
        }
    }

    /// The media plane refused what an end has answered: whoever asked hears 488, and the end, which has agreed, is put back
    /// to what both know. An offer in a 2xx that was refused has no such way: its ACK owes an answer that nobody can give,
    /// and BYE follows (RFC 3261 §13.2.2.4).
    pub(super) fn on_refused_answer(&mut self, number: ForwardId, refusal: Refusal, core: &mut Core) {
        let Some(forward) = self.parties.forward_mut(number) else { return };
        let (id, to, sent_invite) = (forward.id.pair, !forward.from, forward.sent_invite);
        let is_restore = matches!(forward.origin, Origin::Restore);
        let exchange = forward.exchange.take();
        if sent_invite {
            self.parties.acknowledge(id.leg(to), None, core);
        }
        if let Some(pair) = self.parties.pair_mut(id) {
            pair.exchange = None;
        }
        // A media plane that has not replied at all may have taken it: nobody knows what is agreed.
        let is_answer = exchange.is_some() && refusal != Refusal::Unavailable;
        if let Some(exchange) = exchange {
            self.media.tell(Action::Cancel(exchange.id), core);
        }
        let is_being_restored = is_answer && !is_restore && self.restore(id, to, core);
        self.on_forward_failure(number, 488, None, core);
        if !is_being_restored {
            // No session is left that both ends know.
            self.hang_up(End::MediaRefused, core);
        }
    }

    /// Offers an end once more what the other has described last; false if that cannot be.
    pub(super) fn restore(&mut self, id: PairId, to: Side, core: &mut Core) -> bool {
        let Some(pair) = self.parties.pair(id) else { return false };
        let Some(said) = pair.legs[!to].descriptions.remote.clone() else { return false };
        let method = match (self.is_answered(), pair.legs[to].abilities.has_update) {
            (true, _) => Method::INVITE,
            (false, true) => Method::UPDATE,
            (false, false) => return false,
        };
        let (number, exchange) = (self.parties.new_forward(id), self.media.new_exchange());
        let mut forward = Forward::of_ours(number, to, method, Origin::Restore, None);
        forward.exchange = Some(Exchange { id: exchange, offerer: !to });
        forward.attempts = 0;
        self.parties.add_forward(forward);
        let Some(action) = self.parties.offer_action(id, exchange, !to, said) else { return false };
        self.media.ask(action, Wait::Forward(number), core);
        true
    }

    pub(super) fn on_retry(&mut self, number: ForwardId, core: &mut Core) {
        let Some(forward) = self.parties.forward(number) else { return };
        if forward.client.is_some() || self.is_over() {
            return;
        }
        let (id, from) = (forward.id.pair, forward.from);
        // What went first must have ended: one offer at a time.
        let Some(pair) = self.parties.pair(id) else { return };
        if pair.exchange.is_some() || pair.forwards.iter().any(Forward::is_open) {
            self.schedule(core.config.timers.t1, CallTimer::Retry(number), core);
            return;
        }
        let description = match forward.request() {
            Some(request) => {
                multipart::session_description(request).map(|range| request.body_bytes().slice(range))
            }
            None => pair.legs[from].descriptions.remote.clone(),
        };
        let Some(sdp) = description else {
            self.send_forward(number, core);
            return;
        };
        let exchange = self.media.new_exchange();
        if let Some(forward) = self.parties.forward_mut(number) {
            forward.exchange = Some(Exchange { id: exchange, offerer: from });
        }
        if let Some(action) = self.parties.offer_action(id, exchange, from, sdp) {
            self.media.ask(action, Wait::Forward(number), core);
        }
    }

    /// Asks all legs, or none.
    pub(super) fn renegotiate(
        &mut self,
        number: u32,
        legs: Vec<(Endpoint, Option<Bytes>)>,
        deadline: Duration,
        core: &mut Core,
    ) {
        // What media would be told of it, the end tells.
        if self.is_over() {
            return;
        }
        let free: Option<Vec<_>> = legs.iter().map(|(endpoint, _)| self.free_leg(*endpoint, core)).collect();
        let Some(free) = free else {
            for (endpoint, _) in legs {
                self.tell_renegotiated(number, endpoint, Renegotiated::Superseded, core);
            }
            return;
        };
        for ((endpoint, offer), leg) in legs.into_iter().zip(free) {
            let id = self.parties.new_forward(leg.pair);
            let timer = self.schedule(deadline, CallTimer::Renegotiation(id), core);
            let origin = Origin::Media(Wish { number, endpoint, timer, is_late: false });
            if let Some(leg) = self.parties.leg_mut(leg) {
                leg.allowance.spend(core.now.monotonic);
            }
            self.ask(Forward::of_ours(id, leg.side, Method::INVITE, origin, offer), core);
        }
    }

    /// The pair and end of a leg that may be offered something now.
    fn free_leg(&self, endpoint: Endpoint, core: &Core) -> Option<LegId> {
        let (pair, side) = self.parties.pairs.iter().find_map(|pair| {
            let (side, _) = pair.legs.iter().find(|(_, end)| end.endpoint == endpoint)?;
            (self.is_answered() && pair.is_confirmed()).then_some((pair, side))
        })?;
        let leg = &pair.legs[side];
        let is_settled =
            leg.is_settled() && pair.exchange.is_none() && pair.owed_ack.is_none() && pair.crossing.is_none();
        // What an end has offered concerns both legs, what we ask only the one.
        let concerns = |forward: &Forward| forward.server().is_some() || forward.from != side;
        let is_open = pair.forwards.iter().any(|forward| forward.offers() && concerns(forward));
        (is_settled && !is_open && leg.allowance.has_room(core.now.monotonic)).then_some(leg.id)
    }

    fn tell_renegotiated(&mut self, wish: u32, endpoint: Endpoint, outcome: Renegotiated, core: &mut Core) {
        self.media.tell(Action::Renegotiated { wish, endpoint, outcome }, core);
    }

    /// A phone took ours.
    pub(super) fn on_renegotiation_success(
        &mut self,
        number: ForwardId,
        status: u16,
        description: Option<Bytes>,
        core: &mut Core,
    ) {
        let Some(forward) = self.parties.forward(number) else { return };
        let Origin::Media(wish) = &forward.origin else { return };
        let (id, to, timer) = (forward.id.pair, !forward.from, wish.timer);
        let (name, endpoint, offer) = (wish.number, wish.endpoint, forward.description.clone());
        core.timers.cancel(timer);
        let asked = offer.is_none();
        if let (Some(sdp), Some(pair)) = (&description, self.parties.pair_mut(id)) {
            let end = &mut pair.legs[to];
            end.descriptions.remote = Some(Bytes::copy_from_slice(sdp));
            end.descriptions.local = offer.or_else(|| end.descriptions.local.take());
        }
        if let (Some(sdp), true) = (&description, asked) {
            let outcome = Renegotiated::Offered { sdp: sdp.clone(), number: self.media.next_request() };
            let action = Action::Renegotiated { wish: name, endpoint, outcome };
            // The other end may have to be asked first: half of the time in which its 2xx is repeated.
            let patience = core.config.timers.t1.saturating_mul(32);
            self.media.ask_within(patience, action, Wait::Offered(number), core);
            return;
        }
        self.parties.acknowledge(id.leg(to), None, core);
        self.parties.take_forward(number);
        let outcome = description.map_or(Renegotiated::Refused(status), Renegotiated::Accepted);
        self.tell_renegotiated(name, endpoint, outcome, core);
        self.after_forward(id, core);
    }

    /// What the ACK of a re-INVITE without an offer is to answer.
    pub(super) fn on_renegotiation_answer(
        &mut self,
        number: ForwardId,
        answer: Option<Bytes>,
        core: &mut Core,
    ) {
        let Some(forward) = self.parties.take_forward(number) else { return };
        let (id, to) = (forward.id.pair, !forward.from);
        let last = self.parties.pair(id).and_then(|pair| pair.legs[to].descriptions.local.clone());
        self.parties.acknowledge(id.leg(to), answer.or(last), core);
        self.after_forward(id, core);
    }

    /// A phone refused ours, or has not answered.
    pub(super) fn on_renegotiation_failure(&mut self, number: ForwardId, status: u16, core: &mut Core) {
        let Some(forward) = self.parties.take_forward(number) else { return };
        let Origin::Media(wish) = forward.origin else { return };
        core.timers.cancel(wish.timer);
        let shown = if wish.is_late && status == 487 { 408 } else { status };
        self.tell_renegotiated(wish.number, wish.endpoint, Renegotiated::Refused(shown), core);
        if status == 481 {
            // Its call is gone (RFC 5057 §5.1): the other end hears of it.
            self.hang_up(End::Gone(side_of(!forward.from)), core);
            return;
        }
        self.after_forward(forward.id.pair, core);
    }

    /// It has taken long enough.
    pub(super) fn on_renegotiation_timeout(&mut self, number: ForwardId, core: &mut Core) {
        let Some(forward) = self.parties.forward_mut(number) else { return };
        let Origin::Media(wish) = &mut forward.origin else { return };
        wish.is_late = true;
        match forward.client {
            Some(client) => core.cancel(client, None),
            // It could not even be written.
            None => self.on_renegotiation_failure(number, 408, core),
        }
    }

    /// Asks what of a forward's fragment may pass.
    pub(super) fn ask_for_fragment(&mut self, number: ForwardId, core: &mut Core) {
        let Some(forward) = self.parties.forward(number) else { return };
        let (id, from) = (forward.id.pair, forward.from);
        let Some(fragment) = forward.request().map(Message::body_bytes) else { return };
        let Some(pair) = self.parties.pair(id) else { return };
        let action = Action::Trickle { from: pair.endpoint(from), to: pair.endpoint(!from), fragment };
        self.media.ask(action, Wait::Fragment(number), core);
    }

    /// What the other end is shown of it; `None`: nothing, and its author need not know.
    pub(super) fn on_fragment(&mut self, number: ForwardId, fragment: Option<Bytes>, core: &mut Core) {
        if let Some(fragment) = fragment {
            let Some(forward) = self.parties.forward_mut(number) else { return };
            forward.fragment = Some(fragment);
            return self.send_forward(number, core);
        }
        let Some(forward) = self.parties.take_forward(number) else { return };
        if let Some(asked) = forward.asked() {
            core.reject(asked, 200);
        }
        self.after_forward(forward.id.pair, core);
    }
}
