//! What every test begins with. Each thing that the cores ask of the world is here once: chance that can be repeated, time that
//! is told, ports that are numbers, a policy of closures, settings of two realms, places behind NATs, telephones. A test says
//! in what it differs.
//!
//! Nothing here has sockets, clocks or threads, and no crate but tests uses it. Each core takes the features that it plays with:
//! `media`, `signalling`, `crush`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[cfg(feature = "media")]
pub mod anchor;
pub mod clock;
pub mod dice;
#[cfg(feature = "signalling")]
pub mod echo;
#[cfg(feature = "media")]
pub mod ground;
pub mod handover;
pub mod moves;
#[cfg(all(feature = "media", feature = "signalling"))]
pub mod node;
#[cfg(feature = "media")]
pub mod phone;
#[cfg(feature = "signalling")]
pub mod policy;
#[cfg(feature = "media")]
pub mod ports;
#[cfg(feature = "signalling")]
pub mod records;
pub mod settings;
#[cfg(feature = "signalling")]
pub mod stranger;
pub mod truth;

pub use dice::Dice;
