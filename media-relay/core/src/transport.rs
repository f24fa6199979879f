//! How a leg's media is carried: plain, or under keys that only the ends have; whoever ends SRTP for a leg itself (SDES, DTLS) has a place here.

use serde::{Deserialize, Serialize};

/// What the m-line agreed on carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Carried {
    /// RTP with readable RTCP.
    Clear,
    /// SRTP: only the header of RTP and the fact that RTCP came are for us (RFC 3711 §3.4: SRTCP is encrypted after its first
    /// eight octets).
    Secure,
    /// Another protocol, as UDPTL (T.38): datagrams on the even port.
    Other,
}

/// Whether RTCP goes with RTP (RFC 5761).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mux {
    /// It has a port of its own.
    #[default]
    No,
    /// It may come to our RTP port, and goes to a port of its own.
    May,
    /// It goes to its RTP port too.
    Yes,
}

impl Mux {
    /// Its endpoint says that it may, and both have agreed that it does.
    pub(crate) fn of(may: bool, does: bool) -> Self {
        match (may, does) {
            (true, true) => Self::Yes,
            (true, false) => Self::May,
            (false, _) => Self::No,
        }
    }
}
