//! What remains of a transaction that has its final response, as plain data: it answers what comes again, or absorbs it.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::flow::Flow;

/// Which machine it is, and what it says again.
#[derive(Serialize, Deserialize)]
pub(super) enum Rest {
    /// A failure of an INVITE of ours; its ACK.
    InviteFailed(#[serde(with = "crate::octets")] Bytes),
    /// The 2xx of an INVITE of ours, one of each fork.
    InviteTaken(Vec<RestTaken>),
    /// Another request of ours.
    Answered,
    /// Our failure response to an INVITE, which waits for its ACK.
    InviteRefused(#[serde(with = "crate::octets")] Bytes),
    /// That has had its ACK.
    InviteConfirmed,
    /// A 2xx of ours to an INVITE.
    InviteAccepted,
    /// Our response to another request.
    Responded(#[serde(with = "crate::octets")] Bytes),
}

/// A 2xx that had our ACK: its To tag, and what went where.
#[derive(Serialize, Deserialize)]
pub(super) struct RestTaken {
    #[serde(with = "crate::octets")]
    pub(super) tag: Box<[u8]>,
    pub(super) to: Flow,
    #[serde(with = "crate::octets")]
    pub(super) ack: Bytes,
}
