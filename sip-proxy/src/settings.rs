//! How the plane is set up, and what each shard has of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sip_engine::config::Config;
use vitals::Vitals;

use crate::filter::FilterSettings;
use crate::tls::TlsIdentity;

/// What a listener needs beyond what the engine knows of it.
#[derive(Debug, Clone, Default)]
pub struct ListenerSettings {
    /// Address lists and rates.
    pub filter: FilterSettings,
    /// Certificates; a TLS listener must have them.
    pub tls: Option<Arc<TlsIdentity>>,
}

/// How the plane is set up.
#[derive(Debug, Clone)]
pub struct PlaneSettings {
    /// The engines' configuration; its listeners are opened.
    pub engine: Arc<Config>,
    /// One per listener of `engine`, in order.
    pub listeners: Vec<ListenerSettings>,
    /// Threads.
    pub shards: usize,
    /// Receive buffer of each datagram socket, bytes.
    pub receive_buffer: usize,
    /// Connections that peers opened, of the node.
    pub connections: usize,
    /// Of these, connections of peers that have not shown who they are; as many more may be at the door, in a TLS handshake
    /// or silent. The rest is for registered phones and trunks.
    pub connections_unproven: usize,
    /// Of the latter, connections of one source (an IPv4 address, an IPv6 /64).
    pub connections_per_source: usize,
    /// Connections that we open, of the node.
    pub connections_dialled: usize,
    /// TLS handshakes of peers that begin in a second, of the node; others wait.
    pub handshakes_per_second: usize,
    /// A connection that says nothing for so long is closed.
    pub idle: Duration,
    /// So is one whose peer has not shown in so long who it is.
    pub unproven: Duration,
    /// Where shards and their readers say that they live.
    pub vitals: Vitals,
    /// Memory is short: what is new is refused.
    pub is_short_of_memory: Arc<AtomicBool>,
}

impl PlaneSettings {
    /// One shard, 4 MiB of receive buffer; 10,000 connections, of which 2,000 may be strangers', 1,000 of one source, for a
    /// minute; 10,000 of our own; 1,000 handshakes a second. Closed after an hour of silence.
    pub fn new(engine: Arc<Config>, listeners: Vec<ListenerSettings>) -> Self {
        Self {
            engine,
            listeners,
            shards: 1,
            receive_buffer: 4 << 20,
            connections: 10_000,
            connections_unproven: 2_000,
            connections_per_source: 1_000,
            connections_dialled: 10_000,
            handshakes_per_second: 1_000,
            idle: Duration::from_secs(3600),
            vitals: Vitals::default(),
            is_short_of_memory: Arc::default(),
            unproven: Duration::from_secs(60),
        }
    }

    /// What one of so many shards has of it.
    pub(crate) fn share(&self, shards: usize) -> Self {
        let part = |whole: usize| whole.div_ceil(shards.max(1)).max(1);
        Self {
            connections: part(self.connections),
            connections_unproven: part(self.connections_unproven),
            connections_dialled: part(self.connections_dialled),
            handshakes_per_second: part(self.handshakes_per_second),
            ..self.clone()
        }
    }
}
