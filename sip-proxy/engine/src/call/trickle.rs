//! INFO with candidates (RFC 8840): what is in it names its author's network, so the media plane decides what of it the other
//! end is shown. Without anything to show, the INFO ends here.

use sip_wire::{Message, Method};

/// RFC 8840 §10.
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Whether a request is one, whatever its Info-Package says.
pub(super) fn is_trickle(request: &Message) -> bool {
    let is_fragment = || request.media_type().is_some_and(|kind| kind.is(FRAGMENT));
    request.method() == Some(Method::INFO) && is_fragment()
}
