//! Session descriptions, as far as signalling, hold and policy ever know them.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A description for the other side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Its bytes.
    pub sdp: Bytes,
    /// The handed-in one, in brief.
    pub summary: Summary,
}

/// Why there is no description.
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
    /// The session, exchange or endpoint is unknown (already deleted): 500.
    Unknown,
    /// The media plane is overloaded or gone: 503.
    Unavailable,
}

impl Refusal {
    /// What a Warning says of it to its author (RFC 3261 §20.43: 399 is text for a person).
    pub fn warning(self) -> Option<String> {
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
