//! A simulated telephone: a user agent, and somebody who follows a plan.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use sip_engine::time::Now;
use sip_engine::ua::{CallNumber, Ending, Event, Fork, Invite, Misuse, UserAgent};

use crate::description::{Change, Describer, read};
use crate::plan::{Act, PhonePlan, Step};
use crate::setup::{DOMAIN, THIRD};
use play::Dice;

/// The header that tells which leg belongs to which: it passes through the SBC.
pub(crate) const LABEL: &str = "X-Call";

/// Something to do later.
#[derive(Debug, Clone)]
pub(crate) enum Todo {
    Step {
        call: CallNumber,
        index: usize,
        attempt: u8,
    },
    /// `turn` tells the offer from those that were withdrawn meanwhile.
    Answer {
        call: CallNumber,
        fork: Fork,
        offer: Bytes,
        refuse: bool,
        turn: u32,
    },
    GiveOffer {
        call: CallNumber,
        fork: Fork,
        refuse: bool,
        turn: u32,
    },
    Act {
        call: CallNumber,
        act: Act,
        attempt: u8,
    },
    CancelReinvite {
        call: CallNumber,
    },
    Transfer {
        call: CallNumber,
    },
    Update {
        call: CallNumber,
        fork: Fork,
    },
    Refer {
        call: CallNumber,
        consultation: CallNumber,
    },
    HangUp {
        call: CallNumber,
    },
}

/// What a phone knows of a call beyond its user agent.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) label: String,
    offer: Option<Bytes>,
    replaces: bool,
    /// The first call, whose acts the plan holds.
    is_main: bool,
    /// A consultation for a transfer of that call.
    consults_for: Option<CallNumber>,
    has_updated: bool,
    turn: u32,
}

#[derive(Debug)]
pub(crate) struct Phone {
    pub(crate) name: &'static str,
    pub(crate) agent: UserAgent,
    pub(crate) address: SocketAddr,
    plan: PhonePlan,
    updates_early: bool,
    describer: Describer,
    dice: Dice,
    pub(crate) known: BTreeMap<CallNumber, Known>,
    pub(crate) endings: Vec<(String, CallNumber, Ending)>,
    pub(crate) todo: Vec<(Duration, Todo)>,
    pub(crate) problems: Vec<String>,
    labels: u32,
}

impl Phone {
    pub(crate) fn new(
        name: &'static str,
        agent: UserAgent,
        address: SocketAddr,
        plan: PhonePlan,
        updates_early: bool,
        dice: Dice,
    ) -> Self {
        let describer = Describer::new(address.ip(), 30_000, plan.codecs);
        let (known, endings, todo, problems) = Default::default();
        Self {
            name,
            agent,
            address,
            plan,
            updates_early,
            describer,
            dice,
            known,
            endings,
            todo,
            problems,
            labels: 0,
        }
    }

    fn label(&mut self) -> String {
        self.labels += 1;
        format!("{}-{}", self.name, self.labels)
    }

    fn invite(&mut self, offers: bool) -> Invite {
        let offer = offers.then(|| self.describer.offer(None, Change::Same));
        let label = self.label();
        Invite { offer, headers: vec![(LABEL.to_owned(), label)], ..Invite::default() }
    }

    fn think(&mut self) -> Duration {
        Duration::from_millis(1 + self.dice.below(self.plan.slowest))
    }

    fn later(&mut self, after: Duration, todo: Todo) {
        self.todo.push((after, todo));
    }

    /// The call that the plan is about.
    pub(crate) fn place(
        &mut self,
        user: &str,
        offers: bool,
        multipart: bool,
        prack_offer: bool,
        now: Now,
    ) -> CallNumber {
        let mut invite = self.invite(offers);
        let label = invite.headers[0].1.clone();
        if multipart {
            let attachment = Bytes::from_static(b"\x01\x00\r\n--not a boundary\r\n\xff");
            invite.attachment = Some((Bytes::from_static(b"application/isup;version=itu-t92+"), attachment));
        }
        let call = self.agent.call(format!("sip:{user}@{DOMAIN}").as_bytes(), invite, now);
        self.known.insert(call, Known { label, is_main: true, ..Known::default() });
        if prack_offer && offers {
            let sdp = self.describer.offer(None, Change::Hold);
            let _ = self.agent.offer_in_prack(call, sdp);
        }
        call
    }

    pub(crate) fn is_up(&self, call: CallNumber) -> bool {
        self.agent.calls().any(|(number, is_up)| number == call && is_up)
    }

    fn is_alive(&self, call: CallNumber) -> bool {
        self.agent.calls().any(|(number, _)| number == call)
    }

    pub(crate) fn on_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Incoming { call, replaces, offer, invite } => {
                let label = invite.named(LABEL).map(|label| String::from_utf8_lossy(label).into_owned());
                let label = label.unwrap_or_else(|| {
                    self.problems.push(format!("an INVITE without {LABEL}"));
                    String::new()
                });
                let is_main = self.known.is_empty();
                let replaces = replaces.is_some();
                self.known.insert(call, Known { label, offer, replaces, is_main, ..Known::default() });
                self.schedule_step(call, 0);
            }
            Event::Progress { preview, .. } => {
                if let Some(preview) = preview {
                    read(&preview);
                }
            }
            Event::Established { call, .. } => {
                let Some(known) = self.known.get(&call) else { return };
                if let Some(transferred) = known.consults_for {
                    let think = self.think();
                    self.later(think, Todo::Refer { call: transferred, consultation: call });
                } else if known.is_main {
                    for (after, act) in self.plan.acts.clone() {
                        self.later(Duration::from_millis(after), Todo::Act { call, act, attempt: 0 });
                    }
                }
            }
            Event::Offered { call, fork, sdp, .. } => {
                let refuse = self.dice.chance(self.plan.refuses);
                let think = self.think();
                let turn = self.next_turn(call);
                self.later(think, Todo::Answer { call, fork, offer: sdp, refuse, turn });
            }
            Event::OfferWanted { call, fork } => {
                let refuse = self.dice.chance(self.plan.refuses);
                let think = self.think();
                let turn = self.next_turn(call);
                self.later(think, Todo::GiveOffer { call, fork, refuse, turn });
            }
            Event::Answered { call, fork, sdp } => {
                self.check_answer(call, &sdp);
                let known = self.known.entry(call).or_default();
                if self.updates_early
                    && !known.has_updated
                    && !self.agent.calls().any(|(number, is_up)| number == call && is_up)
                {
                    known.has_updated = true;
                    let think = self.think();
                    self.later(think, Todo::Update { call, fork });
                }
            }
            Event::TransferRequested { call, .. } => {
                let think = self.think();
                self.later(think, Todo::Transfer { call });
            }
            Event::TransferProgress { call, status, is_last } => {
                if is_last && (200..300).contains(&status) {
                    self.later(Duration::from_millis(20), Todo::HangUp { call });
                } else if is_last {
                    self.end_consultation(call);
                }
            }
            Event::Done { call, method: "REFER", status } if status >= 300 => self.end_consultation(call),
            Event::Ended { call, ending, .. } => {
                let label = self.known.get(&call).map(|known| known.label.clone()).unwrap_or_default();
                self.endings.push((label, call, ending));
                self.end_consultation(call);
            }
            Event::Withdrawn { call, .. } => {
                self.next_turn(call);
            }
            Event::Info { .. }
            | Event::Done { .. }
            | Event::Refused { .. }
            | Event::Registered { .. }
            | Event::NotRegistered { .. } => {}
        }
        let _ = now;
    }

    fn next_turn(&mut self, call: CallNumber) -> u32 {
        let known = self.known.entry(call).or_default();
        known.turn += 1;
        known.turn
    }

    /// A transfer came to nothing: the third phone is let go.
    fn end_consultation(&mut self, call: CallNumber) {
        let consultations: Vec<CallNumber> = self
            .known
            .iter()
            .filter(|(_, known)| known.consults_for == Some(call))
            .map(|(number, _)| *number)
            .collect();
        for call in consultations {
            self.later(Duration::from_millis(20), Todo::HangUp { call });
        }
    }

    fn schedule_step(&mut self, call: CallNumber, index: usize) {
        if self.known.get(&call).is_some_and(|known| known.replaces) {
            // Whoever is asked to replace a call takes it at once.
            self.later(Duration::from_millis(30), Todo::Step { call, index: usize::MAX, attempt: 0 });
        } else if let Some((after, _)) = self.plan.steps.get(index) {
            self.later(Duration::from_millis(*after), Todo::Step { call, index, attempt: 0 });
        }
    }

    pub(crate) fn carry_out(&mut self, todo: Todo, now: Now) {
        match todo {
            Todo::Step { call, index, attempt } => self.step(call, index, attempt, now),
            Todo::Answer { call, turn, .. } | Todo::GiveOffer { call, turn, .. }
                if self.known.get(&call).is_none_or(|known| known.turn != turn) => {}
            Todo::Answer { call, fork, offer, refuse, .. } => {
                let answer = if refuse { None } else { self.describer.answer(&offer) };
                let _ = match answer {
                    Some(answer) => self.agent.answer(call, fork, answer, now),
                    None => self.agent.refuse_offer(call, fork, self.plan.refusal, now),
                };
            }
            Todo::GiveOffer { call, fork, refuse, .. } => {
                let agreed = self.agent.agreed(call).cloned();
                let _ = if refuse {
                    self.agent.refuse_offer(call, fork, self.plan.refusal, now)
                } else {
                    let offer = self.describer.offer(agreed.as_ref(), Change::Same);
                    self.agent.offer(call, fork, offer, now)
                };
            }
            Todo::Act { call, act, attempt } => self.act(call, act, attempt, now),
            Todo::CancelReinvite { call } => drop(self.agent.cancel_reinvite(call, now)),
            Todo::Transfer { call } => {
                if self.plan.refuses_transfer {
                    let _ = self.agent.refuse_transfer(call, 603, now);
                } else {
                    let offers = self.dice.chance(80);
                    let invite = self.invite(offers);
                    let label = invite.headers[0].1.clone();
                    if let Ok(call) = self.agent.accept_transfer(call, invite, now) {
                        if self.dice.chance(self.plan.gives_up_transfer) {
                            let after = Duration::from_millis(self.dice.below(600));
                            self.later(after, Todo::HangUp { call });
                        }
                        self.known.insert(call, Known { label, ..Known::default() });
                    }
                }
            }
            Todo::Update { call, fork } => {
                let offer = self.describer.offer(None, Change::Resume);
                let _ = self.agent.update(call, fork, Some(offer), now);
            }
            Todo::Refer { call, consultation } => {
                if self.agent.refer_to_call(call, consultation, now).is_err() {
                    self.later(Duration::from_millis(20), Todo::HangUp { call: consultation });
                }
            }
            Todo::HangUp { call } => drop(self.agent.hang_up(call, now)),
        }
    }

    fn step(&mut self, call: CallNumber, index: usize, attempt: u8, now: Now) {
        let Some(known) = self.known.get(&call) else { return };
        let offer = known.offer.clone();
        let step = match self.plan.steps.get(index) {
            _ if known.replaces && self.dice.chance(self.plan.refuses_replacement) => Step::Refuse(486),
            _ if known.replaces => Step::Accept,
            Some((_, step)) => *step,
            None => return,
        };
        let describe = |describer: &mut Describer| match &offer {
            Some(offer) => describer.answer(offer),
            None => Some(describer.offer(None, Change::Same)),
        };
        let result = match step {
            Step::Ring { status, describes, reliable } => {
                let preview = offer.as_ref().filter(|_| !reliable && self.plan.changes_its_mind);
                let sdp = describes.then(|| match preview {
                    Some(offer) => self.describer.announcement(offer),
                    None => describe(&mut self.describer),
                });
                let sdp = sdp.flatten().filter(|_| reliable || offer.is_some());
                let ring = if reliable { UserAgent::ring_reliably } else { UserAgent::ring };
                match ring(&mut self.agent, call, status, sdp.clone(), now) {
                    Err(Misuse::NotSupported) => {
                        let sdp = sdp.filter(|_| offer.is_some());
                        self.agent.ring(call, status, sdp, now)
                    }
                    Err(Misuse::OutOfTurn) => ring(&mut self.agent, call, status, None, now),
                    other => other,
                }
            }
            Step::Accept => match describe(&mut self.describer) {
                Some(sdp) => self.agent.accept(call, Some(sdp), now),
                None => self.agent.refuse(call, 488, now),
            },
            Step::Refuse(status) => self.agent.refuse(call, status, now),
            Step::Redirect => self.agent.redirect(call, &[format!("sip:{THIRD}@{DOMAIN}").as_bytes()], now),
        };
        match result {
            // A PRACK is awaited.
            Err(Misuse::NotNow | Misuse::OutOfTurn) if attempt < 200 && self.is_alive(call) => {
                self.later(Duration::from_millis(200), Todo::Step { call, index, attempt: attempt + 1 });
            }
            _ if index < self.plan.steps.len() => self.schedule_step(call, index + 1),
            _ => {}
        }
    }

    fn act(&mut self, call: CallNumber, act: Act, attempt: u8, now: Now) {
        let agreed = self.agent.agreed(call).cloned();
        let mut offer =
            |change: Option<Change>| change.map(|change| self.describer.offer(agreed.as_ref(), change));
        let result = match act {
            Act::Reinvite { change, .. } => {
                let offer = offer(change);
                self.agent.reinvite(call, offer, now)
            }
            Act::Update { change } => {
                let offer = offer(change);
                self.agent.update(call, Fork(0), offer, now)
            }
            Act::Info => {
                self.agent.info(call, b"application/dtmf-relay", Bytes::from_static(b"Signal=1\r\n"), now)
            }
            Act::Blind => self.agent.refer(call, format!("sip:{THIRD}@{DOMAIN}").as_bytes(), now),
            Act::Attended if self.is_alive(call) => {
                let invite = self.invite(true);
                let label = invite.headers[0].1.clone();
                let number = self.agent.call(format!("sip:{THIRD}@{DOMAIN}").as_bytes(), invite, now);
                let known = Known { label, consults_for: Some(call), ..Known::default() };
                self.known.insert(number, known);
                Ok(())
            }
            Act::Attended => Ok(()),
            Act::Bye => self.agent.hang_up(call, now),
        };
        match (result, act) {
            (Ok(()), Act::Reinvite { cancel_after: Some(after), .. }) => {
                self.later(Duration::from_millis(after), Todo::CancelReinvite { call });
            }
            (Err(Misuse::NotNow | Misuse::OutOfTurn), _) if attempt < 20 && self.is_alive(call) => {
                self.later(Duration::from_millis(150), Todo::Act { call, act, attempt: attempt + 1 });
            }
            _ => {}
        }
    }

    /// An answer has the offer's m-lines, and no codec that was not offered.
    fn check_answer(&mut self, call: CallNumber, answer: &[u8]) {
        let Some(agreed) = self.agent.agreed(call) else { return };
        let (offered, answered) = (read(&agreed.local), read(answer));
        if offered.len() != answered.len() {
            self.problems.push(format!("{} m-lines answered of {}", answered.len(), offered.len()));
        }
        for (offered, answered) in offered.iter().zip(&answered) {
            let is_subset = answered.codecs.iter().all(|codec| offered.codecs.contains(codec));
            if offered.kind != answered.kind || (!answered.is_refused() && !is_subset) {
                self.problems.push(format!("{answered:?} answers {offered:?}"));
            }
        }
    }
}
