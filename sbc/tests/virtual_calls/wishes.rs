//! The media plane's wishes to renegotiate, at random moments of a call: whatever phones make of them, no call suffers.
//!
//! What is wished for is what the phone was told last, so that nothing changes in what the two phones have agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use seam::{
    Action, Described, Endpoint, Event, Renegotiated, Replied, Reply, Request, SessionId, Summary, Told,
};
use sip_engine::event::CallEventKind;
use sip_engine::io::{Input, Output};
use sip_wire::{Message, Method};

use crate::description::{narrowed, read};
use crate::world::World;

/// One wish, so many milliseconds after the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) after: u64,
    /// Whom it concerns: the caller, the called.
    pub(crate) legs: [bool; 2],
    /// The phone is to make the offer.
    pub(crate) is_bare: bool,
    /// Nothing of it arrives.
    pub(crate) is_silenced: bool,
    pub(crate) deadline: u64,
}

const CALLER: Endpoint = Endpoint { party: 0, branch: 0 };

#[derive(Debug, Default)]
struct Session {
    label: String,
    /// The endpoint that was selected.
    called: Option<Endpoint>,
    is_deleted: bool,
    /// What is asked of the media plane, by number.
    asked: BTreeMap<u32, Action>,
    /// What a party is offered, by exchange.
    offered: BTreeMap<(u32, u16), Bytes>,
    /// What a party was told last and has agreed to, as the media plane knows it: in which dialog (named by the called
    /// end), and whether that was the caller.
    told: BTreeMap<(Endpoint, bool), Bytes>,
}

/// A leg of a wish that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) is_bare: bool,
    pub(crate) outcomes: Vec<Renegotiated>,
    /// The call ended first.
    pub(crate) is_cut_short: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Wishes {
    sessions: BTreeMap<u64, Session>,
    next: u32,
    /// By session, number and leg.
    pub(crate) made: BTreeMap<(u64, u32, Endpoint), Made>,
    /// Via branches of INVITEs that do not arrive.
    silenced: BTreeSet<Vec<u8>>,
    /// Calls in which a phone has described itself to the media plane alone.
    pub(crate) changed: BTreeSet<String>,
    /// In this step of the engine: a refusal that a call must survive, and whether a call ended.
    step: (Option<u16>, bool),
}

impl Wishes {
    /// An output of the engine.
    pub(crate) fn follow(&mut self, output: &Output, labels: &BTreeMap<Vec<u8>, String>) {
        match output {
            Output::Record(event) => match &event.what {
                CallEventKind::Started(started) => {
                    let session = self.sessions.entry(started.session.0).or_default();
                    session.label = labels.get(started.call_id.as_bytes()).cloned().unwrap_or_default();
                }
                CallEventKind::Ended(_) => self.step.1 = true,
                _ => {}
            },
            Output::Media(request) => self.on_media(request),
            _ => {}
        }
    }

    fn on_media(&mut self, request: &Request) {
        let Some(session) = self.sessions.get_mut(&request.session.0) else { return };
        match &request.action {
            Action::Offer { .. } | Action::Answer { .. } => {
                session.asked.insert(request.number, request.action.clone());
            }
            Action::Select(endpoint) => session.called = Some(*endpoint),
            Action::Delete => {
                session.is_deleted = true;
                for (_, made) in self.made.iter_mut().filter(|made| made.0.0 == request.session.0) {
                    made.is_cut_short |= made.outcomes.is_empty();
                }
            }
            Action::Renegotiated { wish, endpoint, outcome } => {
                if let Renegotiated::Refused(status) = outcome
                    && *status != 481
                {
                    self.step.0 = Some(*status);
                }
                if let Renegotiated::Accepted(sdp) | Renegotiated::Offered { sdp, .. } = outcome {
                    read(sdp);
                    self.changed.insert(session.label.clone());
                }
                if let Some(made) = self.made.get_mut(&(request.session.0, *wish, *endpoint)) {
                    made.outcomes.push(outcome.clone());
                }
            }
            _ => {}
        }
    }

    /// A description of the media plane, on its way to the engine.
    pub(crate) fn described(&mut self, session: u64, number: u32, sdp: &Bytes) {
        let Some(session) = self.sessions.get_mut(&session) else { return };
        match session.asked.remove(&number) {
            Some(Action::Offer { exchange, to, .. }) => {
                session.offered.insert((exchange.0, to.party), sdp.clone());
            }
            Some(Action::Answer { exchange, from, to, .. }) => {
                let dialog = if to == CALLER { from } else { to };
                session.told.insert((dialog, to == CALLER), sdp.clone());
                if let Some(offer) = session.offered.get(&(exchange.0, from.party)) {
                    session.told.insert((dialog, from == CALLER), offer.clone());
                }
            }
            _ => {}
        }
    }

    /// The media plane refuses a description: if it is an answer, a phone is asked alone to go back.
    pub(crate) fn refused(&mut self, session: u64) {
        if let Some(session) = self.sessions.get(&session) {
            self.changed.insert(session.label.clone());
        }
    }

    fn told(&self, session: u64, endpoint: Endpoint) -> Option<Bytes> {
        let session = self.sessions.get(&session)?;
        session.told.get(&(session.called?, endpoint == CALLER)).cloned()
    }

    /// Whether a datagram is part of a wish that nobody hears.
    pub(crate) fn swallows(&self, message: &Message) -> bool {
        let branch = message.via().ok().and_then(|via| via.branch().map(<[u8]>::to_vec));
        message.method() == Some(Method::INVITE)
            && branch.is_some_and(|branch| self.silenced.contains(&branch))
    }

    /// After each step of the engine: what the step did wrong.
    pub(crate) fn judge_step(&mut self) -> Option<String> {
        match std::mem::take(&mut self.step) {
            (Some(status), true) => Some(format!("a wish that was refused with {status} ended a call")),
            _ => None,
        }
    }

    /// At the end: each leg was answered just once, or its call was over.
    pub(crate) fn judge_end(&self) -> Vec<String> {
        let wrong = self
            .made
            .iter()
            .filter(|(_, made)| made.outcomes.len() != 1 && !(made.is_cut_short && made.outcomes.is_empty()));
        wrong.map(|(name, made)| format!("wish {name:?} came out as {made:?}")).collect()
    }
}

impl World {
    /// Media wishes.
    pub(crate) fn wish(&mut self, session: u64, wish: Wish) {
        let Some(known) = self.wishes.sessions.get(&session) else { return };
        let (Some(called), false) = (known.called, known.is_deleted) else { return };
        let legs: Vec<_> = [CALLER, called]
            .into_iter()
            .zip(wish.legs)
            .filter(|(_, is_asked)| *is_asked)
            .filter_map(|(endpoint, _)| Some((endpoint, self.wishes.told(session, endpoint)?)))
            .map(|(endpoint, told)| (endpoint, (!wish.is_bare).then_some(told)))
            .collect();
        if legs.is_empty() {
            return;
        }
        self.wishes.next += 1;
        let number = self.wishes.next;
        for (endpoint, _) in &legs {
            let made = Made { is_bare: wish.is_bare, outcomes: Vec::new(), is_cut_short: false };
            self.wishes.made.insert((session, number, *endpoint), made);
        }
        let event = Event::Renegotiate { wish: number, legs, deadline: Duration::from_millis(wish.deadline) };
        let before = self.trace.len();
        let told = Told { session: SessionId(session), event };
        self.processes.handle(Input::MediaEvent(told), self.now);
        self.drain_engine();
        if wish.is_silenced {
            for traced in &self.trace[before..] {
                let message = Message::parse(traced.bytes.clone()).ok();
                let via = message.as_ref().and_then(|message| message.via().ok());
                self.wishes.silenced.extend(via.and_then(|via| via.branch().map(<[u8]>::to_vec)));
            }
        }
    }

    /// What media says to an offer that it asked for; `None` if the call is over.
    pub(crate) fn reply_to_offered(&mut self, request: &Request) -> Option<Replied> {
        let Action::Renegotiated { endpoint, outcome: Renegotiated::Offered { sdp: offer, .. }, .. } =
            &request.action
        else {
            return None;
        };
        let sdp = narrowed(&self.wishes.told(request.session.0, *endpoint)?, offer);
        let reply = Reply::Description(Ok(Described { sdp, summary: Summary::default() }));
        Some(Replied { session: request.session, number: request.number, reply })
    }
}
