//! What the engine asks the world.
//!
//! Policy, subscribers and routes are an immutable snapshot in memory ([`Policy`]): asking it is a function call. What
//! takes time (DNS) leaves as an output and comes back as an input.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::digest::Ha1;
use crate::flow::{Flow, RealmId, Transport};

/// One snapshot of what operators configured in the store. Swapped whole; never waits.
pub trait Policy: Debug + Send + Sync {
    /// The digest secrets of a user of a domain; empty if the user is unknown or disabled.
    fn credentials(&self, domain: &str, username: &str) -> Vec<Ha1>;

    /// The trunk that an address of a realm belongs to.
    fn source(&self, realm: RealmId, address: IpAddr) -> Option<Arc<str>>;

    /// The trunk that sends from an address of a realm over a connection whose verified certificate bears these names
    /// (none over UDP or TCP, or without a certificate). A snapshot whose trunks are known by certificate decides by
    /// it; by default the address is all that counts.
    fn peer(&self, realm: RealmId, address: IpAddr, names: &[Arc<str>]) -> Option<Arc<str>> {
        let _ = names;
        self.source(realm, address)
    }

    /// Where a request shall go.
    fn route(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal>;

    /// What answers the challenges of a trunk, by its name.
    fn trunk(&self, name: &str) -> Option<Arc<TrunkTarget>>;

    /// All trunks, for pinging them. The same list, and not one that is equal, as long as none has changed: whoever follows the
    /// trunks need not look at ten thousand of them whenever a subscriber changes.
    fn trunks(&self) -> Arc<[Arc<TrunkTarget>]> {
        Arc::default()
    }
}

/// The facts that routing may use.
#[derive(Debug, Clone, Copy)]
pub struct RouteQuestion<'a> {
    /// The realm the request came from.
    pub realm: RealmId,
    /// Who sent it.
    pub caller: &'a Caller,
    /// The user part of the Request-URI, unescaped, or the number of a `tel:` URI, visual separators removed.
    pub user: &'a str,
    /// Its host in lower case; empty for `tel:`.
    pub host: &'a str,
}

/// Who sent a request, as far as it was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Caller {
    /// A subscriber, by digest or over its registered flow.
    Subscriber {
        /// Its AOR.
        aor: Arc<str>,
    },
    /// A trunk, by source address.
    Trunk {
        /// Its name.
        name: Arc<str>,
    },
    /// Nobody we know, in a realm that is open.
    Anonymous,
}

impl Caller {
    /// As records name it: an AOR, a trunk, or empty.
    pub fn name(&self) -> Arc<str> {
        match self {
            Caller::Subscriber { aor } => aor.clone(),
            Caller::Trunk { name } => name.clone(),
            Caller::Anonymous => "".into(),
        }
    }
}

/// Steps are tried in order; the next when the one before failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteStep {
    /// All contacts of an AOR, in parallel (RFC 3261 §16.7).
    Aor {
        /// Canonical AOR, see [`crate::aor::aor_of`].
        aor: Arc<str>,
    },
    /// A trunk.
    Trunk {
        /// Which.
        target: Arc<TrunkTarget>,
        /// The user part to send, after the route's number rules.
        user: Arc<str>,
    },
}

/// One trunk to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrunkTarget {
    /// Its name, in records and metrics.
    pub name: Arc<str>,
    /// The realm it is in.
    pub realm: RealmId,
    /// Its host: a name (NAPTR, SRV) or a literal.
    pub host: Arc<str>,
    /// Its port, if fixed.
    pub port: Option<u16>,
    /// Its transport, if fixed.
    pub transport: Option<Transport>,
    /// What answers a 401 or 407 of it.
    pub credentials: Option<TrunkCredentials>,
    /// How long it may take to a provisional response before the next is tried.
    pub timeout: Option<Duration>,
    /// How often it is asked by OPTIONS whether it lives; `None` never.
    pub ping: Option<Duration>,
}

impl TrunkTarget {
    /// One that policy knows no more: nothing is sent to it by its name.
    pub(crate) fn gone(name: Arc<str>, realm: RealmId) -> Self {
        Self {
            name,
            realm,
            host: Arc::default(),
            port: None,
            transport: None,
            credentials: None,
            timeout: None,
            ping: None,
        }
    }
}

/// Our credentials at a trunk.
#[derive(Clone, PartialEq, Eq)]
pub struct TrunkCredentials {
    /// User name.
    pub username: Arc<str>,
    /// Password, in clear as RFC 7616 needs it with a server's realm that is not known beforehand.
    pub password: Arc<str>,
}

impl<'a> From<&'a TrunkCredentials> for crate::digest::Login<'a> {
    fn from(credentials: &'a TrunkCredentials) -> Self {
        Self { username: &credentials.username, password: &credentials.password }
    }
}

impl Debug for TrunkCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TrunkCredentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Why there is no route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteRefusal {
    /// Nobody has this address: 404.
    NotFound,
    /// The snapshot is not there yet: 503.
    Unavailable,
}

/// One binding, as a caller needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// The realm it registered in.
    pub realm: RealmId,
    /// Where its requests must go: the flow it registered over (RFC 5626 §5.3).
    pub flow: Flow,
    /// The Request-URI that it wants.
    pub uri: Bytes,
    /// Path of RFC 3327, topmost first.
    pub path: Vec<Bytes>,
    /// q value in thousandths.
    pub q: u16,
    /// Whose contact it is; `None` for an end of a call that an INVITE replaces and that is no subscriber's.
    pub aor: Option<Arc<str>>,
}

/// Names a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QuestionId(pub u64);

/// What is to be resolved (RFC 3263).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolve {
    /// The name or literal.
    pub host: Arc<str>,
    /// The port, if the URI names one: then no SRV.
    pub port: Option<u16>,
    /// The transport, if the URI names one: then no NAPTR.
    pub transport: Option<Transport>,
    /// A `sips:` URI: TLS only.
    pub secure: bool,
}

/// One address to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedAddress {
    /// The transport to use.
    pub transport: Transport,
    /// Address and port.
    pub address: SocketAddr,
    /// The name that its certificate must bear.
    pub server_name: Arc<str>,
}

impl Resolve {
    /// The answer, if no lookup is needed: the host is a literal (RFC 3263 §4.2).
    pub fn literal(&self) -> Option<ResolvedAddress> {
        let host = self.host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&self.host);
        let address: IpAddr = host.parse().ok()?;
        let transport = if self.secure { Transport::Tls } else { self.transport.unwrap_or(Transport::Udp) };
        let port = self.port.unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
        Some(ResolvedAddress {
            transport,
            address: SocketAddr::new(address, port),
            server_name: Arc::clone(&self.host),
        })
    }
}
