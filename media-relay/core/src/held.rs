//! The latest packet for an endpoint that is not known to be where its description says: behind a NAT it can only be reached once
//! it has sent something itself (RFC 7362 §4). It then hears at once what was said last, not only what is said next.

use std::net::SocketAddr;
use std::time::Duration;

use crate::stream::Stream;
use crate::worker::SocketId;

/// Older than this it would only make the endpoint's jitter buffer begin too late: one packet time of the slowest usual codecs.
const FRESH: Duration = Duration::from_millis(60);
/// A handshake is repeated after a second (RFC 6347 §4.2.4.1); until then this one serves.
const FRESH_HANDSHAKE: Duration = Duration::from_secs(1);

/// A packet that may not have arrived.
#[derive(Debug)]
pub(crate) struct Held {
    packet: Vec<u8>,
    /// Where it was sent.
    to: Option<SocketAddr>,
    at: Duration,
}

impl Stream {
    /// Keeps what is sent to it while nobody has been heard where it goes.
    #[inline]
    pub(crate) fn hold(&mut self, packet: &[u8], now: Duration) {
        if self.rtp.is_learnt() {
            return;
        }
        let to = self.rtp.destination();
        let held = self.held.get_or_insert_with(|| Box::new(Held { packet: Vec::new(), to, at: now }));
        held.packet.clear();
        held.packet.extend_from_slice(packet);
        (held.to, held.at) = (to, now);
    }

    /// It has been heard: sends what was held, unless it went to that very address.
    #[inline]
    pub(crate) fn send_held(&mut self, now: Duration, send: impl FnOnce(SocketId, SocketAddr, &[u8])) {
        if self.held.is_none() || !self.rtp.is_learnt() {
            return;
        }
        let (Some(held), Some(destination)) = (self.held.take(), self.rtp.destination()) else { return };
        let is_media = held.packet.first().is_some_and(|first| first >> 6 == 2);
        let fresh = if is_media { FRESH } else { FRESH_HANDSHAKE };
        if !self.is_parked && held.to != Some(destination) && now <= held.at.saturating_add(fresh) {
            send(self.ports.rtp, destination, &held.packet);
        }
    }
}
