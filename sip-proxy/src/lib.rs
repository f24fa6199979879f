//! The signalling shell: sockets, TLS, DNS and shards around [`sip_engine`].
//!
//! Each shard is one thread with one [`sip_engine::Engine`]. The reader of a datagram socket, or the owner of a
//! connection, finds the home of a message by its slot and hands it over, at most one hop; sends go back through the
//! connection's owner. Nothing is shared between shards but counters.

// Strangers' octets and times: nothing of them panics.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod address_list;
mod batch;
pub mod clock;
mod count;
pub mod counters;
mod datagrams;
pub mod dns;
pub mod filter;
mod fragments;
mod gate;
mod held;
mod host;
mod life;
mod link;
mod overload;
pub mod plane;
mod scanner;
mod settings;
mod shard;
mod spread;
mod stream;
mod stun;
pub mod tls;
pub mod traffic;
mod udp;

pub use host::{Host, Promise};
pub use link::ShardHandle;
pub use plane::{SipPlane, StartError};
pub use settings::{ListenerSettings, PlaneSettings};
pub use spread::shard_of;
