//! Release and return of two phones that speak ICE: they check each other while the relay carries the media, and leave it
//! themselves, once checks have passed both ways. So nothing is at stake but the exchange that introduces them.
//!
//! One phone is asked for an offer (an INVITE without one). It must restart ICE in it (RFC 8445 §9): credentials that it has
//! used with us can't be the far phone's. RTCP has no candidate but the relay, so that reports tell of a path that broke.

use std::collections::VecDeque;
use std::time::Duration;

use media_wire::rtcp::Silence;
use seam::Side;
use seam::path::{Constraint, Entry, Evidence, IceStep, Lie, PathState, Reason, Stay};
use serde::{Deserialize, Serialize};

use super::direction::Direction;
use super::lapse::Lapse;
use super::phone::PATIENCE;
use super::proof::{Reception, Verdict};
use super::release::{Outset, Settings};
use super::sight::Sight;
use super::timeline::{Reading, Timeline};
use crate::clock::{Shift, Timed, timed};
use crate::reported::Fate;
use crate::side::Track;

/// What the machine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Output {
    /// Ask this party for an offer, and hand it to the other.
    Ask(Side),
    /// Restart both with the relay as the only candidate.
    Home,
}

/// What came of [`Output::Ask`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Each has the other's credentials.
    Introduced,
    /// This party has not restarted ICE, in its offer or in its answer.
    KeptCredentials {
        /// Who.
        party: Side,
        /// Where.
        in_offer: bool,
    },
    /// A phone refused.
    Refused,
    /// Somebody else's offer was open.
    Superseded,
}

/// A phone that is silent at the relay for so long has left it.
const SILENCE: Duration = Duration::from_millis(300);
/// How often a call is looked at: while it moves, and else.
const TICK: Duration = Duration::from_millis(50);
const GLANCE: Duration = Duration::from_millis(500);
/// How long checks past the relay have before those through it: their first round, and repeats of what a NAT kept out.
const DIRECT_FIRST: Duration = Duration::from_secs(1);
/// How long their checks may take, where media still passes the relay.
const CHECKING: Duration = Duration::from_secs(3);
/// How long both phones may take to answer the introduction.
const ASKING: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    Anchored { not_before: Duration },
    Asking { since: Duration },
    Synchronising { since: Duration },
    Direct { since: Duration },
    Returning { accepted: [Option<Duration>; 2], since: Duration, why: Reason },
}

impl Timed for State {
    fn shift(&mut self, by: Shift) {
        match self {
            Self::Anchored { not_before: at }
            | Self::Asking { since: at }
            | Self::Synchronising { since: at }
            | Self::Direct { since: at } => at.shift(by),
            Self::Returning { accepted, since, why: _ } => {
                accepted.shift(by);
                since.shift(by);
            }
        }
    }
}

/// The machine of one call.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndToEnd {
    settings: Settings,
    constraint: Constraint,
    /// Who may still be asked for an offer.
    may_offer: [bool; 2],
    has_lied: [bool; 2],
    /// The latest report could not be true.
    is_doubted: [bool; 2],
    /// Per m-line; index 0 is what the first party sends.
    lines: Vec<[Direction; 2]>,
    state: State,
    /// The phone that controls has said which pair it uses.
    is_nominated: bool,
    failures: u8,
    lapse: Lapse,
    timeline: Timeline,
    outputs: VecDeque<Output>,
}

timed!(EndToEnd { lines, state, lapse, timeline; settings, constraint, may_offer, has_lied, is_doubted, is_nominated, failures, outputs });

impl EndToEnd {
    /// Of a call answered now, or one with a past. `may_offer`: of whom it is not known that they do not restart.
    pub fn new(outset: Outset, may_offer: [bool; 2], now: Duration) -> Self {
        let Outset { settings, constraint, lines, past } = outset;
        Self {
            settings,
            constraint,
            may_offer,
            has_lied: [false; 2],
            is_doubted: [false; 2],
            lines: vec![Default::default(); lines],
            state: State::Anchored { not_before: now.saturating_add(settings.settle) },
            is_nominated: false,
            failures: 0,
            lapse: Lapse::default(),
            timeline: past.unwrap_or_else(|| Timeline::new(now)),
            outputs: VecDeque::new(),
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// See [`Timeline::new_reading`].
    pub fn new_reading(&mut self, now: Duration) -> Option<Reading> {
        self.timeline.new_reading(now)
    }

    /// What happened so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// What happened, when nothing more will.
    pub fn into_timeline(mut self, now: Duration) -> Timeline {
        self.timeline.meter(false, now);
        self.timeline
    }

    /// Whether the phones are known to have left the relay, and are not known to be back.
    pub fn are_elsewhere(&self) -> bool {
        match self.state {
            State::Synchronising { .. } => {
                self.is_nominated || self.directions().any(Direction::is_confirmed)
            }
            State::Direct { .. } => true,
            State::Returning { why, since, .. } => {
                why != Reason::Renegotiated
                    && !self.directions().any(|direction| direction.is_heard_since(since))
            }
            State::Anchored { .. } | State::Asking { .. } => false,
        }
    }

    /// See [`Release::counts_anew`](super::Release::counts_anew).
    pub fn counts_anew(&mut self, track: Track) {
        if let Some(direction) = self.direction(track) {
            direction.counts_anew();
        }
    }

    /// See [`Release::fate`](super::Release::fate).
    pub(crate) fn fate(&self, track: Track) -> Option<Fate> {
        let is_dead = self.lines.get(track.line)?[track.party].is_dead;
        let is_known = match self.state {
            State::Synchronising { .. } | State::Direct { .. } => true,
            State::Returning { why, .. } => matches!(why, Reason::Policy | Reason::Renegotiated),
            State::Anchored { .. } | State::Asking { .. } => return None,
        };
        Some(Fate::of(is_dead, is_known))
    }

    /// See [`Timeline::account`].
    pub fn account(&mut self, direct_since: Option<Duration>, now: Duration) {
        self.timeline.account(direct_since, now);
    }

    /// The state of both directions.
    pub fn state(&self) -> PathState {
        match self.state {
            State::Anchored { .. } => PathState::Anchored,
            State::Asking { .. } => PathState::Probing,
            State::Synchronising { .. } => PathState::Synchronising,
            State::Direct { .. } => PathState::Direct,
            State::Returning { .. } => PathState::Returning,
        }
    }

    /// Whether checks of RTP may pass the relay: not before those past it have had their time, or a phone that takes the
    /// first pair that works would stay.
    pub fn may_check_relay(&self, now: Duration) -> bool {
        match self.state {
            State::Synchronising { since } => now > since.saturating_add(DIRECT_FIRST),
            State::Direct { .. } => true,
            _ => false,
        }
    }

    /// Whether the phones have each other's credentials.
    pub fn are_introduced(&self) -> bool {
        matches!(self.state, State::Synchronising { .. } | State::Direct { .. })
    }

    /// Whether nothing is left to try: then these are two ordinary phones.
    pub fn has_given_up(&self) -> bool {
        matches!(self.state, State::Anchored { .. }) && self.may_offer == [false, false]
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to look again.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        match self.state {
            State::Anchored { not_before } => {
                not_before.clamp(now.saturating_add(TICK), now.saturating_add(GLANCE))
            }
            State::Direct { .. } => now.saturating_add(GLANCE),
            _ => now.saturating_add(TICK),
        }
    }

    /// What the relay sees of a direction; before [`handle_timeout`](Self::handle_timeout), for each.
    pub fn sight(&mut self, track: Track, sight: Sight, now: Duration) {
        if let Some(direction) = self.direction(track) {
            direction.see(sight, now);
        }
    }

    /// A sender's own report.
    pub fn sender_report(&mut self, track: Track, ssrc: u32, packets: u32, now: Duration) {
        let direction = self.direction(track);
        let evidence = direction.and_then(|direction| direction.sender_report(ssrc, packets, now));
        if let Some(evidence) = evidence {
            self.refuted(track.party, evidence, now);
        }
    }

    /// A report of somebody who says nothing of sending: it has not sent since its last but one (RFC 3550 §6.4).
    pub fn rests(&mut self, track: Track, ssrc: u32, now: Duration) {
        if let Some(direction) = self.direction(track) {
            direction.rests(ssrc, now);
        }
    }

    /// `party` has reported, and of nobody.
    pub fn hears_nobody(&mut self, track: Track, silence: Silence, now: Duration) {
        let Some(direction) = self.direction(!track) else { return };
        if let Some(evidence) = direction.heard_nothing(silence, now) {
            self.refuted(!track.party, evidence, now);
        }
    }

    fn refuted(&mut self, from: Side, evidence: Evidence, now: Duration) {
        if self.are_introduced() {
            self.timeline.add(Entry::Evidence { from, is_confirmed: false, evidence }, now);
            self.come_home(Reason::Refuted, now);
        }
    }

    /// `party` reports about what it receives.
    pub fn reception(&mut self, track: Track, report: &Reception, now: Duration) {
        let (Track { line, party }, sender) = (track, !track.party);
        let Some(direction) = self.direction(!track) else { return };
        if direction.says_nothing(report) {
            return;
        }
        let is_anew = self.lines[line][party].begun_anew();
        let lines = self.lines[line].each_ref().map(Direction::line_loss).iter().sum();
        let direction = &mut self.lines[line][sender];
        let (evidence, was_confirmed) = (direction.evidence(report, now), direction.is_confirmed());
        let verdict = direction.judge(report, now);
        if let Some(evidence) = evidence
            && verdict == Some(Verdict::Confirmed)
            && !was_confirmed
        {
            self.timeline.add(Entry::Evidence { from: sender, is_confirmed: true, evidence }, now);
        }
        if verdict == Some(Verdict::Confirmed) {
            self.is_doubted[party] = false;
        }
        match verdict {
            None => {
                if let Err(lie) = direction.reported_on_relay(report, now) {
                    self.reject(party, lie, now);
                } else {
                    self.is_doubted[party] = false;
                    if let Some(gap) = direction.gap_of_return(report, is_anew) {
                        self.timeline.add(Entry::Gap { from: sender, gap }, now);
                    }
                }
            }
            Some(Verdict::Refuted) => {
                if let Some(evidence) = evidence {
                    self.refuted(sender, evidence, now);
                }
            }
            Some(Verdict::Confirmed) => {
                if let Some(gap) = direction.gap_of_leaving(report, is_anew) {
                    self.timeline.add(Entry::Gap { from: sender, gap }, now);
                }
                if direction.is_too_lossy(report, self.settings.loss_percent, lines) {
                    self.come_home(Reason::Quality, now);
                }
            }
            Some(Verdict::Lie(lie)) => self.reject(party, lie, now),
            Some(Verdict::Open) => {}
        }
    }

    /// Told once of each, of whom it was not the first in a row: phones begin their streams and counts anew with an exchange.
    fn reject(&mut self, party: Side, lie: Lie, now: Duration) {
        let is_first = !std::mem::replace(&mut self.is_doubted[party], true);
        if !is_first && !std::mem::replace(&mut self.has_lied[party], true) {
            self.timeline.add(Entry::Lie { party, lie }, now);
        }
    }

    /// Something outside of the machine keeps the call where it is; for [`Stay::Policy`] until policy has changed its mind.
    pub fn keep(&mut self, stay: Stay, now: Duration) {
        let State::Anchored { not_before } = &mut self.state else { return };
        if stay == Stay::Policy {
            self.constraint = Constraint::MustAnchor;
        } else {
            *not_before = Duration::MAX;
        }
        self.timeline.add(Entry::Stays(stay), now);
    }

    /// Policy has changed its mind.
    pub fn constrain(&mut self, constraint: Constraint, now: Duration) {
        self.constraint = constraint;
        if constraint == Constraint::MustAnchor {
            self.come_home(Reason::Policy, now);
        }
    }

    /// An exchange of the parties' own was made. `is_end_to_end`: each still has the other's credentials; `should_flow`: nobody
    /// holds.
    pub fn renegotiated(&mut self, is_end_to_end: bool, should_flow: bool, now: Duration) {
        match self.state {
            State::Synchronising { .. } | State::Direct { .. } if is_end_to_end && should_flow => {}
            State::Anchored { not_before } => {
                self.state =
                    State::Anchored { not_before: not_before.max(now.saturating_add(self.settings.settle)) };
            }
            _ => self.come_home(Reason::Renegotiated, now),
        }
    }

    /// The phone that controls has sent its updated offer (RFC 8839 §4.4.3): both use one pair.
    pub fn nominated(&mut self, party: Side, now: Duration) {
        if self.are_introduced() && !std::mem::replace(&mut self.is_nominated, true) {
            self.timeline.add(Entry::Ice(IceStep::Nominated { party }), now);
        }
    }

    /// What came of [`Output::Ask`].
    pub fn asked(&mut self, asked: Asked, now: Duration) {
        if !matches!(self.state, State::Asking { .. }) {
            return;
        }
        let not_before = now.saturating_add(self.settings.settle);
        match asked {
            Asked::Introduced => {
                self.is_nominated = false;
                self.timeline.add(Entry::Ice(IceStep::Introduced), now);
                self.lines.iter_mut().flatten().for_each(|direction| direction.watch(now));
                self.enter(State::Synchronising { since: now }, Reason::Try, now);
                if self.constraint == Constraint::MustAnchor {
                    self.come_home(Reason::Policy, now);
                }
            }
            Asked::KeptCredentials { party, in_offer } => {
                self.may_offer = Side::BOTH.map(|one| self.may_offer[one] && in_offer && one != party);
                self.timeline.add(Entry::Ice(IceStep::KeptCredentials { party }), now);
                self.enter(State::Anchored { not_before: now }, Reason::Refused, now);
            }
            Asked::Refused => {
                self.timeline.add(Entry::Stays(Stay::Refused), now);
                self.enter(State::Anchored { not_before: Duration::MAX }, Reason::Refused, now);
            }
            Asked::Superseded => self.enter(State::Anchored { not_before }, Reason::Renegotiated, now),
        }
    }

    /// A party has taken the restart of [`Output::Home`], or will not.
    pub fn came_home(&mut self, party: Side, now: Duration) {
        if let State::Returning { accepted, .. } = &mut self.state {
            accepted[party] = Some(now);
        }
    }

    /// Looks at the clock. Feed [`sight`](Self::sight) first.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self.state {
            State::Anchored { not_before } if now >= not_before => self.consider(now),
            State::Asking { since } if now > since.saturating_add(ASKING) => self.asked(Asked::Refused, now),
            State::Synchronising { since } => self.look_after_introduction(since, now),
            State::Direct { since } => self.look_at_direct(since, now),
            State::Returning { accepted, since, why } => self.look_for_return(accepted, since, why, now),
            State::Anchored { .. } | State::Asking { .. } => {}
        }
    }

    fn direction(&mut self, track: Track) -> Option<&mut Direction> {
        self.lines.get_mut(track.line).map(|line| &mut line[track.party])
    }

    fn directions(&self) -> impl Iterator<Item = &Direction> {
        self.lines.iter().flatten()
    }

    fn enter(&mut self, state: State, why: Reason, now: Duration) {
        let before = self.state();
        self.state = state;
        if self.state() != before {
            self.timeline.add(Entry::State { to: self.state(), why }, now);
        }
    }

    fn consider(&mut self, now: Duration) {
        let is_flowing = self.directions().all(|direction| direction.is_flowing(now));
        if is_flowing && !self.lapse.is_over(&self.lines) {
            return;
        }
        let first = Side::BOTH.into_iter().find(|side| self.may_offer[*side]);
        if let (Some(first), true) = (first, is_flowing && self.constraint != Constraint::MustAnchor) {
            self.outputs.push_back(Output::Ask(first));
            self.timeline.add(Entry::Ice(IceStep::Asked { party: first }), now);
            self.enter(State::Asking { since: now }, Reason::Try, now);
        }
    }

    /// Nobody's RTP has come to the relay for a while.
    fn is_silent(&self, since: Duration, now: Duration) -> bool {
        self.directions().all(|direction| {
            direction
                .proof
                .as_ref()
                .is_some_and(|proof| now > proof.last_relayed().max(since).saturating_add(SILENCE))
        })
    }

    fn look_after_introduction(&mut self, since: Duration, now: Duration) {
        let is_silent = self.is_silent(since, now);
        let is_proven = self.directions().all(Direction::is_confirmed);
        if is_silent && (is_proven || self.is_nominated) {
            return self.enter(State::Direct { since: now }, Reason::Proven, now);
        }
        // A phone's next report may take its time; nothing is lost meanwhile, since checks have passed where it is silent.
        if now > since.saturating_add(if is_silent { PATIENCE } else { CHECKING }) {
            self.come_home(Reason::Unproven, now);
        }
    }

    fn look_at_direct(&mut self, since: Duration, now: Duration) {
        let is_back = self.directions().any(|direction| {
            direction.proof.as_ref().is_some_and(|proof| proof.last_relayed() > since.saturating_add(SILENCE))
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        let unknown = self.directions().find_map(|direction| direction.is_unknown(since, now));
        if let Some(why) = unknown {
            self.lapse.note(why, &self.lines, since, now);
            self.come_home(why, now);
        }
    }

    fn come_home(&mut self, why: Reason, now: Duration) {
        if self.are_introduced() {
            if why != Reason::Renegotiated {
                self.lines.iter_mut().flatten().for_each(Direction::turn_back);
            }
            self.outputs.push_back(Output::Home);
            self.enter(State::Returning { accepted: [None; 2], since: now, why }, why, now);
        }
    }

    fn look_for_return(
        &mut self,
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
        now: Duration,
    ) {
        let heard = Side::BOTH.map(|from| {
            let sights = self.lines.iter().filter_map(|line| line[from].sight);
            sights.map(|sight| sight.heard).max().filter(|at| *at > since)
        });
        // One whose restart was not answered yet is elsewhere.
        let [Some(one), Some(other)] = accepted else { return };
        if !heard.iter().all(Option::is_some) && now < one.max(other).saturating_add(self.settings.homecoming)
        {
            return;
        }
        let has_worked = self.is_nominated || self.directions().any(Direction::is_confirmed);
        self.lines.iter_mut().flatten().for_each(Direction::forget);
        let lapse =
            if why == Reason::ReportsStopped { self.lapse.rest(self.settings.rest, now) } else { None };
        let not_before = match (why, lapse) {
            (Reason::Policy, _) => now,
            (Reason::Renegotiated, _) => now.saturating_add(self.settings.settle),
            (_, Some(not_before)) => not_before,
            _ => {
                self.failures = self.failures.saturating_add(1);
                if !has_worked || self.failures >= self.settings.failures {
                    self.timeline.add(Entry::Stays(Stay::Failed), now);
                    Duration::MAX
                } else {
                    now.saturating_add(self.settings.rest)
                }
            }
        };
        self.enter(State::Anchored { not_before }, Reason::Heard, now);
    }
}
