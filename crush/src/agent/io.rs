//! What goes into an agent and what comes out.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::handoff::{Figures, Kind, Mode, Path, Reason};
use media_wire::sdp::crush::{Policy, Temper};

use crate::find::FlowBudget;
pub use crate::find::Part;
pub use crate::handoff::Marks;

/// A socket of the application's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// An m-line, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u8);

/// Settings of one call.
#[derive(Debug, Clone)]
pub struct Config {
    /// Pace of new flows that the user has said this network bears. `None`: he has said nothing; then what its operator says
    /// ([`media_wire::sdp::crush::Support::temper`]), else [`Temper::Normal`].
    pub temper: Option<Temper>,
    /// The host's account, which all of its calls share. `None`: this call is alone on its host.
    pub flows: Option<FlowBudget>,
    /// Sockets that the birthday method may use.
    pub most_sockets: usize,
    /// How audio moves. `None`: softly, with an overlap of the playout delay.
    pub audio_mode: Option<Mode>,
    /// A direct path slower than the relay by more than this is not taken.
    pub slowest: Duration,
    /// Host candidates are shown to the peer.
    pub show_hosts: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            temper: None,
            flows: None,
            most_sockets: 256,
            audio_mode: None,
            slowest: Duration::from_millis(40),
            show_hosts: true,
        }
    }
}

/// One m-line, as the application set it up.
#[derive(Debug, Clone, Copy)]
pub struct StreamSetup {
    /// What it carries.
    pub kind: Kind,
    /// RTP clock, Hz.
    pub clock_rate: u32,
    /// Samples in a packet (audio; ignored for video).
    pub frame: u32,
    /// Its RTP socket.
    pub socket: SocketId,
    /// Where that is bound; an address of an interface, not the unspecified one.
    pub local: SocketAddr,
}

/// What the application tells an agent.
#[derive(Debug)]
pub enum Input<'a> {
    /// A description came from the SBC: its text, and per m-line where RTP is to be sent (`None`: refused or on hold
    /// without an address).
    Description {
        /// The whole SDP, or its session-level part.
        sdp: &'a str,
        /// By m-line.
        relays: &'a [Option<SocketAddr>],
    },
    /// The dialog is confirmed: INFO may be sent.
    Confirmed,
    /// The body of an INFO with Info-Package trickle-ice.
    Trickle(&'a str),
    /// A datagram on any socket that the agent knows.
    Datagram {
        /// Where it arrived.
        socket: SocketId,
        /// Whence.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// An RTP packet that the application sends (encrypted already, if it is to be).
    Media {
        /// On which m-line.
        stream: StreamId,
        /// The packet.
        packet: &'a [u8],
        /// What only the sender knows of it.
        marks: Marks,
    },
    /// A socket that [`Output::OpenSocket`] asked for.
    SocketOpened {
        /// Its id.
        socket: SocketId,
        /// Where it is bound.
        local: SocketAddr,
    },
    /// No more sockets can be had.
    SocketRefused,
    /// The router mapped the first stream's socket (UPnP IGD, NAT-PMP or PCP), or that of [`Input::Host`] of the other family.
    Mapped(SocketAddr),
    /// A socket on another address of this host: the other family's, another interface's. It carries the direct path if that
    /// turns out to be the way.
    Host {
        /// Its id.
        socket: SocketId,
        /// Where it is bound; an address of an interface, not the unspecified one.
        local: SocketAddr,
    },
    /// The local address changed: the new sockets, by m-line. Sockets on other addresses are forgotten.
    NetworkChanged(&'a [(SocketId, SocketAddr)]),
    /// What may leave the relay, if it is other than the SBC's last word.
    Policy(Policy),
    /// By m-line, whether what it carries is encrypted with keys that passed from endpoint to endpoint, as far as is agreed now. At first
    /// nothing is. The application encrypts and decrypts: an agent is handed what goes out encrypted, and what comes in once it is
    /// known to be authentic, in the clear.
    Keys(&'a [bool]),
    /// Nothing but the time ([`super::Agent::poll_timeout`]).
    Timeout,
}

/// What an agent wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// From this socket.
        socket: SocketId,
        /// Whereto.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send an INFO with Info-Package trickle-ice and this body.
    Trickle(String),
    /// Open a UDP socket on the address of this one, any port.
    OpenSocket {
        /// Of the family that is being looked at.
        beside: SocketId,
    },
    /// No longer needed.
    CloseSocket(SocketId),
    /// Ask the router once more for what it has mapped, and say with [`Input::Mapped`] what it answers, the same or not: a new search begins,
    /// and a router that restarted has forgotten (RFC 6887 §8.5).
    MapAnew,
    /// An RTP packet of a stream without playout (video), each once.
    Media {
        /// Its m-line.
        stream: StreamId,
        /// As received.
        packet: Vec<u8>,
        /// On which path its first copy came.
        path: Path,
    },
    /// An RTCP packet that came on an RTP socket.
    Rtcp {
        /// Its m-line.
        stream: StreamId,
        /// As received.
        packet: Vec<u8>,
    },
    /// Something to show.
    Event(Event),
}

/// A direction of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From us.
    Sending,
    /// To us.
    Receiving,
}

/// What an application can show.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The SBC takes part; the first packet has not come.
    Connecting,
    /// Media flows through the relay.
    Relayed {
        /// Since the first description: how long until the first packet.
        after: Duration,
        /// To the relay and back; `None` before it has answered.
        round_trip: Option<Duration>,
    },
    /// A direct path is being looked for.
    Probing {
        /// At which pace.
        temper: Temper,
        /// With which method.
        part: Part,
        /// What the search has cost so far.
        effort: Effort,
    },
    /// A pair works both ways.
    Found {
        /// Our socket.
        socket: SocketId,
        /// The peer's address.
        remote: SocketAddr,
        /// Of the check.
        round_trip: Duration,
    },
    /// Both paths are measured, and the playout holds both.
    Synchronised(Figures),
    /// One stream left the relay.
    HandedOff {
        /// Its m-line.
        stream: StreamId,
        /// Which way.
        direction: Direction,
        /// First sequence number of the direct path, if it is known.
        at: Option<u16>,
    },
    /// All that policy lets go is direct, both ways.
    Direct {
        /// Since the first description, or since the last return.
        after: Duration,
        /// Of the direct path.
        round_trip: Duration,
        /// What the search has cost until here.
        effort: Effort,
    },
    /// A stream is direct both ways, and encrypted with keys that passed from endpoint to endpoint ([`Input::Keys`]).
    Secured {
        /// Its m-line.
        stream: StreamId,
    },
    /// Everything is on the relay again.
    Returned {
        /// Why.
        reason: Reason,
        /// Since the first stream left the relay, one way or the other.
        lasted: Duration,
        /// Since anything came on the direct path; `None` if that is gone.
        gap: Option<Duration>,
    },
    /// The search ended without a path; the call stays on the relay.
    GaveUp {
        /// With which method.
        part: Part,
        /// What the search has cost.
        effort: Effort,
    },
    /// A limiter seems to have struck; the search goes on at this temper.
    SlowedDown(Temper),
}

/// Packets that were not accepted, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refused {
    /// Checks and HANDOFF messages without the right credentials.
    pub unauthentic: u64,
    /// HANDOFF messages that came again.
    pub replayed: u64,
    /// Responses that nobody waits for.
    pub unexpected: u64,
    /// Media from elsewhere, or of no stream of ours.
    pub stray: u64,
    /// Nothing that can be read.
    pub malformed: u64,
    /// Fragments and generations beyond what a peer may cost.
    pub excess: u64,
}

/// Counts of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Effort {
    /// Checks sent.
    pub probes: u64,
    /// New flows made.
    pub flows: u64,
    /// Sockets used.
    pub sockets: u32,
}
