//! How calls end, and what is written of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::leg::Leg;
use super::side::{LegId, Side};
use super::{CallKey, CallTimer};
use crate::core::{Core, TimerKey};
use crate::door::{CallId, CallState};
use crate::event::{CallEnded, CallEventKind, EndedBy};
use crate::timer::TimerId;
use crate::transaction::Answer;
use seam::StreamStatistics;

/// How far its end has come.
#[derive(Debug)]
pub(super) enum Ended {
    No,
    /// The media plane counts; then the record is written and these requests get their answers.
    Counting {
        record: Box<CallEnded>,
        answers: Vec<Answer>,
    },
    /// The record is written; what remains are transactions.
    Yes,
}

/// A leg of a call that is over which has not had its BYE: it must wait for the ACK to our 2xx.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) leg: Box<Leg>,
    /// Reason (RFC 3326) of the BYE.
    pub(super) reason: Option<Vec<u8>>,
}

impl Leaving {
    /// The leg of this name, if it still has to be said goodbye to; it is found by nothing from now on.
    pub(super) fn take(all: &mut Vec<Self>, at: LegId, core: &mut Core) -> Option<Self> {
        let position = all.iter().position(|leaving| leaving.leg.id == at)?;
        let mut leaving = all.remove(position);
        leaving.leg.end(core);
        Some(leaving)
    }
}

/// What a call leaves in the journal.
#[derive(Debug)]
pub(super) struct Record {
    /// As records name it.
    pub(super) id: CallId,
    pub(super) sequence: u32,
}

impl Record {
    pub(super) fn new(id: CallId) -> Self {
        Self { id, sequence: 0 }
    }

    pub(super) fn write(&mut self, what: CallEventKind, core: &mut Core) {
        let sequence = self.sequence;
        self.sequence = self.sequence.saturating_add(1);
        core.record(self.id.0, sequence, what);
    }
}

/// Monotonic moments of a call, and how long it may last.
#[derive(Debug, Default)]
pub(super) struct Lifetime {
    started: Duration,
    pub(super) answered: Option<Duration>,
    /// Until its answer how long it may ring, then how long it may last.
    timer: Option<TimerId>,
}

/// The same as plain data.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLife {
    /// Since it began, and since its answer.
    pub(super) lasts: Duration,
    pub(super) talks: Option<Duration>,
    /// How long it may last yet.
    left: Option<Duration>,
}

impl Lifetime {
    pub(super) fn new(started: Duration) -> Self {
        Self { started, ..Self::default() }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.timer.is_some()
    }

    /// What comes at its end comes no more, or in another way.
    pub(super) fn limit(&mut self, timer: Option<TimerId>, core: &mut Core) {
        if let Some(old) = std::mem::replace(&mut self.timer, timer) {
            core.timers.cancel(old);
        }
    }

    pub(super) fn stored(&self, core: &Core) -> StoredLife {
        let since = |moment: Duration| core.now.monotonic.saturating_sub(moment);
        StoredLife {
            lasts: since(self.started),
            talks: self.answered.map(since),
            left: core.left_of(self.timer),
        }
    }

    /// It was so `then`; what comes at its end is `timer`.
    pub(super) fn of_stored(
        stored: &StoredLife,
        (key, timer): (CallKey, CallTimer),
        then: Duration,
        core: &mut Core,
    ) -> Self {
        let StoredLife { lasts, talks, left } = stored;
        let began = |age: Duration| then.saturating_sub(age);
        let due = left.map(|left| then.saturating_add(left));
        Self {
            started: began(*lasts),
            answered: talks.map(began),
            timer: due.map(|due| core.timers.schedule(due, TimerKey::Call(key, timer))),
        }
    }

    /// How a call is that goes on.
    pub(super) fn state(&self, streams: Vec<StreamStatistics>, now: Duration) -> CallState {
        let since = |moment: Duration| now.saturating_sub(moment);
        CallState { lasts: since(self.started), talks: self.answered.map(since), streams }
    }

    /// How long ago it began.
    pub(super) fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.started)
    }

    /// What is written of a call that ends now.
    pub(super) fn end(&self, fault: Fault, now: Duration) -> CallEnded {
        let since = |moment: Duration| moment.saturating_sub(self.started);
        CallEnded {
            answered_after: self.answered.map(since),
            total: since(now),
            talked: self.answered.map(|answered| now.saturating_sub(answered)).unwrap_or_default(),
            ..CallEnded::new(fault.cause, fault.side, fault.status)
        }
    }
}

/// A record with what the media plane has counted.
pub(super) fn counted(
    mut record: Box<CallEnded>,
    streams: Vec<StreamStatistics>,
    direct: Duration,
) -> Box<CallEnded> {
    record.media = streams;
    // Media ends a moment after the talk.
    record.direct = direct.min(record.talked);
    record
}

pub(super) fn side_of(side: Side) -> EndedBy {
    match side {
        Side::Caller => EndedBy::Caller,
        Side::Target => EndedBy::Callee,
    }
}
