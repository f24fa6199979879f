//! The names of sessions, their ends and their exchanges.

use serde::{Deserialize, Serialize};

/// A media session; one per call. Signalling mints it, and can tell the home of its call by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// An offer with its answers, unique in its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExchangeId(pub u32);

impl ExchangeId {
    /// That of the initial offer: several branches may answer it.
    pub const INITIAL: Self = Self(1);
}

/// One end of a session: a leg, and for an outgoing leg the downstream fork of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Endpoint {
    /// 0 is the caller; each outgoing INVITE is a party of its own.
    pub party: u16,
    /// The early dialog of that INVITE (RFC 3261 §12.1.2); 0 until one exists.
    pub branch: u16,
}
