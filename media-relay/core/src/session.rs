//! What signalling tells the media plane of a call, and what it is told back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use martian::Unfit;

use crate::consumers::Listener;
use crate::path::Constraint;
use crate::path::timeline::{Entry, Reading};
pub use crate::statistics::Loss;
pub use media_wire::sdp::Direction;

/// The exchange of the initial offer: several branches may answer it.
pub const INITIAL: u32 = 1;

/// One end of a session: a party (0 is the caller), and the early dialog of an outgoing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// 0 is the caller; each outgoing INVITE is a party of its own.
    pub party: u16,
    /// Its early dialog.
    pub branch: u16,
}

/// What must be known of a party beyond its SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// The number of its realm: which media addresses face it.
    pub realm: u16,
    /// Where its signalling comes from.
    pub signalling: SocketAddr,
    /// Its User-Agent or Server header, empty until it has said one: how it takes a move.
    pub product: Box<str>,
    /// The host of its Contact, if that is an address.
    pub contact: Option<IpAddr>,
    /// It asked for privacy (RFC 3323): the other party must not learn its media address.
    pub is_private: bool,
}

/// What to do in a session.
#[derive(Debug, Clone)]
pub enum Action {
    /// `from` has offered; `to` is to be offered the reply.
    Offer {
        /// The exchange.
        exchange: u32,
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
    /// `from` has answered the offer of `to`.
    Answer {
        /// The exchange.
        exchange: u32,
        /// Who answered.
        from: Endpoint,
        /// The offerer.
        to: Endpoint,
        /// About `from`; what its offer could not know yet.
        from_party: Party,
        /// The answer.
        sdp: Bytes,
    },
    /// This branch has won; other outgoing parties are gone.
    Select(Endpoint),
    /// `from` refused the offer: the initial one ends its party with all branches, after a later one the last agreed state
    /// stands.
    Reject {
        /// The exchange.
        exchange: u32,
        /// Who refused.
        from: Endpoint,
    },
    /// The offerer took its offer back: the last agreed state stands.
    Cancel(u32),
    /// A branch is gone.
    Drop(Endpoint),
    /// `from` trickles candidates (RFC 8840) for `to`.
    Trickle {
        /// Whose.
        from: Endpoint,
        /// Whom for.
        to: Endpoint,
        /// The body of its INFO.
        fragment: Bytes,
    },
    /// What became of an [`Event::Renegotiate`] at one of its legs.
    Renegotiated {
        /// Its number.
        wish: u32,
        /// Which leg.
        endpoint: Endpoint,
        /// What became of it.
        outcome: Outcome,
    },
    /// Policy wants the media of this call on the relay, or lets it go; at once, and for the rest of the call.
    Constrain(Constraint),
    /// It says no more what it said of this session: its realms decide again.
    Unconstrain,
    /// Somebody listens from now on: the call comes home and stays.
    Attach(Listener),
    /// Not any more.
    Detach(Listener),
    /// The call is over.
    Delete,
    /// Statistics so far.
    Query,
}

/// The reply to `Offer`, `Answer`, `Trickle`, `Delete` and `Query`.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// A description for the other side.
    Description(Result<Described, Refusal>),
    /// The fragment for the other side; `None`: it is told nothing.
    Fragment(Option<Bytes>),
    /// The final count.
    Deleted {
        /// Of each stream.
        streams: Vec<StreamStatistics>,
        /// How long no RTP of any direction was on the relay.
        direct: Duration,
    },
    /// The count so far.
    Statistics(Vec<StreamStatistics>),
}

/// How a party took an offer of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// With this answer.
    Accepted(Bytes),
    /// Not, with this status: what was agreed stands.
    Refused(u16),
    /// It was asked for an offer, and this is it; its answer comes by [`Event::Answer`].
    Offered {
        /// The offer.
        sdp: Bytes,
        /// Names the offer in the answer.
        number: u32,
    },
    /// It was not asked: an offer of somebody else was open.
    Superseded,
}

/// What a session has to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// No packet for the realm's time limit.
    Inactive,
    /// The same, of media that is off the relay with its reports: only signalling can tell whether its parties are there.
    /// Told again after as long.
    Unheard,
    /// These parties are to be offered these descriptions; each answers by [`Action::Renegotiated`].
    Renegotiate {
        /// Names the wish in the answers.
        wish: u32,
        /// Whom, and what; `None` asks for an offer.
        legs: Vec<(Endpoint, Option<Bytes>)>,
    },
    /// The answer to an offer that a party was asked for; refused: it is told what it was told last.
    Answer {
        /// That of [`Outcome::Offered`].
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
    /// One more entry of the path's timeline.
    Path {
        /// How long after the answer.
        after: Duration,
        /// What happened.
        entry: Entry,
        /// Whom its parties 0 and 1 are.
        parties: [Endpoint; 2],
    },
}

impl Event {
    pub(crate) fn metered(reading: Reading) -> Self {
        Event::Metered { direct: reading.direct, is_direct: reading.is_direct }
    }
}

/// A description for the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its bytes.
    pub sdp: Bytes,
    /// The handed-in one, in brief.
    pub streams: Vec<StreamSummary>,
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSummary {
    /// `audio`, `video`, ...
    pub kind: String,
    /// Codec names in order of preference.
    pub codecs: Vec<String>,
    /// As its author means it.
    pub direction: Direction,
    /// `RTP/AVP`, ...
    pub profile: String,
    /// Port 0.
    pub refused: bool,
}

/// Why there is no description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It can't be read.
    Malformed,
    /// Nothing of it can be relayed, or the answer breaks RFC 3264.
    NotAcceptable,
    /// It points where nothing is sent.
    Unfit(Unfit),
    /// No port is free.
    NoPorts,
    /// Session, exchange or endpoint are unknown.
    Unknown,
}

/// What came from one party in one stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStatistics {
    /// Who sent it.
    pub endpoint: Endpoint,
    /// Its m-line, from 0.
    pub stream: u16,
    /// `audio`, `video`, ...
    pub kind: String,
    /// The codec last heard.
    pub codec: String,
    /// RTP packets.
    pub packets: u64,
    /// Their octets.
    pub octets: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Dropped as a stranger's.
    pub strangers: u64,
    /// Interarrival jitter, ms.
    pub jitter_ms: f32,
    /// Round trip, ms.
    pub rtt_ms: Option<f32>,
    /// Mean opinion score, of `whole`.
    pub mos: Option<f32>,
    /// Loss on the whole way to its receiver; `None`: nobody knows it.
    pub whole: Option<Loss>,
    /// Telephone events at the relay: those of direct time are not seen.
    pub dtmf: u32,
    /// What its receiver said of it while it was not on the relay; `None`: it always was, as far as is known.
    pub direct: Option<DirectStatistics>,
}

/// A stream off the relay, by the reports of its receiver; `None`: no report told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DirectStatistics {
    /// Packets that the reports account for.
    pub packets: Option<u64>,
    /// Of them, lost.
    pub lost: Option<u64>,
    /// Greatest interarrival jitter, ms.
    pub jitter_ms: Option<f32>,
}

/// Where a description points, for choosing an address family.
pub(crate) fn is_ipv6(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V6(_))
}
