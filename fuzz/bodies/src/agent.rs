//! A CRUSH endpoint under a hostile network and a peer that knows the passwords: whatever comes in which order, it neither panics nor
//! spins, every packet of its user's goes somewhere, and media goes nowhere but to the relay and to who has answered a check.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use crush::agent::{Agent, Config, Input, Marks, Output, SocketId, StreamId, StreamSetup};
use media_wire::handoff::{FIGURES, Kind, PATH, Path, SEQUENCE, STREAM, SWITCH, TEST};
use media_wire::sdp::crush::Fragment;
use media_wire::stun::{
    Class, ICE_CONTROLLED, ICE_CONTROLLING, Incoming, Key, Method, Outgoing, PRIORITY, USE_CANDIDATE, is_stun,
};

/// One socket a stream, then those that the agent asks for.
const AUDIO: SocketId = SocketId(1);
const VIDEO: SocketId = SocketId(2);
/// Of the SBC's line and of the peer's fragment.
const PASSWORD: &str = "0123456789abcdefghijklmn";
/// Outputs of one step, and steps of one moment, that no honest agent exceeds.
const MOST_OUTPUTS: usize = 20_000;
const MOST_TIMEOUTS: usize = 2_000;

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, host], port))
}

fn relay(stream: u8) -> SocketAddr {
    address(1, 10_000 + 2 * u16::from(stream))
}

/// Addresses that the peer may have.
fn peer(choice: u8) -> SocketAddr {
    address(50 + choice % 4, 5004)
}

/// Reads `bytes` as what happens to a call, step by step: each a kind, a length and so much of what it needs.
pub fn agent(bytes: &[u8]) {
    play(bytes);
}

/// The paths on which the call's audio is sent and received after all that.
pub fn paths_after(bytes: &[u8]) -> (Path, Path) {
    let call = play(bytes);
    (call.agent.sending_on(StreamId(0)), call.agent.receiving_on(StreamId(0)))
}

fn play(bytes: &[u8]) -> Call {
    let (settings, mut rest) = bytes.split_first().unwrap_or((&0, &[]));
    let mut call = Call::new(settings & 1 == 1);
    while let [kind, length, after @ ..] = rest {
        let (data, after) = after.split_at(usize::from(*length).min(after.len()));
        rest = after;
        call.step(*kind, data);
    }
    call
}

struct Call {
    agent: Agent,
    now: Duration,
    sockets: HashMap<SocketId, SocketAddr>,
    next_socket: u32,
    /// Credentials of the agent's generation, from what it trickles.
    theirs: Option<(String, Key)>,
    /// Where a check of the agent's is waited for, with its transaction.
    asked: Option<(SocketId, SocketAddr, u128)>,
    relay_asked: Option<(SocketId, SocketAddr, u128)>,
    handoff_asked: Option<(SocketId, SocketAddr, u128)>,
    proven: HashSet<(SocketId, SocketAddr)>,
    sequence: [u16; 2],
    heard: u16,
    transaction: u128,
}

impl Call {
    fn new(controlling: bool) -> Self {
        let setup = |kind, clock_rate, socket, port| {
            let local = address(10, port);
            StreamSetup { kind, clock_rate, frame: 160, socket, local }
        };
        let setups = [setup(Kind::Audio, 8000, AUDIO, 4000), setup(Kind::Video, 90_000, VIDEO, 4002)];
        let agent = Agent::new(Config::default(), controlling, [7; 32], &setups, Duration::ZERO);
        let mut call = Self {
            agent,
            now: Duration::ZERO,
            sockets: setups.iter().map(|setup| (setup.socket, setup.local)).collect(),
            next_socket: 100,
            theirs: None,
            asked: None,
            relay_asked: None,
            handoff_asked: None,
            proven: HashSet::new(),
            sequence: [65_500, 1],
            heard: 65_520,
            transaction: 1,
        };
        call.describe("");
        call.input(Input::Confirmed);
        call.advance(200);
        let candidate = format!("a=candidate:1 1 UDP 2130706431 {} 5004 typ host", peer(0).ip());
        call.input(Input::Trickle(&format!("a=ice-ufrag:peer\r\na=ice-pwd:{PASSWORD}\r\n{candidate}\r\n")));
        call
    }

    fn describe(&mut self, more: &str) {
        let sdp = format!("v=0\r\na=crush:1 ufrag=node pwd={PASSWORD} {more}\r\n");
        let relays = [Some(relay(0)), Some(relay(1))];
        self.input(Input::Description { sdp: &sdp, relays: &relays });
    }

    fn step(&mut self, kind: u8, data: &[u8]) {
        let first = data.first().copied().unwrap_or(0);
        let rest = data.get(1..).unwrap_or_default();
        match kind % 14 {
            0 => self.advance(u64::from(first) * 10),
            1 => self.datagram(AUDIO, relay(0), data),
            2 => self.datagram(AUDIO, peer(first), rest),
            3 => self.input(Input::Trickle(&String::from_utf8_lossy(data))),
            4 => self.speak(first),
            5 => self.handoff(Class::Request, first, rest),
            6 => self.handoff(Class::Indication, first, rest),
            7 => self.check(first, data.get(1).copied().unwrap_or(0)),
            8 => self.answer_check(),
            9 => self.describe(&String::from_utf8_lossy(data)),
            10 => self.answer_handoff(data),
            11 => self.switch_network(),
            12 => self.answer_relay(peer(first)),
            _ => self.hear(first, data.get(1).copied().unwrap_or(1)),
        }
    }

    fn input(&mut self, input: Input<'_>) {
        self.agent.handle(input, self.now);
        self.drain();
    }

    fn datagram(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        self.input(Input::Datagram { socket, from, bytes });
    }

    fn drain(&mut self) {
        let mut outputs = 0;
        while let Some(output) = self.agent.poll_output() {
            outputs += 1;
            assert!(outputs < MOST_OUTPUTS, "an endless stream of outputs");
            match output {
                Output::Transmit { socket, to, bytes } => self.transmitted(socket, to, &bytes),
                Output::Trickle(text) => {
                    let fragment = Fragment::read(&text).expect("a fragment that can be read");
                    self.theirs = Some((fragment.ufrag, Key::new(&fragment.pwd)));
                }
                Output::OpenSocket { beside } => {
                    assert!(self.sockets.contains_key(&beside), "{beside:?} is not open");
                    // Every eighth is refused.
                    let socket = SocketId(self.next_socket);
                    self.next_socket += 1;
                    if self.next_socket.is_multiple_of(8) {
                        self.agent.handle(Input::SocketRefused, self.now);
                    } else {
                        let local = address(10, 20_000 + (self.next_socket % 10_000) as u16);
                        self.sockets.insert(socket, local);
                        self.agent.handle(Input::SocketOpened { socket, local }, self.now);
                    }
                }
                Output::CloseSocket(socket) => {
                    assert!(self.sockets.remove(&socket).is_some(), "{socket:?} was not open");
                }
                Output::MapAnew | Output::Media { .. } | Output::Rtcp { .. } | Output::Event(_) => {}
            }
        }
    }

    fn transmitted(&mut self, socket: SocketId, to: SocketAddr, bytes: &[u8]) {
        assert!(self.sockets.contains_key(&socket), "{socket:?} is not open");
        let to_relay = to == relay(0) || to == relay(1);
        if !is_stun(bytes) {
            assert!(
                to_relay || self.proven.contains(&(socket, to)),
                "media to {to}, which nobody has proven"
            );
            return;
        }
        let message = Incoming::read(bytes).expect("what an agent writes can be read");
        let place = Some((socket, to, message.transaction()));
        match (message.method(), message.class()) {
            (Method::Binding, Class::Request) if to_relay => self.relay_asked = place,
            (Method::Binding, Class::Request) if message.username().is_some() => self.asked = place,
            (Method::Handoff, Class::Request) => self.handoff_asked = place,
            _ => {}
        }
    }

    /// Lets time pass, moment by moment.
    fn advance(&mut self, milliseconds: u64) {
        let until = self.now + Duration::from_millis(milliseconds);
        let mut spins = 0;
        while let Some(at) = self.agent.poll_timeout().filter(|at| *at <= until) {
            spins = if at > self.now { 0 } else { spins + 1 };
            assert!(spins < MOST_TIMEOUTS, "asks for {at:?} again and again");
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = until;
    }

    /// The user's audio or video: it must go somewhere.
    fn speak(&mut self, choice: u8) {
        let place = usize::from(choice & 1);
        self.sequence[place] = self.sequence[place].wrapping_add(1);
        let packet = rtp(place as u8, self.sequence[place], 77 + place as u32);
        let marks = Marks { key_frame: choice & 2 != 0, lull: choice & 4 != 0 };
        self.agent.handle(Input::Media { stream: StreamId(place as u8), packet: &packet, marks }, self.now);
        let mut sent = 0;
        while let Some(output) = self.agent.poll_output() {
            if let Output::Transmit { socket, to, bytes } = output {
                sent += usize::from(bytes == packet);
                self.transmitted(socket, to, &bytes);
            }
        }
        assert!(sent > 0, "a packet went nowhere");
    }

    /// The peer's audio, 20 ms apart, by one path or both.
    fn hear(&mut self, paths: u8, count: u8) {
        for _ in 0..count % 32 {
            self.heard = self.heard.wrapping_add(1);
            let packet = rtp(0, self.heard, 99);
            if paths & 1 != 0 {
                self.datagram(AUDIO, relay(0), &packet);
            }
            let proven = self.proven.iter().next().copied();
            if paths & 2 != 0
                && let Some((socket, from)) = proven
            {
                self.datagram(socket, from, &packet);
            }
            while let Some(step) = self.agent.play(StreamId(0), self.now).filter(|_| paths & 4 != 0) {
                if !matches!(step, crush::playout::Step::Frame { .. }) {
                    break;
                }
            }
            self.advance(20);
        }
    }

    fn fresh(&mut self) -> u128 {
        self.transaction += 1;
        self.transaction
    }

    /// A HANDOFF message of the peer's, authentic, with whatever attributes: each a choice, a length and a value.
    fn handoff(&mut self, class: Class, way: u8, attributes: &[u8]) {
        let transaction = self.fresh();
        let Some((ufrag, key)) = self.theirs.clone() else { return };
        let message = Outgoing::new(Method::Handoff, class, transaction).username(&ufrag, "peer");
        let bytes = with_attributes(message, attributes).sealed(&key);
        match self.proven.iter().next().copied().filter(|_| way & 1 == 0) {
            Some((socket, from)) => self.datagram(socket, from, &bytes),
            None => self.datagram(AUDIO, relay(0), &bytes),
        }
    }

    fn answer_handoff(&mut self, attributes: &[u8]) {
        let Some((socket, from, transaction)) = self.handoff_asked else { return };
        let message = Outgoing::new(Method::Handoff, Class::Success, transaction);
        let bytes = with_attributes(message, attributes).sealed(&Key::new(PASSWORD));
        self.datagram(socket, from, &bytes);
    }

    /// The peer's check, or its nomination.
    fn check(&mut self, choice: u8, flags: u8) {
        let transaction = self.fresh();
        let Some((ufrag, key)) = self.theirs.clone() else { return };
        let role = if flags & 2 != 0 { ICE_CONTROLLING } else { ICE_CONTROLLED };
        let mut message = Outgoing::new(Method::Binding, Class::Request, transaction)
            .username(&ufrag, "peer")
            .with(PRIORITY, &[110, 255, 255, 255])
            .with(role, &u64::from(flags).to_be_bytes());
        if flags & 1 != 0 {
            message = message.with(USE_CANDIDATE, &[]);
        }
        self.datagram(AUDIO, peer(choice), &message.sealed(&key));
    }

    fn answer_check(&mut self) {
        let Some((socket, from, transaction)) = self.asked.take() else { return };
        if !self.sockets.contains_key(&socket) {
            return;
        }
        self.proven.insert((socket, from));
        let bytes = Outgoing::new(Method::Binding, Class::Success, transaction)
            .mapped_address(self.sockets[&socket])
            .sealed(&Key::new(PASSWORD));
        self.datagram(socket, from, &bytes);
    }

    fn answer_relay(&mut self, mapped: SocketAddr) {
        let Some((socket, from, transaction)) = self.relay_asked.take() else { return };
        let bytes = Outgoing::new(Method::Binding, Class::Success, transaction)
            .mapped_address(mapped)
            .sealed(&Key::new(PASSWORD));
        self.datagram(socket, from, &bytes);
    }

    fn switch_network(&mut self) {
        self.next_socket += 2;
        let port = 30_000 + (self.next_socket % 10_000) as u16;
        let fresh = [
            (SocketId(self.next_socket - 2), address(11, port)),
            (SocketId(self.next_socket - 1), address(11, port + 2)),
        ];
        self.sockets.extend(fresh);
        self.input(Input::NetworkChanged(&fresh));
    }
}

fn rtp(stream: u8, sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 96 * stream];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 160).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend([0xd5; 160]);
    packet
}

fn with_attributes(mut message: Outgoing, mut attributes: &[u8]) -> Outgoing {
    const KINDS: [u16; 6] = [SEQUENCE, PATH, STREAM, SWITCH, FIGURES, TEST];
    while let [kind, length, rest @ ..] = attributes {
        let (value, after) = rest.split_at(usize::from(*length).min(rest.len()));
        message = message.with(KINDS[usize::from(*kind) % KINDS.len()], value);
        attributes = after;
    }
    message
}
