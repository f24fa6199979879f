//! From packets of both paths to a steady stream of frames (docs/crush.md §6, "Playout").

mod buffer;
mod scale;

pub use buffer::{Adjustment, Cause, Playout, Step};
pub use scale::scale;
