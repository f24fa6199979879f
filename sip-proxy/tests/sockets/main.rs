//! The plane over real sockets on loopback: every test runs a [`SipPlane`](sip_proxy::SipPlane) of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic, its helpers too"
)]

mod node;
mod peer;

mod datagrams;
mod names;
mod streams;
mod tls;
