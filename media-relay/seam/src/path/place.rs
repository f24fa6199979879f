//! Where two parties are to each other.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::words::words;

/// How a party's NAT maps one of its ports (RFC 4787 §4.1), as observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mapping {
    /// The address it signals is the one it sends from.
    None,
    /// The same address and port towards two of our addresses.
    EndpointIndependent,
    /// Another port towards our second address, by this much.
    Dependent {
        /// Second port less first.
        step: i32,
    },
    /// Behind a NAT that was not looked at yet.
    Unknown,
}

words! {
    /// Why media stays on the relay.
    pub enum Stay {
        /// Policy anchors it.
        Policy = "policy",
        /// A party asked for privacy: the other must not learn its address.
        Privacy = "privacy",
        /// One end speaks IPv4, the other IPv6.
        Family = "family",
        /// Where a party was observed is an address of ours, or one that nobody elsewhere may be sent to.
        Unfit = "unfit_address",
        /// One is in a local network, the other elsewhere, and nothing says that one is routed to the other.
        Unroutable = "unroutable",
        /// A NAT that maps per destination: the far phone's packets would not find the new port.
        DependentMapping = "dependent_mapping",
        /// Both behind one address, and nothing says that they are in one LAN.
        SharedAddress = "shared_address",
        /// A NAT's mapping can't be learnt: no second media address, or the phone refused the move.
        UnknownMapping = "unknown_mapping",
        /// No reports reach the relay, so that nothing could be proven.
        NoReports = "no_reports",
        /// Both spoke in its trials, and reports have told nothing of them, neither for the path nor against it: each costs a moment of
        /// silence where it does not work.
        Inconclusive = "inconclusive",
        /// It failed for such a pair before.
        Remembered = "remembered",
        /// The phone refused to be moved in this call.
        Refused = "refused",
        /// The phone agreed to be moved in this call, and went on sending to the relay.
        Unmoved = "unmoved",
        /// A phone that speaks ICE with us would not go where an offer without ICE says.
        Ice = "ice",
        /// This call's direct path failed too often.
        Failed = "failed",
        /// An m-line carries something else than RTP, as a fax (T.38), which no report could prove.
        NotRtp = "not_rtp",
        /// An m-line is SRTP: its reports are encrypted, and keys may be one leg's own.
        Srtp = "srtp",
        /// RTP and RTCP share a port, so that no report comes to the relay once media does not.
        Muxed = "rtcp_mux",
        /// The halves of one call have not agreed on the same m-lines.
        Unlike = "unlike_halves",
        /// No m-line is in use.
        NoMedia = "no_media",
    }
}

/// A way to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Each to where the other was observed.
    Observed([SocketAddr; 2]),
    /// Each to the other's local address.
    Local([SocketAddr; 2]),
    /// First these parties' NATs must be learnt.
    Learn([bool; 2]),
}
