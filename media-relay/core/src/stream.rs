//! Streams: one m-line as one endpoint has it, and the table that finds them by socket.

use std::time::Duration;

use smallvec::SmallVec;

use crate::latch::Latch;
use crate::sdp::Media;
use crate::session::{Endpoint, StreamStatistics};
use crate::statistics::Reception;
use crate::worker::{PortPair, Ports, SocketId};

/// A place in the table.
pub(crate) type StreamId = u32;

/// A payload type, as an endpoint's description names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) number: u8,
    pub(crate) rate: u32,
    /// RFC 4733.
    pub(crate) is_event: bool,
    pub(crate) name: Box<str>,
}

/// What the m-line agreed on carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carried {
    /// RTP with readable RTCP.
    Clear,
    /// SRTP: only the header of RTP and the fact that RTCP came are for us (RFC 3711 §3.4: SRTCP is encrypted after its first
    /// eight octets).
    Secure,
    /// Another protocol, as UDPTL (T.38): datagrams on the even port.
    Other,
}

/// One m-line as one endpoint has it: a pair of ports facing it, shared with the other branches of its party.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) session: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) index: u16,
    pub(crate) ports: PortPair,
    pub(crate) rtp: Latch,
    pub(crate) rtcp: Latch,
    /// The streams that this one's packets go out of.
    pub(crate) consumers: SmallVec<[StreamId; 2]>,
    pub(crate) carried: Carried,
    /// Its RTCP goes to its RTP port.
    pub(crate) is_muxed: bool,
    /// It may send RTCP to our RTP port.
    pub(crate) may_mux: bool,
    /// Nothing is sent to it.
    pub(crate) is_parked: bool,
    /// An answer was about it.
    pub(crate) is_agreed: bool,
    /// Answered with port 0.
    pub(crate) is_refused: bool,
    /// The kind of media, empty until a description of its own has come.
    pub(crate) kind: Box<str>,
    pub(crate) formats: Box<[Format]>,
    pub(crate) reception: Reception,
    pub(crate) strangers: u64,
    /// The last sender report that went out of this stream, for its round trip.
    pub(crate) forwarded_report: Option<(u32, Duration)>,
}

impl Stream {
    pub(crate) fn format(&self, number: Option<u8>) -> Option<&Format> {
        self.formats.iter().find(|format| Some(format.number) == number)
    }

    /// What a description of its endpoint says of it. Latches are told apart from this: their addresses count at other times.
    pub(crate) fn describe(&mut self, media: &Media) {
        if *self.kind != *media.kind {
            self.kind = media.kind.as_str().into();
        }
        self.carried = match (media.is_rtp(), media.is_secure) {
            (false, _) => Carried::Other,
            (true, true) => Carried::Secure,
            (true, false) => Carried::Clear,
        };
        self.is_parked = media.is_parked;
        self.may_mux = media.rtcp_mux;
        self.formats = media
            .codecs
            .iter()
            .map(|(number, name, rate)| Format {
                number: *number,
                rate: *rate,
                is_event: name.eq_ignore_ascii_case("telephone-event"),
                name: name.as_str().into(),
            })
            .collect();
    }

    /// What came from it; `far` is the round trip to who hears it.
    pub(crate) fn statistics(&self, far: Option<Duration>) -> StreamStatistics {
        let reception = &self.reception;
        let (name, rate) =
            self.format(reception.payload_type).map_or(("", 8000), |format| (&*format.name, format.rate));
        StreamStatistics {
            endpoint: self.endpoint,
            stream: self.index,
            kind: self.kind.to_string(),
            codec: name.to_owned(),
            packets: reception.packets,
            octets: reception.octets,
            lost: reception.lost(),
            strangers: self.strangers,
            jitter_ms: reception.jitter_ms(rate),
            rtt_ms: reception.round_trip.map(|time| time.as_secs_f32() * 1000.0),
            mos: reception.mos(name, rate, far),
            dtmf: reception.dtmf,
        }
    }
}

/// The streams that hear a socket: one, or one for each branch of a forked party.
#[derive(Debug, Clone, Default)]
pub(crate) struct Socket {
    pub(crate) streams: SmallVec<[StreamId; 2]>,
    pub(crate) is_rtcp: bool,
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    places: Vec<Option<Stream>>,
    free: Vec<StreamId>,
    sockets: Vec<Socket>,
}

impl Streams {
    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.places.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.places.get_mut(id as usize)?.as_mut()
    }

    pub(crate) fn socket(&self, socket: SocketId) -> Option<&Socket> {
        self.sockets.get(socket as usize)
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        let ports = stream.ports;
        let id = match self.free.pop() {
            Some(id) => {
                self.places[id as usize] = Some(stream);
                id
            }
            None => {
                self.places.push(Some(stream));
                (self.places.len() - 1) as StreamId
            }
        };
        for (socket, is_rtcp) in [(ports.rtp, false), (ports.rtcp, true)] {
            let socket = socket as usize;
            if self.sockets.len() <= socket {
                self.sockets.resize(socket + 1, Socket::default());
            }
            self.sockets[socket].streams.push(id);
            self.sockets[socket].is_rtcp = is_rtcp;
        }
        id
    }

    /// Nothing may feed it any more. Its ports go back with the last stream that has them.
    pub(crate) fn remove(&mut self, id: StreamId, ports: &mut dyn Ports) -> Option<Stream> {
        let stream = self.places.get_mut(id as usize)?.take()?;
        self.free.push(id);
        let mut is_last = true;
        for socket in [stream.ports.rtp, stream.ports.rtcp] {
            if let Some(socket) = self.sockets.get_mut(socket as usize) {
                socket.streams.retain(|other| *other != id);
                is_last &= socket.streams.is_empty();
            }
        }
        if is_last {
            ports.close(stream.ports);
        }
        Some(stream)
    }
}
