//! One seed's run: phones, network, SBC and media plane in virtual time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sip_engine::event::{CallEvent, CallEventKind};
use sip_engine::io::{Flow, Input, ListenerId, Output, Transport};
use sip_engine::question::ResolvedAddress;
use sip_wire::{Message, Method};

use crate::census::Follower;
use crate::media::Media;
use crate::network::Network;
use crate::phone::{LABEL, Phone, Todo};
use crate::plan::{Dead, Plan, Target};
use crate::processes::Processes;
use crate::proxy::Proxy;
use crate::setup::{
    ABROAD, ACCESS, CORE, SUBSCRIBER, THIRD, binding, dead_address, phone_address, sbc, user_agent,
};
use crate::wishes::{Wish, Wishes};
use play::Dice;
use play::settings::signalling::at;

/// 64·T1, and what the network and the media plane may add to it.
pub(crate) const QUIET: Duration = Duration::from_secs(36);
/// No call may go on for ever.
const LIMIT: Duration = Duration::from_secs(900);

/// Something to do later.
#[derive(Debug)]
enum Task {
    Phone(usize, Todo),
    /// The media plane wishes, in a session.
    Wish(u64, Wish),
}

/// One message, as it was sent.
#[derive(Debug)]
pub(crate) struct Traced {
    pub(crate) at: Duration,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) copies: usize,
    pub(crate) bytes: Bytes,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) processes: Processes,
    pub(crate) phones: Vec<Phone>,
    pub(crate) media: Media,
    network: Network,
    proxy: Option<Proxy>,
    todo: BinaryHeap<Reverse<(Duration, u64)>>,
    tasks: BTreeMap<u64, Task>,
    next_task: u64,
    pub(crate) trace: Vec<Traced>,
    pub(crate) notes: Vec<(Duration, String)>,
    pub(crate) records: Vec<CallEvent>,
    /// Call-ID of the INVITE that a phone began a call with, to its label.
    pub(crate) labels: BTreeMap<Vec<u8>, String>,
    dead: Option<Dead>,
    last_event: Duration,
    pub(crate) problems: Vec<String>,
    pub(crate) follower: Follower,
    pub(crate) wishes: Wishes,
    planned_wishes: Vec<Wish>,
}

impl World {
    /// Handed over or not: its calls go from process to process, or stay in one.
    pub(crate) fn new(seed: u64, plan: &Plan, is_handed: bool) -> Self {
        let mut dice = Dice::of(seed, 3);
        let start = Duration::from_secs(1000);
        let first = dice.seed();
        let third = 9;
        let mut phones = Vec::new();
        let mut bindings = vec![binding(THIRD, third)];
        let mut add = |name, user, side, number, plan: &crate::plan::PhonePlan, updates, dice: &mut Dice| {
            let agent = user_agent(user, side, number, plan.abilities, dice.seed());
            let own = Dice::of(seed, 10 + phones.len() as u64);
            phones.push(Phone::new(name, agent, phone_address(side, number), plan.clone(), updates, own));
        };
        let caller_side = if plan.caller_in_core { CORE } else { ACCESS };
        add("alice", "alice", caller_side, 0, &plan.caller, plan.early_update[0], &mut dice);
        let mut dead = None;
        let mut proxy = None;
        match plan.target {
            Target::Contacts(count) => {
                for (number, name) in ["bob", "bill", "beth"].into_iter().take(count).enumerate() {
                    let updates = plan.early_update[1];
                    add(name, SUBSCRIBER, ACCESS, number + 1, &plan.callees[number], updates, &mut dice);
                    bindings.push(binding(SUBSCRIBER, number + 1));
                }
            }
            Target::Proxy(_) => {}
            Target::Trunk(death) => {
                dead = death;
                add("trunk", ABROAD, CORE, 1, &plan.callees[0], plan.early_update[1], &mut dice);
            }
        }
        if let Target::Proxy(count) = plan.target {
            for (number, name) in ["tina", "tom", "tess"].into_iter().take(count).enumerate() {
                add(name, ABROAD, CORE, number + 2, &plan.callees[number], plan.early_update[1], &mut dice);
            }
            let targets = (0..count).map(|number| phone_address(CORE, number + 2)).collect();
            proxy = Some(Proxy::new(phone_address(CORE, 1), targets));
        }
        add("carol", THIRD, ACCESS, third, &plan.third, false, &mut dice);
        let handed = is_handed.then(|| Dice::of(seed, 5));
        let mut world = Self {
            now: start,
            processes: Processes::new(first, bindings, start, handed),
            phones,
            media: Media::new(plan.media, seed),
            network: Network::new(seed, plan.is_perfect),
            proxy,
            todo: BinaryHeap::new(),
            tasks: BTreeMap::new(),
            next_task: 0,
            trace: Vec::new(),
            notes: Vec::new(),
            records: Vec::new(),
            labels: BTreeMap::new(),
            dead,
            last_event: start,
            problems: Vec::new(),
            follower: Follower::default(),
            wishes: Wishes::default(),
            planned_wishes: plan.wishes.clone(),
        };
        world.drain_engine();
        world
    }

    /// The first phone calls; all goes its way until nothing has happened for long.
    pub(crate) fn play(&mut self, plan: &Plan) {
        let user = match plan.target {
            Target::Contacts(_) => SUBSCRIBER,
            Target::Trunk(_) | Target::Proxy(_) => ABROAD,
        };
        let now = at(self.now);
        let call = self.phones[0].place(user, plan.offer, plan.multipart, plan.prack_offer, now);
        if let Some(after) = plan.cancel_after {
            self.schedule(0, Duration::from_millis(after), Todo::HangUp { call });
        }
        self.drain_phone(0);
        self.run_until_quiet();
    }

    fn schedule(&mut self, phone: usize, after: Duration, todo: Todo) {
        self.schedule_task(after, Task::Phone(phone, todo));
    }

    fn schedule_task(&mut self, after: Duration, task: Task) {
        self.next_task += 1;
        self.todo.push(Reverse((self.now + after, self.next_task)));
        self.tasks.insert(self.next_task, task);
    }

    pub(crate) fn run_until_quiet(&mut self) {
        self.last_event = self.now;
        while self.problems.is_empty() {
            let quiet = self.last_event + QUIET;
            let next = [
                self.network.next(),
                self.media.next(),
                self.todo.peek().map(|next| next.0.0),
                self.processes.poll_timeout(),
                self.processes.next_handover(),
                self.phones.iter().filter_map(|phone| phone.agent.poll_timeout()).min(),
                self.proxy.as_ref().and_then(Proxy::poll_timeout),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(quiet);
            if next >= quiet {
                self.now = quiet;
                return;
            }
            if next > LIMIT + Duration::from_secs(1000) {
                self.problems.push("it never ends".to_owned());
                return;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    fn step(&mut self) {
        let now = at(self.now);
        while let Some(datagram) = self.network.pop(self.now) {
            self.deliver(datagram.from, datagram.to, datagram.bytes);
        }
        while let Some(event) = self.media.pop(self.now) {
            self.last_event = self.now;
            if let media_relay::Event::Reply(seam::Replied { session, number, reply }) = &event {
                self.follower.replied(session.0, *number);
                match reply {
                    seam::Reply::Description(Ok(described)) => {
                        self.wishes.described(session.0, *number, &described.sdp);
                    }
                    seam::Reply::Description(Err(_)) => self.wishes.refused(session.0),
                    _ => {}
                }
            }
            if let Some((_, input)) = sbc::host::input(event) {
                self.processes.handle(input, self.now);
            }
            self.drain_engine();
        }
        while let Some(Reverse((due, id))) = self.todo.peek().copied() {
            if due > self.now {
                break;
            }
            self.todo.pop();
            self.last_event = self.now;
            match self.tasks.remove(&id) {
                Some(Task::Phone(phone, todo)) => {
                    self.note(format!("{}: {}", self.phones[phone].name, short(&todo)));
                    self.phones[phone].carry_out(todo, now);
                    self.drain_phone(phone);
                }
                Some(Task::Wish(session, wish)) => {
                    self.note(format!("media wishes {}", short(&wish)));
                    self.follower.timed();
                    self.wish(session, wish);
                }
                None => {}
            }
        }
        if self.processes.poll_timeout().is_some_and(|due| due <= self.now) {
            self.follower.timed();
            self.processes.handle_timeout(self.now);
            self.drain_engine();
        }
        if self.processes.next_handover().is_some_and(|due| due <= self.now) {
            let calls = self.processes.hand_over(self.now);
            if calls > 0 {
                self.note(format!("another process has {calls} calls"));
            }
            self.drain_engine();
        }
        if let Some(proxy) = &mut self.proxy
            && proxy.poll_timeout().is_some_and(|due| due <= self.now)
        {
            proxy.handle_timeout(self.now);
            self.drain_proxy();
        }
        for phone in 0..self.phones.len() {
            if self.phones[phone].agent.poll_timeout().is_some_and(|due| due <= self.now) {
                self.phones[phone].agent.handle_timeout(now);
                self.drain_phone(phone);
            }
        }
    }

    /// What is still up is ended, from one side or the other.
    pub(crate) fn hang_up_all(&mut self, seed: u64) {
        let mut dice = Dice::of(seed, 4);
        let now = at(self.now);
        let mut phones: Vec<usize> = (0..self.phones.len()).collect();
        if dice.chance(50) {
            phones.reverse();
        }
        let mut done = std::collections::BTreeSet::new();
        for phone in phones {
            let calls: Vec<_> = self.phones[phone].agent.calls().map(|call| call.0).collect();
            for call in calls {
                let label = self.phones[phone].known.get(&call).map(|known| known.label.clone());
                if done.insert(label) {
                    let _ = self.phones[phone].agent.hang_up(call, now);
                }
            }
            self.drain_phone(phone);
        }
        self.run_until_quiet();
    }

    fn note(&mut self, text: String) {
        self.notes.push((self.now, text));
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let message = match Message::parse(bytes.clone()) {
            Ok(message) => message,
            Err(refused) => {
                self.problems.push(format!("{} from {from} to {to} can't be read", refused.cause));
                return;
            }
        };
        let now = at(self.now);
        let listener = [ACCESS, CORE].into_iter().find(|listener| sbc(*listener) == to);
        if let Some(listener) = listener {
            if message.method() == Some(Method::INVITE)
                && let (Some(label), Ok(call_id)) = (message.named(LABEL), message.call_id())
            {
                self.labels.insert(call_id.to_vec(), String::from_utf8_lossy(label).into_owned());
            }
            let flow = Flow { listener, transport: Transport::Udp, remote: from, connection: None };
            self.follower.received(&message);
            self.processes.handle(Input::Received { flow, message }, self.now);
            self.drain_engine();
        } else if let Some(proxy) = self.proxy.as_mut().filter(|proxy| proxy.address == to) {
            let flow =
                Flow { listener: ListenerId(0), transport: Transport::Udp, remote: from, connection: None };
            proxy.handle(Input::Received { flow, message }, self.now);
            self.drain_proxy();
        } else if let Some(phone) = self.phones.iter().position(|phone| phone.address == to) {
            if self.wishes.swallows(&message) {
                return;
            }
            let flow =
                Flow { listener: ListenerId(0), transport: Transport::Udp, remote: from, connection: None };
            self.phones[phone].agent.handle(Input::Received { flow, message }, now);
            self.drain_phone(phone);
        }
    }

    fn drain_phone(&mut self, index: usize) {
        let now = at(self.now);
        while let Some(event) = self.phones[index].agent.poll_event() {
            self.last_event = self.now;
            self.note(format!("{} sees {}", self.phones[index].name, short(&event)));
            self.phones[index].on_event(event, now);
        }
        while let Some(output) = self.phones[index].agent.poll_output() {
            if let Output::Send { flow, message, .. } = output {
                let from = self.phones[index].address;
                self.send(from, flow.remote, message);
            }
        }
        for (after, todo) in std::mem::take(&mut self.phones[index].todo) {
            self.schedule(index, after, todo);
        }
        let problems = std::mem::take(&mut self.phones[index].problems);
        let name = self.phones[index].name;
        self.problems.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
    }

    fn drain_proxy(&mut self) {
        while let Some(proxy) = &mut self.proxy {
            let from = proxy.address;
            match proxy.poll_output() {
                Some(Output::Send { flow, message, .. }) => self.send(from, flow.remote, message),
                Some(_) => {}
                None => return,
            }
        }
    }

    /// Whether the carrier's proxy, if there is one, has let go of all.
    pub(crate) fn is_proxy_idle(&self) -> bool {
        self.proxy.as_ref().is_none_or(Proxy::is_idle)
    }

    pub(crate) fn drain_engine(&mut self) {
        let now = self.now;
        while let Some((process, output)) = self.processes.poll_output(now) {
            self.wishes.follow(&output, &self.labels);
            match output {
                Output::Send { flow, message, ticket, .. } => {
                    if flow.remote == dead_address() && self.dead == Some(Dead::Unreachable) {
                        self.processes.answer(process, Input::SendFailed { ticket }, now);
                        continue;
                    }
                    if let Ok(parsed) = Message::parse(message.clone()) {
                        play::stranger::reads(&parsed);
                        self.follower.sent(&parsed);
                    }
                    self.send(sbc(flow.listener), flow.remote, message);
                }
                Output::Resolve { question, .. } => {
                    let address = |address| ResolvedAddress {
                        transport: Transport::Udp,
                        address,
                        server_name: "trunk.example.org".into(),
                    };
                    let live = address(phone_address(CORE, 1));
                    let dead = self.dead.map(|_| address(dead_address()));
                    let addresses = dead.into_iter().chain([live]).collect();
                    self.processes.answer(process, Input::Resolved { question, addresses }, now);
                }
                Output::Media(request) => {
                    self.note(format!("media {}: {}", request.number, short(&request.action)));
                    self.follower.asked(&request);
                    if let Some(reply) = self.reply_to_offered(&request) {
                        self.processes.answer(process, Input::Media(reply), now);
                    }
                    self.media.handle(request, self.now);
                }
                Output::Record(event) => {
                    self.last_event = self.now;
                    self.note(format!("record {:.300}", format!("{:?}", event.what)));
                    if let (CallEventKind::Answered { .. }, Some(session)) =
                        (&event.what, self.session_of(event.call))
                    {
                        for wish in self.planned_wishes.clone() {
                            self.schedule_task(Duration::from_millis(wish.after), Task::Wish(session, wish));
                        }
                    }
                    self.records.push(event);
                }
                Output::Notice(notice) => self.note(format!("notice {}: {}", notice.kind, notice.detail)),
                Output::Binding(_)
                | Output::Close(_)
                | Output::Answered(_)
                | Output::Proven(_)
                | Output::Withheld
                | Output::Replicate(_) => {}
            }
        }
        self.problems.extend(self.wishes.judge_step());
        let problems = std::mem::take(&mut self.media.problems);
        self.problems.extend(problems);
    }

    fn session_of(&self, call: u128) -> Option<u64> {
        self.records.iter().find_map(|event| match &event.what {
            CallEventKind::Started(started) if event.call == call => Some(started.session.0),
            _ => None,
        })
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Bytes) {
        let copies = self.network.send(from, to, bytes.clone(), self.now);
        self.trace.push(Traced { at: self.now, from, to, copies, bytes });
    }

    /// What happened, for a failure's report.
    pub(crate) fn story(&self) -> String {
        let name_of = |address: SocketAddr| {
            let phone = self.phones.iter().find(|phone| phone.address == address).map(|phone| phone.name);
            match phone {
                Some(name) => name.to_owned(),
                None if address == sbc(ACCESS) => "SBC/access".to_owned(),
                None if address == sbc(CORE) => "SBC/core".to_owned(),
                None if address == phone_address(CORE, 1) => "proxy".to_owned(),
                None => address.to_string(),
            }
        };
        let mut lines: Vec<(Duration, String)> = self.notes.clone();
        let is_full = std::env::var("SBC_VIRTUAL_TRACE").is_ok_and(|value| value == "full");
        for traced in &self.trace {
            let mut line = format!("    {} -> {}", name_of(traced.from), name_of(traced.to));
            if traced.copies != 1 {
                let _ = write!(line, " (x{})", traced.copies);
            }
            let text = String::from_utf8_lossy(&traced.bytes);
            let first = text.lines().next().unwrap_or_default();
            let cseq = text.lines().find(|line| line.starts_with("CSeq: ")).unwrap_or_default();
            let body = if text.contains("v=0") { " +SDP" } else { "" };
            let _ = write!(line, ": {first} [{cseq}]{body}");
            if is_full {
                let _ = write!(line, "\n{text}");
            }
            lines.push((traced.at, line));
        }
        lines.sort_by_key(|line| line.0);
        lines.iter().fold(String::new(), |mut story, (time, line)| {
            let _ = writeln!(story, "{:9.3} {line}", time.as_secs_f64() - 1000.0);
            story
        })
    }
}

/// Long texts would hide the story.
fn short(value: &impl std::fmt::Debug) -> String {
    format!("{value:?}").chars().take(160).collect()
}
