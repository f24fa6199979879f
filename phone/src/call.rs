//! One call: what is agreed, what is said and heard, and the agent that knows by which path.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crush::agent::{Agent, Config, Input, Marks, SocketId, StreamId, StreamSetup};
use crush::playout::{Step, scale};
use media_wire::demux::is_rtcp;
use media_wire::handoff::{Kind, Path};
use media_wire::rtp::Header;
use media_wire::sdp::crush::Support;
use media_wire::stun::is_stun;
use srtp::sdes::Crypto;
use srtp::{Master, Suite};

use crate::codec::Codec;
use crate::description::{Direction, Local, Remote};
use crate::encryption::{self, Expected, Protection, Srtp, Unusable};
use crate::random::random;
use crate::rtcp::{self, Reception};
use crate::rtp::Sender;
use crate::sound::{RATE, Recorder, Source};
use crate::video::{self, Camera, Screen};

/// Between looks at the loudspeaker.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// Samples of a tick, and of a packet.
const TICK_SAMPLES: usize = (RATE / 100) as usize;
const FRAME: usize = 2 * TICK_SAMPLES;
/// The streams that a call may have, in the order of their m-lines.
pub(crate) const AUDIO: StreamId = StreamId(0);
pub(crate) const VIDEO: StreamId = StreamId(1);

/// Sockets of a stream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) rtp: (SocketId, SocketAddr),
    pub(crate) rtcp: (SocketId, SocketAddr),
}

/// One stream.
struct Stream {
    sockets: Pair,
    clock_rate: u32,
    sender: Sender,
    reception: Reception,
    /// Where the other end (the SBC) takes media and reports.
    rtp: Option<SocketAddr>,
    rtcp: Option<SocketAddr>,
    direction: Direction,
    /// `None`: plain. All streams in use are encrypted, or none.
    protection: Option<Protection>,
}

impl Stream {
    /// Another key of theirs is another far end, or one that counts anew. As our key stays, our packets begin anew by another SSRC.
    fn encrypt(&mut self, theirs: Option<&Crypto>, ours: &Master) -> Result<(), Unusable> {
        match theirs {
            None => self.protection = None,
            Some(theirs) if self.protection.as_ref().is_some_and(|now| now.is_of(theirs)) => {}
            Some(theirs) => {
                self.sender = Sender::new(random().map_err(|_| Unusable::NoRandomness)?);
                self.protection = Some(Protection::new(theirs, ours));
            }
        }
        Ok(())
    }
}

/// What a call needs of the phone.
pub(crate) struct Setup<'a> {
    pub(crate) sockets: &'a [Pair],
    pub(crate) address: IpAddr,
    pub(crate) config: Config,
    pub(crate) source: Source,
    pub(crate) recorder: Option<Recorder>,
    /// CRUSH is offered.
    pub(crate) crush: bool,
    /// We call.
    pub(crate) is_caller: bool,
    /// 512 unpredictable bits.
    pub(crate) random: [u8; 64],
    pub(crate) srtp: Srtp,
    /// What audio and pictures are encrypted with: unpredictable too.
    pub(crate) keys: [Master; 2],
    pub(crate) now: Duration,
}

/// See the module.
pub(crate) struct Call {
    pub(crate) agent: Agent,
    local: Local,
    remote: Option<Remote>,
    crush: bool,
    /// The other end takes part in CRUSH.
    is_supported: bool,
    streams: Vec<Stream>,
    sound: Sound,
    ticks: u64,
    pub(crate) pictures: Pictures,
    reporting: Reporting,
    /// Media has begun.
    is_up: bool,
    /// Packets of media that were not authentic, or came again by the same path.
    pub(crate) not_authentic: u64,
    /// The encryption that the timeline has told of.
    pub(crate) told: Option<Suite>,
    pub(crate) trickle: Trickle,
    pub(crate) due: Due,
}

/// What is still to be said.
#[derive(Default)]
pub(crate) struct Due {
    /// What answers a call that rings, once its user does.
    pub(crate) answer: Option<String>,
    /// An offer of ours could not be made when it should have been.
    pub(crate) is_offer: bool,
}

/// What is said and heard.
struct Sound {
    codec: Codec,
    source: Source,
    recorder: Option<Recorder>,
    /// Samples that were taken from the agent and not heard yet.
    fifo: VecDeque<i16>,
}

/// What is filmed and seen.
#[derive(Default)]
pub(crate) struct Pictures {
    camera: Camera,
    pub(crate) screen: Screen,
}

/// Its reports.
struct Reporting {
    /// CNAME (RFC 7022).
    name: String,
    /// When the next is due.
    at: Duration,
}

/// INFO of a call: one at a time.
#[derive(Debug, Default)]
pub(crate) struct Trickle {
    /// What is to be said next; each fragment holds all that came before.
    pub(crate) next: Option<String>,
    pub(crate) under_way: Option<String>,
    pub(crate) failures: u32,
}

impl Call {
    pub(crate) fn new(setup: Setup<'_>) -> Self {
        let Setup { sockets, address, config, source, recorder, crush, is_caller, random, srtp, keys, now } =
            setup;
        let kinds = [(Kind::Audio, RATE), (Kind::Video, video::CLOCK)];
        let setups: Vec<StreamSetup> = sockets
            .iter()
            .zip(kinds)
            .map(|(pair, (kind, clock_rate))| {
                let (socket, local) = pair.rtp;
                StreamSetup { kind, clock_rate, frame: FRAME as u32, socket, local }
            })
            .collect();
        let (seed, rest) = random.split_at(32);
        let mut numbers = rest.chunks_exact(10).filter_map(|chunk| <[u8; 10]>::try_from(chunk).ok());
        let mut stream = |(pair, (_, clock_rate)): (&Pair, (Kind, u32))| Stream {
            sockets: *pair,
            clock_rate,
            sender: Sender::new(numbers.next().unwrap_or_default()),
            reception: Reception::default(),
            rtp: None,
            rtcp: None,
            direction: Direction::Both,
            protection: None,
        };
        let streams: Vec<Stream> = sockets.iter().zip(kinds).map(&mut stream).collect();
        let name = rest[20..].iter().map(|byte| format!("{byte:02x}")).collect();
        let session = u64::from_be_bytes(std::array::from_fn(|n| rest[24 + n])) >> 2;
        let agent = Agent::new(config, is_caller, std::array::from_fn(|n| seed[n]), &setups, now);
        let port = |place: usize| sockets.get(place).map(|pair| pair.rtp.1.port());
        let local = Local {
            address,
            session,
            version: 0,
            audio_port: port(0).unwrap_or(0),
            video_port: port(1),
            direction: Direction::Both,
            support: crush.then(|| agent.support_line()),
            srtp,
            keys,
            offered: [None; 2],
        };
        Self {
            agent,
            local,
            remote: None,
            crush,
            is_supported: false,
            streams,
            sound: Sound { codec: Codec::Pcmu, source, recorder, fifo: VecDeque::new() },
            ticks: 0,
            pictures: Pictures::default(),
            reporting: Reporting { name, at: now + rtcp::INTERVAL },
            is_up: false,
            not_authentic: 0,
            told: None,
            trickle: Trickle::default(),
            due: Due::default(),
        }
    }

    /// Our offer, the first or another.
    pub(crate) fn offer(&mut self) -> String {
        self.local.offer(self.remote.as_ref())
    }

    /// Takes their offer, and answers it.
    pub(crate) fn answer(&mut self, offer: &str, now: Duration) -> Result<String, Unusable> {
        let remote = Remote::read(offer, Expected::Offer(self.local.srtp))?;
        // CRUSH's messages count m-lines: with others between ours this is an ordinary call.
        let may = self.crush && Support::find(offer).is_some() && remote.is_in_order();
        self.local.support = may.then(|| self.agent.support_line());
        let answer = self.local.answer(&remote);
        self.agree(remote, if may { offer } else { "" }, now)?;
        Ok(answer)
    }

    /// Takes their answer.
    pub(crate) fn answered(&mut self, answer: &str, now: Duration) -> Result<(), Unusable> {
        let remote = Remote::read(answer, Expected::Answer(self.local.offered))?;
        let may = self.crush && remote.is_in_order();
        self.agree(remote, if may { answer } else { "" }, now)
    }

    fn agree(&mut self, remote: Remote, sdp: &str, now: Duration) -> Result<(), Unusable> {
        for (place, stream) in self.streams.iter_mut().enumerate() {
            stream.encrypt(remote.keys[place].as_ref(), &self.local.keys[place])?;
        }
        let are_keyed: Vec<bool> = self.streams.iter().map(|stream| stream.protection.is_some()).collect();
        self.agent.handle(Input::Keys(&are_keyed), now);
        self.sound.codec = remote.audio.1;
        let places = [Some(remote.audio.0), remote.video];
        for (stream, place) in self.streams.iter_mut().zip(places) {
            let theirs = place.and_then(|place| remote.media.get(place));
            stream.rtp = theirs.and_then(|media| media.rtp);
            stream.rtcp = theirs.and_then(|media| media.rtcp);
            let theirs = theirs.map_or(Direction::Inactive, |media| media.direction.mirrored());
            let ours = self.local.direction;
            stream.direction =
                Direction::new(theirs.sends() && ours.sends(), theirs.receives() && ours.receives());
        }
        self.is_supported = Support::find(sdp).is_some();
        self.remote = Some(remote);
        // RFC 4566's way to hold: no address.
        let sends_to = |rtp: SocketAddr| Some(rtp).filter(|rtp| !rtp.ip().is_unspecified());
        let relays: Vec<Option<SocketAddr>> =
            self.streams.iter().map(|stream| stream.rtp.and_then(sends_to)).collect();
        self.agent.handle(Input::Description { sdp, relays: &relays }, now);
        Ok(())
    }

    /// How a stream is encrypted; `None`: it is plain.
    pub(crate) fn suite(&self, stream: StreamId) -> Option<Suite> {
        Some(self.streams.get(usize::from(stream.0))?.protection.as_ref()?.suite())
    }

    /// Media flows, from who answers with the answer already (RFC 3264 §5.1): the caller hears somebody as soon as anybody is there.
    pub(crate) fn begin(&mut self) {
        self.is_up = true;
    }

    /// The call is up: INFO may be sent.
    pub(crate) fn up(&mut self, now: Duration) {
        self.begin();
        self.agent.handle(Input::Confirmed, now);
    }

    /// Holds, or takes up again; an offer must follow.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.local.direction = Direction::new(true, !is_held);
    }

    /// Other sockets on another network; an offer must follow.
    pub(crate) fn moved(&mut self, address: IpAddr, sockets: &[Pair], now: Duration) {
        self.local.address = address;
        self.local.audio_port = sockets.first().map_or(0, |pair| pair.rtp.1.port());
        self.local.video_port = sockets.get(1).map(|pair| pair.rtp.1.port());
        for (stream, pair) in self.streams.iter_mut().zip(sockets) {
            stream.sockets = *pair;
        }
        let changed: Vec<(SocketId, SocketAddr)> = sockets.iter().map(|pair| pair.rtp).collect();
        self.agent.handle(Input::NetworkChanged(&changed), now);
    }

    pub(crate) fn sockets(&self) -> impl Iterator<Item = Pair> + '_ {
        self.streams.iter().map(|stream| stream.sockets)
    }

    /// A datagram on a socket of the call's.
    pub(crate) fn datagram(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8], now: Duration) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.sockets.rtcp.0 == socket) {
            // baresip opens its NAT with a report in the clear: what is not the peer's is dropped without a word.
            let report = encryption::report(&mut stream.protection, bytes);
            if let Some(report) = report.filter(|report| is_rtcp(report)) {
                stream.reception.report(&report, now);
                if stream.clock_rate == video::CLOCK && rtcp::asks_for_picture(&report, stream.sender.ssrc) {
                    self.pictures.camera.refresh();
                }
            }
            return;
        }
        if is_stun(bytes) {
            return self.agent.handle(Input::Datagram { socket, from, bytes }, now);
        }
        let place = self.streams.iter().position(|stream| stream.sockets.rtp.0 == socket);
        let relay = place.and_then(|place| self.streams[place].rtp);
        // Ordinary peers may send from elsewhere than they receive; nobody but the SBC and CRUSH's peers proves where it is.
        let from = if self.is_supported { from } else { relay.unwrap_or(from) };
        let relayed = place.filter(|_| relay == Some(from));
        let Some(bytes) = self.authentic(bytes, relayed) else {
            self.not_authentic += 1;
            return;
        };
        // What is received is received, by whatever path.
        let stream =
            self.agent.stream_of(socket, from, &bytes).map(|stream| usize::from(stream.0)).or(relayed);
        if let Some(stream) = stream.and_then(|stream| self.streams.get_mut(stream))
            && let Some(header) = Header::of_media(&bytes)
        {
            stream.reception.packet(header, stream.clock_rate, now);
        }
        self.agent.handle(Input::Datagram { socket, from, bytes: &bytes }, now);
    }

    /// What has come in the clear: of an encrypted call only what is the peer's, before anything else looks at it. The direct path carries
    /// all streams on one socket: whose key fits, whose it is.
    fn authentic<'a>(&mut self, bytes: &'a [u8], relayed: Option<usize>) -> Option<Cow<'a, [u8]>> {
        if self.streams.iter().all(|stream| stream.protection.is_none()) {
            return Some(Cow::Borrowed(bytes));
        }
        let (streams, path) = match relayed {
            Some(place) => (&mut self.streams[place..=place], Path::Relay),
            None => (&mut self.streams[..], Path::Direct),
        };
        let mut keys = streams.iter_mut().filter_map(|stream| stream.protection.as_mut());
        keys.find_map(|key| key.rtp(bytes, path)).map(Cow::Owned)
    }

    /// What is due each [`TICK`]: a packet to say each second time, 10 ms to hear, pictures. Whether the recording goes on.
    pub(crate) fn tick(&mut self, now: Duration) -> bool {
        if !self.is_up {
            return true;
        }
        self.ticks += 1;
        if !self.ticks.is_multiple_of(2) {
            self.speak(now);
        }
        if self.streams.len() > 1 && self.ticks.is_multiple_of((video::interval().as_millis() / 10) as u64) {
            self.film(now);
        }
        self.hear(now)
    }

    fn speak(&mut self, now: Duration) {
        let samples = self.sound.source.next(FRAME);
        let Some(stream) = self.streams.first_mut() else { return };
        let Some(samples) = samples.filter(|_| stream.direction.sends()) else {
            return stream.sender.skip(FRAME as u32);
        };
        let payload: Vec<u8> = samples.iter().map(|sample| self.sound.codec.encode(*sample)).collect();
        let packet =
            stream.sender.packet(self.sound.codec.payload_type(), self.ticks == 1, FRAME as u32, &payload);
        let marks = Marks { key_frame: false, lull: self.sound.source.is_silent() };
        let Some(packet) = encryption::protected(&mut stream.protection, packet) else { return };
        self.agent.handle(Input::Media { stream: AUDIO, packet: &packet, marks }, now);
    }

    fn film(&mut self, now: Duration) {
        let (payload, key_frame) = self.pictures.camera.picture();
        let Some(stream) = self.streams.get_mut(1) else { return };
        let ticks = video::CLOCK / video::RATE;
        if !stream.direction.sends() || stream.rtp.is_none() {
            return stream.sender.skip(ticks);
        }
        let packet = stream.sender.packet(video::PAYLOAD_TYPE, true, ticks, &payload);
        let Some(packet) = encryption::protected(&mut stream.protection, packet) else { return };
        self.agent.handle(
            Input::Media { stream: VIDEO, packet: &packet, marks: Marks { key_frame, lull: false } },
            now,
        );
    }

    fn hear(&mut self, now: Duration) -> bool {
        while self.sound.fifo.len() < TICK_SAMPLES {
            let queued = Duration::from_secs(1) * self.sound.fifo.len() as u32 / RATE;
            let Some(step) = self.agent.play(AUDIO, now + queued) else { break };
            let play = step.play() as usize;
            let samples = match &step {
                Step::Frame { packet, .. } => decoded(packet),
                Step::Missing { .. } | Step::Lull { .. } => None,
            };
            match samples {
                Some(samples) => self.sound.fifo.extend(scale(&samples, play)),
                None => self.sound.fifo.extend(std::iter::repeat_n(0, play.max(1))),
            }
        }
        let heard: Vec<i16> = self.sound.fifo.drain(..TICK_SAMPLES.min(self.sound.fifo.len())).collect();
        self.sound.recorder.as_mut().is_none_or(|recorder| recorder.write(&heard).is_ok())
    }

    /// The disk is full: the call goes on without.
    pub(crate) fn stop_recording(&mut self) {
        self.sound.recorder = None;
    }

    /// Whether the other end of the pictures hears that one was lost.
    fn hears_losses(&self) -> bool {
        let place = |remote: &Remote| remote.media.get(remote.video?).map(|media| media.hears_losses());
        self.remote.as_ref().and_then(place).unwrap_or_default()
    }

    /// Reports that are due, and what asks for a key frame: by the relay, whatever path pictures take. From which socket, whereto, what. `wall`: since 1970.
    pub(crate) fn reports(
        &mut self,
        now: Duration,
        wall: Duration,
        spread: Duration,
    ) -> Vec<(SocketId, SocketAddr, Vec<u8>)> {
        let is_due = now >= self.reporting.at;
        let asks = self.hears_losses() && self.pictures.screen.asks(now);
        if !self.is_up || !(is_due || asks) {
            return Vec::new();
        }
        if is_due {
            self.reporting.at = now + rtcp::INTERVAL / 2 + spread;
        }
        let mut reports = Vec::new();
        for (place, stream) in self.streams.iter_mut().enumerate() {
            let asks = asks && place == usize::from(VIDEO.0);
            if let Some(to) = stream.rtcp.filter(|_| is_due || asks) {
                let mut report =
                    rtcp::compound(&stream.sender, &mut stream.reception, &self.reporting.name, now, wall);
                if asks {
                    report.extend(rtcp::picture_loss(stream.sender.ssrc, self.pictures.screen.source));
                }
                let report = encryption::protected_report(&mut stream.protection, report);
                reports.extend(report.map(|report| (stream.sockets.rtcp.0, to, report)));
            }
        }
        reports
    }
}

/// A packet's sound; `None` if it is in no codec of ours.
fn decoded(packet: &[u8]) -> Option<Vec<i16>> {
    let reader = rtp_rs::RtpReader::new(packet).ok()?;
    let codec = Codec::of(reader.payload_type())?;
    Some(reader.payload().iter().map(|byte| codec.decode(*byte)).collect())
}

#[cfg(test)]
mod tests;
