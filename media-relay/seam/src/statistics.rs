//! What the media plane counted, for the call record.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::Endpoint;

/// What came from one party in one stream.
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
    pub whole: Option<Loss>,
    /// Telephone events heard at the relay; those of direct time are not seen.
    pub dtmf: u32,
    /// What its receiver reported of it while it was not on the relay; `None`: it always was, as far as is known.
    #[serde(default)]
    pub direct: Option<DirectStatistics>,
}

/// Loss on the whole way of a stream, on the relay and off it, and who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Packets that are accounted for.
    pub packets: u64,
    /// Of them, lost.
    pub lost: u64,
    /// Of them, those of which nobody can tell, and which are not among the lost.
    #[serde(default)]
    pub unknown: u64,
    /// By the reports of its receiver, else by what came to the relay.
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
