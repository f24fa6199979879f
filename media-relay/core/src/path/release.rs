//! One call's release and return.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::phone::Temperament;
use super::place::{Mapping, Networks, Place, Stay, Way, choose};
use super::proof::{Lie, Proof, Reception, Verdict};
use super::timeline::{Entry, PathState, Reason, Timeline};

/// What policy says of a call; may change at any moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constraint {
    /// It stays on the relay, and comes back if it is not there.
    MustAnchor,
    /// It may be released where that is likely to work.
    MayRelease,
}

/// Time limits.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How long a call is left alone after its answer.
    pub settle: Duration,
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
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            settle: Duration::from_secs(2),
            unproven: Duration::from_secs(3),
            learning: Duration::from_secs(2),
            homecoming: Duration::from_secs(2),
            rest: Duration::from_secs(60),
            failures: 2,
            loss_percent: 10,
        }
    }
}

/// What the relay sees of one direction's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sight {
    /// Its source.
    pub ssrc: u32,
    /// Its codec's clock, Hz.
    pub clock_rate: u32,
    /// Packets relayed.
    pub packets: u64,
    /// The last one's sequence number.
    pub sequence: u16,
    /// When it came.
    pub heard: Duration,
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
}

/// Packets are counted over at least this for a stream's rate.
const RATE_WINDOW: Duration = Duration::from_millis(1_000);
/// A phone that is heard at the relay so long after its 200 to a move has not moved.
const STRAGGLERS: Duration = Duration::from_millis(300);
/// Time for a re-INVITE, and for a report to come in, when a move is timed.
const TURNAROUND: Duration = Duration::from_millis(150);
/// Missing packets make a report firm after so long at 50 packets a second.
const FIRM: Duration = Duration::from_millis(520);
/// Reports nearer together than this are a flood.
const REPORT_SPACING: Duration = Duration::from_millis(50);

#[derive(Debug, Clone)]
struct Party {
    place: Place,
    temperament: Temperament,
    /// When its latest report about the far stream came.
    reported: Option<Duration>,
    has_lied: bool,
}

#[derive(Debug, Clone, Default)]
struct Direction {
    sight: Option<Sight>,
    /// Packets and time at the start of the current rate window, and the rate of the one before.
    window: Option<(u64, Duration)>,
    rate: Option<f64>,
    proof: Option<Proof>,
    /// Highest number and loss by the report before, and how many reports in a row were too lossy.
    quality: Option<(u32, i32)>,
    lossy: u8,
    /// What the receiver had lost when the move began.
    lost_before: Option<i32>,
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
    },
    Direct,
    Holding {
        accepted: [bool; 2],
        why: Reason,
    },
    Returning {
        accepted: [Option<Duration>; 2],
        since: Duration,
        why: Reason,
    },
    /// No more tries in this call.
    Staying,
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
    answered: Duration,
    failures: u8,
    timeline: Timeline,
    outputs: VecDeque<Output>,
    /// How many reports could not be true, or came in a flood.
    pub rejected_reports: u32,
}

impl Release {
    /// Of a call answered now, everything on the relay.
    pub fn new(
        settings: Settings,
        networks: Arc<Networks>,
        constraint: Constraint,
        parties: [(Place, Temperament); 2],
        lines: usize,
        now: Duration,
    ) -> Self {
        let parties =
            parties.map(|(place, temperament)| Party { place, temperament, reported: None, has_lied: false });
        Self {
            settings,
            networks,
            constraint,
            parties,
            lines: vec![Default::default(); lines],
            state: State::Anchored { not_before: now + settings.settle },
            answered: now,
            failures: 0,
            timeline: Timeline::new(now),
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
            State::Anchored { .. } | State::Staying => PathState::Anchored,
            State::Probing { .. } => PathState::Probing,
            State::Synchronising { .. } => PathState::Synchronising,
            State::Direct => PathState::Direct,
            State::Holding { .. } | State::Returning { .. } => PathState::Returning,
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to look again.
    pub fn poll_timeout(&self, now: Duration) -> Duration {
        match self.state {
            State::Staying => now + Duration::from_secs(60),
            State::Direct => now + Duration::from_millis(100),
            _ => now + Duration::from_millis(20),
        }
    }

    /// Where a party is, seen anew.
    pub fn placed(&mut self, party: usize, place: Place) {
        if let Some(party) = self.parties.get_mut(party) {
            party.place = place;
        }
    }

    /// What the relay sees of a direction; before [`handle_timeout`](Self::handle_timeout), for each.
    pub fn sight(&mut self, line: usize, from: usize, sight: Sight, now: Duration) {
        let Some(direction) = self.lines.get_mut(line).and_then(|line| line.get_mut(from)) else { return };
        let is_new = direction.sight.is_none_or(|known| known.packets != sight.packets);
        direction.sight = Some(sight);
        let (packets, since) = *direction.window.get_or_insert((sight.packets, now));
        let span = now.saturating_sub(since);
        if span >= RATE_WINDOW {
            direction.rate = Some((sight.packets.saturating_sub(packets)) as f64 / span.as_secs_f64());
            direction.window = Some((sight.packets, now));
        }
        if is_new && let Some(proof) = &mut direction.proof {
            proof.relayed(sight.sequence, sight.heard);
        }
    }

    /// Policy has changed its mind.
    pub fn constrain(&mut self, constraint: Constraint, now: Duration) {
        self.constraint = constraint;
        if constraint == Constraint::MustAnchor {
            self.come_home(Reason::Policy, now);
        } else if self.state == State::Staying {
            // What kept it was perhaps the old policy; failures and refusals still count.
            self.enter(State::Anchored { not_before: now }, Reason::Policy, now);
        }
    }

    /// A party's offer has gone through the relay with the relay's addresses: everything is home.
    pub fn renegotiated(&mut self, now: Duration) {
        self.relay_again();
        self.forget_proofs();
        if self.state() != PathState::Anchored {
            self.timeline.meter(false, now);
        }
        if self.state != State::Staying {
            let not_before = now + self.settings.settle;
            self.enter(State::Anchored { not_before }, Reason::Renegotiated, now);
        }
    }

    /// The port that a party shows at the second address.
    pub fn learnt(&mut self, party: usize, observed: SocketAddr, now: Duration) {
        let Some(party) = self.parties.get_mut(party) else { return };
        let first = party.place.observed;
        party.place.mapping = if observed == first {
            Mapping::EndpointIndependent
        } else {
            Mapping::Dependent { step: i32::from(observed.port()) - i32::from(first.port()) }
        };
        if matches!(self.state, State::Probing { .. })
            && self.parties.iter().all(|party| party.place.effective_mapping() != Mapping::Unknown)
        {
            self.enter(State::Anchored { not_before: now }, Reason::Heard, now);
        }
    }

    /// How a party took what [`Output::Learn`], [`Output::Move`], [`Output::Hold`] or [`Output::Home`] asked of it.
    pub fn moved(&mut self, party: usize, outcome: Moved, now: Duration) {
        let party = party & 1;
        match (&mut self.state, outcome) {
            (State::Probing { .. }, Moved::Refused) => self.stay(Stay::Refused, now),
            (State::Synchronising { accepted }, Moved::Accepted) => {
                accepted[party] = Some(now);
                self.watch(party, now);
                if self.parties[party].temperament.follows_what_it_hears {
                    // The first packet it hears from here would pull it back.
                    self.outputs.push_back(Output::Relaying { to: party, is_on: false });
                }
            }
            (State::Synchronising { .. }, Moved::Refused) => self.come_home(Reason::Refused, now),
            (State::Holding { accepted, why }, _) => {
                accepted[party] = true;
                if *accepted == [true, true] {
                    let why = *why;
                    self.outputs.push_back(Output::Home);
                    self.state = State::Returning { accepted: [None; 2], since: now, why };
                    self.relay_again();
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
        let Some(proof) = &mut direction.proof else {
            let is_known = direction.sight.is_some_and(|sight| sight.ssrc == report.ssrc);
            if is_known {
                direction.lost_before = Some(report.lost);
                self.parties[party].reported = Some(now);
            } else {
                self.reject(party, Lie::Source, now);
            }
            return;
        };
        match proof.reception(report, now) {
            Verdict::Lie(lie) => {
                self.reject(party, lie, now);
                return;
            }
            Verdict::Refuted => self.come_home(Reason::Refuted, now),
            Verdict::Confirmed => {
                self.estimate_gap(line, sender, report, now);
                if self.is_too_lossy(line, sender, report) {
                    self.come_home(Reason::Quality, now);
                } else {
                    self.conclude(now);
                }
            }
            Verdict::Open => {}
        }
        self.parties[party].reported = Some(now);
    }

    /// Looks at the clock. Feed [`sight`](Self::sight) first.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self.state {
            State::Anchored { not_before } if now >= not_before => self.consider(now),
            State::Probing { until } if now >= until => self.stay(Stay::UnknownMapping, now),
            State::Synchronising { accepted } => self.look_after_move(accepted, now),
            State::Direct => self.look_at_direct(now),
            State::Returning { accepted, since, why } => self.look_for_return(accepted, since, why, now),
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
        self.enter(State::Staying, Reason::Policy, now);
    }

    fn reject(&mut self, party: usize, lie: Lie, now: Duration) {
        self.rejected_reports += 1;
        if !std::mem::replace(&mut self.parties[party].has_lied, true) {
            self.timeline.add(Entry::Lie { party, lie }, now);
        }
    }

    /// Is there a way, and is it the moment?
    fn consider(&mut self, now: Duration) {
        if self.constraint == Constraint::MustAnchor {
            return;
        }
        let is_flowing = |direction: &Direction| {
            direction.rate.is_some_and(|rate| rate >= 5.0)
                && direction.sight.is_some_and(|sight| now < sight.heard + Duration::from_millis(500))
        };
        if self.lines.is_empty() || !self.directions().all(|(_, direction)| is_flowing(direction)) {
            return;
        }
        let places = self.parties.each_ref().map(|party| party.place.clone());
        let way = match choose(&places, &self.networks) {
            Ok(way) => way,
            Err(stay) => return self.stay(stay, now),
        };
        match way {
            Way::Learn(whom) => {
                self.timeline.add(Entry::Way(way), now);
                self.outputs.push_back(Output::Learn(whom));
                self.enter(State::Probing { until: now + self.settings.learning }, Reason::Try, now);
            }
            Way::Observed([one, other]) | Way::Local([one, other]) if self.is_moment(now) => {
                self.timeline.add(Entry::Way(way), now);
                self.outputs.push_back(Output::Move([other, one]));
                self.enter(State::Synchronising { accepted: [None; 2] }, Reason::Try, now);
            }
            Way::Observed(_) | Way::Local(_) => {}
        }
    }

    /// A report is due when a move would just have become firm: then a wrong try costs a fraction of a second.
    fn is_moment(&self, now: Duration) -> bool {
        let lead = TURNAROUND + FIRM;
        let mut is_steady = false;
        for party in &self.parties {
            let Some(interval) = party.temperament.report_interval else { continue };
            is_steady = true;
            let since = party.reported.unwrap_or(self.answered);
            // How long until the next report that leaves time for the lead.
            let passed = now.saturating_sub(since).as_secs_f64() % interval.as_secs_f64();
            let left = interval.as_secs_f64() - passed;
            if (lead.as_secs_f64()..lead.as_secs_f64() + 0.1).contains(&left) {
                return true;
            }
        }
        !is_steady
    }

    /// From now on the direction from `party` is to be proven.
    fn watch(&mut self, party: usize, now: Duration) {
        for line in &mut self.lines {
            let direction = &mut line[party];
            if let (Some(sight), Some(rate)) = (direction.sight, direction.rate) {
                direction.proof = Some(Proof::new(
                    sight.ssrc,
                    sight.clock_rate,
                    rate,
                    sight.sequence,
                    sight.heard.max(now),
                ));
                (direction.quality, direction.lossy) = (None, 0);
            }
        }
    }

    fn forget_proofs(&mut self) {
        for direction in self.lines.iter_mut().flatten() {
            direction.proof = None;
            (direction.window, direction.rate) = (None, None);
        }
    }

    fn relay_again(&mut self) {
        for to in 0..2 {
            if self.parties[to].temperament.follows_what_it_hears {
                self.outputs.push_back(Output::Relaying { to, is_on: true });
            }
        }
    }

    /// Whether every direction is off the relay: for the meter.
    fn is_off_the_relay(&self, now: Duration) -> bool {
        self.directions().all(|(_, direction)| {
            direction
                .proof
                .as_ref()
                .is_some_and(|proof| now > proof.last_relayed() + Duration::from_millis(100))
        })
    }

    fn conclude(&mut self, now: Duration) {
        let is_proven = self.directions().all(|(_, direction)| {
            direction.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some())
        });
        if is_proven && matches!(self.state, State::Synchronising { .. }) {
            self.enter(State::Direct, Reason::Proven, now);
        }
    }

    fn look_after_move(&mut self, accepted: [Option<Duration>; 2], now: Duration) {
        let [Some(one), Some(other)] = accepted else { return };
        self.timeline.meter(self.is_off_the_relay(now), now);
        let both = one.max(other);
        let is_back = self.directions().any(|(from, direction)| {
            let since = accepted[from].unwrap_or(both) + STRAGGLERS;
            direction.sight.is_some_and(|sight| sight.heard > since)
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        let late = self.directions().any(|(from, direction)| {
            let Some(proof) = &direction.proof else { return true };
            if proof.confirmed_at().is_some() {
                return false;
            }
            // With the other direction proven this one is likely: its reporter may take its time.
            let patience = if self
                .directions()
                .any(|(_, other)| other.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some()))
            {
                self.parties[1 - from].temperament.longest_report_gap + TURNAROUND
            } else {
                self.settings.unproven
            };
            now > both + patience.max(self.settings.unproven)
        });
        if late {
            self.come_home(Reason::Unproven, now);
        }
    }

    fn look_at_direct(&mut self, now: Duration) {
        self.timeline.meter(self.is_off_the_relay(now), now);
        let is_back = self.directions().any(|(_, direction)| {
            direction.proof.as_ref().is_some_and(|proof| {
                proof.confirmed_at().is_some_and(|at| proof.last_relayed() > at + STRAGGLERS)
            })
        });
        if is_back {
            return self.come_home(Reason::CameBack, now);
        }
        let is_quiet = self.parties.iter().any(|party| {
            let limit = party.temperament.longest_report_gap + Duration::from_millis(500);
            party.reported.is_none_or(|at| now > at + limit)
        });
        if is_quiet {
            self.come_home(Reason::ReportsStopped, now);
        }
    }

    /// Two reports in a row with too much loss between them.
    fn is_too_lossy(&mut self, line: usize, sender: usize, report: &Reception) -> bool {
        let limit = i64::from(self.settings.loss_percent);
        let Some(direction) = self.lines.get_mut(line).map(|line| &mut line[sender]) else { return false };
        let before = direction.quality.replace((report.highest, report.lost));
        let Some((highest, lost)) = before else { return false };
        let (expected, missing) =
            (i64::from(report.highest.wrapping_sub(highest)), i64::from(report.lost) - i64::from(lost));
        let is_lossy = expected >= 20 && missing * 100 > expected * limit;
        direction.lossy = if is_lossy { direction.lossy + 1 } else { 0 };
        direction.lossy >= 2
    }

    /// The first report after a move says how many packets the receiver has missed since its last one before.
    fn estimate_gap(&mut self, line: usize, sender: usize, report: &Reception, now: Duration) {
        let Some(direction) = self.lines.get_mut(line).map(|line| &mut line[sender]) else { return };
        if let (Some(before), Some(rate)) = (direction.lost_before.take(), direction.rate) {
            let missed = f64::from((report.lost - before).max(0));
            let length = Duration::from_secs_f64(missed / rate.max(1.0));
            self.timeline.add(Entry::Gap { from: sender, length, is_estimate: true }, now);
        }
    }

    /// Back to the relay. Phones that follow what they hear would stay with each other on a path that works, so they
    /// are put on hold first.
    fn come_home(&mut self, why: Reason, now: Duration) {
        if !matches!(self.state, State::Synchronising { .. } | State::Direct) {
            return;
        }
        let follows = self.parties.iter().any(|party| party.temperament.follows_what_it_hears);
        let is_path_dead = matches!(why, Reason::Refuted | Reason::Unproven);
        self.timeline.meter(false, now);
        if follows && !is_path_dead && why != Reason::CameBack && why != Reason::Refused {
            self.outputs.push_back(Output::Hold);
            self.enter(State::Holding { accepted: [false; 2], why }, why, now);
        } else {
            self.relay_again();
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
        let heard = |from: usize| {
            self.lines
                .iter()
                .filter_map(|line| line[from].sight)
                .map(|sight| sight.heard)
                .max()
                .filter(|at| *at > since)
        };
        let at = [heard(0), heard(1)];
        let is_home = at.iter().all(Option::is_some) && accepted.iter().all(Option::is_some);
        if !is_home && now < since + self.settings.homecoming {
            return;
        }
        for from in 0..2 {
            if let (Some(at), Some(accepted)) = (at[from], accepted[from]) {
                let length = at.saturating_sub(accepted.min(at));
                self.timeline.add(Entry::Gap { from, length, is_estimate: false }, now);
            }
        }
        let has_worked = self.directions().any(|(_, direction)| {
            direction.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some())
        });
        self.forget_proofs();
        match why {
            Reason::Policy => self.enter(State::Anchored { not_before: now }, Reason::Heard, now),
            Reason::Refused => self.stay(Stay::Refused, now),
            _ if has_worked && self.failures + 1 < self.settings.failures => {
                self.failures += 1;
                let not_before = now + self.settings.rest;
                self.enter(State::Anchored { not_before }, Reason::Heard, now);
            }
            _ => self.stay(Stay::Failed, now),
        }
    }
}
