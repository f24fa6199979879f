//! What a registration has left, for the store and for other shards.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::{Flow, RealmId};

/// A binding that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// Whose.
    pub aor: Arc<str>,
    /// In which realm.
    pub realm: RealmId,
    /// The Contact URI; the key within the AOR.
    pub uri: String,
    /// The flow it came over. Datagram flows survive a restart, connections don't.
    pub flow: Flow,
    /// Call-ID and CSeq of the REGISTER, for its order (RFC 3261 §10.3).
    pub call_id: String,
    /// See `call_id`.
    pub cseq: u32,
    /// When it expires, wall time since the Unix epoch.
    pub expires: Duration,
    /// q value in thousandths.
    pub q: u16,
    /// `+sip.instance`, and behind it `;reg-id=` and its number where the registration is one of RFC 5626's.
    pub instance: Option<String>,
    /// Path values.
    pub path: Vec<String>,
    /// User-Agent.
    pub user_agent: String,
    /// Behind a NAT, so that it wants keepalives.
    pub behind_nat: bool,
    /// In a forwarding realm: the user part of the Contact that the core's registrar knows.
    pub token: Option<Arc<str>>,
    /// In a forwarding realm: when the core's registrar forgets it, wall time.
    pub upstream_expires: Duration,
}

/// What changed, for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingChange {
    /// New or refreshed.
    Put(Box<BindingRecord>),
    /// Gone.
    Delete {
        /// Whose.
        aor: Arc<str>,
        /// Which.
        uri: String,
    },
}
