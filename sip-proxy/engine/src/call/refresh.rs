//! Session timers (RFC 4028), one per leg, and where a dialog's requests go.

use sip_wire::{Method, Uri};

use super::{Call, CallTimer};
use crate::core::Core;
use crate::dialog::Dialog;
use crate::event::{EndCause, Side};
use crate::io::Flow;

/// Where a dialog's requests go if not back over its flow: towards trunks, and where a proxy recorded itself, to the
/// literal address of the next hop. Phones may be behind NAT: their flow is the only way.
pub(crate) fn next_hop_flow(dialog: &Dialog, core: &Core) -> Option<Flow> {
    let realm = core.realm_of(&dialog.flow)?;
    if !realm.is_trunk_side || dialog.flow.transport.is_reliable() {
        return None;
    }
    let uri = Uri::parse(dialog.next_hop()).ok()?;
    let remote = std::net::SocketAddr::new(uri.host().address()?, uri.port().unwrap_or(5060));
    (remote.is_ipv4() == dialog.flow.remote.is_ipv4()).then_some(Flow { remote, ..dialog.flow })
}

impl Call {
    /// Starts or restarts an end's timer.
    pub(super) fn arm_session_timer(&mut self, id: u32, side: usize, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let after = pair.ends[side].session.agreed.map(|agreed| agreed.due_after());
        let timer = after.map(|after| self.schedule(after, CallTimer::Session(id, side as u8), core));
        let Some(pair) = self.pair_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut pair.ends[side].session.timer, timer) {
            core.timers.cancel(old);
        }
    }

    pub(super) fn on_session_timer(&mut self, id: u32, side: usize, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        pair.ends[side].session.timer = None;
        if pair.ends[side].session.agreed.is_none_or(|agreed| !agreed.we_refresh) {
            self.hang_up(EndCause::SessionExpired, Side::Sbc, core);
            return;
        }
        // Refresh, unless something else does: a request of the other side that is under way will.
        self.refresh(id, side, core);
        self.arm_session_timer(id, side, core);
    }

    pub(super) fn session_headers(
        &self,
        id: u32,
        side: usize,
        method: Method<'_>,
        core: &Core,
    ) -> Option<(String, String)> {
        if method != Method::INVITE && method != Method::UPDATE {
            return None;
        }
        let end = &self.pair(id)?.ends[side];
        let timer = core.realm(end.realm)?.session_timer;
        let interval =
            end.session.agreed.map(|agreed| agreed.interval).or_else(|| timer.map(|timer| timer.interval))?;
        let least = end.session.least.unwrap_or_default();
        let minimum = timer.map_or(90, |timer| timer.minimum.as_secs()).max(least.as_secs());
        Some((format!("{};refresher=uac", interval.max(least).as_secs()), minimum.to_string()))
    }
}
