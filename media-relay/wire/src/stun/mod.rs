//! STUN messages (RFC 8489), with ICE's attributes (RFC 8445 §16) and those of discovery (RFC 5780). HANDOFF is one of its methods; what stands
//! in that is in [`crate::handoff`].

mod framing;
mod message;

pub use crate::demux::is_stun;
pub use framing::Message;
pub use message::{Class, Incoming, Key, Method, Outgoing, UNKNOWN_ATTRIBUTE};

/// The magic cookie (RFC 8489 §5).
pub const COOKIE: u32 = 0x2112_A442;

/// ICE's PRIORITY (RFC 8445 §16.1).
pub const PRIORITY: u16 = 0x0024;
/// ICE's USE-CANDIDATE (RFC 8445 §16.1).
pub const USE_CANDIDATE: u16 = 0x0025;
/// ICE's ICE-CONTROLLED (RFC 8445 §16.1).
pub const ICE_CONTROLLED: u16 = 0x8029;
/// ICE's ICE-CONTROLLING (RFC 8445 §16.1).
pub const ICE_CONTROLLING: u16 = 0x802A;
/// CHANGE-REQUEST (RFC 5780 §7.2).
pub const CHANGE_REQUEST: u16 = 0x0003;
/// OTHER-ADDRESS (RFC 5780 §7.4).
pub const OTHER_ADDRESS: u16 = 0x802C;

/// CHANGE-REQUEST's flag for another address.
pub const CHANGE_ADDRESS: u32 = 4;
/// CHANGE-REQUEST's flag for another port.
pub const CHANGE_PORT: u32 = 2;
