//! One call: two phones behind their NATs, the engine, the media worker, and the records, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media_core::handoff::HandoffSettings;
use media_core::worker::Settings;
use media_wire::stun::is_stun;
use nat_lab::Impairment;
use play::Dice;
use play::clock::Post;
use play::ground::{Datagram, Ground, Place, relays};
use play::moves::{Motion, Moves};
use play::node::Node;
use play::phone::crush::name_of;
use play::phone::device::{Device, Model};
use play::phone::plain::Kind;
use play::ports::Counted;
use play::settings::media::{allowing, release, two_realms};
use play::settings::signalling::{ACCESS, binding, flow};
use play::truth::{Got, Log, Sent};
use sbc::discovery::Places;
use sbc::records::timeline::words_of;
use seam::path::{Constraint, PathWords};
use seam::{Action, SessionId};
use sip_engine::event::{CallEnded, CallEvent, CallEventKind};
use sip_engine::io::{Input, Output};
use sip_engine::ua::{CallNumber, Event, Fork, Info, Invite, UserAgent};
use sip_wire::{Message, Method};

use crate::handed_calls::Moments;
use crate::signalling::{DOMAIN, FRAGMENT, PACKAGE, at, config, core_flow, policy, proxied, sbc, user_agent};

const DISCOVERY: [u16; 2] = [3_478, 3_479];
pub(crate) const STEP: Duration = Duration::from_millis(5);
const PACKET: Duration = Duration::from_millis(20);

/// One end of the call.
struct End {
    agent: UserAgent,
    call: Option<CallNumber>,
    /// Where its signalling comes from, and how long a message takes.
    signalling: SocketAddr,
    delay: u64,
    is_up: bool,
}

/// On its way.
enum Letter {
    ToSbc {
        from: usize,
        bytes: Bytes,
    },
    ToPhone {
        to: usize,
        bytes: Bytes,
    },
    /// To the proxy in the core, and from it.
    ToCore(Bytes),
    FromCore(Bytes),
    /// A party's own offer, once it is its turn.
    Offer {
        by: usize,
        direction: &'static str,
    },
    /// A phone takes its time.
    Answer {
        by: usize,
        fork: Fork,
        sdp: Bytes,
    },
}

pub(crate) struct World {
    pub(crate) now: Duration,
    ground: Ground,
    pub(crate) node: Node,
    pub(crate) phones: [Device; 2],
    discovery: Places,
    ends: [End; 2],
    letters: Post<Letter>,
    dice: Dice,
    session: Option<SessionId>,
    /// Of the second half, where a proxy in the core leads the call back: its record's name, its session, what the record says.
    second: Option<(u128, SessionId)>,
    pub(crate) second_path: Vec<PathWords>,
    pub(crate) second_ended: Option<CallEnded>,
    pub(crate) answered: Option<Duration>,
    /// The timeline of its media, as the records have it, and its end.
    pub(crate) path: Vec<PathWords>,
    pub(crate) ended: Option<CallEnded>,
    /// How long both phones sent elsewhere than to the relay, and whether they do.
    pub(crate) away: Duration,
    pub(crate) is_away: bool,
    /// How long one of them at least did.
    pub(crate) astray: Duration,
    /// How long no media was on the relay, and when it had some last.
    pub(crate) quiet: Duration,
    media_at: Duration,
    /// Of a hundred messages of signalling so many are lost, each way.
    loss: u64,
    /// What moves cost, and how long the call was direct: as the records say.
    pub(crate) moves: Moves,
    pub(crate) story: Vec<(Duration, String)>,
    /// Who talks: one that does not sends nothing.
    pub(crate) talks: [bool; 2],
    /// What each phone has sent, and what has reached it.
    pub(crate) logs: [Log; 2],
    pub(crate) ended_at: Duration,
    /// Where another process goes on with the call now and then.
    pub(crate) moments: Option<Moments>,
}

impl World {
    pub(crate) fn new(seed: u64, models: [Model; 2], place: Place) -> Self {
        Self::made(false, 0.0, seed, models, place)
    }

    /// With a registrar's proxy in the core, through which the call comes back to the SBC, or without.
    pub(crate) fn through(has_core: bool, seed: u64, models: [Model; 2], place: Place) -> Self {
        Self::made(has_core, 0.0, seed, models, place)
    }

    /// Without it, where each line loses this share of packets each way.
    pub(crate) fn lossy(seed: u64, models: [Model; 2], place: Place, loss: f64) -> Self {
        Self::made(false, loss, seed, models, place)
    }

    fn made(has_core: bool, loss: f64, seed: u64, models: [Model; 2], place: Place) -> Self {
        let mut dice = Dice::new(seed);
        let delays = [0, 1].map(|_| 2 + dice.below(18));
        let lines =
            delays.map(|delay| Impairment { delay: Duration::from_millis(delay), loss, ..Impairment::NONE });
        let ground = Ground::new(seed, place, lines);
        let phones = [0, 1].map(|index| {
            let (host, ip) = ground.hosts[index];
            Device::new(models[index], host, SocketAddr::new(ip, 4_000), index, &mut dice)
        });
        let ends = [0, 1].map(|index| {
            let mut seed = [0; 32];
            seed.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
            let user = ["alice", "bob"][index];
            // Where no NAT is between, its Contact is where it listens.
            let contact = SocketAddr::new(phones[index].local().ip(), 5_060 + index as u16);
            End {
                agent: user_agent(
                    user,
                    models[index].product(),
                    matches!(models[index], Model::Crush | Model::Untold),
                    contact,
                    seed,
                ),
                call: None,
                signalling: SocketAddr::new(ground.seen[index], 5_060 + index as u16),
                delay: delays[if place == Place::OneLan { 0 } else { index }],
                is_up: false,
            }
        });
        let now = Duration::from_secs(100);
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
        let relays = relays();
        let discovery = Places { addresses: relays, ports: DISCOVERY };
        let handoff =
            HandoffSettings { secret: [5; 32], discovery: vec![discovery.at(0, 0)], tempers: Vec::new() };
        let settings = Settings {
            handoff: Some(Arc::new(handoff)),
            ..two_realms(release(vec![allowing(); 2]), &relays, 20_000..=29_999)
        };
        let ports = Counted::at(relays).from_port(20_000);
        let mut node = Node::new(config(), policy(has_core), (settings, ports), seed, now);
        let contact = SocketAddr::new(phones[1].local().ip(), 5_061);
        let bindings = vec![binding("bob", contact, ends[1].signalling)];
        node.load(bindings, now);
        let mut world = Self {
            now,
            ground,
            node,
            phones,
            discovery,
            ends,
            letters: Post::default(),
            dice,
            session: None,
            second: None,
            second_path: Vec::new(),
            second_ended: None,
            answered: None,
            path: Vec::new(),
            ended: None,
            away: Duration::ZERO,
            is_away: false,
            astray: Duration::ZERO,
            quiet: Duration::ZERO,
            media_at: now,
            loss: 0,
            moves: Moves::default(),
            story: Vec::new(),
            talks: [true; 2],
            logs: [Log::default(), Log::default()],
            ended_at: Duration::ZERO,
            moments: None,
        };
        let _ = world.ground.next(now);
        world.drain_engine();
        let offer = Some(world.phones[0].describe("sendrecv"));
        let invite = Invite { offer, ..Invite::default() };
        let target = format!("sip:bob@{DOMAIN}");
        world.ends[0].call = Some(world.ends[0].agent.call(target.as_bytes(), invite, at(now)));
        world.drain_phone(0);
        world
    }

    /// No packet of the first party reaches the second one's network directly, of the second the first one's, or both.
    pub(crate) fn cut(&mut self, ways: [bool; 2]) {
        self.ground.cut(ways);
        self.note(format!("cut {ways:?}"));
    }

    /// Each line to the outside loses so many of a hundred datagrams, media and signalling, both ways.
    pub(crate) fn lose(&mut self, percent: u64) {
        self.loss = percent;
        let loss = percent as f64 / 100.0;
        let Self { ground, ends, .. } = self;
        ground.set_lines(|index| {
            let delay = Duration::from_millis(ends[index].delay);
            Impairment { delay, loss, ..Impairment::NONE }
        });
    }

    /// The state of the media by the records.
    pub(crate) fn path_state(&self) -> &str {
        let states = ["anchored", "probing", "synchronising", "direct", "returning"];
        let mut told = self.path.iter().rev().map(|entry| &*entry.what);
        told.find(|what| states.contains(what)).unwrap_or("anchored")
    }

    /// How long a move keeps somebody from what is sent to it, and how much of the call is direct.
    fn measure(&mut self) {
        let motion = match self.path_state() {
            "synchronising" | "returning" => Motion::Moves,
            "direct" if self.ended.is_none() => Motion::IsDirect,
            _ => Motion::Rests,
        };
        let unheard = self.phones.iter_mut().filter_map(|phone| Some(phone.ordinary_mut()?.unheard)).max();
        self.moves.watch(motion, unheard, self.now, STEP);
    }

    pub(crate) fn constrain(&mut self, constraint: Constraint) {
        self.note(format!("policy: {constraint:?}"));
        if let Some(session) = self.session {
            self.node.act(session, Action::Constrain(constraint), self.now);
        }
    }

    /// The same of the second half.
    pub(crate) fn constrain_second(&mut self, constraint: Constraint) {
        self.note(format!("policy of the second half: {constraint:?}"));
        if let Some((_, session)) = self.second {
            self.node.act(session, Action::Constrain(constraint), self.now);
        }
    }

    /// A party holds, or takes back.
    pub(crate) fn party_offers(&mut self, from: usize, direction: &'static str) {
        let Some(call) = self.ends[from].call else { return };
        let sdp = self.phones[from].describe(direction);
        self.note(format!("{from} offers {direction}"));
        if self.ends[from].agent.reinvite(call, Some(sdp), at(self.now)).is_err() {
            self.letters.post(self.now + Duration::from_millis(200), Letter::Offer { by: from, direction });
        }
        self.drain_phone(from);
    }

    /// False if that is not possible yet: there is no call, or what accepts it has not arrived (RFC 3261 §15).
    pub(crate) fn hang_up(&mut self, who: usize) -> bool {
        let Some(call) = self.ends[who].call else { return false };
        let has_hung_up = self.ends[who].agent.hang_up(call, at(self.now)).is_ok();
        if has_hung_up {
            self.note(format!("{who} hangs up"));
        }
        self.drain_phone(who);
        has_hung_up
    }

    pub(crate) fn is_up(&self) -> bool {
        self.ends.iter().all(|end| end.is_up)
    }

    pub(crate) fn note(&mut self, text: String) {
        self.story.push((self.now, text));
    }

    fn post(&mut self, party: usize, letter: Letter) {
        if self.loss > 0 && self.dice.below(100) < self.loss {
            return;
        }
        let after = Duration::from_millis(self.ends[party].delay + self.dice.below(4));
        self.letters.post(self.now + after, letter);
    }

    fn post_core(&mut self, letter: Letter) {
        self.letters.post(self.now + Duration::from_millis(1 + self.dice.below(3)), letter);
    }

    fn drain_phone(&mut self, index: usize) {
        while let Some(event) = self.ends[index].agent.poll_event() {
            self.on_event(index, event);
        }
        while let Some(output) = self.ends[index].agent.poll_output() {
            if let Output::Send { message, .. } = output {
                self.post(index, Letter::ToSbc { from: index, bytes: message });
            }
        }
    }

    fn on_event(&mut self, index: usize, event: Event) {
        let now = self.now;
        match event {
            Event::Incoming { call, offer: Some(offer), .. } => {
                self.ends[index].call = Some(call);
                let answer = self.phones[index].answer(&offer, now, &mut self.dice);
                let accepted = self.ends[index].agent.accept(call, Some(answer), at(now));
                assert!(accepted.is_ok(), "{accepted:?}");
            }
            Event::Established { .. } => {
                self.ends[index].is_up = true;
                if let Some(phone) = self.phones[index].crush_mut() {
                    phone.confirm(now);
                }
            }
            Event::Info { request, .. } => {
                if let Some(phone) = self.phones[index].crush_mut() {
                    phone.candidates(&request.body_bytes(), now);
                }
            }
            Event::Done { method: "INFO", status, .. } => {
                if let Some(phone) = self.phones[index].crush_mut() {
                    let sent = phone.under_way.take();
                    if status >= 300 && phone.trickle.is_none() {
                        phone.trickle = sent;
                    }
                }
            }
            Event::Answered { sdp, .. } => self.phones[index].follow(&sdp, now, &mut self.dice),
            Event::Offered { call, fork, sdp, .. } => match self.phones[index].temperament() {
                Some(Kind::Refusing(status)) => {
                    let _ = self.ends[index].agent.refuse_offer(call, fork, status, at(now));
                }
                Some(Kind::Slow(after)) => {
                    self.letters.post(now + after, Letter::Answer { by: index, fork, sdp });
                }
                _ => self.answer(index, fork, &sdp),
            },
            Event::Refused { status, .. } => self.note(format!("{index} was refused with {status}")),
            Event::Ended { ending, .. } => {
                self.note(format!("{index} ends: {ending:?}"));
                self.ends[index].is_up = false;
            }
            _ => {}
        }
    }

    fn answer(&mut self, by: usize, fork: Fork, sdp: &[u8]) {
        let Some(call) = self.ends[by].call.filter(|_| self.ends[by].is_up) else { return };
        let answer = self.phones[by].answer(sdp, self.now, &mut self.dice);
        let _ = self.ends[by].agent.answer(call, fork, answer, at(self.now));
    }

    pub(crate) fn drain_engine(&mut self) {
        while let Some(output) = self.node.poll_output(self.now) {
            match output {
                Output::Send { flow, message, .. } if flow == core_flow() => {
                    self.post_core(Letter::ToCore(message));
                }
                Output::Send { flow, message, .. } => {
                    let to = self.ends.iter().position(|end| end.signalling == flow.remote);
                    // A Contact behind a NAT can't be reached.
                    if let Some(to) = to {
                        self.post(to, Letter::ToPhone { to, bytes: message });
                    }
                }
                Output::Record(event) => self.record(event),
                Output::Notice(notice) => self.note(format!("notice {}: {}", notice.kind, notice.detail)),
                _ => {}
            }
        }
    }

    fn record(&mut self, event: CallEvent) {
        if let (CallEventKind::Started(started), Some(_)) = (&event.what, self.session) {
            self.second = Some((event.call, started.session));
        }
        if self.second.is_some_and(|second| second.0 == event.call) {
            match event.what {
                CallEventKind::Path(record) => self.second_path.push(words_of(&record).into_owned()),
                CallEventKind::Ended(ended) => self.second_ended = Some(*ended),
                _ => {}
            }
            return;
        }
        match event.what {
            CallEventKind::Started(started) => self.session = Some(started.session),
            CallEventKind::Answered { .. } => self.answered = Some(self.now),
            CallEventKind::Path(record) => {
                let entry = words_of(&record).into_owned();
                self.note(format!(
                    "path {} {} {} {}",
                    entry.what,
                    entry.why,
                    entry.party.map_or(String::new(), |party| format!("of {party}")),
                    entry.evidence
                ));
                self.path.push(entry);
            }
            CallEventKind::Ended(ended) => {
                self.ended_at = self.now;
                self.ended = Some(*ended);
            }
            CallEventKind::Metered { direct, is_direct } => {
                let state = if is_direct { "counts" } else { "stands" };
                self.note(format!("the meter {state} at {direct:?}"));
            }
            CallEventKind::Changed(_) => {}
        }
    }

    fn carry(&mut self) {
        let now = self.now;
        for letter in self.letters.due(now) {
            match letter {
                Letter::ToSbc { from, bytes } => {
                    let message = Message::parse(bytes).expect("a phone writes what can be read");
                    let flow = flow(ACCESS, self.ends[from].signalling);
                    self.node.handle(Input::Received { flow, message }, now);
                    self.drain_engine();
                }
                Letter::ToPhone { to, bytes } => {
                    let message = Message::parse(bytes).expect("the SBC writes what can be read");
                    play::stranger::reads(&message);
                    let is_reinvite =
                        message.method() == Some(Method::INVITE) && self.ends[to].call.is_some();
                    if is_reinvite && self.phones[to].temperament() == Some(Kind::Deaf) {
                        continue;
                    }
                    self.ends[to]
                        .agent
                        .handle(Input::Received { flow: flow(ACCESS, sbc()), message }, at(now));
                    self.drain_phone(to);
                }
                Letter::ToCore(bytes) => {
                    let message = Message::parse(bytes).expect("the SBC writes what can be read");
                    self.post_core(Letter::FromCore(proxied(&message)));
                }
                Letter::FromCore(bytes) => {
                    let message = Message::parse(bytes).expect("the proxy writes what can be read");
                    self.node.handle(Input::Received { flow: core_flow(), message }, now);
                    self.drain_engine();
                }
                Letter::Offer { by, direction } if self.ends[by].is_up => self.party_offers(by, direction),
                Letter::Offer { .. } => {}
                Letter::Answer { by, fork, sdp } => {
                    self.answer(by, fork, &sdp);
                    self.drain_phone(by);
                }
            }
        }
        while self.node.hear_media(now) {
            self.drain_engine();
        }
        if self.node.wake_engine(now) {
            self.drain_engine();
        }
        for index in 0..2 {
            if self.ends[index].agent.poll_timeout().is_some_and(|due| due <= now) {
                self.ends[index].agent.handle_timeout(at(now));
                self.drain_phone(index);
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        let relay = relays();
        while self.now < end {
            self.now += STEP;
            self.hand_over();
            self.deliver();
            self.carry();
            for index in (0..2).filter(|index| self.ends[*index].is_up) {
                let talks = self.talks[index];
                let sent = self.phones[index].tick(&mut self.ground.network, self.now, talks, &mut self.dice);
                let Some((name, target)) = sent else { continue };
                // It sends each packet to one place, at once.
                let is_direct = !relay.contains(&target.ip());
                self.logs[index].sent.push(Sent { at: self.now, name, is_direct });
                if let Some(far) = self.phones[1 - index].ordinary_mut() {
                    far.unheard += PACKET;
                }
            }
            self.measure();
            self.settle();
            for (phone, log) in self.phones.iter_mut().zip(&mut self.logs) {
                for (name, to) in phone.crush_mut().into_iter().flat_map(|phone| phone.out.drain(..)) {
                    log.sent.push(Sent { at: self.now, name, is_direct: !relay.contains(&to.ip()) });
                }
            }
            self.node.wake_worker(self.now);
            self.is_away = self.ended.is_none() && self.phones.iter().all(|phone| phone.is_away(&relay));
            if self.is_away {
                self.away += STEP;
            }
            if self.ended.is_none() && self.phones.iter().any(|phone| phone.is_away(&relay)) {
                self.astray += STEP;
            }
            // A packet comes every 20 ms.
            if self.answered.is_some() && self.ended.is_none() && self.now > self.media_at + PACKET + STEP {
                self.quiet += STEP;
            }
        }
    }

    /// What the agents of CRUSH want: datagrams at once, candidates by INFO once the last one is answered.
    fn settle(&mut self) {
        for index in 0..2 {
            let Some(phone) = self.phones[index].crush_mut().filter(|_| self.ends[index].call.is_some())
            else {
                continue;
            };
            phone.settle(&mut self.ground.network, self.now);
            if !self.ends[index].is_up || phone.under_way.is_some() {
                continue;
            }
            if let (Some(call), Some(text)) = (self.ends[index].call, phone.trickle.take()) {
                let body = Bytes::from(text.clone());
                let info = Info { package: PACKAGE, content_type: FRAGMENT, body };
                match self.ends[index].agent.info_of(call, info, at(self.now)) {
                    Ok(()) => phone.under_way = Some(text),
                    Err(_) => phone.trickle = Some(text),
                }
                self.drain_phone(index);
            }
        }
    }

    fn deliver(&mut self) {
        while let Some(came) = self.ground.next(self.now) {
            let Datagram { host, source, destination, payload } = &came;
            if *host == self.ground.relay && DISCOVERY.contains(&destination.port()) {
                let index = |places: [bool; 2]| usize::from(!places[0]);
                let place = (
                    index(self.discovery.addresses.map(|ip| ip == destination.ip())),
                    index(self.discovery.ports.map(|port| port == destination.port())),
                );
                if let Some((answer, (ip, port))) = self.discovery.answer(place, *source, payload) {
                    let from = self.discovery.at(ip, port);
                    let _ = self.ground.network.send(*host, from, *source, answer.into());
                }
            } else if *host == self.ground.relay {
                let shown = self.node.shows(self.now);
                let is_open = self.ground.pass(&mut self.node.worker, &self.node.ports, &came, shown);
                let is_media =
                    !is_stun(payload) && payload.get(1).is_some_and(|kind| !(200..=204).contains(kind));
                if is_open && is_media {
                    self.media_at = self.now;
                }
            } else if let Some(index) = self.phones.iter().position(|phone| phone.host() == *host) {
                let got = name_of(payload).map(|name| Got { at: self.now, name });
                self.logs[index].got.extend(got);
                let phone = &mut self.phones[index];
                phone.hear(*source, *destination, payload, self.now);
            }
        }
    }

    /// Nothing is left of the call.
    pub(crate) fn is_clean(&self) -> bool {
        self.node.is_clean() && self.ends.iter().all(|end| !end.is_up)
    }
}
