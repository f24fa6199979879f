//! The attributes of HANDOFF messages (docs/crush.md §7.1), and what a sender tells the relay (§3.1).

mod report;

use std::fmt;
use std::time::Duration;

pub use report::{Report, Sending};

use crate::stun::{Class, Incoming, Key, Method, Outgoing};

/// What an m-line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Synchronises the paths.
    Audio,
    /// Moves abruptly, at a key frame.
    Video,
}

/// One of the two ways between the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Through the SBC.
    Relay,
    /// From endpoint to endpoint.
    Direct,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Direct => "direct",
        })
    }
}

/// CRUSH-SEQUENCE.
pub const SEQUENCE: u16 = 0xC0C0;
/// CRUSH-PATH.
pub const PATH: u16 = 0xC0C1;
/// CRUSH-STREAM.
pub const STREAM: u16 = 0xC0C2;
/// CRUSH-SWITCH.
pub const SWITCH: u16 = 0xC0C3;
/// CRUSH-FIGURES.
pub const FIGURES: u16 = 0xC0C4;
/// CRUSH-TEST.
pub const TEST: u16 = 0xC0C5;

/// At most as many streams are read from one message.
const STREAMS: usize = 32;

/// Where a request wants media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// On this path alone, from the switch on.
    Path(Path),
    /// Audio on both for so long, to compare them.
    Both(Duration),
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Both paths are synchronised.
    Synchronised,
    /// The direct path delivers nothing.
    Missing,
    /// The other path is better.
    Quality,
    /// The SBC or the application forbids the direct path.
    Policy,
    /// The local address changed.
    Network,
    /// Consent ran out (RFC 7675).
    Consent,
    /// A comparison of both paths.
    Comparison,
    /// The application asked.
    Application,
}

const REASONS: [Reason; 8] = [
    Reason::Synchronised,
    Reason::Missing,
    Reason::Quality,
    Reason::Policy,
    Reason::Network,
    Reason::Consent,
    Reason::Comparison,
    Reason::Application,
];

impl Reason {
    pub(super) fn number(self) -> u8 {
        REASONS.iter().position(|reason| *reason == self).map_or(0, |place| (place as u8).saturating_add(1))
    }

    pub(super) fn numbered(number: u8) -> Option<Self> {
        REASONS.get(usize::from(number).checked_sub(1)?).copied()
    }
}

/// When a stream moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// With the next packet.
    Now,
    /// With the first packet of this or a later sequence number (modulo 2^16).
    Sequence(u16),
    /// With the first packet of this or a later timestamp (modulo 2^32).
    Timestamp(u32),
    /// With the next packet that begins a key frame.
    KeyFrame,
    /// With the next packet of a lull.
    Lull,
}

/// How a stream moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Old path up to the switch, new path from it on.
    Hard,
    /// Both paths for so long after the switch.
    Soft(Duration),
}

/// One CRUSH-STREAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// Index of the m-line, from 0.
    pub stream: u8,
    /// What it carries.
    pub kind: Kind,
    /// Its sender's SSRC; 0 for whatever it sends.
    pub ssrc: u32,
    /// When.
    pub condition: Condition,
    /// How.
    pub mode: Mode,
    /// After so long it moves even if the condition has not come true.
    pub limit: Duration,
}

/// CRUSH-FIGURES: what the receiver measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Figures {
    /// Direct minus relay, milliseconds.
    pub differential_ms: f64,
    /// Interarrival jitter on the relay, milliseconds.
    pub relay_jitter_ms: f64,
    /// Interarrival jitter on the direct path, milliseconds.
    pub direct_jitter_ms: f64,
    /// Share lost on the relay, 0 to 1.
    pub relay_loss: f64,
    /// Share lost on the direct path, 0 to 1.
    pub direct_loss: f64,
    /// Packets seen on both.
    pub compared: u32,
}

/// What a message of an endpoint bears beside what it says.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// 96 bits.
    pub transaction: u128,
    /// Ufrag of whom it is for.
    pub receiver: &'a str,
    /// Ufrag of whom it is from.
    pub sender: &'a str,
    /// The receiver's.
    pub key: &'a Key,
}

impl Envelope<'_> {
    fn begin(&self, class: Class) -> Outgoing {
        Outgoing::new(Method::Handoff, class, self.transaction).username(self.receiver, self.sender)
    }
}

/// A HANDOFF request.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// CRUSH-SEQUENCE.
    pub sequence: u32,
    /// Where to.
    pub target: Target,
    /// Why.
    pub reason: Reason,
    /// Which streams go direct; empty for all. Everything else concerns all of them.
    pub moves: Vec<Move>,
    /// What the receiver measured.
    pub figures: Option<Figures>,
}

/// One CRUSH-SWITCH of a success response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Switch {
    /// Index of the m-line.
    pub stream: u8,
    /// First sequence number of the new path, if the condition has come true already.
    pub at: Option<u16>,
    /// The sender's SSRC; 0 if it has sent nothing yet.
    pub ssrc: u32,
}

/// What an indication says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Indication {
    /// The path carries.
    Keepalive,
    /// The same on both paths, where there is no audio.
    Test {
        /// Counts from 1.
        number: u32,
        /// The sender's clock, milliseconds.
        clock: u32,
    },
}

fn milliseconds(duration: Duration) -> [u8; 2] {
    (duration.as_millis().min(u128::from(u16::MAX)) as u16).to_be_bytes()
}

fn duration(bytes: [u8; 2]) -> Duration {
    Duration::from_millis(u64::from(u16::from_be_bytes(bytes)))
}

impl Move {
    fn write(&self) -> [u8; 16] {
        let (condition, value) = match self.condition {
            Condition::Now => (0, 0),
            Condition::Sequence(number) => (1, u32::from(number)),
            Condition::Timestamp(timestamp) => (2, timestamp),
            Condition::KeyFrame => (3, 0),
            Condition::Lull => (4, 0),
        };
        let (mode, overlap) = match self.mode {
            Mode::Hard => (0, Duration::ZERO),
            Mode::Soft(overlap) => (1, overlap),
        };
        let kind = match self.kind {
            Kind::Audio => 1,
            Kind::Video => 2,
        };
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&[self.stream, kind, condition, mode]);
        bytes[4..8].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[8..12].copy_from_slice(&value.to_be_bytes());
        bytes[12..14].copy_from_slice(&milliseconds(self.limit));
        bytes[14..].copy_from_slice(&milliseconds(overlap));
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let [stream, kind, condition, mode, a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 16] =
            bytes.try_into().ok()?;
        let value = u32::from_be_bytes([e, f, g, h]);
        Some(Self {
            stream,
            kind: match kind {
                1 => Kind::Audio,
                2 => Kind::Video,
                _ => return None,
            },
            ssrc: u32::from_be_bytes([a, b, c, d]),
            condition: match condition {
                0 => Condition::Now,
                1 => Condition::Sequence(u16::try_from(value).ok()?),
                2 => Condition::Timestamp(value),
                3 => Condition::KeyFrame,
                4 => Condition::Lull,
                _ => return None,
            },
            mode: match mode {
                0 => Mode::Hard,
                1 => Mode::Soft(duration([k, l])),
                _ => return None,
            },
            limit: duration([i, j]),
        })
    }
}

impl Figures {
    fn write(&self) -> [u8; 16] {
        let tenths = |ms: f64| (ms * 10.0).round().clamp(0.0, f64::from(u16::MAX)) as u16;
        let share = |loss: f64| (loss.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16;
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&((self.differential_ms * 10.0).round() as i32).to_be_bytes());
        bytes[4..6].copy_from_slice(&tenths(self.relay_jitter_ms).to_be_bytes());
        bytes[6..8].copy_from_slice(&tenths(self.direct_jitter_ms).to_be_bytes());
        bytes[8..10].copy_from_slice(&share(self.relay_loss).to_be_bytes());
        bytes[10..12].copy_from_slice(&share(self.direct_loss).to_be_bytes());
        bytes[12..].copy_from_slice(&self.compared.to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]: [u8; 16] = bytes.try_into().ok()?;
        let half = |bytes| f64::from(u16::from_be_bytes(bytes));
        Some(Self {
            differential_ms: f64::from(i32::from_be_bytes([a, b, c, d])) / 10.0,
            relay_jitter_ms: half([e, f]) / 10.0,
            direct_jitter_ms: half([g, h]) / 10.0,
            relay_loss: half([i, j]) / f64::from(u16::MAX),
            direct_loss: half([k, l]) / f64::from(u16::MAX),
            compared: u32::from_be_bytes([m, n, o, p]),
        })
    }
}

impl Request {
    /// The whole message.
    pub fn write(&self, envelope: &Envelope<'_>) -> Vec<u8> {
        let (path, time) = match self.target {
            Target::Path(Path::Relay) => (0, Duration::ZERO),
            Target::Path(Path::Direct) => (1, Duration::ZERO),
            Target::Both(time) => (2, time),
        };
        let [high, low] = milliseconds(time);
        let mut message = envelope
            .begin(Class::Request)
            .with(SEQUENCE, &self.sequence.to_be_bytes())
            .with(PATH, &[path, self.reason.number(), high, low]);
        for one in &self.moves {
            message = message.with(STREAM, &one.write());
        }
        if let Some(figures) = &self.figures {
            message = message.with(FIGURES, &figures.write());
        }
        message.sealed(envelope.key)
    }

    /// `None` if an attribute is missing or malformed. What only concerns moves to the direct path is not looked at elsewhere: a
    /// return is to be obeyed whatever else it says.
    pub fn read(message: &Incoming<'_>) -> Option<Self> {
        let [path, reason, high, low]: [u8; 4] = message.value(PATH)?.try_into().ok()?;
        let target = match path {
            0 => Target::Path(Path::Relay),
            1 => Target::Path(Path::Direct),
            2 => Target::Both(duration([high, low])),
            _ => return None,
        };
        let is_move = target == Target::Path(Path::Direct);
        let moves = message.values(STREAM).filter(|_| is_move).take(STREAMS);
        Some(Self {
            sequence: message.word(SEQUENCE)?,
            target,
            reason: Reason::numbered(reason)?,
            moves: moves.map(Move::read).collect::<Option<_>>()?,
            figures: message.value(FIGURES).and_then(Figures::read),
        })
    }
}

/// A success response.
pub fn write_success(transaction: u128, switches: &[Switch], key: &Key) -> Vec<u8> {
    let mut message = Outgoing::new(Method::Handoff, Class::Success, transaction);
    for switch in switches {
        let mut bytes = [0; 8];
        bytes[0] = switch.stream;
        bytes[1] = u8::from(switch.at.is_some());
        bytes[2..4].copy_from_slice(&switch.at.unwrap_or(0).to_be_bytes());
        bytes[4..].copy_from_slice(&switch.ssrc.to_be_bytes());
        message = message.with(SWITCH, &bytes);
    }
    message.sealed(key)
}

/// An error response.
pub fn write_error(transaction: u128, code: u16, key: &Key) -> Vec<u8> {
    Outgoing::new(Method::Handoff, Class::Error, transaction).error_code(code).sealed(key)
}

/// The error response to a request with attributes that are not understood.
pub fn write_not_understood(transaction: u128, unknown: &[u16], key: &Key) -> Vec<u8> {
    Outgoing::new(Method::Handoff, Class::Error, transaction).not_understood(unknown).sealed(key)
}

/// The CRUSH-SWITCH attributes of a success response; malformed ones are left out.
pub fn read_switches(message: &Incoming<'_>) -> Vec<Switch> {
    message
        .values(SWITCH)
        .take(STREAMS)
        .filter_map(|value| {
            let [stream, is_told, high, low, a, b, c, d]: [u8; 8] = value.try_into().ok()?;
            let at = (is_told == 1).then_some(u16::from_be_bytes([high, low]));
            Some(Switch { stream, at, ssrc: u32::from_be_bytes([a, b, c, d]) })
        })
        .collect()
}

impl Indication {
    /// The whole message.
    pub fn write(self, sequence: u32, envelope: &Envelope<'_>) -> Vec<u8> {
        let message = envelope.begin(Class::Indication).with(SEQUENCE, &sequence.to_be_bytes());
        match self {
            Self::Keepalive => message,
            Self::Test { number, clock } => {
                let mut bytes = [0; 8];
                bytes[..4].copy_from_slice(&number.to_be_bytes());
                bytes[4..].copy_from_slice(&clock.to_be_bytes());
                message.with(TEST, &bytes)
            }
        }
        .sealed(envelope.key)
    }

    /// With its CRUSH-SEQUENCE.
    pub fn read(message: &Incoming<'_>) -> Option<(u32, Self)> {
        let sequence = message.word(SEQUENCE)?;
        Some(match message.value(TEST) {
            None => (sequence, Self::Keepalive),
            Some(value) => {
                let [a, b, c, d, e, f, g, h]: [u8; 8] = value.try_into().ok()?;
                let (number, clock) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]));
                (sequence, Self::Test { number, clock })
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_as_it_was_written() {
        let key = Key::new("secret");
        let ms = Duration::from_millis;
        let conditions = [
            (Condition::Now, Mode::Soft(ms(140))),
            (Condition::Sequence(65_535), Mode::Hard),
            (Condition::Timestamp(0xFFFF_FF00), Mode::Hard),
            (Condition::KeyFrame, Mode::Hard),
            (Condition::Lull, Mode::Soft(ms(100))),
        ];
        let request = Request {
            sequence: 3,
            target: Target::Path(Path::Direct),
            reason: Reason::Synchronised,
            moves: conditions
                .iter()
                .enumerate()
                .map(|(index, (condition, mode))| Move {
                    stream: index as u8,
                    kind: if index == 3 { Kind::Video } else { Kind::Audio },
                    ssrc: 0xDEAD_BEEF,
                    condition: *condition,
                    mode: *mode,
                    limit: ms(2000),
                })
                .collect(),
            figures: Some(Figures { differential_ms: -31.5, compared: 12, ..Figures::default() }),
        };
        let packet = request.write(&Envelope { transaction: 1, receiver: "far", sender: "near", key: &key });
        assert_eq!(Request::read(&Incoming::read(&packet).unwrap()), Some(request));
    }

    #[test]
    fn unknown_paths_conditions_and_short_attributes_are_malformed() {
        let key = Key::new("secret");
        let written = |path: &[u8], stream: &[u8]| {
            let packet = Outgoing::new(Method::Handoff, Class::Request, 1)
                .with(SEQUENCE, &1u32.to_be_bytes())
                .with(PATH, path)
                .with(STREAM, stream)
                .sealed(&key);
            Request::read(&Incoming::read(&packet).unwrap())
        };
        let mut stream = [0; 16];
        stream[1] = 1;
        assert!(written(&[1, 1, 0, 0], &stream).is_some());
        assert_eq!(written(&[3, 1, 0, 0], &stream), None);
        assert_eq!(written(&[1, 0, 0, 0], &stream), None);
        assert_eq!(written(&[1, 1, 0], &stream), None);
        assert_eq!(written(&[1, 1, 0, 0], &stream[..12]), None);
        stream[2] = 9;
        assert_eq!(written(&[1, 1, 0, 0], &stream), None);
    }

    #[test]
    fn switches_and_indications_read_as_they_were_written() {
        let key = Key::new("secret");
        let switches =
            [Switch { stream: 0, at: Some(4711), ssrc: 5 }, Switch { stream: 1, at: None, ssrc: 0 }];
        let packet = write_success(9, &switches, &key);
        assert_eq!(read_switches(&Incoming::read(&packet).unwrap()), switches);
        for indication in [Indication::Keepalive, Indication::Test { number: 4, clock: 1000 }] {
            let packet =
                indication.write(8, &Envelope { transaction: 9, receiver: "far", sender: "near", key: &key });
            assert_eq!(packet[..2], [0x02, 0x95]);
            assert_eq!(Indication::read(&Incoming::read(&packet).unwrap()), Some((8, indication)));
        }
    }
}
