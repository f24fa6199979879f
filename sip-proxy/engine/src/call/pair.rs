//! Two dialogs that belong together: one with the caller, one with a target.

use std::sync::Arc;

use bytes::Bytes;
use seam::{Endpoint, ExchangeId, Summary};
use sip_wire::{Message, Name};

use super::Call;
use super::forward::{Forward, Origin};
use super::media::product_of;
use super::renegotiate::Allowance;
use super::side::{EndId, Side, Sides};
use crate::core::{Core, DialogPlace};
use crate::dialog::Dialog;
use crate::event::EndedBy;
use crate::farewells::Farewell;
use crate::hop;
use crate::io::{ConnectionId, Flow, RealmId};
use crate::passing::Privacy;
use crate::question::TrunkTarget;
use crate::session_timer::Agreement;
use crate::timer::TimerId;
use crate::transaction::{Answer, ClientId, Incoming, Large};

/// One end of a pair.
#[derive(Debug)]
pub(super) struct End {
    pub(super) dialog: Dialog,
    pub(super) realm: RealmId,
    /// The flow of its connection that has closed, by which its phone is known when it comes back.
    pub(super) left: Option<Flow>,
    /// Whose end it is, where it is a subscriber's.
    pub(super) aor: Option<Arc<str>>,
    pub(super) endpoint: Endpoint,
    /// Its Allow names UPDATE.
    pub(super) has_update: bool,
    /// It said `Supported: timer`.
    pub(super) has_timer: bool,
    /// The description of ours that it accepted last, or that answered its own.
    pub(super) description: Option<Bytes>,
    /// The description that it gave last, and that was agreed on: what the other end is put back to.
    pub(super) said: Option<Bytes>,
    /// The same in brief.
    pub(super) summary: Summary,
    /// What is repeated to it until its ACK or PRACK.
    pub(super) repeat: Option<Repeat>,
    /// The INVITE of ours whose 2xx from it has not had its ACK.
    pub(super) open_invite: Option<ClientId>,
    /// It has acknowledged a 2xx of ours, or we one of its: BYE may go there (RFC 3261 §15).
    pub(super) is_acknowledged: bool,
    /// CSeq of the INVITE we sent it last: what its ACK must bear.
    pub(super) invite_cseq: u32,
    pub(super) session: SessionTimerState,
    /// What it says it is (User-Agent, Server).
    pub(super) product: Option<Arc<str>>,
    /// It asked for privacy.
    pub(super) wants_privacy: bool,
    /// How often the media plane may still ask it.
    pub(super) allowance: Allowance,
}

/// RFC 4028, for one end.
#[derive(Debug, Default)]
pub(super) struct SessionTimerState {
    pub(super) agreed: Option<Agreement>,
    pub(super) timer: Option<TimerId>,
    /// The least interval that it has asked for by 422.
    pub(super) least: Option<std::time::Duration>,
}

/// A response that waits for its ACK (RFC 3261 §13.3.1.4) or PRACK (RFC 3262 §3).
#[derive(Debug)]
pub(super) struct Repeat {
    pub(super) answer: Answer,
    /// CSeq number of the INVITE, which the ACK bears.
    pub(super) cseq: u32,
    pub(super) interval: std::time::Duration,
    pub(super) until: std::time::Duration,
    pub(super) timer: TimerId,
}

/// An offer that its answer is awaited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    /// Which end offered.
    pub(super) offerer: Side,
}

/// A reliable provisional response of the target (RFC 3262), and what it became for the caller.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reliable {
    pub(super) theirs: u32,
    pub(super) ours: u32,
}

/// A request that came while ours, or the other end's, was open.
#[derive(Debug)]
pub(super) struct Crossing {
    /// Whose it is.
    pub(super) side: Side,
    pub(super) incoming: Incoming,
    /// How long it may wait.
    pub(super) timer: TimerId,
}

/// An end that still has to say goodbye to.
#[derive(Debug)]
pub(super) struct Leaving {
    pair: u32,
    side: Side,
    end: Box<End>,
    /// Reason (RFC 3326) of the BYE.
    reason: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) id: u32,
    /// Which branch its target's dialog belongs to.
    pub(super) branch: u16,
    pub(super) ends: Sides<End>,
    /// The offer that waits for its answer.
    pub(super) exchange: Option<Exchange>,
    /// The initial offer has been answered in this pair.
    pub(super) negotiated: bool,
    pub(super) reliable: Vec<Reliable>,
    /// Responses of the target that came while the media plane thought about one before.
    pub(super) deferred: std::collections::VecDeque<Message>,
    /// A request that crossed ours and waits.
    pub(super) crossing: Option<Crossing>,
    /// The end that waits for the ACK of the other, with the answer in it.
    pub(super) owed_ack: Option<Side>,
    /// The caller is to have a BYE as soon as its ACK has come, with this Reason.
    pub(super) farewell: Option<Option<Vec<u8>>>,
}

impl Pair {
    pub(super) fn is_confirmed(&self) -> bool {
        self.ends[Side::Target].dialog.confirmed
    }

    pub(super) fn endpoint(&self, side: Side) -> Endpoint {
        self.ends[side].endpoint
    }

    pub(super) fn flow(&self, side: Side) -> Flow {
        self.ends[side].dialog.flow
    }
}

impl End {
    pub(super) fn new(dialog: Dialog, realm: RealmId, endpoint: Endpoint) -> Self {
        Self {
            dialog,
            realm,
            left: None,
            aor: None,
            endpoint,
            has_update: false,
            has_timer: false,
            description: None,
            said: None,
            summary: Summary::default(),
            repeat: None,
            open_invite: None,
            is_acknowledged: false,
            invite_cseq: 0,
            session: SessionTimerState::default(),
            product: None,
            wants_privacy: false,
            allowance: Allowance::default(),
        }
    }

    /// It took a request that described the session, or that asked it to.
    pub(super) fn accept(&mut self, forward: &Forward, response: &Message) {
        self.description = forward.description.clone().or_else(|| self.description.take());
        self.said = said_in(response).or_else(|| self.said.take());
    }

    /// Learns what a message of this end says about its abilities.
    pub(super) fn learn(&mut self, message: &Message) {
        if message.count(Name::Allow) > 0 {
            self.has_update = message.has_token(Name::Allow, "UPDATE");
        }
        if message.count(Name::Supported) > 0 {
            self.has_timer = message.has_token(Name::Supported, "timer");
        }
        self.product = product_of(message).or_else(|| self.product.take());
        self.wants_privacy |= Privacy::of(message).is_any();
    }
}

impl Call {
    /// The pair that a response of a branch belongs to, made if its To tag is new.
    pub(super) fn pair_of_response(
        &mut self,
        branch: u16,
        response: &Message,
        flow: Flow,
        core: &mut Core,
    ) -> Option<u32> {
        // Without a tag the tag is null (RFC 3261 §12.1.2), and a target that finds one later is still the same.
        let tag = response.to().ok()?.tag().unwrap_or_default().to_vec();
        let of_branch = |pair: &&mut Pair| pair.branch == branch;
        let known = self.pairs.iter_mut().filter(of_branch).find(|pair| {
            let dialog = &pair.ends[Side::Target].dialog;
            *dialog.remote_tag == tag || (dialog.remote_tag.is_empty() && !dialog.confirmed)
        });
        if let Some(pair) = known {
            let id = pair.id;
            let end = &mut pair.ends[Side::Target];
            end.learn(response);
            if *end.dialog.remote_tag != tag {
                core.dialogs.remove(&end.dialog.key());
                end.dialog.take_tag(response);
                self.secrets[Side::Target].add(&tag);
                self.publish(id, core);
            }
            return Some(id);
        }
        let sent = self.branches.get(usize::from(branch))?;
        let dialog = Dialog::uac(sent.request.as_ref()?, response, flow).ok()?;
        self.make_pair(branch, dialog, Some(response), core)
    }

    /// A pair with a new dialog towards the caller.
    pub(super) fn make_pair(
        &mut self,
        branch: u16,
        target: Dialog,
        learn: Option<&Message>,
        core: &mut Core,
    ) -> Option<u32> {
        let forks = self.pairs.iter().filter(|pair| pair.branch == branch).count() as u16;
        let sent = self.branches.get_mut(usize::from(branch))?;
        let (party, realm) = (sent.party, sent.realm);
        let tag = sent.tag.take().unwrap_or_else(|| core.ids.tag());
        let caller = Dialog::uas(&self.upstream.incoming.request, &tag, self.upstream.incoming.flow).ok()?;
        let mut ends = Sides {
            caller: End::new(caller, self.upstream.realm, Endpoint { party: 0, branch: 0 }),
            target: End::new(target, realm, Endpoint { party, branch: forks }),
        };
        ends[Side::Caller].learn(&self.upstream.incoming.request);
        if let crate::question::Caller::Subscriber { aor } = &self.upstream.caller {
            ends[Side::Caller].aor = Some(aor.clone());
        }
        if let crate::question::Caller::Trunk { name } = &self.upstream.caller {
            ends[Side::Caller].dialog.large =
                large_to(core.policy.as_ref().and_then(|policy| policy.trunk(name)));
        }
        if let Some(branch) = self.branches.get(usize::from(branch)) {
            ends[Side::Target].aor = branch.aor.clone();
            ends[Side::Target].dialog.large =
                branch.trunk.clone().map_or(Large::AsDatagram, |trunk| large_to(Some(trunk)));
        }
        // The INVITE is kept anyway.
        let request = &self.upstream.incoming.request;
        ends[Side::Caller].said =
            sip_wire::multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        ends[Side::Target].invite_cseq = ends[Side::Target].dialog.local_cseq;
        // What a refresh by re-INVITE has to say again.
        ends[Side::Target].description =
            self.branches.get(usize::from(branch)).and_then(|sent| sent.offer.clone());
        if let Some(message) = learn {
            ends[Side::Target].learn(message);
        }
        let id = self.next_pair;
        self.next_pair = self.next_pair.saturating_add(1);
        for (side, end) in ends.iter() {
            let dialog = &end.dialog;
            core.note_stream(&dialog.flow);
            self.secrets[side].add(&dialog.remote_tag);
            self.secrets[side].add(&dialog.call_id);
            self.secrets[side].add(&dialog.local_tag);
        }
        self.pairs.push(Pair {
            id,
            branch,
            ends,
            exchange: None,
            negotiated: false,
            reliable: Vec::new(),
            deferred: std::collections::VecDeque::new(),
            crossing: None,
            owed_ack: None,
            farewell: None,
        });
        self.publish(id, core);
        Some(id)
    }

    /// Writes down where the dialogs of a pair are found, and how an INVITE that replaces one of them reaches the other
    /// end: after each change of a tag, a target or a flow.
    pub(super) fn publish(&self, id: u32, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let who = Sides { caller: self.caller_in_records(), target: self.reached(pair.branch).0 };
        let branch = self.branches.get(usize::from(pair.branch));
        let target = branch.and_then(|branch| {
            branch.aor.clone().or_else(|| branch.trunk.as_ref().map(|trunk| trunk.name.clone()))
        });
        let names = Sides { caller: self.caller_name(), target: target.unwrap_or_else(|| "".into()) };
        for (side, end) in pair.ends.iter() {
            let other = (&pair.ends[!side], &who[!side]);
            let other = (self.purpose == super::Purpose::Session).then_some(other);
            let name = names[side].clone();
            let named = crate::pickup::Party { realm: end.realm, name };
            let peer =
                other.map(|(other, who)| Arc::new(super::transfer::peer_of(other, who.clone(), named, core)));
            let place = DialogPlace { call: self.key, end: EndId { pair: id, side }, peer };
            core.dialogs.insert(end.dialog.key(), place);
        }
    }

    /// Whoever was reached by one flow is reached by another.
    pub(crate) fn follow_move(&mut self, from: Flow, to: Flow, core: &mut Core) {
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.end.dialog);
        leaving.filter(|dialog| dialog.flow == from).for_each(|dialog| dialog.flow = to);
        let mut moved = Vec::new();
        for pair in &mut self.pairs {
            let is_it = |end: &&mut End| end.dialog.flow == from || end.left == Some(from);
            for end in pair.ends.iter_mut().filter(is_it) {
                end.dialog.flow = to;
                end.left = None;
                moved.push(pair.id);
            }
        }
        if !moved.is_empty() {
            core.note_stream(&to);
        }
        moved.into_iter().for_each(|id| self.publish(id, core));
    }

    /// A connection is gone. Trunks are called back where they listen; a phone is, if no NAT stands before it, and else
    /// comes back by itself.
    pub(crate) fn connection_closed(&mut self, connection: ConnectionId, core: &mut Core) {
        let mut moved = Vec::new();
        for pair in &mut self.pairs {
            let ends = pair.ends.iter_mut();
            for end in ends.filter(|end| end.dialog.flow.connection == Some(connection)) {
                let flow = end.dialog.flow;
                let is_trunk = core.realm_of(&flow).is_some_and(|realm| realm.is_trunk_side);
                let way = match is_trunk {
                    true => Some(Flow { connection: None, ..flow }),
                    false => hop::without_connection(&end.dialog.target, &flow, core),
                };
                if let Some(way) = way {
                    end.left = Some(flow);
                    end.dialog.flow = way;
                    moved.push(pair.id);
                }
            }
        }
        moved.into_iter().for_each(|id| self.publish(id, core));
    }

    /// Forgets a pair: its dialogs, timers and requests.
    pub(super) fn drop_pair(&mut self, id: u32, core: &mut Core) {
        let Some(position) = self.pairs.iter().position(|pair| pair.id == id) else { return };
        let mut pair = self.pairs.remove(position);
        let mut farewell = pair.farewell.take();
        let Sides { caller, target } = pair.ends;
        for (side, end) in [(Side::Caller, caller), (Side::Target, target)] {
            if side == Side::Caller
                && let Some(reason) = farewell.take()
            {
                if let Some(timer) = end.session.timer {
                    core.timers.cancel(timer);
                }
                self.leaving.push(Leaving { pair: id, side, end: Box::new(end), reason });
                continue;
            }
            core.dialogs.remove(&end.dialog.key());
            for timer in end.repeat.map(|repeat| repeat.timer).into_iter().chain(end.session.timer) {
                core.timers.cancel(timer);
            }
        }
        if let Some(Crossing { incoming, timer, .. }) = pair.crossing {
            core.timers.cancel(timer);
            core.reject(&incoming, 487);
        }
        let (gone, kept): (Vec<Forward>, Vec<Forward>) =
            std::mem::take(&mut self.forwards).into_iter().partition(|forward| forward.pair == id);
        self.forwards = kept;
        for forward in gone {
            if let Some(client) = forward.client() {
                core.cancel(client, None);
            }
            if let Origin::Media(wish) = &forward.origin {
                core.timers.cancel(wish.timer);
            }
            if let Some(asked) = forward.asked() {
                // RFC 3261 §15.1.2: what is pending when the dialog ends gets 487.
                core.reject(asked, 487);
            }
        }
    }

    /// Repeats an answer to an end's INVITE, which has this CSeq number, until it is acknowledged.
    pub(super) fn repeat_until_acknowledged(
        &mut self,
        at: EndId,
        answer: Answer,
        cseq: u32,
        core: &mut Core,
    ) {
        let interval = core.config.timers.t1;
        let until = core.now.monotonic.saturating_add(interval.saturating_mul(64));
        let timer = self.schedule(interval, super::CallTimer::Repeat(at), core);
        let Some(pair) = self.pair_mut(at.pair) else { return };
        let repeat = Repeat { answer, cseq, interval, until, timer };
        if let Some(old) = pair.ends[at.side].repeat.replace(repeat) {
            core.timers.cancel(old.timer);
        }
    }

    pub(super) fn stop_repeating(&mut self, pair: u32, side: Side, core: &mut Core) {
        if let Some(repeat) = self.pair_mut(pair).and_then(|pair| pair.ends[side].repeat.take()) {
            core.timers.cancel(repeat.timer);
        }
    }

    pub(super) fn on_repeat(&mut self, id: u32, side: Side, core: &mut Core) {
        let key = super::TimerKey::Call(self.key, super::CallTimer::Repeat(EndId { pair: id, side }));
        let (t2, now) = (core.config.timers.t2, core.now.monotonic);
        let leaving = self.leaving.iter_mut().find(|leaving| leaving.pair == id && leaving.side == side);
        let (end, is_leaving) = match (leaving, self.pairs.iter_mut().find(|pair| pair.id == id)) {
            (Some(leaving), _) => (&mut *leaving.end, true),
            (None, Some(pair)) => (&mut pair.ends[side], false),
            (None, None) => return,
        };
        let flow = end.dialog.flow;
        let Some(repeat) = &mut end.repeat else { return };
        if now < repeat.until {
            // Provisional responses double without a bound (RFC 3262 §3), 2xx up to T2.
            let status = repeat.answer.status;
            repeat.interval = if status < 200 {
                repeat.interval.saturating_mul(2)
            } else {
                repeat.interval.saturating_mul(2).min(t2)
            };
            repeat.timer = core.timers.schedule(now.saturating_add(repeat.interval), key);
            let Answer { server, response, .. } = &repeat.answer;
            if !flow.transport.is_reliable() || status < 200 {
                core.respond(*server, status, response.clone());
            }
            return;
        }
        let Answer { server, status, .. } = repeat.answer;
        end.repeat = None;
        if is_leaving {
            self.leave(id, side, core);
        } else if status < 200 {
            // RFC 3262 §3: the request is rejected with a 5xx.
            self.refuse_upstream(server, 504, core);
        } else {
            self.hang_up(crate::event::EndCause::NoAck, EndedBy::Sbc, core);
        }
    }

    /// An ACK to a 2xx.
    pub(crate) fn on_ack(&mut self, id: u32, side: Side, ack: &Message, core: &mut Core) {
        // One that was late, or came twice, is of the INVITE before.
        let cseq = cseq_of(ack);
        let is_of = |repeat: &Repeat| repeat.answer.status >= 200 && repeat.cseq == cseq;
        if self.is_over() {
            let is_awaited = self.leaving.iter().any(|leaving| {
                leaving.pair == id && leaving.side == side && leaving.end.repeat.as_ref().is_none_or(is_of)
            });
            if is_awaited {
                self.leave(id, side, core);
            }
            return;
        }
        let is_awaited = self.pair(id).is_some_and(|pair| pair.ends[side].repeat.as_ref().is_some_and(is_of));
        if is_awaited {
            self.stop_repeating(id, side, core);
        }
        let Some(pair) = self.pair_mut(id) else { return };
        pair.ends[side].is_acknowledged = true;
        if !is_awaited || pair.owed_ack != Some(!side) {
            return;
        }
        pair.owed_ack = None;
        // Until the media plane has it, the exchange stays open.
        let exchange = pair.exchange;
        let description =
            sip_wire::multipart::session_description(ack).map(|range| ack.body_bytes().slice(range));
        match (exchange, description) {
            (Some(exchange), Some(sdp)) => {
                self.answer_in_ack(EndId { pair: id, side }, exchange.id, sdp, core)
            }
            (Some(_), None) => {
                // The 2xx held an offer and the ACK no answer: the session has no media it could have (RFC 3261 §13.2.1).
                self.acknowledge(id, !side, None, core);
                self.hang_up(crate::event::EndCause::MediaRefused, side_of(side), core);
            }
            (None, _) => {
                self.acknowledge(id, !side, None, core);
                self.after_forward(id, core);
            }
        }
    }

    /// ACKs the 2xx of an end, with an answer if that is where it goes.
    pub(super) fn acknowledge(&mut self, id: u32, side: Side, sdp: Option<Bytes>, core: &mut Core) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.id == id) else { return };
        let end = &mut pair.ends[side];
        let Some((flow, mut ack)) = core.dialog_ack(&end.dialog, end.invite_cseq) else { return };
        if let Some(sdp) = sdp {
            end.description = Some(sdp.clone());
            ack = ack.body(b"application/sdp", sdp);
        }
        let ack = ack.finish();
        end.is_acknowledged = true;
        match end.open_invite.take() {
            Some(client) => core.transactions.acknowledge(client, flow, ack, &mut core.out),
            None => core.transactions.send_stateless(flow, ack, &mut core.out),
        }
    }

    /// Says goodbye to an end of a call that is over: its ACK has come, or never will.
    pub(super) fn leave(&mut self, id: u32, side: Side, core: &mut Core) {
        let Some(position) =
            self.leaving.iter().position(|leaving| leaving.pair == id && leaving.side == side)
        else {
            return;
        };
        let mut leaving = self.leaving.remove(position);
        if let Some(repeat) = leaving.end.repeat.take() {
            core.timers.cancel(repeat.timer);
        }
        let dialog = &mut leaving.end.dialog;
        core.dialogs.remove(&dialog.key());
        self.send_bye(&mut leaving.end, leaving.reason.as_deref(), core);
    }

    /// An end that was to have our BYE says it first.
    pub(super) fn is_left_by(&mut self, id: u32, side: Side, core: &mut Core) -> bool {
        let Some(position) =
            self.leaving.iter().position(|leaving| leaving.pair == id && leaving.side == side)
        else {
            return false;
        };
        let leaving = self.leaving.remove(position);
        if let Some(repeat) = leaving.end.repeat {
            core.timers.cancel(repeat.timer);
        }
        let dialog = &leaving.end.dialog;
        core.dialogs.remove(&dialog.key());
        true
    }

    /// BYE to one end, with what the other side says of the reason.
    pub(super) fn send_bye(&self, end: &mut End, reason: Option<&[u8]>, core: &mut Core) {
        core.say_farewell(Farewell {
            dialog: end.dialog.clone(),
            left: end.left,
            reason: reason.map(Into::into),
        });
    }
}

/// What becomes of large requests to a trunk: RFC 3261 §18.1.1 is for what was resolved without a transport.
fn large_to(trunk: Option<Arc<TrunkTarget>>) -> Large {
    match trunk {
        Some(trunk) if trunk.transport.is_none() => Large::OverStream,
        _ => Large::AsDatagram,
    }
}

/// The description in a message, without the rest of it.
pub(super) fn said_in(message: &Message) -> Option<Bytes> {
    let range = sip_wire::multipart::session_description(message)?;
    message.body().get(range).map(Bytes::copy_from_slice)
}

pub(super) fn cseq_of(message: &Message) -> u32 {
    message.cseq().map(|cseq| cseq.number).unwrap_or_default()
}

pub(super) fn side_of(side: Side) -> EndedBy {
    match side {
        Side::Caller => EndedBy::Caller,
        Side::Target => EndedBy::Callee,
    }
}
