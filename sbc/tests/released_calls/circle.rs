//! Three who call each other through one node, in virtual time: each may be in several calls at once, with a telephone for each.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use media_core::policy::{Ice, RealmRelease};
use nat_lab::{HostId, Impairment};
use play::Dice;
use play::clock::Post;
use play::ground::{Ground, Place, relays};
use play::node::Node;
use play::phone::crush::name_of;
use play::phone::device::{Device, Model};
use play::policy::Table;
use play::ports::Counted;
use play::settings::media::{allowing, release, two_realms};
use play::settings::signalling::{ACCESS, binding, flow};
use play::truth::{Got, Log, Sent};
use sbc::records::timeline::words_of;
use seam::path::PathWords;
use sip_engine::config::SessionTimer;
use sip_engine::event::{CallEnded, CallEvent, CallEventKind};
use sip_engine::io::{Input, Output};
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, CallNumber, Ending, Event, Invite, UserAgent};
use sip_wire::{Message, Method, Name};

use crate::handed_calls::{GOES_ON, Moments};
use crate::signalling::{DOMAIN, at, config, sbc, telephone};
use crate::world::STEP;

pub(crate) const ALICE: usize = 0;
pub(crate) const CAROL: usize = 2;
const USERS: [&str; 3] = ["alice", "bob", "carol"];
/// Where carol is.
const OUTSIDE: &str = "203.0.113.40";
/// The shortest that there is (RFC 4028 §5).
const TIMER: SessionTimer =
    SessionTimer { interval: Duration::from_secs(90), minimum: Duration::from_secs(90) };

/// Who they are, and where the first two of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) models: [Model; 3],
    pub(crate) place: Place,
    /// Sessions are refreshed: by the SBC where it asks for it, and by alice where she asks herself.
    pub(crate) timers: bool,
    pub(crate) own_timer: bool,
    /// Who knows UPDATE.
    pub(crate) update: [bool; 3],
}

/// One of them.
struct Party {
    agent: UserAgent,
    model: Model,
    host: HostId,
    ip: IpAddr,
    /// Where its signalling comes from, and how long a message takes.
    signalling: SocketAddr,
    delay: u64,
    /// Its signalling is; its media goes on.
    is_dead: bool,
}

/// A party's end of a call.
pub(crate) struct Line {
    party: usize,
    number: CallNumber,
    pub(crate) device: Device,
    pub(crate) is_up: bool,
    pub(crate) log: Log,
    /// What it has offered, until that is answered.
    offered: Option<&'static str>,
}

/// A call, and what is recorded of it.
#[derive(Default)]
pub(crate) struct Call {
    /// Who calls, and who is called.
    pub(crate) lines: Vec<Line>,
    record: Option<u128>,
    /// Of the next line of its record.
    sequence: u32,
    pub(crate) path: Vec<PathWords>,
    pub(crate) answered: Option<Duration>,
    pub(crate) ended: Option<(Duration, CallEnded)>,
}

impl Call {
    pub(crate) fn is_up(&self) -> bool {
        self.lines.len() == 2 && self.lines.iter().all(|line| line.is_up)
    }
}

/// An end of a call: its number, and 0 for who calls.
pub(crate) type End = (usize, usize);

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
    /// An offer that could not be made, or was refused for now.
    Offer(End, &'static str),
}

pub(crate) struct Circle {
    pub(crate) now: Duration,
    ground: Ground,
    node: Node,
    parties: Vec<Party>,
    pub(crate) calls: Vec<Call>,
    letters: Post<Letter>,
    dice: Dice,
    moments: Moments,
    /// UPDATEs that only refresh, from us and from phones.
    pub(crate) refreshes: [usize; 2],
    pub(crate) story: Vec<(Duration, String)>,
    pub(crate) problems: Vec<String>,
}

fn line_of(calls: &mut [Call], party: usize, number: CallNumber) -> Option<(End, &mut Line)> {
    let mut lines = calls.iter_mut().enumerate().flat_map(|(call, one)| {
        one.lines.iter_mut().enumerate().map(move |(side, line)| ((call, side), line))
    });
    lines.find(|(_, line)| (line.party, line.number) == (party, number))
}

impl Circle {
    /// Nobody calls yet; other processes go on with them now and then.
    pub(crate) fn new(seed: u64, setting: &Setting) -> Self {
        let mut dice = Dice::new(seed);
        let delays = [0; 3].map(|_| 2 + dice.below(18));
        let lines =
            delays.map(|delay| Impairment { delay: Duration::from_millis(delay), ..Impairment::NONE });
        let mut ground = Ground::new(seed, setting.place, [lines[0], lines[1]]);
        let (host, ip) = ground.join(OUTSIDE, lines[2]);
        let homes = [(ground.hosts[0], ground.seen[0]), (ground.hosts[1], ground.seen[1]), ((host, ip), ip)];
        let now = Duration::from_secs(100);
        let mut bindings = Vec::new();
        let mut parties = Vec::new();
        for (index, ((host, ip), seen)) in homes.into_iter().enumerate() {
            let (user, model, port) = (USERS[index], setting.models[index], 5_060 + index as u16);
            let contact = SocketAddr::new(ip, port);
            let signalling = SocketAddr::new(seen, port);
            let account = Account {
                session_timer: (setting.own_timer && index == ALICE).then_some(TIMER),
                abilities: Abilities { update: setting.update[index], ..Abilities::default() },
                ..telephone(user, model.product(), contact)
            };
            bindings.push(binding(user, contact, signalling));
            let agent = UserAgent::new(account, dice.seed());
            let delay = delays[index];
            parties.push(Party { agent, model, host, ip, signalling, delay, is_dead: false });
        }
        let realm = RealmRelease { ice: Ice::Offer, ..allowing() };
        let settings = two_realms(release(vec![realm; 2]), &relays(), 20_000..=29_999);
        let ports = Counted::at(relays()).from_port(20_000);
        let mut config = config();
        config.realms[0].session_timer = setting.timers.then_some(TIMER);
        let mut node = Node::new(config, Table::dialled(Vec::new()), (settings, ports), dice.seed(), now);
        node.load(bindings, now);
        let _ = ground.next(now);
        Self {
            now,
            ground,
            node,
            parties,
            calls: Vec::new(),
            letters: Post::default(),
            dice,
            moments: Moments::of(seed, now),
            refreshes: [0; 2],
            story: Vec::new(),
            problems: Vec::new(),
        }
    }

    fn note(&mut self, text: String) {
        self.story.push((self.now, text));
    }

    fn device(&mut self, party: usize, (call, side): End) -> Device {
        let Party { model, host, ip, .. } = self.parties[party];
        let number = 2 * call + side;
        let local = SocketAddr::new(ip, 4_000 + 10 * number as u16);
        Device::new(model, host, local, number, &mut self.dice)
    }

    fn place(&mut self, by: usize, place: impl FnOnce(&mut UserAgent, Invite, Now) -> CallNumber) -> usize {
        let call = self.calls.len();
        let mut device = self.device(by, (call, 0));
        let invite = Invite { offer: Some(device.describe("sendrecv")), ..Invite::default() };
        let number = place(&mut self.parties[by].agent, invite, at(self.now));
        self.calls.push(Call { lines: vec![Line::new(by, number, device)], ..Call::default() });
        self.drain_phone(by);
        call
    }

    /// Somebody calls somebody, who answers. The number of the call.
    pub(crate) fn call(&mut self, by: usize, user: &str) -> usize {
        let target = format!("sip:{user}@{DOMAIN}");
        let call = self.place(by, |agent, invite, now| agent.call(target.as_bytes(), invite, now));
        self.wait_for(call);
        call
    }

    fn wait_for(&mut self, call: usize) {
        let limit = self.now + Duration::from_secs(3);
        while !self.calls.get(call).is_some_and(Call::is_up) {
            self.run(STEP);
            if self.now > limit {
                return self.problems.push(format!("call {call} is not up"));
            }
        }
        self.run(Duration::from_millis(300));
    }

    /// Carol, who talks with alice, has her call bob; with whom she has spoken before, if it is attended. The number of that call.
    pub(crate) fn transfer(&mut self, is_attended: bool) -> usize {
        let first = self.call(CAROL, USERS[ALICE]);
        let second = is_attended.then(|| {
            self.offer((first, 0), "sendonly");
            let pause = Duration::from_millis(300 + self.dice.below(9_000));
            self.run(pause);
            self.call(CAROL, "bob")
        });
        let pause = Duration::from_millis(self.dice.below(12_000));
        self.run(pause);
        self.note(format!("carol transfers, attended: {is_attended}"));
        let number = |call: usize| self.calls[call].lines[0].number;
        let (asked, consulted, now) = (number(first), second.map(number), at(self.now));
        let agent = &mut self.parties[CAROL].agent;
        let refers = match consulted {
            Some(other) => agent.refer_to_call(asked, other, now),
            None => agent.refer(asked, format!("sip:bob@{DOMAIN}").as_bytes(), now),
        };
        self.problems.extend(refers.err().map(|misuse| format!("the transfer: {misuse}")));
        self.drain_phone(CAROL);
        let call = self.calls.len();
        self.wait_for(call);
        call
    }

    /// Somebody holds, or takes back.
    pub(crate) fn offer(&mut self, (call, side): End, direction: &'static str) {
        let line = &mut self.calls[call].lines[side];
        if !line.is_up {
            return;
        }
        let (party, number, sdp) = (line.party, line.number, line.device.describe(direction));
        line.offered = Some(direction);
        self.note(format!("{} offers {direction}", USERS[party]));
        if self.parties[party].agent.reinvite(number, Some(sdp), at(self.now)).is_err() {
            let later = self.now + Duration::from_millis(200);
            self.letters.post(later, Letter::Offer((call, side), direction));
        }
        self.drain_phone(party);
    }

    pub(crate) fn hang_up(&mut self, (call, side): End) {
        let Line { party, number, .. } = self.calls[call].lines[side];
        self.note(format!("{} hangs up", USERS[party]));
        let hung_up = self.parties[party].agent.hang_up(number, at(self.now));
        self.problems.extend(hung_up.err().map(|misuse| format!("hanging up: {misuse}")));
        self.drain_phone(party);
    }

    /// Nothing is heard of its signalling any more.
    pub(crate) fn die(&mut self, (call, side): End) {
        let party = self.calls[call].lines[side].party;
        self.note(format!("{} dies", USERS[party]));
        self.parties[party].is_dead = true;
    }

    fn post(&mut self, party: usize, letter: Letter) {
        if !self.parties[party].is_dead {
            let after = Duration::from_millis(self.parties[party].delay + self.dice.below(4));
            self.letters.post(self.now + after, letter);
        }
    }

    fn drain_phone(&mut self, index: usize) {
        while let Some(event) = self.parties[index].agent.poll_event() {
            self.on_event(index, event);
        }
        while let Some(output) = self.parties[index].agent.poll_output() {
            if let Output::Send { message, .. } = output {
                self.post(index, Letter::ToSbc { from: index, bytes: message });
            }
        }
    }

    fn on_event(&mut self, party: usize, event: Event) {
        let now = self.now;
        if let Event::Incoming { call: number, offer: Some(offer), .. } = event {
            let end = (self.calls.len() - 1, 1);
            let mut device = self.device(party, end);
            let answer = device.answer(&offer, now, &mut self.dice);
            self.calls[end.0].lines.push(Line::new(party, number, device));
            let accepted = self.parties[party].agent.accept(number, Some(answer), at(now));
            assert!(accepted.is_ok(), "{accepted:?}");
            return;
        }
        if let Event::TransferRequested { call, .. } = event {
            self.place(party, |agent, invite, now| {
                agent.accept_transfer(call, invite, now).expect("it was asked to")
            });
            return;
        }
        let Self { calls, dice, parties, .. } = self;
        let is_any_dead = parties.iter().any(|party| party.is_dead);
        let agent = &mut parties[party].agent;
        match event {
            Event::Established { call, .. } => {
                if let Some((_, line)) = line_of(calls, party, call) {
                    line.is_up = true;
                }
            }
            Event::Answered { call, sdp, .. } => {
                if let Some((_, line)) = line_of(calls, party, call) {
                    line.device.follow(&sdp, now, dice);
                    line.offered = None;
                }
            }
            Event::Offered { call, fork, sdp, .. } => {
                if let Some((_, line)) = line_of(calls, party, call) {
                    let answer = line.device.answer(&sdp, now, dice);
                    let _ = agent.answer(call, fork, answer, at(now));
                }
            }
            Event::OfferWanted { call, fork } => {
                if let Some((_, line)) = line_of(calls, party, call) {
                    let _ = agent.offer(call, fork, line.device.offer(), at(now));
                }
            }
            Event::Refused { call, status, .. } => {
                let again = line_of(calls, party, call).and_then(|(end, line)| Some((end, line.offered?)));
                if let Some((end, direction)) = again {
                    self.letters.post(now + Duration::from_secs(1), Letter::Offer(end, direction));
                }
                self.note(format!("{} was refused with {status}", USERS[party]));
            }
            Event::Ended { call, ending, .. } => {
                if let Some((_, line)) = line_of(calls, party, call) {
                    line.is_up = false;
                }
                if !is_any_dead && !matches!(ending, Ending::Bye | Ending::HungUp) {
                    self.problems.push(format!("a call of {} ends: {ending:?}", USERS[party]));
                }
                self.note(format!("{} ends: {ending:?}", USERS[party]));
            }
            _ => {}
        }
    }

    fn drain_engine(&mut self) {
        while let Some(output) = self.node.poll_output(self.now) {
            match output {
                Output::Send { flow, message, .. } => {
                    // A Contact behind a NAT can't be reached.
                    if let Some(to) = self.parties.iter().position(|party| party.signalling == flow.remote) {
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
        // One is begun at a time.
        let known = self.calls.iter().position(|call| call.record == Some(event.call));
        let index = known.unwrap_or(self.calls.len() - 1);
        let call = &mut self.calls[index];
        if *call.record.get_or_insert(event.call) != event.call || call.sequence != event.sequence {
            self.problems.push(format!("the record of call {index} has a gap: {event:?}"));
        }
        call.sequence = event.sequence + 1;
        match event.what {
            CallEventKind::Answered { .. } => call.answered = Some(self.now),
            CallEventKind::Path(record) => {
                let entry = words_of(&record).into_owned();
                let PathWords { what, why, evidence, .. } = &entry;
                self.story.push((self.now, format!("path of {index}: {what} {why} {evidence}")));
                call.path.push(entry);
            }
            CallEventKind::Ended(ended) => {
                self.story.push((self.now, format!("call {index} is over: {:?}", ended.cause)));
                call.ended = Some((self.now, *ended));
            }
            CallEventKind::Started(_) | CallEventKind::Metered { .. } | CallEventKind::Changed(_) => {}
        }
    }

    fn count(&mut self, message: &Message, is_phones: bool) {
        if message.method() == Some(Method::UPDATE) && message.count(Name::SessionExpires) > 0 {
            self.refreshes[usize::from(is_phones)] += 1;
        }
    }

    fn carry(&mut self) {
        let now = self.now;
        for letter in self.letters.due(now) {
            match letter {
                Letter::ToSbc { from, bytes } => {
                    let message = Message::parse(bytes).expect("a phone writes what can be read");
                    self.count(&message, true);
                    let flow = flow(ACCESS, self.parties[from].signalling);
                    self.node.handle(Input::Received { flow, message }, now);
                    self.drain_engine();
                }
                Letter::ToPhone { to, bytes } => {
                    let message = Message::parse(bytes).expect("the SBC writes what can be read");
                    self.count(&message, false);
                    let flow = flow(ACCESS, sbc());
                    self.parties[to].agent.handle(Input::Received { flow, message }, at(now));
                    self.drain_phone(to);
                }
                Letter::Offer(end, direction) => self.offer(end, direction),
            }
        }
        while self.node.hear_media(now) {
            self.drain_engine();
        }
        if self.node.wake_engine(now) {
            self.drain_engine();
        }
        for index in 0..self.parties.len() {
            let agent = &mut self.parties[index].agent;
            if agent.poll_timeout().is_some_and(|due| due <= now) {
                agent.handle_timeout(at(now));
                self.drain_phone(index);
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            self.now += STEP;
            if let Some(dice) = self.moments.due(self.now)
                && self.node.hand_over(dice, self.now)
            {
                self.note(GOES_ON.to_owned());
            }
            self.drain_engine();
            self.deliver();
            self.carry();
            let Self { calls, ground, dice, .. } = self;
            for line in calls.iter_mut().flat_map(|call| &mut call.lines).filter(|line| line.is_up) {
                let sent = line.device.tick(&mut ground.network, self.now, true, dice);
                line.log.sent.extend(sent.map(|(name, to)| Sent {
                    at: self.now,
                    name,
                    is_direct: !relays().contains(&to.ip()),
                }));
            }
            self.node.wake_worker(self.now);
            self.ground.transmit(&mut self.node.worker, &self.node.ports);
        }
    }

    fn deliver(&mut self) {
        while let Some(came) = self.ground.next(self.now) {
            if came.host == self.ground.relay {
                let shown = self.node.shows(self.now);
                self.ground.pass(&mut self.node.worker, &self.node.ports, &came, shown);
                continue;
            }
            let mut lines = self.calls.iter_mut().flat_map(|call| &mut call.lines);
            let is_for =
                |line: &&mut Line| (line.device.host(), line.device.local()) == (came.host, came.destination);
            if let Some(line) = lines.find(is_for) {
                line.log.got.extend(name_of(&came.payload).map(|name| Got { at: self.now, name }));
                line.device.hear(came.source, came.destination, &came.payload, self.now);
            }
        }
    }

    pub(crate) fn forget_silence(&mut self, call: usize) {
        self.calls[call].lines.iter_mut().for_each(|line| *line.device.longest_silence() = Duration::ZERO);
    }

    /// How long somebody has heard nothing since that was forgotten.
    pub(crate) fn longest_silence(&mut self, call: usize) -> Duration {
        let now = self.now;
        let of =
            |line: &mut Line| (*line.device.longest_silence()).max(now.saturating_sub(line.device.heard()));
        self.calls[call].lines.iter_mut().map(of).max().unwrap_or_default()
    }

    /// Whether somebody who is to hear something does not.
    pub(crate) fn is_silent(&self, call: usize) -> bool {
        let limit = Duration::from_millis(250);
        let is_silent = |line: &Line| line.device.is_hearing() && self.now > line.device.heard() + limit;
        self.calls[call].lines.iter().any(is_silent)
    }

    /// Nothing is left of any call, but at who is dead.
    pub(crate) fn is_clean(&self) -> bool {
        let mut lines = self.calls.iter().flat_map(|call| &call.lines);
        let are_over = lines.all(|line| !line.is_up || self.parties[line.party].is_dead);
        are_over && self.node.is_clean() && self.node.engine.calls().count() == 0
    }

    /// When another process went on last.
    pub(crate) fn last_handover(&self) -> Option<Duration> {
        self.story.iter().rev().find(|(_, line)| line == GOES_ON).map(|(at, _)| *at)
    }
}

impl Line {
    fn new(party: usize, number: CallNumber, device: Device) -> Self {
        Self { party, number, device, is_up: false, log: Log::default(), offered: None }
    }
}
