//! The program: configuration, policy, records and HTTP round the signalling and the media plane.
//!
//! All that touches PostgreSQL or HTTP is here, and here alone signalling and media meet ([`planes`]).

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod activity;
mod blocking;
pub mod calls;
pub mod config;
pub mod discovery;
pub mod doctor;
pub mod http;
pub mod journal;
pub mod manager;
pub mod memory;
pub mod metrics;
pub mod planes;
pub mod policy;
pub mod records;
pub mod serve;
pub mod ship;
pub mod store;
pub mod timeline;
pub mod watchdog;
