//! The SBC's part of CRUSH (docs/crush.md) on media ports: what moves media, what never does, and what is known of the path.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod candidates;
mod lines;
mod path;
mod policy;
mod requests;
mod taken;
mod world;
