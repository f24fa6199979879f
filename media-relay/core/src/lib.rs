//! The media plane without sockets: sessions, SDP editing, latching (RFC 7362), RTP and RTCP statistics.
//!
//! A [`Worker`] owns sessions. It is told what signalling agreed ([`seam::Action`]) and what arrived on which
//! socket ([`Worker::packet`]); it says where each packet goes. Sockets come from the shell by way of [`worker::Ports`].

// What strangers send is read here: no index and no sum of theirs may end the program.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod account;
mod clock;
pub mod consumers;
mod control;
mod expected;
pub mod flow;
mod forward;
pub mod handoff;
mod held;
mod ice;
pub mod latch;
mod leftover;
mod legs;
mod metering;
mod motion;
mod moves;
#[allow(clippy::indexing_slicing, reason = "pairs, indexed by a `Side`")]
mod moving;
mod negotiation;
mod open_ports;
pub mod ours;
mod packet;
#[allow(clippy::indexing_slicing, reason = "pairs, indexed by a `Side`")]
pub mod path;
pub mod policy;
mod ports;
mod reported;
mod sent;
mod settings;
pub mod side;
pub mod state;
pub mod statistics;
mod stream;
mod transport;
pub mod worker;

pub use expected::Expected;
pub use side::Track;
pub use worker::Worker;
