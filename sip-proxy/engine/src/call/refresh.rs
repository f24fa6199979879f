//! Session timers (RFC 4028), one per leg, and where a dialog's requests go.

use std::time::Duration;

use sip_wire::{Message, Method, Name, Uri, parameter};

use super::pair::End;
use super::{Call, CallTimer};
use crate::config::Realm;
use crate::core::Core;
use crate::dialog::Dialog;
use crate::event::{EndCause, Side};
use crate::io::Flow;

/// What our 2xx to an INVITE or UPDATE says: the interval, and whether we refresh. `None`: no timer.
pub(super) fn answer_timer(request: &Message, realm: &Realm) -> Option<(Duration, bool)> {
    let value = request.value(Name::SessionExpires)?;
    let interval = interval_of(value)?;
    let interval = realm.session_timer.map_or(interval, |ours| interval.min(ours.interval).max(ours.minimum));
    let asks_uas = parameter(value, b"refresher").is_some_and(|who| who.eq_ignore_ascii_case(b"uas"));
    // RFC 4028 §9, table 2: a peer without the extension cannot refresh.
    let peer_can = request.has_token(Name::Supported, "timer");
    Some((interval, asks_uas || !peer_can))
}

/// Whether an interval is too small for a realm (422).
pub(super) fn is_too_small(request: &Message, realm: &Realm) -> Option<u64> {
    let interval = interval_of(request.value(Name::SessionExpires)?)?;
    let minimum = realm.session_timer.map_or(Duration::from_secs(90), |timer| timer.minimum);
    (interval < minimum && request.has_token(Name::Supported, "timer")).then_some(minimum.as_secs())
}

/// What the 2xx of our own request agreed.
pub(super) fn learn_timer(end: &mut End, response: &Message) {
    let Some(value) = response.value(Name::SessionExpires) else {
        end.session.interval = None;
        return;
    };
    end.session.interval = interval_of(value);
    end.session.we_refresh =
        !parameter(value, b"refresher").is_some_and(|who| who.eq_ignore_ascii_case(b"uas"));
}

fn interval_of(value: &[u8]) -> Option<Duration> {
    let end = value.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(value.len());
    sip_wire::number(&value[..end]).map(|seconds| Duration::from_secs(u64::from(seconds)))
}

/// Where a dialog's requests go if not back over its flow: towards trunks, and where a proxy recorded itself, to the
/// literal address of the next hop. Phones may be behind NAT: their flow is the only way.
pub(super) fn next_hop_flow(dialog: &Dialog, core: &Core) -> Option<Flow> {
    let realm = core.realm_of(&dialog.flow)?;
    if !realm.is_trunk_side || dialog.flow.transport.is_reliable() {
        return None;
    }
    let uri = Uri::parse(dialog.next_hop()).ok()?;
    let remote = std::net::SocketAddr::new(uri.host().address()?, uri.port().unwrap_or(5060));
    (remote.is_ipv4() == dialog.flow.remote.is_ipv4()).then_some(Flow { remote, ..dialog.flow })
}

impl Call {
    /// Starts or restarts an end's timer: half the interval if we refresh, else the interval less a third at most 32 s
    /// (RFC 4028 §10).
    pub(super) fn arm_session_timer(&mut self, id: u32, side: usize, core: &mut Core) {
        let Some(pair) = self.pair(id) else { return };
        let session = &pair.ends[side].session;
        let after = session.interval.map(|interval| {
            if session.we_refresh {
                interval / 2
            } else {
                interval.saturating_sub((interval / 3).min(Duration::from_secs(32)))
            }
        });
        let timer = after.map(|after| self.schedule(after, CallTimer::Session(id, side as u8), core));
        let Some(pair) = self.pair_mut(id) else { return };
        if let Some(old) = std::mem::replace(&mut pair.ends[side].session.timer, timer) {
            core.timers.cancel(old);
        }
    }

    pub(super) fn on_session_timer(&mut self, id: u32, side: usize, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        pair.ends[side].session.timer = None;
        if !pair.ends[side].session.we_refresh {
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
        let interval = end.session.interval.or_else(|| timer.map(|timer| timer.interval))?;
        let minimum = timer.map_or(90, |timer| timer.minimum.as_secs());
        Some((format!("{};refresher=uac", interval.as_secs()), minimum.to_string()))
    }
}
