//! Two agents, the relay and the discovery service between them, and NATs, in virtual time.

pub mod gaps;
mod options;
mod phone;
mod relay;
mod world;

pub use options::{CONE, COUNTING, MS, Options, Place, RANDOM};
pub use phone::{Heard, Phone, Talk, said, ulaw, unlaw};
pub use world::{OTHER, OTHER_SOCKET, World, forged_address};
