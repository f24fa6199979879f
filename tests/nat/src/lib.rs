//! A NAT as RFC 4787 describes them, as a state machine: it is told of datagrams and of the time, and says where they
//! go. It owns no socket, clock or randomness, so that thousands of seeded calls a second can run through it.
//!
//! The same [`Nat`] serves twice: in the virtual [`Network`], and behind a TUN device in a router's network namespace
//! (the program `nat`), where phones that know nothing of it are its hosts. [`nft`] holds rule sets with which the
//! kernel plays some of the kinds itself.
//!
//! ```
//! use std::time::Duration;
//! use nat_lab::{Event, Impairment, Kind, Link, Network, PUBLIC};
//!
//! let mut network = Network::new(1);
//! let (server, client) = ("203.0.113.1:3478".parse()?, "192.168.1.10:5004".parse()?);
//! network.add_host(PUBLIC, &["203.0.113.1".parse()?]);
//! let router = network.add_nat(PUBLIC, Kind::SymmetricSequential.into(), &["198.51.100.7".parse()?]);
//! let phone = network.add_host(router.inside(), &["192.168.1.10".parse()?]);
//! network.set_link(router, Link::both(Impairment { delay: Duration::from_millis(20), ..Impairment::NONE }));
//!
//! network.send(phone, client, server, "hello".into())?;
//! let Some(Event::Datagram { source, payload, .. }) = network.next() else { panic!("it arrives") };
//! assert_eq!(source.ip().to_string(), "198.51.100.7");
//! assert_eq!(payload, "hello");
//! assert_eq!(network.now(), Duration::from_millis(20));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod allocation;
mod behaviour;
mod counters;
mod impairment;
mod limiter;
mod nat;
mod network;
pub mod nft;
mod random;
mod table;
mod topology;

pub use behaviour::{Behaviour, Dependence, Kind, Lifetime, Pooling, Ports, UnknownKind};
pub use counters::{Counters, Dropped};
pub use impairment::{Impairment, Pipe};
pub use limiter::{FlowLimit, Penalty};
pub use nat::{Direction, Nat, Passage};
pub use network::{End, Event, Link, Lost, Network, Unreachable};
pub use random::Random;
pub use table::Mapping;
pub use topology::{HostId, NatId, PUBLIC, SegmentId};
