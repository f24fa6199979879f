//! The session description of a message, whatever body it stands in (RFC 5621).

use std::ops::Range;

use crate::body::Body;
use crate::message::Message;

/// Where a message's session description stands in its body; `None` if there is none, or the body cannot be passed at
/// all, see [`Body::of`].
pub fn session_description(message: &Message) -> Option<Range<usize>> {
    if message.body().is_empty() {
        return None;
    }
    Body::of(message).ok()?.description()
}
