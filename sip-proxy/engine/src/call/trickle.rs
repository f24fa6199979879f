//! INFO with candidates (RFC 8840): what is in it names its author's network, so the media plane decides what of it the other
//! end is shown. Without anything to show, the INFO ends here.

use bytes::Bytes;
use seam::Action;
use sip_wire::{Message, Method};

use super::Call;
use super::media::Wait;
use crate::core::Core;

/// RFC 8840 §10.
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Whether a request is one, whatever its Info-Package says.
pub(super) fn is_trickle(request: &Message) -> bool {
    let is_fragment = || request.media_type().is_some_and(|kind| kind.is(FRAGMENT));
    request.method() == Some(Method::INFO) && is_fragment()
}

impl Call {
    /// Asks what of a forward's fragment may pass.
    pub(super) fn ask_for_fragment(&mut self, number: u32, core: &mut Core) {
        let Some(forward) = self.forwards.iter().find(|forward| forward.id == number) else { return };
        let (id, from, fragment) = (forward.pair, forward.from, forward.request.body_bytes());
        let Some(pair) = self.pair(id) else { return };
        let action = Action::Trickle { from: pair.endpoint(from), to: pair.endpoint(!from), fragment };
        self.ask_media(action, Wait::Fragment(number), core);
    }

    /// What the other end is shown of it; `None`: nothing, and its author need not know.
    pub(super) fn on_fragment(&mut self, number: u32, fragment: Option<Bytes>, core: &mut Core) {
        if let Some(fragment) = fragment {
            let Some(forward) = self.forward_mut(number) else { return };
            forward.fragment = Some(fragment);
            return self.send_forward(number, core);
        }
        let Some(forward) = self.take_forward(number) else { return };
        if let Some(asked) = forward.asked() {
            core.reject(asked, 200);
        }
        self.after_forward(forward.pair, core);
    }
}
