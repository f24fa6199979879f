//! Who hears what an endpoint sends, and as what.
//!
//! Offer and answer decide who a stream's **peers** are, and touch nobody else: whoever listens to a call hears it through re-INVITE, hold,
//! transfer, fork and release, until told to go. What is listened to is on the relay: as long as anybody listens, it is as if policy
//! wanted the call there. A listener gets what an endpoint of the call has sent, as it came, whether or not it goes on to anybody.

use std::collections::VecDeque;
use std::time::Duration;

use seam::{Endpoint, Listener};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::ports::StreamId;

/// A packet for a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overheard {
    /// Who listens.
    pub listener: Listener,
    /// To which session.
    pub session: u64,
    /// Who has sent it.
    pub endpoint: Endpoint,
    /// In which m-line, from 0.
    pub stream: u16,
    /// It came to the port of RTCP, or is RTCP.
    pub is_rtcp: bool,
    /// When it came.
    pub at: Duration,
    /// As it came.
    pub packet: Vec<u8>,
}

/// All who hear a stream.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Consumers {
    /// The streams that its packets go out of.
    peers: SmallVec<[StreamId; 2]>,
    listeners: Vec<Listener>,
}

impl Consumers {
    /// Of a stream that is new in a session with these listeners.
    pub(crate) fn of(listeners: &[Listener]) -> Self {
        Self { peers: SmallVec::new(), listeners: listeners.to_vec() }
    }

    /// By number, so that nobody needs a copy of the list.
    #[inline]
    pub(crate) fn peer(&self, place: usize) -> Option<StreamId> {
        self.peers.get(place).copied()
    }

    /// Peers.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = StreamId> {
        self.peers.iter().copied()
    }

    /// A copy of the list, for who changes their streams meanwhile.
    pub(crate) fn peer_list(&self) -> SmallVec<[StreamId; 2]> {
        SmallVec::from_slice(&self.peers)
    }

    #[inline]
    pub(crate) fn are_overheard(&self) -> bool {
        !self.listeners.is_empty()
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    /// Whether its packets go out of this one.
    pub(crate) fn feeds(&self, stream: StreamId) -> bool {
        self.peers.contains(&stream)
    }

    pub(crate) fn feed(&mut self, stream: StreamId) {
        self.peers.push(stream);
    }

    pub(crate) fn attach(&mut self, listener: Listener) {
        self.listeners.push(listener);
    }

    pub(crate) fn detach(&mut self, listener: Listener) {
        self.listeners.retain(|known| *known != listener);
    }

    /// They have other names; who has none is gone.
    pub(crate) fn rename(&mut self, name: impl Fn(StreamId) -> Option<StreamId>) {
        self.peers = self.peers.iter().copied().filter_map(name).collect();
    }

    /// It feeds these no more.
    pub(crate) fn starve(&mut self, is_gone: impl Fn(StreamId) -> bool) {
        self.peers.retain(|peer| !is_gone(*peer));
    }
}

/// Who listens to a session.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Listeners(SmallVec<[Listener; 1]>);

impl Listeners {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_slice(&self) -> &[Listener] {
        &self.0
    }

    /// Whether it is new.
    pub(crate) fn attach(&mut self, listener: Listener) -> bool {
        let is_new = !self.0.contains(&listener);
        if is_new {
            self.0.push(listener);
        }
        is_new
    }

    pub(crate) fn detach(&mut self, listener: Listener) {
        self.0.retain(|known| *known != listener);
    }
}

/// What listeners have to be given, in order. Nobody fetches more than these: what comes then is counted only, so that a
/// listener that hangs takes no memory from calls.
const MOST: usize = 16_384;

/// Packets that wait for their listeners.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    waiting: VecDeque<Overheard>,
    pub(crate) lost: u64,
}

impl Copies {
    pub(crate) fn push(&mut self, copy: Overheard) {
        if self.waiting.len() < MOST {
            self.waiting.push_back(copy);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Overheard> {
        self.waiting.pop_front()
    }
}
