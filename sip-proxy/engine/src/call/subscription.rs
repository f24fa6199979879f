//! Subscriptions (RFC 6665): dialogs that a SUBSCRIBE makes, and NOTIFYs keep.

use sip_wire::{Message, Method, Name};

use super::forward::Forward;
use super::{Call, CallTimer};
use crate::core::Core;
use crate::event::EndCause;
use crate::transaction::Incoming;

impl Call {
    /// A SUBSCRIBE was accepted (RFC 6665 §4.1).
    pub(super) fn accept_subscription(&mut self, id: u32, response: &Message, core: &mut Core) {
        let Some(answer) = self.build_response(id, response, None, core) else {
            return self.fail_upstream(502, EndCause::Failed, core);
        };
        self.answered = true;
        core.respond(self.upstream.incoming.server, response.status().unwrap_or(200), answer);
        self.extend_subscription(response, core);
    }

    pub(super) fn extend_subscription(&mut self, response: &Message, core: &mut Core) {
        let expires = response.number(Name::Expires).and_then(Result::ok).unwrap_or(3600);
        if let Some(timer) = self.ringing.take() {
            core.timers.cancel(timer);
        }
        let life = std::time::Duration::from_secs(u64::from(expires)).min(crate::times::LONGEST_SUBSCRIPTION);
        let life = life.saturating_add(core.config.timers.t1.saturating_mul(64));
        self.ringing = Some(self.schedule(life, CallTimer::Expiry, core));
    }

    /// A NOTIFY whose Subscription-State has a parameter that no parser takes (linphone says `reason=reason=noresource`)
    /// is dropped by strict phones, and their transfer never ends: what can be read of it goes on (RFC 6665 §8.4).
    pub(super) fn with_sound_state(request: Message) -> Message {
        let Some(state) = request.value(Name::SubscriptionState) else { return request };
        let mut parts = state.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let mut sound = parts.next().unwrap_or_default().to_vec();
        for part in parts.filter(|part| !part.is_empty()) {
            let mut words = part.split(|byte| *byte == b'=').map(<[u8]>::trim_ascii);
            let (name, value) = (words.next().unwrap_or_default(), words.next_back());
            sound.extend_from_slice(&[b";", name].concat());
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                sound.extend_from_slice(&[b"=", value].concat());
            }
        }
        let equals = |text: &[u8]| memchr::memchr_iter(b'=', text).count();
        if equals(&sound) == equals(state) || state.contains(&b'"') {
            return request;
        }
        let mut edit = request.edit();
        edit.set(Name::SubscriptionState, &sound);
        edit.message()
    }

    /// A NOTIFY that says the subscription is over ends ours; a refresh prolongs it.
    pub(super) fn after_notify(&mut self, forward: &Forward, core: &mut Core) {
        if self.purpose != super::Purpose::Subscription {
            return;
        }
        if forward.request.method() == Some(Method::SUBSCRIBE) {
            let request = forward.request.clone();
            self.extend_subscription(&request, core);
        }
        let is_over = forward.request.value(Name::SubscriptionState).is_some_and(|state| {
            state.get(..10).is_some_and(|word| word.eq_ignore_ascii_case(b"terminated"))
        });
        if is_over {
            self.done_once(core);
        }
    }

    /// A NOTIFY before the 2xx to its SUBSCRIBE makes the dialog (RFC 6665 §4.4.1).
    pub(crate) fn on_early_notify(
        &mut self,
        index: u16,
        incoming: &Incoming,
        core: &mut Core,
    ) -> Option<u32> {
        let branch = self.branches.get(usize::from(index))?;
        let sent = branch.request.as_ref()?;
        let Incoming { flow, request: notify, .. } = incoming;
        // Seen as a response to our SUBSCRIBE, a NOTIFY's From is its To.
        let tag = notify.from().ok()?.tag()?;
        let to = [sent.value(Name::To)?, b";tag=", tag].concat();
        let as_response = sip_wire::Builder::response(200, b"OK")
            .header(Name::From, sent.value(Name::From)?)
            .header(Name::To, &to)
            .header(Name::CallId, sent.call_id().ok()?)
            .header(Name::CSeq, sent.value(Name::CSeq)?);
        let as_response = match notify.value(Name::Contact) {
            Some(contact) => as_response.header(Name::Contact, contact),
            None => as_response,
        };
        let as_response = as_response.finish();
        let dialog = crate::dialog::Dialog::uac(sent, &as_response, *flow).ok()?;
        self.make_pair(index, dialog, None, core)
    }
}
