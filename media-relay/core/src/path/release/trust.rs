//! Moves that no report proves: where the path is certain by configuration, for phones whose reports the relay does not see,
//! because they send none, ignore `a=rtcp` (RFC 3605), or send them with their media (rtcp-mux, RFC 5761 §5.1.1).
//!
//! Whatever reports do come count as everywhere: one that refutes the path brings the media back.

use std::time::Duration;

use seam::Side;
use seam::path::{Entry, PathState, Reason};

use super::{Direction, Release, STRAGGLERS, State};
use crate::path::phone::PATIENCE;

impl Release {
    /// A party's reports go where its media goes.
    pub fn mux_reports(&mut self) {
        self.are_reports_muxed = true;
    }

    /// Whether it is off the relay although no report says that both are heard: nor will the relay hear of them.
    pub fn is_on_trust(&self) -> bool {
        let State::Direct { since } = self.state else { return false };
        self.tries.is_trusted
            && self.lines.iter().any(|line| Side::BOTH.into_iter().any(|from| !is_told_of(line, from, since)))
    }

    /// Whether reports will not tell of a move, where none need to: those of phones that had time for one and sent none.
    pub(super) fn needs_trust(&self, now: Duration) -> bool {
        let is_mute = self.directions().any(|(_, direction)| direction.reported.is_none())
            && now >= self.answered.saturating_add(PATIENCE);
        self.networks.certain && (self.are_reports_muxed || is_mute)
    }

    /// Why a direction is not known to be alive any more: no report has spoken for it for too long. That one is late, or lost, or
    /// two are, says nothing of the path, which it does not take. Whoever has reported off the relay has stopped; of one that never
    /// has, none is expected where the path is certain.
    pub(super) fn is_unknown(&mut self, since: Duration, now: Duration) -> Option<Reason> {
        let (mut unknown, mut has_stopped) = (None, false);
        for (line, from) in self.lines.iter().flat_map(|line| Side::BOTH.map(|from| (line, from))) {
            if let Some(why) = line[from].is_unknown(since, now) {
                unknown = Some(why);
                has_stopped |= is_told_of(line, from, since);
            }
        }
        if unknown.is_none() || has_stopped || !self.networks.certain {
            return unknown;
        }
        if !std::mem::replace(&mut self.tries.is_trusted, true) {
            self.timeline.add(Entry::State { to: PathState::Direct, why: Reason::Certain }, now);
        }
        None
    }
}

/// Whether the receiver of a direction has reported off the relay: of it, or of itself alone, for that it hears nothing. What
/// was sent before the move may come a little later.
fn is_told_of(line: &[Direction; 2], from: Side, since: Duration) -> bool {
    let (direction, since_then) = (&line[from], since.saturating_add(STRAGGLERS));
    direction.proof.as_ref().is_some_and(|proof| proof.confirmed_at().is_some())
        || direction.reported.is_some_and(|at| at > since_then)
        || line[!from].has_spoken_since(since_then)
}
