//! One direction of one m-line: what the relay sees of it, and what its receiver reports.

use std::time::Duration;

use media_wire::rtcp::Silence;
use seam::path::{Evidence, Gap, Lie, Reason, TrialOutcome};
use serde::{Deserialize, Serialize};

use super::counted::{Counted, later};
use super::phone::PATIENCE;
use super::proof::{ABSURD_JITTER_SECONDS, AHEAD, Proof, Reception, Verdict};
use super::quality::Quality;
use super::sight::Sight;
use super::trial::Trial;
use crate::clock::timed;

/// Packets are counted over at least this for a stream's rate.
const RATE_WINDOW: Duration = Duration::from_millis(400);
/// A stream of fewer packets a second is silence, or comfort noise: too few for a trial to tell of them.
const FLOWING: f64 = 12.0;
/// A report may be so many packets older than the one before it.
const OVERTAKEN: i64 = 25;
/// A sender may be so much faster than it was.
const FASTER: f64 = 1.5;
/// So many packets may reach their receiver past the relay, as copies on another way, or be lost to it.
const UNSEEN: i16 = 100;
/// Packets that a sender's report and they themselves may have overtaken each other by.
const REORDERED: u64 = 5;
/// A stream of somebody who never counts must go on within this, by reports, or it is not known to be alive.
const STANDING: Duration = Duration::from_secs(1);
/// No direction is direct for more than 20 s without a report that speaks for it, however the call is looked at: three reports of RFC
/// 3550's longest interval, of which two were lost.
pub(super) const UNSPOKEN: Duration = Duration::from_millis(19_400);
/// Three reports come within this after a re-INVITE, of all kinds of phones.
const UNREPORTED: Duration = Duration::from_secs(16);
/// So long after both have agreed to move a report knows of what was sent since: a packet's way to its receiver and the report's from
/// there. One that is sooner may be about the time before, and is no evidence of the trial.
const TELLING: Duration = Duration::from_millis(100);
/// So many packets of a trial are sent by who never pauses.
const STEADY: u16 = 37;
/// One that was heard so lately speaks.
const SPEAKING: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Direction {
    pub(super) sight: Option<Sight>,
    flow: Flow,
    pub(super) proof: Option<Proof>,
    pub(super) trial: Option<Trial>,
    attempt: Attempt,
    /// A trial has proven it, or a report that came during one.
    pub(super) is_proven: bool,
    /// When its receiver last reported about it.
    pub(super) reported: Option<Duration>,
    word: Word,
    /// What its sender says that it has sent.
    counted: Counted,
    /// When it last said so.
    spoke: Option<Duration>,
    quality: Quality,
    lost: LostBefore,
    /// Whether, by the last that was heard of it, nothing arrives past the relay; `None`: nothing was heard of it yet.
    pub(super) is_dead: Option<bool>,
    /// Sources before the present one, as seen here or told by its sender.
    sources: [Option<u32>; 2],
    /// Its author's counts have begun anew since it was asked.
    has_begun_anew: bool,
}

timed!(Direction { sight, flow, proof, attempt, reported, word, counted, spoke; trial, is_proven, quality, lost, is_dead, sources, has_begun_anew });

/// What reports last said for it, or against it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Word {
    /// When a report last spoke for it: it goes on arriving, or its sender says that it has nothing to send.
    spoken_for: Option<Duration>,
    /// A report has found that it does not go on, and its sender, which never counts, cannot say whether anything was sent: what
    /// that is for the path, which is not known to be alive.
    stalled: Option<Reason>,
}

timed!(Word { spoken_for; stalled });

/// How fast it flows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Flow {
    /// Packets and time at the start of the current window.
    window: Option<(u64, Duration)>,
    /// Packets a second in the one before.
    rate: Option<f64>,
}

timed!(Flow { window; rate });

impl Flow {
    fn passes(&mut self, packets: u64, now: Duration) {
        let (before, since) = *self.window.get_or_insert((packets, now));
        let span = now.saturating_sub(since);
        if span >= RATE_WINDOW {
            self.rate = Some(packets.saturating_sub(before) as f64 / span.as_secs_f64());
            self.window = Some((packets, now));
        }
    }
}

/// A move of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Attempt {
    /// When both had agreed, and it could arrive.
    met: Option<Duration>,
    /// Since then its receiver has reported, and only that nothing came.
    is_missed: bool,
    /// When a trial began to move it.
    tried_at: Option<Duration>,
}

timed!(Attempt { met, tried_at; is_missed });

/// What its receiver had lost by its last report before it went.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct LostBefore {
    /// Off the relay.
    leaving: Option<i32>,
    /// Home, where it is now, or is about to be.
    returning: Option<i32>,
}

impl Direction {
    pub(super) fn see(&mut self, sight: Sight, now: Duration) {
        let is_new = self.sight.is_none_or(|known| known.packets != sight.packets);
        if self.sight.is_some_and(|known| known.ssrc != sight.ssrc) {
            self.counted = Counted::default();
        }
        self.counted.passes(sight.packets, now);
        if let Some(trial) = &mut self.trial {
            trial.see(&sight);
        }
        if let Some(known) = self.sight.filter(|known| known.ssrc == sight.ssrc && self.proof.is_none()) {
            let sent = sight.sequence.wrapping_sub(known.sequence);
            if (sent as i16) >= 0 {
                self.quality.passes(sent, sight.packets.saturating_sub(known.packets));
            }
        }
        self.know(sight.ssrc);
        self.sight = Some(sight);
        self.flow.passes(sight.packets, now);
        if is_new && let Some(proof) = &mut self.proof {
            proof.relayed(sight.sequence, sight.heard);
        }
    }

    pub(super) fn is_flowing(&self, now: Duration) -> bool {
        self.flow.rate.is_some_and(|rate| rate >= FLOWING)
            && self.sight.is_some_and(|sight| now < sight.heard.saturating_add(SPEAKING))
    }

    /// Whether anything was heard of it at the relay since then.
    pub(super) fn is_heard_since(&self, since: Duration) -> bool {
        self.sight.is_some_and(|sight| sight.heard > since)
    }

    /// From now on it is to be proven.
    pub(super) fn watch(&mut self, now: Duration) {
        if let Some(sight) = self.sight {
            let heard = sight.heard.max(now);
            self.proof = Some(Proof::new(sight.ssrc, sight.clock_rate, sight.sequence, heard));
            (self.word.stalled, self.attempt.is_missed, self.is_dead) = (None, false, None);
            (self.attempt.met, self.trial) = (None, None);
        }
        self.quality.begin();
    }

    /// Both have agreed to move: from now on its packets can arrive.
    pub(super) fn meet(&mut self, now: Duration) {
        self.attempt.met = Some(now);
    }

    /// It is at the relay again; what a trial has shown stays known, also by a report that came on the way home.
    pub(super) fn forget(&mut self) {
        self.is_proven = if self.trial.is_some() { self.is_confirmed() } else { self.is_proven };
        self.proof = None;
        self.flow = Flow::default();
        self.quality.begin();
    }

    /// It is told to come home; what its receiver says next is weighed against what it said last.
    pub(super) fn turn_back(&mut self) {
        self.lost.returning = self.proof.as_ref().and_then(Proof::lost).or(self.lost.leaving);
    }

    /// What it comes home by is nothing that was asked for here.
    pub(super) fn forget_return(&mut self) {
        self.lost.returning = None;
    }

    fn know(&mut self, ssrc: u32) {
        if self.sources[0] != Some(ssrc) {
            self.sources = [Some(ssrc), self.sources[0]];
        }
    }

    /// Whether a report says nothing of any packet of this direction: it names the source 0, as a phone does that has not heard
    /// anybody yet, or one from before.
    pub(super) fn says_nothing(&self, report: &Reception) -> bool {
        let present = self.proof.as_ref().map(Proof::ssrc).or(self.sight.map(|sight| sight.ssrc));
        let is_present = present == Some(report.ssrc);
        (report.ssrc == 0 && report.highest == 0)
            || (!is_present && self.sources.contains(&Some(report.ssrc)))
    }

    /// Whether an honest phone says this, too, although it can't be true of what is known: packets that were sent elsewhere are not known
    /// here, a receiver that begins anew counts no rounds of the sixteen bits that go on, and reports overtake each other.
    pub(super) fn excuses(&self, lie: Lie, report: &Reception, is_anew: bool, now: Duration) -> bool {
        let number = report.highest as u16;
        match lie {
            Lie::TooMany => self.sight.is_some_and(|sight| {
                let unseen = now.saturating_sub(sight.heard).as_secs_f64() * self.counted.peak() * FASTER;
                let ahead = number.wrapping_sub(sight.sequence) as i16;
                f64::from(ahead) <= f64::from(UNSEEN) + unseen
            }),
            Lie::Backwards => {
                let near = self.quality.highest().map(|highest| later(number, highest as u16));
                is_anew || near.is_some_and(|near| near > -OVERTAKEN)
            }
            Lie::Source | Lie::Jitter => false,
        }
    }

    /// Its sender counts what it sends anew, and so what it receives.
    pub(super) fn counts_anew(&mut self) {
        self.has_begun_anew = true;
    }

    /// Whether it has, since this was asked last.
    pub(super) fn begun_anew(&mut self) -> bool {
        std::mem::take(&mut self.has_begun_anew)
    }

    /// A trial is over, and what it shows will be told by the next report.
    pub(super) fn end_trial(&mut self) {
        self.is_proven = self.is_confirmed();
        self.attempt.tried_at = self.proof.as_ref().map(Proof::last_relayed);
        let early = self.sent_early();
        self.trial = self.sight.map(|sight| Trial::new(&sight, self.lost.leaving.unwrap_or(0), early));
    }

    /// How many packets went elsewhere, at the most, before both had agreed to move: where an answer was lost, half a second's.
    fn sent_early(&self) -> u16 {
        let moved = self.proof.as_ref().map(Proof::last_relayed);
        let alone = self.attempt.met.zip(moved).map(|(met, moved)| met.saturating_sub(moved));
        (alone.unwrap_or_default().as_secs_f64() * self.counted.peak()) as u16
    }

    pub(super) fn forget_trial(&mut self) {
        (self.trial, self.is_proven) = (None, false);
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.is_proven || self.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some())
    }

    /// A report while its packets pass the relay.
    pub(super) fn reported_on_relay(&mut self, report: &Reception, now: Duration) -> Result<(), Lie> {
        let Some(sight) = self.sight.filter(|sight| sight.ssrc == report.ssrc) else {
            return Err(Lie::Source);
        };
        if report.jitter.checked_div(sight.clock_rate).unwrap_or(report.jitter) >= ABSURD_JITTER_SECONDS {
            return Err(Lie::Jitter);
        }
        if (report.highest as u16).wrapping_sub(sight.sequence) as i16 > UNSEEN {
            return Err(Lie::TooMany);
        }
        (self.lost.leaving, self.reported) = (Some(report.lost), Some(now));
        self.quality.on_relay(report);
        Ok(())
    }

    /// What a report says of the trial.
    pub(super) fn weigh(&self, report: &Reception) -> Option<TrialOutcome> {
        self.trial?.weigh(report, &self.sight?)
    }

    /// Whether its sender is known to have been silent in the trial, or has been since: only then did it cost nobody anything.
    pub(super) fn was_silent(&self) -> bool {
        let Some((trial, sight)) = self.trial.zip(self.sight) else { return false };
        trial.was_silent(&sight)
    }

    /// Whether enough was sent in the trial for a report to tell.
    pub(super) fn was_tried(&self) -> bool {
        self.trial.is_some_and(|trial| trial.sent().is_some())
    }

    /// Whether it was missed in the trial by somebody who has reported then, and counts anew when it is home. It must have been sent for
    /// nearly all of the time, or it may have begun after that report.
    pub(super) fn was_missed(&self) -> bool {
        self.attempt.is_missed && self.trial.and_then(|trial| trial.sent()).is_some_and(|sent| sent >= STEADY)
    }

    /// Its sender's own report; what refutes the path by it, if anything does.
    pub(super) fn sender_report(&mut self, ssrc: u32, packets: u32, now: Duration) -> Option<Evidence> {
        self.know(ssrc);
        let known = self.proof.as_ref().map(Proof::ssrc).or(self.sight.map(|sight| sight.ssrc))?;
        let relayed = self.sight.filter(|sight| sight.ssrc == ssrc && self.proof.is_none());
        if ssrc != known {
            // One that has told of itself before is another source now; else its reports are about something else.
            let proof = self.proof.as_mut().filter(|_| self.counted.count().is_some())?;
            proof.begin_anew(ssrc, now);
            self.counted = Counted::default();
            self.quality.begin();
        }
        self.spoke = Some(now);
        let moved = self.proof.as_ref().and_then(Proof::moved);
        self.counted.says_since(packets, relayed.map(|sight| (sight.sequence, sight.heard)), moved, now);
        self.proof.as_ref()?.is_refuted_by(&self.counted)
    }

    /// Its sender reports without a word of sending.
    pub(super) fn rests(&mut self, ssrc: u32, now: Duration) {
        let known = self.proof.as_ref().map(Proof::ssrc).or(self.sight.map(|sight| sight.ssrc));
        if known == Some(ssrc) {
            self.spoke = Some(now);
            self.counted.rests(now);
        }
    }

    /// Its receiver, which has reported about it before, reports of nobody: what refutes the path by that, if anything.
    pub(super) fn heard_nothing(&mut self, silence: Silence, now: Duration) -> Option<Evidence> {
        self.reported?;
        let refuted = self.proof.as_mut()?.heard_nothing(silence, &self.counted, now);
        if refuted.is_none() {
            let was_missed = self.attempt.is_missed;
            self.stand_still(Reason::ReportsStopped, now);
            // Who has just thrown away what it had heard does not say that it missed anything.
            if silence == Silence::CountedAnew {
                self.attempt.is_missed = was_missed;
            }
        }
        refuted
    }

    /// A report knows of no progress, and refutes nothing. That speaks for the path if the sender has told what it sent, of late.
    fn stand_still(&mut self, why: Reason, now: Duration) {
        if self.counted.has_spoken_since(now.saturating_sub(PATIENCE)) {
            self.word.spoken_for = Some(now);
        }
        let known = self.proof.as_ref().map(Proof::marked_at);
        let is_stalled =
            !self.counted.is_counting() && known.is_some_and(|at| now > at.saturating_add(STANDING));
        self.word.stalled = is_stalled.then_some(why);
        let is_telling = self.attempt.met.is_some_and(|met| now >= met.saturating_add(TELLING));
        self.attempt.is_missed |= is_telling && self.proof.is_some() && self.trial.is_none();
    }

    /// Whether its sender has said that it sends, off the relay.
    pub(super) fn has_sent(&self, now: Duration) -> bool {
        let mark = self.proof.as_ref().and_then(Proof::mark);
        mark.zip(self.counted.sent_by(now)).is_some_and(|(mark, sent)| later(sent, mark) > i64::from(AHEAD))
    }

    /// Why it is not known to be alive any more, if so: a report says that it stands, or none has spoken for it for too long, of a
    /// direct path since `since`.
    pub(super) fn is_unknown(&self, since: Duration, now: Duration) -> Option<Reason> {
        // Who has not been reported at all since the move may report to elsewhere.
        let spoken_for = self.word.spoken_for.filter(|at| *at > since);
        let patience = if spoken_for.is_some() { UNSPOKEN } else { UNREPORTED };
        let is_late = now > spoken_for.unwrap_or(since).saturating_add(patience);
        self.word.stalled.or(is_late.then_some(Reason::ReportsStopped))
    }

    /// Whether it was spoken for on this direct path, and has only not been for too long: reports were lost, and none has said anything
    /// against it.
    pub(super) fn has_only_lapsed(&self, since: Duration) -> bool {
        self.word.stalled.is_none() && self.word.spoken_for.is_some_and(|at| at > since)
    }

    /// Whether its receiver has reported since then.
    pub(super) fn is_reported_since(&self, since: Duration) -> bool {
        self.reported.is_some_and(|at| at > since)
    }

    /// Its packets went on arriving off the relay, by a report since then.
    pub(super) fn is_confirmed_since(&self, since: Duration) -> bool {
        self.proof.as_ref().is_some_and(|proof| proof.is_confirmed_since(since))
    }

    /// Whether its sender's own reports come, or have since.
    pub(super) fn has_spoken_since(&self, since: Duration) -> bool {
        self.spoke.is_some_and(|at| at > since)
    }

    /// Whether its sender's own count holds all that the relay has seen of it. A phone that begins anew with each re-INVITE
    /// has forgotten what it lost, too.
    pub(super) fn is_counted_on(&self) -> bool {
        let (Some(sent), Some(sight)) = (self.counted.count(), self.sight) else { return false };
        u64::from(sent).saturating_add(REORDERED) >= sight.packets
    }

    /// What its sender's line loses, percent.
    pub(super) fn line_loss(&self) -> f64 {
        self.quality.line_loss()
    }

    /// Whether it loses too much, besides what both `lines` lose; see [`Quality`].
    pub(super) fn is_too_lossy(&mut self, report: &Reception, percent: u32, lines: f64) -> bool {
        self.quality.is_too_lossy(report, percent, lines)
    }

    /// Whether its jitter is too much.
    pub(super) fn is_too_shaky(&mut self, report: &Reception, limit: Duration) -> bool {
        let rate = self.sight.map_or(8000, |sight| sight.clock_rate);
        self.quality.is_too_shaky(report, rate, limit)
    }

    /// The first report after a move says how many packets the receiver has missed since its last one before.
    pub(super) fn gap_of_leaving(&mut self, report: &Reception, is_anew: bool) -> Option<Gap> {
        let before = self.lost.leaving.take()?;
        Some(self.missing(before, report, is_anew))
    }

    /// The first report after it has come home, likewise.
    pub(super) fn gap_of_return(&mut self, report: &Reception, is_anew: bool) -> Option<Gap> {
        // Not one that was under way before anything came here again.
        self.sight.filter(|sight| sight.silence.is_some_and(|(_, end)| sight.heard > end))?;
        let before = self.lost.returning.take()?;
        Some(self.missing(before, report, is_anew))
    }

    fn missing(&self, before: i32, report: &Reception, is_anew: bool) -> Gap {
        if is_anew || report.lost < before {
            return Gap::Unknown;
        }
        let packets = report.lost.saturating_sub(before).unsigned_abs();
        let length = Duration::from_secs_f64(f64::from(packets) / self.counted.peak().max(1.0));
        Gap::Missing { packets, length }
    }

    /// The gap of a trial of whose packets just this many are missing: all of them, and no others.
    pub(super) fn gap_of_trial(&self, outcome: &TrialOutcome) -> Option<Gap> {
        let (start, end) = self.sight?.silence?;
        let is_its = self.attempt.tried_at.is_some_and(|at| end > at);
        (is_its && outcome.lost == i32::from(outcome.sent)).then(|| Gap::Measured(end.saturating_sub(start)))
    }

    /// What a report says of it while it is to be proven.
    pub(super) fn judge(&mut self, report: &Reception, now: Duration) -> Option<Verdict> {
        let verdict = self.proof.as_mut()?.reception(report, &mut self.counted, now);
        match verdict {
            Verdict::Confirmed => self.is_dead = Some(false),
            Verdict::Refuted => self.is_dead = Some(true),
            Verdict::Open | Verdict::Lie(_) => {}
        }
        match verdict {
            Verdict::Confirmed => {
                (self.word.spoken_for, self.word.stalled, self.attempt.is_missed) = (Some(now), None, false);
            }
            Verdict::Open => self.stand_still(Reason::Refuted, now),
            // As good as no report.
            Verdict::Lie(Lie::Backwards) if !self.counted.is_counting() => {
                self.word.stalled = Some(Reason::ReportsStopped);
            }
            Verdict::Refuted | Verdict::Lie(_) => {}
        }
        Some(verdict)
    }

    /// What a report is weighed against.
    pub(super) fn evidence(&self, report: &Reception, now: Duration) -> Option<Evidence> {
        self.proof.as_ref().map(|proof| proof.evidence(report, &self.counted, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(10_000 + milliseconds)
    }

    fn sight(packets: u64, sequence: u16, heard: Duration) -> Sight {
        Sight { ssrc: 7, clock_rate: 8000, packets, sequence, heard, silence: None }
    }

    fn report(highest: u32) -> Reception {
        Reception { ssrc: 7, highest, lost: 0, jitter: 8 }
    }

    /// On trial from 10 s to 10.7 s.
    fn tried() -> Direction {
        let mut direction = Direction::default();
        direction.see(sight(500, 1_500, at(0)), at(0));
        direction.watch(at(0));
        direction.meet(at(30));
        direction
    }

    #[test]
    fn what_a_report_says_on_the_way_home_from_a_trial_stays_known() {
        let mut direction = tried();
        direction.end_trial();
        assert!(!direction.is_proven);
        assert_eq!(direction.judge(&report(1_530), at(750)), Some(Verdict::Confirmed));
        direction.forget();
        assert!(direction.is_proven);
    }

    #[test]
    fn what_was_confirmed_before_a_path_broke_proves_nothing_afterwards() {
        let mut direction = tried();
        assert_eq!(direction.judge(&report(1_520), at(400)), Some(Verdict::Confirmed));
        direction.forget();
        assert!(!direction.is_proven);
    }

    #[test]
    fn a_report_that_came_before_anything_could_is_no_evidence_of_a_trial() {
        for (milliseconds, is_telling) in [(40, false), (120, false), (300, true)] {
            let mut direction = tried();
            assert_eq!(direction.judge(&report(1_500), at(milliseconds)), Some(Verdict::Open));
            direction.end_trial();
            direction.forget();
            direction.see(sight(600, 1_640, at(900)), at(900));
            assert_eq!(direction.was_missed(), is_telling, "{milliseconds}");
        }
    }
}
