//! Ends of dialogs as others name them, to be replaced (RFC 3891).

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::flow::{Flow, RealmId};

/// An end that can be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Party {
    pub(crate) realm: RealmId,
    /// An AOR, or a trunk's name; empty for nobody we know.
    pub(crate) name: Arc<str>,
}

/// An end that an INVITE with Replaces may be sent to (RFC 3891).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// The Replaces value that this end understands.
    #[serde(with = "crate::octets")]
    pub(crate) replaces: Bytes,
    pub(crate) realm: RealmId,
    pub(crate) flow: Flow,
    #[serde(with = "crate::octets")]
    pub(crate) uri: Bytes,
    /// The proxies before it, as Route values.
    #[serde(with = "crate::octets::list")]
    pub(crate) path: Vec<Bytes>,
    pub(crate) aor: Option<Arc<str>>,
    /// The end at the other side, whose dialog it is that an INVITE names.
    pub(crate) named: Party,
    /// Who it is, in records: its AOR, or what a trunk was dialled.
    pub(crate) who: Arc<str>,
}
