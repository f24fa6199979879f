//! Phones that speak ICE, in virtual time: whatever message is lost or refused, media goes on, on the relay or past it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::path::Settings as Limits;
use media_core::policy::{Ice, Mode, RealmRelease};
use media_core::worker::{Settings, SocketId};
use media_wire::stun::{
    Class, ICE_CONTROLLED, ICE_CONTROLLING, Incoming, Key, Method, Outgoing, USE_CANDIDATE,
};
use play::ports::Counted;
use play::settings::media::{ENDS, party, release_within};
use seam::path::{Constraint, Entry, IceStep, PathEntry, PathState, Reason, Stay};
use seam::{Action, Endpoint, Event, ExchangeId, Party, Renegotiated, Reply};

const TICK: Duration = Duration::from_millis(20);

fn relay(socket: SocketId) -> SocketAddr {
    SocketAddr::new([192, 0, 2, 1].into(), 10_000 + socket as u16)
}

/// A phone with one interface: it sends to the pair that it has found best, which is the relay until a better one works.
struct Phone {
    /// Where others see it.
    address: SocketAddr,
    /// Its own address, behind a NAT that lets in only what comes from where it has sent to (RFC 4787 §5).
    inside: Option<SocketAddr>,
    sent_to: Vec<SocketAddr>,
    /// Its and its peer's, as ufrag and password.
    own: (String, String),
    peer: Option<(String, String)>,
    restarts: u32,
    speaks_ice: bool,
    /// It gives new credentials in an offer that it was asked for, in an answer to a restart.
    restarts_in: [bool; 2],
    refuses: bool,
    candidates: Vec<SocketAddr>,
    /// Where its media goes, by signalling and by checks.
    default: SocketAddr,
    selected: Option<SocketAddr>,
    controls: bool,
    sequence: u16,
    heard: Option<(SocketAddr, u16, Duration)>,
    silence: Duration,
}

impl Phone {
    fn new(address: &str, name: &str) -> Self {
        let mut phone = Self {
            address: address.parse().unwrap(),
            inside: None,
            sent_to: Vec::new(),
            own: (name.to_owned(), String::new()),
            peer: None,
            restarts: 0,
            speaks_ice: true,
            restarts_in: [true; 2],
            refuses: false,
            candidates: Vec::new(),
            default: relay(0),
            selected: None,
            controls: false,
            sequence: 0,
            heard: None,
            silence: Duration::ZERO,
        };
        phone.restart();
        phone
    }

    fn restart(&mut self) {
        self.restarts += 1;
        let name = self.own.0[..2].to_owned();
        self.own = (
            format!("{name}{:04}", self.restarts),
            format!("password-of-{name}-number-{:04}", self.restarts),
        );
        self.selected = None;
    }

    fn describe(&self) -> Bytes {
        let inside = self.inside.unwrap_or(self.address);
        let (ip, port) = (inside.ip(), inside.port());
        let ice = if self.speaks_ice {
            format!(
                "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=candidate:1 1 UDP 2130706431 {ip} {port} typ host\r\na=candidate:1 2 UDP 2130706430 {ip} {} typ host\r\n",
                self.own.0,
                self.own.1,
                port + 1
            )
        } else {
            String::new()
        };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n{ice}"
        )
        .into()
    }

    /// What the far side says; true if its credentials are others than before.
    fn take(&mut self, sdp: &[u8]) -> bool {
        let text = std::str::from_utf8(sdp).unwrap();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let ip: IpAddr = value("c=IN IP4 ").unwrap().parse().unwrap();
        let port = value("m=audio ").unwrap().split(' ').next().unwrap().parse().unwrap();
        self.default = SocketAddr::new(ip, port);
        let peer = value("a=ice-ufrag:").zip(value("a=ice-pwd:"));
        self.candidates = text
            .lines()
            .filter_map(|line| line.strip_prefix("a=candidate:"))
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words[1] == "1")
            .map(|words| SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap()))
            .collect();
        let is_new = peer != self.peer;
        if is_new {
            self.selected = None;
        }
        self.peer = peer;
        is_new
    }

    fn answer(&mut self, sdp: &[u8]) -> Bytes {
        let had_peer = self.peer.is_some();
        if self.take(sdp) && had_peer && self.restarts_in[1] {
            self.restart();
        }
        self.controls = false;
        self.describe()
    }

    fn target(&self) -> SocketAddr {
        self.selected.unwrap_or(self.default)
    }
}

struct World {
    /// The call's number: which calls are cover is drawn from it.
    id: u64,
    worker: Worker,
    ports: Counted,
    now: Duration,
    phones: [Phone; 2],
    /// Whether packets pass between the phones.
    is_open: bool,
    /// Every so manieth STUN message is lost; 0 none.
    loses: usize,
    stun: usize,
    /// What the phone that is asked for an offer has made, until it is answered.
    numbers: u32,
    timeline: Vec<Entry>,
    reported: Duration,
    /// How the next wishes come out, in the place of the phone.
    outcomes: VecDeque<Renegotiated>,
}

impl World {
    fn new(phones: [Phone; 2]) -> Self {
        Self::with(phones, 1, Limits::default())
    }

    fn with(phones: [Phone; 2], id: u64, limits: Limits) -> Self {
        let realm = RealmRelease { mode: Mode::Allow, lan: false, ice: Ice::Offer };
        let release = Some(release_within(limits, vec![realm], Vec::new()));
        let settings = Settings { release, secret: [7; 32], ..Settings::default() };
        let mut world = Self {
            id,
            worker: Worker::new(settings, "anchor".to_owned()),
            ports: Counted::at([[192, 0, 2, 1]]),
            now: Duration::from_secs(1),
            phones,
            is_open: true,
            loses: 0,
            stun: 0,
            numbers: 0,
            timeline: Vec::new(),
            reported: Duration::ZERO,
            outcomes: VecDeque::new(),
        };
        world.call();
        world
    }

    fn call(&mut self) {
        self.phones[0].controls = true;
        let offer = self.phones[0].describe();
        let sdp = self.exchange(1, 0, offer);
        self.act(Action::Select(ENDS[1]));
        self.phones[0].take(&sdp);
    }

    /// The call ends, and the same two have another one.
    fn call_again(&mut self) {
        self.act(Action::Delete);
        (self.id, self.ports, self.phones) = (self.id + 1, Counted::at([[192, 0, 2, 1]]), phones());
        self.timeline.clear();
        self.call();
    }

    fn asks(&self) -> usize {
        self.timeline.iter().filter(|entry| matches!(entry, Entry::Ice(IceStep::Asked { .. }))).count()
    }

    fn party(&self, index: usize) -> Party {
        let signalling = SocketAddr::new(self.phones[index].address.ip(), 5060);
        Party { product: "anything".into(), ..party(0, signalling) }
    }

    fn act(&mut self, action: Action) -> Option<Reply> {
        self.worker.handle(self.id, action, self.now, &mut self.ports)
    }

    /// An offer of a phone, and the other's answer: what the offerer is told.
    fn exchange(&mut self, exchange: u32, from: usize, sdp: Bytes) -> Bytes {
        let (one, other) = (ENDS[from], ENDS[1 - from]);
        let (from_party, to_party) = (self.party(from), self.party(1 - from));
        let offer =
            Action::Offer { exchange: ExchangeId(exchange), from: one, to: other, from_party, to_party, sdp };
        let Some(Reply::Description(Ok(offered))) = self.act(offer) else { panic!("refused") };
        let sdp = self.phones[1 - from].answer(&offered.sdp);
        let from_party = self.party(1 - from);
        let answer = Action::Answer { exchange: ExchangeId(exchange), from: other, to: one, from_party, sdp };
        let Some(Reply::Description(Ok(answered))) = self.act(answer) else { panic!("refused") };
        answered.sdp
    }

    fn events(&mut self) {
        while let Some((_, event)) = self.worker.poll_event() {
            match event {
                Event::Path(PathEntry { entry, .. }) => self.timeline.push(entry),
                Event::Inactive | Event::Unheard | Event::Metered { .. } => {}
                Event::Answer { description, .. } => {
                    if let Ok(described) = description {
                        let asked = self.phones.iter().position(|phone| phone.controls).unwrap();
                        self.phones[asked].take(&described.sdp);
                    }
                }
                Event::Renegotiate { wish, legs, .. } => {
                    for (endpoint, sdp) in legs {
                        let outcome = self.outcomes.pop_front().unwrap_or_else(|| self.asked(endpoint, sdp));
                        self.act(Action::Renegotiated { wish, endpoint, outcome });
                    }
                }
            }
        }
    }

    fn asked(&mut self, endpoint: Endpoint, sdp: Option<Bytes>) -> Renegotiated {
        let index = usize::from(endpoint.party);
        let phone = &mut self.phones[index];
        if phone.refuses {
            return Renegotiated::Refused(488);
        }
        match sdp {
            Some(sdp) => Renegotiated::Accepted(phone.answer(&sdp)),
            None => {
                if phone.restarts_in[0] {
                    phone.restart();
                }
                self.numbers += 1;
                let (sdp, number) = (phone.describe(), self.numbers);
                for (other, phone) in self.phones.iter_mut().enumerate() {
                    phone.controls = other == index;
                }
                Renegotiated::Offered { sdp, number }
            }
        }
    }

    /// A packet from one place to another; what follows from it follows at once.
    fn carry(&mut self, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        let is_stun = packet[0] < 4;
        if is_stun {
            self.stun += 1;
            if self.loses > 0 && self.stun.is_multiple_of(self.loses) {
                return;
            }
        }
        if let Some(author) = self.phones.iter_mut().find(|phone| phone.address == from)
            && !author.sent_to.contains(&to)
        {
            author.sent_to.push(to);
        }
        if to.ip() == relay(0).ip() {
            let socket = SocketId::from(to.port() - 10_000);
            let mut out = Vec::new();
            let send = |socket, to, bytes: &[u8]| out.push((relay(socket), to, bytes.to_vec()));
            self.worker.packet(socket, from, packet, self.now, send);
            out.into_iter().for_each(|(from, to, bytes)| self.carry(from, to, &bytes));
        } else if let Some(index) = self.phones.iter().position(|phone| phone.address == to) {
            if from.ip() != relay(0).ip() && !self.is_open {
                return;
            }
            let phone = &self.phones[index];
            if phone.inside.is_some() && !phone.sent_to.contains(&from) {
                return;
            }
            if is_stun {
                self.stun_at(index, from, packet);
            } else if packet.len() == 172 {
                let phone = &mut self.phones[index];
                let pause = phone.heard.map_or(Duration::ZERO, |heard| self.now - heard.2);
                phone.silence = phone.silence.max(pause);
                phone.heard = Some((from, u16::from_be_bytes([packet[2], packet[3]]), self.now));
            }
        }
    }

    fn stun_at(&mut self, index: usize, from: SocketAddr, packet: &[u8]) {
        let phone = &mut self.phones[index];
        let Some(message) = Incoming::read(packet) else { return };
        let address = phone.address;
        match message.class() {
            Class::Request if message.authentic(&Key::new(&phone.own.1)) => {
                if message.value(USE_CANDIDATE).is_some() && !phone.controls {
                    phone.choose(from);
                }
                let answer = Outgoing::new(Method::Binding, Class::Success, message.transaction());
                let reply = answer.mapped_address(from).sealed(&Key::new(&phone.own.1));
                self.carry(address, from, &reply);
            }
            Class::Success if phone.controls => {
                let is_known = phone.peer.as_ref().is_some_and(|peer| message.authentic(&Key::new(&peer.1)));
                if is_known {
                    phone.choose(from);
                }
            }
            _ => {}
        }
    }

    /// A phone that has no pair yet checks each, the best first.
    fn check(&mut self, index: usize) {
        let phone = &self.phones[index];
        let Some(peer) = phone.peer.clone().filter(|_| phone.selected.is_none() && phone.speaks_ice) else {
            return;
        };
        let address = phone.address;
        for to in phone.candidates.clone() {
            let phone = &self.phones[index];
            let role = if phone.controls { ICE_CONTROLLING } else { ICE_CONTROLLED };
            let transaction = self.now.as_nanos() ^ u128::from(to.port());
            let mut request = Outgoing::new(Method::Binding, Class::Request, transaction)
                .username(&peer.0, &phone.own.0)
                .with(role, &5_u64.to_be_bytes());
            if phone.controls {
                request = request.with(USE_CANDIDATE, &[]);
            }
            let packet = request.sealed(&Key::new(&peer.1));
            self.carry(address, to, &packet);
        }
    }

    fn speak(&mut self, index: usize) {
        let phone = &mut self.phones[index];
        phone.sequence += 1;
        let mut packet = [0_u8; 172];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&phone.sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&(index as u32 + 1).to_be_bytes());
        let (from, to) = (phone.address, phone.target());
        self.carry(from, to, &packet);
    }

    /// A receiver report by way of the relay, which is RTCP's only candidate.
    fn report(&mut self, index: usize) {
        let Some((_, sequence, _)) = self.phones[index].heard else { return };
        let mut packet = vec![0x81, 201, 0, 7];
        packet.extend((index as u32 + 1).to_be_bytes());
        packet.extend((2 - index as u32).to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(u32::from(sequence).to_be_bytes());
        packet.extend([0; 12]);
        let from = SocketAddr::new(self.phones[index].address.ip(), self.phones[index].address.port() + 1);
        let to = relay(2 * index as u32 + 1);
        self.carry(from, to, &packet);
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += TICK;
            self.worker.handle_timeout(self.now, &mut self.ports);
            self.events();
            while let Some((socket, to, bytes)) = self.worker.poll_transmit() {
                self.carry(relay(socket), to, &bytes);
            }
            (0..2).for_each(|index| self.check(index));
            (0..2).for_each(|index| self.speak(index));
            if self.now > self.reported + Duration::from_secs(2) {
                self.reported = self.now;
                (0..2).for_each(|index| self.report(index));
            }
            self.events();
        }
    }

    fn state(&self) -> Option<PathState> {
        self.timeline.iter().rev().find_map(|entry| match entry {
            Entry::State { to, .. } => Some(*to),
            _ => None,
        })
    }

    /// Each has heard the other until now, from there, and never missed more than `pause`.
    fn hear(&self, from_relay: bool, pause: Duration) {
        for phone in &self.phones {
            let (from, _, at) = phone.heard.unwrap();
            assert_eq!(from.ip() == relay(0).ip(), from_relay, "{:?}", self.timeline);
            assert!(
                self.now - at <= TICK && phone.silence <= pause,
                "{:?} {:?}",
                phone.silence,
                self.timeline
            );
        }
    }
}

impl Phone {
    /// The first candidate that works is the best; the rest keep what they have.
    fn choose(&mut self, at: SocketAddr) {
        if self.selected.is_none() {
            self.selected = Some(at);
        }
    }
}

fn phones() -> [Phone; 2] {
    [Phone::new("198.51.100.7:4000", "aa"), Phone::new("203.0.113.8:5000", "bb")]
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_phones_are_introduced_leave_the_relay_and_come_back_when_their_path_breaks() {
    let mut world = World::new(phones());
    world.pass(SECOND / 2);
    world.hear(true, TICK);
    world.pass(8 * SECOND);
    assert_eq!(world.state(), Some(PathState::Direct), "{:?}", world.timeline);
    world.hear(false, 2 * TICK);
    world.is_open = false;
    world.pass(6 * SECOND);
    assert_eq!(world.state(), Some(PathState::Anchored), "{:?}", world.timeline);
    world.hear(true, 4 * SECOND);
}

#[test]
fn phones_behind_nats_meet_where_the_relay_sees_them() {
    let mut two = phones();
    two[0].inside = Some("192.168.1.10:4000".parse().unwrap());
    two[1].inside = Some("192.168.1.10:6000".parse().unwrap());
    let mut world = World::new(two);
    world.pass(10 * SECOND);
    assert_eq!(world.state(), Some(PathState::Direct), "{:?}", world.timeline);
    world.hear(false, 3 * TICK);
    world.act(Action::Constrain(Constraint::MustAnchor));
    world.pass(2 * SECOND);
    world.hear(true, 3 * TICK);
}

#[test]
fn policy_calls_them_back_at_once_and_lets_them_go_again() {
    let mut world = World::new(phones());
    world.pass(9 * SECOND);
    world.act(Action::Constrain(Constraint::MustAnchor));
    world.pass(SECOND);
    assert_eq!(world.state(), Some(PathState::Anchored), "{:?}", world.timeline);
    world.hear(true, 3 * TICK);
    world.act(Action::Constrain(Constraint::MayRelease));
    world.pass(9 * SECOND);
    assert_eq!(world.state(), Some(PathState::Direct), "{:?}", world.timeline);
    world.hear(false, 3 * TICK);
}

#[test]
fn without_a_direct_path_media_never_stops_and_they_stay() {
    let mut world = World::new(phones());
    world.is_open = false;
    world.pass(40 * SECOND);
    world.hear(true, 3 * TICK);
    assert_eq!(world.state(), Some(PathState::Anchored), "{:?}", world.timeline);
    assert_eq!(world.asks(), 1);
}

#[test]
fn what_has_failed_twice_is_not_introduced_again_until_it_is_forgotten() {
    let limits = Limits { remember: 300 * SECOND, ..Limits::default() };
    let mut world = World::with(phones(), 1, limits);
    world.is_open = false;
    for asks in [1, 1, 0] {
        world.pass(30 * SECOND);
        assert_eq!(world.asks(), asks, "{:?}", world.timeline);
        if asks > 0 {
            world.call_again();
        }
    }
    assert!(world.timeline.contains(&Entry::Stays(Stay::Remembered)), "{:?}", world.timeline);
    world.hear(true, TICK);
    world.pass(300 * SECOND);
    world.is_open = true;
    for _ in 0..2 {
        world.call_again();
        world.pass(9 * SECOND);
        assert_eq!(world.state(), Some(PathState::Direct), "{:?}", world.timeline);
    }
    let outcomes = std::iter::from_fn(|| world.worker.poll_outcome()).map(|outcome| outcome.has_worked);
    assert_eq!(outcomes.collect::<Vec<_>>(), [false, false, true, true], "what the store is told");
}

#[test]
fn calls_that_cover_others_are_not_introduced_or_come_back_for_no_reason() {
    let limits = Limits { cover_percent: 50, ..Limits::default() };
    let (mut stay, mut come_back, mut go) = (0, 0, 0);
    for id in 1..=24 {
        let mut world = World::with(phones(), id, limits);
        world.pass(9 * SECOND);
        if world.asks() == 0 {
            assert!(world.timeline.contains(&Entry::Stays(Stay::Policy)), "{:?}", world.timeline);
            stay += 1;
            world.act(Action::Constrain(Constraint::MayRelease));
            world.pass(9 * SECOND);
            assert_eq!(world.state(), Some(PathState::Direct), "an operator's word counts for more");
            continue;
        }
        assert_eq!(world.state(), Some(PathState::Direct), "{:?}", world.timeline);
        world.pass(620 * SECOND);
        world.hear(world.state() == Some(PathState::Anchored), 3 * TICK);
        let is_back = world.state() == Some(PathState::Anchored);
        let by_policy = Entry::State { to: PathState::Returning, why: Reason::Policy };
        assert_eq!(world.timeline.contains(&by_policy), is_back, "{:?}", world.timeline);
        (come_back, go) = (come_back + u32::from(is_back), go + u32::from(!is_back));
    }
    assert!(stay > 2 && come_back > 0 && go > 0, "{stay} {come_back} {go}");
}

#[test]
fn checks_that_are_lost_are_repeated() {
    for loses in 2..8 {
        let mut world = World::new(phones());
        world.loses = loses;
        world.pass(12 * SECOND);
        world.hear(world.state() != Some(PathState::Direct), 4 * TICK);
    }
}

#[test]
fn a_phone_that_keeps_its_credentials_is_not_introduced_and_nobody_is_harmed() {
    for (who, place) in [(0, 0), (1, 0), (1, 1), (0, 1)] {
        let mut two = phones();
        two[who].restarts_in[place] = false;
        let mut world = World::new(two);
        world.pass(12 * SECOND);
        let is_direct = world.state() == Some(PathState::Direct);
        // The other one is asked if the first has not restarted in its offer.
        assert!(place == 1 || is_direct || who == 1, "{who} {place} {:?}", world.timeline);
        world.hear(!is_direct, 4 * TICK);
    }
}

#[test]
fn whatever_becomes_of_our_offers_media_goes_on() {
    let outcomes = [Renegotiated::Refused(488), Renegotiated::Refused(408), Renegotiated::Superseded];
    for outcome in outcomes {
        for refuser in 0..2 {
            let mut world = World::new(phones());
            world.outcomes.push_back(outcome.clone());
            world.phones[refuser].refuses = refuser == 1;
            world.pass(15 * SECOND);
            let is_direct = world.state() == Some(PathState::Direct);
            world.hear(!is_direct, 4 * TICK);
        }
    }
}

#[test]
fn a_phone_without_ice_is_told_nothing_of_it() {
    let mut two = phones();
    two[0].speaks_ice = false;
    let mut world = World::new(two);
    assert!(world.phones[1].peer.is_none());
    world.pass(SECOND);
    world.hear(true, TICK);
    let mut two = phones();
    two[1].speaks_ice = false;
    let mut world = World::new(two);
    assert!(world.phones[0].peer.is_some(), "ours");
    world.pass(SECOND);
    world.hear(true, TICK);
}

#[test]
fn neither_phone_sees_anything_of_the_other_before_it_may() {
    let world = World::new(phones());
    for (phone, other) in [(0, 1), (1, 0)] {
        assert!(world.phones[phone].candidates.iter().all(|at| at.ip() == relay(0).ip()));
        assert_ne!(world.phones[phone].peer, Some(world.phones[other].own.clone()));
    }
}

#[test]
fn a_phone_that_would_not_leave_ice_is_not_moved_to_one_that_has_none() {
    let mut two = phones();
    two[1].speaks_ice = false;
    let mut world = World::new(two);
    world.pass(30 * SECOND);
    assert!(world.timeline.contains(&Entry::Stays(Stay::Ice)), "{:?}", world.timeline);
    let is_move = |entry: &Entry| matches!(entry, Entry::State { to: PathState::Synchronising, .. });
    assert!(!world.timeline.iter().any(is_move), "{:?}", world.timeline);
    world.hear(true, TICK);
}
