//! Two phones that speak ICE are introduced to each other: one end-to-end offer and answer, whose ICE lines pass, and the way
//! back to our own agents.

mod seen;

use std::time::Duration;

use bytes::Bytes;
use media_wire::sdp::ice::Spoken;
use media_wire::sdp::{Description, Place};
use seam::path::{Constraint, PathEntry, Stay};
use seam::{Described, Endpoint, Event, ExchangeId, Refusal, Renegotiated, Side, Summary};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::account::mark;
use crate::clock::{Shift, Timed, timed};
use crate::legs::{Answer, Answered, Leg, Offer, Session};
use crate::motion::scene::Scene;
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
use crate::policy::ReleasePolicy;
use crate::stream::Streams;

/// How far an introduction is.
#[derive(Debug, Serialize, Deserialize)]
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
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Passed {
    /// Who was asked.
    first: Side,
    /// Names it in its answer.
    number: u32,
    exchange: ExchangeId,
}

/// A party on its way back to our agent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
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

impl Timed for Homeward {
    fn shift(&mut self, by: Shift) {
        if let Self::Wanted { at, .. } = self {
            at.shift(by);
        }
    }
}

/// Of one session.
#[derive(Debug, Serialize, Deserialize)]
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

timed!(Introduction { machine, homeward, shell; ends, lines, step, has_passed });

impl Introduction {
    pub(crate) fn endpoints(&self) -> [Endpoint; 2] {
        self.ends
    }

    pub(crate) fn lines_mut(&mut self) -> &mut Lines {
        &mut self.lines
    }

    pub(crate) fn lines(&self) -> &Lines {
        &self.lines
    }

    /// Whether a phone has not answered yet what we wished of it.
    pub(crate) fn has_asked(&self) -> bool {
        let is_asked = |homeward: &Homeward| matches!(homeward, Homeward::Asked { .. });
        !matches!(self.step, Step::Idle) || self.homeward.iter().any(is_asked)
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

/// What an introduction needs next of the worker, by whom all offers and answers go through.
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    /// The offer of one phone is for the other.
    Offer(Handover, Offer),
    /// So is the answer to it.
    Answer(Handover, Answer),
    /// The other does not take part, for this reason.
    Alone(Handover, Asked),
}

/// An offer on its way, and what it says of ICE.
#[derive(Debug)]
pub(crate) struct Handover {
    passed: Passed,
    spoken: Spoken,
}

impl Handover {
    pub(crate) fn exchange(&self) -> ExchangeId {
        self.passed.exchange
    }

    /// What its author gets.
    pub(crate) fn answer(&self, description: Result<Described, Refusal>) -> Event {
        Event::Answer { number: self.passed.number, description }
    }
}

/// Who could be introduced to each other, and in which m-lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Acquaintance {
    ends: [Endpoint; 2],
    lines: Lines,
}

impl Acquaintance {
    pub(crate) fn of(session: &Session, streams: &Streams) -> Option<Self> {
        // What is led back to us has our own agents on both sides of the leg between.
        let is_joined = session.legs.iter().any(|(_, leg)| leg.is_joined);
        let ends = parties(session).filter(|_| !is_joined)?;
        let [Some(one), Some(other)] = ends.map(|end| session.leg(end)) else { return None };
        Some(Self { ends, lines: lines_between([one, other], streams, false)? })
    }
}

/// How it goes on after a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It is looked at again when that is due.
    GoesOn,
    /// They cannot be introduced to each other.
    GivenUp,
}

impl Introduction {
    /// If ICE is how these two may leave the relay.
    pub(crate) fn begin(
        id: u64,
        found: Acquaintance,
        session: &mut Session,
        policy: &ReleasePolicy,
        now: Duration,
    ) -> Option<Self> {
        let Acquaintance { ends, lines } = found;
        if session.are_strangers || !speak_ice(session, ends, &lines) {
            return None;
        }
        let [Some(one), Some(other)] = ends.map(|end| session.leg(end).map(|leg| &leg.party)) else {
            return None;
        };
        let constraint = constraint(session, ends, policy)?;
        // The other must not learn where a private party is, and a candidate says so: it stays, as the ordinary machine knows.
        if one.is_private || other.is_private {
            return None;
        }
        let may_offer = [one, other].map(|party| Temperament::of(&party.product).restarts_in_offers);
        if may_offer == [false, false] {
            session.are_strangers = true;
            return None;
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
        Some(Self {
            machine,
            ends,
            lines,
            step: Step::Idle,
            homeward: [Homeward::No; 2],
            has_passed: false,
            shell: Shell::after(wishes, told, now).covered(cover),
        })
    }

    /// Whether it is between these, in these m-lines.
    pub(crate) fn is_of(&self, found: &Acquaintance) -> bool {
        self.ends == found.ends && self.lines == found.lines
    }

    /// An exchange of their own has been answered.
    pub(crate) fn renegotiated(&mut self, session: &mut Session, streams: &mut Streams, now: Duration) {
        self.account(session, streams, now);
        self.machine.renegotiated(self.has_passed, !session.is_held, now);
    }

    /// The two are no more what they were; what happened stays told.
    pub(crate) fn part(mut self, id: u64, scene: &mut Scene<'_>) {
        let now = scene.now;
        let Some(session) = scene.sessions.get_mut(&id) else { return };
        self.account(session, scene.streams, now);
        session.away.is_away = false;
        mark(scene.streams, self.lines.iter().flat_map(|(_, pair)| *pair), false);
        self.tell(id, scene.events, now);
        let Self { machine, shell, .. } = self;
        let mut timeline = machine.into_timeline(now);
        scene.events.extend(timeline.new_reading(now).map(|reading| (id, reading.into())));
        session.past_moves = Some(shell.past(timeline));
    }

    /// What policy says of it now.
    pub(crate) fn heed(&mut self, session: Option<&Session>, policy: Option<&ReleasePolicy>, now: Duration) {
        let said = policy.and_then(|policy| constraint(session?, self.ends, policy));
        self.machine.constrain(said.unwrap_or(Constraint::MustAnchor), now);
    }

    /// Looks at it: its time has come.
    pub(crate) fn look(&mut self, id: u64, scene: &mut Scene<'_>) -> Outlook {
        let now = scene.now;
        self.see(scene.streams, now);
        let session = scene.sessions.get(&id);
        let pair = || {
            let [one, other] = self.ends.map(|end| session?.leg(end));
            pair_of([one?, other?], &self.lines, scene.streams)
        };
        if self.shell.meets(pair, scene.memory, now) {
            self.machine.keep(Stay::Remembered, now);
        }
        if self.shell.is_cover_due(now) {
            self.machine.constrain(Constraint::MustAnchor, now);
        }
        if let Some(session) = scene.sessions.get_mut(&id) {
            self.account(session, scene.streams, now);
        }
        self.machine.handle_timeout(now);
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Ask(first) => self.ask_for_offer(id, first, scene),
                Output::Home => {
                    self.homeward = [Homeward::Wanted { at: now, refusals: Refusals::default() }; 2];
                }
            }
        }
        self.ask_home(id, scene);
        let rest = scene.rest();
        self.shell.remember(self.machine.timeline(), scene.memory, rest, now);
        self.tell(id, scene.events, now);
        self.shell.due = self.machine.poll_timeout(now);
        if self.machine.has_given_up() { Outlook::GivenUp } else { Outlook::GoesOn }
    }

    fn ask_for_offer(&mut self, id: u64, first: Side, scene: &mut Scene<'_>) {
        if scene.is_busy(id) {
            return self.machine.asked(Asked::Superseded, scene.now);
        }
        let wish = self.shell.wish();
        self.step = Step::Asked { wish, first };
        scene.events.push_back((
            id,
            Event::Renegotiate { wish, legs: vec![(self.ends[first], None)], deadline: LONGEST_RINGING },
        ));
    }

    /// Restarts whoever is to come back.
    fn ask_home(&mut self, id: u64, scene: &mut Scene<'_>) {
        if scene.is_busy(id) {
            return;
        }
        let now = scene.now;
        for party in Side::BOTH {
            let Homeward::Wanted { at, refusals } = self.homeward[party] else { continue };
            if now < at {
                continue;
            }
            let endpoint = self.ends[party];
            let session = scene.sessions.get_mut(&id);
            let Some(leg) = session.and_then(|session| session.leg_mut(endpoint)) else { return };
            if let Some(agent) = &mut leg.ice {
                agent.restart(true);
            }
            let Some(sdp) = leg.description_of_ours(scene.streams, scene.cname) else {
                self.homeward[party] = Homeward::No;
                self.machine.came_home(party, now);
                continue;
            };
            let wish = self.shell.wish();
            self.homeward[party] = Homeward::Asked { wish, refusals };
            scene.events.push_back((
                id,
                Event::Renegotiate { wish, legs: vec![(endpoint, Some(sdp))], deadline: LONGEST_RINGING },
            ));
        }
    }

    /// What became of a wish.
    pub(crate) fn answered(&mut self, id: u64, answered: Answered, scene: &mut Scene<'_>) -> Next {
        match self.step {
            Step::Asked { wish, first } if wish == answered.wish => {
                self.asked(id, first, answered.outcome, scene)
            }
            Step::Handed { wish, offer } if wish == answered.wish => {
                self.handed(id, offer, answered.outcome, scene)
            }
            _ => {
                self.went_home(id, answered, scene);
                Next::Nothing
            }
        }
    }

    /// The phone that was asked for an offer has made one, or has not.
    fn asked(&mut self, id: u64, first: Side, outcome: Renegotiated, scene: &mut Scene<'_>) -> Next {
        let now = scene.now;
        self.step = Step::Idle;
        let (sdp, number) = match outcome {
            Renegotiated::Offered { sdp, number } => (sdp, number),
            Renegotiated::Superseded => {
                self.machine.asked(Asked::Superseded, now);
                return Next::Nothing;
            }
            Renegotiated::Accepted(_) | Renegotiated::Refused(_) => {
                self.machine.asked(Asked::Refused, now);
                return Next::Nothing;
            }
        };
        let spoken = read_ice(&sdp);
        let session = scene.sessions.get(&id);
        if !session.is_some_and(|session| self.has_restarted(session, first, &spoken)) {
            let description = Err(Refusal::NotAcceptable);
            scene.events.push_back((id, Event::Answer { number, description }));
            self.machine.asked(Asked::KeptCredentials { party: first, in_offer: true }, now);
            return Next::Nothing;
        }
        let exchange = ExchangeId(u32::MAX.wrapping_sub(self.shell.wishes()));
        let wish = self.shell.wish();
        let passed = Passed { first, number, exchange };
        self.step = Step::Handed { wish, offer: passed };
        let (author, other) = (self.ends[first], self.ends[!first]);
        let party = |end| Some((end, session?.leg(end)?.party.clone()));
        let (Some(from), Some(to)) = (party(author), party(other)) else { return Next::Nothing };
        Next::Offer(Handover { passed, spoken }, Offer { exchange, from, to, sdp })
    }

    /// The other phone is to be offered it.
    pub(crate) fn hand(&self, Handover { passed, .. }: &Handover, described: Described) -> Option<Event> {
        let Step::Handed { wish, .. } = self.step else { return None };
        let legs = vec![(self.ends[!passed.first], Some(described.sdp))];
        Some(Event::Renegotiate { wish, legs, deadline: LONGEST_RINGING })
    }

    /// The other phone has answered it, or has not.
    fn handed(&self, id: u64, passed: Passed, outcome: Renegotiated, scene: &Scene<'_>) -> Next {
        let Passed { first, exchange, .. } = passed;
        let (author, other) = (self.ends[first], self.ends[!first]);
        let Some(session) = scene.sessions.get(&id) else { return Next::Nothing };
        let open = session.exchanges.iter().find(|open| open.id == exchange);
        let Some(open) = open else { return Next::Nothing };
        let handover = Handover { passed, spoken: open.ice.clone() };
        let sdp = match outcome {
            Renegotiated::Accepted(sdp) => sdp,
            Renegotiated::Superseded => return Next::Alone(handover, Asked::Superseded),
            Renegotiated::Refused(_) | Renegotiated::Offered { .. } => {
                return Next::Alone(handover, Asked::Refused);
            }
        };
        if !self.has_restarted(session, !first, &read_ice(&sdp)) {
            return Next::Alone(handover, Asked::KeptCredentials { party: !first, in_offer: false });
        }
        let does_fit = Description::parse(sdp.clone()).is_ok_and(|answer| {
            fits(&open.media, &answer.media) && answer.media.iter().any(|one| one.port != 0)
        });
        let party = session.leg(other).filter(|_| does_fit).map(|leg| leg.party.clone());
        match party {
            Some(party) => Next::Answer(handover, Answer { exchange, from: (other, party), to: author, sdp }),
            None => Next::Alone(handover, Asked::Refused),
        }
    }

    /// Each has the other's lines.
    pub(crate) fn introduced(&mut self, streams: &Streams, now: Duration) {
        self.step = Step::Idle;
        self.see(streams, now);
        self.machine.asked(Asked::Introduced, now);
    }

    /// The phone that made an offer has restarted in it, and the other does not take part: our agent does.
    pub(crate) fn answer_alone(&mut self, id: u64, handover: &Handover, why: Asked, scene: &mut Scene<'_>) {
        self.step = Step::Idle;
        self.machine.asked(why, scene.now);
        let session = scene.sessions.get_mut(&id);
        let leg = session.and_then(|session| session.leg_mut(self.ends[handover.passed.first]));
        let sdp = leg.and_then(|leg| {
            if let Some(agent) = &mut leg.ice {
                agent.restart(false);
                agent.agree(handover.spoken.credentials());
            }
            leg.description_of_ours(scene.streams, scene.cname)
        });
        let description =
            sdp.map(|sdp| Described { sdp, summary: Summary::default() }).ok_or(Refusal::Unknown);
        scene.events.push_back((id, handover.answer(description)));
    }

    /// Whether a description of a phone has other credentials than those that it uses with us, on each m-line of ours.
    fn has_restarted(&self, session: &Session, party: Side, spoken: &Spoken) -> bool {
        let agent = session.leg(self.ends[party]).and_then(|leg| leg.ice.as_ref());
        let Some(agent) = agent else { return false };
        self.lines.iter().all(|(index, _)| {
            let new = spoken.line(*index).and_then(|line| line.credentials.as_ref());
            new.is_some() && new != agent.theirs(*index)
        })
    }

    /// A phone that is to come back has answered.
    fn went_home(&mut self, id: u64, answered: Answered, scene: &mut Scene<'_>) {
        let Answered { wish, endpoint, outcome } = answered;
        let now = scene.now;
        let found = Side::BOTH.into_iter().find(|side| self.ends[*side] == endpoint);
        let Some(party) = found else { return };
        let Homeward::Asked { wish: open, refusals } = self.homeward[party] else { return };
        if open != wish {
            return;
        }
        self.homeward[party] = match outcome {
            Renegotiated::Accepted(sdp) => {
                self.take_answer(id, (party, sdp), scene);
                self.machine.came_home(party, now);
                Homeward::No
            }
            Renegotiated::Superseded => Homeward::Wanted { at: now.saturating_add(BUSY), refusals },
            _ if !refusals.and_another().are_enough() => {
                let refusals = refusals.and_another();
                Homeward::Wanted { at: now.saturating_add(AGAIN), refusals }
            }
            _ => {
                self.machine.came_home(party, now);
                Homeward::No
            }
        };
    }

    /// The addresses and credentials of a phone that has restarted with us.
    fn take_answer(&self, id: u64, (party, sdp): (Side, Bytes), scene: &mut Scene<'_>) {
        let Scene { sessions, streams, now, .. } = scene;
        let Ok(answer) = Description::parse(sdp) else { return };
        let spoken = &answer.ice;
        let Some(session) = sessions.get_mut(&id) else { return };
        let ours = session.relay_addresses(streams);
        let Some(leg) = session.leg_mut(self.ends[party]) else { return };
        let signalling = leg.party.signalling.ip();
        match &mut leg.ice {
            Some(agent) if spoken.is_spoken() => agent.agree(spoken.credentials()),
            ice => *ice = None,
        }
        for (index, pair) in &self.lines {
            let Some(media) = answer.media.get(*index).filter(|media| media.port != 0) else { continue };
            if let Some(stream) = streams.get_mut(pair[party]) {
                stream.signal(media, &ours, signalling, *now);
                stream.rtp.doubt(*now);
                stream.rtcp.doubt(*now);
            }
        }
    }

    fn tell(&mut self, id: u64, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        events.extend(self.machine.new_reading(now).map(|reading| (id, reading.into())));
        for (after, entry) in self.shell.news(self.machine.timeline()) {
            events
                .push_back((id, Event::Path(PathEntry { after: *after, entry: *entry, parties: self.ends })));
        }
        self.shell.has_told(self.machine.timeline());
    }
}

impl Leg {
    /// What it has agreed on last, at the relay, with our agent's lines.
    fn description_of_ours(&mut self, streams: &Streams, cname: &str) -> Option<Bytes> {
        let description = Description::parse(self.agreed.clone()?).ok()?;
        let own = self.streams.iter().zip(&description.media);
        let places: SmallVec<[Option<Place>; 2]> = own
            .map(|(stream, media)| {
                let stream = streams.get((*stream)?)?;
                (media.port != 0).then_some(Place::at(stream.ports.address))
            })
            .collect();
        let ice = self.ice_lines(&places, None, true);
        Some(self.write(&description, &places, &ice, cname))
    }
}

/// What a phone's description says of ICE; nothing, if it cannot be read.
fn read_ice(sdp: &Bytes) -> Spoken {
    Description::parse(sdp.clone()).map(|description| description.ice).unwrap_or_default()
}
