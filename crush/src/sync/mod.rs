//! What both paths are like, measured at the receiver (docs/crush.md §6 and §8.2).

mod comparison;
mod meter;
mod score;

pub(crate) use comparison::Comparison;
pub(crate) use meter::Meter;
pub(crate) use score::rating;
