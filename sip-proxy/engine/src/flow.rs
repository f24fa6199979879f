//! The ways that messages take: listeners, transports, connections.

use std::net::SocketAddr;

/// A realm of the configuration; media knows it by the same number.
pub use seam::RealmId;
use serde::{Deserialize, Serialize};

/// A SIP listener of the configuration: one realm, one transport, one local address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ListenerId(pub u16);

/// A connection of a stream transport, unique in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConnectionId(pub u64);

/// Transports of a listener (RFC 3261 §18, RFC 7118).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A byte stream in clear.
    Tcp,
    /// A byte stream over TLS.
    Tls,
}

impl Transport {
    /// Whether delivery is the transport's work, so that transactions don't retransmit (RFC 3261 §17).
    pub fn is_reliable(self) -> bool {
        self != Transport::Udp
    }

    /// As a URI names it (RFC 3261 §19.1.1); UDP need not be named.
    pub(crate) fn uri_parameter(self) -> &'static str {
        match self {
            Transport::Udp => "",
            Transport::Tcp => ";transport=tcp",
            Transport::Tls => ";transport=tls",
        }
    }

    /// The token of the Via header's sent-protocol.
    pub fn via_token(self) -> &'static str {
        match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        }
    }
}

/// Where a message came from or goes to.
///
/// Without a `connection`, a stream transport reuses one to the same address or opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Flow {
    /// The listener that received, or whose local address sends.
    pub listener: ListenerId,
    /// The listener's transport.
    pub transport: Transport,
    /// The address on the other side.
    pub remote: SocketAddr,
    /// The connection, on stream transports.
    pub connection: Option<ConnectionId>,
}

impl Flow {
    /// The same way in another process, which has other connections.
    pub(crate) fn without_connection(self) -> Self {
        Self { connection: None, ..self }
    }
}

/// Names one `Send`, so that its failure finds its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket(pub u64);
