//! A worker: the sessions of one thread, and the table that says where each packet goes.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;

use crate::latch::Latch;
use crate::rtcp::{self, Report};
use crate::rtp::{self, Header};
use crate::sdp::{Description, Direction, Media};
use crate::session::{
    Action, Described, Endpoint, Party, Refusal, Reply, StreamStatistics, StreamSummary, is_ipv6,
};
use crate::statistics::Reception;
use crate::stun;

/// A socket of the shell, by its number there.
pub type SocketId = u32;

/// An even and the odd port after it, open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortPair {
    /// The even one's socket.
    pub rtp: SocketId,
    /// The odd one's.
    pub rtcp: SocketId,
    /// The even one's address, as the peer must see it.
    pub address: SocketAddr,
}

/// Where sockets come from.
pub trait Ports {
    /// A free pair in a realm; `None` if there is none.
    fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair>;
    /// Gives it back; it rests before it is used again.
    fn close(&mut self, pair: PortPair);
}

/// What a realm wishes of its sessions.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// A session without a packet for so long is reported; `None` never.
    pub inactivity: Option<Duration>,
    /// Whether a NAT that rebinds is followed without signalling.
    pub follows_rebinding: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { inactivity: Some(Duration::from_secs(300)), follows_rebinding: true }
    }
}

type StreamId = usize;

/// One m-line as one party has it: a pair of ports facing that party.
#[derive(Debug)]
struct Stream {
    session: u64,
    party: u16,
    index: usize,
    ports: PortPair,
    rtp: Latch,
    rtcp: Latch,
    /// The streams that this one's packets go out of.
    consumers: smallvec::SmallVec<[StreamId; 2]>,
    kind: String,
    /// Clock rate and whether it is telephone-event, by payload type.
    clocks: Vec<(u8, u32, bool)>,
    codecs: Vec<(u8, String, u32)>,
    reception: Reception,
    strangers: u64,
    /// The last sender report that went out of this stream, for its round trip.
    forwarded_report: Option<(u32, Duration)>,
    signalling: IpAddr,
}

#[derive(Debug)]
struct Exchange {
    id: u32,
    offerer: Endpoint,
    media: Vec<Media>,
}

#[derive(Debug)]
struct Leg {
    party: Party,
    streams: Vec<Option<StreamId>>,
    /// o= of the descriptions it gets: id and version, and the body of the last.
    origin: u64,
    version: u64,
    last: Option<Bytes>,
}

#[derive(Debug)]
struct Session {
    legs: AHashMap<u16, Leg>,
    exchanges: Vec<Exchange>,
    heard: Duration,
    is_held: bool,
    told_inactive: bool,
}

/// The sessions of one thread.
#[derive(Debug)]
pub struct Worker {
    sessions: AHashMap<u64, Session>,
    streams: Vec<Option<Stream>>,
    free: Vec<StreamId>,
    /// By socket: the stream, and whether it is the RTCP port.
    sockets: Vec<Option<(StreamId, bool)>>,
    settings: Settings,
    cname: String,
    next_check: Duration,
    /// Strangers' packets of all streams, and packets that no stream owned.
    pub dropped: u64,
}

impl Worker {
    /// `cname` stands in for every RTCP name; it must say nothing about anybody.
    pub fn new(settings: Settings, cname: String) -> Self {
        Self {
            sessions: AHashMap::new(),
            streams: Vec::new(),
            free: Vec::new(),
            sockets: Vec::new(),
            settings,
            cname,
            next_check: Duration::ZERO,
            dropped: 0,
        }
    }

    /// Sessions.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Does what signalling asks. `Select`, `Cancel` and `Drop` have no reply.
    pub fn handle(
        &mut self,
        session: u64,
        action: Action,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Option<Reply> {
        match action {
            Action::Offer { exchange, from, to, from_party, to_party, sdp } => {
                let result =
                    self.offer(session, exchange, (from, from_party), (to, to_party), sdp, now, ports);
                Some(Reply::Description(result))
            }
            Action::Answer { exchange, from, to, sdp } => {
                Some(Reply::Description(self.answer(session, exchange, from, to, sdp, now)))
            }
            Action::Select(winner) => {
                self.select(session, winner, ports);
                None
            }
            Action::Cancel(exchange) => {
                // Exchange 1 is the initial offer, which other branches may still answer.
                if let Some(found) = self.sessions.get_mut(&session).filter(|_| exchange != 1) {
                    found.exchanges.retain(|known| known.id != exchange);
                }
                None
            }
            Action::Drop(endpoint) => {
                self.drop_leg(session, endpoint.party, ports);
                None
            }
            Action::Delete => {
                let statistics = self.statistics(session);
                if let Some(found) = self.sessions.remove(&session) {
                    for stream in found.legs.into_values().flat_map(|leg| leg.streams).flatten() {
                        self.close(stream, ports);
                    }
                }
                Some(Reply::Deleted(statistics))
            }
            Action::Query => Some(Reply::Statistics(self.statistics(session))),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "an offer has two ends")]
    fn offer(
        &mut self,
        id: u64,
        exchange: u32,
        from: (Endpoint, Party),
        to: (Endpoint, Party),
        sdp: Bytes,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Result<Described, Refusal> {
        let description = Description::parse(sdp).map_err(|_| Refusal::Malformed)?;
        if description.media.is_empty()
            || !description.media.iter().any(|media| media.port == 0 || media.is_datagram())
        {
            return Err(Refusal::NotAcceptable);
        }
        let is_new = !self.sessions.contains_key(&id);
        if is_new {
            let session = Session {
                legs: AHashMap::new(),
                exchanges: Vec::new(),
                heard: now,
                is_held: false,
                told_inactive: false,
            };
            self.sessions.insert(id, session);
        }
        for (endpoint, party) in [&from, &to] {
            self.ensure_leg(id, *endpoint, party);
        }
        let opened = self.ensure_streams(id, from.0.party, &description.media, now, ports).is_ok()
            && self.ensure_streams(id, to.0.party, &description.media, now, ports).is_ok();
        if !opened {
            if is_new {
                self.handle(id, Action::Delete, now, ports);
            }
            return Err(Refusal::NoPorts);
        }
        // A first description counts at once, so that early media finds its way; a later one when it is answered.
        self.apply_remotes(id, from.0.party, &description.media, true, now);
        let Some(session) = self.sessions.get_mut(&id) else { return Err(Refusal::Unknown) };
        session.exchanges.retain(|known| known.id != exchange);
        session.exchanges.push(Exchange { id: exchange, offerer: from.0, media: description.media.clone() });
        let sdp = self.describe(id, to.0.party, &description)?;
        Ok(Described { sdp, streams: summarise(&description.media) })
    }

    fn answer(
        &mut self,
        id: u64,
        exchange: u32,
        from: Endpoint,
        to: Endpoint,
        sdp: Bytes,
        now: Duration,
    ) -> Result<Described, Refusal> {
        let description = Description::parse(sdp).map_err(|_| Refusal::Malformed)?;
        let session = self.sessions.get_mut(&id).ok_or(Refusal::Unknown)?;
        let offer = session
            .exchanges
            .iter()
            .find(|known| known.id == exchange && known.offerer == to)
            .ok_or(Refusal::Unknown)?;
        // RFC 3264 §6: as many m-lines, in the same order, of the same kinds.
        let fits = offer.media.len() == description.media.len()
            && offer
                .media
                .iter()
                .zip(&description.media)
                .all(|(offered, answered)| offered.kind == answered.kind);
        if !fits {
            return Err(Refusal::NotAcceptable);
        }
        let offered = offer.media.clone();
        let is_inactive = |media: &Media| media.port != 0 && media.direction != Direction::SendRecv;
        session.is_held = offered.iter().chain(&description.media).any(is_inactive);
        if exchange != 1 {
            session.exchanges.retain(|known| known.id != exchange);
        }
        self.apply_remotes(id, to.party, &offered, false, now);
        self.apply_remotes(id, from.party, &description.media, false, now);
        self.connect(id, to.party, from.party, &description.media);
        let sdp = self.describe(id, to.party, &description)?;
        Ok(Described { sdp, streams: summarise(&description.media) })
    }

    fn ensure_leg(&mut self, id: u64, endpoint: Endpoint, party: &Party) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let leg = session.legs.entry(endpoint.party).or_insert_with(|| Leg {
            party: party.clone(),
            streams: Vec::new(),
            // Says nothing but that it is ours, and differs per leg.
            origin: (id ^ u64::from(endpoint.party).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 16,
            version: 0,
            last: None,
        });
        leg.party = party.clone();
    }

    /// Opens what a description needs and the leg has not.
    fn ensure_streams(
        &mut self,
        id: u64,
        party: u16,
        media: &[Media],
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Result<(), Refusal> {
        for (index, media) in media.iter().enumerate() {
            let leg = self
                .sessions
                .get(&id)
                .and_then(|session| session.legs.get(&party))
                .ok_or(Refusal::Unknown)?;
            let known = leg.streams.get(index).copied().flatten();
            let info = leg.party.clone();
            let stream = match known {
                Some(stream) => Some(stream),
                None if media.port == 0 || !media.is_datagram() => None,
                None => {
                    let pair =
                        ports.open(info.realm, is_ipv6(info.signalling.ip())).ok_or(Refusal::NoPorts)?;
                    Some(self.insert(id, party, index, pair, &info))
                }
            };
            if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.legs.get_mut(&party)) {
                if leg.streams.len() <= index {
                    leg.streams.resize(index + 1, None);
                }
                leg.streams[index] = stream;
            }
        }
        let _ = now;
        Ok(())
    }

    fn insert(&mut self, session: u64, party: u16, index: usize, ports: PortPair, info: &Party) -> StreamId {
        let follows = self.settings.follows_rebinding;
        let signalling = info.signalling.ip();
        let stream = Stream {
            session,
            party,
            index,
            ports,
            rtp: Latch::new(signalling, follows),
            rtcp: Latch::new(signalling, follows),
            consumers: smallvec::SmallVec::new(),
            kind: String::new(),
            clocks: Vec::new(),
            codecs: Vec::new(),
            reception: Reception::default(),
            strangers: 0,
            forwarded_report: None,
            signalling,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.streams[id] = Some(stream);
                id
            }
            None => {
                self.streams.push(Some(stream));
                self.streams.len() - 1
            }
        };
        for (socket, is_rtcp) in [(ports.rtp, false), (ports.rtcp, true)] {
            let socket = socket as usize;
            if self.sockets.len() <= socket {
                self.sockets.resize(socket + 1, None);
            }
            self.sockets[socket] = Some((id, is_rtcp));
        }
        id
    }

    /// Takes the addresses and codecs of a description; `only_first` leaves what is agreed alone.
    fn apply_remotes(&mut self, id: u64, party: u16, media: &[Media], only_first: bool, now: Duration) {
        let Some(leg) = self.sessions.get(&id).and_then(|session| session.legs.get(&party)) else { return };
        let signalling = leg.party.signalling.ip();
        let streams = leg.streams.clone();
        for (media, stream) in media.iter().zip(streams) {
            let Some(stream) = stream.and_then(|stream| self.streams.get_mut(stream)?.as_mut()) else {
                continue;
            };
            if only_first && !stream.kind.is_empty() {
                continue;
            }
            stream.kind.clone_from(&media.kind);
            stream.signalling = signalling;
            stream.rtp.signal(media.rtp, signalling, now);
            stream.rtcp.signal(media.rtcp, signalling, now);
            stream.clocks = media
                .codecs
                .iter()
                .map(|(number, name, rate)| (*number, *rate, name.eq_ignore_ascii_case("telephone-event")))
                .collect();
            stream.codecs.clone_from(&media.codecs);
        }
    }

    /// Each of two legs' streams feeds the other's, m-line by m-line; what fed them before no longer does.
    fn connect(&mut self, id: u64, one: u16, other: u16, media: &[Media]) {
        let Some(session) = self.sessions.get(&id) else { return };
        let streams_of =
            |party| session.legs.get(&party).map(|leg: &Leg| leg.streams.clone()).unwrap_or_default();
        let (ones, others) = (streams_of(one), streams_of(other));
        for ((left, right), media) in ones.into_iter().zip(others).zip(media) {
            let (Some(left), Some(right)) = (left, right) else { continue };
            for (from, to) in [(left, right), (right, left)] {
                if let Some(Some(stream)) = self.streams.get_mut(from) {
                    stream.consumers.clear();
                    if media.port != 0 {
                        stream.consumers.push(to);
                    }
                }
            }
        }
    }

    fn describe(&mut self, id: u64, party: u16, description: &Description) -> Result<Bytes, Refusal> {
        let leg =
            self.sessions.get(&id).and_then(|session| session.legs.get(&party)).ok_or(Refusal::Unknown)?;
        let places: Vec<_> = description
            .media
            .iter()
            .enumerate()
            .map(|(index, media)| {
                let stream = leg.streams.get(index).copied().flatten()?;
                (media.port != 0).then_some(self.streams.get(stream)?.as_ref()?.ports.address)
            })
            .collect();
        let address = places.iter().flatten().next().copied().or_else(|| {
            let stream = leg.streams.iter().flatten().next()?;
            Some(self.streams.get(*stream)?.as_ref()?.ports.address)
        });
        let family = match address.map(|address| address.ip()) {
            Some(IpAddr::V6(ip)) => format!("IN IP6 {ip}"),
            Some(IpAddr::V4(ip)) => format!("IN IP4 {ip}"),
            None => "IN IP4 0.0.0.0".to_owned(),
        };
        let body = |version: u64, origin: u64| {
            description.rewrite(&format!("- {origin} {version} {family}"), &places, &self.cname)
        };
        // RFC 3264 §8: the version grows by one if, and only if, the description changed.
        let (origin, version) = (leg.origin, leg.version);
        let same = body(version, origin);
        if leg.last.as_ref() == Some(&same) {
            return Ok(same);
        }
        let next = body(version + 1, origin);
        if let Some(leg) = self.sessions.get_mut(&id).and_then(|session| session.legs.get_mut(&party)) {
            leg.version += 1;
            leg.last = Some(next.clone());
        }
        Ok(next)
    }

    fn select(&mut self, id: u64, winner: Endpoint, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get(&id) else { return };
        let losers: Vec<u16> =
            session.legs.keys().copied().filter(|party| *party != 0 && *party != winner.party).collect();
        for party in losers {
            self.drop_leg(id, party, ports);
        }
    }

    fn drop_leg(&mut self, id: u64, party: u16, ports: &mut dyn Ports) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let gone: Vec<StreamId> =
            session.legs.remove(&party).into_iter().flat_map(|leg| leg.streams).flatten().collect();
        let left: Vec<StreamId> =
            session.legs.values().flat_map(|leg| leg.streams.iter().flatten().copied()).collect();
        for stream in left {
            if let Some(Some(stream)) = self.streams.get_mut(stream) {
                stream.consumers.retain(|consumer| !gone.contains(consumer));
            }
        }
        for stream in gone {
            self.close(stream, ports);
        }
    }

    /// Nothing may feed it any more.
    fn close(&mut self, id: StreamId, ports: &mut dyn Ports) {
        let Some(stream) = self.streams.get_mut(id).and_then(Option::take) else { return };
        self.free.push(id);
        for socket in [stream.ports.rtp, stream.ports.rtcp] {
            if let Some(entry) = self.sockets.get_mut(socket as usize) {
                *entry = None;
            }
        }
        ports.close(stream.ports);
    }

    fn statistics(&self, id: u64) -> Vec<StreamStatistics> {
        let Some(session) = self.sessions.get(&id) else { return Vec::new() };
        let mut found: Vec<_> = session
            .legs
            .values()
            .flat_map(|leg| leg.streams.iter().flatten())
            .filter_map(|stream| self.streams.get(*stream)?.as_ref())
            .map(|stream| {
                let reception = &stream.reception;
                let codec = stream.codecs.iter().find(|codec| Some(codec.0) == reception.payload_type);
                let (name, rate) = codec.map_or(("", 8000), |codec| (codec.1.as_str(), codec.2));
                StreamStatistics {
                    endpoint: Endpoint { party: stream.party, branch: 0 },
                    stream: stream.index as u16,
                    kind: stream.kind.clone(),
                    codec: name.to_owned(),
                    packets: reception.packets,
                    octets: reception.octets,
                    lost: reception.lost(),
                    strangers: stream.strangers,
                    jitter_ms: reception.jitter_ms(rate),
                    rtt_ms: reception.round_trip.map(|time| time.as_secs_f32() * 1000.0),
                    mos: reception.mos(name, rate),
                    dtmf: reception.dtmf,
                }
            })
            .collect();
        found.sort_by_key(|one| (one.endpoint, one.stream));
        found
    }

    /// A packet arrived on a socket: `send` is called for every copy that goes out, with the socket it leaves by.
    #[inline]
    pub fn packet(
        &mut self,
        socket: SocketId,
        source: SocketAddr,
        packet: &[u8],
        now: Duration,
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let Some((id, is_rtcp_port)) = self.sockets.get(socket as usize).copied().flatten() else {
            self.dropped += 1;
            return;
        };
        let Some(Some(stream)) = self.streams.get_mut(id) else { return };
        if is_rtcp_port {
            self.control(id, source, packet, now, send);
            return;
        }
        let header = Header::read(packet);
        if stun::is_stun(packet) || rtp::is_rtcp(packet) {
            // Neither is agreed on this port here: we offer no ICE and no rtcp-mux.
            return;
        }
        let latest =
            header.as_ref().and_then(|header| stream.reception.latest().map(|latest| (header, latest)));
        if !stream.rtp.accepts(source, latest, now) {
            stream.strangers += 1;
            self.dropped += 1;
            return;
        }
        if let Some(header) = header {
            let (rate, is_event) = stream
                .clocks
                .iter()
                .find(|clock| clock.0 == header.payload_type)
                .map_or((8000, false), |clock| (clock.1, clock.2));
            stream.reception.receive(&header, packet.len(), rate, is_event, now);
        }
        let consumers = stream.consumers.clone();
        if let Some(session) = self.sessions.get_mut(&stream.session) {
            session.heard = now;
        }
        for consumer in consumers {
            if let Some(Some(consumer)) = self.streams.get(consumer)
                && let Some(destination) = consumer.rtp.destination()
            {
                send(consumer.ports.rtp, destination, packet);
            }
        }
    }

    fn control(
        &mut self,
        id: StreamId,
        source: SocketAddr,
        packet: &[u8],
        now: Duration,
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let Some(Some(stream)) = self.streams.get_mut(id) else { return };
        if !rtp::is_rtcp(packet) && stream.kind != "image" {
            return;
        }
        if !stream.rtcp.accepts(source, None, now) {
            stream.strangers += 1;
            self.dropped += 1;
            return;
        }
        let mut sender_report = None;
        rtcp::reports(packet, |report| match report {
            Report::Sender { middle, .. } => sender_report = Some(middle),
            Report::Reception { last_sender_report, delay, .. } => {
                // RFC 3550 §6.4.1: from our forwarding of a sender report to its echo, less the time it rested there.
                if let Some((middle, sent)) = stream.forwarded_report
                    && middle == last_sender_report
                    && last_sender_report != 0
                {
                    let rested = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
                    stream.reception.round_trip = now
                        .checked_sub(sent)
                        .and_then(|passed| passed.checked_sub(rested))
                        .or(Some(Duration::ZERO));
                }
            }
        });
        let clean = rtcp::without_names(packet, self.cname.as_bytes());
        let outgoing = clean.as_deref().unwrap_or(packet);
        if outgoing.is_empty() {
            return;
        }
        for consumer in stream.consumers.clone() {
            if let Some(Some(consumer)) = self.streams.get_mut(consumer)
                && let Some(destination) = consumer.rtcp.destination()
            {
                if let Some(middle) = sender_report {
                    consumer.forwarded_report = Some((middle, now));
                }
                send(consumer.ports.rtcp, destination, outgoing);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) has something to do.
    pub fn poll_timeout(&self) -> Option<Duration> {
        (!self.sessions.is_empty()).then_some(self.next_check)
    }

    /// Reports sessions that have gone quiet, each once.
    pub fn handle_timeout(&mut self, now: Duration, mut inactive: impl FnMut(u64)) {
        self.next_check = now + Duration::from_secs(1);
        let Some(limit) = self.settings.inactivity else { return };
        for (id, session) in &mut self.sessions {
            if session.heard + limit <= now && !session.is_held && !session.told_inactive {
                session.told_inactive = true;
                inactive(*id);
            }
        }
    }
}

fn summarise(media: &[Media]) -> Vec<StreamSummary> {
    media
        .iter()
        .map(|media| StreamSummary {
            kind: media.kind.clone(),
            codecs: media
                .codecs
                .iter()
                .map(|codec| codec.1.clone())
                .filter(|name| !name.is_empty())
                .collect(),
            direction: media.direction,
            profile: media.profile.clone(),
            refused: media.port == 0,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Fake {
        next: u32,
        open: usize,
        limit: usize,
    }

    impl Ports for Fake {
        fn open(&mut self, realm: u16, is_ipv6: bool) -> Option<PortPair> {
            if self.open == self.limit {
                return None;
            }
            self.open += 1;
            self.next += 2;
            let port = 10_000 + self.next as u16;
            let address = if is_ipv6 {
                format!("[2001:db8::{realm}]:{port}")
            } else {
                format!("192.0.2.{realm}:{port}")
            };
            Some(PortPair { rtp: self.next, rtcp: self.next + 1, address: address.parse().unwrap() })
        }

        fn close(&mut self, _: PortPair) {
            self.open -= 1;
        }
    }

    const A: Endpoint = Endpoint { party: 0, branch: 0 };
    const B: Endpoint = Endpoint { party: 1, branch: 0 };

    fn sdp(address: &str, port: u16) -> Bytes {
        let kind = if address.contains(':') { "IP6" } else { "IP4" };
        format!("v=0\r\no=- 1 1 IN {kind} {address}\r\ns=-\r\nc=IN {kind} {address}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n").into()
    }

    fn offer() -> Action {
        Action::Offer {
            exchange: 1,
            from: A,
            to: B,
            from_party: Party { realm: 1, signalling: "10.0.0.5:5060".parse().unwrap() },
            to_party: Party { realm: 2, signalling: "[2001:db8:9::1]:5060".parse().unwrap() },
            sdp: sdp("10.0.0.5", 4000),
        }
    }

    fn call(ports: &mut Fake) -> Worker {
        let mut worker = Worker::new(Settings::default(), "anchor".to_owned());
        let now = Duration::from_secs(1);
        assert!(matches!(worker.handle(9, offer(), now, ports), Some(Reply::Description(Ok(_)))));
        let answer = Action::Answer { exchange: 1, from: B, to: A, sdp: sdp("2001:db8:9::1", 5000) };
        assert!(matches!(worker.handle(9, answer, now, ports), Some(Reply::Description(Ok(_)))));
        worker
    }

    fn rtp(sequence: u16) -> Vec<u8> {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&sequence.to_be_bytes());
        packet.extend([0xff; 160]);
        packet
    }

    #[test]
    fn packets_cross_between_families_and_strangers_are_dropped() {
        let mut ports = Fake { limit: 10, ..Fake::default() };
        let mut worker = call(&mut ports);
        let now = Duration::from_secs(2);
        let mut sent = Vec::new();
        worker.packet(2, "10.0.0.5:4000".parse().unwrap(), &rtp(1), now, |socket, to, _| {
            sent.push((socket, to))
        });
        worker.packet(4, "[2001:db8:9::1]:5000".parse().unwrap(), &rtp(1), now, |socket, to, _| {
            sent.push((socket, to))
        });
        worker.packet(4, "[2001:db8:9::666]:5000".parse().unwrap(), &rtp(2), now, |socket, to, _| {
            sent.push((socket, to))
        });
        assert_eq!(
            sent,
            [(4, "[2001:db8:9::1]:5000".parse().unwrap()), (2, "10.0.0.5:4000".parse().unwrap())]
        );
        let Some(Reply::Deleted(statistics)) = worker.handle(9, Action::Delete, now, &mut ports) else {
            panic!()
        };
        assert_eq!(
            statistics.iter().map(|one| (one.packets, one.strangers)).collect::<Vec<_>>(),
            [(1, 0), (1, 1)]
        );
        assert_eq!((ports.open, worker.len()), (0, 0));
    }

    #[test]
    fn no_port_is_lost_when_there_are_too_few() {
        let mut ports = Fake { limit: 1, ..Fake::default() };
        let mut worker = Worker::new(Settings::default(), "x".to_owned());
        let reply = worker.handle(9, offer(), Duration::ZERO, &mut ports);
        assert_eq!(reply, Some(Reply::Description(Err(Refusal::NoPorts))));
        assert_eq!((ports.open, worker.len()), (0, 0));
    }

    #[test]
    fn the_origin_version_grows_only_with_a_change() {
        let mut ports = Fake { limit: 10, ..Fake::default() };
        let mut worker = call(&mut ports);
        let mut again = |exchange, port| {
            let Action::Offer { from, to, from_party, to_party, .. } = offer() else { unreachable!() };
            let action =
                Action::Offer { exchange, from, to, from_party, to_party, sdp: sdp("10.0.0.5", port) };
            let Some(Reply::Description(Ok(described))) =
                worker.handle(9, action, Duration::from_secs(3), &mut ports)
            else {
                panic!()
            };
            described.sdp
        };
        let first = again(2, 4000);
        assert_eq!(again(3, 4000), first, "the far side sees our ports, which did not change");
        assert_eq!(again(4, 4444), first);
    }

    #[test]
    fn a_quiet_session_is_reported_once() {
        let mut ports = Fake { limit: 10, ..Fake::default() };
        let mut worker = call(&mut ports);
        let mut reported = 0;
        for second in 0..700 {
            worker.handle_timeout(Duration::from_secs(second), |_| reported += 1);
        }
        assert_eq!(reported, 1);
    }
}
