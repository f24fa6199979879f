//! Signalling as one process after the other: each begins with a clock and a seed of its own, and goes on with what rests in those before it.
//! These finish what does not, and tell each other what the shards of a node do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use play::Dice;
use play::handover::{Origin, written_call};
use play::settings::signalling::at;
use sip_engine::Engine;
use sip_engine::door::CallId;
use sip_engine::io::{Command, Input, Output};
use sip_engine::registrar::BindingRecord;
use sip_engine::time::Now;
use sip_wire::Message;

use crate::setup::{config, policy};

/// Names a process.
pub(crate) type Number = u32;

struct Process {
    number: Number,
    engine: Engine,
    origin: Origin,
}

impl Process {
    fn time(&self, now: Duration) -> Now {
        Now { monotonic: self.origin.shows(now), ..at(now) }
    }

    fn handle(&mut self, input: Input, now: Duration) {
        let now = self.time(now);
        self.engine.handle(input, now);
    }
}

pub(crate) struct Processes {
    /// The youngest is last.
    running: Vec<Process>,
    /// Who has the dialogs of a Call-ID, and who a media session's call.
    homes: BTreeMap<Vec<u8>, Number>,
    sessions: BTreeMap<u64, Number>,
    /// What they all load.
    bindings: Vec<BindingRecord>,
    /// Where calls are handed over: chance, and when the next time is.
    moments: Option<(Dice, Duration)>,
    /// Calls that were handed over, and how often one that was to be did not rest.
    pub(crate) handed: u32,
    pub(crate) waited: u32,
}

impl Processes {
    /// One, which stays alone without `dice`.
    pub(crate) fn new(
        seed: [u8; 32],
        bindings: Vec<BindingRecord>,
        now: Duration,
        dice: Option<Dice>,
    ) -> Self {
        let mut processes = Self {
            running: Vec::new(),
            homes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            bindings,
            moments: dice.map(|dice| (dice, now)),
            handed: 0,
            waited: 0,
        };
        processes.begin(seed, Origin::default(), now);
        processes
    }

    fn begin(&mut self, seed: [u8; 32], origin: Origin, now: Duration) -> Number {
        let number = self.running.last().map_or(0, |last| last.number + 1);
        let mut process = Process { number, engine: Engine::new(Arc::new(config()), seed), origin };
        process.handle(Input::Command(Command::Policy(Arc::new(policy()))), now);
        process.handle(Input::Command(Command::Load(self.bindings.clone())), now);
        self.running.push(process);
        number
    }

    /// The one of this number; if it is over, or for what belongs to none, the youngest.
    fn process(&mut self, number: Option<Number>) -> &mut Process {
        let found = self.running.iter().position(|process| Some(process.number) == number);
        let place = found.unwrap_or(self.running.len() - 1);
        &mut self.running[place]
    }

    /// A message goes to who has its dialog, with what another knows of the dialog that it would replace; what media says, to who has
    /// its session.
    pub(crate) fn handle(&mut self, input: Input, now: Duration) {
        let home = match &input {
            Input::Received { message, .. } => {
                let call_id = message.call_id().unwrap_or_default().to_vec();
                let home = self.homes.get(&call_id).copied();
                let number = self.process(home).number;
                self.homes.insert(call_id, number);
                let others = self.running.iter().filter(|process| process.number != number);
                let ends: Vec<_> = others.filter_map(|process| process.engine.end_for(message)).collect();
                for end in ends {
                    self.process(Some(number)).handle(Input::Replicate(end), now);
                }
                Some(number)
            }
            Input::Media(replied) => self.sessions.get(&replied.session.0).copied(),
            Input::MediaEvent(told) => self.sessions.get(&told.session.0).copied(),
            _ => None,
        };
        self.process(home).handle(input, now);
    }

    /// What answers an output of one.
    pub(crate) fn answer(&mut self, number: Number, input: Input, now: Duration) {
        self.process(Some(number)).handle(input, now);
    }

    pub(crate) fn poll_output(&mut self, now: Duration) -> Option<(Number, Output)> {
        for place in 0..self.running.len() {
            let number = self.running[place].number;
            while let Some(output) = self.running[place].engine.poll_output() {
                match &output {
                    Output::Replicate(replica) => {
                        let others = self.running.iter_mut().filter(|process| process.number != number);
                        others.for_each(|process| process.handle(Input::Replicate(replica.clone()), now));
                        continue;
                    }
                    Output::Send { message, .. } => {
                        if let Ok(message) = Message::parse(message.clone())
                            && let Ok(call_id) = message.call_id()
                        {
                            self.homes.entry(call_id.to_vec()).or_insert(number);
                        }
                    }
                    Output::Media(request) => {
                        self.sessions.entry(request.session.0).or_insert(number);
                    }
                    _ => {}
                }
                return Some((number, output));
            }
        }
        None
    }

    /// When any of them has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Duration> {
        let due = |process: &Process| Some(process.origin.when(process.engine.poll_timeout()?));
        self.running.iter().filter_map(due).min()
    }

    pub(crate) fn handle_timeout(&mut self, now: Duration) {
        for process in &mut self.running {
            let now = process.time(now);
            process.engine.handle_timeout(now);
        }
    }

    /// When calls are handed over next.
    pub(crate) fn next_handover(&self) -> Option<Duration> {
        self.moments.as_ref().map(|(_, next)| *next)
    }

    /// Another process begins, and goes on with every call that rests; how many there are.
    pub(crate) fn hand_over(&mut self, now: Duration) -> u32 {
        let Some((dice, next)) = &mut self.moments else { return 0 };
        let span = dice.pick(&[10, 50, 300, 2_000]);
        *next = now + Duration::from_millis(1 + dice.below(span));
        let (seed, origin) = (dice.seed(), Origin::drawn(now, dice));
        let mut stored = Vec::new();
        for process in &mut self.running {
            let time = process.time(now);
            let calls: Vec<CallId> = process.engine.calls().collect();
            for call in calls {
                match process.engine.take_out(call, time) {
                    Ok(call) => stored.push(call),
                    Err(_) => self.waited += 1,
                }
            }
        }
        if stored.is_empty() {
            return 0;
        }
        let number = self.begin(seed, origin, now);
        for call in &stored {
            let value = serde_json::to_value(call).expect("plain data");
            for call_id in call_ids(&value) {
                self.homes.insert(call_id, number);
            }
            self.sessions.insert(call.session().0, number);
            let process = self.process(Some(number));
            let time = process.time(now);
            process.engine.take_in(written_call(call), time).expect("a place for it");
        }
        let youngest = self.running.len() - 1;
        let mut place = 0;
        self.running.retain(|process| {
            place += 1;
            place > youngest || !process.engine.is_idle()
        });
        self.handed += stored.len() as u32;
        stored.len() as u32
    }

    pub(crate) fn are_idle(&self) -> bool {
        self.running.iter().all(|process| process.engine.is_idle())
    }

    /// Calls, transactions and bindings of each.
    pub(crate) fn sizes(&self) -> Vec<(usize, usize, usize)> {
        self.running.iter().map(|process| process.engine.sizes()).collect()
    }
}

/// The Call-IDs that stored data hold.
fn call_ids(value: &serde_json::Value) -> Vec<Vec<u8>> {
    match value {
        serde_json::Value::Object(fields) => {
            let own = fields.get("call_id").and_then(serde_json::Value::as_str);
            let rest = fields.values().flat_map(call_ids);
            own.map(|own| own.as_bytes().to_vec()).into_iter().chain(rest).collect()
        }
        serde_json::Value::Array(all) => all.iter().flat_map(call_ids).collect(),
        _ => Vec::new(),
    }
}
