//! A leg: one dialog of a call with all that belongs to it alone. It knows what its peer can do, what the session was described as
//! on either side of it, which INVITE and which answer are open in it, and when its session has to be refreshed. What happens in
//! it is told to the call, which relates legs and decides.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sip_wire::{Message, Method, Name};

use super::media::{literal_of, product_of};
use super::renegotiate::Allowance;
use super::side::LegId;
use super::{CallKey, CallTimer};
use crate::core::{Core, TimerKey};
use crate::dialog::Dialog;
use crate::farewells::Farewell;
use crate::flow::{Flow, RealmId};
use crate::hop;
use crate::passing::Privacy;
use crate::session_timer::Agreement;
use crate::timer::TimerId;
use crate::transaction::{Answer, ClientId};
use seam::{Endpoint, Party, Summary};

/// One end of a pair.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) id: LegId,
    call: CallKey,
    pub(super) dialog: Dialog,
    pub(super) realm: RealmId,
    /// The flow of its connection that has closed, by which its phone is known when it comes back.
    pub(super) left: Option<Flow>,
    /// Whose leg it is, where it is a subscriber's.
    pub(super) aor: Option<Arc<str>>,
    pub(super) endpoint: Endpoint,
    pub(super) abilities: Abilities,
    pub(super) descriptions: Descriptions,
    /// What is repeated to its peer until its ACK or PRACK.
    pub(super) repeat: Option<Repeat>,
    pub(super) invite: OurInvite,
    pub(super) session: SessionTimer,
    /// How often the media plane may still ask it.
    pub(super) allowance: Allowance,
}

/// What its peer's messages say of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Abilities {
    /// Its Allow names UPDATE.
    pub(super) has_update: bool,
    /// User-Agent, or Server.
    pub(super) product: Option<Arc<str>>,
    /// It asked for privacy.
    pub(super) wants_privacy: bool,
}

/// What the session is in this leg.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Descriptions {
    /// Ours that its peer accepted last, or that answered its own.
    #[serde(with = "crate::octets::option")]
    pub(super) local: Option<Bytes>,
    /// Its peer's that was agreed on last: what the other leg is put back to.
    #[serde(with = "crate::octets::option")]
    pub(super) remote: Option<Bytes>,
    /// The same in brief.
    pub(super) summary: Summary,
}

/// The INVITE that we have sent in it.
#[derive(Debug, Default)]
pub(super) struct OurInvite {
    /// One whose 2xx has not had its ACK.
    pub(super) open: Option<ClientId>,
    /// CSeq of the last: what its ACK must bear.
    pub(super) cseq: u32,
    /// A 2xx of ours has its ACK, or one of its peer's has ours: BYE may go there (RFC 3261 §15).
    pub(super) is_acknowledged: bool,
}

/// RFC 4028, for one leg.
#[derive(Debug, Default)]
pub(super) struct SessionTimer {
    pub(super) agreed: Option<Agreement>,
    pub(super) timer: Option<TimerId>,
    /// The least interval that its peer has asked for by 422.
    pub(super) least: Option<Duration>,
}

/// A leg that rests, as plain data.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredLeg {
    pub(super) dialog: Dialog,
    pub(super) realm: RealmId,
    left: Option<Flow>,
    aor: Option<Arc<str>>,
    endpoint: Endpoint,
    abilities: Abilities,
    descriptions: Descriptions,
    /// See [`OurInvite`].
    invite_cseq: u32,
    is_acknowledged: bool,
    session: StoredTimer,
    /// Until the media plane may ask it as often as ever.
    spent: Duration,
}

/// See [`SessionTimer`].
#[derive(Serialize, Deserialize)]
struct StoredTimer {
    agreed: Option<Agreement>,
    /// Until it is due.
    left: Option<Duration>,
    least: Option<Duration>,
}

impl StoredLeg {
    /// Nothing finds it any more, and nothing of it is due.
    pub(super) fn of(mut leg: Leg, core: &mut Core) -> Self {
        let SessionTimer { agreed, timer, least } = leg.session;
        let left = core.left_of(timer);
        leg.end(core);
        Self {
            dialog: leg.dialog,
            realm: leg.realm,
            left: leg.left,
            aor: leg.aor,
            endpoint: leg.endpoint,
            abilities: leg.abilities,
            descriptions: leg.descriptions,
            invite_cseq: leg.invite.cseq,
            is_acknowledged: leg.invite.is_acknowledged,
            session: StoredTimer { agreed, left, least },
            spent: leg.allowance.spent(core.now.monotonic),
        }
    }

    /// It was so `then`. Its connection, if it had one, was another process's.
    pub(super) fn into_leg(self, (id, call): (LegId, CallKey), then: Duration, core: &mut Core) -> Leg {
        let StoredTimer { agreed, left, least } = self.session;
        let mut leg = Leg::new(id, call, self.dialog, self.realm);
        leg.left = self.left;
        leg.aor = self.aor;
        leg.endpoint = self.endpoint;
        leg.abilities = self.abilities;
        leg.descriptions = self.descriptions;
        leg.invite = OurInvite { open: None, cseq: self.invite_cseq, is_acknowledged: self.is_acknowledged };
        let due = left.map(|left| then.saturating_add(left));
        let timer = due.map(|due| core.timers.schedule(due, leg.timer(CallTimer::Session(id))));
        leg.session = SessionTimer { agreed, timer, least };
        leg.allowance = Allowance::until(then.saturating_add(self.spent));
        let flow = leg.dialog.flow;
        if flow.connection.is_some() && !leg.lose_connection(core) {
            leg.left = Some(flow);
            leg.dialog.flow = flow.without_connection();
        }
        leg
    }
}

/// A response that waits for its ACK (RFC 3261 §13.3.1.4) or PRACK (RFC 3262 §3).
#[derive(Debug)]
pub(super) struct Repeat {
    answer: Answer,
    /// CSeq number of the INVITE, which the ACK bears.
    cseq: u32,
    interval: Duration,
    until: Duration,
    timer: TimerId,
}

impl Repeat {
    pub(super) fn is_final(&self) -> bool {
        self.answer.status >= 200
    }

    /// Whether an ACK of this CSeq number is its.
    pub(super) fn is_acknowledged_by(&self, cseq: u32) -> bool {
        self.is_final() && self.cseq == cseq
    }
}

impl Leg {
    /// The caller's, as media numbers it, until it is told otherwise.
    pub(super) fn new(id: LegId, call: CallKey, dialog: Dialog, realm: RealmId) -> Self {
        Self {
            id,
            call,
            dialog,
            realm,
            left: None,
            aor: None,
            endpoint: Endpoint { party: 0, branch: 0 },
            abilities: Abilities::default(),
            descriptions: Descriptions::default(),
            repeat: None,
            invite: OurInvite::default(),
            session: SessionTimer::default(),
            allowance: Allowance::default(),
        }
    }

    /// Learns what a message of its peer says about its abilities.
    pub(super) fn learn(&mut self, message: &Message) {
        let abilities = &mut self.abilities;
        if message.count(Name::Allow) > 0 {
            abilities.has_update = message.has_token(Name::Allow, "UPDATE");
        }
        abilities.product = product_of(message).or_else(|| abilities.product.take());
        abilities.wants_privacy |= Privacy::of(message).is_any();
    }

    /// What the media plane must know of its peer.
    pub(super) fn info(&self) -> Party {
        Party {
            realm: self.realm,
            signalling: self.dialog.flow.remote,
            product: self.abilities.product.clone().unwrap_or_default(),
            contact: literal_of(&self.dialog.target),
            is_private: self.abilities.wants_privacy,
        }
    }

    /// Its peer took a request that described the session, or that asked it to.
    pub(super) fn accept(&mut self, description: Option<&Bytes>, response: &Message) {
        let known = &mut self.descriptions;
        known.local = description.cloned().or_else(|| known.local.take());
        known.remote = said_in(response).or_else(|| known.remote.take());
    }

    /// Nothing is open in it: no INVITE of ours, no answer of ours, nothing before the first ACK.
    pub(super) fn is_settled(&self) -> bool {
        self.invite.is_acknowledged && self.repeat.is_none() && self.invite.open.is_none()
    }

    /// ACKs a 2xx of its peer, with an answer if that is where it goes.
    pub(super) fn acknowledge(&mut self, sdp: Option<Bytes>, core: &mut Core) {
        let Some((flow, mut ack)) = core.dialog_ack(&self.dialog, self.invite.cseq) else { return };
        if let Some(sdp) = sdp {
            self.descriptions.local = Some(sdp.clone());
            ack = ack.body(b"application/sdp", sdp);
        }
        let ack = ack.finish();
        self.invite.is_acknowledged = true;
        match self.invite.open.take() {
            Some(client) => core.transactions.acknowledge(client, flow, ack, &mut core.out),
            None => core.transactions.send_stateless(flow, ack, &mut core.out),
        }
    }

    /// Repeats an answer to its peer's INVITE, which has this CSeq number, until it is acknowledged.
    pub(super) fn repeat_until_acknowledged(&mut self, answer: Answer, cseq: u32, core: &mut Core) {
        let interval = core.config.timers.t1;
        let until = core.now.monotonic.saturating_add(interval.saturating_mul(64));
        let timer = core.schedule(interval, self.timer(CallTimer::Repeat(self.id)));
        let repeat = Repeat { answer, cseq, interval, until, timer };
        if let Some(old) = self.repeat.replace(repeat) {
            core.timers.cancel(old.timer);
        }
    }

    pub(super) fn stop_repeating(&mut self, core: &mut Core) {
        if let Some(repeat) = self.repeat.take() {
            core.timers.cancel(repeat.timer);
        }
    }

    /// Repeats it once more; when its time is over it comes back.
    pub(super) fn repeat(&mut self, core: &mut Core) -> Option<Answer> {
        let key = self.timer(CallTimer::Repeat(self.id));
        let (t2, now, is_reliable) =
            (core.config.timers.t2, core.now.monotonic, self.dialog.flow.transport.is_reliable());
        let repeat = self.repeat.as_mut()?;
        if now >= repeat.until {
            return self.repeat.take().map(|repeat| repeat.answer);
        }
        // Provisional responses double without a bound (RFC 3262 §3), 2xx up to T2.
        let doubled = repeat.interval.saturating_mul(2);
        repeat.interval = if repeat.is_final() { doubled.min(t2) } else { doubled };
        repeat.timer = core.timers.schedule(now.saturating_add(repeat.interval), key);
        if !is_reliable || !repeat.is_final() {
            let Answer { server, status, response } = &repeat.answer;
            core.respond(*server, *status, response.clone());
        }
        None
    }

    /// Starts or restarts its session timer.
    pub(super) fn arm_session_timer(&mut self, core: &mut Core) {
        let after = self.session.agreed.map(|agreed| agreed.due_after());
        self.set_session_timer(after, core);
    }

    pub(super) fn set_session_timer(&mut self, after: Option<Duration>, core: &mut Core) {
        let timer = after.map(|after| core.schedule(after, self.timer(CallTimer::Session(self.id))));
        if let Some(old) = std::mem::replace(&mut self.session.timer, timer) {
            core.timers.cancel(old);
        }
    }

    /// Session-Expires and Min-SE of a request of ours.
    pub(super) fn session_headers(&self, method: Method<'_>, core: &Core) -> Option<(String, String)> {
        if method != Method::INVITE && method != Method::UPDATE {
            return None;
        }
        let timer = core.realm(self.realm)?.session_timer;
        let agreed = self.session.agreed.map(|agreed| agreed.interval);
        let interval = agreed.or_else(|| timer.map(|timer| timer.interval))?;
        let least = self.session.least.unwrap_or_default();
        let minimum = timer.map_or(90, |timer| timer.minimum.as_secs()).max(least.as_secs());
        Some((format!("{};refresher=uac", interval.max(least).as_secs()), minimum.to_string()))
    }

    /// Its connection is gone. Trunks are called back where they listen; a phone is, if no NAT stands before it, and else
    /// comes back by itself. Whether it is reached by another way now.
    pub(super) fn lose_connection(&mut self, core: &Core) -> bool {
        let flow = self.dialog.flow;
        let is_trunk = core.realm_of(&flow).is_some_and(|realm| realm.is_trunk_side);
        let way = match is_trunk {
            true => Some(flow.without_connection()),
            false => hop::without_connection(&self.dialog.target, &flow, &core.config),
        };
        let Some(way) = way else { return false };
        self.left = Some(flow);
        self.dialog.flow = way;
        true
    }

    /// BYE, with what the other side says of the reason.
    pub(super) fn say_bye(&self, reason: Option<&[u8]>, core: &mut Core) {
        core.say_farewell(Farewell {
            dialog: self.dialog.clone(),
            left: self.left,
            reason: reason.map(Into::into),
        });
    }

    /// It is over: nothing finds it, and nothing of it is due.
    pub(super) fn end(&mut self, core: &mut Core) {
        core.dialogs.places.remove(&self.dialog.key());
        self.stop_repeating(core);
        self.set_session_timer(None, core);
    }

    fn timer(&self, timer: CallTimer) -> TimerKey {
        TimerKey::Call(self.call, timer)
    }
}

/// The description in a message, without the rest of it.
pub(super) fn said_in(message: &Message) -> Option<Bytes> {
    let range = sip_wire::multipart::session_description(message)?;
    message.body().get(range).map(Bytes::copy_from_slice)
}

pub(super) fn cseq_of(message: &Message) -> u32 {
    message.cseq().map(|cseq| cseq.number).unwrap_or_default()
}
