//! The latest packet for an endpoint that is not known to be where its description says: behind a NAT it can only be reached once
//! it has sent something itself (RFC 7362 §4). It then hears at once what was said last, not only what is said next.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// Older than this it would only make the endpoint's jitter buffer begin too late: one packet time of the slowest usual codecs.
const FRESH: Duration = Duration::from_millis(60);
/// A handshake is repeated after a second (RFC 6347 §4.2.4.1); until then this one serves.
const FRESH_HANDSHAKE: Duration = Duration::from_secs(1);

/// A packet that may not have arrived.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Held {
    packet: Vec<u8>,
    /// Where it was sent.
    to: Option<SocketAddr>,
    at: Duration,
    /// How many there were.
    count: u64,
}

timed!(Held { at; packet, to, count });

impl Held {
    /// A packet that was sent there, if it was sent anywhere; `known` is the one before.
    pub(crate) fn keep(known: &mut Option<Box<Held>>, packet: &[u8], to: Option<SocketAddr>, now: Duration) {
        let held = known.get_or_insert_with(|| Box::new(Held { packet: Vec::new(), to, at: now, count: 0 }));
        held.packet.clear();
        held.packet.extend_from_slice(packet);
        (held.to, held.at) = (to, now);
        held.count = held.count.saturating_add(1);
    }

    /// How many were sent elsewhere than to `destination`, where it was then heard: those have not reached it.
    pub(crate) fn astray(&self, destination: SocketAddr) -> u64 {
        if self.to == Some(destination) { 0 } else { self.count }
    }

    /// What is to be sent again now that its endpoint was heard at `destination`.
    pub(crate) fn due(&self, destination: SocketAddr, now: Duration) -> Option<&[u8]> {
        let is_media = self.packet.first().is_some_and(|first| first >> 6 == 2);
        let fresh = if is_media { FRESH } else { FRESH_HANDSHAKE };
        let is_due = self.to != Some(destination) && now <= self.at.saturating_add(fresh);
        is_due.then_some(&self.packet)
    }
}
