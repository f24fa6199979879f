//! ICE (RFC 8445) on a leg: we are a full agent whose only candidate is the relay's port.
//!
//! The port is public, so the phone's checks always arrive; ours are only those that RFC 8445 §7.3.1.4 has us send back to where
//! a check came from. Media does not wait for any of it. How two phones check each other past the relay is in
//! `exchange.rs`, what descriptions say of it in `media_wire::sdp::ice`.

mod agent;
mod checks;
#[allow(clippy::indexing_slicing, reason = "pairs, indexed by a `Side`")]
mod exchange;
mod negotiation;

pub(crate) use agent::{Agent, Seed};
pub(crate) use checks::{Checked, Checks};
pub(crate) use exchange::{Acquaintance, Introduction, Next, Outlook};
pub(crate) use negotiation::Passage;
