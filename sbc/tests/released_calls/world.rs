//! One call: two phones behind their NATs, the engine, the media worker, and the records, in virtual time.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use crush::agent::Event as Agent;
use media_core::Worker;
use media_core::handoff::HandoffSettings;
use media_core::worker::Settings;
use media_wire::stun::is_stun;
use nat_lab::{HostId, Impairment, Link, Network, PUBLIC};
use play::Dice;
use play::ports::Counted;
use play::settings::media::{allowing, release, two_realms};
use play::settings::signalling::{ACCESS, binding, flow};
use play::truth::{Got, Log, Sent};
use sbc::discovery::Places;
use sbc::timeline::words_of;
use seam::path::{Constraint, PathWords};
use seam::{Action, Replied, Request, SessionId, Told};
use sip_engine::Engine;
use sip_engine::event::{CallEnded, CallEvent, CallEventKind};
use sip_engine::io::{Command, Input, Output};
use sip_engine::ua::{CallNumber, Event, Fork, Info, Invite, UserAgent};
use sip_wire::{Message, Method};

use crate::crush_phone::name_of;
use crate::device::{Device, Model};
use crate::phone::Kind;
use crate::signalling::{DOMAIN, FRAGMENT, PACKAGE, at, config, core_flow, policy, proxied, sbc, user_agent};

const OUTSIDE: [&str; 2] = ["198.51.100.7", "203.0.113.8"];
pub(crate) const RELAY: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const DISCOVERY: [u16; 2] = [3_478, 3_479];
pub(crate) const STEP: Duration = Duration::from_millis(5);
const PACKET: Duration = Duration::from_millis(20);

/// Where the phones are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In one LAN behind one NAT that loops packets back.
    OneLan,
    /// Each behind its own, or behind none.
    Apart([Option<nat_lab::Kind>; 2]),
}

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
    network: Network,
    relay: HostId,
    engine: Engine,
    worker: Worker,
    sockets: Counted,
    pub(crate) phones: [Device; 2],
    discovery: Places,
    ends: [End; 2],
    letters: Vec<(Duration, u64, Letter)>,
    posted: u64,
    replies: VecDeque<media_relay::Event>,
    dice: Dice,
    session: Option<u64>,
    /// Of the second half, where a proxy in the core leads the call back: its record's name, its session, what the record says.
    second: Option<(u128, u64)>,
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
    outside_links: Vec<nat_lab::End>,
    /// How long somebody did not hear what was sent to it around each move, and until when that is watched.
    pub(crate) moves: Vec<Duration>,
    move_until: Duration,
    pub(crate) first_direct: Option<Duration>,
    pub(crate) direct: Duration,
    pub(crate) story: Vec<(Duration, String)>,
    /// Who talks: one that does not sends nothing.
    pub(crate) talks: [bool; 2],
    /// What each phone has sent, and what has reached it.
    pub(crate) logs: [Log; 2],
    pub(crate) ended_at: Duration,
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
        let mut network = Network::new(seed);
        let relay = network.add_host(PUBLIC, &RELAY.map(|ip| ip.parse().expect("an address")));
        let outside = OUTSIDE.map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let delays = [0, 1].map(|_| 2 + dice.below(18));
        let link = |index: usize| {
            let delay = Duration::from_millis(delays[index]);
            Link::both(Impairment { delay, loss, ..Impairment::NONE })
        };
        let mut outside_links: Vec<nat_lab::End> = Vec::new();
        let hosts: [(HostId, IpAddr); 2] = match place {
            Place::OneLan => {
                let router = network.add_nat(PUBLIC, nat_lab::Kind::Cone.into(), &[outside[0]]);
                network.set_link(router, link(0));
                outside_links.push(router.into());
                ["192.168.1.10", "192.168.1.11"].map(|ip| {
                    let ip = ip.parse().expect("an address");
                    (network.add_host(router.inside(), &[ip]), ip)
                })
            }
            Place::Apart(kinds) => [0, 1].map(|index| match kinds[index] {
                None => {
                    let host = network.add_host(PUBLIC, &[outside[index]]);
                    network.set_link(host, link(index));
                    outside_links.push(host.into());
                    (host, outside[index])
                }
                Some(kind) => {
                    let router = network.add_nat(PUBLIC, kind.into(), &[outside[index]]);
                    network.set_link(router, link(index));
                    outside_links.push(router.into());
                    let ip = if index == 0 { "192.168.1.10" } else { "192.168.2.10" };
                    let ip: IpAddr = ip.parse().expect("an address");
                    let own = if kind == nat_lab::Kind::Firewall { outside[index] } else { ip };
                    (network.add_host(router.inside(), &[own]), own)
                }
            }),
        };
        let phones = [0, 1].map(|index| {
            let (host, ip) = hosts[index];
            Device::new(models[index], host, SocketAddr::new(ip, 4_000), index, &mut dice)
        });
        let ends = [0, 1].map(|index| {
            let public = if place == Place::OneLan { outside[0] } else { outside[index] };
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
                signalling: SocketAddr::new(public, 5_060 + index as u16),
                delay: delays[if place == Place::OneLan { 0 } else { index }],
                is_up: false,
            }
        });
        let now = Duration::from_secs(100);
        let mut seed = [0; 32];
        seed.iter_mut().for_each(|byte| *byte = dice.below(256) as u8);
        let mut engine = Engine::new(Arc::new(config()), seed);
        engine.handle(Input::Command(Command::Policy(Arc::new(policy(has_core)))), at(now));
        let contact = SocketAddr::new(phones[1].local().ip(), 5_061);
        engine.handle(
            Input::Command(Command::Load(vec![binding("bob", contact, ends[1].signalling)])),
            at(now),
        );
        let relays = RELAY.map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let discovery = Places { addresses: relays, ports: DISCOVERY };
        let handoff =
            HandoffSettings { secret: [5; 32], discovery: vec![discovery.at(0, 0)], tempers: Vec::new() };
        let settings = Settings {
            handoff: Some(Arc::new(handoff)),
            ..two_realms(release(vec![allowing(); 2]), &relays, 20_000..=29_999)
        };
        let mut world = Self {
            now,
            network,
            relay,
            engine,
            worker: Worker::new(settings, "anchor".to_owned()),
            sockets: Counted::at(relays).from_port(20_000),
            phones,
            discovery,
            ends,
            letters: Vec::new(),
            posted: 0,
            replies: VecDeque::new(),
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
            outside_links,
            moves: Vec::new(),
            move_until: Duration::ZERO,
            first_direct: None,
            direct: Duration::ZERO,
            story: Vec::new(),
            talks: [true; 2],
            logs: [Log::default(), Log::default()],
            ended_at: Duration::ZERO,
        };
        let _ = world.network.next_until(now);
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
        let [one, other] = OUTSIDE.map(|ip| ip.parse().expect("an address"));
        if ways[0] {
            self.network.cut(one, other);
        }
        if ways[1] {
            self.network.cut(other, one);
        }
        self.note(format!("cut {ways:?}"));
    }

    /// Each line to the outside loses so many of a hundred datagrams, media and signalling, both ways.
    pub(crate) fn lose(&mut self, percent: u64) {
        self.loss = percent;
        for (index, end) in self.outside_links.clone().into_iter().enumerate() {
            let delay = Duration::from_millis(self.ends[index].delay);
            let loss = percent as f64 / 100.0;
            self.network.set_link(end, Link::both(Impairment { delay, loss, ..Impairment::NONE }));
        }
    }

    /// The state of the media by the records.
    pub(crate) fn path_state(&self) -> &str {
        let states = ["anchored", "probing", "synchronising", "direct", "returning"];
        let mut told = self.path.iter().rev().map(|entry| &*entry.what);
        told.find(|what| states.contains(what)).unwrap_or("anchored")
    }

    /// How long a move keeps somebody from what is sent to it, and how much of the call is direct.
    fn measure(&mut self) {
        let (is_moving, is_direct) = match self.path_state() {
            "synchronising" | "returning" => (true, false),
            state => (false, state == "direct"),
        };
        if is_moving {
            if self.now >= self.move_until {
                self.moves.push(Duration::ZERO);
            }
            self.move_until = self.now + Duration::from_millis(800);
        }
        if self.now < self.move_until
            && let Some(last) = self.moves.last_mut()
        {
            let unheard =
                self.phones.iter_mut().filter_map(|phone| Some(phone.ordinary_mut()?.unheard)).max();
            *last = (*last).max(unheard.unwrap_or_default());
        }
        if is_direct && self.ended.is_none() {
            self.first_direct.get_or_insert(self.now);
            self.direct += STEP;
        }
    }

    pub(crate) fn constrain(&mut self, constraint: Constraint) {
        self.note(format!("policy: {constraint:?}"));
        if let Some(session) = self.session {
            self.worker.handle(session, Action::Constrain(constraint), self.now, &mut self.sockets);
            self.listen();
        }
    }

    /// The same of the second half.
    pub(crate) fn constrain_second(&mut self, constraint: Constraint) {
        self.note(format!("policy of the second half: {constraint:?}"));
        if let Some((_, session)) = self.second {
            self.worker.handle(session, Action::Constrain(constraint), self.now, &mut self.sockets);
            self.listen();
        }
    }

    /// A party holds, or takes back.
    pub(crate) fn party_offers(&mut self, from: usize, direction: &'static str) {
        let Some(call) = self.ends[from].call else { return };
        let sdp = self.phones[from].describe(direction);
        self.note(format!("{from} offers {direction}"));
        if self.ends[from].agent.reinvite(call, Some(sdp), at(self.now)).is_err() {
            self.posted += 1;
            let again = self.now + Duration::from_millis(200);
            self.letters.push((again, self.posted, Letter::Offer { by: from, direction }));
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

    fn note(&mut self, text: String) {
        self.story.push((self.now, text));
    }

    fn post(&mut self, party: usize, letter: Letter) {
        if self.loss > 0 && self.dice.below(100) < self.loss {
            return;
        }
        let after = Duration::from_millis(self.ends[party].delay + self.dice.below(4));
        self.posted += 1;
        self.letters.push((self.now + after, self.posted, letter));
    }

    fn post_core(&mut self, letter: Letter) {
        self.posted += 1;
        let at = self.now + Duration::from_millis(1 + self.dice.below(3));
        self.letters.push((at, self.posted, letter));
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
                    self.posted += 1;
                    self.letters.push((now + after, self.posted, Letter::Answer { by: index, fork, sdp }));
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

    fn drain_engine(&mut self) {
        while let Some(output) = self.engine.poll_output() {
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
                Output::Media(request) => {
                    let Request { session, number, action } = request;
                    if let Some(reply) = self.worker.handle(session.0, action, self.now, &mut self.sockets) {
                        self.replies.push_back(media_relay::Event::Reply(Replied { session, number, reply }));
                    }
                    self.listen();
                }
                Output::Record(event) => self.record(event),
                Output::Notice(notice) => self.note(format!("notice {}: {}", notice.kind, notice.detail)),
                _ => {}
            }
        }
    }

    fn record(&mut self, event: CallEvent) {
        if let (CallEventKind::Started(started), Some(_)) = (&event.what, self.session) {
            self.second = Some((event.call, started.session.0));
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
            CallEventKind::Started(started) => self.session = Some(started.session.0),
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

    /// What the worker has to tell.
    fn listen(&mut self) {
        while let Some((session, event)) = self.worker.poll_event() {
            self.replies.push_back(media_relay::Event::Told(Told { session: SessionId(session), event }));
        }
    }

    fn carry(&mut self) {
        let now = self.now;
        let (mut due, rest): (Vec<_>, Vec<_>) = self.letters.drain(..).partition(|letter| letter.0 <= now);
        self.letters = rest;
        due.sort_by_key(|letter| (letter.0, letter.1));
        for (_, _, letter) in due {
            match letter {
                Letter::ToSbc { from, bytes } => {
                    let message = Message::parse(bytes).expect("a phone writes what can be read");
                    let flow = flow(ACCESS, self.ends[from].signalling);
                    self.engine.handle(Input::Received { flow, message }, at(now));
                    self.drain_engine();
                }
                Letter::ToPhone { to, bytes } => {
                    let message = Message::parse(bytes).expect("the SBC writes what can be read");
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
                    self.engine.handle(Input::Received { flow: core_flow(), message }, at(now));
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
        while let Some(event) = self.replies.pop_front() {
            if let Some((_, input)) = sbc::planes::input(event) {
                self.engine.handle(input, at(now));
            }
            self.drain_engine();
        }
        if self.engine.poll_timeout().is_some_and(|due| due <= now) {
            self.engine.handle_timeout(at(now));
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
        let relay = RELAY.map(|ip| ip.parse::<IpAddr>().expect("an address"));
        while self.now < end {
            self.now += STEP;
            self.deliver();
            self.carry();
            for index in (0..2).filter(|index| self.ends[*index].is_up) {
                let talks = self.talks[index];
                let has_spoken = self.phones[index].tick(&mut self.network, self.now, talks, &mut self.dice);
                if let Some(phone) = self.phones[index].ordinary_mut().filter(|_| has_spoken)
                    && let Some(target) = phone.target
                {
                    // It sends each packet to one place, at once.
                    let name = (phone.ssrc, phone.sequence as u16);
                    let is_direct = !relay.contains(&target.ip());
                    self.logs[index].sent.push(Sent { at: self.now, name, is_direct });
                }
                if let Some(far) = self.phones[1 - index].ordinary_mut().filter(|_| has_spoken) {
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
            if self.worker.poll_timeout().is_some_and(|due| due <= self.now) {
                self.worker.handle_timeout(self.now, &mut self.sockets);
                self.listen();
            }
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
            phone.settle(&mut self.network, self.now);
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
        while let Some(event) = self.network.next_until(self.now) {
            let nat_lab::Event::Datagram { host, source, destination, payload } = event else { continue };
            if host == self.relay && DISCOVERY.contains(&destination.port()) {
                let index = |places: [bool; 2]| usize::from(!places[0]);
                let place = (
                    index(self.discovery.addresses.map(|ip| ip == destination.ip())),
                    index(self.discovery.ports.map(|port| port == destination.port())),
                );
                if let Some((answer, (ip, port))) = self.discovery.answer(place, source, &payload) {
                    let from = self.discovery.at(ip, port);
                    let _ = self.network.send(self.relay, from, source, answer.into());
                }
            } else if host == self.relay {
                let socket = self.sockets.socket(destination);
                let Some(socket) = socket else { continue };
                if !is_stun(&payload) && payload.get(1).is_some_and(|kind| !(200..=204).contains(kind)) {
                    self.media_at = self.now;
                }
                let (network, sockets, relay) = (&mut self.network, &self.sockets, self.relay);
                self.worker.packet(socket, source, &payload, self.now, |out, to, bytes| {
                    let from = sockets.address(out).expect("an open socket");
                    let _ = network.send(relay, from, to, Bytes::copy_from_slice(bytes));
                });
            } else if let Some(index) = self.phones.iter().position(|phone| phone.host() == host) {
                let got = name_of(&payload).map(|name| Got { at: self.now, name });
                self.logs[index].got.extend(got);
                let phone = &mut self.phones[index];
                phone.hear(source, destination, &payload, self.now);
            }
        }
    }

    pub(crate) fn forget_silence(&mut self) {
        self.phones.iter_mut().for_each(|phone| *phone.longest_silence() = Duration::ZERO);
    }

    pub(crate) fn longest_silence(&mut self) -> Duration {
        let now = self.now;
        let of = |phone: &mut Device| (*phone.longest_silence()).max(now.saturating_sub(phone.heard()));
        self.phones.iter_mut().map(of).max().unwrap_or_default()
    }

    /// Whether somebody who is to hear something does not.
    pub(crate) fn is_silent(&self) -> bool {
        let limit = Duration::from_millis(250);
        self.phones.iter().any(|phone| phone.is_hearing() && self.now > phone.heard() + limit)
    }

    /// Of each party where it sends, or what its agent has come to, and for how long it has heard nothing.
    pub(crate) fn ears(&self) -> [String; 2] {
        self.phones.each_ref().map(|phone| {
            let silence = self.now.saturating_sub(phone.heard());
            match phone {
                Device::Ordinary(phone) => format!("{:?}, {silence:?}", phone.target),
                Device::Crush(phone) => format!("{:?}, {silence:?}", phone.events),
            }
        })
    }

    /// Whether an agent has ever looked for the other end.
    pub(crate) fn has_looked(&self) -> bool {
        let looks = |event: &Agent| !matches!(event, Agent::Connecting | Agent::Relayed { .. });
        self.phones
            .iter()
            .any(|phone| matches!(phone, Device::Crush(phone) if phone.events.iter().any(looks)))
    }

    /// Nothing is left of the call.
    pub(crate) fn is_clean(&self) -> bool {
        self.sockets.open_pairs() == 0 && self.worker.is_empty() && self.ends.iter().all(|end| !end.is_up)
    }
}
