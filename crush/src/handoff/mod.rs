//! Moving media between the paths: what a sender does, what a receiver asks for, when a path counts as lost
//! (docs/crush.md §7 and §8).

mod liveness;
mod outgoing;
mod replay;
mod request;

pub(crate) use liveness::Liveness;
pub use outgoing::Marks;
pub(crate) use outgoing::Outgoing;
pub(crate) use replay::Window;
pub(crate) use request::{Outstanding, Purpose, Retry};
