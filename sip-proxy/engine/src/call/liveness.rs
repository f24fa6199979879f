//! Whether the ends of a call are there whose media nobody here can hear: OPTIONS inside their dialogs (RFC 3261 §11).

use sip_wire::Method;

use super::Call;
use super::forward::{Forward, Origin};
use super::side::{EndId, Side};
use crate::core::Core;
use crate::event::{EndCause, EndedBy};

impl Call {
    /// Asks both ends of a call that is up; what is still unanswered is not asked again.
    pub(super) fn ask_whether_alive(&mut self, core: &mut Core) {
        let is_asking = self.forwards.iter().any(|forward| matches!(forward.origin, Origin::Liveness));
        if self.is_over() || !self.answered || is_asking {
            return;
        }
        let Some(pair) = self.pairs.iter().find(|pair| pair.is_confirmed()).map(|pair| pair.id) else {
            return;
        };
        for side in [Side::Caller, Side::Target] {
            let forward = self.next_forward;
            self.next_forward = self.next_forward.saturating_add(1);
            self.forwards.push(Forward::of_ours(
                forward,
                EndId { pair, side },
                Method::OPTIONS,
                Origin::Liveness,
                None,
            ));
            self.send_forward(forward, core);
        }
    }

    /// Whoever answers is there, even one that does not know OPTIONS inside a dialog (PJSIP: 500). 481 says that its call is
    /// gone, 408 or no way to it that it is gone itself (RFC 5057 §5.1).
    pub(super) fn on_liveness_failure(
        &mut self,
        number: u32,
        status: u16,
        has_answered: bool,
        core: &mut Core,
    ) {
        self.take_forward(number);
        if !has_answered || matches!(status, 408 | 481) {
            self.hang_up(EndCause::MediaTimeout, EndedBy::Sbc, core);
        }
    }
}
