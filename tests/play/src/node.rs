//! A node in virtual time: the engine, a media worker, and what they say to each other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use media_core::Worker;
use media_core::worker::Settings;
use seam::{Action, Replied, Request, SessionId, Told};
use sip_engine::Engine;
use sip_engine::config::Config;
use sip_engine::io::{Command, Input, Output};

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
        let mut engine = Engine::new(Arc::new(config), seed);
        engine.handle(Input::Command(Command::Policy(Arc::new(policy))), at(now));
        Self { engine, worker: Worker::new(settings, "anchor".to_owned()), ports, said: VecDeque::new() }
    }

    /// Something comes to the engine.
    pub fn handle(&mut self, input: Input, now: Duration) {
        self.engine.handle(input, at(now));
    }

    /// Somebody but signalling says something of a session.
    pub fn act(&mut self, session: SessionId, action: Action, now: Duration) {
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
        let is_due = self.engine.poll_timeout().is_some_and(|due| due <= now);
        if is_due {
            self.engine.handle_timeout(at(now));
        }
        is_due
    }

    /// The worker's timers.
    pub fn wake_worker(&mut self, now: Duration) {
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
