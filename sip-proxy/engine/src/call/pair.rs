//! Two legs that belong together: one with the caller, one with a target.

use std::collections::VecDeque;
use std::time::Duration;

use seam::Endpoint;
use serde::{Deserialize, Serialize};
use sip_wire::Message;

use super::CallKey;
use super::end::Leaving;
use super::forward::Forward;
use super::leg::{Leg, StoredLeg};
use super::media::Exchange;
use super::side::{BranchId, PairId, Side, Sides};
use crate::core::Core;
use crate::flow::Flow;
use crate::question::TrunkTarget;
use crate::timer::TimerId;
use crate::transaction::{Incoming, Large};

/// A reliable provisional response of the target (RFC 3262), and what it became for the caller.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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

/// A pair that rests, as plain data.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredPair {
    pub(super) id: PairId,
    pub(super) branch: BranchId,
    pub(super) legs: Sides<StoredLeg>,
    negotiated: bool,
    reliable: Vec<Reliable>,
}

impl StoredPair {
    /// Its dialogs are found no more, and nothing of them is due.
    pub(super) fn of(pair: Pair, core: &mut Core) -> Self {
        let Sides { caller, target } = pair.legs;
        let legs = Sides { caller: StoredLeg::of(caller, core), target: StoredLeg::of(target, core) };
        Self { id: pair.id, branch: pair.branch, legs, negotiated: pair.negotiated, reliable: pair.reliable }
    }

    /// It was so `then`.
    pub(super) fn into_pair(self, call: CallKey, then: Duration, core: &mut Core) -> Pair {
        let Self { id, branch, legs: Sides { caller, target }, negotiated, reliable } = self;
        let legs = Sides {
            caller: caller.into_leg((id.leg(Side::Caller), call), then, core),
            target: target.into_leg((id.leg(Side::Target), call), then, core),
        };
        Pair {
            id,
            branch,
            legs,
            forwards: Vec::new(),
            exchange: None,
            negotiated,
            reliable,
            deferred: VecDeque::new(),
            crossing: None,
            owed_ack: None,
            bye_on_ack: None,
        }
    }
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

    /// Whether something is under way from one leg to the other.
    pub(super) fn is_busy(&self) -> bool {
        !self.forwards.is_empty()
            || self.exchange.is_some()
            || !self.deferred.is_empty()
            || self.crossing.is_some()
            || self.owed_ack.is_some()
            || self.bye_on_ack.is_some()
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

/// What becomes of large requests to a trunk: RFC 3261 §18.1.1 is for what was resolved without a transport.
pub(super) fn large_to(trunk: Option<&TrunkTarget>) -> Large {
    match trunk {
        Some(trunk) if trunk.transport.is_none() => Large::OverStream,
        _ => Large::AsDatagram,
    }
}
