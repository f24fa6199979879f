//! A phone: an agent with sockets, a microphone of noise, a loudspeaker that records, a camera that counts.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crush::agent::{Agent, Event, SocketId, StreamId};
use crush::playout::{Step, scale};
use media_wire::handoff::Path;

/// Whether a phone has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Talk {
    Always,
    Never,
    /// So many ms of talk, so many of silence (without packets).
    Spurts(u64, u64),
}

/// µ-law (ITU-T G.711).
pub fn ulaw(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = (i32::from(sample).abs() + 132).min(32_635);
    let exponent = (magnitude >> 7).ilog2().min(7) as u8;
    let mantissa = ((magnitude >> (exponent + 3)) & 0x0F) as u8;
    !(sign | exponent << 4 | mantissa)
}

/// And back.
pub fn unlaw(byte: u8) -> i16 {
    let byte = !byte;
    let (exponent, mantissa) = ((byte >> 4) & 7, i32::from(byte & 0x0F));
    let magnitude = (((mantissa << 3) + 132) << exponent) - 132;
    if byte & 0x80 == 0 { magnitude as i16 } else { -magnitude as i16 }
}

/// The sample that a phone says at a place: noise, so that every window of it is found again.
pub fn said(seed: u64, place: u64) -> i16 {
    let mut word = (place ^ seed.rotate_left(32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    word ^= word >> 29;
    word = word.wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word ^= word >> 32;
    (word as i16) / 2
}

#[derive(Debug)]
pub struct Phone {
    pub agent: Agent,
    pub sockets: HashMap<SocketId, SocketAddr>,
    pub next_socket: u32,
    pub next_port: u16,
    pub address: IpAddr,
    pub events: Vec<(Duration, Event)>,
    pub talk: Talk,
    pub seed: u64,
    pub sequence: u16,
    pub frames: u64,
    /// What was heard, and the steps it came from: (time, step kind, first sample's index).
    pub heard: Vec<i16>,
    pub steps: Vec<(Duration, Heard)>,
    fifo: VecDeque<i16>,
    pub video: Vec<(Duration, u16)>,
    pub first_audio: Option<Duration>,
    pub infos: u32,
}

/// What a step played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// RTP sequence number, samples played.
    Frame(u16, u32),
    Missing,
    Lull,
}

impl Phone {
    pub fn new(agent: Agent, seed: u64, address: IpAddr, talk: Talk) -> Self {
        Self {
            agent,
            sockets: HashMap::new(),
            next_socket: 100,
            next_port: 30_000,
            address,
            events: Vec::new(),
            talk,
            seed,
            sequence: (seed as u16).wrapping_sub(20),
            frames: 0,
            heard: Vec::new(),
            steps: Vec::new(),
            fifo: VecDeque::new(),
            video: Vec::new(),
            first_audio: None,
            infos: 0,
        }
    }

    /// The RTP packet of this tick (each 20 ms), if it speaks.
    pub fn speak(&mut self, now: Duration) -> Option<Vec<u8>> {
        let frame = self.frames;
        self.frames += 1;
        let talks = match self.talk {
            Talk::Always => true,
            Talk::Never => false,
            Talk::Spurts(talk, silence) => (now.as_millis() as u64) % (talk + silence) < talk,
        };
        if !talks {
            return None;
        }
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend(((frame * 160) as u32).wrapping_add(self.seed as u32).to_be_bytes());
        packet.extend((self.seed as u32 | 1).to_be_bytes());
        packet.extend((0..160).map(|n| ulaw(said(self.seed, frame * 160 + n))));
        self.sequence = self.sequence.wrapping_add(1);
        Some(packet)
    }

    /// Plays 10 ms.
    pub fn listen(&mut self, now: Duration) {
        while self.fifo.len() < 80 {
            let at = now + Duration::from_micros(self.fifo.len() as u64 * 125);
            let Some(step) = self.agent.play(StreamId(0), at) else { return };
            let heard = match &step {
                Step::Frame { packet, play, .. } => {
                    let samples: Vec<i16> = packet[12..].iter().map(|byte| unlaw(*byte)).collect();
                    self.first_audio.get_or_insert(now);
                    self.fifo.extend(scale(&samples, *play as usize));
                    Heard::Frame(u16::from_be_bytes([packet[2], packet[3]]), *play)
                }
                Step::Missing { play } => {
                    self.fifo.extend(std::iter::repeat_n(0, *play as usize));
                    Heard::Missing
                }
                Step::Lull { play } => {
                    self.fifo.extend(std::iter::repeat_n(0, *play as usize));
                    Heard::Lull
                }
            };
            self.steps.push((at, heard));
        }
        self.heard.extend(self.fifo.drain(..80));
    }

    /// The paths by which it sends its first stream, and receives the other's.
    pub fn paths(&self) -> (Path, Path) {
        (self.agent.sending_on(StreamId(0)), self.agent.receiving_on(StreamId(0)))
    }

    pub fn when(&self, wanted: impl Fn(&Event) -> bool) -> Option<Duration> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    }

    pub fn direct_at(&self) -> Option<Duration> {
        self.when(|event| matches!(event, Event::Direct { .. }))
    }

    pub fn gave_up_at(&self) -> Option<Duration> {
        self.when(|event| matches!(event, Event::GaveUp { .. }))
    }
}
