//! What signalling asks of the media plane.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::path::Constraint;
use crate::{Endpoint, ExchangeId, Listener, Party, SessionId};

/// What to do in which session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which session; the first offer creates it.
    pub session: SessionId,
    /// Counts the requests of its session; the reply repeats it.
    pub number: u32,
    /// What to do.
    pub action: Action,
}

/// What to do in a session. `Offer`, `Answer`, `Trickle`, `Delete` and `Query` have a [`Reply`](crate::Reply), and
/// [`Renegotiated::Offered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// `from` has offered; the reply holds what `to` is to be offered. A fork repeats it per target.
    Offer {
        /// The exchange.
        exchange: ExchangeId,
        /// Who offered.
        from: Endpoint,
        /// Who is to be offered.
        to: Endpoint,
        /// About `from`.
        from_party: Party,
        /// About `to`.
        to_party: Party,
        /// The offer.
        sdp: Bytes,
    },
    /// `from` has answered; the reply holds the answer for the offerer `to`. One per branch; a branch that answers
    /// again, differently (183, then another 200), replaces its answer.
    Answer {
        /// The exchange.
        exchange: ExchangeId,
        /// Who answered.
        from: Endpoint,
        /// The offerer.
        to: Endpoint,
        /// About `from`; what its offer's `to_party` could not know yet.
        from_party: Party,
        /// The answer.
        sdp: Bytes,
    },
    /// This branch has won; the other outgoing parties and branches are gone.
    Select(Endpoint),
    /// `from` refused the offer (488, 491, time-out): the initial one ends its party with all branches, after a later one the last
    /// agreed state stands.
    Reject {
        /// The exchange.
        exchange: ExchangeId,
        /// Who refused.
        from: Endpoint,
    },
    /// The offerer took its offer back: the last agreed state stands.
    Cancel(ExchangeId),
    /// A leg or branch is gone; the session stays.
    Drop(Endpoint),
    /// `from` trickles candidates (RFC 8840) for `to`; the reply holds what `to` is told of them.
    Trickle {
        /// Whose.
        from: Endpoint,
        /// Whom for.
        to: Endpoint,
        /// The body of its INFO.
        fragment: Bytes,
    },
    /// What became of one leg of an [`Event::Renegotiate`](crate::Event::Renegotiate).
    Renegotiated {
        /// That of the wish.
        wish: u32,
        /// Which leg.
        endpoint: Endpoint,
        /// What became of it.
        outcome: Renegotiated,
    },
    /// Policy wants the media of this call on the relay, or lets it go; at once, and for the rest of the call.
    Constrain(Constraint),
    /// It says no more what it said of this session: its realms decide again.
    Unconstrain,
    /// Somebody listens from now on: the call comes home and stays.
    Attach(Listener),
    /// Not any more.
    Detach(Listener),
    /// The call is over. Renegotiations that were under way are not told apart.
    Delete,
    /// Statistics so far.
    Query,
}

/// What became of a wish to renegotiate, on one leg. Whatever it is, the call goes on, unless the phone says that it
/// knows of none (481).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Renegotiated {
    /// The phone took the offer; this is its answer, and it has its ACK.
    Accepted(Bytes),
    /// The phone was asked for an offer, and this is it. Its answer, which becomes the one in the ACK, comes by
    /// [`Event::Answer`](crate::Event::Answer). Without one in time, the phone is told what it was told last.
    Offered {
        /// The offer.
        sdp: Bytes,
        /// Names the offer in the answer.
        number: u32,
    },
    /// The phone refused with this status: what was agreed before stands. 408 if it did not answer at all (after 64·T1:
    /// until then it may still have heard us) or only provisionally (after the deadline); a 2xx if the answer was
    /// missing in it; 491 if an offer of the phone crosses ours, which then follows.
    Refused(u16),
    /// Nothing was sent on this leg: an offer of somebody else is open in it, it is not confirmed yet, or it was
    /// asked too often lately. May be wished for again.
    Superseded,
}
