//! What the crate promises, shown from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(clippy::disallowed_methods, reason = "the seed to play again comes from the environment")]

mod bounds;
mod findings;
mod portability;
mod reference;
mod times;
mod world;
