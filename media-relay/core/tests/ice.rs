//! Phones that speak ICE, in virtual time: whatever message is lost or refused, media goes on, on the relay or past it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::path::Settings as Limits;
use media_core::policy::{Ice, Mode, RealmRelease};
use media_core::state::NotSteady;
use media_core::worker::{Settings, SocketId};
use play::Dice;
use play::handover::{Origin, written};
use play::phone::ice::Phone;
use play::ports::Counted;
use play::settings::media::{ENDS, party, release_within};
use seam::path::{Constraint, Entry, IceStep, PathEntry, PathState, Reason, Stay};
use seam::{Action, Endpoint, Event, ExchangeId, Listener, Party, Renegotiated, Reply, Role};

const TICK: Duration = Duration::from_millis(20);

fn relay(socket: SocketId) -> SocketAddr {
    SocketAddr::new([192, 0, 2, 1].into(), 10_000 + socket as u16)
}

struct World {
    /// The call's number: which calls are cover is drawn from it.
    id: u64,
    worker: Worker,
    ports: Counted,
    now: Duration,
    /// The clock of the worker's process.
    clock: Origin,
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

    fn settings(limits: Limits, secret: u8) -> Settings {
        let realm = RealmRelease { mode: Mode::Allow, lan: false, ice: Ice::Offer };
        let release = Some(release_within(limits, vec![realm], Vec::new()));
        Settings { release, secret: [secret; 32], ..Settings::default() }
    }

    /// Another process goes on with the call, if it rests.
    fn hand_over(&mut self, dice: &mut Dice) -> Result<(), NotSteady> {
        let now = self.clock.shows(self.now);
        let stored = self.worker.take_out(self.id, now, &mut self.ports)?;
        self.events();
        self.worker = Worker::new(Self::settings(Limits::default(), 8), "anchor".to_owned());
        self.ports = std::mem::take(&mut self.ports).successor();
        (self.clock, self.id) = (Origin::drawn(self.now, dice), self.id + 1_000);
        let now = self.clock.shows(self.now);
        self.worker.take_in(self.id, written(&stored), now, &mut self.ports).expect("its ports are free");
        Ok(())
    }

    fn with(phones: [Phone; 2], id: u64, limits: Limits) -> Self {
        let settings = Self::settings(limits, 7);
        let mut world = Self {
            id,
            worker: Worker::new(settings, "anchor".to_owned()),
            ports: Counted::at([[192, 0, 2, 1]]),
            now: Duration::from_secs(1),
            clock: Origin::default(),
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
        self.worker.handle(self.id, action, self.clock.shows(self.now), &mut self.ports)
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
            let socket = self.ports.socket(to).expect("it is open");
            let (mut out, ports) = (Vec::new(), &self.ports);
            let send = |socket, to, bytes: &[u8]| {
                out.push((ports.address(socket).expect("it is open"), to, bytes.to_vec()));
            };
            let now = self.clock.shows(self.now);
            self.worker.packet(media_core::worker::Arrival { socket, source: from, now }, packet, send);
            out.into_iter().for_each(|(from, to, bytes)| self.carry(from, to, &bytes));
        } else if let Some(index) = self.phones.iter().position(|phone| phone.address == to) {
            if from.ip() != relay(0).ip() && !self.is_open {
                return;
            }
            let phone = &self.phones[index];
            if phone.inside.is_some() && !phone.sent_to.contains(&from) {
                return;
            }
            let phone = &mut self.phones[index];
            if is_stun {
                if let Some(answer) = phone.checked(from, packet) {
                    self.carry(to, from, &answer);
                }
            } else if packet.len() == 172 {
                phone.hear(from, packet, self.now);
            }
        }
    }

    /// A phone that has no pair yet checks each, the best first.
    fn check(&mut self, index: usize) {
        let from = self.phones[index].address;
        for (to, packet) in self.phones[index].checks(self.now) {
            self.carry(from, to, &packet);
        }
    }

    fn speak(&mut self, index: usize) {
        let phone = &mut self.phones[index];
        let (from, to, packet) = (phone.address, phone.target(), phone.speak());
        self.carry(from, to, &packet);
    }

    /// A receiver report by way of the relay, which is RTCP's only candidate.
    fn report(&mut self, index: usize) {
        let Some(packet) = self.phones[index].report(2 - index as u32) else { return };
        let from = SocketAddr::new(self.phones[index].address.ip(), self.phones[index].address.port() + 1);
        let to = relay(2 * index as u32 + 1);
        self.carry(from, to, &packet);
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += TICK;
            self.worker.handle_timeout(self.clock.shows(self.now), &mut self.ports);
            self.events();
            while let Some((socket, to, bytes)) = self.worker.poll_transmit() {
                let from = self.ports.address(socket).expect("it is open");
                self.carry(from, to, &bytes);
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

    /// So long from now its media is there.
    #[track_caller]
    fn is_after(&mut self, span: Duration, state: PathState) {
        self.pass(span);
        assert_eq!(self.state(), Some(state), "{:?}", self.timeline);
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

fn phones() -> [Phone; 2] {
    let phone = |address, name, ssrc| Phone::new(address, name, ssrc, relay(0));
    [phone("198.51.100.7:4000", "aa", 1), phone("203.0.113.8:5000", "bb", 2)]
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn two_phones_are_introduced_leave_the_relay_and_come_back_when_their_path_breaks() {
    let mut world = World::new(phones());
    world.pass(SECOND / 2);
    world.hear(true, TICK);
    world.is_after(8 * SECOND, PathState::Direct);
    world.hear(false, 2 * TICK);
    world.is_open = false;
    world.is_after(6 * SECOND, PathState::Anchored);
    world.hear(true, 4 * SECOND);
}

#[test]
fn phones_that_another_process_goes_on_with_leave_stay_away_and_come_back_as_ever() {
    let told = |seed: u64, is_handed: bool| {
        let (mut world, mut dice) = (World::new(phones()), Dice::of(seed, 1));
        let mut took = 0;
        for second in 0..26 {
            let pause = TICK * (dice.below(50) as u32);
            world.pass(pause);
            let is_time = dice.below(3) == 0;
            if is_handed && is_time {
                took += u32::from(world.hand_over(&mut Dice::of(seed, second)).is_ok());
            }
            world.pass(SECOND - pause);
            if second == 13 && seed.is_multiple_of(2) {
                world.is_open = false;
            } else if second == 13 {
                world.act(Action::Constrain(Constraint::MustAnchor));
            }
        }
        world.hear(true, 5 * SECOND);
        let heard = world.phones.each_ref().map(|phone| (phone.heard, phone.silence));
        let Some(Reply::Deleted { direct, streams }) = world.act(Action::Delete) else { panic!("no count") };
        let streams: Vec<_> = streams.iter().map(|one| (one.packets, one.lost, one.whole)).collect();
        (format!("{:?} {heard:?} {direct:?} {streams:?}", world.timeline), took)
    };
    let mut times = 0;
    for seed in 0..100 {
        let ((handed, took), (straight, _)) = (told(seed, true), told(seed, false));
        assert_eq!(handed, straight, "seed {seed}");
        times += took;
    }
    assert!(times > 400, "{times}");
}

#[test]
fn phones_behind_nats_meet_where_the_relay_sees_them() {
    let mut two = phones();
    two[0].inside = Some("192.168.1.10:4000".parse().unwrap());
    two[1].inside = Some("192.168.1.10:6000".parse().unwrap());
    let mut world = World::new(two);
    world.is_after(10 * SECOND, PathState::Direct);
    world.hear(false, 3 * TICK);
    world.act(Action::Constrain(Constraint::MustAnchor));
    world.pass(2 * SECOND);
    world.hear(true, 3 * TICK);
}

#[test]
fn a_tap_calls_them_back_at_once_and_hears_what_they_say_until_it_goes() {
    let mut world = World::new(phones());
    world.is_after(9 * SECOND, PathState::Direct);
    let tap = Listener { number: 1, role: Role::Tap };
    world.act(Action::Attach(tap));
    world.is_after(SECOND, PathState::Anchored);
    world.hear(true, 3 * TICK);
    world.pass(SECOND);
    let heard = std::iter::from_fn(|| world.worker.poll_overheard()).filter(|copy| !copy.is_rtcp).count();
    assert!(heard >= 90, "{heard} packets of a second and more");
    world.act(Action::Detach(tap));
    world.is_after(9 * SECOND, PathState::Direct);
    world.hear(false, 3 * TICK);
}

#[test]
fn policy_calls_them_back_at_once_and_lets_them_go_again() {
    let mut world = World::new(phones());
    world.pass(9 * SECOND);
    world.act(Action::Constrain(Constraint::MustAnchor));
    world.is_after(SECOND, PathState::Anchored);
    world.hear(true, 3 * TICK);
    world.act(Action::Constrain(Constraint::MayRelease));
    world.is_after(9 * SECOND, PathState::Direct);
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
        world.is_after(9 * SECOND, PathState::Direct);
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
            world.is_after(9 * SECOND, PathState::Direct);
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
