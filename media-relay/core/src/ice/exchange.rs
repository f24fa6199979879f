//! Two phones that speak ICE are introduced to each other: one end-to-end offer and answer, whose ICE lines pass, and the way
//! back to our own agents.

mod seen;

use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{Description, Place};
use seam::path::{Constraint, PathEntry, Stay};
use seam::{Described, Endpoint, Event, ExchangeId, Refusal, Renegotiated, Side, Summary};
use smallvec::SmallVec;

use crate::account::mark;
use crate::legs::{Answer, Answered, Offer, Session};
use crate::motion::Motion;
use crate::motion::shell::{AGAIN, BUSY, Refusals, Shell};
use crate::moving::LONGEST_RINGING;
use crate::moving::asked::fits;
use crate::moving::chain::parties;
use crate::moving::cover::Cover;
use crate::moving::scene::{Lines, constraint, lines_between};
use crate::moving::seen::pair_of;
use crate::path::Outset;
use crate::path::end_to_end::{Asked, EndToEnd, Output};
use crate::path::phone::Temperament;
use crate::ports::Turn;
use crate::worker::Worker;

/// How far an introduction is.
#[derive(Debug)]
enum Step {
    Idle,
    /// This party is asked for an offer by this wish.
    Asked {
        wish: u32,
        first: Side,
    },
    /// The other is offered it by this wish.
    Handed {
        wish: u32,
        offer: Passed,
    },
}

/// An offer that a phone was asked for.
#[derive(Debug, Clone, Copy)]
struct Passed {
    /// Who was asked.
    first: Side,
    /// Names it in its answer.
    number: u32,
    exchange: ExchangeId,
}

/// A party on its way back to our agent.
#[derive(Debug, Clone, Copy)]
enum Homeward {
    No,
    /// To be asked then, after so many refusals.
    Wanted {
        at: Duration,
        refusals: Refusals,
    },
    Asked {
        wish: u32,
        refusals: Refusals,
    },
}

/// Of one session.
#[derive(Debug)]
pub(crate) struct Introduction {
    pub(crate) machine: EndToEnd,
    pub(crate) ends: [Endpoint; 2],
    lines: Lines,
    step: Step,
    homeward: [Homeward; 2],
    /// Whether the latest exchange left each phone with the other's lines.
    pub(super) has_passed: bool,
    pub(crate) shell: Shell,
}

impl Introduction {
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.ends
    }

    /// Whether ICE lines pass between the phones, and their checks.
    pub(crate) fn passes(&self) -> bool {
        self.machine.are_introduced() || matches!(self.step, Step::Handed { .. })
    }
}

/// Both phones speak ICE with us, on each m-line that could move.
fn speak_ice(session: &Session, ends: [Endpoint; 2], lines: &Lines) -> bool {
    ends.iter().all(|end| {
        let agent = session.leg(*end).and_then(|leg| leg.ice.as_ref());
        agent.is_some_and(|agent| lines.iter().all(|(index, _)| agent.theirs(*index).is_some()))
    })
}

impl Worker {
    /// After an answer: true if ICE is how these two may leave the relay.
    pub(crate) fn introduce(&mut self, id: u64, now: Duration) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        // What is led back to us has our own agents on both sides of the leg between.
        let is_joined = session.legs.iter().any(|(_, leg)| leg.is_joined);
        let found = parties(session).filter(|_| !is_joined).and_then(|ends| {
            let [Some(one), Some(other)] = ends.map(|end| session.leg(end)) else { return None };
            Some((ends, lines_between([one, other], &self.streams, false)?))
        });
        if let Some(introduction) = self.motions.introduction_mut(id) {
            if found
                .as_ref()
                .is_some_and(|(ends, lines)| *ends == introduction.ends && *lines == introduction.lines)
            {
                if let Some(mut introduction) = self.motions.take_introduction(id) {
                    introduction.account(session, &mut self.streams, now);
                    introduction.machine.renegotiated(introduction.has_passed, !session.is_held, now);
                    self.motions.put(id, Motion::Ice(introduction));
                }
                self.attend(id, now);
                return true;
            }
            self.part(id, now);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let (Some((ends, lines)), Some(policy)) = (found, &self.settings.release) else { return false };
        if self.motions.moving(id).is_some() || session.are_strangers || !speak_ice(session, ends, &lines) {
            return false;
        }
        let parties = ends.map(|end| session.leg(end).map(|leg| leg.party.clone()));
        let [Some(one), Some(other)] = parties else { return false };
        let Some(constraint) = constraint(session, ends, policy) else { return false };
        // The other must not learn where a private party is, and a candidate says so: it stays, as the ordinary machine knows.
        if one.is_private || other.is_private {
            return false;
        }
        let may_offer = [&one, &other].map(|party| Temperament::of(&party.product).restarts_in_offers);
        if may_offer == [false, false] {
            session.are_strangers = true;
            return false;
        }
        let past = session.past_moves.take();
        let (wishes, told) = past.as_ref().map_or((0, 0), |past| (past.wishes, past.told));
        let timeline = past.map(|past| past.timeline);
        let outset = Outset { settings: policy.settings, constraint, lines: lines.len(), past: timeline };
        let mut machine = EndToEnd::new(outset, may_offer, now);
        let cover = match Cover::of(id, policy.settings.cover_percent) {
            Cover::None => None,
            Cover::Stays => {
                machine.keep(Stay::Policy, now);
                None
            }
            Cover::ComesBack(after) => Some(now.saturating_add(after)),
        };
        let homeward = [Homeward::No; 2];
        let introduction = Introduction {
            machine,
            ends,
            lines,
            step: Step::Idle,
            homeward,
            has_passed: false,
            shell: Shell::after(wishes, told, now).covered(cover),
        };
        self.motions.put(id, Motion::Ice(Box::new(introduction)));
        self.attend(id, now);
        true
    }

    /// The two are no more what they were; what happened stays told.
    pub(crate) fn part(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut introduction) = self.motions.take_introduction(id) else { return };
        introduction.account(session, &mut self.streams, now);
        session.away.is_away = false;
        mark(&mut self.streams, introduction.lines.iter().flat_map(|(_, pair)| *pair), false);
        introduction.tell(id, &mut self.events, now);
        let Introduction { machine, shell, .. } = *introduction;
        let mut timeline = machine.into_timeline(now);
        self.events.extend(timeline.new_reading(now).map(|reading| (id, reading.into())));
        session.past_moves = Some(shell.past(timeline));
    }

    /// Looks at it: its time has come.
    pub(crate) fn look_at_introduction(&mut self, id: u64, now: Duration) {
        let Some(mut introduction) = self.taken(id) else { return };
        introduction.see(&self.streams, now);
        let session = self.sessions.get(&id);
        let pair = || {
            let [one, other] = introduction.ends.map(|end| session?.leg(end));
            pair_of([one?, other?], &introduction.lines, &self.streams)
        };
        if introduction.shell.meets(pair, &self.memory, now) {
            introduction.machine.keep(Stay::Remembered, now);
        }
        if introduction.shell.is_cover_due(now) {
            introduction.machine.constrain(Constraint::MustAnchor, now);
        }
        if let Some(session) = self.sessions.get_mut(&id) {
            introduction.account(session, &mut self.streams, now);
        }
        introduction.machine.handle_timeout(now);
        while let Some(output) = introduction.machine.poll_output() {
            match output {
                Output::Ask(first) => self.ask_for_offer(id, &mut introduction, first, now),
                Output::Home => {
                    introduction.homeward = [Homeward::Wanted { at: now, refusals: Refusals::default() }; 2];
                }
            }
        }
        self.ask_home(id, &mut introduction, now);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        introduction.shell.remember(introduction.machine.timeline(), &mut self.memory, span, now);
        introduction.tell(id, &mut self.events, now);
        introduction.shell.due = introduction.machine.poll_timeout(now);
        self.looks.push(std::cmp::Reverse((introduction.shell.due, id)));
        let has_given_up = introduction.machine.has_given_up();
        self.put_back(id, introduction);
        if has_given_up {
            self.part(id, now);
            if let Some(session) = self.sessions.get_mut(&id) {
                session.are_strangers = true;
            }
            self.agreed(id, now);
        }
    }

    fn taken(&mut self, id: u64) -> Option<Box<Introduction>> {
        self.motions.take_introduction(id)
    }

    fn put_back(&mut self, id: u64, introduction: Box<Introduction>) {
        self.motions.put(id, Motion::Ice(introduction));
    }

    /// Whether an offer of a party is open: until it is answered nobody else may offer (RFC 3264 §4).
    fn is_busy(&self, id: u64) -> bool {
        let session = self.sessions.get(&id);
        session
            .is_none_or(|session| session.exchanges.iter().any(|exchange| exchange.id != ExchangeId::INITIAL))
    }

    fn ask_for_offer(&mut self, id: u64, introduction: &mut Introduction, first: Side, now: Duration) {
        if self.is_busy(id) {
            return introduction.machine.asked(Asked::Superseded, now);
        }
        let wish = introduction.shell.wish();
        introduction.step = Step::Asked { wish, first };
        self.events.push_back((
            id,
            Event::Renegotiate {
                wish,
                legs: vec![(introduction.ends[first], None)],
                deadline: LONGEST_RINGING,
            },
        ));
    }

    /// Restarts whoever is to come back.
    fn ask_home(&mut self, id: u64, introduction: &mut Introduction, now: Duration) {
        if self.is_busy(id) {
            return;
        }
        for party in Side::BOTH {
            let Homeward::Wanted { at, refusals } = introduction.homeward[party] else { continue };
            if now < at {
                continue;
            }
            let endpoint = introduction.ends[party];
            let Some(session) = self.sessions.get_mut(&id) else { return };
            let Some(leg) = session.leg_mut(endpoint) else { return };
            if let Some(agent) = &mut leg.ice {
                agent.restart(true);
            }
            let Some(sdp) = self.description_of_ours(id, endpoint) else {
                introduction.homeward[party] = Homeward::No;
                introduction.machine.came_home(party, now);
                continue;
            };
            let wish = introduction.shell.wish();
            introduction.homeward[party] = Homeward::Asked { wish, refusals };
            self.events.push_back((
                id,
                Event::Renegotiate { wish, legs: vec![(endpoint, Some(sdp))], deadline: LONGEST_RINGING },
            ));
        }
    }

    /// What a leg has agreed on last, at the relay, with our agent's lines.
    fn description_of_ours(&mut self, id: u64, endpoint: Endpoint) -> Option<Bytes> {
        let leg = self.sessions.get_mut(&id)?.leg_mut(endpoint)?;
        let description = Description::parse(leg.agreed.clone()?).ok()?;
        let streams = leg.streams.iter().zip(&description.media);
        let places: SmallVec<[Option<Place>; 2]> = streams
            .map(|(stream, media)| {
                let stream = self.streams.get((*stream)?)?;
                (media.port != 0).then_some(Place::at(stream.ports.address))
            })
            .collect();
        let ice = leg.ice_lines(&places, None, true);
        Some(leg.write(&description, &places, &ice, &self.cname))
    }

    /// What became of a wish; handed back if it was none of an introduction.
    pub(crate) fn acquaint(&mut self, id: u64, answered: Answered, turn: &mut Turn<'_>) -> Option<Answered> {
        let introduction = self.motions.introduction(id);
        let Some(introduction) = introduction else { return Some(answered) };
        match introduction.step {
            Step::Asked { wish, first } if wish == answered.wish => {
                self.asked(id, first, answered.outcome, turn);
            }
            Step::Handed { wish, offer } if wish == answered.wish => {
                self.handed(id, offer, answered.outcome, turn);
            }
            _ => self.went_home(id, answered, turn.now),
        }
        self.attend(id, turn.now);
        self.schedule_checks(id);
        None
    }

    /// The phone that was asked for an offer has made one, or has not.
    fn asked(&mut self, id: u64, first: Side, outcome: Renegotiated, turn: &mut Turn<'_>) {
        let now = turn.now;
        let Some(mut introduction) = self.taken(id) else { return };
        introduction.step = Step::Idle;
        let (sdp, number) = match outcome {
            Renegotiated::Offered { sdp, number } => (sdp, number),
            Renegotiated::Superseded => {
                introduction.machine.asked(Asked::Superseded, now);
                return self.put_back(id, introduction);
            }
            Renegotiated::Accepted(_) | Renegotiated::Refused(_) => {
                introduction.machine.asked(Asked::Refused, now);
                return self.put_back(id, introduction);
            }
        };
        let (author, other) = (introduction.ends[first], introduction.ends[!first]);
        let spoken = read_ice(&sdp);
        if !self.has_restarted(id, author, &introduction.lines, &spoken) {
            let description = Err(Refusal::NotAcceptable);
            self.events.push_back((id, Event::Answer { number, description }));
            let party = first;
            introduction.machine.asked(Asked::KeptCredentials { party, in_offer: true }, now);
            return self.put_back(id, introduction);
        }
        let exchange = ExchangeId(u32::MAX.wrapping_sub(introduction.shell.wishes()));
        let wish = introduction.shell.wish();
        let offer = Passed { first, number, exchange };
        introduction.step = Step::Handed { wish, offer };
        self.put_back(id, introduction);
        let parties = self.sessions.get(&id).and_then(|session| {
            Some((session.leg(author)?.party.clone(), session.leg(other)?.party.clone()))
        });
        let Some((from, to)) = parties else { return };
        let offered = Offer { exchange, from: (author, from), to: (other, to), sdp };
        match self.offer(id, offered, turn) {
            Ok(described) => {
                let legs = vec![(other, Some(described.sdp))];
                self.events.push_back((id, Event::Renegotiate { wish, legs, deadline: LONGEST_RINGING }));
            }
            Err(_) => self.answer_alone(id, (offer, &spoken), Asked::Refused, now),
        }
    }

    /// The other phone has answered it, or has not.
    fn handed(&mut self, id: u64, offer: Passed, outcome: Renegotiated, turn: &mut Turn<'_>) {
        let (Passed { first, number, exchange }, now) = (offer, turn.now);
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(introduction) = self.motions.introduction(id) else { return };
        let (author, other) = (introduction.ends[first], introduction.ends[!first]);
        let lines = introduction.lines.clone();
        let open = session.exchanges.iter().find(|open| open.id == exchange);
        let Some((spoken, offered)) = open.map(|open| (open.ice.clone(), open.media.clone())) else { return };
        let failure = match outcome {
            Renegotiated::Accepted(sdp) => {
                let does_fit = Description::parse(sdp.clone()).is_ok_and(|answer| {
                    fits(&offered, &answer.media) && answer.media.iter().any(|one| one.port != 0)
                });
                if !self.has_restarted(id, other, &lines, &read_ice(&sdp)) {
                    Asked::KeptCredentials { party: !first, in_offer: false }
                } else if does_fit && let Some(party) = self.party(id, other) {
                    let answer = Answer { exchange, from: (other, party), to: author, sdp };
                    match self.answer(id, answer, turn) {
                        Ok(described) => {
                            let description = Ok(described);
                            self.events.push_back((id, Event::Answer { number, description }));
                            if let Some(mut introduction) = self.taken(id) {
                                introduction.step = Step::Idle;
                                introduction.see(&self.streams, now);
                                introduction.machine.asked(Asked::Introduced, now);
                                self.put_back(id, introduction);
                            }
                            return;
                        }
                        Err(_) => Asked::Refused,
                    }
                } else {
                    Asked::Refused
                }
            }
            Renegotiated::Superseded => Asked::Superseded,
            Renegotiated::Refused(_) | Renegotiated::Offered { .. } => Asked::Refused,
        };
        self.cancel(id, exchange, turn);
        self.answer_alone(id, (offer, &spoken), failure, now);
    }

    fn party(&self, id: u64, endpoint: Endpoint) -> Option<seam::Party> {
        Some(self.sessions.get(&id)?.leg(endpoint)?.party.clone())
    }

    /// The phone that made an offer has restarted in it, and the other does not take part: our agent does.
    fn answer_alone(
        &mut self,
        id: u64,
        (Passed { first, number, .. }, spoken): (Passed, &Spoken),
        why: Asked,
        now: Duration,
    ) {
        let Some(mut introduction) = self.taken(id) else { return };
        introduction.step = Step::Idle;
        introduction.machine.asked(why, now);
        let endpoint = introduction.ends[first];
        self.put_back(id, introduction);
        let session = self.sessions.get_mut(&id);
        if let Some(agent) = session.and_then(|session| session.leg_mut(endpoint)?.ice.as_mut()) {
            agent.restart(false);
            agent.agree(spoken.credentials());
        }
        let description = self
            .description_of_ours(id, endpoint)
            .map(|sdp| Described { sdp, summary: Summary::default() })
            .ok_or(Refusal::Unknown);
        self.events.push_back((id, Event::Answer { number, description }));
    }

    /// Whether a description of a phone has other credentials than those that it uses with us, on each m-line of ours.
    fn has_restarted(&self, id: u64, endpoint: Endpoint, lines: &Lines, spoken: &Spoken) -> bool {
        let leg = self.sessions.get(&id).and_then(|session| session.leg(endpoint));
        let Some(agent) = leg.and_then(|leg| leg.ice.as_ref()) else { return false };
        lines.iter().all(|(index, _)| {
            let new = spoken.line(*index).and_then(|line| line.credentials.as_ref());
            new.is_some() && new != agent.theirs(*index)
        })
    }

    /// A phone that is to come back has answered.
    fn went_home(&mut self, id: u64, answered: Answered, now: Duration) {
        let Answered { wish, endpoint, outcome } = answered;
        let Some(mut introduction) = self.taken(id) else { return };
        let found = Side::BOTH.into_iter().find(|side| introduction.ends[*side] == endpoint);
        if let Some(party) = found
            && let Homeward::Asked { wish: open, refusals } = introduction.homeward[party]
            && open == wish
        {
            introduction.homeward[party] = match outcome {
                Renegotiated::Accepted(sdp) => {
                    self.take_answer(id, &introduction, (party, sdp), now);
                    introduction.machine.came_home(party, now);
                    Homeward::No
                }
                Renegotiated::Superseded => Homeward::Wanted { at: now.saturating_add(BUSY), refusals },
                _ if !refusals.and_another().are_enough() => {
                    let refusals = refusals.and_another();
                    Homeward::Wanted { at: now.saturating_add(AGAIN), refusals }
                }
                _ => {
                    introduction.machine.came_home(party, now);
                    Homeward::No
                }
            };
        }
        self.put_back(id, introduction);
    }

    /// The addresses and credentials of a phone that has restarted with us.
    fn take_answer(
        &mut self,
        id: u64,
        introduction: &Introduction,
        (party, sdp): (Side, Bytes),
        now: Duration,
    ) {
        let endpoint = introduction.ends[party];
        let Ok(answer) = Description::parse(sdp) else { return };
        let spoken = &answer.ice;
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let ours = session.relay_addresses(&self.streams);
        let Some(leg) = session.leg_mut(endpoint) else { return };
        let signalling = leg.party.signalling.ip();
        match &mut leg.ice {
            Some(agent) if spoken.is_spoken() => agent.agree(spoken.credentials()),
            ice => *ice = None,
        }
        for (index, pair) in &introduction.lines {
            let Some(media) = answer.media.get(*index).filter(|media| media.port != 0) else { continue };
            if let Some(stream) = self.streams.get_mut(pair[party]) {
                stream.signal(media, &ours, signalling, now);
                stream.rtp.doubt(now);
                stream.rtcp.doubt(now);
            }
        }
    }
}

impl Introduction {
    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        events.extend(self.machine.new_reading(now).map(|reading| (id, reading.into())));
        for (after, entry) in self.shell.news(self.machine.timeline()) {
            events
                .push_back((id, Event::Path(PathEntry { after: *after, entry: *entry, parties: self.ends })));
        }
        self.shell.has_told(self.machine.timeline());
    }
}

/// What a phone's description says of ICE; nothing, if it cannot be read.
fn read_ice(sdp: &Bytes) -> Spoken {
    Description::parse(sdp.clone()).map(|description| description.ice).unwrap_or_default()
}
