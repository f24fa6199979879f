//! A user agent with its calls and their media: a phone with one call, a phone that is called, a trunk.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use crush_tests::agent::{Agent, Place};
use crush_tests::voice::Voice;
use sip_engine::ua::{CallNumber, Ending, Event, Invite, REGISTRATION};

use crate::{Shared, tally};

/// Between two looks at sockets.
const STEP: Duration = Duration::from_millis(2);
/// For a registration, an answer, an end: beyond them a call is lost.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between ringing and answer.
const RINGING: Duration = Duration::from_millis(100);
/// From the last packet to the BYE: what is on its way still arrives.
const SILENCE: Duration = Duration::from_millis(400);

/// What a party is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Phone,
    Bell,
    Trunk,
}

struct Leg {
    voice: Voice,
    is_ours: bool,
    begun: Instant,
    rang: bool,
    answer_due: Option<Instant>,
    answered: Option<Instant>,
    is_ending: bool,
    hold: Duration,
}

pub(crate) struct Party {
    agent: Agent,
    role: Role,
    hold: Duration,
    legs: HashMap<CallNumber, Leg>,
    shared: Shared,
    seed: u64,
    is_registered: bool,
    refused: Option<String>,
}

impl Party {
    pub(crate) fn new(
        place: Place,
        role: Role,
        seed: u64,
        hold: Duration,
        shared: Shared,
    ) -> std::io::Result<Self> {
        let agent = Agent::new(place, seed)?;
        Ok(Self {
            agent,
            role,
            hold,
            legs: HashMap::new(),
            shared,
            seed,
            is_registered: false,
            refused: None,
        })
    }

    /// Registers, calls, speaks and hangs up; why that failed, if it did. The SBC's media port is told of one.
    pub(crate) fn one_call(&mut self, target: &str, tells: bool) -> Result<(), String> {
        let now = self.agent.now();
        self.agent.ua.register(REGISTRATION, now);
        self.until(PATIENCE, "not registered", |party| party.is_registered)?;
        let number = self.call(&format!("sip:{target}@198.51.100.1")).ok_or("no socket")?;
        let is_answered = |party: &Self| party.legs.get(&number).is_none_or(|leg| leg.answered.is_some());
        self.until(PATIENCE, "not answered", is_answered)?;
        if tells && let Some(media) = self.legs.get(&number).and_then(|leg| leg.voice.target()) {
            println!("{}", serde_json::json!({"target": media.to_string()}));
        }
        // All that follows is in `poll`: it hangs up when all is said, and judges the leg when it has ended.
        self.until(self.hold + SILENCE + PATIENCE, "not ended", |party| party.legs.is_empty())?;
        self.leave();
        Ok(())
    }

    /// Takes its binding back: bindings outlive the SBC's next start, and an AOR has only so many.
    fn leave(&mut self) {
        if self.role == Role::Trunk {
            return;
        }
        let now = self.agent.now();
        self.is_registered = false;
        self.agent.ua.register(Duration::ZERO, now);
        let _ = self.until(Duration::from_secs(1), "", |party| party.is_registered);
    }

    /// Answers, and calls `rate` times a second where it is a trunk.
    pub(crate) fn stand(&mut self, rate: f64, stop: &AtomicBool) {
        if self.role == Role::Bell {
            let now = self.agent.now();
            self.agent.ua.register(REGISTRATION, now);
        }
        // The phones that are called have registered by then.
        let (begun, mut made) = (Instant::now() + Duration::from_secs(1), 0_u32);
        let mut stopped = None;
        loop {
            if stop.load(Ordering::Relaxed) {
                // Who is called waits until those who call have ended all.
                let since = *stopped.get_or_insert_with(Instant::now);
                let is_last = self.legs.is_empty() && since.elapsed() > self.hold + 2 * SILENCE;
                if is_last || since.elapsed() > self.hold + 2 * PATIENCE {
                    return self.leave();
                }
            }
            let elapsed = Instant::now().saturating_duration_since(begun).as_secs_f64();
            if rate > 0.0 && !stop.load(Ordering::Relaxed) && f64::from(made) < elapsed * rate {
                made += 1;
                tally(&self.shared).calls += 1;
                if self.call(&format!("sip:bell{}@198.51.100.1", 11 + made % 3)).is_none() {
                    self.lose("no socket".to_owned());
                }
            }
            self.poll();
            self.take_refusal();
            std::thread::sleep(STEP);
        }
    }

    fn take_refusal(&mut self) {
        if let Some(why) = self.refused.take() {
            self.lose(why);
        }
    }

    fn lose(&self, why: String) {
        *tally(&self.shared).lost.entry(why).or_default() += 1;
    }

    fn until(&mut self, time: Duration, else_: &str, is_so: impl Fn(&Self) -> bool) -> Result<(), String> {
        let end = Instant::now() + time;
        loop {
            self.poll();
            if let Some(why) = self.refused.take() {
                return Err(why);
            }
            if is_so(self) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(else_.to_owned());
            }
            std::thread::sleep(STEP);
        }
    }

    fn call(&mut self, target: &str) -> Option<CallNumber> {
        let voice = self.voice()?;
        let invite = Invite { offer: Some(voice.describe(1)), ..Invite::default() };
        let now = self.agent.now();
        let call = self.agent.ua.call(target.as_bytes(), invite, now);
        self.legs.insert(call, Leg::new(voice, true, self.hold));
        Some(call)
    }

    fn voice(&mut self) -> Option<Voice> {
        self.seed += 1;
        Voice::new(self.agent.local().ip(), self.seed as u32).ok()
    }

    fn poll(&mut self) {
        for event in self.agent.poll() {
            self.event(event);
        }
        let now = self.agent.now();
        let mut due = Vec::new();
        for (number, leg) in &mut self.legs {
            leg.voice.poll();
            if leg.answer_due.is_some_and(|due| due <= Instant::now()) {
                leg.answer_due = None;
                let _ = self.agent.ua.accept(*number, Some(leg.voice.describe(1)), now);
            }
            let is_done = leg.is_ours && leg.answered.is_some_and(|at| at.elapsed() > leg.hold + SILENCE);
            if is_done && !leg.is_ending {
                leg.is_ending = true;
                due.push(*number);
            }
        }
        for number in due {
            let _ = self.agent.ua.hang_up(number, now);
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.agent.now();
        match event {
            Event::Registered { .. } => self.is_registered = true,
            Event::NotRegistered { status } => {
                self.is_registered = true;
                if self.role == Role::Phone && self.legs.is_empty() {
                    self.refused = Some(format!("not registered: {status}"));
                }
            }
            Event::Incoming { call, offer: Some(offer), invite, .. } => {
                let Some(mut voice) = self.voice() else { return };
                voice.aim(&offer);
                let number = self.hold_of(invite.request_uri().unwrap_or_default());
                if number.is_none() {
                    let _ = self.agent.ua.refuse(call, 486, now);
                    return;
                }
                let mut leg = Leg::new(voice, false, number.unwrap_or(self.hold));
                leg.answer_due = Some(Instant::now() + RINGING);
                self.legs.insert(call, leg);
                let _ = self.agent.ua.ring(call, 180, None, now);
            }
            Event::Progress { call, status: 180.., .. } => {
                if let Some(leg) = self.legs.get_mut(&call).filter(|leg| !leg.rang) {
                    leg.rang = true;
                    tally(&self.shared).delays.push(leg.begun.elapsed());
                }
            }
            Event::Answered { call, sdp, .. } => self.answered(call, &sdp),
            Event::Established { call, .. } => {
                if let Some(leg) = self.legs.get_mut(&call).filter(|leg| !leg.is_ours) {
                    leg.voice.speak(leg.hold);
                }
            }
            Event::Offered { call, fork, .. } => {
                if let Some(leg) = self.legs.get(&call) {
                    let sdp: Bytes = leg.voice.describe(1);
                    let _ = self.agent.ua.answer(call, fork, sdp, now);
                }
            }
            Event::Ended { call, ending, .. } => self.ended(call, ending),
            _ => {}
        }
    }

    /// How long a caller wants the callee to speak; `None` for a number that is busy.
    fn hold_of(&self, uri: &[u8]) -> Option<Duration> {
        let text = String::from_utf8_lossy(uri);
        let digits = text.trim_start_matches("sip:").split('@').next().unwrap_or_default();
        match digits.strip_prefix('+') {
            Some(digits) if digits.starts_with('9') || digits.starts_with("19") => None,
            Some(digits) => digits.get(1..5)?.parse().ok().map(Duration::from_secs),
            None => Some(self.hold),
        }
    }

    fn answered(&mut self, call: CallNumber, sdp: &[u8]) {
        let Some(leg) = self.legs.get_mut(&call).filter(|leg| leg.answered.is_none()) else { return };
        if !leg.rang {
            // A lost 180: the answer says no less.
            leg.rang = true;
            tally(&self.shared).delays.push(leg.begun.elapsed());
        }
        leg.answered = Some(Instant::now());
        leg.voice.aim(sdp);
        leg.voice.speak(leg.hold);
    }

    fn ended(&mut self, call: CallNumber, ending: Ending) {
        let Some(mut leg) = self.legs.remove(&call) else { return };
        leg.voice.poll();
        {
            let mut tally = tally(&self.shared);
            tally.sent += u64::from(leg.voice.sent);
            tally.received += u64::from(leg.voice.received);
        }
        if !leg.is_ours {
            return;
        }
        let why = match ending {
            Ending::HungUp if leg.voice.received == 0 => "heard nothing".to_owned(),
            Ending::HungUp => return,
            other => format!("ended: {other:?}"),
        };
        self.refused = Some(why);
    }
}

impl Leg {
    fn new(voice: Voice, is_ours: bool, hold: Duration) -> Self {
        Self {
            voice,
            is_ours,
            begun: Instant::now(),
            rang: false,
            answer_due: None,
            answered: None,
            is_ending: false,
            hold,
        }
    }
}
