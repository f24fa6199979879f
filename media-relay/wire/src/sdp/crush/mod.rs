//! CRUSH's attributes of descriptions, and the fragments that trickle (docs/crush.md §2 and §4).

mod candidate;
mod excess;
mod fragment;
mod nat;
mod support;

pub use candidate::{Candidate, CandidateKind, DISCOVERED, HOST, MAPPING, priority, reflexive_priority};
pub use excess::Excess;
pub use fragment::{CANDIDATES, Fragment};
pub use nat::{NatBehaviour, NatKind, PortPattern};
pub use support::{Policy, Support, Temper};
