//! Which end controls (RFC 8445 §6.1.1), and what happens if both think that they do (§7.3.1.1).

use media_wire::stun::{ICE_CONTROLLED, ICE_CONTROLLING};

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    pub(super) is_controlling: bool,
    pub(super) tiebreaker: u64,
}

impl Role {
    /// The attribute that says it, in our checks; in the peer's it means a conflict.
    pub(super) fn attribute(self) -> u16 {
        if self.is_controlling { ICE_CONTROLLING } else { ICE_CONTROLLED }
    }

    /// Of a peer in the same role, whether we keep it: the greater tiebreaker does.
    pub(super) fn keeps(self, theirs: u64) -> bool {
        (self.tiebreaker >= theirs) == self.is_controlling
    }

    pub(super) fn change(&mut self) {
        self.is_controlling = !self.is_controlling;
    }
}
