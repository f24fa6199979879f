//! The network, and the loop that drives everything on it.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crush::agent::{Agent, Config, Input, Marks, Output, SocketId, StreamId, StreamSetup};
use media_wire::handoff::Kind as MediaKind;
use media_wire::sdp::crush::{Policy, Support};
use media_wire::stun::{Key, is_stun};
use nat_lab::{Behaviour, Event, FlowLimit, HostId, Impairment, Kind, Link, NatId, Network, PUBLIC};
use seam::path::Constraint;

use super::options::{MS, Options, Place};
use super::phone::Phone;
use super::relay::{End, Relay};

/// Messages that the tests capture.
#[derive(Debug, Clone)]
pub struct Captured {
    pub at: Duration,
    pub side: usize,
    pub socket: SocketId,
    pub source: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

pub struct World {
    pub network: Network,
    pub phones: [Phone; 2],
    pub relay: Relay,
    pub hosts: [HostId; 2],
    pub nats: [Option<NatId>; 2],
    relay_host: HostId,
    /// By whom, what, and whether it has passed the SBC.
    infos: Vec<(usize, String, bool)>,
    /// When each phone's latest INFO has its response.
    info_sent: [Duration; 2],
    /// Each second INFO is lost once.
    pub are_infos_lost: bool,
    is_upnp: [bool; 2],
    /// How often each phone wanted its router to be asked anew.
    pub asked_router: [u32; 2],
    offers: Vec<(usize, u32, Policy)>,
    /// So long an offer of the SBC's takes to each phone. Not at all: its answer takes no time either.
    pub offers_take: [Duration; 2],
    /// A phone that is busy with an offer of its own refuses each second of the SBC's.
    pub is_busy: bool,
    pub messages: u64,
    lose: Option<u64>,
    talking: [bool; 2],
    /// STUN messages as they were sent, if wanted.
    pub capture: Option<Vec<Captured>>,
    /// RTP as it was sent and received on the wire: (time, side that sent, sequence, direct).
    pub wire: Vec<(Duration, usize, u16, bool)>,
    /// RTP audio that reached a phone: (time, side that received, sequence, direct).
    pub arrived: Vec<(Duration, usize, u16, bool)>,
    streams: usize,
    /// The direct path takes so much longer than the phones' lines.
    pub slow_direct: Duration,
    slowed: Vec<(usize, SocketId, SocketAddr, Vec<u8>)>,
    /// Timeouts at one moment: an agent that is never satisfied would stop the time.
    spins: (Duration, u32),
}

const TIMEOUT: u64 = 0;
const SPEAK: u64 = 1;
const LISTEN: u64 = 2;
const CAMERA: u64 = 3;
const INFO: u64 = 1000;
const OFFER: u64 = 500_000;
const SLOWED: u64 = 1_000_000;

/// The phones' sockets of the other family.
pub const OTHER_SOCKET: SocketId = SocketId(50);
pub const OTHER: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10)), 5004),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x20)), 5004),
];

/// Of the discovery service, the first of which is the relay's, by family.
const DISCOVERY: [[&str; 2]; 2] = [["203.0.113.5", "203.0.113.6"], ["2001:db8:5::5", "2001:db8:5::6"]];

/// A phone's address of the family that it does not speak with the relay.
fn other(ipv6: bool, is_public: bool, side: usize) -> SocketAddr {
    let inside = ["192.168.1.10", "192.168.7.20"][side];
    let outside = ["198.51.100.7", "198.51.100.99"][side];
    match ipv6 {
        false => OTHER[side],
        true => SocketAddr::new(ip(if is_public { outside } else { inside }), 5004),
    }
}

/// An address nobody has.
pub fn forged_address() -> SocketAddr {
    "192.0.2.66:6666".parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

impl World {
    pub fn new(options: &Options) -> Self {
        let mut network = Network::new(options.seed);
        let relays = DISCOVERY[usize::from(options.ipv6)].map(ip);
        let discovery = [(!options.ipv6, DISCOVERY[0]), (options.ipv6, DISCOVERY[1])]
            .into_iter()
            .filter(|(is_own, _)| options.dual_stack || *is_own)
            .map(|(_, places)| places.map(ip))
            .collect::<Vec<_>>();
        let relay_host = network.add_host(PUBLIC, &discovery.concat());
        network.set_link(relay_host, Link::both(Impairment::delay(options.detour / 2)));
        let line = Impairment {
            delay: options.delay,
            loss: options.loss,
            jitter: options.jitter,
            ..Impairment::NONE
        };
        let mut nats = [None, None];
        let mut hosts = Vec::new();
        let mut addresses = Vec::new();
        for side in 0..2 {
            let line = if side == 1 { Impairment { delay: line.delay + options.far, ..line } } else { line };
            let kind = match options.places[side] {
                Place::Public => None,
                Place::Behind(kind) => Some(kind),
                Place::Upnp => Some(Kind::LinuxCone),
                Place::SameLan => Some(Kind::Cone),
            };
            let (address, external) = match (options.ipv6, side) {
                (false, 0) => (ip("192.168.1.10"), ip("198.51.100.7")),
                (false, _) => (ip("192.168.7.20"), ip("198.51.100.99")),
                (true, 0) => (ip("2001:db8:1::10"), ip("198.51.100.7")),
                (true, _) => (ip("2001:db8:2::20"), ip("198.51.100.99")),
            };
            let is_public = options.places[side] == Place::Public;
            let other =
                if options.dual_stack { vec![other(options.ipv6, is_public, side).ip()] } else { Vec::new() };
            let both = |address: IpAddr| [&[address][..], &other].concat();
            match kind {
                None => {
                    let public = if options.ipv6 { address } else { external };
                    hosts.push(network.add_host(PUBLIC, &both(public)));
                    addresses.push(public);
                }
                Some(_) if side == 1 && options.places == [Place::SameLan; 2] => {
                    let near = ip("192.168.1.20");
                    nats[1] = nats[0];
                    let inside: NatId = nats[0].unwrap();
                    hosts.push(network.add_host(inside.inside(), &both(near)));
                    addresses.push(near);
                }
                Some(kind) => {
                    let mut behaviour = Behaviour::from(kind);
                    behaviour.other_users = options.other_users;
                    behaviour.hairpin &= options.places[side] != Place::SameLan;
                    behaviour.limit =
                        options.limiter.map(|penalty| FlowLimit { per_second: 30.0, burst: 30, penalty });
                    let nat = network.add_nat(PUBLIC, behaviour, &[external]);
                    network.set_link(nat, Link::both(line));
                    nats[side] = Some(nat);
                    hosts.push(network.add_host(nat.inside(), &both(address)));
                    addresses.push(address);
                }
            }
        }
        let streams = if options.video { 2 } else { 1 };
        let phones: Vec<Phone> = (0..2)
            .map(|side| {
                let mut seed = [side as u8 + 1; 32];
                seed[..8].copy_from_slice(&options.seed.to_be_bytes());
                let setups: Vec<StreamSetup> = (0..streams)
                    .map(|stream| StreamSetup {
                        kind: if stream == 0 { MediaKind::Audio } else { MediaKind::Video },
                        clock_rate: if stream == 0 { 8000 } else { 90_000 },
                        frame: 160,
                        socket: SocketId(stream as u32 + 1),
                        local: SocketAddr::new(addresses[side], 5004 + stream as u16 * 2),
                    })
                    .collect();
                let config = Config { flows: options.flows[side].clone(), ..options.config.clone() };
                let agent = Agent::new(config, side == 0, seed, &setups, Duration::ZERO);
                let mut phone = Phone::new(
                    agent,
                    options.seed.wrapping_mul(2) + side as u64 + 17,
                    addresses[side],
                    options.talk[side],
                );
                phone.sockets.extend(setups.iter().map(|setup| (setup.socket, setup.local)));
                phone
            })
            .collect();
        let ends = [0, 1].map(|side: usize| {
            let phone: &Phone = &phones[side];
            let local =
                (1..=streams as u32).filter_map(|socket| phone.sockets.get(&SocketId(socket)).copied());
            let outside = nats[side].map(|nat| network.nat(nat).externals()[0]);
            End {
                line: phone.agent.support_line(),
                local: local.collect(),
                signalling: outside.unwrap_or(addresses[side]),
            }
        });
        let relay = Relay::new(relays, discovery, options.operator, ends);
        let mut world = Self {
            network,
            phones: phones.try_into().unwrap(),
            relay,
            hosts: hosts.try_into().unwrap(),
            nats,
            relay_host,
            infos: Vec::new(),
            info_sent: [Duration::ZERO; 2],
            are_infos_lost: false,
            is_upnp: options.places.map(|place| place == Place::Upnp),
            asked_router: [0; 2],
            offers: Vec::new(),
            offers_take: [Duration::ZERO; 2],
            is_busy: false,
            messages: 0,
            lose: options.lose,
            talking: [true; 2],
            capture: None,
            wire: Vec::new(),
            arrived: Vec::new(),
            streams,
            slow_direct: Duration::ZERO,
            slowed: Vec::new(),
            spins: (Duration::ZERO, 0),
        };
        for (side, address) in addresses.into_iter().enumerate() {
            // Routers are quicker than the call, or slower.
            let is_quick = options.seed.is_multiple_of(2);
            if is_quick {
                world.map(side, options, address);
            }
            world.describe(side, options.policy);
            world.input(side, Input::Confirmed);
            if !is_quick {
                world.map(side, options, address);
            }
            if options.dual_stack {
                let local = other(options.ipv6, options.places[side] == Place::Public, side);
                world.phones[side].sockets.insert(OTHER_SOCKET, local);
                world.input(side, Input::Host { socket: OTHER_SOCKET, local });
            }
            // Phones do not tick at the same moment.
            let phase = MS(options.seed % 20 + side as u64 * 7);
            world.network.set_timer(world.hosts[side], phase, SPEAK);
            world.network.set_timer(world.hosts[side], phase + MS(3), LISTEN);
            if options.video {
                world.network.set_timer(world.hosts[side], phase + MS(5), CAMERA);
            }
        }
        world
    }

    /// The router opens a port, if it is one that does.
    fn map(&mut self, side: usize, options: &Options, address: IpAddr) {
        if options.places[side] == Place::Upnp {
            let internal = SocketAddr::new(address, 5004);
            let nat = self.nats[side].unwrap();
            let external = self.network.nat(nat).forward(5004, internal, Duration::ZERO).unwrap();
            self.input(side, Input::Mapped(external));
        }
    }

    /// The SBC's description, as an answer or a later offer would bring it.
    pub fn describe(&mut self, side: usize, policy: Policy) {
        let support = Support { policy, ..self.relay.support(side).clone() };
        let relays: Vec<Option<SocketAddr>> =
            (0..self.streams).map(|stream| Some(self.relay.address(side, stream))).collect();
        let sdp = format!("v=0\r\n{support}\r\n");
        self.input(side, Input::Description { sdp: &sdp, relays: &relays });
    }

    /// Policy says something of the call, and the SBC tells those who do not know it.
    pub fn constrain(&mut self, constraint: Constraint) {
        self.relay.constrain(constraint, self.network.now());
        self.pass_offers();
    }

    /// An INFO waits for the response to the one before (RFC 8840 §10.9), half of its way behind the SBC.
    fn send_info(&mut self, side: usize, text: String, now: Duration) {
        // SIP repeats what is lost (RFC 3261 §17.1.2.2, T1 = 500 ms).
        let is_lost = self.is_lost() || (self.are_infos_lost && self.phones[side].infos.is_multiple_of(2));
        let takes = if is_lost { MS(530) } else { MS(30) };
        let at = self.info_sent[side].max(now) + takes;
        self.info_sent[side] = at + MS(30);
        self.infos.push((side, text, false));
        self.network.set_timer(self.hosts[side], at, INFO + self.infos.len() as u64 - 1);
    }

    /// It has come to the SBC, or to the other phone.
    fn info_arrives(&mut self, place: usize, now: Duration) {
        let (side, text, has_passed) = self.infos[place].clone();
        if has_passed {
            return self.input(1 - side, Input::Trickle(&text));
        }
        if let Some(text) = self.relay.trickle(side, &text, now) {
            self.infos[place] = (side, text, true);
            self.network.set_timer(self.hosts[side], now + MS(30), INFO + place as u64);
        }
        self.pass_offers();
    }

    /// Offers of the SBC's on their way.
    fn pass_offers(&mut self) {
        let now = self.network.now();
        while let Some((side, wish, support)) = self.relay.poll_offer() {
            if self.offers_take[side] == Duration::ZERO {
                self.describe(side, support.policy);
                self.relay.answered(side, wish, true, now);
                continue;
            }
            self.offers.push((side, wish, support.policy));
            let token = OFFER + self.offers.len() as u64 - 1;
            self.network.set_timer(self.hosts[side], now + self.offers_take[side], token);
        }
    }

    pub fn relay_host(&self) -> HostId {
        self.relay_host
    }

    pub fn now(&self) -> Duration {
        self.network.now()
    }

    pub fn input(&mut self, side: usize, input: Input<'_>) {
        let now = self.network.now();
        self.phones[side].agent.handle(input, now);
        self.drain(side);
    }

    /// A datagram that a phone's socket receives, whoever sent it.
    pub fn inject(&mut self, side: usize, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        self.input(side, Input::Datagram { socket, from, bytes });
    }

    /// What a phone has told in its latest INFO.
    pub fn told(&self, side: usize) -> &str {
        self.infos.iter().rfind(|(author, _, _)| *author == side).map_or("", |(_, text, _)| text)
    }

    /// A phone's router restarts: all that it has mapped is gone, and its line has another address.
    pub fn restart_router(&mut self, side: usize, address: &str) {
        self.network.readdress(self.nats[side].unwrap(), &[ip(address)]);
    }

    /// The ufrag and the key that a phone has told of in its latest INFO.
    pub fn credentials(&self, side: usize) -> Option<(String, Key)> {
        let (_, text, _) = self.infos.iter().rfind(|(author, _, _)| *author == side)?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        Some((value("a=ice-ufrag:")?.to_owned(), Key::new(value("a=ice-pwd:")?)))
    }

    /// What has been captured since that was asked for.
    pub fn captured(&mut self) -> Vec<Captured> {
        self.capture.take().unwrap()
    }

    fn is_lost(&mut self) -> bool {
        self.messages += 1;
        self.lose == Some(self.messages)
    }

    fn drain(&mut self, side: usize) {
        let now = self.network.now();
        while let Some(output) = self.phones[side].agent.poll_output() {
            match output {
                Output::Transmit { socket, to, bytes } => {
                    let Some(source) = self.phones[side].sockets.get(&socket).copied() else { continue };
                    if is_stun(&bytes) {
                        if let Some(capture) = &mut self.capture {
                            let bytes = bytes.clone();
                            capture.push(Captured { at: now, side, socket, source, to, bytes });
                        }
                        if self.is_lost() {
                            continue;
                        }
                    } else if bytes[1] == 0 {
                        let direct = !self.relay.addresses.contains(&to.ip());
                        self.wire.push((now, side, u16::from_be_bytes([bytes[2], bytes[3]]), direct));
                    }
                    let _ = self.network.send(self.hosts[side], source, to, bytes.into());
                }
                Output::Trickle(text) => {
                    self.phones[side].infos += 1;
                    self.send_info(side, text, now);
                }
                Output::OpenSocket { beside } => {
                    let phone = &mut self.phones[side];
                    let socket = SocketId(phone.next_socket);
                    let address = phone.sockets.get(&beside).map_or(phone.address, SocketAddr::ip);
                    let local = SocketAddr::new(address, phone.next_port);
                    phone.next_socket += 1;
                    phone.next_port += 1;
                    phone.sockets.insert(socket, local);
                    phone.agent.handle(Input::SocketOpened { socket, local }, now);
                }
                Output::CloseSocket(socket) => {
                    self.phones[side].sockets.remove(&socket);
                }
                Output::Event(event) => self.phones[side].events.push((now, event)),
                Output::Media { packet, .. } => {
                    self.phones[side].video.push((now, u16::from_be_bytes([packet[2], packet[3]])));
                }
                Output::MapAnew => {
                    self.asked_router[side] += 1;
                    let internal = SocketAddr::new(self.phones[side].address, 5004);
                    let Some(nat) = self.nats[side].filter(|_| self.is_upnp[side]) else { continue };
                    self.network.nat(nat).unforward(internal);
                    let external = self.network.nat(nat).forward(5004, internal, now).unwrap();
                    self.phones[side].agent.handle(Input::Mapped(external), now);
                }
                Output::Rtcp { .. } => {}
            }
        }
        if let Some(at) = self.phones[side].agent.poll_timeout() {
            self.network.set_timer(self.hosts[side], at.max(now), TIMEOUT);
        }
    }

    fn side(&self, host: HostId) -> Option<usize> {
        self.hosts.iter().position(|known| *known == host)
    }

    /// Runs until a time.
    pub fn run_until(&mut self, until: Duration) {
        while let Some(event) = self.network.next_until(until) {
            self.event(event);
        }
    }

    /// Runs for so long.
    pub fn run_for(&mut self, span: Duration) {
        self.run_until(self.network.now() + span);
    }

    /// Runs until something holds or a time has come; says whether it holds.
    pub fn run_while(&mut self, until: Duration, mut goes_on: impl FnMut(&Self) -> bool) -> bool {
        while goes_on(self) {
            let Some(event) = self.network.next_until(until) else { return false };
            self.event(event);
        }
        true
    }

    pub fn both_direct(&self) -> bool {
        self.phones.iter().all(|phone| phone.direct_at().is_some())
    }

    fn event(&mut self, event: Event) {
        let now = self.network.now();
        match event {
            Event::Datagram { host, source, destination, payload } if host == self.relay_host => {
                for (from, to, bytes) in self.relay.datagram(source, destination, &payload, now) {
                    let _ = self.network.send(self.relay_host, from, to, bytes.into());
                }
                self.pass_offers();
            }
            Event::Datagram { host, source, destination, payload } => {
                let Some(side) = self.side(host) else { return };
                let socket = self.phones[side].sockets.iter().find(|(_, local)| **local == destination);
                let Some(socket) = socket.map(|(socket, _)| *socket) else { return };
                if self.slow_direct > Duration::ZERO && !self.relay.addresses.contains(&source.ip()) {
                    self.slowed.push((side, socket, source, payload.to_vec()));
                    let token = SLOWED + self.slowed.len() as u64 - 1;
                    self.network.set_timer(host, now + self.slow_direct, token);
                    return;
                }
                self.deliver(side, socket, source, &payload);
            }
            Event::Timer { host, token } => {
                let Some(side) = self.side(host) else { return };
                self.timer(side, token, now);
            }
        }
    }

    fn deliver(&mut self, side: usize, socket: SocketId, from: SocketAddr, bytes: &[u8]) {
        let now = self.network.now();
        if !is_stun(bytes) && bytes[1] == 0 {
            let direct = !self.relay.addresses.contains(&from.ip());
            self.arrived.push((now, side, u16::from_be_bytes([bytes[2], bytes[3]]), direct));
        }
        self.input(side, Input::Datagram { socket, from, bytes });
    }

    fn timer(&mut self, side: usize, token: u64, now: Duration) {
        match token {
            TIMEOUT => {
                self.spins = (now, if self.spins.0 == now { self.spins.1 + 1 } else { 0 });
                assert!(
                    self.spins.1 < 2000,
                    "an agent asks for {now:?} again and again: {:?}",
                    self.phones[side].events.last()
                );
                // Older timers may still be in the queue.
                if self.phones[side].agent.poll_timeout().is_some_and(|at| at <= now) {
                    self.input(side, Input::Timeout);
                }
            }
            SPEAK => {
                self.network.set_timer(self.hosts[side], now + MS(20), SPEAK);
                if let Some(packet) = self.phones[side].speak(now).filter(|_| self.talking[side]) {
                    let marks = Marks::default();
                    self.input(side, Input::Media { stream: StreamId(0), packet: &packet, marks });
                }
            }
            LISTEN => {
                self.network.set_timer(self.hosts[side], now + MS(10), LISTEN);
                self.phones[side].listen(now);
            }
            CAMERA => {
                self.network.set_timer(self.hosts[side], now + MS(40), CAMERA);
                // A key frame each second, one packet a frame.
                let picture = now.as_millis() as u64 / 40;
                let mut packet = vec![0x80, 96];
                packet.extend((picture as u16).to_be_bytes());
                packet.extend((picture as u32 * 3600).to_be_bytes());
                packet.extend((7000 + side as u32).to_be_bytes());
                packet.extend([0; 100]);
                let marks = Marks { key_frame: picture.is_multiple_of(25), lull: false };
                self.input(side, Input::Media { stream: StreamId(1), packet: &packet, marks });
            }
            slowed if slowed >= SLOWED => {
                let (side, socket, from, bytes) = self.slowed[(slowed - SLOWED) as usize].clone();
                self.deliver(side, socket, from, &bytes);
            }
            offer if offer >= OFFER => {
                let (side, wish, policy) = self.offers[(offer - OFFER) as usize];
                let is_accepted = !(self.is_busy && wish.is_multiple_of(2));
                if is_accepted {
                    self.describe(side, policy);
                }
                self.relay.answered(side, wish, is_accepted, now);
                self.pass_offers();
            }
            info => self.info_arrives((info - INFO) as usize, now),
        }
    }

    /// Another network for a phone: a new address and new sockets behind another NAT; the old address is gone.
    pub fn switch_network(&mut self, side: usize, kind: Kind) {
        let nat = self.network.add_nat(PUBLIC, kind.into(), &[ip("198.51.100.200")]);
        self.network.set_link(nat, Link::both(Impairment::delay(MS(20))));
        let address = ip("10.9.8.7");
        self.network.attach(self.hosts[side], nat.inside(), address);
        self.network.detach(self.hosts[side], self.phones[side].address);
        self.phones[side].address = address;
        self.phones[side].sockets.clear();
        let sockets: Vec<(SocketId, SocketAddr)> = (0..self.streams)
            .map(|stream| (SocketId(50 + stream as u32), SocketAddr::new(address, 6004 + stream as u16 * 2)))
            .collect();
        self.phones[side].sockets.extend(sockets.iter().copied());
        self.input(side, Input::NetworkChanged(&sockets));
    }

    /// The direct path dies, in one direction or both.
    pub fn cut(&mut self, from: usize, to: usize) {
        let outside = |world: &mut Self, side: usize| match world.nats[side] {
            Some(nat) => world.network.nat(nat).externals()[0],
            None => world.phones[side].address,
        };
        let (from, to) = (outside(self, from), outside(self, to));
        self.network.cut(from, to);
    }
}
