//! Where our peer's media comes from, and what holds back another move (docs/crush.md §6 and §8).
//!
//! A direct path that nothing may use rests (§8.3): no keepalives, no checks, no copies, nor is its death looked for.

use std::time::Duration;

use media_wire::handoff::{Figures, Move, Reason, Target};

use crate::handoff::Outstanding;
use crate::sync::Comparison;

/// Before the first handoff after the first return; doubles with each return after it.
pub(super) const FIRST_HOLD_OFF: Duration = Duration::from_secs(2);
/// Copies for the first synchronisation, and the most that a peer may ask for.
pub(super) const MOST_COPIES: Duration = Duration::from_secs(5);
/// A rest until somebody says otherwise.
pub(super) const FOR_GOOD: Duration = Duration::MAX;

/// Where our peer's media comes from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Incoming {
    /// Through the relay. No handoff before a time; copies on the direct path come until another.
    Relay { not_before: Duration, copies_until: Duration },
    /// A handoff was asked for.
    Asked,
    /// On the direct path. A comparison is due, or under way until a time; so many in a row were in the relay's favour.
    Direct { since: Duration, compare_at: Duration, comparing_until: Option<Duration>, worse: u8 },
}

/// What is to be asked of the peer (docs/crush.md §7.1).
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) target: Target,
    pub(super) reason: Reason,
    /// Of a handoff: which streams, and how.
    pub(super) moves: Vec<Move>,
    pub(super) figures: Option<Figures>,
}

impl Wish {
    pub(super) fn new(target: Target, reason: Reason) -> Self {
        Self { target, reason, moves: Vec::new(), figures: None }
    }
}

/// Whether the peer knows of a return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    /// It is its own, or it has said that it knows.
    Knows,
    /// It hears of it from us.
    IsTold,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Switching {
    pub(super) incoming: Incoming,
    pub(super) copies_expected_until: Duration,
    /// What the last return imposed.
    pub(super) hold_off: Duration,
    pub(super) has_returned: bool,
    /// Why media is on the relay.
    pub(super) returned: Reason,
    pub(super) tests: Comparison,
    /// Test packets stand in for audio until then.
    pub(super) tests_until: Duration,
    /// The direct path is left alone until then: what would be sent there is forbidden, here or at the peer.
    pub(super) rests_until: Duration,
    pub(super) request: Option<Outstanding>,
    /// Handoffs in a row that nobody answered.
    pub(super) unanswered: u8,
}

impl Switching {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            incoming: Incoming::Relay { not_before: now, copies_until: now },
            copies_expected_until: now,
            hold_off: FIRST_HOLD_OFF,
            has_returned: false,
            returned: Reason::Comparison,
            tests: Comparison::default(),
            tests_until: Duration::ZERO,
            rests_until: Duration::ZERO,
            request: None,
            unanswered: 0,
        }
    }

    pub(super) fn is_resting(&self) -> bool {
        !self.rests_until.is_zero()
    }

    /// Our policy forbids the path, or the peer says that its own does.
    pub(super) fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(until);
    }

    /// The peer has come home because its policy says so. It is asked after the hold-off whether that still holds.
    pub(super) fn rest_with_peer(&mut self) {
        if let Incoming::Relay { not_before, .. } = self.incoming {
            self.rest(not_before);
        }
    }

    /// Another return, and what it imposes. Both ends may return at once, and each hears of the other's return afterwards: that is one return.
    pub(super) fn hold_off_longer(&mut self, longest: Duration) {
        self.hold_off = match self.has_returned {
            true => self.hold_off.saturating_mul(2).min(longest),
            false => FIRST_HOLD_OFF,
        };
        self.has_returned = true;
    }
}
