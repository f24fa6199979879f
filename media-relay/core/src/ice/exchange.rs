//! Two phones that speak ICE are introduced to each other: one end-to-end offer and answer, whose ICE lines pass, and the way
//! back to our own agents.

mod seen;

use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{Description, Place};
use seam::path::{Constraint, Entry, PathEntry, Stay};
use seam::{Described, Endpoint, Event, ExchangeId, Refusal, Renegotiated, Side, Summary};
use smallvec::SmallVec;

use crate::account::mark;
use crate::legs::Session;
use crate::moving::asked::fits;
use crate::moving::chain::parties;
use crate::moving::cover::Cover;
use crate::moving::seen::{pair_of, remember};
use crate::moving::{LONGEST_RINGING, Lines, Past, constraint, lines_between};
use crate::path::Outset;
use crate::path::end_to_end::{Asked, EndToEnd, Output};
use crate::path::memory::Pair;
use crate::worker::{Ports, Worker};

/// A phone that refuses to come home is asked so often, and with so much time between.
const HOMEWARD: (u8, Duration) = (5, Duration::from_secs(2));
/// After a wish that could not be sent.
const BUSY: Duration = Duration::from_millis(250);

/// How far an introduction is.
#[derive(Debug)]
enum Step {
    Idle,
    /// This party is asked for an offer by this wish.
    Asked {
        wish: u32,
        first: Side,
    },
    /// The other is offered it by this wish; `number` names the offer in its answer.
    Handed {
        wish: u32,
        first: Side,
        number: u32,
        exchange: ExchangeId,
    },
}

/// A party on its way back to our agent.
#[derive(Debug, Clone, Copy)]
enum Homeward {
    No,
    /// To be asked then, after so many refusals.
    Wanted {
        at: Duration,
        refusals: u8,
    },
    Asked {
        wish: u32,
        refusals: u8,
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
    wishes: u32,
    told: usize,
    /// Under which its outcome is remembered, once both were heard.
    pair: Option<Pair>,
    /// When it comes back for no reason.
    cover: Option<Duration>,
    /// When it is looked at next.
    pub(crate) due: Duration,
}

impl Introduction {
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.ends
    }

    /// Whether ICE lines pass between the phones, and their checks.
    pub(crate) fn passes(&self) -> bool {
        self.machine.are_introduced() || matches!(self.step, Step::Handed { .. })
    }

    fn wish(&mut self) -> u32 {
        self.wishes = self.wishes.wrapping_add(1);
        self.wishes
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
        if let Some(introduction) = &mut session.introduction {
            if found
                .as_ref()
                .is_some_and(|(ends, lines)| *ends == introduction.ends && *lines == introduction.lines)
            {
                if let Some(mut introduction) = session.introduction.take() {
                    introduction.account(session, &mut self.streams, now);
                    introduction.machine.renegotiated(introduction.has_passed, !session.is_held, now);
                    session.introduction = Some(introduction);
                }
                self.attend(id, now);
                return true;
            }
            self.part(id, now);
        }
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let (Some((ends, lines)), Some(policy)) = (found, &self.settings.release) else { return false };
        if session.moving.is_some() || session.are_strangers || !speak_ice(session, ends, &lines) {
            return false;
        }
        let parties = ends.map(|end| session.leg(end).map(|leg| leg.party.clone()));
        let [Some(one), Some(other)] = parties else { return false };
        let Some(constraint) = constraint(session, ends, policy) else { return false };
        // The other must not learn where a private party is, and a candidate says so: it stays, as the ordinary machine knows.
        if one.is_private || other.is_private {
            return false;
        }
        let may_offer = [&one, &other].map(|party| restarts_in_offers(&party.product));
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
            wishes,
            told,
            pair: None,
            cover,
            due: now,
        };
        session.introduction = Some(Box::new(introduction));
        self.attend(id, now);
        true
    }

    /// The two are no more what they were; what happened stays told.
    pub(crate) fn part(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let Some(mut introduction) = session.introduction.take() else { return };
        introduction.account(session, &mut self.streams, now);
        session.is_away = false;
        mark(&mut self.streams, introduction.lines.iter().flat_map(|(_, pair)| *pair), false);
        introduction.tell(id, &mut self.events, now);
        let Introduction { machine, wishes, told, .. } = *introduction;
        let mut timeline = machine.into_timeline(now);
        self.events.extend(timeline.new_reading(now).map(|reading| (id, reading.into())));
        session.past_moves = Some(Past { timeline, wishes, told });
    }

    /// Looks at it: its time has come.
    pub(crate) fn look_at_introduction(&mut self, id: u64, now: Duration) {
        let Some(mut introduction) = self.taken(id) else { return };
        introduction.see(&self.streams, now);
        if introduction.pair.is_none() {
            let session = self.sessions.get(&id);
            let [one, other] = introduction.ends.map(|end| session?.leg(end));
            let legs = one.zip(other).map(|(one, other)| [one, other]);
            introduction.pair = legs.and_then(|legs| pair_of(legs, &introduction.lines, &self.streams));
            if introduction.pair.as_ref().is_some_and(|pair| self.memory.shuns(pair, now)) {
                introduction.machine.keep(Stay::Remembered, now);
            }
        }
        if introduction.cover.take_if(|at| now >= *at).is_some() {
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
                    introduction.homeward = [Homeward::Wanted { at: now, refusals: 0 }; 2];
                }
            }
        }
        self.ask_home(id, &mut introduction, now);
        let span = self.settings.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
        remember(introduction.pair.as_ref(), introduction.news(), &mut self.memory, span, now);
        introduction.tell(id, &mut self.events, now);
        introduction.due = introduction.machine.poll_timeout(now);
        self.looks.push(std::cmp::Reverse((introduction.due, id)));
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
        self.sessions.get_mut(&id)?.introduction.take()
    }

    fn put_back(&mut self, id: u64, introduction: Box<Introduction>) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.introduction = Some(introduction);
        }
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
        let wish = introduction.wish();
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
            let wish = introduction.wish();
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
    pub(crate) fn acquaint(
        &mut self,
        id: u64,
        wish: u32,
        endpoint: Endpoint,
        outcome: Renegotiated,
        now: Duration,
        ports: &mut dyn Ports,
    ) -> Option<Renegotiated> {
        let introduction = self.sessions.get(&id)?.introduction.as_ref();
        let Some(introduction) = introduction else { return Some(outcome) };
        match introduction.step {
            Step::Asked { wish: open, first } if open == wish => self.asked(id, first, outcome, now, ports),
            Step::Handed { wish: open, first, number, exchange } if open == wish => {
                self.handed(id, (first, number, exchange), outcome, now, ports);
            }
            _ => self.went_home(id, wish, endpoint, outcome, now),
        }
        self.attend(id, now);
        self.schedule_checks(id);
        None
    }

    /// The phone that was asked for an offer has made one, or has not.
    fn asked(&mut self, id: u64, first: Side, outcome: Renegotiated, now: Duration, ports: &mut dyn Ports) {
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
        let exchange = ExchangeId(u32::MAX.wrapping_sub(introduction.wishes));
        let wish = introduction.wish();
        introduction.step = Step::Handed { wish, first, number, exchange };
        self.put_back(id, introduction);
        let parties = self.sessions.get(&id).and_then(|session| {
            Some((session.leg(author)?.party.clone(), session.leg(other)?.party.clone()))
        });
        let Some((from, to)) = parties else { return };
        match self.offer(id, exchange, (author, from), (other, to), sdp, now, ports) {
            Ok(described) => {
                let legs = vec![(other, Some(described.sdp))];
                self.events.push_back((id, Event::Renegotiate { wish, legs, deadline: LONGEST_RINGING }));
            }
            Err(_) => self.answer_alone(id, first, number, &spoken, Asked::Refused, now),
        }
    }

    /// The other phone has answered it, or has not.
    fn handed(
        &mut self,
        id: u64,
        (first, number, exchange): (Side, u32, ExchangeId),
        outcome: Renegotiated,
        now: Duration,
        ports: &mut dyn Ports,
    ) {
        let Some(session) = self.sessions.get(&id) else { return };
        let Some(introduction) = &session.introduction else { return };
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
                    match self.answer(id, exchange, (other, party), author, sdp, now, ports) {
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
        self.cancel(id, exchange, now, ports);
        self.answer_alone(id, first, number, &spoken, failure, now);
    }

    fn party(&self, id: u64, endpoint: Endpoint) -> Option<seam::Party> {
        Some(self.sessions.get(&id)?.leg(endpoint)?.party.clone())
    }

    /// The phone that made an offer has restarted in it, and the other does not take part: our agent does.
    fn answer_alone(
        &mut self,
        id: u64,
        first: Side,
        number: u32,
        spoken: &Spoken,
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
    fn went_home(&mut self, id: u64, wish: u32, endpoint: Endpoint, outcome: Renegotiated, now: Duration) {
        let Some(mut introduction) = self.taken(id) else { return };
        let found = Side::BOTH.into_iter().find(|side| introduction.ends[*side] == endpoint);
        if let Some(party) = found
            && let Homeward::Asked { wish: open, refusals } = introduction.homeward[party]
            && open == wish
        {
            introduction.homeward[party] = match outcome {
                Renegotiated::Accepted(sdp) => {
                    self.take_answer(id, endpoint, party, &introduction.lines, sdp, now);
                    introduction.machine.came_home(party, now);
                    Homeward::No
                }
                Renegotiated::Superseded => Homeward::Wanted { at: now.saturating_add(BUSY), refusals },
                _ if refusals.saturating_add(1) < HOMEWARD.0 => Homeward::Wanted {
                    at: now.saturating_add(HOMEWARD.1),
                    refusals: refusals.saturating_add(1),
                },
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
        endpoint: Endpoint,
        party: Side,
        lines: &Lines,
        sdp: Bytes,
        now: Duration,
    ) {
        let Ok(answer) = Description::parse(sdp) else { return };
        let spoken = &answer.ice;
        let ours = self.relay_addresses(id);
        let session = self.sessions.get_mut(&id);
        let Some(leg) = session.and_then(|session| session.leg_mut(endpoint)) else { return };
        let signalling = leg.party.signalling.ip();
        match &mut leg.ice {
            Some(agent) if spoken.is_spoken() => agent.agree(spoken.credentials()),
            ice => *ice = None,
        }
        for (index, pair) in lines {
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
    /// What of the timeline was not told yet.
    fn news(&self) -> &[(Duration, Entry)] {
        self.machine.timeline().entries().get(self.told..).unwrap_or_default()
    }

    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        events.extend(self.machine.new_reading(now).map(|reading| (id, reading.into())));
        for (after, entry) in self.news() {
            events
                .push_back((id, Event::Path(PathEntry { after: *after, entry: *entry, parties: self.ends })));
        }
        self.told = self.machine.timeline().entries().len();
    }
}

/// Measured (docs/release.md): linphone offers the credentials that it has, and changes them when the answer comes, which nobody
/// is told.
fn restarts_in_offers(product: &str) -> bool {
    let product = product.to_ascii_lowercase();
    !product.contains("linphone") && !product.contains("belle-sip")
}

/// What a phone's description says of ICE; nothing, if it cannot be read.
fn read_ice(sdp: &Bytes) -> Spoken {
    Description::parse(sdp.clone()).map(|description| description.ice).unwrap_or_default()
}
