//! What the parties' reports say, on the relay and off it.

use std::time::Duration;

use media_wire::rtcp::Silence;
use seam::Side;
use seam::path::{Entry, Evidence, Lie, Reason, Stay};

use super::{Direction, REPORT_SPACING, RESTARTING, Release, State, UNSPOKEN};
use crate::path::proof::{Reception, Verdict};
use crate::side::Track;

impl Release {
    /// A party counts what it sends anew, and so what it receives: with each re-INVITE, as PJSIP does.
    pub fn counts_anew(&mut self, track: Track) {
        if let Some(direction) = self.direction(track) {
            direction.counts_anew();
        }
    }

    /// A sender's own report; before the [`reception`](Self::reception) that comes with it.
    pub fn sender_report(&mut self, track: Track, ssrc: u32, packets: u32, now: Duration) {
        let direction = self.direction(track);
        let evidence = direction.and_then(|direction| direction.sender_report(ssrc, packets, now));
        if let Some(evidence) = evidence {
            self.refuted(track, evidence, now);
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
            self.refuted(!track, evidence, now);
        }
    }

    /// Packets that were sent have not arrived. Into the NAT of a receiver that has not sent itself for so long nobody may get: that
    /// brings the media home, but is no fault of the path.
    fn refuted(&mut self, sent: Track, evidence: Evidence, now: Duration) {
        if !matches!(self.state, State::Synchronising { .. } | State::Direct { .. }) {
            return;
        }
        let Track { line, party: sender } = sent;
        self.timeline.add(Entry::Evidence { from: sender, is_confirmed: false, evidence }, now);
        (self.lines[line][sender].is_proven, self.lines[line][sender].is_dead) = (false, Some(true));
        let receiver = &self.lines[line][!sender];
        self.homecoming.is_blameless =
            !receiver.has_sent(now) && !receiver.is_confirmed_since(now.saturating_sub(UNSPOKEN));
        self.come_home(Reason::Refuted, now);
    }

    /// `party` reports about what it receives, which the other party sends. The sender's [`sight`](Self::sight) comes
    /// first: a report may already speak of what the relay has just carried.
    pub fn reception(&mut self, track: Track, report: &Reception, now: Duration) {
        let (Track { line, party }, sender) = (track, !track.party);
        let Some(direction) = self.direction(!track) else { return };
        if direction.reported.is_some_and(|before| now < before.saturating_add(REPORT_SPACING)) {
            self.rejected_reports = self.rejected_reports.saturating_add(1);
            return;
        }
        if direction.says_nothing(report) {
            return;
        }
        // Whoever counts what it sends anew counts what it receives anew.
        let is_anew = self.lines[line][party].begun_anew();
        let direction = &mut self.lines[line][sender];
        let evidence = direction.evidence(report, now);
        let was_confirmed = direction.is_confirmed();
        let Some(verdict) = direction.judge(report, now) else {
            return self.reported_on_relay(track, (report, is_anew), now);
        };
        if let Verdict::Lie(lie) = verdict {
            if direction.excuses(lie, report, is_anew, now) {
                return;
            }
            return self.reject(party, lie, now);
        }
        self.lines[line][sender].reported = Some(now);
        match (verdict, evidence) {
            (Verdict::Refuted, Some(evidence)) => self.refuted(!track, evidence, now),
            (Verdict::Confirmed, evidence) => {
                if let Some(evidence) = evidence.filter(|_| !was_confirmed) {
                    self.timeline.add(Entry::Evidence { from: sender, is_confirmed: true, evidence }, now);
                }
                self.confirmed(!track, (report, is_anew), now);
            }
            _ => {}
        }
    }

    /// Its packets pass the relay; if a trial was before, the report may tell what became of that.
    fn reported_on_relay(
        &mut self,
        Track { line, party }: Track,
        (report, is_anew): (&Reception, bool),
        now: Duration,
    ) {
        let sender = !party;
        let receiver = &self.lines[line][party];
        let (is_counted_on, has_sent) = (receiver.is_counted_on(), receiver.was_tried());
        let counts_anew = self.parties[party].temperament.counts_anew();
        let direction = &mut self.lines[line][sender];
        // Of one that has forgotten what it lost before it came home, a count that is about as great as before says nothing.
        let outcome = direction.weigh(report).filter(|_| !counts_anew);
        if let Err(lie) = direction.reported_on_relay(report, now) {
            if direction.excuses(lie, report, is_anew, now) {
                return;
            }
            return self.reject(party, lie, now);
        }
        self.parties[party].is_doubted = false;
        let of_trial = outcome.and_then(|outcome| direction.gap_of_trial(&outcome));
        if let Some(gap) = direction.gap_of_return(report, is_anew) {
            self.timeline.add(Entry::Gap { from: sender, gap: of_trial.unwrap_or(gap) }, now);
        }
        if let (Some(outcome), State::Weighing { .. }, true) = (outcome, self.state, is_counted_on)
            && !direction.is_proven
        {
            // Who was silent in the trial has opened its NAT to nobody: then nothing is refuted.
            let is_refuted = outcome.is_refutation() && has_sent;
            direction.is_proven = outcome.is_proof();
            if direction.is_proven || is_refuted {
                self.timeline.add(Entry::Trial { from: sender, outcome }, now);
            }
            if is_refuted {
                self.forget_trial();
                self.stay(Stay::Failed, now);
            }
        }
    }

    fn confirmed(
        &mut self,
        Track { line, party: sender }: Track,
        (report, is_anew): (&Reception, bool),
        now: Duration,
    ) {
        self.parties[!sender].is_doubted = false;
        let lines = self.lines[line].each_ref().map(Direction::line_loss).iter().sum();
        let direction = &mut self.lines[line][sender];
        if let Some(gap) = direction.gap_of_leaving(report, is_anew) {
            self.timeline.add(Entry::Gap { from: sender, gap }, now);
        }
        let is_lossy = direction.is_too_lossy(report, self.settings.loss_percent, lines);
        let is_shaky = direction.is_too_shaky(report, self.settings.jitter);
        if is_lossy || is_shaky {
            self.come_home(Reason::Quality, now);
        } else {
            self.conclude(now);
        }
    }

    /// It proves nothing. A lie is told of once; but phones begin their streams and counts anew with a re-INVITE, and what one
    /// says then of the time before, or of what the relay has not seen yet, is none until it says so again.
    fn reject(&mut self, party: Side, lie: Lie, now: Duration) {
        self.rejected_reports = self.rejected_reports.saturating_add(1);
        let is_first = !std::mem::replace(&mut self.parties[party].is_doubted, true);
        let [one, other] = self.parties.each_ref().map(|party| party.restarted);
        let may_be_true = is_first && now < one.max(other).saturating_add(RESTARTING);
        if may_be_true && lie != Lie::Backwards {
            return;
        }
        if !std::mem::replace(&mut self.parties[party].has_lied, true) {
            self.timeline.add(Entry::Lie { party, lie }, now);
        }
    }
}
