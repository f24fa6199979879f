//! The plane over real sockets on loopback: every test runs a [`SipPlane`](sip_proxy::SipPlane) of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test may panic, its helpers too, and says what it skips"
)]

mod node;
mod peer;

mod datagrams;
mod flood;
mod junk;
mod names;
mod shards;
mod streams;
mod tls;
