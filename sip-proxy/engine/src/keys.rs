//! What calls and their parts are called, wherever they are named from: by timers, transactions and dialogs.

use std::ops::Not;

use serde::{Deserialize, Serialize};

/// Names a call inside its engine; stale once the call is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A call's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallTimer {
    /// The target has rung long enough (RFC 3261 §16.6 timer C).
    Ringing,
    /// A branch got no response at all: the next address or target is tried.
    Failover(BranchId),
    /// The media plane owes a reply.
    Media(u32),
    /// A 2xx or a reliable provisional response to the end of a pair is repeated until its ACK or PRACK.
    Repeat(LegId),
    /// A session timer (RFC 4028): refresh, or the end.
    Session(LegId),
    /// A phone's re-INVITE has waited long enough for ours.
    Glare(PairId),
    /// A re-INVITE that met 491 is tried again.
    Retry(ForwardId),
    /// A re-INVITE that the media plane wished for has taken long enough.
    Renegotiation(ForwardId),
    /// A subscription without an end.
    Expiry,
    /// A call has lasted as long as one may.
    Longest,
}

/// Whom an end faces. There is no third.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Side {
    Caller,
    Target,
}

impl Not for Side {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Side::Caller => Side::Target,
            Side::Target => Side::Caller,
        }
    }
}

/// Names a pair inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct PairId(pub(crate) u32);

impl PairId {
    pub(crate) fn leg(self, side: Side) -> LegId {
        LegId { pair: self, side }
    }
}

/// Names a branch inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct BranchId(pub(crate) u16);

/// Names a request that travels inside a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ForwardId {
    pub(crate) pair: PairId,
    pub(crate) number: u32,
}

/// Names a leg inside its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LegId {
    pub(crate) pair: PairId,
    pub(crate) side: Side,
}

impl Not for LegId {
    type Output = Self;

    /// The other leg of the pair.
    fn not(self) -> Self {
        Self { side: !self.side, ..self }
    }
}
