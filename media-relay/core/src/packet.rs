//! A datagram on its way through a worker.

use std::net::SocketAddr;
use std::time::Duration;

use crate::ports::{Component, SocketId, StreamId};

/// It came to a port of ours, and is for this stream, whoever has sent it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Packet<'a> {
    pub(crate) socket: SocketId,
    pub(crate) stream: StreamId,
    pub(crate) component: Component,
    pub(crate) source: SocketAddr,
    pub(crate) bytes: &'a [u8],
    pub(crate) now: Duration,
}
