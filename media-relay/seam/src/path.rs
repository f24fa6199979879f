//! The path of an answered call's media: where it is, why, and what was seen.
//!
//! All of it stays typed until somebody reads it: the journal holds these values, the database and metrics their words.

mod entry;
mod evidence;
mod place;
mod recorded;
mod state;

pub use entry::{Entry, IceStep, PathEntry};
pub use evidence::{Evidence, Gap, Lie, TrialOutcome};
pub use place::{Mapping, Stay, Way};
pub use recorded::{PathRecord, PathWords};
pub use state::{Constraint, HandoffReason, PathState, Reason};
