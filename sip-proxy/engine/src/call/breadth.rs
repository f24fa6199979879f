//! How many phones and trunks one request may reach at once, with all whom they send it on to (RFC 5393 §5). What a caller
//! allows is divided among the branches that are under way; whom it does not suffice for, waits until another is done.

use sip_wire::{Message, Name};

use super::Call;
use super::hunt::Found;
use crate::core::Core;

/// The most that anybody may allow, and what is allowed where nothing is said (RFC 5393 §5.3.3).
const LARGEST: u32 = 60;

/// What a request allows.
pub(super) fn breadth_of(request: &Message) -> u32 {
    request.number(Name::MaxBreadth).and_then(Result::ok).map_or(LARGEST, |breadth| breadth.min(LARGEST))
}

impl Call {
    /// What no branch holds that waits for its final response.
    pub(super) fn free_breadth(&self) -> u32 {
        let held = self.branches.iter().filter(|branch| !branch.is_done()).map(|branch| branch.breadth);
        breadth_of(&self.upstream.incoming.request).saturating_sub(held.fold(0, u32::saturating_add))
    }

    /// Rings those that wait, as many as may be at once; of equals the first has what cannot be divided.
    pub(super) fn ring_waiting(&mut self, core: &mut Core) {
        while !self.waiting_phones.is_empty() && !self.is_over() && !self.answered && self.winner.is_none() {
            let free = self.free_breadth();
            let count = u32::try_from(self.waiting_phones.len()).unwrap_or(u32::MAX).min(free);
            let Some(share) = free.checked_div(count) else { return };
            let first = share.saturating_add(free.checked_rem(count).unwrap_or_default());
            for index in 0..count {
                let Some(found) = self.waiting_phones.pop_front() else { return };
                self.try_contact(Found { breadth: if index == 0 { first } else { share }, ..found }, core);
            }
        }
    }
}
