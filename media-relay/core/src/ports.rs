//! Where packets come in and go out, by number: the shell has the sockets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A place in the table of streams.
pub(crate) type StreamId = u32;
/// A socket of the shell, by its number there.
pub type SocketId = u32;
/// A packet to send: by which socket, where to, its bytes.
pub type Transmit = (SocketId, SocketAddr, Vec<u8>);

/// Where a datagram came in, from where, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// The socket.
    pub socket: SocketId,
    /// Its sender.
    pub source: SocketAddr,
    /// The time.
    pub now: Duration,
}

/// An even and the odd port after it, open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortPair {
    /// The even one's socket. Numbers are this process's: an address is all that another one could use.
    #[serde(skip)]
    pub rtp: SocketId,
    /// The odd one's.
    #[serde(skip)]
    pub rtcp: SocketId,
    /// The even one's address, as the peer must see it.
    pub address: SocketAddr,
}

/// Where sockets come from.
pub trait Ports {
    /// A free pair in a realm; `None` if there is none.
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair>;
    /// The pair of a realm at this very address, which another process had; `None` if it is taken, or none of the realm's.
    fn reopen(&mut self, realm: u16, address: SocketAddr) -> Option<PortPair>;
    /// Gives it back; it rests before it is used again, unless no other is left.
    fn close(&mut self, pair: PortPair);
    /// Gives back one to which nothing came: nothing late can come, and it need not rest.
    fn close_unheard(&mut self, pair: PortPair) {
        self.close(pair);
    }
    /// A free pair of the same realm and family at another address than this; `None` if the realm has no other.
    fn open_elsewhere(&mut self, realm: u16, than: IpAddr) -> Option<PortPair>;
}

/// When something is done, and where ports come from meanwhile.
pub(crate) struct Turn<'a> {
    pub(crate) now: Duration,
    pub(crate) ports: &'a mut dyn Ports,
}

/// What arrives at a socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Component {
    #[default]
    Rtp,
    Rtcp,
    /// RTP at the second address.
    Spare,
    SpareRtcp,
}

impl Component {
    pub(crate) fn is_rtcp(self) -> bool {
        matches!(self, Component::Rtcp | Component::SpareRtcp)
    }
}
