//! What the media plane says by itself.

use std::time::Duration;

use bytes::Bytes;

use crate::path::PathEntry;
use crate::{Described, Endpoint, Refusal, SessionId};

/// Something that the media plane noticed, or wants, in a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// In which.
    pub session: SessionId,
    /// What.
    pub event: Event,
}

/// See [`Told`].
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// No packet for the realm's time limit.
    Inactive,
    /// The same, of media that is off the relay with its reports: only signalling can tell whether its parties are there.
    /// Told again after as long.
    Unheard,
    /// It wants its legs to agree on something else: re-INVITEs of ours, all at once. Answered per leg by
    /// [`Action::Renegotiated`](crate::Action::Renegotiated); if one of the legs is not free, none is asked and all are superseded.
    Renegotiate {
        /// Names the wish in the answers.
        wish: u32,
        /// Whom to ask, and what to offer it, as it goes out (media owns o= and its version); `None` asks for an offer.
        legs: Vec<(Endpoint, Option<Bytes>)>,
        /// A phone that has answered provisionally gets a CANCEL after so long.
        deadline: Duration,
    },
    /// The answer to an offer that a party was asked for; refused: it is told what it was told last.
    Answer {
        /// That of [`Renegotiated::Offered`](crate::Renegotiated::Offered).
        number: u32,
        /// The answer.
        description: Result<Described, Refusal>,
    },
    /// How long no RTP has been on the relay, whenever that begins or ends: the machine's own measure, whatever its states are
    /// called.
    Metered {
        /// Until now.
        direct: Duration,
        /// Whether it goes on so.
        is_direct: bool,
    },
    /// Something happened to the path of its media: for the record.
    Path(PathEntry),
}
