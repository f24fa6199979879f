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
    /// Keepalives (CRLF) received.
    pub keepalives: Count,
    /// Messages handed to another shard, their home.
    pub forwarded: Count,
    /// Sends that failed.
    pub send_failed: Count,
    /// Headers that did not pass because their realm is not trusted with them.
    pub withheld: Count,
    /// Whether the shard is behind and refuses what is new (gauge, 0 or 1).
    pub is_behind: Count,
    /// What was not let in.
    pub dropped: Dropped,
    /// Connections of stream transports.
    pub streams: Streams,
    /// What the shard holds.
    pub held: Holdings,
}

/// What was not let in.
#[derive(Debug, Default)]
pub struct Dropped {
    /// Messages that the parser refused.
    pub refused: Count,
    /// Messages whose reading panicked.
    pub panicked: Count,
    /// Datagrams, messages and connections dropped by address list.
    pub denied: Count,
    /// Datagrams and stream messages dropped by a source's token bucket.
    pub limited: Count,
    /// Requests of scanners.
    pub scanners: Count,
    /// Letters of other threads that found the inbox full.
    pub inbox_full: Count,
}

/// Connections of stream transports.
#[derive(Debug, Default)]
pub struct Streams {
    /// Open ones, those at the door too (gauge).
    pub open: Count,
    /// Refused because there are too many, and all others have proven who they are.
    pub refused: Count,
    /// Of strangers, closed for newcomers, because there were too many or one source had too many.
    pub evicted: Count,
    /// Closed because their peer did not take what was sent.
    pub stalled: Count,
    /// Closed because their peer said nothing, or did not end what it began, for too long.
    pub idle: Count,
    /// TLS handshakes that failed.
    pub handshakes_failed: Count,
}

/// What a shard holds (gauges).
#[derive(Debug, Default)]
pub struct Holdings {
    /// Calls.
    pub calls: Count,
    /// Transactions.
    pub transactions: Count,
    /// Bindings.
    pub bindings: Count,
}
