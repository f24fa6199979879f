//! SIP messages as one buffer plus a line table (RFC 3261 §7, §25).
//!
//! [`Message::parse`] copies and allocates nothing: it finds the lines, names the headers it knows and settles the
//! framing. Values are read when somebody asks for them. A message is changed by an [`Edit`], which copies untouched
//! lines verbatim, and written from nothing by a [`Builder`]. What cannot be read is [`Refused`], with all that an
//! answer to it needs.

// What strangers send is read here: no index and no sum of theirs may end the program.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::arithmetic_side_effects))]

mod address;
mod body;
mod builder;
mod check;
mod edit;
mod entity;
mod head;
mod media_type;
mod message;
mod method;
pub mod multipart;
mod name;
mod read;
mod refused;
mod rehearse;
mod stream;
mod text;
mod uri;
mod via;

pub use address::{Address, Addresses};
pub use body::{Body, BodyFault, describes};
pub use builder::Builder;
pub use check::{check_request, check_response};
pub use edit::Edit;
pub use media_type::MediaType;
pub use message::{CSeq, Line, Lines, Message};
pub use method::Method;
pub use name::Name;
pub use read::{MAX_HEAD, MAX_LINES, MAX_MESSAGE, MAX_URI};
pub use refused::{Cause, Malformed, Refused};
pub use rehearse::rehearse;
pub use stream::{Framed, StreamFramer};
pub use text::{Parameters, Values, number, parameter, unquote};
pub use uri::{Host, Scheme, Uri};
pub use via::Via;
