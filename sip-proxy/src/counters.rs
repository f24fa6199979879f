//! What the transports count. Read by the metrics endpoint, written by the shards.

pub use crate::count::Count;
use crate::traffic::Traffic;

/// One per shard, so that no two threads write one cache line.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Messages read from any transport.
    pub received: Count,
    /// Messages written to any transport.
    pub sent: Count,
    /// What was received, by method and code.
    pub traffic_received: Traffic,
    /// What was sent, by method and code.
    pub traffic_sent: Traffic,
    /// Messages that the parser refused.
    pub refused: Count,
    /// Messages dropped because their reading panicked.
    pub panicked: Count,
    /// Keepalives (CRLF) received.
    pub keepalives: Count,
    /// Messages handed to another shard, their home.
    pub forwarded: Count,
    /// Sends that failed.
    pub send_failed: Count,
    /// Datagrams, messages and connections dropped by address list.
    pub denied: Count,
    /// Datagrams and stream messages dropped by a source's token bucket.
    pub limited: Count,
    /// Headers that did not pass because their realm is not trusted with them.
    pub withheld: Count,
    /// Requests of scanners, dropped.
    pub scanners: Count,
    /// Letters of other threads that found the inbox full and were dropped.
    pub inbox_full: Count,
    /// Whether the shard is behind and refuses what is new (gauge, 0 or 1).
    pub is_behind: Count,
    /// Open connections, those at the door too (gauge).
    pub connections: Count,
    /// Connections refused because there are too many, and all others have proven who they are.
    pub connections_refused: Count,
    /// Connections of strangers closed for newcomers, because there were too many or one source had too many.
    pub connections_evicted: Count,
    /// Connections closed because their peer did not take what was sent.
    pub connections_stalled: Count,
    /// Connections closed because their peer said nothing, or did not end what it began, for too long.
    pub connections_idle: Count,
    /// TLS handshakes that failed.
    pub handshakes_failed: Count,
    /// Calls (gauge).
    pub calls: Count,
    /// Transactions (gauge).
    pub transactions: Count,
    /// Bindings (gauge).
    pub bindings: Count,
}
