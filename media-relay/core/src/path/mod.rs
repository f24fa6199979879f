//! The media path of an answered call: on the relay, released to a direct path, and back.
//!
//! [`Release`] is the machine for two ordinary phones. A plain phone sends to one place, so the move is the test: it is
//! made where [`place`] finds it likely to work, at a moment when the far phone's next report is due, and [`proof`] reads
//! from the reports, which stay at the relay (`a=rtcp`, RFC 3605), whether packets arrive. What was not confirmed comes
//! back. Everything that happens stands in the [`timeline`].

mod direction;
pub mod phone;
pub mod place;
pub mod proof;
mod release;
pub mod timeline;

pub use direction::{Sight, Tally};
pub use release::{Constraint, Moved, Output, Release, Settings};
