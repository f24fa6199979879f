//! Ordinary phones released to a direct path and brought back, in virtual time: phones of each temperament, paths that
//! work, that work one way, that never work, that are cut.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails says where")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use media_core::path::phone::Temperament;
use media_core::path::place::Networks;
use media_core::path::proof::Reception;
use media_core::path::timeline::{Entry, PathState};
use media_core::path::{Constraint, Moved, Output, Release, Settings, Sight};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// Where a phone sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Relay,
    Peer,
    Nowhere,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Baresip,
    Linphone,
    Pjsip,
    /// Never reports.
    Mute,
    /// Refuses every re-INVITE.
    Stubborn,
}

impl Kind {
    const ALL: [Self; 5] = [Self::Baresip, Self::Linphone, Self::Pjsip, Self::Mute, Self::Stubborn];

    fn product(self) -> &'static str {
        match self {
            Self::Baresip | Self::Stubborn => "baresip v1.0.0",
            Self::Linphone => "Linphone/5.1.65 (belle-sip/5.1)",
            Self::Pjsip => "PJSUA v2.15",
            Self::Mute => "Acme 1",
        }
    }
}

struct Phone {
    kind: Kind,
    target: Target,
    on_hold: bool,
    sequence: u32,
    next_report: u64,
    /// What it has received: highest number, count, and when the last came.
    highest: Option<u32>,
    received: u32,
    first: u32,
    heard_at: u64,
    longest_silence: u64,
    /// Packets in a row from elsewhere than it sends to.
    strange: u32,
}

struct World {
    now: u64,
    dice: ChaCha8Rng,
    phones: [Phone; 2],
    /// Does a packet from phone `i` reach the other one directly?
    works: Box<dyn Fn(usize, u64) -> bool>,
    relaying: [bool; 2],
    sights: [Sight; 2],
    release: Release,
    /// Packets in flight: when, from, over the relay, sequence.
    flying: VecDeque<(u64, usize, bool, u32)>,
    /// Re-INVITEs to be taken: when, by whom, what.
    asked: Vec<(u64, usize, Ask)>,
    moves: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    To(Target),
    Hold,
}

const TICK: u64 = 5;

impl World {
    fn new(seed: u64, kinds: [Kind; 2], works: impl Fn(usize, u64) -> bool + 'static) -> Self {
        let phone = |kind, sequence| Phone {
            kind,
            target: Target::Relay,
            on_hold: false,
            sequence,
            next_report: 5_000,
            highest: None,
            received: 0,
            first: 0,
            heard_at: 0,
            longest_silence: 0,
            strange: 0,
        };
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let sequences = [dice.next_u32() & 0xffff, dice.next_u32() & 0xffff];
        let parties = kinds.map(|kind| Temperament::of(kind.product()));
        let mut release = Release::new(
            Settings::default(),
            Arc::new(Networks::default()),
            Constraint::MayRelease,
            parties,
            1,
            None,
            Duration::ZERO,
        );
        for (party, at) in ["198.51.100.7:4000", "203.0.113.8:5000"].into_iter().enumerate() {
            let at: SocketAddr = at.parse().unwrap();
            release.placed(party, at, Some(at), Some(at.ip()));
        }
        let sight = |ssrc| Sight { ssrc, clock_rate: 8000, packets: 0, sequence: 0, heard: Duration::ZERO };
        Self {
            now: 0,
            dice,
            phones: [phone(kinds[0], sequences[0]), phone(kinds[1], sequences[1])],
            works: Box::new(works),
            relaying: [true; 2],
            sights: [sight(100), sight(101)],
            release,
            flying: VecDeque::new(),
            asked: Vec::new(),
            moves: 0,
        }
    }

    fn time(&self) -> Duration {
        Duration::from_millis(self.now)
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            self.now += TICK;
            self.answer();
            if self.now.is_multiple_of(20) {
                self.send();
            }
            self.arrive();
            self.report();
            if self.now.is_multiple_of(20) {
                for from in 0..2 {
                    self.release.sight(0, from, self.sights[from], self.time());
                }
                self.release.handle_timeout(self.time());
            }
            self.obey();
        }
    }

    fn obey(&mut self) {
        while let Some(output) = self.release.poll_output() {
            let both = |world: &mut Self, ask| {
                for party in 0..2 {
                    let after = 20 + u64::from(world.dice.next_u32() % 60);
                    world.asked.push((world.now + after, party, ask));
                }
            };
            match output {
                Output::Move(_) => {
                    self.moves += 1;
                    both(self, Ask::To(Target::Peer));
                }
                Output::Home => both(self, Ask::To(Target::Relay)),
                Output::Hold => both(self, Ask::Hold),
                Output::Relaying { to, is_on } => self.relaying[to] = is_on,
                Output::Learn(_) => panic!("nobody here is behind a NAT"),
            }
        }
    }

    fn answer(&mut self) {
        let now = self.now;
        let (due, later) = self.asked.drain(..).partition(|asked| asked.0 <= now);
        self.asked = later;
        for (_, party, ask) in due {
            let phone = &mut self.phones[party];
            if phone.kind == Kind::Stubborn {
                self.release.moved(party, Moved::Refused, Duration::from_millis(now));
                continue;
            }
            match ask {
                Ask::To(target) => {
                    (phone.target, phone.on_hold, phone.strange) = (target, false, 0);
                    match phone.kind {
                        Kind::Pjsip => phone.next_report = now + 200,
                        Kind::Linphone => {
                            phone.next_report = now + 300 + u64::from(self.dice.next_u32() % 2_700)
                        }
                        _ => {}
                    }
                }
                Ask::Hold => phone.on_hold = true,
            }
            self.release.moved(party, Moved::Accepted, Duration::from_millis(now));
        }
    }

    fn send(&mut self) {
        for from in 0..2 {
            let phone = &mut self.phones[from];
            if phone.on_hold || phone.target == Target::Nowhere {
                continue;
            }
            phone.sequence += 1;
            let over_relay = phone.target == Target::Relay;
            if over_relay || (self.works)(from, self.now) {
                self.flying.push_back((self.now + 20, from, over_relay, phone.sequence));
            }
        }
    }

    fn arrive(&mut self) {
        while self.flying.front().is_some_and(|packet| packet.0 <= self.now) {
            let Some((_, from, over_relay, sequence)) = self.flying.pop_front() else { return };
            if over_relay {
                let sight = &mut self.sights[from];
                sight.packets += 1;
                sight.sequence = sequence as u16;
                sight.heard = Duration::from_millis(self.now);
                if !self.relaying[1 - from] {
                    continue;
                }
            }
            let phone = &mut self.phones[1 - from];
            let source = if over_relay { Target::Relay } else { Target::Peer };
            if phone.kind == Kind::Pjsip && !phone.on_hold {
                phone.strange = if source == phone.target { 0 } else { phone.strange + 1 };
                if phone.strange >= 10 {
                    (phone.target, phone.strange) = (source, 0);
                }
            }
            if phone.highest.is_none() {
                phone.first = sequence;
            }
            phone.highest = Some(phone.highest.unwrap_or(0).max(sequence));
            phone.received += 1;
            phone.longest_silence = phone.longest_silence.max(self.now - phone.heard_at);
            phone.heard_at = self.now;
        }
    }

    fn report(&mut self) {
        for party in 0..2 {
            let phone = &mut self.phones[party];
            if self.now < phone.next_report || phone.kind == Kind::Mute {
                continue;
            }
            phone.next_report = self.now
                + match phone.kind {
                    Kind::Linphone => 1_500 + u64::from(self.dice.next_u32() % 1_500),
                    _ => 5_000,
                };
            if let Some(highest) = phone.highest {
                let expected = highest - phone.first + 1;
                let report = Reception {
                    ssrc: 100 + 1 - party as u32,
                    highest,
                    lost: (expected - phone.received) as i32,
                    jitter: 8,
                };
                let at = Duration::from_millis(self.now);
                self.release.sight(0, 1 - party, self.sights[1 - party], at);
                self.release.reception(0, party, &report, at);
            }
        }
    }

    fn is_silent(&self) -> bool {
        self.phones.iter().any(|phone| self.now > phone.heard_at + 200)
    }

    fn forget_silence(&mut self) {
        for phone in &mut self.phones {
            phone.longest_silence = 0;
        }
    }

    fn longest_silence(&self) -> u64 {
        self.phones.iter().map(|phone| phone.longest_silence.max(self.now - phone.heard_at)).max().unwrap()
    }

    fn assert_metered(&self) {
        let (relayed, direct) = self.release.timeline().spans(self.time());
        assert_eq!(relayed + direct, self.time());
    }
}

const PAIRS: [[Kind; 2]; 6] = [
    [Kind::Baresip, Kind::Baresip],
    [Kind::Baresip, Kind::Linphone],
    [Kind::Linphone, Kind::Linphone],
    [Kind::Linphone, Kind::Pjsip],
    [Kind::Pjsip, Kind::Pjsip],
    [Kind::Pjsip, Kind::Baresip],
];

#[test]
fn a_working_path_is_taken_proven_and_kept() {
    for (seed, kinds) in (0..120).flat_map(|seed| PAIRS.map(|kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, |_, _| true);
        world.run(1_000);
        world.forget_silence();
        world.run(12_000);
        assert_eq!(
            world.release.state(),
            PathState::Direct,
            "{kinds:?} {seed} {:?}",
            world.release.timeline()
        );
        world.run(120_000);
        assert_eq!(
            world.release.state(),
            PathState::Direct,
            "{kinds:?} {seed} {:?}",
            world.release.timeline()
        );
        let limit = if kinds.contains(&Kind::Pjsip) { 200 } else { 60 };
        assert!(world.longest_silence() <= limit, "{kinds:?} {seed}: {} ms", world.longest_silence());
        assert_eq!(world.moves, 1);
        let (_, direct) = world.release.timeline().spans(world.time());
        assert!(direct > Duration::from_secs(107), "{direct:?}");
        world.assert_metered();
    }
}

#[test]
fn a_path_that_never_works_costs_little_and_is_not_tried_again() {
    for (seed, kinds) in (0..120).flat_map(|seed| PAIRS.map(|kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, |_, _| false);
        world.run(1_000);
        world.forget_silence();
        world.run(180_000);
        let end = (world.release.state(), world.moves);
        assert_eq!(end, (PathState::Anchored, 1), "{kinds:?} {seed} {:?}", world.release.timeline());
        let limit = if kinds == [Kind::Baresip; 2] { 1_000 } else { 3_500 };
        assert!(world.longest_silence() <= limit, "{kinds:?} {seed}: {} ms", world.longest_silence());
        assert!(!world.is_silent());
        world.assert_metered();
    }
}

#[test]
fn a_path_that_works_one_way_is_given_up() {
    for (seed, kinds) in (0..60).flat_map(|seed| PAIRS.map(|kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, move |from, _| from == (seed % 2) as usize);
        world.run(60_000);
        assert_eq!(world.release.state(), PathState::Anchored, "{kinds:?} {seed}");
        assert!(!world.is_silent(), "{kinds:?} {seed} {:?}", world.release.timeline());
    }
}

#[test]
fn a_path_that_is_cut_brings_the_media_back_within_seven_seconds() {
    for (seed, kinds) in (0..120).flat_map(|seed| PAIRS.map(|kinds| (seed, kinds))) {
        let cut = 30_000 + seed * 37;
        let mut world = World::new(seed, kinds, move |_, now| now < cut);
        world.run(cut);
        assert_eq!(world.release.state(), PathState::Direct, "{kinds:?} {seed}");
        world.forget_silence();
        world.run(cut + 7_000);
        assert!(!world.is_silent(), "{kinds:?} {seed} {:?}", world.release.timeline());
        assert!(
            world
                .release
                .timeline()
                .entries()
                .iter()
                .any(|entry| matches!(entry.1, Entry::State { to: PathState::Returning, .. }))
        );
    }
}

#[test]
fn policy_calls_the_media_back_at_once_from_a_path_that_works() {
    for (seed, kinds) in (0..120).flat_map(|seed| PAIRS.map(|kinds| (seed, kinds))) {
        let mut world = World::new(seed, kinds, |_, _| true);
        world.run(30_000);
        assert_eq!(world.release.state(), PathState::Direct);
        world.forget_silence();
        let relayed = world.sights.map(|sight| sight.packets);
        world.release.constrain(Constraint::MustAnchor, world.time());
        world.run(31_000);
        assert_eq!(
            world.release.state(),
            PathState::Anchored,
            "{kinds:?} {seed} {:?}",
            world.release.timeline()
        );
        let limit = if kinds.contains(&Kind::Pjsip) { 200 } else { 150 };
        assert!(world.longest_silence() <= limit, "{kinds:?} {seed}: {} ms", world.longest_silence());
        assert!((0..2).all(|from| world.sights[from].packets > relayed[from] + 30));
        world.run(90_000);
        assert_eq!((world.release.state(), world.moves), (PathState::Anchored, 1));
        world.assert_metered();
    }
}

#[test]
fn a_phone_that_refuses_is_left_alone() {
    for other in Kind::ALL {
        let mut world = World::new(1, [Kind::Stubborn, other], |_, _| true);
        world.run(90_000);
        assert_eq!((world.release.state(), world.is_silent()), (PathState::Anchored, false), "{other:?}");
        assert!(world.moves <= 1);
    }
}

#[test]
fn a_phone_that_never_reports_is_not_kept_on_an_unproven_path() {
    for other in [Kind::Baresip, Kind::Linphone, Kind::Mute] {
        let mut world = World::new(1, [Kind::Mute, other], |_, _| true);
        world.run(60_000);
        assert_eq!((world.release.state(), world.is_silent()), (PathState::Anchored, false), "{other:?}");
    }
}
