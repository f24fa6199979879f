//! The engine's view of media: session descriptions go in, session descriptions come out.
//!
//! Nothing here looks into SDP. Each exchange (RFC 6337) has an id; replies come later, so every step that needs one
//! is a state of its own. [`Summary`] is all that signalling, hold and policy ever know of a description.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::slot::Slot;

/// A media session; one per call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

impl SessionId {
    /// Names the home of its call, so that whatever media says of it finds the shard.
    pub(crate) fn new(slot: Slot, random: u64) -> Self {
        Self((u64::from(slot.number()) << 52) | (random >> 12))
    }

    /// The home of its call.
    pub fn slot(self) -> Slot {
        Slot::new((self.0 >> 52) as u16)
    }
}

/// An offer with its answers, unique in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExchangeId(pub u32);

/// One end of a session: a leg, and for an outgoing leg the downstream fork of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// 0 is the caller; each outgoing INVITE is a party of its own.
    pub party: u16,
    /// The early dialog of that INVITE (RFC 3261 §12.1.2); 0 until one exists.
    pub branch: u16,
}

/// What the media plane must know of a party beyond its SDP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartyInfo {
    /// Its realm: which media addresses face it.
    pub realm: crate::io::RealmId,
    /// Where its signalling comes from: a hint for latching (RFC 7362).
    pub signalling: SocketAddr,
    /// Its User-Agent, or Server in a response, cut to [`USER_AGENT_LIMIT`]; `None` until it has said one.
    pub user_agent: Option<Arc<str>>,
    /// The address that its Contact names, if that is a literal: behind a NAT its local one.
    pub contact: Option<SocketAddr>,
    /// It asked for privacy of any kind (RFC 3323): the other party must not learn its media address.
    pub wants_privacy: bool,
}

/// Octets of a User-Agent that are kept.
pub const USER_AGENT_LIMIT: usize = 120;

/// What the engine asks of the media plane. Every request but `Select`, `Reject`, `Cancel`, `Drop` and `Renegotiated`
/// gets one [`MediaReply`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRequest {
    /// Which session; the first offer creates it.
    pub session: SessionId,
    /// Counts the requests of its session; the reply repeats it.
    pub number: u32,
    /// What to do.
    pub action: MediaAction,
}

/// See [`MediaRequest`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaAction {
    /// `from` has offered; the reply holds what `to` is to be offered. A fork repeats it per target.
    Offer {
        /// The exchange.
        exchange: ExchangeId,
        /// Who offered.
        from: Endpoint,
        /// Who is to be offered.
        to: Endpoint,
        /// About `from`.
        from_info: PartyInfo,
        /// About `to`.
        to_info: PartyInfo,
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
        /// About `from`; what its offer's `to_info` could not know yet.
        from_info: PartyInfo,
        /// The answer.
        sdp: Bytes,
    },
    /// This branch has won; the other outgoing parties and branches are gone.
    Select {
        /// The winner.
        endpoint: Endpoint,
    },
    /// `from` refused the offer (488, 491, time-out): back to the last agreed state.
    Reject {
        /// The exchange.
        exchange: ExchangeId,
        /// Who refused.
        from: Endpoint,
    },
    /// The offerer took its offer back.
    Cancel {
        /// The exchange.
        exchange: ExchangeId,
    },
    /// A leg or branch is gone; the session stays.
    Drop {
        /// Which.
        endpoint: Endpoint,
    },
    /// `from` trickles candidates (RFC 8840) for `to`; the reply holds what `to` is told of them.
    Trickle {
        /// Whose.
        from: Endpoint,
        /// Whom for.
        to: Endpoint,
        /// The body of its INFO.
        fragment: Bytes,
    },
    /// What became of one leg of a [`MediaEvent::Renegotiate`]. No reply, but to [`Renegotiated::Offered`].
    Renegotiated {
        /// That of the wish.
        wish: u32,
        /// Which leg.
        endpoint: Endpoint,
        /// What became of it.
        outcome: Renegotiated,
    },
    /// The call is over. Renegotiations that were under way are not told apart.
    Delete,
    /// Statistics so far.
    Query,
}

/// What became of a wish to renegotiate, on one leg. Whatever it is, the call goes on, unless the phone says that it
/// knows of none (481).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Renegotiated {
    /// The phone took the offer; this is its answer, and it has its ACK.
    Accepted(Bytes),
    /// The phone was asked for an offer, and this is it. The one case with a [`MediaReply`]: a description, which
    /// becomes the answer in the ACK. Without one in time, the phone is told what it was told last.
    Offered(Bytes),
    /// The phone refused with this status: what was agreed before stands. 408 if it did not answer at all (after 64·T1:
    /// until then it may still have heard us) or only provisionally (after the deadline); a 2xx if the answer was
    /// missing in it; 491 if an offer of the phone crosses ours, which then follows.
    Refused(u16),
    /// Nothing was sent on this leg: an offer of somebody else is open in it, it is not confirmed yet, or it was
    /// asked too often lately. May be wished for again.
    Superseded,
}

/// The media plane's reply.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaReply {
    /// Of which session.
    pub session: SessionId,
    /// That of the request.
    pub number: u32,
    /// What came of it.
    pub outcome: MediaOutcome,
}

/// See [`MediaReply`].
#[derive(Debug, Clone, PartialEq)]
pub enum MediaOutcome {
    /// To an `Offer` or an `Answer`.
    Description(Result<Described, Refusal>),
    /// To a `Trickle`; `None`: nothing of it is for the other end.
    Fragment(Option<Bytes>),
    /// To a `Delete`.
    Deleted {
        /// What came from each party.
        streams: Vec<StreamStatistics>,
        /// How long no RTP of the call was on the relay.
        direct: Duration,
    },
    /// To a `Query`.
    Statistics(Vec<StreamStatistics>),
}

/// A description for the other side.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// Its bytes.
    pub sdp: Bytes,
    /// What signalling may know of it.
    pub summary: Summary,
}

/// Why the media plane has no description.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The SDP can't be read: 400 to an offer.
    Malformed,
    /// No codec, transport or address family in common; or the answer breaks RFC 3264: 488.
    NotAcceptable,
    /// It points where nothing is sent: 488, with a Warning that says so.
    Unfit(martian::Unfit),
    /// No port is free: 503.
    NoPorts,
    /// The session or endpoint is unknown (already deleted): 500.
    Unknown,
    /// The media plane is overloaded or gone: 503.
    Unavailable,
}

impl Refusal {
    /// What a Warning says of it to its author (RFC 3261 §20.43: 399 is text for a person).
    pub(crate) fn warning(self) -> Option<String> {
        let Refusal::Unfit(unfit) = self else { return None };
        Some(format!("399 sbc \"the session description names {unfit}\""))
    }

    /// The SIP response that an offer refused so deserves.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Malformed => 400,
            Refusal::NotAcceptable | Refusal::Unfit(_) => 488,
            Refusal::NoPorts | Refusal::Unavailable => 503,
            Refusal::Unknown => 500,
        }
    }
}

/// What signalling knows of a description.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// One per m-line, in order.
    pub streams: Vec<StreamSummary>,
}

impl Summary {
    /// Whether no stream is received by its author: the other side is on hold (RFC 6337 §5.3).
    pub fn is_hold(&self) -> bool {
        let mut active = self.streams.iter().filter(|stream| !stream.refused).peekable();
        active.peek().is_some()
            && active.all(|stream| matches!(stream.direction, Direction::SendOnly | Direction::Inactive))
    }
}

/// One m-line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSummary {
    /// `audio`, `video`, `image`, `application`, ...
    pub kind: Arc<str>,
    /// Codec names in order of preference.
    pub codecs: Vec<Arc<str>>,
    /// As its author means it.
    pub direction: Direction,
    /// `RTP/AVP`, `RTP/SAVPF`, `udptl`, ...
    pub profile: Arc<str>,
    /// Port 0.
    pub refused: bool,
}

/// RFC 3264 §5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// Its author only sends.
    SendOnly,
    /// Its author only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

/// What the media plane noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaEvent {
    /// No media for the realm's time limit.
    Inactive {
        /// In which session.
        session: SessionId,
    },
    /// No media for as long, and none expected: it flows elsewhere. Whether its ends are there is to be asked.
    Unheard {
        /// In which session.
        session: SessionId,
    },
    /// It wants its legs to agree on something else: re-INVITEs of ours, all at once. Answered per leg by
    /// [`MediaAction::Renegotiated`]; if one of the legs is not free, none is asked and all are superseded.
    Renegotiate {
        /// In which session.
        session: SessionId,
        /// Names the wish in the answers.
        wish: u32,
        /// Whom to ask, and what to offer it, as it goes out (media owns o= and its version); `None` asks for an offer.
        legs: Vec<(Endpoint, Option<Bytes>)>,
        /// A phone that has answered provisionally gets a CANCEL after so long.
        deadline: Duration,
    },
    /// Something happened to the path of its media: for the record.
    Path {
        /// In which session.
        session: SessionId,
        /// What.
        entry: PathEntry,
    },
    /// No RTP is on the relay from now on, or some is again.
    Metered {
        /// In which session.
        session: SessionId,
        /// How long none was, until now.
        direct: Duration,
        /// Whether none is.
        is_direct: bool,
    },
}

impl MediaEvent {
    /// The session that it is about.
    pub fn session(&self) -> SessionId {
        match self {
            MediaEvent::Inactive { session }
            | MediaEvent::Unheard { session }
            | MediaEvent::Renegotiate { session, .. }
            | MediaEvent::Path { session, .. }
            | MediaEvent::Metered { session, .. } => *session,
        }
    }
}

/// An entry of the timeline of a call's media path, in the media plane's words: signalling only writes it down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEntry {
    /// How long after the answer.
    pub after: Duration,
    /// A state (`anchored`, `probing`, `synchronising`, `direct`, `returning`), or `way`, `stays`, `mapping`, `proof`, `lie`,
    /// `gap`.
    pub what: Arc<str>,
    /// The reason of a state; of the others what it was.
    pub why: Arc<str>,
    /// The party that it is about, if it is about one.
    pub party: Option<u16>,
    /// What was seen, in numbers; empty where nothing more is to say.
    pub evidence: Arc<str>,
}

/// What came from one party in one stream, for the call record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StreamStatistics {
    /// Who sent it.
    pub endpoint: Endpoint,
    /// Its m-line, from 0.
    pub stream: u16,
    /// `audio`, `video`, ...
    pub kind: Arc<str>,
    /// The codec last heard, empty if none was.
    pub codec: Arc<str>,
    /// RTP packets received from it.
    pub packets: u64,
    /// Their octets, UDP payload.
    pub octets: u64,
    /// Packets that never came (RFC 3550 A.3).
    pub lost: u64,
    /// Dropped as a stranger's.
    pub strangers: u64,
    /// Interarrival jitter at the end, ms.
    pub jitter_ms: f32,
    /// Round trip to it, ms, if RTCP told.
    pub rtt_ms: Option<f32>,
    /// Mean opinion score by the E-model, 1.0 to 4.5, of `whole`, where the codec is known.
    pub mos: Option<f32>,
    /// Loss on the whole way to its receiver; `None`: nobody knows it.
    #[serde(default)]
    pub whole: Option<WholeWay>,
    /// Telephone events heard at the relay; those of direct time are not seen.
    pub dtmf: u32,
    /// What its receiver reported of it while it was not on the relay; `None`: it always was.
    #[serde(default)]
    pub direct: Option<DirectStatistics>,
}

/// What became of a stream's packets, on the relay and off it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WholeWay {
    /// Packets that are accounted for.
    pub packets: u64,
    /// Of them, lost.
    pub lost: u64,
    /// Of them, those of which nobody can tell, and which are not among the lost.
    #[serde(default)]
    pub unknown: u64,
    /// By its receiver's reports, else by what came to the relay.
    pub is_reported: bool,
}

/// A stream off the relay, by its receiver's reports; `None`: none has told.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DirectStatistics {
    /// Packets that the reports account for.
    pub packets: Option<u64>,
    /// Of them, lost.
    pub lost: Option<u64>,
    /// Greatest interarrival jitter, ms.
    pub jitter_ms: Option<f32>,
}
