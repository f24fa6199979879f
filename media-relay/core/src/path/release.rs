//! One call's release and return: when a move is made, and what signalling and reports say of it. What ends one is in
//! `release/watch.rs`.

mod watch;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::direction::{Direction, Sight, Tally};
use super::phone::Temperament;
use super::place::{Mapping, Networks, Place, Stay, Way, choose};
use super::proof::{Lie, Reception, Verdict};
use super::timeline::{Entry, PathState, Reason, Timeline};

/// What policy says of a call; may change at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// It stays on the relay, and comes back if it is not there.
    MustAnchor,
    /// It may be released where that is likely to work.
    MayRelease,
    /// It is released wherever that can work: a path that failed is tried once more after a rest, even unproven.
    PreferRelease,
}

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a call is left alone after its answer.
    pub settle: Duration,
    /// How long a phone may take to answer a re-INVITE to move.
    pub answering: Duration,
    /// How long a moved direction may stay unproven.
    pub unproven: Duration,
    /// How long a phone may take to show its mapping at the second address.
    pub learning: Duration,
    /// How long both phones may take to be heard at the relay after a return.
    pub homecoming: Duration,
    /// Rest between a return and the next try of a path that has worked.
    pub rest: Duration,
    /// How often a path that has worked may fail before the call stays.
    pub failures: u8,
    /// Share of packets lost, in percent, above which two reports in a row end a direct path.
    pub loss_percent: u32,
    /// Jitter above which a report ends a direct path.
    pub jitter: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            answering: Duration::from_secs(2),
            unproven: Duration::from_secs(3),
            learning: Duration::from_secs(2),
            homecoming: Duration::from_secs(2),
            rest: Duration::from_secs(60),
            failures: 2,
            loss_percent: 10,
            jitter: Duration::from_millis(150),
        }
    }
}

/// What the machine asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Move these parties' media to the relay's second address, to see how their NATs map it.
    Learn([bool; 2]),
    /// Re-INVITE both: `targets[party]` is where the party's media is to go. RTCP stays here.
    Move([SocketAddr; 2]),
    /// Re-INVITE both with `a=inactive` at the relay's address: a phone that follows what it hears lets go.
    Hold,
    /// Re-INVITE both to the relay.
    Home,
    /// Relay the far party's packets to this one, or drop them.
    Relaying {
        /// Which party.
        to: usize,
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

/// A phone that is heard at the relay so long after its 200 to a move has not moved.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// Time for a re-INVITE, and for a report to come in, when a move is timed.
const TURNAROUND: Duration = Duration::from_millis(150);
/// How far from the best moment a move may be, seconds.
const WINDOW: f64 = 0.1;
/// Missing packets make a report firm after so long at 50 packets a second.
const FIRM: Duration = Duration::from_millis(520);
/// How often a call is looked at: while it moves, while it is direct, and on the relay while nothing can be done.
const TICK: Duration = Duration::from_millis(20);
const GLANCE: Duration = Duration::from_millis(500);
const IDLE: Duration = Duration::from_secs(1);
/// Phones that follow what they hear, and are not heard at the relay so long after an offer told them to, stayed together.
const CLINGING: Duration = Duration::from_millis(500);
/// Reports nearer together than this are a flood.
const REPORT_SPACING: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
struct Party {
    /// Once its RTP was heard.
    place: Option<Place>,
    temperament: Temperament,
    /// When its latest report about the far stream came.
    reported: Option<Duration>,
    has_lied: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Anchored {
        not_before: Duration,
    },
    Probing {
        until: Duration,
    },
    Synchronising {
        accepted: [Option<Duration>; 2],
        since: Duration,
    },
    Direct,
    Holding {
        accepted: [bool; 2],
        since: Duration,
        why: Reason,
    },
    Returning {
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
    },
    /// No more tries, unless policy changes what it was for.
    Staying(Stay),
}

/// The machine of one call between two parties, over the m-lines that carry RTP.
#[derive(Debug, Clone)]
pub struct Release {
    settings: Settings,
    networks: Arc<Networks>,
    constraint: Constraint,
    parties: [Party; 2],
    /// Per m-line; index 0 is what the first party sends.
    lines: Vec<[Direction; 2]>,
    state: State,
    /// When a call on the relay is to be looked at again.
    look: Duration,
    answered: Duration,
    failures: u8,
    /// After an offer of a party both must be heard at the relay, or a hold makes them let go of each other.
    may_cling: bool,
    /// Whether both send, as far as their descriptions say.
    should_flow: bool,
    /// How often phones that left the relay by themselves are still called back.
    strays: u8,
    timeline: Timeline,
    outputs: VecDeque<Output>,
    /// How many reports could not be true, or came in a flood.
    pub rejected_reports: u32,
}

impl Release {
    /// Of a call answered now, everything on the relay; of one that was released before, with that past.
    pub fn new(
        settings: Settings,
        networks: Arc<Networks>,
        constraint: Constraint,
        parties: [Temperament; 2],
        lines: usize,
        past: Option<Timeline>,
        now: Duration,
    ) -> Self {
        let parties =
            parties.map(|temperament| Party { place: None, temperament, reported: None, has_lied: false });
        Self {
            settings,
            networks,
            constraint,
            parties,
            lines: vec![Default::default(); lines],
            state: State::Anchored { not_before: now + settings.settle },
            look: now,
            answered: now,
            failures: 0,
            may_cling: false,
            should_flow: true,
            strays: 0,
            timeline: past.unwrap_or_else(|| Timeline::new(now)),
            outputs: VecDeque::new(),
            rejected_reports: 0,
        }
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What happened so far.
    pub fn timeline(&self) -> &Timeline {
        &self.timeline
    }

    /// The state of every direction that is not asked apart.
    pub fn state(&self) -> PathState {
        match self.state {
            State::Anchored { .. } | State::Staying(_) => PathState::Anchored,
            State::Probing { .. } => PathState::Probing,
            State::Synchronising { .. } => PathState::Synchronising,
            State::Direct => PathState::Direct,
            State::Holding { .. } | State::Returning { .. } => PathState::Returning,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to look again.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        match self.state {
            State::Staying(_) if self.strays == 0 => now + Duration::from_secs(60),
            State::Staying(_) => now + IDLE,
            State::Anchored { .. } => self.look,
            State::Direct => now + GLANCE,
            _ => now + TICK,
        }
    }

    /// Where a party's RTP of the first m-line comes from, where its description says that it is, and the host of its
    /// Contact. A place that is not the one before has a NAT that is not known yet.
    pub fn placed(
        &mut self,
        party: usize,
        observed: SocketAddr,
        signalled: Option<SocketAddr>,
        contact: Option<IpAddr>,
    ) {
        let place = &mut self.parties[party & 1].place;
        let is_same = place.as_ref().is_some_and(|known| {
            known.observed == observed && known.signalled == signalled && known.contact == contact
        });
        // A NAT that maps per destination shows another port at each of our addresses.
        let is_dependent =
            place.as_ref().is_some_and(|known| matches!(known.mapping, Mapping::Dependent { .. }));
        let is_known_dependent =
            is_dependent && place.as_ref().is_some_and(|known| known.signalled == signalled);
        if !is_same && !is_known_dependent {
            *place = Some(Place { observed, signalled, contact, mapping: Mapping::Unknown });
        }
    }

    /// Whether [`placed`](Self::placed) may be told: while media is elsewhere, what comes to the relay are stragglers.
    pub fn is_at_home(&self) -> bool {
        matches!(self.state, State::Anchored { .. } | State::Staying(_) | State::Probing { .. })
    }

    /// What the relay sees of a direction; before [`handle_timeout`](Self::handle_timeout), for each.
    pub fn sight(&mut self, line: usize, from: usize, sight: Sight, now: Duration) {
        if let Some(direction) = self.lines.get_mut(line).and_then(|line| line.get_mut(from)) {
            direction.see(sight, now);
        }
    }

    /// How a direction was while it was direct.
    pub fn tally(&self, line: usize, from: usize) -> Option<Tally> {
        let tally = self.lines.get(line)?.get(from)?.tally;
        (tally.reports > 0).then_some(tally)
    }

    /// Something outside of the machine keeps the call where it is.
    pub fn keep(&mut self, stay: Stay, now: Duration) {
        if matches!(self.state, State::Anchored { .. } | State::Probing { .. }) {
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
            if matches!(self.state, State::Probing { .. }) {
                self.enter(State::Anchored { not_before: now }, Reason::Policy, now);
            }
        } else if let State::Staying(why) = self.state
            && !matches!(why, Stay::Refused | Stay::Failed | Stay::Remembered)
        {
            self.enter(State::Anchored { not_before: now }, Reason::Policy, now);
        }
        self.look = now;
    }

    /// A party's offer was answered through the relay with the relay's addresses: all were told to come home. Phones that
    /// follow what they hear may stay with each other, which shows if they `should_flow` now.
    pub fn renegotiated(&mut self, should_flow: bool, now: Duration) {
        self.relay_again();
        self.should_flow = should_flow;
        let was_away = matches!(
            self.state,
            State::Synchronising { .. } | State::Direct | State::Holding { .. } | State::Returning { .. }
        );
        if was_away {
            self.timeline.meter(false, now);
            let follows = self.parties.iter().any(|party| party.temperament.follows_what_it_hears);
            self.may_cling = should_flow && follows;
            let why = Reason::Renegotiated;
            self.enter(State::Returning { accepted: [Some(now); 2], since: now, why }, why, now);
        } else if !matches!(self.state, State::Staying(_)) {
            let not_before = now + self.settings.settle;
            self.enter(State::Anchored { not_before }, Reason::Renegotiated, now);
            self.look = now;
        }
    }

    /// The address that a party shows at the second address.
    pub fn learnt(&mut self, party: usize, observed: SocketAddr, now: Duration) {
        let Some(place) = &mut self.parties[party & 1].place else { return };
        let first = place.observed;
        place.mapping = if observed == first {
            Mapping::EndpointIndependent
        } else {
            Mapping::Dependent { step: i32::from(observed.port()) - i32::from(first.port()) }
        };
        self.timeline.add(Entry::Mapping { party: party & 1, mapping: place.mapping }, now);
        let is_known = |party: &Party| {
            party.place.as_ref().is_some_and(|place| place.effective_mapping() != Mapping::Unknown)
        };
        if matches!(self.state, State::Probing { .. }) && self.parties.iter().all(is_known) {
            self.look = now;
            self.enter(State::Anchored { not_before: now }, Reason::Heard, now);
        }
    }

    /// How a party took what [`Output::Learn`], [`Output::Move`], [`Output::Hold`] or [`Output::Home`] asked of it.
    pub fn moved(&mut self, party: usize, outcome: Moved, now: Duration) {
        let party = party & 1;
        match (&mut self.state, outcome) {
            (State::Probing { .. }, Moved::Refused) => self.stay(Stay::Refused, now),
            (State::Probing { .. }, Moved::Superseded) => {
                let not_before = now + self.settings.settle;
                self.enter(State::Anchored { not_before }, Reason::Renegotiated, now);
                self.look = now;
            }
            (State::Synchronising { accepted, .. }, Moved::Accepted) => {
                accepted[party] = Some(now);
                self.lines.iter_mut().for_each(|line| line[party].watch(now));
                if self.parties[party].temperament.follows_what_it_hears {
                    // The first packet it hears from here would pull it back.
                    self.outputs.push_back(Output::Relaying { to: party, is_on: false });
                }
            }
            (State::Synchronising { .. }, Moved::Refused) => self.come_home(Reason::Refused, now),
            (State::Synchronising { .. }, Moved::Superseded) => self.come_home(Reason::Renegotiated, now),
            (State::Holding { accepted, why, .. }, _) => {
                accepted[party] = true;
                if *accepted == [true, true] {
                    let why = *why;
                    self.home_from_hold(why, now);
                }
            }
            (State::Returning { accepted, .. }, _) => accepted[party] = Some(now),
            _ => {}
        }
    }

    /// A sender's own report.
    pub fn sender_report(&mut self, line: usize, from: usize, ssrc: u32, packets: u32) {
        if let Some(proof) = self.lines.get_mut(line).and_then(|line| line.get_mut(from)?.proof.as_mut()) {
            proof.sender_report(ssrc, packets);
        }
    }

    /// `party` reports about what it receives, which the other party sends. The sender's [`sight`](Self::sight) comes
    /// first: a report may already speak of what the relay has just carried.
    pub fn reception(&mut self, line: usize, party: usize, report: &Reception, now: Duration) {
        let (party, sender) = (party & 1, 1 - (party & 1));
        if self.parties[party].reported.is_some_and(|before| now < before + REPORT_SPACING) {
            self.rejected_reports += 1;
            return;
        }
        let Some(direction) = self.lines.get_mut(line).map(|line| &mut line[sender]) else { return };
        let evidence = direction.proof.as_ref().map(|proof| proof.evidence(report, now));
        let was_confirmed = direction.is_confirmed();
        let Some(verdict) = direction.judge(report, now) else {
            if direction.reported_on_relay(report) {
                self.parties[party].reported = Some(now);
            } else {
                self.reject(party, Lie::Source, now);
            }
            return;
        };
        let told = match verdict {
            Verdict::Confirmed => !was_confirmed,
            Verdict::Refuted => matches!(self.state, State::Synchronising { .. } | State::Direct),
            Verdict::Open | Verdict::Lie(_) => false,
        };
        if told && let Some(evidence) = evidence {
            let is_confirmed = verdict == Verdict::Confirmed;
            self.timeline.add(Entry::Evidence { from: sender, is_confirmed, evidence }, now);
        }
        match verdict {
            Verdict::Lie(lie) => return self.reject(party, lie, now),
            Verdict::Refuted => self.come_home(Reason::Refuted, now),
            Verdict::Confirmed => self.confirmed(line, sender, report, now),
            Verdict::Open => {}
        }
        self.parties[party].reported = Some(now);
    }

    fn confirmed(&mut self, line: usize, sender: usize, report: &Reception, now: Duration) {
        let direction = &mut self.lines[line][sender];
        if let Some(length) = direction.estimated_gap(report) {
            self.timeline.add(Entry::Gap { from: sender, length, is_estimate: true }, now);
        }
        let is_lossy = direction.is_too_lossy(report, self.settings.loss_percent);
        let rate = direction.sight.map_or(8000, |sight| sight.clock_rate.max(1));
        let is_shaky = f64::from(report.jitter) / f64::from(rate) > self.settings.jitter.as_secs_f64();
        if is_lossy || is_shaky {
            self.come_home(Reason::Quality, now);
        } else {
            self.conclude(now);
        }
    }

    /// Looks at the clock. Feed [`sight`](Self::sight) first.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self.state {
            State::Anchored { not_before } if now >= not_before => self.consider(now),
            State::Anchored { not_before } => self.look = not_before.min(now + IDLE),
            State::Probing { until } if now >= until => self.stay(Stay::UnknownMapping, now),
            State::Synchronising { accepted, since } => self.look_after_move(accepted, since, now),
            State::Direct => self.look_at_direct(now),
            // A phone that does not answer must not keep the other on hold.
            State::Holding { since, why, .. } if now > since + self.settings.answering / 2 => {
                self.home_from_hold(why, now);
            }
            State::Returning { accepted, since, why } => self.look_for_return(accepted, since, why, now),
            State::Staying(_) if self.strays > 0 => self.look_for_strays(now),
            _ => {}
        }
    }

    fn directions(&self) -> impl Iterator<Item = (usize, &Direction)> {
        self.lines.iter().flat_map(|line| line.iter().enumerate())
    }

    fn enter(&mut self, state: State, why: Reason, now: Duration) {
        let before = self.state();
        self.state = state;
        if self.state() != before {
            self.timeline.add(Entry::State { to: self.state(), why }, now);
        }
    }

    fn stay(&mut self, stay: Stay, now: Duration) {
        self.timeline.add(Entry::Stays(stay), now);
        self.enter(State::Staying(stay), Reason::Policy, now);
    }

    fn reject(&mut self, party: usize, lie: Lie, now: Duration) {
        self.rejected_reports += 1;
        if !std::mem::replace(&mut self.parties[party].has_lied, true) {
            self.timeline.add(Entry::Lie { party, lie }, now);
        }
    }

    /// Is there a way, and is it the moment?
    fn consider(&mut self, now: Duration) {
        self.look = now + IDLE;
        let is_flowing = self.directions().all(|(_, direction)| direction.is_flowing(now));
        if self.constraint == Constraint::MustAnchor || self.lines.is_empty() || !is_flowing {
            return;
        }
        let [Some(one), Some(other)] = self.parties.each_ref().map(|party| party.place.clone()) else {
            return;
        };
        let way = match choose(&[one, other], &self.networks) {
            Ok(way) => way,
            Err(stay) => return self.stay(stay, now),
        };
        if let Some(wait) = self.waits_for_reports(now) {
            if !wait {
                self.stay(Stay::NoReports, now);
            }
            return;
        }
        match way {
            Way::Learn(whom) => {
                self.timeline.add(Entry::Way(way), now);
                self.outputs.push_back(Output::Learn(whom));
                self.enter(State::Probing { until: now + self.settings.learning }, Reason::Try, now);
            }
            Way::Observed([one, other]) | Way::Local([one, other]) => {
                let wait = self.until_moment(now);
                if wait > Duration::ZERO {
                    self.look = now + wait.min(IDLE);
                    return;
                }
                self.timeline.add(Entry::Way(way), now);
                self.outputs.push_back(Output::Move([other, one]));
                self.enter(State::Synchronising { accepted: [None; 2], since: now }, Reason::Try, now);
            }
        }
    }

    /// Whether a phone that may not report at all has yet to do so: true while it has time, false when that is over.
    fn waits_for_reports(&self, now: Duration) -> Option<bool> {
        let silent =
            self.parties.iter().find(|party| !party.temperament.is_known && party.reported.is_none())?;
        Some(now < self.answered + silent.temperament.longest_report_gap + self.settings.settle)
    }

    /// A move is made so that the next report is due when it has just become firm: then a wrong try costs a fraction of a
    /// second. How long until the nearest such moment; zero where no phone's schedule is known.
    fn until_moment(&self, now: Duration) -> Duration {
        let lead = (TURNAROUND + FIRM).as_secs_f64();
        let mut nearest: Option<f64> = None;
        for party in &self.parties {
            let Some(interval) = party.temperament.report_interval.map(|interval| interval.as_secs_f64())
            else {
                continue;
            };
            let since = party.reported.unwrap_or(self.answered);
            let left = interval - now.saturating_sub(since).as_secs_f64() % interval;
            // The middle is aimed at: who looks a little late is still in time.
            let wait = if (lead..lead + WINDOW).contains(&left) {
                0.0
            } else {
                (left - lead - WINDOW / 2.0).rem_euclid(interval)
            };
            nearest = Some(nearest.map_or(wait, |nearest| nearest.min(wait)));
        }
        Duration::from_secs_f64(nearest.unwrap_or(0.0))
    }
}
