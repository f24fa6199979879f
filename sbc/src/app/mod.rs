//! The program's life. Here, and here alone, all rooms are named.

mod drain;
mod follower;
pub mod manager;
pub mod memory;
mod run;
mod signals;
pub mod sources;
pub mod watchdog;

pub use run::{raise_file_limit, run};
