//! What signalling and the media plane say to each other: session descriptions in, session descriptions out.
//!
//! Types only. Both cores use these and neither knows the other; the program carries them from one to the other as they are. Signalling
//! knows which exchange (RFC 6337) a description belongs to and gets one back, with a [`Summary`]; it never looks into it. A
//! [`Request`] is answered later by a [`Replied`]; what media has to say by itself is a [`Told`]. What is written down (journal,
//! dumps) bears names of its own, that do not change with those of variants.

#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod action;
mod description;
mod event;
mod listener;
mod party;
pub mod path;
mod reply;
mod session;
mod side;
mod statistics;
mod version;
mod words;

pub use action::{Action, Renegotiated, Request};
pub use description::{Described, Direction, Refusal, StreamSummary, Summary};
pub use event::{Event, Told};
pub use listener::{Listener, Role};
pub use party::{PRODUCT_LIMIT, Party, RealmId};
pub use reply::{Replied, Reply};
pub use session::{Endpoint, ExchangeId, SessionId};
pub use side::Side;
pub use statistics::{DirectStatistics, Loss, StreamStatistics};
pub use version::Version;
