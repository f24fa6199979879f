//! What the user wants.

use bytes::Bytes;
use crush::agent;
use media_wire::sdp::crush::Policy;
use serde_json::json;
use sip_engine::ua::CallNumber;

use super::{App, Duration, GOODBYE};
use crate::command::Command;

impl App {
    pub(super) fn command(&mut self, line: &str) {
        let now = self.clock.now();
        let done = match (Command::read(line), self.current) {
            (Some(Command::Quit), _) => {
                self.told_to_quit();
                Some(())
            }
            (Some(Command::Dial(uri)), _) => self.dial(&uri),
            (Some(Command::Answer), Some(call)) => self.take(call),
            (Some(Command::Refuse), Some(call)) => self.agent.refuse(call, 486, now).ok(),
            (Some(Command::HangUp), Some(call)) => self.agent.hang_up(call, now).ok(),
            (Some(Command::Hold), Some(call)) => self.hold(call, true),
            (Some(Command::Resume), Some(call)) => self.hold(call, false),
            (Some(Command::Transfer(uri)), Some(call)) => self.agent.refer(call, uri.as_bytes(), now).ok(),
            (Some(Command::Join), Some(call)) => self.join(call),
            (Some(Command::Relay), Some(call)) => self.policy(call, Policy::Relay),
            (Some(Command::Direct), Some(call)) => self.policy(call, Policy::Direct),
            _ => None,
        };
        if done.is_none() {
            self.report.tell(now.monotonic, None, "not-now", json!({ "command": line }));
        }
    }

    pub(super) fn join(&mut self, newest: CallNumber) -> Option<()> {
        let first = *self.calls.keys().next()?;
        (first != newest).then(|| self.agent.refer_to_call(first, newest, self.clock.now()).ok())?
    }

    pub(super) fn policy(&mut self, call: CallNumber, policy: Policy) -> Option<()> {
        let now = self.now();
        self.calls.get_mut(&call)?.agent.handle(agent::Input::Policy(policy), now);
        Some(())
    }

    /// The user wants it to end; who says so again waits for no farewell.
    pub(super) fn told_to_quit(&mut self) {
        match self.ending.ends_at {
            Some(_) => self.ending.ends_at = Some(self.now()),
            None => self.quit(),
        }
    }

    /// Ends calls and registration, then the phone.
    pub(super) fn quit(&mut self) {
        let now = self.clock.now();
        if self.ending.ends_at.is_some() {
            return;
        }
        let numbers: Vec<CallNumber> = self.calls.keys().copied().collect();
        for number in numbers {
            let _ = self.agent.hang_up(number, now);
        }
        if self.options.expires > 0 {
            self.agent.register(Duration::ZERO, now);
        }
        // Routers may take their time, or never answer.
        self.net.mappings.release_all();
        self.ending.ends_at = Some(now.monotonic + GOODBYE);
    }

    fn hold(&mut self, number: CallNumber, is_held: bool) -> Option<()> {
        let call = self.calls.get_mut(&number)?;
        call.hold(is_held);
        let offer = Bytes::from(call.offer());
        let asked = self.agent.reinvite(number, Some(offer), self.clock.now());
        if asked.is_err() {
            call.hold(self.held);
            return None;
        }
        self.held = is_held;
        Some(())
    }
}
