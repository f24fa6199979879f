//! Finding a pair of addresses that works both ways (docs/crush.md §5).

mod checklist;
mod diagonal;
mod finder;
mod holes;
mod pace;
mod pair;
mod plan;
mod reopen;
mod shots;
mod sweep;

pub(crate) use finder::{Answer, Finder, Finding};
pub use plan::Part;
