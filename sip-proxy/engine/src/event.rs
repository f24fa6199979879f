//! What a call leaves behind: events for the journal and the call record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use seam::path::PathRecord;
use seam::{SessionId, StreamStatistics};
use serde::{Deserialize, Serialize};

/// One event of one call. `sequence` counts from 0 in its call: with `call` it is the key that makes writing it twice
/// harmless.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallEvent {
    /// The call's id in records (a UUID's bits).
    pub call: u128,
    /// From 0.
    pub sequence: u32,
    /// Wall time, since the Unix epoch.
    pub wall: Duration,
    /// Monotonic time, comparable within one life of the process.
    pub monotonic: Duration,
    /// What happened.
    pub what: CallEventKind,
}

/// See [`CallEvent`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum CallEventKind {
    /// An INVITE was admitted.
    Started(Box<CallStarted>),
    /// A 2xx to it has left for the caller.
    Answered {
        /// The realm that answered.
        realm: Arc<str>,
        /// Over which trunk, if one.
        trunk: Option<Arc<str>>,
        /// The address that answered.
        destination: SocketAddr,
        /// Who that is: an AOR, or the number and host that the trunk was sent. After a transfer, a forwarding or a redirection it is
        /// not who was dialled.
        #[serde(default)]
        reached: Arc<str>,
        /// The Request-URI that it got: of a phone its Contact.
        #[serde(default)]
        uri: Arc<str>,
    },
    /// Hold, resume, transfer, refresh: for the timeline.
    Changed(CallChange),
    /// Its media left the relay, came back, or was kept there.
    Path(PathRecord),
    /// The media plane has measured how long its media was off the relay. For what closes the call after a crash: not for
    /// operators, who have the timeline.
    Metered {
        /// Until now, without any RTP on the relay.
        direct: Duration,
        /// Whether it goes on so.
        is_direct: bool,
    },
    /// It is over. The last event of a call, always written, exactly once.
    Ended(Box<CallEnded>),
}

/// Facts known at the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallStarted {
    /// Its media session.
    pub session: SessionId,
    /// The realm of the caller.
    pub realm: Arc<str>,
    /// Where the INVITE came from.
    pub source: SocketAddr,
    /// Transport token.
    pub transport: Arc<str>,
    /// Who it was proven to be: AOR, trunk name, or empty.
    pub caller: Arc<str>,
    /// The From URI, as shown.
    pub from: Arc<str>,
    /// The dialled Request-URI.
    pub request_uri: Arc<str>,
    /// The caller's Call-ID.
    pub call_id: Arc<str>,
    /// The caller's User-Agent.
    pub user_agent: Arc<str>,
}

/// What changed in mid-call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallChange {
    /// `party` put the other on hold.
    Hold {
        /// 0 is the caller.
        party: u16,
    },
    /// The hold ended.
    Resume {
        /// Who had held.
        party: u16,
    },
    /// The agreed media changed (codec, streams).
    Media,
    /// A target sent the call elsewhere (3xx): from here on it is a call of that party.
    Diverted {
        /// AOR or trunk of who did.
        by: Arc<str>,
        /// The user or number that it named.
        to: Arc<str>,
    },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallEnded {
    /// What ended it.
    pub cause: EndCause,
    /// Who ended it.
    pub side: EndedBy,
    /// The final SIP status of the INVITE; 200 for an answered call.
    pub status: u16,
    /// From INVITE to 2xx, if it came.
    pub answered_after: Option<Duration>,
    /// From INVITE to the end.
    pub total: Duration,
    /// From 2xx to the end; zero if never answered.
    pub talked: Duration,
    /// How much of `talked` no RTP was on the relay; for the rest some was.
    #[serde(default)]
    pub direct: Duration,
    /// What the media plane counted.
    pub media: Vec<StreamStatistics>,
    /// Whom it went to, in the order in which they were tried.
    #[serde(default)]
    pub legs: Vec<CallLeg>,
}

/// One target of a call: a branch of its fork, the next of its route, or where a redirection led. All times since the INVITE.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLeg {
    /// As media numbers it: the caller is 0, the first target 1.
    pub party: u16,
    /// The realm that it is in.
    pub realm: Arc<str>,
    /// Over which trunk, if one.
    pub trunk: Option<Arc<str>>,
    /// The address that was asked last; `None`: there was none.
    pub destination: Option<SocketAddr>,
    /// Who that is, as in [`CallEventKind::Answered`].
    pub reached: Arc<str>,
    /// The Request-URI that it got.
    pub uri: Arc<str>,
    /// AOR or trunk of who had sent the call there (3xx).
    pub sent_by: Option<Arc<str>>,
    /// When it was first asked; `None`: never, since its name has no address or its request could not be made.
    pub asked: Option<Duration>,
    /// When its first provisional response came, other than 100.
    pub rang: Option<Duration>,
    /// Its final status; `None`: none had come when the call ended.
    pub status: Option<u16>,
}

impl CallEnded {
    /// Of a call of which nothing else is known.
    pub fn new(cause: EndCause, side: EndedBy, status: u16) -> Self {
        Self {
            cause,
            side,
            status,
            answered_after: None,
            total: Duration::ZERO,
            talked: Duration::ZERO,
            direct: Duration::ZERO,
            media: Vec::new(),
            legs: Vec::new(),
        }
    }
}

/// What ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndCause {
    /// BYE after an answer.
    Bye,
    /// CANCEL before it.
    Cancelled,
    /// 486, 600.
    Busy,
    /// 403, 603, 607 and the like, from the far side.
    Declined,
    /// 404, 410, 484, 604.
    NotFound,
    /// 408, or nothing at all.
    NoAnswer,
    /// 488, 606, 415, or offer/answer failed here.
    MediaRefused,
    /// Other 4xx to 6xx from the far side.
    Failed,
    /// Policy or authentication refused it.
    Refused,
    /// The address is a subscriber's, and no phone has registered for it.
    NotRegistered,
    /// The only phone of the address that was dialled is the caller's own.
    OwnPhone,
    /// No target could be reached.
    Unreachable,
    /// No ACK came for the 2xx.
    NoAck,
    /// The session timer ran out (RFC 4028).
    SessionExpired,
    /// It has lasted as long as a call may.
    TooLong,
    /// No media for too long.
    MediaTimeout,
    /// Ended by an operator.
    Operator,
    /// The SBC shut down.
    Shutdown,
    /// The SBC died; written after its restart.
    Crash,
}

impl EndCause {
    /// As records and metrics name it.
    pub fn word(self) -> &'static str {
        match self {
            EndCause::Bye => "bye",
            EndCause::Cancelled => "cancelled",
            EndCause::Busy => "busy",
            EndCause::Declined => "declined",
            EndCause::NotFound => "not_found",
            EndCause::NoAnswer => "no_answer",
            EndCause::MediaRefused => "media_refused",
            EndCause::Failed => "failed",
            EndCause::Refused => "refused",
            EndCause::NotRegistered => "not_registered",
            EndCause::OwnPhone => "own_phone",
            EndCause::Unreachable => "unreachable",
            EndCause::NoAck => "no_ack",
            EndCause::SessionExpired => "session_expired",
            EndCause::TooLong => "too_long",
            EndCause::MediaTimeout => "media_timeout",
            EndCause::Operator => "operator",
            EndCause::Shutdown => "shutdown",
            EndCause::Crash => "crash",
        }
    }
}

/// Who ended a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndedBy {
    /// The calling party.
    Caller,
    /// The called party.
    Callee,
    /// Ourselves.
    Sbc,
}

impl EndedBy {
    /// As records name it.
    pub fn word(self) -> &'static str {
        match self {
            EndedBy::Caller => "caller",
            EndedBy::Callee => "callee",
            EndedBy::Sbc => "sbc",
        }
    }
}
