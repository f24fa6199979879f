//! Registering (RFC 3261 §10.2, RFC 5626 §4.2): asking, proving who we are, refreshing.

use std::sync::Arc;
use std::time::Duration;

use sip_wire::{Message, Method, Name};

use super::core::{Alarm, Core, Origination, Owner};
use super::event::Event;
use super::grant::{self, Ours};
use crate::timer::TimerId;
use crate::transaction::ClientId;

/// Answers to one REGISTER that are acted upon at once: a challenge, a stale nonce, an interval that is too brief. More come
/// from a registrar that does not mean them.
const AT_ONCE: u32 = 3;
/// Until the next attempt after a failure, at least (RFC 5626 §4.5), and after a 2xx that does not list us.
const REST: Duration = Duration::from_secs(30);

/// The registration of an account.
#[derive(Debug, Default)]
pub(super) struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
    /// What is asked for; zero: to be undone.
    wanted: Duration,
    request: Option<Arc<Message>>,
    /// What the request asks for that is under way.
    asked: Duration,
    is_authenticated: bool,
    /// Answers that were acted upon at once.
    at_once: u32,
    /// Grants in a row that were too short to be kept up.
    brief: u32,
    alarm: Option<TimerId>,
    pending: Option<ClientId>,
}

impl Registration {
    /// Asks for so long; zero undoes the registration.
    pub(super) fn ask(&mut self, wanted: Duration, core: &mut Core) {
        self.wanted = wanted;
        self.stop(core);
        // RFC 3261 §10.2: never a second one before the first is answered. What was wished meanwhile follows then.
        if self.pending.is_none() {
            self.begin(core);
        }
    }

    /// Whether a request waits for its answer.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Our address has changed: an answer to what the old one has asked will not come, and says nothing if it does.
    pub(super) fn moved(&mut self, core: &mut Core) {
        if self.pending.take().is_some() {
            self.begin(core);
        }
    }

    fn begin(&mut self, core: &mut Core) {
        self.is_authenticated = false;
        self.at_once = 0;
        self.send(core);
    }

    fn stop(&mut self, core: &mut Core) {
        if let Some(timer) = self.alarm.take() {
            core.timers.cancel(timer);
        }
    }

    fn send(&mut self, core: &mut Core) {
        if self.call_id.is_empty() {
            self.call_id = core.ids.word(24);
            self.tag = core.ids.tag();
        }
        self.cseq = self.cseq.saturating_add(1);
        let registrar = format!("sip:{}", core.account.domain());
        let to = core.account.identity();
        let origination =
            Origination { to: to.as_bytes(), call_id: &self.call_id, from_tag: &self.tag, cseq: self.cseq };
        let request = core.request(Method::REGISTER, registrar.as_bytes(), origination);
        let Some(request) = request else { return };
        let mut contact = core.contact(core.account.proxy.listener);
        if let Some(instance) = &core.account.instance {
            contact.push_str(&format!(";reg-id={};+sip.instance=\"<{instance}>\"", grant::REG_ID));
        }
        let expires = self.wanted.as_secs().to_string();
        let request = request
            .header(Name::Contact, contact.as_bytes())
            .header(Name::Expires, expires.as_bytes())
            .header(Name::Supported, b"path, outbound, gruu")
            .header(Name::Allow, core.account.allow().as_bytes())
            .finish();
        let request = Arc::new(request);
        self.request = Some(Arc::clone(&request));
        self.asked = self.wanted;
        self.pending = Some(core.send(core.account.proxy, request, Owner::Registration));
    }

    pub(super) fn on_response(&mut self, client: ClientId, response: &Message, core: &mut Core) {
        let Some(status) = response.status().filter(|status| *status >= 200) else { return };
        if self.pending != Some(client) {
            return;
        }
        self.pending = None;
        let is_in_time = self.at_once < AT_ONCE;
        match status {
            200..=299 => self.on_success(response, core),
            401 | 407 if !self.is_authenticated && is_in_time => {
                self.at_once = self.at_once.saturating_add(1);
                let request = self.request.clone();
                let answer = request.and_then(|request| {
                    let answer = core.credentials(&request, response)?;
                    self.cseq = self.cseq.saturating_add(1);
                    let flow = core.account.proxy;
                    core.again(&request, self.cseq, &flow, &[answer])
                });
                match answer {
                    Some(again) => {
                        self.is_authenticated = true;
                        self.pending = Some(core.send(core.account.proxy, again, Owner::Registration));
                    }
                    None => self.failed(status, core),
                }
            }
            423 => {
                let least = response.number(Name::MinExpires).and_then(Result::ok).unwrap_or_default();
                let least = Duration::from_secs(u64::from(least)).min(crate::times::LONGEST_MIN_EXPIRES);
                if least > self.asked && !self.wanted.is_zero() && is_in_time {
                    self.at_once = self.at_once.saturating_add(1);
                    self.wanted = least.max(self.wanted);
                    self.is_authenticated = false;
                    self.send(core);
                } else {
                    self.failed(status, core);
                }
            }
            _ => self.failed(status, core),
        }
    }

    fn on_success(&mut self, response: &Message, core: &mut Core) {
        let contact = core.contact(core.account.proxy.listener);
        let uri = contact.trim_start_matches('<').trim_end_matches('>');
        let ours = Ours { uri, instance: core.account.instance.as_deref() };
        // Whose binding we have undone is not listed; who still lists it has not understood, and is not asked again.
        let granted = match self.asked {
            Duration::ZERO => Duration::ZERO,
            asked => grant::granted(response, &ours, asked),
        };
        core.tell(Event::Registered { seconds: granted.as_secs() as u32 });
        if self.asked != self.wanted {
            self.begin(core);
        } else if self.wanted.is_zero() {
            self.brief = 0;
        } else if granted.is_zero() {
            self.again_in(REST, core);
        } else {
            self.again_in(grant::refresh_after(granted, self.wanted, self.brief), core);
            self.brief = if grant::is_brief(granted) { self.brief.saturating_add(1) } else { 0 };
        }
    }

    /// A request had no answer.
    pub(super) fn unanswered(&mut self, client: ClientId, status: u16, core: &mut Core) {
        if self.pending.take_if(|pending| *pending == client).is_some() {
            self.failed(status, core);
        }
    }

    fn failed(&mut self, status: u16, core: &mut Core) {
        core.tell(Event::NotRegistered { status });
        if self.asked != self.wanted {
            self.begin(core);
        } else if !self.wanted.is_zero() {
            // RFC 5626 §4.5: spread.
            let spread = Duration::from_millis(core.ids.number() % 15_000);
            self.again_in(REST.saturating_add(spread), core);
        }
    }

    fn again_in(&mut self, after: Duration, core: &mut Core) {
        self.stop(core);
        self.alarm = Some(core.schedule(after, Alarm::Registration));
    }

    pub(super) fn on_due(&mut self, core: &mut Core) {
        self.alarm = None;
        if self.pending.is_none() {
            self.begin(core);
        }
    }
}
