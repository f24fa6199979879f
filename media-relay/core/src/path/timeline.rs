//! What became of a call's media path, and when: kept with its record, shown to operators, billed.

use std::time::Duration;

use seam::Event;
use seam::path::{Entry, PathState, Reason};
use serde::{Deserialize, Serialize};

use crate::clock::timed;

/// The entries of a call, and how long its media was where.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Timeline {
    entries: Vec<(Duration, Entry)>,
    answered: Duration,
    since: Duration,
    is_direct: bool,
    relayed: Duration,
    direct: Duration,
    /// What was told of the meter last.
    told: Reading,
}

timed!(Timeline { answered, since; entries, is_direct, relayed, direct, told });

/// What the meter shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reading {
    /// How long no RTP of any direction was on the relay, until now.
    pub direct: Duration,
    /// Whether none is.
    pub is_direct: bool,
}

impl From<Reading> for Event {
    fn from(reading: Reading) -> Self {
        Event::Metered { direct: reading.direct, is_direct: reading.is_direct }
    }
}

/// More entries than this are a flapping path; the first and the counts suffice.
const MAX_ENTRIES: usize = 256;

impl Timeline {
    /// Of a call answered now.
    pub fn new(now: Duration) -> Self {
        let mut timeline = Self { answered: now, since: now, ..Self::default() };
        timeline.add(Entry::State { to: PathState::Anchored, why: Reason::Answered }, now);
        timeline
    }

    /// One more entry.
    pub fn add(&mut self, entry: Entry, now: Duration) {
        if self.entries.len() < MAX_ENTRIES {
            self.entries.push((now.saturating_sub(self.answered), entry));
        }
    }

    /// From now on no RTP of any direction is on the relay, or some is.
    pub fn meter(&mut self, is_direct: bool, now: Duration) {
        // What was counted is counted.
        let now = now.max(self.since);
        let span = now.saturating_sub(self.since);
        if self.is_direct {
            self.direct = self.direct.saturating_add(span);
        } else {
            self.relayed = self.relayed.saturating_add(span);
        }
        (self.since, self.is_direct) = (now, is_direct);
    }

    /// The call is direct, and since when, or it is not any more.
    pub fn account(&mut self, direct_since: Option<Duration>, now: Duration) {
        match direct_since {
            Some(since) if !self.is_direct => self.meter(true, since),
            None if self.is_direct => self.meter(false, now),
            _ => {}
        }
    }

    /// Whether the meter counts.
    pub fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// For how long it has counted without a break.
    pub fn direct_for(&self, now: Duration) -> Duration {
        if self.is_direct { now.saturating_sub(self.since) } else { Duration::ZERO }
    }

    /// What the meter shows, if it began or ended to count since the last time that it was asked.
    pub fn new_reading(&mut self, now: Duration) -> Option<Reading> {
        let reading = Reading { direct: self.spans(now).1, is_direct: self.is_direct };
        let is_same = match (self.told.is_direct, reading.is_direct) {
            (true, true) => true,
            (false, false) => self.told.direct == reading.direct,
            _ => false,
        };
        (!is_same).then(|| {
            self.told = reading;
            reading
        })
    }

    /// When the call was answered.
    pub fn answered(&self) -> Duration {
        self.answered
    }

    /// The same call went on as a part of a longer one, and this is what became of that. Its answer was told before.
    pub fn append(&mut self, later: &Timeline) {
        self.meter(false, later.answered);
        for (after, entry) in later.entries.iter().skip(1) {
            self.add(*entry, later.answered.saturating_add(*after));
        }
        self.relayed = self.relayed.saturating_add(later.relayed);
        self.direct = self.direct.saturating_add(later.direct);
        (self.since, self.is_direct) = (later.since, later.is_direct);
        self.told = Reading { direct: self.direct, is_direct: self.is_direct };
    }

    /// Entries with their time since the answer, oldest first.
    pub fn entries(&self) -> &[(Duration, Entry)] {
        &self.entries
    }

    /// Relayed and direct time until now: together the answered time.
    pub fn spans(&self, now: Duration) -> (Duration, Duration) {
        let mut copy = Self { entries: Vec::new(), ..*self };
        copy.meter(self.is_direct, now);
        (copy.relayed, copy.direct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seam::path::Stay;

    #[test]
    fn relayed_and_direct_time_are_the_answered_time() {
        let second = Duration::from_secs;
        let mut timeline = Timeline::new(second(100));
        timeline.meter(true, second(103));
        timeline.meter(true, second(104));
        timeline.meter(false, second(110));
        assert_eq!(timeline.spans(second(115)), (second(8), second(7)));
    }

    #[test]
    fn direct_time_that_shows_late_is_counted_from_its_beginning_and_once() {
        let second = Duration::from_secs;
        let mut timeline = Timeline::new(second(100));
        timeline.account(Some(second(103)), second(108));
        timeline.account(Some(second(103)), second(109));
        assert_eq!(timeline.spans(second(110)), (second(3), second(7)));
        timeline.account(None, second(110));
        timeline.account(Some(second(103)), second(112));
        assert_eq!(timeline.spans(second(115)), (second(3), second(12)));
    }

    #[test]
    fn a_call_that_went_on_as_part_of_another_has_the_time_of_both() {
        let second = Duration::from_secs;
        let mut timeline = Timeline::new(second(100));
        timeline.meter(true, second(101));
        timeline.meter(false, second(104));
        let mut later = Timeline::new(second(110));
        later.add(Entry::Stays(Stay::Policy), second(111));
        later.meter(true, second(112));
        later.meter(false, second(120));
        timeline.append(&later);
        assert_eq!(timeline.spans(second(125)), (second(14), second(11)));
        assert_eq!(timeline.entries().last(), Some(&(second(11), Entry::Stays(Stay::Policy))));
        assert_eq!(timeline.entries().len(), 2);
    }

    #[test]
    fn the_meter_is_read_when_it_begins_and_ends_to_count_however_often_it_is_asked() {
        let second = Duration::from_secs;
        let mut timeline = Timeline::new(second(100));
        let read = |timeline: &mut Timeline, at| {
            timeline.new_reading(second(at)).map(|reading| (reading.direct, reading.is_direct))
        };
        assert_eq!(read(&mut timeline, 101), None);
        timeline.meter(true, second(103));
        assert_eq!(read(&mut timeline, 105), Some((second(2), true)));
        assert_eq!(read(&mut timeline, 106), None);
        timeline.meter(false, second(110));
        assert_eq!(read(&mut timeline, 111), Some((second(7), false)));
        timeline.meter(true, second(120));
        timeline.meter(false, second(123));
        assert_eq!(read(&mut timeline, 130), Some((second(10), false)), "a stretch between two looks");
        assert_eq!(read(&mut timeline, 131), None);
    }
}
