//! The media plane's shell: worker threads, batched socket I/O, port allocation round [`media_core`].
//!
//! A session lives on one worker. Commands reach it by a queue and an eventfd; replies and events go back by a
//! callback. On the way of a packet there is no lock, no allocation and no log line.

// It reads what strangers send: nothing of that may end a worker.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod address;
mod batch;
mod counters;
mod event;
mod exit;
mod header;
mod poll;
mod ports;
mod probe;
mod reading;
mod realm;
mod relay;
mod reserve;
mod shared;
mod sieve;
mod socket;
mod steering;
mod thread;

pub use counters::{Snapshot, WorkerCounters};
pub use event::Event;
pub use probe::steering_works;
pub use realm::{Address, RealmMedia};
pub use relay::{Relay, RelaySettings, StartError};
pub use steering::Unavailable;
