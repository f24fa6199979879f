//! Two agents, the relay and the discovery service between them, and NATs, in virtual time.
#![allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "each test program uses a part")]
#![allow(clippy::unwrap_used, reason = "a test may")]

pub mod gaps;
mod options;
mod phone;
mod relay;
mod world;

pub use options::{Options, Place};
pub use phone::{Heard, Phone, Talk, said, ulaw, unlaw};
pub use world::{OTHER, OTHER_SOCKET, World, forged_address};
