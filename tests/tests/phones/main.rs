//! Real phones in two networks, the SBC dual-homed between them. Each scenario ends with the search for what one side,
//! or one phone, must not see of another (`Stage::close`).
//!
//! The matrices, ignored here, are `make test-phones`; a few of their cells stand for them in `make test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

mod cast;
mod families;
mod forwarding;
mod life;
mod moving;
mod refusals;
mod registrations;
mod talk;
mod transfers;
