//! SRTP and SRTCP (RFC 3711) with AES-CM and HMAC-SHA1, and `a=crypto` (RFC 4568), which carries the keys.
//!
//! Packets are changed in place, and nothing is allocated for one. What is received is decrypted only once it is known to be authentic
//! and new, so an attacker moves no counter. A packet may come once by each of several paths: how far a source has counted is known
//! once, what came already is known by path.
//!
//! ```text
//!   sdes::Crypto ── a=crypto ──► Master ──┬─► Outbound: protect_rtp, protect_rtcp
//!                                         └─► Inbound:  unprotect_rtp, unprotect_rtcp
//! ```

// What strangers send is read here: no index and no sum of theirs may end the program.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

mod inbound;
mod keys;
mod outbound;
mod packet;
pub mod sdes;
mod source;

pub use inbound::Inbound;
pub use keys::{Master, Suite};
pub use outbound::Outbound;

/// Octets that protection adds to a packet, at most: the index of SRTCP and a tag of 80 bits.
pub const MOST_OVERHEAD: usize = 14;

/// Why a packet was not protected, or not accepted. It has not been changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is too short for the headers that it promises, or of another version.
    #[error("this is no RTP or RTCP packet")]
    Malformed,
    /// The buffer has less than [`MOST_OVERHEAD`] octets behind the packet.
    #[error("the buffer has no room for the authentication tag")]
    NoRoom,
    /// Its tag is wrong: forged, changed on its way, or protected with another key.
    #[error("the authentication tag is wrong")]
    NotAuthentic,
    /// It came before by this path, or is too old to tell. Of a sender: its sequence number was used already, and encrypting another
    /// packet under it would show both (RFC 3711 §9.1).
    #[error("this packet came before")]
    Replayed,
    /// 2^48 packets, or 2^31 reports: the key must not be used any more (RFC 3711 §9.2).
    #[error("the key has protected as many packets as it may")]
    KeyExhausted,
    /// More synchronisation sources than anybody has.
    #[error("too many sources use this key")]
    TooManySources,
}
