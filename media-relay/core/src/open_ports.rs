//! The ports that are open, and for whom: so that a description of ours that comes back is known.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use media_wire::sdp::Description;

/// For whom a port is open: the number in the o= line of its leg, its session and its party.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facing {
    pub(crate) origin: u64,
    pub(crate) session: u64,
    pub(crate) party: u16,
}

/// The RTP ports that are open at any worker, as descriptions name them.
#[derive(Debug, Clone, Default)]
pub struct OpenPorts(Arc<Mutex<BTreeMap<SocketAddr, Facing>>>);

impl OpenPorts {
    pub(crate) fn opened(&self, rtp: SocketAddr, facing: Facing) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(rtp, facing);
    }

    pub(crate) fn closed(&self, rtp: SocketAddr) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&rtp);
    }

    /// For whom this port, or the one before it for RTP, is open, if a description with this number was written by us for that leg.
    pub(crate) fn were_told(&self, address: SocketAddr, origin: u64) -> Option<Facing> {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rtp = address.port().checked_sub(1).map(|port| SocketAddr::new(address.ip(), port));
        let mut facing = [Some(address), rtp].into_iter().flatten().filter_map(|rtp| open.get(&rtp));
        facing.find(|facing| facing.origin == origin).copied()
    }

    /// For whom this RTP port is open.
    pub(crate) fn facing(&self, rtp: SocketAddr) -> Option<Facing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&rtp).copied()
    }

    /// The session that a description was written for, if it is one of ours that has come back. Both belong on one worker: only there are
    /// they put together again.
    pub fn session_of(&self, sdp: &Bytes) -> Option<u64> {
        let description = Description::parse(sdp.clone()).ok()?;
        let origin = description.origin()?;
        let ports = description.media.iter().filter(|media| media.port != 0).filter_map(|media| media.rtp);
        ports.into_iter().find_map(|rtp| self.were_told(rtp, origin)).map(|facing| facing.session)
    }
}
