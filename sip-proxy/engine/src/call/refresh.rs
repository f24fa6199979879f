//! Session timers (RFC 4028), one per leg.

use std::time::Duration;

use sip_wire::Method;

use super::forward::{Forward, Origin};
use super::side::{EndId, Side};
use super::{Call, CallTimer};
use crate::core::Core;
use crate::event::{EndCause, EndedBy};

/// When a refresh that could not be made, or was refused, is tried again.
const AGAIN: Duration = Duration::from_secs(10);

impl Call {
    /// Starts or restarts an end's timer.
    pub(super) fn arm_session_timer(&mut self, id: u32, side: Side, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let after = pair.ends[side].session.agreed.map(|agreed| agreed.due_after());
        self.set_session_timer(id, side, after, core);
    }

    fn set_session_timer(&mut self, id: u32, side: Side, after: Option<Duration>, core: &mut Core) {
        let timer =
            after.map(|after| self.schedule(after, CallTimer::Session(EndId { pair: id, side }), core));
        let Some(pair) = self.pair_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut pair.ends[side].session.timer, timer) {
            core.timers.cancel(old);
        }
    }

    pub(super) fn on_session_timer(&mut self, id: u32, side: Side, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        pair.ends[side].session.timer = None;
        if pair.ends[side].session.agreed.is_none_or(|agreed| !agreed.we_refresh) {
            self.hang_up(EndCause::SessionExpired, EndedBy::Sbc, core);
            return;
        }
        // Something that is under way may refresh it, too; INFO does not.
        if self.forwards.iter().any(|forward| forward.pair == id) {
            self.set_session_timer(id, side, Some(AGAIN), core);
            return;
        }
        self.arm_session_timer(id, side, core);
        self.refresh(id, side, core);
    }

    /// UPDATE without a description, or the last description again (RFC 4028 §7.4).
    fn refresh(&mut self, id: u32, side: Side, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let (has_update, description) = (pair.ends[side].has_update, pair.ends[side].description.clone());
        let method = if has_update { Method::UPDATE } else { Method::INVITE };
        let description = description.filter(|_| !has_update);
        let forward = self.next_forward;
        self.next_forward = self.next_forward.saturating_add(1);
        self.forwards.push(Forward::of_ours(
            forward,
            EndId { pair: id, side },
            method,
            Origin::Refresh,
            description,
        ));
        self.send_forward(forward, core);
    }

    /// A refresh was refused, for now: the session lives for half its interval yet.
    pub(super) fn on_refused_refresh(&mut self, id: u32, side: Side, core: &mut Core) {
        if self.pair(id).is_some_and(|pair| pair.ends[side].session.agreed.is_some()) {
            self.set_session_timer(id, side, Some(AGAIN), core);
        }
    }

    pub(super) fn session_headers(
        &self,
        id: u32,
        side: Side,
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
