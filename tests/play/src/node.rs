//! A node in virtual time: the engine, a media worker, and what they say to each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use media_core::Worker;
use media_core::worker::Settings;
use seam::{Action, Replied, Request, SessionId, Told};
use sip_engine::Engine;
use sip_engine::config::Config;
use sip_engine::door::CallId;
use sip_engine::io::{Command, Input, Output};
use sip_engine::registrar::BindingRecord;
use sip_engine::time::Now;

use crate::Dice;
use crate::handover::{Origin, written, written_call};
use crate::policy::Table;
use crate::ports::Counted;
use crate::settings::signalling::at;

/// What one process holds of calls. Whoever plays with it brings messages and packets, and takes what leaves.
#[derive(Debug)]
pub struct Node {
    /// Signalling.
    pub engine: Engine,
    /// Media.
    pub worker: Worker,
    /// The worker's.
    pub ports: Counted,
    /// What media has said and the engine has not heard.
    said: VecDeque<Input>,
    kept: Kept,
    /// Of its clock.
    origin: Origin,
}

/// What the next process gets by other ways than from this one.
#[derive(Debug)]
struct Kept {
    config: Arc<Config>,
    policy: Arc<Table>,
    settings: Settings,
    bindings: Vec<BindingRecord>,
}

impl Node {
    /// With this policy from the beginning, which is `now`.
    pub fn new(
        config: Config,
        policy: Table,
        media: (Settings, Counted),
        seed: [u8; 32],
        now: Duration,
    ) -> Self {
        let (settings, ports) = media;
        let kept =
            Kept { config: Arc::new(config), policy: Arc::new(policy), settings, bindings: Vec::new() };
        let mut node = Self {
            engine: Engine::new(kept.config.clone(), seed),
            worker: Worker::new(kept.settings.clone(), "anchor".to_owned()),
            ports,
            said: VecDeque::new(),
            kept,
            origin: Origin::default(),
        };
        node.begin(now);
        node
    }

    fn begin(&mut self, now: Duration) {
        let policy = self.kept.policy.clone();
        self.handle(Input::Command(Command::Policy(policy)), now);
        self.handle(Input::Command(Command::Load(self.kept.bindings.clone())), now);
    }

    /// Bindings that this process and those after it find in the database.
    pub fn load(&mut self, bindings: Vec<BindingRecord>, now: Duration) {
        self.kept.bindings = bindings;
        self.begin(now);
    }

    /// What its clock shows.
    pub fn shows(&self, now: Duration) -> Duration {
        self.origin.shows(now)
    }

    fn time(&self, now: Duration) -> Now {
        Now { monotonic: self.shows(now), ..at(now) }
    }

    /// Another process goes on with all calls and their media, from text: its clock shows another time, its sockets have other numbers,
    /// its secrets are others. False if one of them does not rest, or media has said something that nobody has heard: then nothing changes.
    pub fn hand_over(&mut self, dice: &mut Dice, now: Duration) -> bool {
        let time = self.time(now);
        let ids: Vec<CallId> = self.engine.calls().collect();
        if ids.is_empty() || !self.said.is_empty() {
            return false;
        }
        let (mut calls, mut sessions) = (Vec::new(), Vec::new());
        let mut rest = true;
        for id in ids {
            let Ok(call) = self.engine.take_out(id, time) else {
                rest = false;
                break;
            };
            let session = self.worker.take_out(call.session().0, time.monotonic, &mut self.ports);
            rest = session.is_ok();
            sessions.extend(session.ok().map(|stored| (call.session().0, stored)));
            calls.push(call);
            if !rest {
                break;
            }
        }
        if rest {
            assert!(self.worker.is_empty(), "something stays behind");
            self.ports = std::mem::take(&mut self.ports).successor();
            self.origin = Origin::drawn(now, dice);
            self.engine = Engine::new(self.kept.config.clone(), dice.seed());
            self.worker = Worker::new(self.kept.settings.clone(), "anchor".to_owned());
            self.begin(now);
        }
        let time = self.time(now);
        for (number, stored) in &sessions {
            let taken = self.worker.take_in(*number, written(stored), time.monotonic, &mut self.ports);
            taken.expect("its ports are free");
        }
        for call in &calls {
            self.engine.take_in(written_call(call), time).expect("it is not here");
        }
        self.listen();
        rest
    }

    /// Something comes to the engine.
    pub fn handle(&mut self, input: Input, now: Duration) {
        let now = self.time(now);
        self.engine.handle(input, now);
    }

    /// Somebody but signalling says something of a session.
    pub fn act(&mut self, session: SessionId, action: Action, now: Duration) {
        let now = self.shows(now);
        self.worker.handle(session.0, action, now, &mut self.ports);
        self.listen();
    }

    /// What leaves the node; media's part of it is done.
    pub fn poll_output(&mut self, now: Duration) -> Option<Output> {
        loop {
            match self.engine.poll_output()? {
                Output::Media(request) => self.ask(request, now),
                output => return Some(output),
            }
        }
    }

    fn ask(&mut self, Request { session, number, action }: Request, now: Duration) {
        let now = self.shows(now);
        if let Some(reply) = self.worker.handle(session.0, action, now, &mut self.ports) {
            self.said.push_back(Input::Media(Replied { session, number, reply }));
        }
        self.listen();
    }

    /// What the worker tells unasked.
    fn listen(&mut self) {
        while let Some((session, event)) = self.worker.poll_event() {
            self.said.push_back(Input::MediaEvent(Told { session: SessionId(session), event }));
        }
    }

    /// The engine hears one thing that media has said, if there is any.
    pub fn hear_media(&mut self, now: Duration) -> bool {
        let Some(input) = self.said.pop_front() else { return false };
        self.handle(input, now);
        true
    }

    /// The engine's timers. Whether one was due.
    pub fn wake_engine(&mut self, now: Duration) -> bool {
        let now = self.time(now);
        let is_due = self.engine.poll_timeout().is_some_and(|due| due <= now.monotonic);
        if is_due {
            self.engine.handle_timeout(now);
        }
        is_due
    }

    /// The worker's timers.
    pub fn wake_worker(&mut self, now: Duration) {
        let now = self.shows(now);
        if self.worker.poll_timeout().is_some_and(|due| due <= now) {
            self.worker.handle_timeout(now, &mut self.ports);
            self.listen();
        }
    }

    /// Nothing of media is left.
    pub fn is_clean(&self) -> bool {
        self.ports.open_pairs() == 0 && self.worker.is_empty()
    }
}
