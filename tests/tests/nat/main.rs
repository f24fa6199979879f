//! Phones behind a NAT whose router forgets a silent UDP flow: reached after idle time in both registrar modes, by CRLF and
//! by OPTIONS; not reached without keepalives, or the tests would show nothing; followed when the router rebinds.
//!
//! Five idle minutes at a router that forgets after 30 s are `make test-phones`; 30 s at one that forgets after 6 s stand
//! for them in `make test`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a laboratory that fails ends its test")]

mod idle;
mod rebind;
