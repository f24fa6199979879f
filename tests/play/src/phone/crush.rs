//! An endpoint of CRUSH: the real agent, with sockets, a voice and an ear. What it hears is what it plays.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::Dice;
use bytes::Bytes;
use crush::agent::{Agent, Config, Event, Input, Marks, Output, SocketId, StreamId, StreamSetup};
use crush::playout::Step;
use media_wire::handoff::{Kind, Path};
use media_wire::sdp::crush::Support;
use media_wire::stun::is_stun;
use nat_lab::{HostId, Network};

use super::device::Model;
use super::plain::{Said, read};
use super::rtcp::{Heard, sender_report};

const AUDIO: StreamId = StreamId(0);
/// Samples in a packet of 20 ms at 8 kHz.
const FRAME: u32 = 160;

/// One of them.
#[derive(Debug)]
pub struct CrushPhone {
    /// Its place in the network.
    pub host: HostId,
    /// Its media's.
    pub local: SocketAddr,
    agent: Agent,
    sockets: BTreeMap<u32, SocketAddr>,
    next_socket: u32,
    model: Model,
    version: u64,
    direction: &'static str,
    said: Option<Said>,
    /// The other end takes part.
    pub is_supported: bool,
    sends: bool,
    /// Whether it listens, as was agreed.
    pub hears: bool,
    ssrc: u32,
    sequence: u32,
    spoken: u32,
    next_report: Duration,
    /// Of the far source: first and highest number, and all that came, by whichever path.
    first: Option<u32>,
    highest: u32,
    got: HashSet<u32>,
    /// RTP that it has sent, with its destination, since somebody looked.
    pub out: Vec<((u32, u16), SocketAddr)>,
    /// Until when it has played.
    played: Option<Duration>,
    /// When it last heard something.
    pub heard: Duration,
    /// How long it heard nothing at most.
    pub longest_silence: Duration,
    /// Candidates for an INFO: one is under way at a time, and each holds what came before.
    pub trickle: Option<String>,
    /// Those of the INFO that has no answer yet.
    pub under_way: Option<String>,
    /// What its agent has told.
    pub events: Vec<Event>,
}

impl CrushPhone {
    /// The first party's agent controls.
    pub fn new(host: HostId, local: SocketAddr, party: usize, model: Model, dice: &mut Dice) -> Self {
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
        let setup =
            StreamSetup { kind: Kind::Audio, clock_rate: 8_000, frame: FRAME, socket: SocketId(1), local };
        Self {
            host,
            local,
            agent: Agent::new(Config::default(), party == 0, seed, &[setup], Duration::ZERO),
            sockets: BTreeMap::from([(1, local)]),
            next_socket: 100,
            model,
            version: 0,
            direction: "sendrecv",
            said: None,
            is_supported: false,
            sends: false,
            hears: false,
            ssrc: 0x1000 + party as u32,
            sequence: dice.below(0xffff) as u32,
            spoken: 0,
            next_report: Duration::ZERO,
            first: None,
            highest: 0,
            got: HashSet::new(),
            out: Vec::new(),
            played: None,
            heard: Duration::ZERO,
            longest_silence: Duration::ZERO,
            trickle: None,
            under_way: None,
            events: Vec::new(),
        }
    }

    /// `is_for_it`: the other end has said that it takes part, or has said nothing yet.
    pub fn describe(&mut self, direction: &'static str, is_for_it: bool) -> Bytes {
        self.version += 1;
        self.direction = direction;
        let (ip, port) = (self.local.ip(), self.local.port());
        let tells = self.model != Model::Declining && is_for_it;
        let support = if tells { format!("{}\r\n", self.agent.support_line()) } else { String::new() };
        format!(
            "v=0\r\no=- 7 {} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\n{support}m=audio {port} RTP/AVP 0\r\na={direction}\r\n",
            self.version
        )
        .into()
    }

    /// Its answer to an offer, which it follows.
    pub fn answer(&mut self, offer: &[u8], now: Duration) -> Bytes {
        let answer = self.describe(read(offer).answering(), support(offer).is_some());
        self.follow(offer, now);
        answer
    }

    /// Does what the far description says.
    pub fn follow(&mut self, sdp: &[u8], now: Duration) {
        let said = read(sdp).following(self.said);
        self.said = Some(said);
        self.is_supported = support(sdp).is_some();
        self.sends = self.direction == "sendrecv" || self.direction == "sendonly";
        self.hears = self.direction == "sendrecv" || self.direction == "recvonly";
        if !self.hears {
            self.heard = now;
        }
        let text = std::str::from_utf8(sdp).expect("text");
        self.agent.handle(Input::Description { sdp: text, relays: &[Some(said.rtp)] }, now);
    }

    /// INFO may be sent, and from now on it should hear something.
    pub fn confirm(&mut self, now: Duration) {
        self.heard = self.heard.max(now);
        self.agent.handle(Input::Confirmed, now);
    }

    /// The far end's, as an INFO brings them.
    pub fn candidates(&mut self, fragment: &[u8], now: Duration) {
        let text = std::str::from_utf8(fragment).expect("text");
        self.agent.handle(Input::Trickle(text), now);
    }

    /// Every 20 ms.
    pub fn speak(&mut self, now: Duration) {
        if !self.sends {
            return;
        }
        self.sequence += 1;
        self.spoken += 1;
        let mut packet = vec![0u8; 12 + FRAME as usize];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&(self.sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&self.sequence.wrapping_mul(FRAME).to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.agent.handle(Input::Media { stream: AUDIO, packet: &packet, marks: Marks::default() }, now);
    }

    /// Tells the relay every five seconds what it has sent and heard.
    pub fn report(&mut self, network: &mut Network, now: Duration) {
        let Some(said) = self.said.filter(|_| now >= self.next_report) else { return };
        self.next_report = now + Duration::from_secs(5);
        let heard = self.first.map(|first| Heard {
            source: self.ssrc ^ 1,
            lost: (self.highest - first + 1) - self.got.len() as u32,
            highest: self.highest,
        });
        let packet = sender_report(self.ssrc, now, [self.spoken, self.spoken * FRAME], heard);
        let local = SocketAddr::new(self.local.ip(), self.local.port() + 1);
        let _ = network.send(self.host, local, said.rtcp, packet.into());
    }

    fn count(&mut self, low: u16) {
        let step = low.wrapping_sub(self.highest as u16);
        if self.first.is_none() {
            (self.first, self.highest) = (Some(low.into()), low.into());
        } else if step < 0x8000 {
            self.highest += u32::from(step);
        }
        let behind = (self.highest as u16).wrapping_sub(low);
        let number = self.highest.checked_sub(behind.into());
        self.got.extend(number.filter(|number| self.first.is_some_and(|first| *number >= first)));
    }

    /// Plays until now.
    pub fn listen(&mut self, now: Duration) {
        let mut at = self.played.unwrap_or(now);
        while at <= now {
            let Some(step) = self.agent.play(AUDIO, at) else { break };
            if matches!(step, Step::Frame { .. }) && self.hears {
                self.longest_silence = self.longest_silence.max(now.saturating_sub(self.heard));
                self.heard = now;
            }
            at += Duration::from_micros(125) * step.play().max(1);
        }
        self.played = Some(at.max(now));
    }

    /// A datagram for one of its sockets.
    pub fn hear(&mut self, source: SocketAddr, at: SocketAddr, bytes: &[u8], now: Duration) {
        let socket = self.sockets.iter().find(|open| *open.1 == at).map(|open| SocketId(*open.0));
        let Some(socket) = socket else { return };
        if let Some((_, number)) = name_of(bytes) {
            self.count(number);
        }
        let mut from = source;
        // Ordinary parties may send from elsewhere than they receive.
        if !is_stun(bytes)
            && !self.is_supported
            && let Some(said) = self.said
        {
            from = said.rtp;
        }
        self.agent.handle(Input::Datagram { socket, from, bytes }, now);
    }

    /// Does what its agent wants, until that wants nothing.
    pub fn settle(&mut self, network: &mut Network, now: Duration) {
        if self.agent.poll_timeout().is_some_and(|due| due <= now) {
            self.agent.handle(Input::Timeout, now);
        }
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Transmit { socket, to, bytes } => {
                    let relay = self.said.map(|said| said.rtp);
                    if self.model == Model::Untold && is_stun(&bytes) && relay == Some(to) {
                        continue;
                    }
                    self.out.extend(name_of(&bytes).map(|name| (name, to)));
                    if let Some(local) = self.sockets.get(&socket.0) {
                        let _ = network.send(self.host, *local, to, bytes.into());
                    }
                }
                Output::Trickle(text) => self.trickle = Some(text),
                Output::OpenSocket { .. } => {
                    let socket = self.next_socket;
                    self.next_socket += 1;
                    let local = SocketAddr::new(self.local.ip(), 30_000 + socket as u16);
                    self.sockets.insert(socket, local);
                    self.agent.handle(Input::SocketOpened { socket: SocketId(socket), local }, now);
                }
                Output::CloseSocket(socket) => {
                    self.sockets.remove(&socket.0);
                }
                Output::Event(event) => self.events.push(event),
                Output::MapAnew | Output::Media { .. } | Output::Rtcp { .. } => {}
            }
        }
    }

    /// Whether what it says goes to the other party itself, and not to one of the relay's addresses.
    pub fn is_away(&self, relay: &[IpAddr]) -> bool {
        let is_elsewhere = self.said.is_some_and(|said| !relay.contains(&said.rtp.ip()));
        is_elsewhere || self.agent.sending_on(AUDIO) == Path::Direct
    }
}

/// Source and number of an RTP packet.
pub fn name_of(bytes: &[u8]) -> Option<(u32, u16)> {
    let [first, kind, high, low, _, _, _, _, one, two, three, four, ..] = *bytes else { return None };
    let is_rtp = (128..192).contains(&first) && !(192..224).contains(&kind);
    is_rtp.then(|| (u32::from_be_bytes([one, two, three, four]), u16::from_be_bytes([high, low])))
}

fn support(sdp: &[u8]) -> Option<Support> {
    Support::find(std::str::from_utf8(sdp).expect("text"))
}
