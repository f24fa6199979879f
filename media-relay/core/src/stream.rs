//! Streams: one m-line as one endpoint has it, and the table that finds them by socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_wire::rtp::{self, Header};
use media_wire::sdp::Media;
use seam::{DirectStatistics, Endpoint, Listener, StreamStatistics};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::clock::{Shift, Timed, timed};
use crate::consumers::Consumers;
use crate::held::Held;
use crate::latch::{Evidence, Latch, Verdict};
use crate::leftover::{Leftovers, Place, Sender};
use crate::open_ports::{Facing, OpenPorts};
use crate::packet::Packet;
use crate::ports::{Component, PortPair, Ports, SocketId, StreamId};
use crate::reported::{Block, Passed, Reported};
use crate::sent::Sent;
use crate::statistics::{Coding, QUIET, Reception};
use crate::transport::{Carried, Mux};

/// A payload type, as an endpoint's description names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Format {
    pub(crate) number: u8,
    pub(crate) rate: u32,
    /// RFC 4733.
    pub(crate) is_event: bool,
    pub(crate) name: Box<str>,
}

/// What became of what was offered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Standing {
    /// No answer was about it.
    #[default]
    Open,
    Agreed,
    /// Answered with port 0.
    Refused,
}

impl Standing {
    /// Whether an answer was about it.
    pub(crate) fn is_agreed(self) -> bool {
        self != Self::Open
    }
}

/// Why nothing is sent to an endpoint, if nothing is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Gate {
    /// By its description.
    pub(crate) is_hung_up: bool,
    /// It is released, and would be called back by what it hears.
    pub(crate) is_released: bool,
}

impl Gate {
    pub(crate) fn is_shut(self) -> bool {
        self.is_hung_up || self.is_released
    }
}

/// Whose a stream is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) session: u64,
    pub(crate) endpoint: Endpoint,
    /// Its m-line, from 0.
    pub(crate) index: u16,
    /// The number in the o= line of descriptions that name its ports.
    pub(crate) origin: u64,
}

/// What descriptions say of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Terms {
    /// The kind of media, empty until a description of its own has come.
    pub(crate) kind: Box<str>,
    pub(crate) formats: Box<[Format]>,
    /// Payload types that the description on the other side names.
    pub(crate) far_formats: SmallVec<[u8; 8]>,
}

/// What is said of it in reports.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Said {
    /// By its sender.
    pub(crate) sent: Sent,
    /// By its receiver.
    pub(crate) reported: Reported,
    /// The last sender report that went out of this stream, for its round trip.
    pub(crate) forwarded: Option<(u32, Duration)>,
    /// Packets that were sent to its endpoint before it was known where that is, and not to there.
    pub(crate) astray: u64,
}

timed!(Said { sent, reported, forwarded; astray });

/// The relay's second address, where a NAT is learnt.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// Ports there; after that the ones before, until they are closed.
    pub(crate) spare: Option<PortPair>,
    /// Where it was heard from there, which has become its own.
    pub(crate) taken: Option<SocketAddr>,
}

/// One m-line as one endpoint has it: a pair of ports facing it, shared with the other branches of its party.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stream {
    pub(crate) owner: Owner,
    pub(crate) ports: PortPair,
    pub(crate) rtp: Latch,
    pub(crate) rtcp: Latch,
    pub(crate) consumers: Consumers,
    pub(crate) carried: Carried,
    pub(crate) mux: Mux,
    pub(crate) gate: Gate,
    pub(crate) standing: Standing,
    pub(crate) terms: Terms,
    pub(crate) reception: Reception,
    pub(crate) strangers: u64,
    pub(crate) held: Option<Box<Held>>,
    pub(crate) second: Second,
    pub(crate) said: Said,
}

impl Timed for Stream {
    fn shift(&mut self, by: Shift) {
        let rate = self.coding(self.reception.payload_type.unwrap_or_default()).clock_rate;
        self.reception.shift_arrivals(rate, by);
        self.reception.shift(by);
        self.rtp.shift(by);
        self.rtcp.shift(by);
        self.held.shift(by);
        self.said.shift(by);
    }
}

impl Stream {
    /// Of which nothing was said yet.
    pub(crate) fn new(owner: Owner, ports: PortPair, [rtp, rtcp]: [Latch; 2], consumers: Consumers) -> Self {
        Self {
            owner,
            ports,
            rtp,
            rtcp,
            consumers,
            carried: Carried::Clear,
            mux: Mux::No,
            gate: Gate::default(),
            standing: Standing::Open,
            terms: Terms::default(),
            reception: Reception::default(),
            strangers: 0,
            held: None,
            second: Second::default(),
            said: Said::default(),
        }
    }

    pub(crate) fn format(&self, number: Option<u8>) -> Option<&Format> {
        self.terms.formats.iter().find(|format| Some(format.number) == number)
    }

    /// What is counted by when a packet of this payload type comes.
    #[inline]
    pub(crate) fn coding(&self, number: u8) -> Coding {
        self.format(Some(number))
            .map_or(Coding::default(), |format| Coding { clock_rate: format.rate, is_event: format.is_event })
    }

    /// Keeps what is sent to it while nobody has been heard where it goes.
    #[inline]
    pub(crate) fn hold(&mut self, packet: &[u8], now: Duration) {
        if !self.rtp.is_learnt() {
            Held::keep(&mut self.held, packet, self.rtp.destination(), now);
        }
    }

    /// It has been heard: sends what was held, unless it went to that very address.
    #[inline]
    pub(crate) fn send_held(&mut self, now: Duration, send: impl FnOnce(SocketId, SocketAddr, &[u8])) {
        if self.held.is_none() || !self.rtp.is_learnt() {
            return;
        }
        let (Some(held), Some(destination)) = (self.held.take(), self.rtp.destination()) else { return };
        let packet = held.due(destination, now).filter(|_| !self.gate.is_shut());
        let astray = held.astray(destination).saturating_sub(packet.is_some().into());
        self.said.astray = self.said.astray.saturating_add(astray);
        if let Some(packet) = packet {
            send(self.ports.rtp, destination, packet);
        }
    }

    /// What a description of its endpoint says of it. Latches are told apart from this: their addresses count at other times.
    pub(crate) fn describe(&mut self, media: &Media) {
        if *self.terms.kind != *media.kind {
            self.terms.kind = media.kind.as_str().into();
        }
        self.carried = match (media.is_rtp(), media.is_secure) {
            (false, _) => Carried::Other,
            (true, true) => Carried::Secure,
            (true, false) => Carried::Clear,
        };
        self.gate.is_hung_up = media.is_parked;
        self.mux = Mux::of(media.rtcp_mux, self.mux == Mux::Yes);
        self.terms.formats = media
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

    /// Where a description says that it is. A phone that was checked through the relay may name one of `ours`, as where it was
    /// seen: that is not where it is.
    pub(crate) fn signal(&mut self, media: &Media, ours: &[SocketAddr], signalling: IpAddr, now: Duration) {
        let is_ours = |address: Option<SocketAddr>| address.is_some_and(|address| ours.contains(&address));
        for (latch, address) in [(&mut self.rtp, media.rtp), (&mut self.rtcp, media.rtcp)] {
            let address = if is_ours(address) { latch.signalled() } else { address };
            latch.signal(address, signalling, now);
        }
    }

    /// Whether anything came to its ports.
    fn was_heard(&self) -> bool {
        self.reception.packets > 0 || self.strangers > 0 || self.rtcp.heard().is_some()
    }

    /// Whom its ports are not to hear in a later call: who sent RTP, and who sent RTCP.
    fn leftovers(&self) -> [Option<Sender>; 2] {
        let rate = self.format(self.reception.payload_type).map_or(8000, |format| format.rate);
        let place = |at| {
            let (ssrc, sequence) = self.reception.last().filter(|_| self.carried != Carried::Other)?;
            Some(Place { ssrc, sequence, timestamp: self.reception.timestamp_at(rate, at), rate })
        };
        [&self.rtp, &self.rtcp].map(|latch| {
            let (source, at) = latch.heard()?;
            Some(Sender { source, rtp: place(at), at })
        })
    }

    /// Whether something else than RTP comes from its endpoint; it teaches where that is.
    #[cold]
    pub(crate) fn takes(&mut self, component: Component, source: SocketAddr, now: Duration) -> bool {
        if component.is_rtcp() {
            return self.rtcp.takes(source, now);
        }
        let before = self.rtp.destination();
        let is_taken = self.rtp.takes(source, now);
        if is_taken && before != Some(source) && self.rtp.destination() == Some(source) {
            self.rtcp.follow(source.ip(), now);
        }
        is_taken
    }

    /// Whether an RTP packet of a source not known yet is its endpoint's; `None`: no RTP, where another protocol was agreed on.
    #[cold]
    pub(crate) fn meets(
        &mut self,
        source: SocketAddr,
        packet: &[u8],
        header: Option<&Header>,
        now: Duration,
    ) -> Verdict {
        let latest = self.reception.latest();
        let evidence = match header {
            Some(header) if rtp::is_sound(packet) => {
                let number = header.payload_type;
                let is_agreed =
                    self.format(Some(number)).is_some() || self.terms.far_formats.contains(&number);
                Evidence::Media { header, latest, is_agreed }
            }
            Some(_) => return Verdict::Stranger,
            None => Evidence::Other,
        };
        let before = self.rtp.destination();
        let verdict = self.rtp.judge(source, evidence, now);
        // A NAT that rebinds, or a party that moves, moves its RTCP too.
        if verdict == Verdict::Learnt && before != Some(source) {
            self.rtcp.follow(source.ip(), now);
        }
        verdict
    }

    /// Since when it goes past the relay, if what its sender counts or its receiver gets shows that.
    pub(crate) fn elsewhere_since(&self) -> Option<Duration> {
        self.said.sent.elsewhere_since(self.reception.here())
    }

    /// A report of who receives it; whose author may have begun to count anew. One about a source that is not known is none of it.
    pub(crate) fn reported_by_its_receiver(
        &mut self,
        block: Block,
        is_anew: bool,
        astray: u64,
        now: Duration,
    ) {
        let here = self.reception.here();
        if here.is_none_or(|here| here.ssrc != block.ssrc) && self.said.sent.ssrc() != Some(block.ssrc) {
            return;
        }
        self.said.sent.reached(block.ssrc, block.highest, here);
        let passed = Passed { astray, ..self.reception.passed(block.ssrc, is_anew) };
        self.said.reported.hear(block, passed, now);
    }

    /// SRTCP: its type is all that is in clear (RFC 3711 §3.4).
    pub(crate) fn count_sealed(&mut self, packet: &[u8]) {
        match packet.get(1) {
            Some(200) => self.said.sent.count_sealed(self.reception.here()),
            Some(201) => self.said.sent.sealed_silence(),
            _ => {}
        }
    }

    /// What is known of the part of it that the relay did not carry.
    fn direct(&self, rate: u32, is_open: bool) -> Option<DirectStatistics> {
        let tally = self.said.reported.direct();
        (tally.is_some() || is_open || self.reception.elsewhere > 0).then(|| DirectStatistics {
            packets: tally.map(|tally| tally.expected),
            lost: tally.map(|tally| tally.lost),
            jitter_ms: tally.map(|tally| (f64::from(tally.jitter) * 1000.0 / f64::from(rate.max(1))) as f32),
        })
    }

    /// What came from it, until `now`; `far` is the round trip to who hears it.
    pub(crate) fn statistics(&self, far: Option<Duration>, now: Duration) -> StreamStatistics {
        let reception = &self.reception;
        let (name, rate) =
            self.format(reception.payload_type).map_or(("", 8000), |format| (&*format.name, format.rate));
        // The end of a call that is direct, of which no number tells.
        let away = now.saturating_sub(reception.heard);
        let open = if reception.is_elsewhere() && away > QUIET { away } else { Duration::ZERO };
        let loss = reception.loss(&self.said.reported, &self.said.sent, open);
        StreamStatistics {
            endpoint: self.owner.endpoint,
            stream: self.owner.index,
            kind: (*self.terms.kind).into(),
            codec: name.into(),
            packets: reception.packets,
            octets: reception.octets,
            lost: reception.lost(),
            strangers: self.strangers,
            jitter_ms: reception.jitter_ms(rate),
            rtt_ms: reception.round_trip.map(|time| time.as_secs_f32() * 1000.0),
            mos: loss.and_then(|loss| reception.mos((name, rate), loss, self.said.reported.jitter(), far)),
            whole: loss,
            dtmf: reception.dtmf,
            direct: self.direct(rate, !open.is_zero()),
        }
    }
}

/// The streams that hear a socket: one, or one for each branch of a forked party.
#[derive(Debug, Clone, Default)]
pub(crate) struct Socket {
    pub(crate) streams: SmallVec<[StreamId; 2]>,
    pub(crate) component: Component,
    /// Of calls before; nothing at a port that was never used.
    pub(crate) leftovers: Option<Box<Leftovers>>,
    /// Something came to it in this call.
    was_heard: bool,
}

/// The streams of one worker.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    places: Vec<Option<Stream>>,
    free: Vec<StreamId>,
    sockets: Vec<Socket>,
    /// Of ports that are closed, by pair; at most as many as there are ports.
    leftovers: BTreeMap<SocketAddr, [Option<Box<Leftovers>>; 2]>,
    /// Those of all workers.
    pub(crate) open: OpenPorts,
}

impl Streams {
    /// None; `open` is told of their ports.
    pub(crate) fn new(open: OpenPorts) -> Self {
        Self { open, ..Self::default() }
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.places.get(id as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.places.get_mut(id as usize)?.as_mut()
    }

    /// Of those that its packets go out of, by number.
    #[inline]
    pub(crate) fn peer(&self, id: StreamId, place: usize) -> Option<StreamId> {
        self.get(id)?.consumers.peer(place)
    }

    pub(crate) fn socket(&self, socket: SocketId) -> Option<&Socket> {
        self.sockets.get(socket as usize)
    }

    pub(crate) fn insert(&mut self, stream: Stream) -> StreamId {
        let (ports, second) = (stream.ports, &stream.second);
        let spare = second.spare.zip(Some(second.taken.is_some()));
        let (origin, session, party) =
            (stream.owner.origin, stream.owner.session, stream.owner.endpoint.party);
        self.open.opened(ports.address, Facing { origin, session, party });
        let id = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len().saturating_sub(1) as StreamId
        });
        if let Some(place) = self.places.get_mut(id as usize) {
            *place = Some(stream);
        }
        self.listen(id, ports, [Component::Rtp, Component::Rtcp]);
        if let Some((spare, is_old)) = spare {
            let components = if is_old {
                [Component::Rtp, Component::Rtcp]
            } else {
                [Component::Spare, Component::SpareRtcp]
            };
            self.listen(id, spare, components);
        }
        id
    }

    fn listen(&mut self, id: StreamId, ports: PortPair, components: [Component; 2]) {
        let mut leftovers = self.leftovers.remove(&ports.address).unwrap_or_default().into_iter();
        for (number, component) in [ports.rtp, ports.rtcp].into_iter().zip(components) {
            let number = number as usize;
            if self.sockets.len() <= number {
                self.sockets.resize(number.saturating_add(1), Socket::default());
            }
            let left = leftovers.next().flatten();
            let Some(socket) = self.sockets.get_mut(number) else { continue };
            if socket.streams.is_empty() {
                // The same number may be another port now.
                (socket.leftovers, socket.was_heard) = (left, false);
            }
            if !socket.streams.contains(&id) {
                socket.streams.push(id);
            }
            socket.component = component;
        }
    }

    /// Hears these ports no more; with the last stream that did they are given back.
    fn leave(
        &mut self,
        id: StreamId,
        pair: PortPair,
        (was_heard, senders): (bool, [Option<Sender>; 2]),
        ports: &mut dyn Ports,
    ) {
        let (mut is_last, mut heard) = (true, false);
        for (number, sender) in [pair.rtp, pair.rtcp].into_iter().zip(senders) {
            let Some(socket) = self.sockets.get_mut(number as usize) else { continue };
            socket.streams.retain(|other| *other != id);
            socket.was_heard |= was_heard;
            if let Some(sender) = sender {
                socket.leftovers.get_or_insert_default().remember(sender);
            }
            is_last &= socket.streams.is_empty();
            heard |= socket.was_heard;
        }
        if !is_last {
            return;
        }
        self.open.closed(pair.address);
        let left =
            [pair.rtp, pair.rtcp].map(|number| self.sockets.get_mut(number as usize)?.leftovers.take());
        if left.iter().any(Option::is_some) {
            self.leftovers.insert(pair.address, left);
        }
        if heard { ports.close(pair) } else { ports.close_unheard(pair) }
    }

    /// Somebody hears these from now on.
    pub(crate) fn attach(&mut self, listener: Listener, own: &[StreamId]) {
        for id in own {
            if let Some(stream) = self.get_mut(*id) {
                stream.consumers.attach(listener);
            }
        }
    }

    /// And not any more.
    pub(crate) fn detach(&mut self, listener: Listener, own: &[StreamId]) {
        for id in own {
            if let Some(stream) = self.get_mut(*id) {
                stream.consumers.detach(listener);
            }
        }
    }

    /// Whether a packet for a stream comes from a call that used its port before ([`leftover`](crate::leftover)).
    pub(crate) fn is_left_over(&mut self, packet: Packet<'_>) -> bool {
        let Packet { socket, stream: id, source, bytes, now, .. } = packet;
        let Some(socket) = self.sockets.get_mut(socket as usize) else { return false };
        let Some(left) = socket.leftovers.as_mut() else { return false };
        let Some(stream) = self.places.get_mut(id as usize).and_then(Option::as_mut) else { return false };
        let latch = if socket.component.is_rtcp() { &stream.rtcp } else { &stream.rtp };
        if latch.owns(source) || latch.signalled() == Some(source) {
            return false;
        }
        let is_so = left.continues(source, bytes, stream.carried, now);
        stream.strangers = stream.strangers.saturating_add(u64::from(is_so));
        is_so
    }

    /// Opens ports for a stream at another address of its realm; false if there is none.
    pub(crate) fn open_spare(&mut self, id: StreamId, realm: u16, ports: &mut dyn Ports) -> bool {
        let Some(stream) = self.get(id) else { return false };
        if stream.second.spare.is_some() {
            return true;
        }
        let Some(spare) = ports.open_elsewhere(realm, stream.ports.address.ip()) else { return false };
        self.listen(id, spare, [Component::Spare, Component::SpareRtcp]);
        if let Some(stream) = self.get_mut(id) {
            stream.second.spare = Some(spare);
        }
        true
    }

    /// It was heard from `source` at its spare ports: they are its own now.
    pub(crate) fn take_spare(&mut self, id: StreamId, source: SocketAddr) {
        let Some(stream) = self.get_mut(id) else { return };
        let Some(new) = stream.second.spare.replace(stream.ports) else { return };
        (stream.ports, stream.second.taken) = (new, Some(source));
        self.listen(id, new, [Component::Rtp, Component::Rtcp]);
    }

    pub(crate) fn close_spare(&mut self, id: StreamId, ports: &mut dyn Ports) {
        let Some(stream) = self.get_mut(id) else { return };
        let Some(spare) = stream.second.spare.take() else { return };
        let heard = (stream.was_heard(), stream.leftovers());
        self.leave(id, spare, heard, ports);
    }

    pub(crate) fn has_spare(&self, id: StreamId) -> bool {
        self.get(id).is_some_and(|stream| stream.second.spare.is_some())
    }

    /// Nothing may feed it any more. Its ports go back with the last stream that has them.
    pub(crate) fn remove(&mut self, id: StreamId, ports: &mut dyn Ports) -> Option<Stream> {
        let stream = self.places.get_mut(id as usize)?.take()?;
        self.free.push(id);
        for pair in [Some(stream.ports), stream.second.spare].into_iter().flatten() {
            self.leave(id, pair, (stream.was_heard(), stream.leftovers()), ports);
        }
        Some(stream)
    }
}
