//! One call: two phones in their places, the real worker between them, and signalling that takes its time. A proxy behind the relay may
//! lead the call back to it, so that it is more than one session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media_core::Worker;
use media_core::ours::OpenPorts;
use media_core::path::Settings as Limits;
use media_core::path::memory::{self, Known, Record};
use media_core::policy::{Mode, PairRelease};
use media_core::state::NotSteady;
use media_core::worker::Settings;
use nat_lab::Impairment;
use play::Dice;
use play::clock::Post;
use play::ground::{Ground, Place, relays};
use play::handover::{Origin, written};
use play::moves::{Motion, Moves};
use play::phone::plain::{Kind, Phone};
use play::ports::Counted;
pub(crate) use play::settings::media::ENDS;
use play::settings::media::{allowing, party, release_within, two_realms};
use seam::path::{Constraint, Entry, PathEntry, PathState, Reason, Stay};
use seam::{Action, Event, ExchangeId, Listener, Party, Renegotiated, Reply, Role, StreamStatistics};

const SESSION: u64 = 5;
/// Something that signalling carries.
#[derive(Debug)]
enum Letter {
    /// A wish at its phone.
    Ask { wish: u32, party: usize, sdp: Bytes },
    /// Its outcome at the worker.
    Renegotiated { wish: u32, party: usize, outcome: Renegotiated },
    /// A half of the call is over.
    Ended { half: usize },
    /// A party's own offer.
    Offer { exchange: u32, from: usize, direction: &'static str },
    /// It at the other phone.
    Offered { exchange: u32, from: usize, sdp: Bytes },
}

pub(crate) struct World {
    /// Its seed, phones and place.
    what: String,
    pub(crate) now: Duration,
    /// The clock of the worker's process.
    clock: Origin,
    pub(crate) ground: Ground,
    settings: Settings,
    worker: Worker,
    sockets: Counted,
    pub(crate) phones: [Phone; 2],
    parties: [Party; 2],
    /// How many sessions the call runs through, and which of them are not over.
    halves: usize,
    pub(crate) open: Vec<bool>,
    dice: Dice,
    letters: Post<Letter>,
    /// How much longer a re-INVITE takes to each phone.
    pub(crate) lag: [Duration; 2],
    /// How much later the next answer of each comes: it was lost and is sent again, while the phone has moved already.
    pub(crate) lost_answer: [Duration; 2],
    /// Wishes and exchanges under way.
    open_wishes: u32,
    open_exchange: bool,
    exchanges: u32,
    concluded: u32,
    pub(crate) timeline: Vec<(Duration, Entry)>,
    /// The same of the sessions after the first.
    pub(crate) others: Vec<Vec<(Duration, Entry)>>,
    /// How long both phones sent elsewhere than to the relay.
    pub(crate) away: Duration,
    pub(crate) wishes: u32,
    /// What moves cost, and how long the call was direct: as the timeline says.
    pub(crate) moves: Moves,
    /// The worker takes the call for dead, or cannot tell and asked so often.
    pub(crate) is_inactive: bool,
    pub(crate) questions: u32,
    /// What the relay took from the phones, as it came.
    pub(crate) taken: Vec<Bytes>,
}

const STEP: Duration = Duration::from_millis(5);

impl World {
    pub(crate) fn new(seed: u64, kinds: [Kind; 2], place: Place) -> Self {
        Self::with(seed, kinds, place, Limits::default())
    }

    pub(crate) fn with(seed: u64, kinds: [Kind; 2], place: Place, limits: Limits) -> Self {
        Self::between(seed, kinds, place, limits, Vec::new())
    }

    /// Where the path is certain by configuration.
    pub(crate) fn certain(seed: u64, kinds: [Kind; 2], place: Place) -> Self {
        let pair = PairRelease { realms: [0; 2], mode: Mode::Allow, certain: true };
        Self::between(seed, kinds, place, Limits::default(), vec![pair])
    }

    /// Through so many sessions, with a proxy after each but the last.
    pub(crate) fn through(halves: usize, seed: u64, kinds: [Kind; 2], place: Place) -> Self {
        Self::build(halves, seed, kinds, place, Limits::default(), Vec::new())
    }

    fn between(seed: u64, kinds: [Kind; 2], place: Place, limits: Limits, pairs: Vec<PairRelease>) -> Self {
        Self::build(1, seed, kinds, place, limits, pairs)
    }

    fn build(
        halves: usize,
        seed: u64,
        kinds: [Kind; 2],
        place: Place,
        limits: Limits,
        pairs: Vec<PairRelease>,
    ) -> Self {
        let mut dice = Dice::new(seed);
        let delay = Impairment { delay: Duration::from_millis(5 + dice.below(15)), ..Impairment::NONE };
        let ground = Ground::new(seed, place, [delay; 2]);
        let phones = [0, 1].map(|index| {
            let (host, ip) = ground.hosts[index];
            let ssrc = 0x1000 + index as u32;
            Phone::new(kinds[index], host, SocketAddr::new(ip, 4_000), ssrc, &mut dice)
        });
        let parties = [0, 1].map(|index| Party {
            product: kinds[index].product().into(),
            contact: Some(SocketAddr::new(phones[index].local.ip(), 5060)),
            ..party(
                if matches!(place, Place::Realms(_)) { index as u16 } else { 0 },
                SocketAddr::new(ground.seen[index], 5_060),
            )
        });
        let policy = release_within(limits, vec![allowing(); 2], pairs);
        let settings = two_realms(policy, &relays(), 20_000..=29_999);
        let mut world = Self {
            what: format!("{seed} {kinds:?} {place:?}"),
            now: Duration::from_secs(100),
            clock: Origin::default(),
            ground,
            worker: Worker::new(settings.clone(), "anchor".to_owned()),
            settings,
            sockets: Counted::at(relays()).from_port(20_000),
            phones,
            parties,
            halves,
            open: vec![true; halves],
            dice,
            letters: Post::default(),
            lag: [Duration::ZERO; 2],
            lost_answer: [Duration::ZERO; 2],
            open_wishes: 0,
            open_exchange: false,
            exchanges: 1,
            concluded: 1,
            timeline: Vec::new(),
            others: vec![Vec::new(); halves - 1],
            away: Duration::ZERO,
            wishes: 0,
            moves: Moves::default(),
            is_inactive: false,
            questions: 0,
            taken: Vec::new(),
        };
        // Both clocks begin together.
        let _ = world.ground.next(world.now);
        world.answer_call();
        world
    }

    /// The call is over, and after a while the same phones have another.
    pub(crate) fn call_again(&mut self, after: Duration) {
        self.end();
        for (index, phone) in self.phones.iter_mut().enumerate() {
            *phone = Phone::new(phone.kind, phone.host, phone.local, 0x1000 + index as u32, &mut self.dice);
        }
        self.letters.clear();
        (self.open_wishes, self.open_exchange, self.exchanges, self.concluded) = (0, false, 1, 1);
        self.timeline.clear();
        self.others.iter_mut().for_each(Vec::clear);
        self.open.fill(true);
        self.away = Duration::ZERO;
        self.now += after;
        let _ = self.ground.next(self.now);
        self.answer_call();
    }

    /// What became of moves since this was asked last.
    pub(crate) fn outcomes(&mut self) -> Vec<memory::Outcome> {
        std::iter::from_fn(|| self.worker.poll_outcome()).collect()
    }

    /// The process dies with its call; the store tells the next one of these failures in a row.
    pub(crate) fn restart(&mut self, outcome: &memory::Outcome, failures: u32, rest: Duration) {
        self.worker = Worker::new(self.settings.clone(), "anchor".to_owned());
        let record = Record { failures, until: self.clock.shows(self.now) + rest };
        self.sockets.forget();
        self.worker.recall(Arc::new(Known::from([(outcome.pair.clone(), record)])));
    }

    /// Another process goes on with the call, if it rests: with another clock, other numbers of sockets and other secrets.
    pub(crate) fn hand_over(&mut self, dice: &mut Dice) -> Result<(), NotSteady> {
        let now = self.clock.shows(self.now);
        let halves: Vec<u64> = (0..self.halves).map(|half| SESSION + half as u64).collect();
        let taken: Result<Vec<_>, _> =
            halves.iter().map(|id| self.worker.take_out(*id, now, &mut self.sockets)).collect();
        self.listen();
        let taken = taken?;
        assert!(self.worker.is_empty() && self.sockets.open_pairs() == 0, "something stays behind");
        self.settings.open_ports = OpenPorts::default();
        self.settings.secret = [dice.below(256) as u8; 32];
        self.worker = Worker::new(self.settings.clone(), "anchor".to_owned());
        self.sockets = std::mem::take(&mut self.sockets).successor();
        self.clock = Origin::drawn(self.now, dice);
        let now = self.clock.shows(self.now);
        for (id, stored) in halves.into_iter().zip(taken) {
            let stored = written(&stored);
            self.worker.take_in(id, stored, now, &mut self.sockets).expect("its ports are free");
        }
        self.listen();
        Ok(())
    }

    /// What was counted so far, by session.
    pub(crate) fn counts(&mut self) -> Vec<StreamStatistics> {
        let halves = 0..self.halves;
        let of = |half| match self.act(half, Action::Query) {
            Some(Reply::Statistics(streams)) => streams,
            other => panic!("{other:?}"),
        };
        halves.flat_map(of).collect()
    }

    fn act(&mut self, half: usize, action: Action) -> Option<Reply> {
        let session = SESSION + half as u64;
        let now = self.clock.shows(self.now);
        let reply = self.worker.handle(session, action, now, &mut self.sockets);
        self.listen();
        reply
    }

    fn described(&mut self, half: usize, action: Action) -> Bytes {
        match self.act(half, action) {
            Some(Reply::Description(Ok(described))) => described.sdp,
            other => panic!("{other:?}"),
        }
    }

    fn answer_call(&mut self) {
        let sdp = self.phones[0].describe("sendrecv");
        let offered = self.offered(1, 0, sdp);
        let answer = self.phones[1].answer(&offered, self.now, &mut self.dice);
        let answered = self.answered(1, 1, answer);
        self.phones[0].follow(&answered, self.now, &mut self.dice);
        self.phones.iter_mut().for_each(|phone| phone.heard = self.now);
    }

    /// In the order of a message from this phone.
    fn order(&self, from: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.halves).collect();
        if from == 1 {
            order.reverse();
        }
        order
    }

    fn party(&self, half: usize, end: usize) -> Party {
        let is_outer = [half == 0, half + 1 == self.halves][end];
        if is_outer {
            return self.parties[end].clone();
        }
        let signalling = "192.0.2.60:5060".parse().expect("an address");
        Party { product: "kamailio".into(), ..party(1, signalling) }
    }

    /// What a phone offers, as it reaches the other.
    fn offered(&mut self, exchange: u32, from: usize, sdp: Bytes) -> Bytes {
        self.order(from).into_iter().fold(sdp, |sdp, half| {
            let to = 1 - from;
            let [from_party, to_party] = [from, to].map(|end| self.party(half, end));
            let (exchange, from, to) = (ExchangeId(exchange), ENDS[from], ENDS[to]);
            self.described(half, Action::Offer { exchange, from, to, from_party, to_party, sdp })
        })
    }

    /// What a phone answers, as it reaches the other.
    fn answered(&mut self, exchange: u32, from: usize, sdp: Bytes) -> Bytes {
        self.order(from).into_iter().fold(sdp, |sdp, half| {
            if exchange == 1 {
                self.act(half, Action::Select(ENDS[1]));
            }
            let from_party = self.party(half, from);
            let (exchange, from, to) = (ExchangeId(exchange), ENDS[from], ENDS[1 - from]);
            self.described(half, Action::Answer { exchange, from, to, from_party, sdp })
        })
    }

    fn later(&mut self, letter: Letter) {
        let after = Duration::from_millis(15 + self.dice.below(40));
        self.letters.post(self.now + after, letter);
    }

    /// What the worker has to tell.
    fn listen(&mut self) {
        while let Some((session, event)) = self.worker.poll_event() {
            let half = (session - SESSION) as usize;
            match event {
                Event::Inactive => self.is_inactive = true,
                Event::Unheard => self.questions += 1,
                Event::Metered { .. } => {}
                Event::Answer { .. } => unreachable!("nobody is asked for an offer"),
                Event::Path(PathEntry { after, entry, parties }) => {
                    assert_eq!(parties, ENDS);
                    let timeline =
                        half.checked_sub(1).map_or(&mut self.timeline, |half| &mut self.others[half]);
                    timeline.push((after, entry));
                }
                Event::Renegotiate { wish, legs, .. } => {
                    self.wishes += 1;
                    for (endpoint, sdp) in legs {
                        let sdp = sdp.expect("an ordinary phone is never asked for an offer");
                        let party = usize::from(endpoint.party);
                        assert!([half == 0, half + 1 == self.halves][party], "a leg between was asked");
                        if self.open_exchange {
                            let outcome = Renegotiated::Superseded;
                            self.later(Letter::Renegotiated { wish, party, outcome });
                        } else {
                            self.open_wishes += 1;
                            let after = Duration::from_millis(15 + self.dice.below(40)) + self.lag[party];
                            self.letters.post(self.now + after, Letter::Ask { wish, party, sdp });
                        }
                    }
                }
            }
        }
    }

    /// A party offers something of its own; the other agrees.
    pub(crate) fn party_offers(&mut self, from: usize, direction: &'static str) {
        self.exchanges += 1;
        let exchange = self.exchanges;
        self.later(Letter::Offer { exchange, from, direction });
    }

    /// Each line to the outside loses this share of what it carries, both ways.
    pub(crate) fn lose(&mut self, loss: f64) {
        let Self { ground, dice, .. } = self;
        ground.set_lines(|_| {
            let delay = Duration::from_millis(5 + dice.below(15));
            Impairment { delay, loss, ..Impairment::NONE }
        });
    }

    pub(crate) fn constrain(&mut self, constraint: Constraint) {
        self.constrain_half(0, constraint);
    }

    pub(crate) fn constrain_half(&mut self, half: usize, constraint: Constraint) {
        self.act(half, Action::Constrain(constraint));
    }

    /// Somebody listens from now on, or not any more.
    pub(crate) fn tap(&mut self, is_on: bool) {
        let tap = Listener { number: 1, role: Role::Tap };
        self.act(0, if is_on { Action::Attach(tap) } else { Action::Detach(tap) });
    }

    /// What was heard since this was asked last.
    pub(crate) fn overheard(&mut self) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| self.worker.poll_overheard()).map(|copy| copy.packet).collect()
    }

    /// A party hangs up, which the proxy brings to the other halves; or, if it `is_alone`, keeps for itself.
    pub(crate) fn hang_up(&mut self, from: usize, is_alone: bool) {
        self.phones[from].hang_up();
        let order = self.order(from);
        for (place, half) in order.into_iter().enumerate().take(if is_alone { 1 } else { usize::MAX }) {
            self.letters.post(self.now + Duration::from_millis(20 * place as u64), Letter::Ended { half });
        }
    }

    fn carry(&mut self) {
        let now = self.now;
        for letter in self.letters.due(now) {
            match letter {
                Letter::Ask { wish, party, sdp } => {
                    let phone = &mut self.phones[party];
                    let kind = phone.kind;
                    let mut accepts = || Renegotiated::Accepted(phone.answer(&sdp, now, &mut self.dice));
                    let (after, outcome) = match kind {
                        Kind::Refusing(status) => (Duration::ZERO, Renegotiated::Refused(status)),
                        Kind::Deaf => (Duration::from_secs(32), Renegotiated::Refused(408)),
                        Kind::Slow(after) => (after, accepts()),
                        _ => (Duration::ZERO, accepts()),
                    };
                    let after = after
                        + Duration::from_millis(5 + self.dice.below(30))
                        + std::mem::take(&mut self.lost_answer[party]);
                    self.letters.post(now + after, Letter::Renegotiated { wish, party, outcome });
                }
                Letter::Renegotiated { wish, party, outcome } => {
                    if outcome != Renegotiated::Superseded {
                        self.open_wishes -= 1;
                    }
                    let half = if party == 0 { 0 } else { self.halves - 1 };
                    self.act(half, Action::Renegotiated { wish, endpoint: ENDS[party], outcome });
                }
                Letter::Ended { half } => {
                    self.open[half] = false;
                    self.act(half, Action::Delete);
                }
                // An offer of a phone waits until ours has ended.
                Letter::Offer { exchange, from, direction }
                    if self.open_wishes > 0 || self.open_exchange || exchange != self.concluded + 1 =>
                {
                    self.later(Letter::Offer { exchange, from, direction });
                }
                Letter::Offer { exchange, from, direction } => {
                    self.open_exchange = true;
                    let sdp = self.phones[from].describe(direction);
                    let sdp = self.offered(exchange, from, sdp);
                    self.later(Letter::Offered { exchange, from, sdp });
                }
                Letter::Offered { exchange, from, sdp } => {
                    let answer = self.phones[1 - from].answer(&sdp, now, &mut self.dice);
                    let answered = self.answered(exchange, 1 - from, answer);
                    self.phones[from].follow(&answered, now, &mut self.dice);
                    self.open_exchange = false;
                    self.concluded = exchange;
                }
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let relays = relays();
        while self.now < end {
            self.now += STEP;
            self.deliver();
            self.carry();
            let is_packet_time = self.now.as_millis().is_multiple_of(20);
            for index in 0..2 {
                let phone = &mut self.phones[index];
                if is_packet_time && phone.speak(&mut self.ground.network, self.now, &mut self.dice) {
                    self.phones[1 - index].unheard += Duration::from_millis(20);
                }
                self.phones[index].report(&mut self.ground.network, self.now, &mut self.dice);
            }
            let now = self.clock.shows(self.now);
            if self.worker.poll_timeout().is_some_and(|due| due <= now) {
                self.worker.handle_timeout(now, &mut self.sockets);
                self.listen();
            }
            let is_away =
                self.phones.iter().all(|phone| phone.target.is_some_and(|at| !relays.contains(&at.ip())));
            if is_away {
                self.away += STEP;
            }
            self.measure();
        }
    }

    /// Runs, and forgets who was silent until its first packets had passed.
    pub(crate) fn settle_and_run(&mut self, span: Duration) {
        self.run(Duration::from_millis(300));
        self.forget_silence();
        self.run(span);
    }

    /// So long from now its media is there.
    #[track_caller]
    pub(crate) fn is_after(&mut self, span: Duration, state: PathState) {
        self.run(span);
        assert_eq!(self.state(), state, "{} {:?}", self.what, self.timeline);
    }

    /// How long a move kept somebody from what was sent to it, and how much of the call is direct.
    fn measure(&mut self) {
        let motion = match self.state() {
            PathState::Synchronising | PathState::Returning => Motion::Moves,
            PathState::Direct => Motion::IsDirect,
            _ => Motion::Rests,
        };
        let unheard = self.phones.iter().map(|phone| phone.unheard).max();
        self.moves.watch(motion, unheard, self.now, STEP);
    }

    fn deliver(&mut self) {
        while let Some(came) = self.ground.next(self.now) {
            if came.host == self.ground.relay {
                let dropped = self.worker.dropped;
                let now = self.clock.shows(self.now);
                let is_open = self.ground.pass(&mut self.worker, &self.sockets, &came, now);
                if is_open && self.worker.dropped == dropped {
                    self.taken.push(came.payload);
                }
            } else if let Some(phone) = self
                .phones
                .iter_mut()
                .find(|phone| phone.host == came.host && phone.local == came.destination)
            {
                phone.hear(came.source, &came.payload, self.now);
            }
        }
    }

    /// The state that the timeline ends with.
    pub(crate) fn state(&self) -> PathState {
        self.timeline
            .iter()
            .rev()
            .find_map(|(_, entry)| match entry {
                Entry::State { to, .. } => Some(*to),
                _ => None,
            })
            .unwrap_or(PathState::Anchored)
    }

    pub(crate) fn is_told(&self, is_it: impl Fn(&Entry) -> bool) -> bool {
        self.timeline.iter().any(|(_, entry)| is_it(entry))
    }

    /// Its timeline says of its media where it goes, and why.
    pub(crate) fn is_told_to_go(&self, to: PathState, why: Reason) -> bool {
        self.is_told(|entry| *entry == Entry::State { to, why })
    }

    pub(crate) fn stays(&self, why: Stay) -> bool {
        self.is_told(|entry| *entry == Entry::Stays(why))
    }

    /// When both were asked to move.
    pub(crate) fn trials(&self) -> Vec<Duration> {
        let is_move = |entry: &Entry| matches!(entry, Entry::State { to: PathState::Synchronising, .. });
        self.timeline.iter().filter(|(_, entry)| is_move(entry)).map(|(at, _)| *at).collect()
    }

    pub(crate) fn forget_silence(&mut self) {
        for phone in &mut self.phones {
            phone.longest_silence = Duration::ZERO;
        }
    }

    pub(crate) fn longest_silence(&self) -> Duration {
        let of = |phone: &Phone| phone.longest_silence.max(self.now.saturating_sub(phone.heard));
        self.phones.iter().map(of).max().unwrap_or_default()
    }

    /// Nobody was silent for longer since that was forgotten.
    #[track_caller]
    pub(crate) fn was_heard_within(&self, limit: Duration) {
        let silence = self.longest_silence();
        assert!(silence <= limit, "{silence:?} {} {:?}", self.what, self.timeline);
    }

    /// Whether somebody who is to hear something does not.
    pub(crate) fn is_silent(&self) -> bool {
        let limit = Duration::from_millis(250);
        self.phones.iter().any(|phone| phone.is_hearing() && self.now > phone.heard + limit)
    }

    /// Ends the call: how long it was direct, which all of its records say alike.
    pub(crate) fn end(&mut self) -> Duration {
        let direct: Vec<Duration> = (0..self.halves)
            .filter(|half| self.open[*half])
            .collect::<Vec<usize>>()
            .into_iter()
            .map(|half| match self.act(half, Action::Delete) {
                Some(Reply::Deleted { direct, .. }) => direct,
                other => panic!("no count: {other:?}"),
            })
            .collect();
        assert!(self.sockets.open_pairs() == 0 && self.worker.is_empty(), "something is left");
        assert!(direct.iter().all(|one| Some(one) == direct.first()), "{direct:?}");
        direct.first().copied().unwrap_or_default()
    }
}
