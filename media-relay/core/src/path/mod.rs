//! The media path of an answered call: on the relay, released to a direct path, and back.
//!
//! [`Release`] is the machine for two ordinary phones. A plain phone sends to one place, so the move is the test: it is
//! made where [`place`] finds it likely to work, as a [`trial`] of less than a second, and reports, which stay at the relay
//! (`a=rtcp`, RFC 3605), say whether its packets have arrived. Only what they proved is moved for good; [`proof`] reads from
//! them whether packets go on arriving. What fails comes back. [`end_to_end`] is the machine for two phones that speak ICE.
//! Everything that happens stands in the [`timeline`].

pub mod counted;
mod direction;
pub mod end_to_end;
mod lapse;
pub mod memory;
pub mod phone;
pub mod place;
pub mod proof;
mod quality;
mod release;
mod sight;
pub mod timeline;
pub mod trial;

pub use release::{Moved, Output, Outset, Release, Settings};
pub use sight::Sight;
