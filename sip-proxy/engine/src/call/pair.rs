//! Two legs that belong together: one with the caller, one with a target.

use std::collections::VecDeque;

use sip_wire::Message;

use super::end::Leaving;
use super::forward::Forward;
use super::leg::Leg;
use super::parties::Parties;
use super::side::{BranchId, PairId, Side, Sides};
use crate::core::Core;
use crate::dialog::Dialog;
use crate::io::Flow;
use crate::question::{Caller, TrunkTarget};
use crate::timer::TimerId;
use crate::transaction::{Incoming, Large};
use seam::{Endpoint, ExchangeId};

/// An offer that its answer is awaited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    /// Which leg offered.
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

/// A BYE that waits for the ACK before it.
#[derive(Debug)]
pub(super) struct ByeOnAck {
    /// Its Reason (RFC 3326).
    pub(super) reason: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Pair {
    pub(super) id: PairId,
    /// Which branch its target's dialog belongs to.
    pub(super) branch: BranchId,
    pub(super) legs: Sides<Leg>,
    /// What travels from one leg to the other, or was sent by us.
    pub(super) forwards: Vec<Forward>,
    /// The offer that waits for its answer.
    pub(super) exchange: Option<Exchange>,
    /// The initial offer has been answered in this pair.
    pub(super) negotiated: bool,
    pub(super) reliable: Vec<Reliable>,
    /// Responses of the target that came while the media plane thought about one before.
    pub(super) deferred: VecDeque<Message>,
    /// A request that crossed ours and waits.
    pub(super) crossing: Option<Crossing>,
    /// The leg that waits for the ACK of the other, with the answer in it.
    pub(super) owed_ack: Option<Side>,
    /// The caller is to have a BYE as soon as its ACK has come.
    pub(super) bye_on_ack: Option<ByeOnAck>,
}

/// Whose turn it is to offer, seen from one leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Anybody's.
    Free,
    /// An offer of this leg is open.
    Own,
    /// An offer is open that this very leg has not answered.
    Glare,
    /// An offer of ours, or of the other leg, is open elsewhere.
    Others,
}

impl Pair {
    /// Whether a leg may offer now (RFC 3261 §14.2, RFC 3311 §5.2).
    pub(super) fn turn(&self, side: Side) -> Turn {
        let open = || self.forwards.iter().filter(|forward| forward.blocks());
        let offerer = self.exchange.map(|exchange| exchange.offerer);
        if offerer == Some(side) || open().any(|forward| forward.from == side && forward.server().is_some()) {
            Turn::Own
        } else if open().any(|forward| forward.from != side) {
            Turn::Glare
        } else if offerer.is_some() || open().any(|forward| forward.server().is_none()) {
            Turn::Others
        } else {
            Turn::Free
        }
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.legs[Side::Target].dialog.confirmed
    }

    pub(super) fn endpoint(&self, side: Side) -> Endpoint {
        self.legs[side].endpoint
    }

    pub(super) fn flow(&self, side: Side) -> Flow {
        self.legs[side].dialog.flow
    }
}

impl Pair {
    /// Its dialogs are over: nothing finds them, nothing of them is due, and what is pending in them is answered. A caller who is
    /// to have a BYE on the ACK is still waited for.
    pub(super) fn end(self, core: &mut Core) -> Option<Leaving> {
        let Sides { mut caller, mut target } = self.legs;
        let leaving = match self.bye_on_ack {
            Some(ByeOnAck { reason }) => {
                caller.set_session_timer(None, core);
                Some(Leaving { leg: Box::new(caller), reason })
            }
            None => {
                caller.end(core);
                None
            }
        };
        target.end(core);
        if let Some(Crossing { incoming, timer, .. }) = self.crossing {
            core.timers.cancel(timer);
            core.reject(&incoming, 487);
        }
        for forward in self.forwards {
            forward.end(core);
        }
        leaving
    }
}

impl Parties {
    /// The pair that a response of a branch belongs to, made if its To tag is new.
    pub(super) fn pair_of_response(
        &mut self,
        branch: BranchId,
        response: &Message,
        flow: Flow,
        core: &mut Core,
    ) -> Option<PairId> {
        // Without a tag the tag is null (RFC 3261 §12.1.2), and a target that finds one later is still the same.
        let tag = response.to().ok()?.tag().unwrap_or_default().to_vec();
        let of_branch = |pair: &&mut Pair| pair.branch == branch;
        let known = self.pairs.iter_mut().filter(of_branch).find(|pair| {
            let dialog = &pair.legs[Side::Target].dialog;
            *dialog.remote_tag == tag || (dialog.remote_tag.is_empty() && !dialog.confirmed)
        });
        if let Some(pair) = known {
            let id = pair.id;
            let end = &mut pair.legs[Side::Target];
            end.learn(response);
            if *end.dialog.remote_tag != tag {
                core.dialogs.remove(&end.dialog.key());
                end.dialog.take_tag(response);
                self.secrets[Side::Target].add(&tag);
                self.publish(id, core);
            }
            return Some(id);
        }
        let sent = self.branches.get(branch)?;
        let dialog = Dialog::uac(sent.attempt.request.as_ref()?, response, flow).ok()?;
        self.make_pair(branch, dialog, Some(response), core)
    }

    /// A pair with a new dialog towards the caller.
    pub(super) fn make_pair(
        &mut self,
        branch: BranchId,
        target: Dialog,
        learn: Option<&Message>,
        core: &mut Core,
    ) -> Option<PairId> {
        let forks = self.pairs.iter().filter(|pair| pair.branch == branch).count() as u16;
        let sent = self.branches.get_mut(branch)?;
        let (party, realm) = (sent.party(), sent.realm);
        let tag = sent.ids.tag.take().unwrap_or_else(|| core.ids.tag());
        let caller = Dialog::uas(&self.upstream.incoming.request, &tag, self.upstream.incoming.flow).ok()?;
        let id = PairId(self.next_pair);
        self.next_pair = self.next_pair.saturating_add(1);
        let mut legs = Sides {
            caller: Leg::new(id.leg(Side::Caller), self.key, caller, self.upstream.realm),
            target: Leg::new(id.leg(Side::Target), self.key, target, realm),
        };
        legs[Side::Target].endpoint = Endpoint { party, branch: forks };
        legs[Side::Caller].learn(&self.upstream.incoming.request);
        if let Caller::Subscriber { aor } = &self.upstream.caller {
            legs[Side::Caller].aor = Some(aor.clone());
        }
        if let Caller::Trunk { name } = &self.upstream.caller {
            let trunk = core.policy.as_ref().and_then(|policy| policy.trunk(name));
            legs[Side::Caller].dialog.large = large_to(trunk.as_deref());
        }
        if let Some(branch) = self.branches.get(branch) {
            legs[Side::Target].aor = branch.target.aor.clone();
            legs[Side::Target].dialog.large = large_to(branch.target.trunk.as_deref());
        }
        // The INVITE is kept anyway.
        let request = &self.upstream.incoming.request;
        legs[Side::Caller].descriptions.remote =
            sip_wire::multipart::session_description(request).map(|range| request.body_bytes().slice(range));
        legs[Side::Target].invite.cseq = legs[Side::Target].dialog.local_cseq;
        // What a refresh by re-INVITE has to say again.
        legs[Side::Target].descriptions.local = self.branches.get(branch).and_then(|sent| sent.offer.clone());
        if let Some(message) = learn {
            legs[Side::Target].learn(message);
        }
        for (side, leg) in legs.iter() {
            let dialog = &leg.dialog;
            core.note_stream(&dialog.flow);
            self.secrets[side].add(&dialog.remote_tag);
            self.secrets[side].add(&dialog.call_id);
            self.secrets[side].add(&dialog.local_tag);
        }
        self.pairs.push(Pair {
            id,
            branch,
            legs,
            forwards: Vec::new(),
            exchange: None,
            negotiated: false,
            reliable: Vec::new(),
            deferred: VecDeque::new(),
            crossing: None,
            owed_ack: None,
            bye_on_ack: None,
        });
        self.publish(id, core);
        Some(id)
    }
}

/// What becomes of large requests to a trunk: RFC 3261 §18.1.1 is for what was resolved without a transport.
pub(super) fn large_to(trunk: Option<&TrunkTarget>) -> Large {
    match trunk {
        Some(trunk) if trunk.transport.is_none() => Large::OverStream,
        _ => Large::AsDatagram,
    }
}
