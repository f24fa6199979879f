//! What a packet needs, and nothing else: one plain record of a port, which a second plane (the kernel, another process) could have, so
//! that it passes the port's RTP without asking.
//!
//! The worker makes it of what it knows at a moment. As long as it says the same, a packet from [`Flow::source`] goes to [`Flow::hops`] as
//! it is, and is counted; any other is the worker's: who is elsewhere, STUN, RTCP and handshakes, and all that comes while somebody
//! listens or nobody was heard yet. Keys of a leg whose SRTP we end would stand here too.

use std::net::SocketAddr;

use crate::ports::{Component, SocketId};
use crate::stream::Streams;
use crate::transport::Carried;

/// Where a packet leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// By which socket.
    pub socket: SocketId,
    /// Where to.
    pub to: SocketAddr,
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    /// Whose RTP it is.
    pub source: SocketAddr,
    /// Where that goes; nowhere, while who hears it is on hold.
    pub hops: [Option<Hop>; 2],
}

impl Streams {
    /// Of a socket, if its RTP needs nobody's decision.
    pub(crate) fn flow(&self, socket: SocketId) -> Option<Flow> {
        let socket = self.socket(socket).filter(|socket| socket.component == Component::Rtp)?;
        let [id] = socket.streams.as_slice() else { return None };
        let stream = self.get(*id).filter(|stream| stream.carried != Carried::Other)?;
        let (source, _) = stream.rtp.heard()?;
        let mut flow = Flow { source, hops: [None; 2] };
        if stream.held.is_some()
            || stream.consumers.are_overheard()
            || stream.consumers.len() > flow.hops.len()
        {
            return None;
        }
        for (hop, peer) in flow.hops.iter_mut().zip(stream.consumers.peers()) {
            let peer = self.get(peer)?;
            // To whom is released nothing is relayed, and what comes all the same is news.
            if peer.gate.is_released || !(peer.rtp.is_learnt() || peer.gate.is_hung_up) {
                return None;
            }
            let to = peer.rtp.destination().filter(|_| !peer.gate.is_hung_up);
            *hop = to.map(|to| Hop { socket: peer.ports.rtp, to });
        }
        Some(flow)
    }
}
