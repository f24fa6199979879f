//! What whoever moves media has round its machine.

use std::time::Duration;

use seam::path::{Entry, PathState, Stay};
use serde::{Deserialize, Serialize};

use crate::clock::{outside, timed};
use crate::path::memory::{Memory, Pair};
use crate::path::timeline::Timeline;

/// After a wish that could not be sent.
pub(crate) const BUSY: Duration = Duration::from_millis(250);
/// Who has refused what must be is asked again so much later.
pub(crate) const AGAIN: Duration = Duration::from_secs(2);
/// And so often in all.
const MOST: u8 = 5;

/// How often somebody has refused, in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusals(u8);

impl Refusals {
    pub(crate) fn and_another(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Whether it is no use to ask again.
    pub(crate) fn are_enough(self) -> bool {
        self.0 >= MOST
    }
}

/// What a session leaves of its moves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Past {
    pub(crate) timeline: Timeline,
    pub(crate) wishes: u32,
    pub(crate) told: usize,
}

timed!(Past { timeline; wishes, told });

impl Past {
    /// With what happened since, as part of a longer chain.
    pub(crate) fn followed_by(mut self, later: &Timeline, wishes: u32) -> Self {
        self.timeline.append(later);
        Self { wishes, told: self.timeline.entries().len(), timeline: self.timeline }
    }
}

/// Why a session has nothing that moves, as it was told, and when that was told first.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) stay: Stay,
    pub(crate) since: Duration,
}

timed!(Kept { since; stay });

impl Kept {
    /// Nothing moves a session, and `told` says why it was told last: so long after that was told first, if this reason is another one.
    pub(crate) fn tell(told: &mut Option<Self>, stay: Stay, now: Duration) -> Option<Duration> {
        let since = told.map_or(now, |told| told.since);
        let is_told = told.replace(Self { stay, since }).is_some_and(|before| before.stay == stay);
        (!is_told).then(|| now.saturating_sub(since))
    }
}

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Shell {
    /// So many were told.
    wishes: u32,
    /// Entries of the timeline that were told.
    told: usize,
    /// Under which its outcome is remembered, once both were heard.
    pair: Option<Pair>,
    /// When it comes back for no reason.
    cover: Option<Duration>,
    /// When it is looked at next.
    pub(crate) due: Duration,
}

timed!(Shell { cover, due; wishes, told, pair });

impl Shell {
    /// After so many wishes, and told entries, of those before.
    pub(crate) fn after(wishes: u32, told: usize, now: Duration) -> Self {
        Self { wishes, told, pair: None, cover: None, due: now }
    }

    /// It comes back then for no reason, if at all.
    pub(crate) fn covered(self, cover: Option<Duration>) -> Self {
        Self { cover, ..self }
    }

    /// The number of a new wish.
    pub(crate) fn wish(&mut self) -> u32 {
        self.wishes = self.wishes.wrapping_add(1);
        self.wishes
    }

    pub(crate) fn wishes(&self) -> u32 {
        self.wishes
    }

    pub(crate) fn told(&self) -> usize {
        self.told
    }

    /// What of the timeline was not told yet.
    pub(crate) fn news<'a>(&self, timeline: &'a Timeline) -> &'a [(Duration, Entry)] {
        timeline.entries().get(self.told..).unwrap_or_default()
    }

    /// All of it has been told.
    pub(crate) fn has_told(&mut self, timeline: &Timeline) {
        self.told = timeline.entries().len();
    }

    /// What it leaves.
    pub(crate) fn past(&self, timeline: Timeline) -> Past {
        Past { timeline, wishes: self.wishes, told: self.told }
    }

    /// Whom it is remembered for, once that is known: true if such moves have failed lately.
    pub(crate) fn meets(
        &mut self,
        pair: impl FnOnce() -> Option<Pair>,
        memory: &Memory,
        now: Duration,
    ) -> bool {
        if self.pair.is_none() {
            self.pair = pair();
            return self.pair.as_ref().is_some_and(|pair| memory.shuns(pair, outside(now)));
        }
        false
    }

    /// Whether it is to come back for no reason, now.
    pub(crate) fn is_cover_due(&mut self, now: Duration) -> bool {
        self.cover.take_if(|at| now >= *at).is_some()
    }

    /// What is new in its timeline, for calls to come; after a failure the pair rests for `span`.
    pub(crate) fn remember(&self, timeline: &Timeline, memory: &mut Memory, span: Duration, now: Duration) {
        let Some(pair) = &self.pair else { return };
        for (_, entry) in self.news(timeline) {
            match entry {
                Entry::Stays(Stay::Failed | Stay::Refused | Stay::Unmoved) => {
                    memory.failed(pair, span, outside(now))
                }
                Entry::State { to: PathState::Direct, .. } => memory.worked(pair),
                _ => {}
            }
        }
    }
}
