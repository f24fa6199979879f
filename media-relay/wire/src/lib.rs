//! The formats of media, beside `sip-wire`: what stands in a packet or a description, and nothing of what follows from it.
//!
//! | module | formats |
//! | --- | --- |
//! | [`demux`] | what a datagram on a media port is (RFC 7983) |
//! | [`rtp`], [`rtcp`] | RFC 3550; the headers that SRTP leaves in the clear |
//! | [`stun`] | RFC 8489, with what ICE (RFC 8445) and discovery (RFC 5780) add |
//! | [`handoff`] | the attributes of HANDOFF (docs/crush.md §7.1) |
//! | [`sdp`] | descriptions (RFC 8866), edited line by line; their lines of ICE and of CRUSH |
//!
//! The relay, the endpoint's agent, SRTP, the phone and the discovery service all read with this: one reader of each format.

// What strangers send is read here: no index and no sum of theirs may end the program.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]
#![forbid(unsafe_code)]

pub mod demux;
pub mod handoff;
pub mod rtcp;
pub mod rtp;
pub mod sdp;
pub mod stun;
