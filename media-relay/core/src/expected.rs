//! Whom a port expects: so that the shell, or the kernel for it, lets their packets pass before those of strangers.
//!
//! It is a hint only. Who is heard, the latch decides, for each packet; a hint that is late costs a stranger's delay.

use std::net::SocketAddr;

use smallvec::SmallVec;

use crate::ports::{SocketId, StreamId};
use crate::stream::Streams;

/// Sources that a port expects, at most two; the port 0 stands for all ports of its host.
pub type Expected = [Option<SocketAddr>; 2];

impl Streams {
    /// Of a socket: where its party was heard, or else is to be by its description or behind the host that it signals from.
    pub(crate) fn expected(&self, socket: SocketId) -> Expected {
        let mut expected = Expected::default();
        let Some(socket) = self.socket(socket) else { return expected };
        let streams = socket.streams.iter().filter_map(|id| self.get(*id));
        let sources = streams.flat_map(|stream| {
            let latch = if socket.component.is_rtcp() { &stream.rtcp } else { &stream.rtp };
            let host = (!latch.is_learnt()).then(|| SocketAddr::new(latch.signalling(), 0));
            [latch.destination(), host]
        });
        // Of more than two branches that share a port the others wait behind strangers.
        for (place, source) in expected.iter_mut().zip(sources.flatten()) {
            *place = Some(source);
        }
        expected
    }

    /// Each socket of these.
    pub(crate) fn sockets(&self, own: impl Iterator<Item = StreamId>) -> SmallVec<[SocketId; 8]> {
        own.filter_map(|id| self.get(id))
            .flat_map(|stream| [Some(stream.ports), stream.second.spare].into_iter().flatten())
            .flat_map(|pair| [pair.rtp, pair.rtcp])
            .collect()
    }
}
