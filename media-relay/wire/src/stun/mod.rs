//! STUN messages (RFC 8489), with ICE's attributes (RFC 8445 §16) and those of discovery (RFC 5780). HANDOFF is one of its methods; what stands
//! in that is in [`crate::handoff`].
//!
//! Read where it stands, without an allocation; nothing of it is authentic before [`Incoming::authentic`] has said so.

mod integrity;
mod read;
mod write;

pub use integrity::Key;
pub use read::Incoming;
pub use write::Outgoing;

pub use crate::demux::{COOKIE, is_stun};

/// Octets before the attributes, and of an attribute before its value.
const HEADER: usize = 20;
const ATTRIBUTE: usize = 4;

/// What a message is (RFC 8489 §5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Is answered.
    Request,
    /// Is not.
    Indication,
    /// Answers a request.
    Success,
    /// The same, with ERROR-CODE.
    Error,
}

/// STUN methods that are spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// RFC 8489 §18.2.
    Binding,
    /// docs/crush.md §7.
    Handoff,
}

/// The bits of a type that are its class (RFC 8489 §5); the others are its method.
const CLASS: u16 = 0x0110;

impl Class {
    const fn bits(self) -> u16 {
        match self {
            Self::Request => 0x0000,
            Self::Indication => 0x0010,
            Self::Success => 0x0100,
            Self::Error => 0x0110,
        }
    }

    fn of(kind: u16) -> Self {
        match kind & CLASS {
            0x0000 => Self::Request,
            0x0010 => Self::Indication,
            0x0100 => Self::Success,
            _ => Self::Error,
        }
    }
}

impl Method {
    /// With the place for a class left out: HANDOFF is method 0x0C5.
    const fn bits(self) -> u16 {
        match self {
            Self::Binding => 0x0001,
            Self::Handoff => 0x0285,
        }
    }

    fn of(kind: u16) -> Option<Self> {
        [Self::Binding, Self::Handoff].into_iter().find(|method| kind & !CLASS == method.bits())
    }
}

/// UNKNOWN ATTRIBUTE (RFC 8489 §14.8).
pub const UNKNOWN_ATTRIBUTE: u16 = 420;

const USERNAME: u16 = 0x0006;
const MESSAGE_INTEGRITY: u16 = 0x0008;
const ERROR_CODE: u16 = 0x0009;
const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
const FINGERPRINT: u16 = 0x8028;
/// From here on attributes may be ignored (RFC 8489 §14).
pub const COMPREHENSION_OPTIONAL: u16 = 0x8000;
/// UNKNOWN-ATTRIBUTES (RFC 8489 §14.9).
pub const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
/// XOR-MAPPED-ADDRESS (RFC 8489 §14.2).
pub const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RESPONSE-ORIGIN (RFC 5780 §7.3).
pub const RESPONSE_ORIGIN: u16 = 0x802B;
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
