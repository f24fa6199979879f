//! Seeded calls with strangers on the wire: they send whatever they can to every port, before the parties do and while these are silent,
//! move or resume. No call may be silent, nothing may reach a stranger or come from one.
//!
//! `HOSTILE_CALLS=10000` plays more of them, `HOSTILE_SEED=17` tells one again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use media_core::latch::Latching;
use media_core::worker::{Settings, SocketId};
use play::Dice;
use seam::Action;

use crate::world::{A, A_HOST, B, B_HOST, anchor, binding, hello, rtcp, rtp};
use play::anchor::Anchor;

/// In `make test`.
const CALLS: u64 = 400;
const PACKET_TIME: Duration = Duration::from_millis(20);
/// Packets each way that must arrive at the end of each scene, after as many that may find their way.
const JUDGED: usize = 15;

/// Where a party's description says that it is, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Behind a NAT: it signs a private address.
    Nat,
    /// It signs the address that it sends from.
    Public,
    /// The same, on another host than its signalling.
    MediaHost,
    /// It sends from another port than it signs.
    Asymmetric,
}

#[derive(Debug)]
struct Party {
    kind: Kind,
    /// Of its media, as the relay sees it.
    host: IpAddr,
    signed: SocketAddr,
    real: SocketAddr,
    /// Where it was, while its last packets are on their way.
    before: Option<SocketAddr>,
    ssrc: u32,
    sequence: u16,
    /// Its socket for RTP at the relay.
    socket: SocketId,
    has_spoken: bool,
    holds: bool,
}

struct Call {
    world: Anchor,
    dice: Dice,
    parties: [Party; 2],
    exchange: u32,
    latching: Latching,
    story: Vec<String>,
}

/// First octets of a payload say whose it is.
const OURS: u8 = 0xaa;
const THEIRS: u8 = 0x55;

fn media(ssrc: u32, sequence: u16, owner: u8) -> Vec<u8> {
    let mut packet = rtp(sequence, ssrc);
    packet.truncate(60);
    packet[12..].fill(owner);
    packet
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let latching =
            [Latching::Host, Latching::Host, Latching::Host, Latching::Any, Latching::Strict][dice.index(5)];
        let parties = [A_HOST, B_HOST].map(|signalling| {
            let kinds: &[Kind] = match latching {
                Latching::Strict => &[Kind::Public, Kind::MediaHost],
                _ => &[Kind::Nat, Kind::Public, Kind::MediaHost, Kind::Asymmetric],
            };
            let kind = kinds[dice.index(kinds.len())];
            let host =
                if kind == Kind::MediaHost { signalling.replace(".1", ".2") } else { signalling.to_owned() };
            let real = SocketAddr::new(host.parse().unwrap(), 40_000 + 2 * dice.below(5000) as u16);
            let socket = if signalling == A_HOST { 0 } else { 2 };
            let mut party = Party {
                kind,
                host: real.ip(),
                signed: real,
                real,
                before: None,
                ssrc: dice.roll() as u32,
                sequence: dice.roll() as u16,
                socket,
                has_spoken: false,
                holds: false,
            };
            party.sign(&mut dice);
            party
        });
        let settings = Settings { latching: vec![latching; 2], ..Settings::default() };
        let story = vec![format!("{latching:?} {parties:#?}")];
        Self { world: anchor(settings), dice, parties, exchange: 1, latching, story }
    }

    fn below(&mut self, bound: u32) -> u32 {
        self.dice.below(bound.into()) as u32
    }

    fn tell(&mut self, what: String) {
        self.story.push(format!("{:?} {what}", self.world.now));
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.story.join("\n"))
    }

    fn wait(&mut self, time: Duration) {
        self.world.now += time;
    }

    fn description(&self, party: usize) -> String {
        let party = &self.parties[party];
        let ip = if party.holds { "0.0.0.0".to_owned() } else { party.signed.ip().to_string() };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\n",
            party.signed.ip(),
            party.signed.port()
        )
    }

    /// Sends a packet to the relay and judges all that comes out; true if it reached the other party.
    fn send(&mut self, socket: SocketId, source: SocketAddr, packet: &[u8], owner: u8) -> bool {
        let sent = self.world.send(socket, &source.to_string(), packet);
        let mut has_arrived = false;
        for (out, to, bytes) in sent {
            let party = usize::from(out >= 2);
            let is_theirs = owner == THEIRS && bytes == packet;
            if is_theirs && !self.may_be_taken(1 - party) {
                self.fail(&format!("a stranger's packet from {source} reached {to}"));
            }
            let receiver = &self.parties[party];
            let place = if out % 2 == 0 { to } else { SocketAddr::new(to.ip(), to.port() - 1) };
            let is_there =
                place == receiver.real || (receiver.kind == Kind::Asymmetric && place == receiver.signed);
            let is_known = is_there
                || place == receiver.signed
                || receiver.before == Some(place)
                || to.ip() == receiver.host;
            if !is_known && !self.may_be_taken(party) {
                self.fail(&format!("{to} is none of party {party}, and got a packet"));
            }
            if self.parties[party].holds && out % 2 == 0 {
                self.fail(&format!("{to} holds, and got a packet"));
            }
            has_arrived |= is_there && out % 2 == 0 && bytes == packet;
        }
        has_arrived
    }

    /// Whether a stranger may stand in for a party: its realm lets strangers teach, and it has not been heard yet where what it signs is
    /// not where its signalling is.
    fn may_be_taken(&self, party: usize) -> bool {
        let signalling: IpAddr = [A_HOST, B_HOST][party].parse().unwrap();
        let party = &self.parties[party];
        self.latching == Latching::Any && !party.has_spoken && party.signed.ip() != signalling
    }

    /// One packet of a party; true if it reached the other.
    fn speak(&mut self, party: usize) -> bool {
        let one = &mut self.parties[party];
        one.sequence = one.sequence.wrapping_add(1);
        let (socket, source, packet) = (one.socket, one.real, media(one.ssrc, one.sequence, OURS));
        one.has_spoken = true;
        self.send(socket, source, &packet, OURS)
    }

    /// What a stranger can send: to any port, of any kind, with numbers that it may have seen.
    fn attack(&mut self) {
        let socket = self.below(4);
        let source = SocketAddr::from(([192, 0, 2, 200 + self.below(4) as u8], 1024 + self.below(50) as u16));
        let ssrc = if self.below(2) == 0 {
            self.parties[(socket / 2) as usize].ssrc
        } else {
            self.dice.roll() as u32
        };
        let sequence = self.parties[(socket / 2) as usize].sequence.wrapping_add(1 + self.below(3) as u16);
        let packet = match self.below(8) {
            0..=2 => media(ssrc, sequence, THEIRS),
            3 => rtcp(ssrc),
            4 => binding(),
            5 => hello(),
            6 => Vec::new(),
            _ => b"OPTIONS sip:x SIP/2.0\r\n\r\n".to_vec(),
        };
        self.send(socket, source, &packet, THEIRS);
    }

    fn attacks(&mut self) {
        for _ in 0..self.below(3) {
            self.attack();
        }
    }

    /// Both talk for `packets`, while strangers send; true if the last ones have arrived both ways.
    fn talk(&mut self, packets: usize) -> [usize; 2] {
        let mut arrived = [0; 2];
        for place in 0..packets {
            self.wait(PACKET_TIME);
            for (party, arrived) in arrived.iter_mut().enumerate() {
                if self.speak(party) && place + JUDGED >= packets {
                    *arrived += 1;
                }
                self.attacks();
            }
        }
        arrived
    }

    fn judge(&mut self, scene: &str) {
        let arrived = self.talk(2 * JUDGED);
        // What a party sends reaches the other, unless that one holds.
        for (party, arrived) in arrived.into_iter().enumerate() {
            let expected = if self.parties[1 - party].holds { 0 } else { JUDGED };
            if arrived != expected {
                self.fail(&format!(
                    "after {scene}: {arrived} of the last {JUDGED} packets of party {party} arrived"
                ));
            }
        }
    }

    /// `from` offers, and is answered.
    fn exchange(&mut self, from: usize) {
        self.exchange += 1;
        let ends = [A, B];
        let (offer, answer) = (self.description(from), self.description(1 - from));
        self.world.offer(self.exchange, ends[from], ends[1 - from], offer).unwrap();
        let pause = u64::from(self.below(200));
        self.wait(Duration::from_millis(pause));
        self.attacks();
        self.world.answer(self.exchange, ends[1 - from], ends[from], answer).unwrap();
    }

    fn set_up(&mut self) {
        self.world.offer(1, A, B, self.description(0)).unwrap();
        // The callee may speak before its answer; the caller may be silent until then, for as long as it likes.
        for _ in 0..self.below(20) {
            self.wait(Duration::from_millis(500));
            self.attacks();
        }
        if self.below(2) == 0 {
            self.world.answer(1, B, A, self.description(1)).unwrap();
            for _ in 0..self.below(30) {
                self.wait(PACKET_TIME);
                self.speak(1);
                self.attacks();
            }
        }
        self.world.act(Action::Select(B));
        self.world.answer(1, B, A, self.description(1)).unwrap();
        for _ in 0..self.below(40) {
            self.wait(Duration::from_millis(500));
            self.attacks();
        }
    }

    fn scene(&mut self) {
        let party = self.below(2) as usize;
        let scene = self.below(7);
        let new_port = 50_000 + 2 * self.below(5000) as u16;
        let is_free = self.latching != Latching::Strict;
        self.parties[party].before = None;
        match scene {
            // The same description, another mapping, perhaps another stream; after a hold of any length or none.
            0 if is_free => {
                self.tell(format!("{party} resumes from {new_port}"));
                if self.below(2) == 0 {
                    self.parties[party].holds = true;
                    self.exchange(party);
                    self.judge("a hold");
                    let pause = u64::from(self.below(120));
                    self.wait(Duration::from_secs(pause));
                    self.attacks();
                    self.parties[party].holds = false;
                }
                self.exchange(party);
                let ssrc = self.dice.roll() as u32;
                let one = &mut self.parties[party];
                (one.before, one.ssrc) = (Some(one.real), ssrc);
                one.real.set_port(new_port);
            }
            // It signs another port, or another host, and its last packets are on their way.
            1 | 2 => {
                let one = &mut self.parties[party];
                one.before = Some(one.real);
                if scene == 2 && one.kind == Kind::MediaHost {
                    let [a, b, c, last] = match one.host {
                        IpAddr::V4(ip) => ip.octets(),
                        IpAddr::V6(_) => unreachable!("hosts are IPv4"),
                    };
                    one.host = IpAddr::from([a, b, c, last % 100 + 1]);
                }
                one.real = SocketAddr::new(one.host, new_port);
                one.sign(&mut self.dice);
                let (now, stragglers) = (one.real, one.before);
                self.tell(format!("{party} moves to {now}"));
                self.exchange(party);
                for _ in 0..self.below(4) {
                    let one = &mut self.parties[party];
                    one.sequence = one.sequence.wrapping_add(1);
                    let packet = media(one.ssrc, one.sequence, OURS);
                    let socket = one.socket;
                    self.wait(PACKET_TIME);
                    self.send(socket, stragglers.unwrap(), &packet, OURS);
                }
                self.parties[party].has_spoken = false;
            }
            // A NAT rebinds while it says nothing.
            3 if is_free => {
                self.tell(format!("{party} rebinds to {new_port}"));
                self.wait(Duration::from_millis(600));
                self.attacks();
                let one = &mut self.parties[party];
                one.before = Some(one.real);
                one.real.set_port(new_port);
            }
            // One is silent for long while the other talks.
            4 => {
                self.tell(format!("{party} is silent"));
                for _ in 0..self.below(60) {
                    self.wait(Duration::from_millis(500));
                    self.speak(1 - party);
                    self.attacks();
                }
            }
            // The description is confirmed (a session timer).
            5 => {
                self.tell(format!("{party} refreshes"));
                self.exchange(party);
            }
            _ => {
                self.tell("both report".to_owned());
                for end in 0..2 {
                    let one = &self.parties[end];
                    let place = SocketAddr::new(one.real.ip(), one.real.port() + 1);
                    let (socket, packet) = (one.socket + 1, rtcp(one.ssrc));
                    self.send(socket, place, &packet, OURS);
                }
            }
        }
        self.judge("the scene");
    }

    fn play(mut self) {
        self.set_up();
        self.judge("set-up");
        for _ in 0..2 + self.below(5) {
            self.scene();
        }
    }
}

impl Party {
    /// What its description says of where it is now.
    fn sign(&mut self, dice: &mut Dice) {
        self.signed = match self.kind {
            Kind::Nat => SocketAddr::from(([10, 0, 0, 5], 4000 + 2 * dice.below(1000) as u16)),
            Kind::Public | Kind::MediaHost => self.real,
            Kind::Asymmetric => SocketAddr::new(self.host, 30_000 + 2 * dice.below(1000) as u16),
        };
    }
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a run can be made longer, or repeated, from outside")]
fn no_call_is_silent_and_no_packet_goes_astray_while_strangers_send() {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    if let Some(seed) = number("HOSTILE_SEED") {
        return Call::new(seed).play();
    }
    for seed in 0..number("HOSTILE_CALLS").unwrap_or(CALLS) {
        let played = std::panic::catch_unwind(|| Call::new(seed).play());
        assert!(played.is_ok(), "HOSTILE_SEED={seed} tells this call again");
    }
}
