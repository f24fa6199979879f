//! What a call has gathered that outlives a generation, and what it waits for (docs/crush.md §3 and §4).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use media_wire::sdp::crush::Excess;

use super::io::SocketId;

/// What a socket was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    Filtering,
    Spray,
    Measure,
    Fresh,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    /// The dialog carries INFO.
    pub(super) is_confirmed: bool,
    /// Where the router forwards to us, as it said in this generation.
    pub(super) mapped: Option<SocketAddr>,
    /// Sockets on other addresses than the first stream's.
    pub(super) hosts: Vec<(SocketId, SocketAddr)>,
    /// Sockets that the application is opening, in order.
    pub(super) wanted: VecDeque<Wanted>,
    /// A limiter seems to have struck: until then nothing new is sent.
    pub(super) paused_until: Option<Duration>,
    /// Ufrags of the peer's past.
    pub(super) old_theirs: VecDeque<String>,
    /// What the peer has caused so far.
    pub(super) excess: Excess,
}
