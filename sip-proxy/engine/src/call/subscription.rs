//! Subscriptions (RFC 6665): dialogs that a SUBSCRIBE makes, and NOTIFYs keep.

use sip_wire::{Message, Name};

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
