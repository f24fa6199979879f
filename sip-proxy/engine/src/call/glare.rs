//! Whose turn it is to offer (RFC 3261 §14, RFC 3311 §5.2), what phones make of it, and who waits for whom.

use sip_wire::{Method, Name, multipart};

use super::forward::Origin;
use super::media::Wait;
use super::pair::{Crossing, Exchange};
use super::side::Side;
use super::{Call, CallTimer};
use crate::core::Core;
use crate::transaction::Incoming;

impl Call {
    /// RFC 3261 §14.2, RFC 3311 §5.2, and what phones make of them.
    pub(super) fn may_offer_now(
        &mut self,
        id: u32,
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
            core.reject_with(incoming, 500, |response| response.header(Name::RetryAfter, after.as_bytes()));
            return false;
        }
        if !others && is_pending.is_none() {
            return true;
        }
        let is_phone = core.realm(pair.ends[side].realm).is_some_and(|realm| !realm.is_trunk_side);
        // Two of us must not wait for each other: only where nothing of ours is open in the trunk's own leg may it wait.
        if (is_phone || !is_glare) && (others || is_pending.is_some()) && pair.crossing.is_none() {
            let timer = self.schedule(core.config.timers.glare, CallTimer::Glare(id), core);
            let incoming = incoming.clone();
            if let Some(pair) = self.pair_mut(id) {
                pair.crossing = Some(Crossing { side, incoming, timer });
            }
            return false;
        }
        core.reject(incoming, 491);
        false
    }

    pub(super) fn on_glare_timeout(&mut self, id: u32, core: &mut Core) {
        if let Some(crossing) = self.pair_mut(id).and_then(|pair| pair.crossing.take()) {
            core.reject(&crossing.incoming, 491);
        }
    }

    pub(super) fn on_retry(&mut self, number: u32, core: &mut Core) {
        let Some(forward) = self.forward_of(number) else { return };
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
        if let Some(forward) = self.forward_mut(number) {
            forward.exchange = Some(Exchange { id: exchange, offerer: from });
        }
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

    pub(super) fn take_crossing(&mut self, id: u32, core: &mut Core) {
        if let Some(Crossing { side, incoming, timer }) =
            self.pair_mut(id).and_then(|pair| pair.crossing.take())
        {
            core.timers.cancel(timer);
            self.forward(id, side, incoming, core);
        }
    }
}
