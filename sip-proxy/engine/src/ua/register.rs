//! Registering (RFC 3261 §10.2, RFC 5626 §4.2): asking, proving who we are, refreshing.

use std::time::Duration;

use sip_wire::{Message, Method, Name};

use super::core::{Alarm, Core, Owner};
use super::event::Event;
use crate::timer::TimerId;

/// The registration of an account.
#[derive(Debug, Default)]
pub(super) struct Registration {
    call_id: String,
    tag: String,
    cseq: u32,
    /// What is asked for; zero: to be undone.
    wanted: Duration,
    request: Option<Message>,
    is_authenticated: bool,
    alarm: Option<TimerId>,
    is_pending: bool,
}

impl Registration {
    /// Asks for so long; zero undoes the registration.
    pub(super) fn ask(&mut self, wanted: Duration, core: &mut Core) {
        self.wanted = wanted;
        self.is_authenticated = false;
        self.stop(core);
        // RFC 3261 §10.2: never a second one before the first is answered.
        if !self.is_pending {
            self.send(core);
        }
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
        self.cseq += 1;
        let registrar = format!("sip:{}", core.account.domain());
        let to = core.account.identity();
        let request = core.request(
            Method::REGISTER,
            registrar.as_bytes(),
            to.as_bytes(),
            &self.call_id,
            &self.tag,
            self.cseq,
        );
        let Some(request) = request else { return };
        let mut contact = core.contact(core.account.proxy.listener);
        if let Some(instance) = &core.account.instance {
            contact.push_str(&format!(";reg-id=1;+sip.instance=\"<{instance}>\""));
        }
        let expires = self.wanted.as_secs().to_string();
        let request = request
            .header(Name::Contact, contact.as_bytes())
            .header(Name::Expires, expires.as_bytes())
            .header(Name::Supported, b"path, outbound, gruu")
            .header(Name::Allow, core.account.allow().as_bytes())
            .finish();
        self.request = Message::parse(request.clone()).ok();
        self.is_pending = true;
        core.send(core.account.proxy, request, Owner::Registration);
    }

    pub(super) fn on_response(&mut self, response: &Message, core: &mut Core) {
        let Some(status) = response.status().filter(|status| *status >= 200) else { return };
        self.is_pending = false;
        match status {
            200..=299 => {
                self.is_authenticated = false;
                let granted = self.granted(response, core);
                core.tell(Event::Registered { seconds: granted.as_secs() as u32 });
                if granted.is_zero() && !self.wanted.is_zero() {
                    self.again_in(Duration::from_secs(30), core);
                } else if !granted.is_zero() {
                    // Early enough for a retransmitted refresh to arrive.
                    let ahead = (granted / 4).clamp(Duration::from_secs(1), Duration::from_secs(60));
                    self.again_in(granted.saturating_sub(ahead), core);
                }
            }
            401 | 407 if !self.is_authenticated => {
                let request = self.request.clone();
                let answer = request.and_then(|request| {
                    let answer = core.credentials(&request, response)?;
                    self.cseq += 1;
                    let flow = core.account.proxy;
                    core.again(&request, self.cseq, &flow, &[answer])
                });
                match answer {
                    Some(again) => {
                        self.is_authenticated = true;
                        self.is_pending = true;
                        core.send(core.account.proxy, again, Owner::Registration);
                    }
                    None => self.fail(status, core),
                }
            }
            423 => {
                let least = response.number(Name::MinExpires).and_then(Result::ok).unwrap_or_default();
                let least = Duration::from_secs(u64::from(least));
                if least > self.wanted {
                    self.ask(least, core);
                } else {
                    self.fail(status, core);
                }
            }
            _ => self.fail(status, core),
        }
    }

    pub(super) fn fail(&mut self, status: u16, core: &mut Core) {
        self.is_pending = false;
        core.tell(Event::NotRegistered { status });
        if !self.wanted.is_zero() {
            // RFC 5626 §4.5: 30 s after the first failure, spread.
            let spread = Duration::from_millis(core.ids.number() % 15_000);
            self.again_in(Duration::from_secs(30) + spread, core);
        }
    }

    fn again_in(&mut self, after: Duration, core: &mut Core) {
        self.stop(core);
        self.alarm = Some(core.schedule(after, Alarm::Registration));
    }

    pub(super) fn on_due(&mut self, core: &mut Core) {
        self.alarm = None;
        self.is_authenticated = false;
        if !self.is_pending {
            self.send(core);
        }
    }

    /// What the 200 grants our Contact; a registrar may name others too.
    fn granted(&self, response: &Message, core: &Core) -> Duration {
        let ours = core.contact(core.account.proxy.listener);
        let ours = ours.trim_start_matches('<').split('>').next().unwrap_or_default().to_owned();
        let contact = response.contacts().flatten().find(|contact| contact.uri.as_bytes() == ours.as_bytes());
        let seconds = contact.map(|contact| {
            contact
                .parameter(b"expires")
                .and_then(sip_wire::number)
                .or_else(|| response.number(Name::Expires).and_then(Result::ok))
                .map_or(self.wanted.as_secs(), u64::from)
        });
        Duration::from_secs(seconds.unwrap_or(0))
    }
}
