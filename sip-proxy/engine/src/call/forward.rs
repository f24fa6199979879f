//! Requests inside a pair: what one end sends reaches the other, in its dialog.

use bytes::Bytes;
use seam::{Described, Refusal};
use sip_wire::{Message, Method, Name, multipart};

use super::body::with_body;
use super::heard::Heard;
use super::media::Wait;
use super::pair::{Crossing, Exchange};
use super::renegotiate::Wish;
use super::side::{EndId, Side};
use super::transfer::translate_refer_to;
use super::trickle::{FRAGMENT, is_trickle};
use super::{Call, is_target_refresh};
use crate::core::{Core, Owner};
use crate::event::{EndCause, EndedBy};
use crate::passing::{copy_headers, passing_options};
use crate::registrar::Registrar;
use crate::transaction::{Asked, ClientId, Hop, Incoming, ServerId};

/// A request on its way from one end to the other.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) id: u32,
    pub(super) pair: u32,
    /// The end it came from.
    pub(super) from: Side,
    pub(super) origin: Origin,
    pub(super) request: Message,
    pub(super) client: Option<ClientId>,
    /// What it became: an UPDATE may have to be an INVITE.
    pub(super) sent_invite: bool,
    /// The offer in it, or asked for by it.
    pub(super) exchange: Option<Exchange>,
    /// The description for the other end.
    pub(super) description: Option<Bytes>,
    pub(super) summary: seam::Summary,
    /// The candidates in it, as the other end may see them.
    pub(super) fragment: Option<Bytes>,
    pub(super) attempts: u8,
}

/// Whose request it is.
#[derive(Debug)]
pub(super) enum Origin {
    /// The end's that it came from.
    End(ServerId),
    /// Ours: it keeps a session alive (RFC 4028).
    Refresh,
    /// Ours: it asks an end whether it is there.
    Liveness,
    /// Ours: the media plane wished for it.
    Media(Wish),
    /// Ours: an end has agreed to what the other will never hear of, and is put back to what both know.
    Restore,
}

impl Forward {
    /// A request of ours to the end `to`: it takes the way of any forward, and its request holds nothing but the method.
    /// It is not tried again.
    pub(super) fn of_ours(
        id: u32,
        to: EndId,
        method: Method<'_>,
        origin: Origin,
        description: Option<Bytes>,
    ) -> Self {
        let request = sip_wire::Builder::request(method, b"sip:ours.invalid").finish();
        Self {
            id,
            pair: to.pair,
            from: !to.side,
            origin,
            sent_invite: method == Method::INVITE,
            request,
            client: None,
            exchange: None,
            description,
            summary: Default::default(),
            fragment: None,
            attempts: ATTEMPTS,
        }
    }

    /// The transaction of who asked for it; `None` if that was ourselves.
    pub(super) fn server(&self) -> Option<ServerId> {
        if let Origin::End(server) = self.origin { Some(server) } else { None }
    }

    /// The same with its request, to be answered.
    pub(super) fn asked(&self) -> Option<Asked<'_>> {
        Some(Asked { server: self.server()?, request: &self.request })
    }

    /// Whether it describes the session, or asks for that.
    pub(super) fn offers(&self) -> bool {
        self.exchange.is_some() || self.sent_invite
    }

    /// Whether its offer is open, rather than waiting for another try.
    pub(super) fn is_open(&self) -> bool {
        self.offers() && (self.exchange.is_some() || self.client.is_some())
    }

    /// Whether an offer has to wait for it: while a phone's own waits for another try, its transaction is open.
    pub(super) fn blocks(&self) -> bool {
        self.is_open() || (self.offers() && self.server().is_some())
    }

    /// Its INVITE, if it is one and on its way.
    pub(super) fn client(&self) -> Option<ClientId> {
        self.client.filter(|_| self.sent_invite)
    }
}

/// A phone's re-INVITE that meets 491 is tried again so often: most phones never do it themselves.
pub(super) const ATTEMPTS: u8 = 3;

impl Call {
    pub(super) fn forward_of(&self, number: u32) -> Option<&Forward> {
        self.forwards.iter().find(|forward| forward.id == number)
    }

    pub(super) fn forward_mut(&mut self, number: u32) -> Option<&mut Forward> {
        self.forwards.iter_mut().find(|forward| forward.id == number)
    }

    pub(super) fn take_forward(&mut self, number: u32) -> Option<Forward> {
        let position = self.forwards.iter().position(|forward| forward.id == number)?;
        Some(self.forwards.remove(position))
    }

    /// A request inside one of this call's dialogs.
    pub(crate) fn on_dialog_request(
        &mut self,
        at: EndId,
        mut incoming: Incoming,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let EndId { pair: id, side } = at;
        let Incoming { flow, request, .. } = &incoming;
        let Some(method) = request.method() else { return };
        if self.pair(id).is_none() || self.is_over() {
            let is_farewell = method == Method::BYE && self.is_left_by(id, side, core);
            let status = if is_farewell { 200 } else { 481 };
            core.reject(&incoming, status);
            return;
        }
        let heard = self.hear(at, &incoming, core, registrar);
        if heard == Heard::Challenged {
            return;
        }
        if is_target_refresh(method)
            && let Some(unfit) = crate::hop::unfit(request, flow, core)
        {
            core.notice("unfit_address", Some(flow.remote), format!("Contact or Record-Route names {unfit}"));
            core.reject(&incoming, 488);
            return;
        }
        let Some(end) = self.pair_mut(id).map(|pair| &mut pair.ends[side]) else { return };
        if let Err(fault) = end.dialog.accepts(request) {
            core.reject(&incoming, fault.status());
            return;
        }
        end.learn(request);
        if is_target_refresh(method) && heard == Heard::Peer {
            self.refresh_target(id, side, request, core);
        }
        self.secrets[side].add_message(request, flow.remote);
        if method == Method::BYE {
            self.on_bye(at, (&incoming).into(), core);
            return;
        }
        if crate::times::is_too_brief(request) {
            core.refuse_brief(&incoming);
            return;
        }
        if method == Method::INVITE || method == Method::UPDATE {
            let realm = core.realm_of(flow);
            if let Some(minimum) =
                realm.and_then(|realm| crate::session_timer::too_small(request, realm.session_timer))
            {
                core.reject_with(&incoming, 422, |response| {
                    response.header(Name::MinSe, minimum.to_string().as_bytes())
                });
                return;
            }
            if method == Method::INVITE && self.answered {
                self.stop_repeating_if_acknowledged(id, side, core);
            }
            if !self.may_offer_now(id, side, &incoming, core) {
                return;
            }
        }
        if method == Method::NOTIFY {
            incoming.request = Self::with_sound_state(incoming.request);
        }
        self.forward(id, side, incoming, core);
    }

    /// Only who has the 2xx to its INVITE can send another INVITE in the dialog: the ACK was lost, the call must not die
    /// of that. (An UPDATE may have been sent in the early dialog, before the 2xx.)
    fn stop_repeating_if_acknowledged(&mut self, id: u32, side: Side, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        let is_repeated = pair.ends[side].repeat.as_ref().is_some_and(|repeat| repeat.answer.status >= 200);
        if pair.owed_ack.is_none() && is_repeated {
            pair.ends[side].is_acknowledged = true;
            self.stop_repeating(id, side, core);
        }
    }

    pub(super) fn forward(&mut self, id: u32, from: Side, incoming: Incoming, core: &mut Core) {
        let Incoming { server, request, .. } = &incoming;
        let method_is = |method| request.method() == Some(method);
        let description =
            multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        let Some(pair) = self.pair(id) else { return };
        let pending = pair.exchange;
        let is_confirmed = self.answered;
        let to_has_update = pair.ends[!from].has_update;
        let forward = Forward {
            id: self.next_forward,
            pair: id,
            from,
            origin: Origin::End(*server),
            client: None,
            sent_invite: method_is(Method::INVITE)
                || (method_is(Method::UPDATE) && !to_has_update && is_confirmed),
            exchange: None,
            description: None,
            summary: Default::default(),
            fragment: None,
            attempts: 0,
            request: request.clone(),
        };
        let number = forward.id;
        self.next_forward = self.next_forward.saturating_add(1);
        if method_is(Method::UPDATE) && description.is_none() && !to_has_update {
            // A refresh of the sender's own leg: answered here (RFC 4028 is per leg).
            self.forwards.push(forward);
            self.answer_refresh(number, core);
            return;
        }
        if method_is(Method::PRACK) {
            let known = self.acknowledged_provisional(id, request, core);
            if !known {
                core.reject(&incoming, 481);
                return;
            }
        }
        self.forwards.push(forward);
        let is_offering = method_is(Method::INVITE) || method_is(Method::UPDATE) || method_is(Method::PRACK);
        match (description, pending) {
            (Some(sdp), Some(exchange)) if method_is(Method::PRACK) && exchange.offerer != from => {
                // The answer to an offer in a reliable response.
                if let Some(pair) = self.pair_mut(id) {
                    pair.exchange = None;
                }
                if let Some(action) = self.answer_action(id, exchange.id, from, sdp) {
                    self.ask_media(action, Wait::Forward(number), core);
                }
            }
            (Some(sdp), _) if is_offering => {
                let exchange = self.new_exchange();
                if let Some(forward) = self.forwards.iter_mut().find(|forward| forward.id == number) {
                    forward.exchange = Some(Exchange { id: exchange, offerer: from });
                }
                if let Some(action) = self.offer_action(id, exchange, from, sdp) {
                    self.ask_media(action, Wait::Forward(number), core);
                }
            }
            _ if is_trickle(request) => self.ask_for_fragment(number, core),
            _ => self.send_forward(number, core),
        }
    }

    /// A PRACK: what it acknowledges is no longer repeated (RFC 3262 §3).
    fn acknowledged_provisional(&mut self, id: u32, prack: &Message, core: &mut Core) -> bool {
        let Ok(cseq) = self.upstream.incoming.request.cseq().map(|cseq| cseq.number) else { return false };
        let Some(pair) = self.pair(id) else { return false };
        let found =
            pair.reliable.iter().any(|reliable| crate::dialog::acknowledges(prack, reliable.ours, cseq));
        // The 2xx may be out already, and is not what a PRACK acknowledges.
        let is_provisional =
            pair.ends[Side::Caller].repeat.as_ref().is_some_and(|repeat| repeat.answer.status < 200);
        if found && is_provisional {
            self.stop_repeating(id, Side::Caller, core);
        }
        found
    }

    pub(super) fn on_forward_description(
        &mut self,
        number: u32,
        result: Result<Described, Refusal>,
        core: &mut Core,
    ) {
        let Some(position) = self.forwards.iter().position(|forward| forward.id == number) else { return };
        match result {
            Ok(described) => {
                let Some(forward) = self.forwards.get_mut(position) else { return };
                forward.description = Some(described.sdp);
                forward.summary = described.summary;
                self.send_forward(number, core);
            }
            Err(refusal) => {
                let forward = self.forwards.remove(position);
                if let Some(asked) = forward.asked() {
                    core.reject_with(asked, refusal.status(), |response| {
                        refusal.warning().into_iter().fold(response, |response, warning| {
                            response.header(Name::Warning, warning.as_bytes())
                        })
                    });
                }
                if matches!(forward.origin, Origin::Restore) {
                    self.hang_up(EndCause::MediaRefused, EndedBy::Sbc, core);
                    return;
                }
                self.after_forward(forward.pair, core);
            }
        }
    }

    pub(super) fn send_forward(&mut self, number: u32, core: &mut Core) {
        let (hop, request) = match self.build_forward(number, core) {
            Ok(built) => built,
            // It cannot be said to the other end, and is answered all the same.
            Err(status) => return self.on_forward_failure(number, status, None, core),
        };
        let client = core.send_request(hop, request, Owner::Forward(self.key, number));
        let Some(forward) = self.forward_mut(number) else { return };
        forward.client = Some(client);
        // Media that moves is silent until both ends have moved.
        if matches!(forward.origin, Origin::Media(_)) {
            core.hasten(client);
        }
    }

    /// The request for the other end, or the status that its author's deserves if it cannot pass.
    fn build_forward(&mut self, number: u32, core: &mut Core) -> Result<(Hop, Message), u16> {
        self.write_forward(number, core).unwrap_or(Err(400))
    }

    fn write_forward(&mut self, number: u32, core: &mut Core) -> Option<Result<(Hop, Message), u16>> {
        let config = core.config.clone();
        let forward = self.forward_of(number)?;
        let (id, from, sent_invite) = (forward.pair, forward.from, forward.sent_invite);
        let (request, sdp, fragment) =
            (forward.request.clone(), forward.description.clone(), forward.fragment.clone());
        let to = !from;
        let method = if sent_invite { Method::INVITE } else { request.method()? };
        let timer = self.session_headers(id, to, method, core);
        let mut names = self.pair_names(&config, id, from)?;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id)?;
        let (from_realm, to_realm) =
            (config.realm(pair.ends[from].realm)?, config.realm(pair.ends[to].realm)?);
        let flow = pair.flow(from);
        let end = &mut pair.ends[to];
        let (hop, mut out) = core.dialog_request(&mut end.dialog, method)?;
        if sent_invite {
            end.invite_cseq = end.dialog.local_cseq;
        }
        if is_target_refresh(method) {
            out = out.header(Name::Contact, &core.contact(hop.flow.listener));
        }
        let mut supported = passing_options(&request, Name::Supported);
        if timer.is_some() {
            supported.extend_from_slice(if supported.is_empty() { b"timer" } else { b", timer" });
        }
        for (name, options) in
            [(Name::Supported, supported), (Name::Require, passing_options(&request, Name::Require))]
        {
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        if let Some((interval, minimum)) = timer {
            out =
                out.header(Name::SessionExpires, interval.as_bytes()).header(Name::MinSe, minimum.as_bytes());
        }
        if method == Method::PRACK {
            let cseq = self.upstream.incoming.request.cseq().ok()?.number;
            let theirs = pair
                .reliable
                .iter()
                .find(|reliable| crate::dialog::acknowledges(&request, reliable.ours, cseq))?
                .theirs;
            let invite = self.branches.get(usize::from(pair.branch))?.request.as_ref()?.cseq().ok()?.number;
            out = out.header(Name::RAck, format!("{theirs} {invite} INVITE").as_bytes());
        }
        if let Some(refer_to) = request.value(Name::ReferTo) {
            let host = config.reached_at(to_realm, hop.flow.listener);
            out =
                out.header(Name::ReferTo, &translate_refer_to(refer_to, &host, self.slot, from_realm, core)?);
        }
        let out = copy_headers(out, &request, &names, core);
        let out = match fragment {
            Some(fragment) => Ok(out.body(FRAGMENT.as_bytes(), fragment)),
            None => with_body(out, &request, sdp.as_ref(), &mut names, core),
        };
        let out = out.map(sip_wire::Builder::finish).map_err(|fault| core.body_refused(flow, fault));
        Some(out.map(|request| (hop, request)))
    }

    /// An end names where it is from now on (RFC 3261 §12.2).
    pub(super) fn refresh_target(&mut self, id: u32, side: Side, message: &Message, core: &mut Core) {
        let Some(end) = self.pair_mut(id).map(|pair| &mut pair.ends[side]) else { return };
        let before = end.dialog.target.clone();
        end.dialog.refresh_target(message);
        if end.dialog.target != before {
            self.publish(id, core);
        }
    }

    /// CANCEL of a re-INVITE.
    pub(super) fn cancel_forward(&mut self, server: ServerId, reason: Option<&[u8]>, core: &mut Core) {
        let waiting = self
            .pairs
            .iter_mut()
            .find(|pair| pair.crossing.as_ref().is_some_and(|crossing| crossing.incoming.server == server));
        if let Some(Crossing { incoming, timer, .. }) = waiting.and_then(|pair| pair.crossing.take()) {
            core.timers.cancel(timer);
            core.reject(&incoming, 487);
            return;
        }
        let Some(forward) = self.forwards.iter().find(|forward| forward.server() == Some(server)) else {
            return;
        };
        match forward.client {
            Some(client) => core.cancel(client, reason),
            None => {
                let number = forward.id;
                self.on_forward_failure(number, 487, None, core);
            }
        }
    }
}
