//! One call's release and return: what it is told, and what it asks. When a move is made is in `release/consider.rs`, what
//! reports say of it in `release/reports.rs`, where none are needed in `release/trust.rs`, and what ends it in
//! `release/watch.rs`.

mod consider;
mod reports;
mod settings;
mod stored;
mod trust;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use seam::Side;
use seam::path::{Constraint, Entry, Mapping, PathState, Reason, Stay};
use serde::{Deserialize, Serialize};

use super::direction::{Direction, UNSPOKEN};
use super::lapse::Lapse;
use super::phone::Temperament;
use super::place::{Networks, Place};
use super::sight::Sight;
use super::timeline::{Reading, Timeline};
use crate::reported::Fate;
use crate::side::Track;

pub use settings::{Outset, Settings};

/// What the machine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Move these parties' media to the relay's second address, to see how their NATs map it.
    Learn([bool; 2]),
    /// Re-INVITE both: `targets[party]` is where the party's media is to go. RTCP stays here.
    Move([SocketAddr; 2]),
    /// Re-INVITE these with `a=inactive` at the relay's address: a phone that follows what it hears lets go.
    Hold([bool; 2]),
    /// Re-INVITE these parties to the relay.
    Home([bool; 2]),
    /// Relay the far party's packets to this one, or drop them.
    Relaying {
        /// Which party.
        to: Side,
        /// Or not.
        is_on: bool,
    },
}

/// How a phone took a re-INVITE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// 2xx.
    Accepted,
    /// A refusal, or no answer.
    Refused,
    /// It was not asked: an offer of somebody else was open.
    Superseded,
}

/// A phone that is heard at the relay so long after its 200 to a move has not moved. One that follows what it hears may be
/// pulled back by a late packet, and needs ten of the far phone's to let go again.
const STRAGGLERS: Duration = Duration::from_millis(400);
/// How much later than the other a phone may move.
const SKEW: Duration = Duration::from_millis(150);
/// How often a call is looked at: while it moves, while reports are awaited, while it is direct, and on the relay while
/// nothing can be done.
const TICK: Duration = Duration::from_millis(20);
/// From the last packet that is relayed to a phone that follows what it hears until it is asked to move: a packet that it
/// takes after that would pull it back.
const LEAD: Duration = Duration::from_millis(30);
const LOOK: Duration = Duration::from_millis(100);
const GLANCE: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(1);
/// Phones that follow what they hear, and are not heard at the relay so long after an offer told them to, stayed together.
const CLINGING: Duration = Duration::from_millis(500);
/// So long one that has let go waits for the other, which may be asked once more meanwhile.
const HELD: Duration = Duration::from_millis(250);
/// A report about what was before a phone began its stream anew may come so much later.
const RESTARTING: Duration = Duration::from_secs(4);
/// Reports of one stream nearer together than this are a flood.
const REPORT_SPACING: Duration = Duration::from_millis(50);
/// A try that something stood in the way of is made again so much later.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Party {
    /// Once its RTP was heard.
    place: Option<Place>,
    temperament: Temperament,
    has_lied: bool,
    /// Its latest report could not be true.
    is_doubted: bool,
    /// When it was last told where to send and hear, and took it; and whether that is the relay.
    restarted: Duration,
    is_sent_home: bool,
    /// It would not be moved: it is not asked again.
    has_refused: bool,
    /// The far party's packets are not relayed to it.
    is_parked: bool,
}

/// What was tried.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Tries {
    failures: u8,
    /// How many trials have told nothing; and how many of them although both spoke, so that they may have been heard as silence.
    quiet_trials: u8,
    untold_trials: u8,
    /// Where the present or last move led, and whether its path was once direct.
    tried: Option<[SocketAddr; 2]>,
    was_direct: bool,
    /// The present move stands on configuration where reports do not come.
    is_trusted: bool,
    /// How often phones that left the relay by themselves are still called back.
    strays: u8,
}

/// Of the present or last way home.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Homecoming {
    /// The path was refuted while nobody could know it: its receiver had been silent.
    is_blameless: bool,
    /// After an offer of a party both must be heard at the relay, or a hold makes them let go of each other.
    may_cling: bool,
    /// Since when those who are away have been told to come home, and may be elsewhere until one is heard: kept through all
    /// that they are told after that, since who has been heard at home and falls silent is no more elsewhere for being told again.
    away_until_heard: Option<Duration>,
}

/// What is to be done, and when.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Agenda {
    /// When a call on the relay is to be looked at again.
    look: Duration,
    outputs: VecDeque<Output>,
    /// What is asked when packets on their way have arrived, unless something comes in between.
    next: Option<(Duration, Output)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Anchored {
        not_before: Duration,
    },
    Probing {
        /// Who has agreed to show its NAT, and when.
        accepted: [Option<Duration>; 2],
        since: Duration,
    },
    Synchronising {
        accepted: [Option<Duration>; 2],
        since: Duration,
    },
    /// On the relay after a trial, until reports tell what became of its packets.
    Weighing {
        until: Duration,
    },
    Direct {
        since: Duration,
    },
    Holding {
        accepted: [bool; 2],
        since: Duration,
        /// When the first let go: it hears nothing from then on.
        let_go: Option<Duration>,
        why: Reason,
    },
    Returning {
        asked: [bool; 2],
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
    },
    /// No more tries, unless policy changes what it was for.
    Staying(Stay),
}

/// The machine of one call between two parties, over the m-lines that carry RTP.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Release {
    settings: Settings,
    /// Of the configuration, which is not a call's.
    #[serde(skip)]
    networks: Arc<Networks>,
    constraint: Constraint,
    parties: [Party; 2],
    /// Per m-line; index 0 is what the first party sends.
    lines: Vec<[Direction; 2]>,
    state: State,
    answered: Duration,
    tries: Tries,
    lapse: Lapse,
    /// A party's reports go where its media goes (rtcp-mux, RFC 5761): off the relay none is seen.
    are_reports_muxed: bool,
    homecoming: Homecoming,
    /// Whether both send, as far as their descriptions say.
    should_flow: bool,
    timeline: Timeline,
    agenda: Agenda,
    /// How many reports could not be true, or came in a flood.
    pub rejected_reports: u32,
}

impl Release {
    /// Of a call answered now, everything on the relay; of one that was released before, with that past.
    pub fn new(outset: Outset, networks: Arc<Networks>, parties: [Temperament; 2], now: Duration) -> Self {
        let Outset { settings, constraint, lines, past } = outset;
        let parties = parties.map(|temperament| Party {
            place: None,
            temperament,
            has_lied: false,
            is_doubted: false,
            restarted: now,
            is_sent_home: true,
            has_refused: false,
            is_parked: false,
        });
        Self {
            settings,
            networks,
            constraint,
            parties,
            lines: vec![Default::default(); lines],
            state: State::Anchored { not_before: now.saturating_add(settings.settle) },
            answered: now,
            tries: Tries::default(),
            lapse: Lapse::default(),
            are_reports_muxed: false,
            homecoming: Homecoming::default(),
            should_flow: true,
            timeline: past.unwrap_or_else(|| Timeline::new(now)),
            agenda: Agenda { look: now, ..Agenda::default() },
            rejected_reports: 0,
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.agenda.outputs.pop_front()
    }

    /// See [`Timeline::new_reading`].
    pub fn new_reading(&mut self, now: Duration) -> Option<Reading> {
        self.timeline.new_reading(now)
    }

    /// What happened so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The state of every direction that is not asked apart.
    pub fn state(&self) -> PathState {
        match self.state {
            State::Anchored { .. } | State::Weighing { .. } | State::Staying(_) => PathState::Anchored,
            State::Probing { .. } => PathState::Probing,
            State::Synchronising { .. } => PathState::Synchronising,
            State::Direct { .. } => PathState::Direct,
            State::Holding { .. } | State::Returning { .. } => PathState::Returning,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to look again.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        if let Some((at, _)) = self.agenda.next {
            return at;
        }
        match self.state {
            State::Staying(_) if self.tries.strays == 0 => now.saturating_add(Duration::from_secs(60)),
            State::Staying(_) => now.saturating_add(IDLE),
            State::Anchored { .. } => self.agenda.look,
            State::Weighing { .. } => now.saturating_add(LOOK),
            State::Direct { .. } => now.saturating_add(GLANCE),
            _ => now.saturating_add(TICK),
        }
    }

    /// Where a party is seen: where its RTP of the first m-line comes from, what its description and its Contact say. A place that is
    /// not the one before has a NAT that is not known yet.
    pub fn placed(&mut self, party: Side, seen: Place) {
        let place = &mut self.parties[party].place;
        let is_same =
            place.as_ref().is_some_and(|known| Place { mapping: seen.mapping, ..known.clone() } == seen);
        // A NAT that maps per destination shows another port at each of our addresses.
        let is_dependent =
            place.as_ref().is_some_and(|known| matches!(known.mapping, Mapping::Dependent { .. }));
        let is_known_dependent =
            is_dependent && place.as_ref().is_some_and(|known| known.signalled == seen.signalled);
        if !is_same && !is_known_dependent {
            *place = Some(seen);
        }
    }

    /// Whether [`placed`](Self::placed) may be told: while media is elsewhere, what comes to the relay are stragglers.
    pub fn is_at_home(&self) -> bool {
        matches!(
            self.state,
            State::Anchored { .. } | State::Weighing { .. } | State::Staying(_) | State::Probing { .. }
        )
    }

    /// What the relay sees of a direction; before [`handle_timeout`](Self::handle_timeout), for each.
    pub fn sight(&mut self, track: Track, sight: Sight, now: Duration) {
        if let Some(direction) = self.direction(track) {
            direction.see(sight, now);
        }
    }

    /// Whether a phone was sent elsewhere than to the relay, and both have not been told to come back, or are to be heard and
    /// are not yet: phones that follow what they hear stay with each other for a while.
    pub fn are_elsewhere(&self) -> bool {
        match self.state {
            State::Synchronising { accepted, .. } => accepted.iter().any(Option::is_some),
            State::Direct { .. } => true,
            // Once one is heard at the relay it is what comes there that tells.
            State::Holding { .. } | State::Returning { .. } => {
                self.homecoming.away_until_heard.is_some_and(|since| {
                    !self.directions().any(|(_, direction)| direction.is_heard_since(since))
                })
            }
            _ => false,
        }
    }

    /// What has become of what a direction sends off the relay, as far as no report tells; `None`: it is at home.
    pub(crate) fn fate(&self, track: Track) -> Option<Fate> {
        let is_dead = self.lines.get(track.line)?[track.party].is_dead;
        let is_known = match self.state {
            State::Synchronising { .. } | State::Direct { .. } => true,
            State::Holding { why, .. } | State::Returning { why, .. } => {
                matches!(why, Reason::Policy | Reason::Renegotiated | Reason::Trial)
            }
            _ => return None,
        };
        Some(Fate::of(is_dead, is_known))
    }

    /// Whether a party counts anew what it receives with each re-INVITE, as far as is known: of one of which nothing is (a PJSIP that is
    /// called names no product) a record must not say that it has missed nothing.
    pub(crate) fn may_count_anew_with_offers(&self, party: Side) -> bool {
        self.parties[party].temperament.may_count_anew()
    }

    /// When a party was last told where to send and hear, and has taken it; and whether that is the relay.
    pub(crate) fn restarted(&self, party: Side) -> (Duration, bool) {
        let party = &self.parties[party];
        (party.restarted, party.is_sent_home)
    }

    /// See [`Timeline::account`].
    pub fn account(&mut self, direct_since: Option<Duration>, now: Duration) {
        self.timeline.account(direct_since, now);
    }

    /// Something outside of the machine keeps the call where it is.
    pub fn keep(&mut self, stay: Stay, now: Duration) {
        if self.is_at_home() && !matches!(self.state, State::Staying(_)) {
            self.stay(stay, now);
        }
    }

    /// The parties part: what is left is how it was.
    pub fn finish(&mut self, now: Duration) {
        self.timeline.meter(false, now);
    }

    /// What happened, when nothing more will.
    pub fn into_timeline(self) -> Timeline {
        self.timeline
    }

    /// Policy has changed its mind.
    pub fn constrain(&mut self, constraint: Constraint, now: Duration) {
        self.constraint = constraint;
        if constraint == Constraint::MustAnchor {
            self.come_home(Reason::Policy, now);
            match &mut self.state {
                // Whoever is being learnt is on the relay, and hears nothing from its old address before it is at the new one.
                State::Weighing { .. } => {
                    self.enter(State::Anchored { not_before: now }, Reason::Policy, now);
                }
                State::Holding { why, .. } | State::Returning { why, .. } if *why == Reason::Trial => {
                    *why = Reason::Policy;
                }
                _ => {}
            }
        } else if let State::Staying(why) = self.state
            && !matches!(
                why,
                Stay::Refused | Stay::Unmoved | Stay::Failed | Stay::Remembered | Stay::Inconclusive
            )
        {
            self.enter(State::Anchored { not_before: now }, Reason::Policy, now);
        }
        self.agenda.look = now;
    }

    /// A party's offer was answered through the relay with the relay's addresses: all were told to come home. Phones that
    /// follow what they hear may stay with each other, which shows if they `should_flow` now.
    pub fn renegotiated(&mut self, should_flow: bool, now: Duration) {
        self.relay_again();
        self.forget_trial();
        // What is not heard on hold is no gap, and what a party's own offer costs is not the path's.
        self.lines.iter_mut().flatten().for_each(Direction::forget_return);
        self.should_flow = should_flow;
        self.parties.iter_mut().for_each(|party| (party.restarted, party.is_sent_home) = (now, true));
        let was_away = matches!(
            self.state,
            State::Synchronising { .. }
                | State::Direct { .. }
                | State::Holding { .. }
                | State::Returning { .. }
        );
        if was_away {
            // On hold they have let go of each other, and are told to come back to the relay afterwards.
            self.told_to_come_home(now);
            self.homecoming.away_until_heard = self.homecoming.away_until_heard.filter(|_| should_flow);
            let follows = self.parties.iter().any(|party| party.temperament.follows_what_it_hears);
            self.homecoming.may_cling = should_flow && follows;
            let why = Reason::Renegotiated;
            self.enter(
                State::Returning { asked: [true; 2], accepted: [Some(now); 2], since: now, why },
                why,
                now,
            );
        } else if !matches!(self.state, State::Staying(_)) {
            let not_before = now.saturating_add(self.settings.settle);
            self.enter(State::Anchored { not_before }, Reason::Renegotiated, now);
            self.agenda.look = now;
        }
    }

    /// The address that a party shows at the second address.
    pub fn learnt(&mut self, party: Side, observed: SocketAddr, now: Duration) {
        let Some(place) = &mut self.parties[party].place else { return };
        let first = place.observed;
        place.mapping = if observed == first {
            Mapping::EndpointIndependent
        } else {
            Mapping::Dependent { step: i32::from(observed.port()).saturating_sub(first.port().into()) }
        };
        self.timeline.add(Entry::Mapping { party, mapping: place.mapping }, now);
        self.relay_to(party);
        let is_known = |party: &Party| {
            party.place.as_ref().is_some_and(|place| place.effective_mapping() != Mapping::Unknown)
        };
        if matches!(self.state, State::Probing { .. }) && self.parties.iter().all(is_known) {
            self.agenda.look = now;
            self.enter(State::Anchored { not_before: now }, Reason::Heard, now);
        }
    }

    /// How a party took what [`Output::Learn`], [`Output::Move`], [`Output::Hold`] or [`Output::Home`] asked of it.
    pub fn moved(&mut self, party: Side, outcome: Moved, now: Duration) {
        // What is to be asked was not yet: this is an answer to what was asked before.
        if self.agenda.next.is_some() {
            return;
        }
        if outcome == Moved::Accepted {
            let is_sent_home = matches!(self.state, State::Holding { .. } | State::Returning { .. });
            let known = &mut self.parties[party];
            (known.restarted, known.is_sent_home) = (now, is_sent_home);
        }
        let is_asked_away = matches!(self.state, State::Probing { .. } | State::Synchronising { .. });
        self.parties[party].has_refused |= is_asked_away && outcome == Moved::Refused;
        match (&mut self.state, outcome) {
            (State::Probing { .. }, Moved::Refused) => {
                self.relay_again();
                self.stay(Stay::Refused, now);
            }
            (State::Probing { .. }, Moved::Superseded) => {
                self.relay_again();
                self.enter(
                    State::Anchored { not_before: now.saturating_add(AGAIN) },
                    Reason::Renegotiated,
                    now,
                );
                self.agenda.look = now;
            }
            (State::Probing { accepted, .. }, Moved::Accepted) => accepted[party] = Some(now),
            (State::Synchronising { accepted, .. }, Moved::Accepted) => {
                accepted[party] = Some(now);
                let have_met = accepted.iter().all(Option::is_some);
                self.lines.iter_mut().for_each(|line| line[party].watch(now));
                if have_met {
                    self.lines.iter_mut().flatten().for_each(|direction| direction.meet(now));
                }
                self.park(party);
                self.conclude(now);
            }
            (State::Synchronising { .. }, Moved::Refused) => self.come_home(Reason::Refused, now),
            (State::Synchronising { .. }, Moved::Superseded) => self.come_home(Reason::Renegotiated, now),
            (State::Holding { accepted, let_go, why, .. }, _) => {
                accepted[party] = true;
                let_go.get_or_insert(now);
                if *accepted == [true, true] {
                    let why = *why;
                    self.home_from_hold(why, now);
                }
            }
            (State::Returning { accepted, .. }, _) => {
                accepted[party] = Some(now);
                self.call_last(now);
            }
            _ => {}
        }
    }

    /// Looks at the clock. Feed [`sight`](Self::sight) first.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some((_, output)) = self.agenda.next.take_if(|(at, _)| *at <= now) {
            self.agenda.outputs.push_back(output);
        }
        match self.state {
            State::Anchored { not_before } if now >= not_before => self.consider(now),
            // A stream's rate is known by looking.
            State::Anchored { not_before } => {
                let is_far = not_before > now.saturating_add(IDLE.saturating_mul(2));
                self.agenda.look = now.saturating_add(if is_far { IDLE } else { LOOK });
            }
            State::Probing { accepted, since } => self.look_at_probing(accepted, since, now),
            State::Synchronising { accepted, since } => self.look_after_move(accepted, since, now),
            State::Weighing { until } => self.look_for_verdict(until, now),
            State::Direct { since } => self.look_at_direct(since, now),
            // A phone that does not answer must not keep the other on hold.
            State::Holding { since, let_go, why, .. }
                if now > since.saturating_add(self.settings.answering.checked_div(2).unwrap_or_default())
                    || let_go.is_some_and(|first| now > first.saturating_add(HELD)) =>
            {
                self.home_from_hold(why, now);
            }
            State::Returning { accepted, since, why, .. } => self.look_for_return(accepted, since, why, now),
            State::Staying(_) if self.tries.strays > 0 => self.look_for_strays(now),
            _ => {}
        }
    }

    /// Those who are away now are told to come home.
    fn told_to_come_home(&mut self, now: Duration) {
        if matches!(self.state, State::Synchronising { .. } | State::Direct { .. }) {
            self.homecoming.away_until_heard = Some(now);
        }
    }

    fn direction(&mut self, track: Track) -> Option<&mut Direction> {
        self.lines.get_mut(track.line).map(|line| &mut line[track.party])
    }

    fn directions(&self) -> impl Iterator<Item = (Side, &Direction)> {
        self.lines.iter().flat_map(|line| Side::BOTH.into_iter().zip(line))
    }

    fn enter(&mut self, state: State, why: Reason, now: Duration) {
        let before = self.state();
        self.state = state;
        self.agenda.next = None;
        if self.state() != before {
            self.timeline.add(Entry::State { to: self.state(), why }, now);
        }
    }

    fn stay(&mut self, stay: Stay, now: Duration) {
        self.timeline.add(Entry::Stays(stay), now);
        self.enter(State::Staying(stay), Reason::Policy, now);
    }
}
