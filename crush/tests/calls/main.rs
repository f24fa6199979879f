//! Calls of two agents over NATs, with the relay and the discovery service between them, in virtual time.
#![allow(unreachable_pub, missing_docs, reason = "what the tests of one program share")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may"
)]

mod careful;
mod each_message_lost;
mod families;
mod forgery;
mod handoff_quality;
mod hostile;
mod nat_matrix;
mod nat_pairs;
mod policy;
mod requests;
mod returning;
mod secured;
mod silence;
mod support;
