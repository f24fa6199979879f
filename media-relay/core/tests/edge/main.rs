//! The media plane against peers and strangers that do what they should not: what reaches whom, and where nothing goes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod descriptions;
mod hostile;
mod media_ports;
mod taken;
mod taps;
mod world;
