//! A session's media on the move: what its [`Release`] sees of the streams (`moving/seen.rs`), and how what it asks becomes
//! descriptions (`moving/asked.rs`). A call that a proxy behind us has led back to us is more than one session (`moving/chain.rs`):
//! one of them, the host, has the moves of all.
//!
//! Each party has a place where its media is and one where it is to be; whatever differs is wished for, once the wish before
//! was answered and no offer of a party is open.

pub(crate) mod asked;
pub(crate) mod chain;
pub(crate) mod course;
pub(crate) mod cover;
pub(crate) mod follow;
mod kept;
pub(crate) mod mover;
pub(crate) mod scene;
pub(crate) mod seen;

use std::time::Duration;

use seam::path::{PathEntry, PathState};
use seam::{Endpoint, Event};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::clock::timed;
use crate::motion::shell::{Past, Refusals, Shell};
use crate::moving::chain::Chain;
use crate::moving::mover::{Mover, Whereabouts};
use crate::moving::scene::Lines;
use crate::path::Release;
use crate::path::timeline::Reading;
use crate::ports::StreamId;

/// A phone that rings over a re-INVITE does not move in time.
pub(crate) const LONGEST_RINGING: Duration = Duration::from_secs(4);
/// Packets that reach nobody call for a look, but not each of them.
pub(crate) const GLANCE: Duration = Duration::from_millis(20);
/// By so much one of two is asked later at most, so that both move together.
pub(crate) const MOST_AHEAD: Duration = Duration::from_millis(300);
/// When one half of a call has ended, its end is on its way to the other, whose party is not asked home before.
pub(crate) const PARTING: Duration = Duration::from_millis(400);

/// The moves of one call, between two parties.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Moving {
    pub(crate) release: Release,
    pub(crate) movers: [Mover; 2],
    /// The sessions between them, mostly one.
    pub(crate) chain: Chain,
    /// What the sessions of a longer chain have behind them, each for itself.
    pub(crate) pasts: Vec<Option<Past>>,
    pub(crate) lines: Lines,
    pub(crate) carriers: Vec<[SmallVec<[StreamId; 1]>; 2]>,
    pub(crate) shell: Shell,
}

timed!(Moving { release, movers, pasts, shell; chain, lines, carriers });

impl Moving {
    /// The ends of the session that has it.
    pub(crate) fn endpoints(&self) -> Option<[Endpoint; 2]> {
        self.chain.first().map(|link| link.ends)
    }

    /// Whether a phone has not answered yet where it is to go.
    pub(crate) fn has_asked(&self) -> bool {
        self.movers.iter().any(|mover| mover.asked.is_some())
    }

    /// Whether all of it is on the relay, and nothing is tried.
    pub(crate) fn rests(&self) -> bool {
        let is_home = |mover: &Mover| mover.at == Whereabouts::Home && mover.want == Whereabouts::Home;
        self.release.state() == PathState::Anchored && self.movers.iter().all(is_home) && !self.has_asked()
    }

    /// Whether it is off the relay, and the relay hears nothing of it.
    pub(crate) fn is_unheard(&self) -> bool {
        self.release.is_on_trust()
    }

    /// An exchange of the parties' own has told those of this session to come home. One of another session is asked, unless the exchange
    /// reaches him first: while it is open nobody else offers.
    pub(crate) fn come_back(&mut self, session: u64, should_flow: bool, now: Duration) {
        for mover in &mut self.movers {
            (mover.want, mover.refusals) = (Whereabouts::Home, Refusals::default());
            if mover.session == session {
                mover.at = Whereabouts::Home;
            }
        }
        self.release.renegotiated(should_flow, now);
    }

    /// What the two send, at every port of ours that hears it.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        let carriers = self.carriers.iter().flatten().flatten().copied();
        self.lines.iter().flat_map(|(_, pair)| *pair).chain(carriers)
    }

    pub(crate) fn next_look(&self, now: Duration) -> Duration {
        let retry = self
            .movers
            .iter()
            .filter(|mover| mover.asked.is_none() && mover.want != mover.at && mover.retry > now)
            .map(|mover| mover.retry)
            .min();
        let next = self.release.poll_timeout(now);
        retry.map_or(next, |retry| retry.min(next)).max(now.saturating_add(Duration::from_millis(1)))
    }

    /// Every session of the chain hears it, as of its own ends and its own answer.
    pub(crate) fn tell(&mut self, events: &mut std::collections::VecDeque<(u64, Event)>, now: Duration) {
        let reading = self.release.new_reading(now);
        let begun = self.release.timeline().answered();
        for (index, link) in self.chain.iter().enumerate() {
            let past = self.pasts.get(index).and_then(Option::as_ref).map(|past| &past.timeline);
            let shift = past.map_or(Duration::ZERO, |past| begun.saturating_sub(past.answered()));
            let before = past.map_or(Duration::ZERO, |past| past.spans(now).1);
            events.extend(reading.map(|reading| {
                let direct = reading.direct.saturating_add(before);
                (link.session, Reading { direct, ..reading }.into())
            }));
            // Of its answer it was told before.
            let is_known = usize::from(past.is_some() && self.shell.told() == 0);
            for (after, entry) in self.shell.news(self.release.timeline()).iter().skip(is_known) {
                let after = after.saturating_add(shift);
                events.push_back((
                    link.session,
                    Event::Path(PathEntry { after, entry: *entry, parties: link.ends }),
                ));
            }
        }
        self.shell.has_told(self.release.timeline());
    }
}
