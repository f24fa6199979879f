//! What the media plane answers.

use std::time::Duration;

use bytes::Bytes;

use crate::{Described, Refusal, SessionId, StreamStatistics};

/// The reply to a [`Request`](crate::Request).
#[derive(Debug, Clone, PartialEq)]
pub struct Replied {
    /// Of which session.
    pub session: SessionId,
    /// That of the request.
    pub number: u32,
    /// What came of it.
    pub reply: Reply,
}

/// See [`Replied`].
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To an `Offer` or an `Answer`: a description for the other side.
    Description(Result<Described, Refusal>),
    /// To a `Trickle`; `None`: nothing of it is for the other end.
    Fragment(Option<Bytes>),
    /// To a `Delete`: the final count.
    Deleted {
        /// What came from each party.
        streams: Vec<StreamStatistics>,
        /// How long no RTP of the call, in any direction, was on the relay.
        direct: Duration,
    },
    /// To a `Query`: the count so far.
    Statistics(Vec<StreamStatistics>),
}
