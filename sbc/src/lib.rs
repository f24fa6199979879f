//! The program: configuration, policy, records and HTTP round the signalling and the media plane.
//!
//! All that touches PostgreSQL or HTTP is here, and here alone signalling and media meet ([`host`]). A folder is a room: rooms know the
//! host, the store and the configuration, never each other; [`app`] names them all (`tests/rooms.rs` sees to it).

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod app;
mod blocking;
pub mod calls;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod host;
pub mod http;
pub mod metrics;
pub mod policy;
pub mod records;
pub mod store;
