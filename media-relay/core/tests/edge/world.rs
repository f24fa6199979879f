//! A worker, its ports and the time: one session between A (realm 0) and B (realm 1), and who may send what to its ports.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::worker::{Settings, SocketId};
use play::ports::Counted;
use play::settings::media::{ENDS, party};
use seam::{Action, Endpoint, ExchangeId, Party, Refusal, Reply, StreamStatistics};

pub(crate) const A: Endpoint = ENDS[0];
pub(crate) const B: Endpoint = ENDS[1];
/// The public address that A's signalling comes from, and that of B.
pub(crate) const A_HOST: &str = "203.0.113.1";
pub(crate) const B_HOST: &str = "198.51.100.1";

pub(crate) struct World {
    pub(crate) worker: Worker,
    pub(crate) ports: Counted,
    pub(crate) now: Duration,
    pub(crate) session: u64,
}

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What came out: socket, destination, bytes.
pub(crate) type Sent = Vec<(SocketId, SocketAddr, Vec<u8>)>;

impl World {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            worker: Worker::new(settings, "anchor".to_owned()),
            ports: Counted::default(),
            now: Duration::from_secs(1),
            session: 9 << 20,
        }
    }

    pub(crate) fn party(endpoint: Endpoint) -> Party {
        let host = if endpoint.party == 0 { A_HOST } else { B_HOST };
        party(endpoint.party.min(1), at(&format!("{host}:5060")))
    }

    pub(crate) fn act(&mut self, action: Action) -> Option<Reply> {
        self.worker.handle(self.session, action, self.now, &mut self.ports)
    }

    pub(crate) fn described(&mut self, action: Action) -> Result<String, Refusal> {
        match self.act(action) {
            Some(Reply::Description(result)) => {
                result.map(|described| String::from_utf8(described.sdp.to_vec()).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn offer(
        &mut self,
        exchange: u32,
        from: Endpoint,
        to: Endpoint,
        sdp: impl Into<Bytes>,
    ) -> Result<String, Refusal> {
        let (from_party, to_party) = (Self::party(from), Self::party(to));
        self.described(Action::Offer {
            exchange: ExchangeId(exchange),
            from,
            to,
            from_party,
            to_party,
            sdp: sdp.into(),
        })
    }

    pub(crate) fn answer(
        &mut self,
        exchange: u32,
        from: Endpoint,
        to: Endpoint,
        sdp: impl Into<Bytes>,
    ) -> Result<String, Refusal> {
        let from_party = Self::party(from);
        self.described(Action::Answer {
            exchange: ExchangeId(exchange),
            from,
            to,
            from_party,
            sdp: sdp.into(),
        })
    }

    /// A call between A, which says that it is at `a` (sockets 0 and 1), and B at `b` (sockets 2 and 3), with these m-line
    /// profiles and attributes.
    pub(crate) fn call(settings: Settings, a: &str, b: &str, more: &str) -> Self {
        let mut world = Self::new(settings);
        world.offer(1, A, B, audio(a, more)).unwrap();
        world.act(Action::Select(B));
        world.answer(1, B, A, audio(b, more)).unwrap();
        world
    }

    pub(crate) fn send(&mut self, socket: SocketId, source: &str, packet: &[u8]) -> Sent {
        let mut out = Vec::new();
        self.worker.packet(socket, at(source), packet, self.now, |socket, to, bytes| {
            out.push((socket, to, bytes.to_vec()));
        });
        out
    }

    /// Where a packet goes.
    pub(crate) fn places(
        &mut self,
        socket: SocketId,
        source: &str,
        packet: &[u8],
    ) -> Vec<(SocketId, SocketAddr)> {
        self.send(socket, source, packet).into_iter().map(|(socket, to, _)| (socket, to)).collect()
    }

    pub(crate) fn statistics(&mut self) -> Vec<StreamStatistics> {
        match self.act(Action::Query) {
            Some(Reply::Statistics(streams)) => streams,
            other => panic!("{other:?}"),
        }
    }
}

/// One m-line of PCMU at an address, its profile RTP/AVP unless `more` begins with one.
pub(crate) fn audio(address: &str, more: &str) -> String {
    let address = at(address);
    let (profile, more) = more.split_once(' ').unwrap_or(("RTP/AVP", more));
    let profile = if profile.is_empty() { "RTP/AVP" } else { profile };
    format!(
        "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} {profile} 0\r\n{more}",
        ip = address.ip(),
        port = address.port()
    )
}

/// 20 ms of PCMU.
pub(crate) fn rtp(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.resize(172, 0xff);
    packet
}

/// An empty receiver report.
pub(crate) fn rtcp(ssrc: u32) -> Vec<u8> {
    [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat()
}

/// A DTLS record with some of a ClientHello.
pub(crate) fn hello() -> Vec<u8> {
    [&[22, 0xfe, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8][..], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()
}

/// A STUN Binding request without credentials.
pub(crate) fn binding() -> Vec<u8> {
    [&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[7; 12]].concat()
}
