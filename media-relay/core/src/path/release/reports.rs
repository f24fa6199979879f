//! What the parties' reports say, on the relay and off it.

use std::time::Duration;

use super::{REPORT_SPACING, Release, State};
use crate::path::place::Stay;
use crate::path::proof::{Lie, Reception, Verdict};
use crate::path::timeline::{Entry, Reason};

impl Release {
    /// A sender's own report; before the [`reception`](Self::reception) that comes with it.
    pub fn sender_report(&mut self, line: usize, from: usize, ssrc: u32, packets: u32, now: Duration) {
        if let Some(direction) = self.lines.get_mut(line).and_then(|line| line.get_mut(from)) {
            direction.sender_report(ssrc, packets, now);
        }
    }

    /// `party` reports about what it receives, which the other party sends. The sender's [`sight`](Self::sight) comes
    /// first: a report may already speak of what the relay has just carried.
    pub fn reception(&mut self, line: usize, party: usize, report: &Reception, now: Duration) {
        let (party, sender) = (party & 1, (party & 1) ^ 1);
        let Some(direction) = self.lines.get_mut(line).map(|line| &mut line[sender]) else { return };
        if direction.reported.is_some_and(|before| now < before.saturating_add(REPORT_SPACING)) {
            self.rejected_reports = self.rejected_reports.saturating_add(1);
            return;
        }
        let evidence = direction.proof.as_ref().map(|proof| proof.evidence(report, now));
        let was_confirmed = direction.is_confirmed();
        let Some(verdict) = direction.judge(report, now) else {
            return self.reported_on_relay(line, party, report, now);
        };
        let told = match verdict {
            Verdict::Confirmed => !was_confirmed,
            Verdict::Refuted => matches!(self.state, State::Synchronising { .. } | State::Direct { .. }),
            Verdict::Open | Verdict::Lie(_) => false,
        };
        if told && let Some(evidence) = evidence {
            let is_confirmed = verdict == Verdict::Confirmed;
            self.timeline.add(Entry::Evidence { from: sender, is_confirmed, evidence }, now);
        }
        if let Verdict::Lie(lie) = verdict {
            return self.reject(party, lie, now);
        }
        self.lines[line][sender].reported = Some(now);
        match verdict {
            Verdict::Refuted => self.come_home(Reason::Refuted, now),
            Verdict::Confirmed => self.confirmed(line, sender, report, now),
            Verdict::Open | Verdict::Lie(_) => {}
        }
    }

    /// Its packets pass the relay; if a trial was before, the report may tell what became of that.
    fn reported_on_relay(&mut self, line: usize, party: usize, report: &Reception, now: Duration) {
        let sender = party ^ 1;
        let is_counted_on = self.lines[line][party].is_counted_on();
        let direction = &mut self.lines[line][sender];
        let outcome = direction.weigh(report);
        if let Err(lie) = direction.reported_on_relay(report, now) {
            return self.reject(party, lie, now);
        }
        if let (Some(outcome), State::Weighing { .. }, true) = (outcome, self.state, is_counted_on)
            && !direction.is_proven
        {
            direction.is_proven = outcome.is_proof();
            self.timeline.add(Entry::Trial { from: sender, outcome }, now);
            if !outcome.is_proof() {
                self.stay(Stay::Failed, now);
            }
        }
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

    fn reject(&mut self, party: usize, lie: Lie, now: Duration) {
        self.rejected_reports = self.rejected_reports.saturating_add(1);
        if !std::mem::replace(&mut self.parties[party].has_lied, true) {
            self.timeline.add(Entry::Lie { party, lie }, now);
        }
    }
}
