//! The program and its rooms with a real PostgreSQL, each test with one of its own.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs,
    reason = "a test that fails ends"
)]

mod bindings;
mod call_policy;
mod cluster;
mod database;
mod drafts;
mod faults;
mod months;
mod node;
mod opening;
mod outcomes;
mod program;
mod records;
mod roles;
mod snapshot;
mod survival;
