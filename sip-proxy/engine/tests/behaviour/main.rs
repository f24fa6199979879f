//! Behaviour of the engine that takes more than one message to see, in virtual time and between user agents.

mod identity;
mod line;
mod sessions;
mod trunks;
