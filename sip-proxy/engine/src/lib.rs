//! SIP as state machines: transactions (RFC 3261 §17, RFC 6026), dialogs, the back-to-back user agent's call,
//! registrar, digest, routing questions.
//!
//! Nothing here opens a socket, reads a clock or draws a random number. A shell feeds [`Engine::handle`] with
//! [`io::Input`]s and the time, carries out what [`Engine::poll_output`] returns, and comes back at
//! [`Engine::poll_timeout`]. So whole calls run in virtual time, over simulated networks, thousands a second.
//!
//! Every figure and every byte in here may be a stranger's: nothing is indexed, and no sum overflows.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod admission;
mod aor;
pub mod binding;
pub mod buckets;
pub mod call;
pub mod config;
mod core;
pub mod dialog;
mod dialogs;
pub mod digest;
pub mod door;
mod engine;
pub mod event;
mod farewells;
pub mod flow;
mod guards;
mod guesses;
mod hop;
pub mod ids;
pub mod io;
mod keys;
pub mod negotiation;
mod octets;
pub mod passing;
mod peer;
pub mod pickup;
mod proven;
pub mod question;
mod refusal;
pub mod registrar;
mod replaces;
mod session_timer;
pub mod slot;
mod slots;
mod spirals;
pub mod state;
mod strangers;
pub mod time;
pub mod timer;
mod times;
pub mod transaction;
mod translation;
mod trunks;
pub mod ua;
mod unfit;
mod watchers;
mod withheld;

pub use engine::Engine;
