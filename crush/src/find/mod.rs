//! Finding a pair of addresses that works both ways (docs/crush.md §5).

mod budget;
mod checklist;
mod diagonal;
mod finder;
mod pace;
mod pair;
mod plan;
mod reach;
mod reopen;
mod requests;
mod shots;
mod sockets;
mod sweep;
mod tempo;

pub use budget::FlowBudget;
pub(crate) use finder::{Answer, Finder, Finding};
pub(crate) use pace::{Flow, Pace};
pub use plan::Part;
pub(crate) use requests::Check;
