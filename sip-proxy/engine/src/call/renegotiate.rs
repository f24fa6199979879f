//! Re-INVITEs that the media plane wishes for: a leg's media moves, and the other end need not know.
//!
//! Signalling owns who may offer now. A leg in which an offer is open is not asked; an offer of an end that crosses ours
//! waits for its end; and however a phone takes ours, its call goes on.

use std::time::Duration;

use bytes::Bytes;
use seam::{Action, Endpoint, Renegotiated};
use sip_wire::Method;

use super::forward::{Forward, Origin};
use super::media::Wait;
use super::pair::side_of;
use super::side::EndId;
use super::{Call, CallTimer};
use crate::core::Core;
use crate::event::EndCause;
use crate::timer::TimerId;

/// How often a leg may be asked in a row, and after how long once more: a release, a failure and a return are five
/// re-INVITEs (learn, move, hold, home), and a media plane that has lost its way must not ring a phone's ears off.
const BURST: u32 = 8;
const REFILL: Duration = Duration::from_secs(5);

/// The leg of a wish.
#[derive(Debug)]
pub(super) struct Wish {
    number: u32,
    endpoint: Endpoint,
    /// Its deadline.
    pub(super) timer: TimerId,
    is_late: bool,
}

/// A leaky bucket: the moment when all that was asked is forgotten.
#[derive(Debug, Default)]
pub(super) struct Allowance(Duration);

impl Allowance {
    fn has_room(&self, now: Duration) -> bool {
        self.0.saturating_sub(now) <= REFILL.saturating_mul(BURST.saturating_sub(1))
    }

    fn spend(&mut self, now: Duration) {
        self.0 = self.0.max(now).saturating_add(REFILL);
    }
}

impl Call {
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
            let forward = self.next_forward;
            self.next_forward = self.next_forward.saturating_add(1);
            let timer = self.schedule(deadline, CallTimer::Renegotiation(forward), core);
            let origin = Origin::Media(Wish { number, endpoint, timer, is_late: false });
            self.forwards.push(Forward::of_ours(forward, leg, Method::INVITE, origin, offer));
            if let Some(pair) = self.pair_mut(leg.pair) {
                pair.ends[leg.side].allowance.spend(core.now.monotonic);
            }
            self.send_forward(forward, core);
        }
    }

    /// The pair and end of a leg that may be offered something now.
    fn free_leg(&self, endpoint: Endpoint, core: &Core) -> Option<EndId> {
        let (pair, side) = self.pairs.iter().find_map(|pair| {
            let (side, _) = pair.ends.iter().find(|(_, end)| end.endpoint == endpoint)?;
            (self.answered && pair.is_confirmed()).then_some((pair, side))
        })?;
        let end = &pair.ends[side];
        let is_settled = end.is_acknowledged
            && end.repeat.is_none()
            && end.open_invite.is_none()
            && pair.exchange.is_none()
            && pair.owed_ack.is_none()
            && pair.crossing.is_none();
        // What an end has offered concerns both legs, what we ask only the one.
        let is_open = self.forwards.iter().any(|forward| {
            forward.pair == pair.id
                && forward.offers()
                && (forward.server().is_some() || forward.from != side)
        });
        (is_settled && !is_open && end.allowance.has_room(core.now.monotonic))
            .then_some(EndId { pair: pair.id, side })
    }

    fn tell_renegotiated(&mut self, wish: u32, endpoint: Endpoint, outcome: Renegotiated, core: &mut Core) {
        self.tell_media(Action::Renegotiated { wish, endpoint, outcome }, core);
    }

    /// A phone took ours.
    pub(super) fn on_renegotiation_success(
        &mut self,
        number: u32,
        status: u16,
        description: Option<Bytes>,
        core: &mut Core,
    ) {
        let Some(forward) = self.forwards.iter().find(|forward| forward.id == number) else { return };
        let Origin::Media(wish) = &forward.origin else { return };
        let (id, to, timer) = (forward.pair, !forward.from, wish.timer);
        let (name, endpoint, offer) = (wish.number, wish.endpoint, forward.description.clone());
        core.timers.cancel(timer);
        let asked = offer.is_none();
        if let (Some(sdp), Some(pair)) = (&description, self.pair_mut(id)) {
            let end = &mut pair.ends[to];
            end.said = Some(Bytes::copy_from_slice(sdp));
            end.description = offer.or_else(|| end.description.take());
        }
        if let (Some(sdp), true) = (&description, asked) {
            let outcome = Renegotiated::Offered { sdp: sdp.clone(), number: self.next_request() };
            let action = Action::Renegotiated { wish: name, endpoint, outcome };
            // The other end may have to be asked first: half of the time in which its 2xx is repeated.
            let patience = core.config.timers.t1.saturating_mul(32);
            self.ask_media_within(patience, action, Wait::Offered(number), core);
            return;
        }
        self.acknowledge(id, to, None, core);
        self.forwards.retain(|forward| forward.id != number);
        let outcome = description.map_or(Renegotiated::Refused(status), Renegotiated::Accepted);
        self.tell_renegotiated(name, endpoint, outcome, core);
        self.after_forward(id, core);
    }

    /// What the ACK of a re-INVITE without an offer is to answer.
    pub(super) fn on_renegotiation_answer(&mut self, number: u32, answer: Option<Bytes>, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let forward = self.forwards.remove(position);
        let (id, to) = (forward.pair, !forward.from);
        let last = self.pair(id).and_then(|pair| pair.ends[to].description.clone());
        self.acknowledge(id, to, answer.or(last), core);
        self.after_forward(id, core);
    }

    /// A phone refused ours, or has not answered.
    pub(super) fn on_renegotiation_failure(&mut self, number: u32, status: u16, core: &mut Core) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        let forward = self.forwards.remove(position);
        let Origin::Media(wish) = forward.origin else { return };
        core.timers.cancel(wish.timer);
        let shown = if wish.is_late && status == 487 { 408 } else { status };
        self.tell_renegotiated(wish.number, wish.endpoint, Renegotiated::Refused(shown), core);
        if status == 481 {
            // Its call is gone (RFC 5057 §5.1): the other end hears of it.
            self.hang_up(EndCause::Failed, side_of(!forward.from), core);
            return;
        }
        self.after_forward(forward.pair, core);
    }

    /// It has taken long enough.
    pub(super) fn on_renegotiation_timeout(&mut self, number: u32, core: &mut Core) {
        let Some(forward) = self.forwards.iter_mut().find(|forward| forward.id == number) else { return };
        let Origin::Media(wish) = &mut forward.origin else { return };
        wish.is_late = true;
        match forward.client {
            Some(client) => core.cancel(client, None),
            // It could not even be written.
            None => self.on_renegotiation_failure(number, 408, core),
        }
    }
}
