//! The endpoint side of CRUSH, Connection Reliability Using Stream Handoff (docs/crush.md): a call runs through the relay from
//! its first packet; meanwhile its two endpoints look for a direct path, synchronise both, hand the media over, and
//! come back the moment the direct path fails.
//!
//! An [`agent::Agent`] owns no socket, clock or randomness. It is told what arrives and what time it is
//! ([`agent::Input`]), and says what to send, what to open and what to show ([`agent::Output`]). Seams:
//!
//! - **SDP**: [`agent::Agent::support_line`] goes into our descriptions, those of the SBC come in as
//!   [`agent::Input::Description`]; bodies of INFO as [`agent::Output::Trickle`] and [`agent::Input::Trickle`].
//! - **Datagrams**: [`agent::Output::Transmit`] names one of the application's sockets and a remote address.
//! - **RTP**: out as [`agent::Input::Media`]; in by [`agent::Agent::play`] (audio, from one jitter buffer for both paths) or
//!   [`agent::Output::Media`] (video). SRTP is opaque: only headers are read.
//!
//! From bytes to decisions: the formats are those of `media_wire`; `gather`, `find` and `sync` know what the network is
//! like; `handoff` and [`playout`] move and play media; [`agent`] brings them together.

// What strangers send is read here: no index and no sum of theirs may end the program.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod agent;
mod count;
mod find;
mod gather;
mod handoff;
pub mod playout;
mod random;
mod sync;
mod unwrapped;
