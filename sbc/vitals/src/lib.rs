//! A dead part is a dead process, and one that says so.
//!
//! A process whose part has died looks well from outside and is not: its sockets are open, its pages answer, and calls
//! get nothing. So every thread and every long-lived task is a [`Part`]: it beats while it lives, idle or not, and
//! whoever carries it looks at how it ended. What ends though it should not, and what goes round without a beat, ends
//! the process with a status of its own, so that a service manager has a whole one up again at once.
//!
//! The rule for who starts a thread or a task: it goes through [`Part::run`] or [`Part::task`], or [`belonging`] if it may
//! end, or its handle is awaited by one that does; no handle is dropped. What reads one message of a stranger, and can leave nothing half
//! done, goes through [`contained`]: a mistake in it costs that message.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod fault;
mod part;
mod reading;
mod seen;
mod task;
mod thread;
mod watch;

pub use fault::stumble;
pub use part::{Death, How, Part, Pulse, Vitals, beat, belonging, round};
pub use reading::{Panicked, contained, tell_panics};
pub use task::{Belonging, Task};
pub use watch::Watch;
