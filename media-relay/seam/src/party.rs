//! What the media plane must know of a party beyond its SDP.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A realm of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RealmId(pub u16);

/// Octets of a User-Agent that are kept.
pub const PRODUCT_LIMIT: usize = 120;

/// A party of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Its realm: which media addresses face it.
    pub realm: RealmId,
    /// Where its signalling comes from: a hint for latching (RFC 7362).
    pub signalling: SocketAddr,
    /// Its User-Agent, or Server in a response, cut to [`PRODUCT_LIMIT`]; empty until it has said one: how it takes a move.
    pub product: Arc<str>,
    /// The address that its Contact names, if that is a literal: behind a NAT its local one.
    pub contact: Option<SocketAddr>,
    /// It asked for privacy of any kind (RFC 3323): the other party must not learn its media address.
    pub is_private: bool,
}
