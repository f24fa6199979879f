//! Who may take over whose call by Replaces (RFC 3891 §3: a user agent must authorise it).
//!
//! Knowing the ids of a dialog proves nothing: subscribers of dialog events, logs and traces have them. The parties of a
//! dialog may replace it; others only where the realm lets them, see [`Pickup`].

use std::sync::Arc;

use sip_wire::{Message, Name};

use crate::config::{Pickup, Realm};
use crate::core::Core;
use crate::dialog::dialog_key;
use crate::peer::Peer;
use crate::question::Caller;
use crate::replaces::read_replaces;
pub use crate::watchers::Watch;

/// Whether a caller of a realm may replace the dialog that its INVITE names. What names none is for others to judge; what
/// names one by a token of ours has it from us.
pub(crate) fn is_allowed(invite: &Message, caller: &Caller, realm: &Realm, core: &Core) -> bool {
    let named = invite.value(Name::Replaces).and_then(read_replaces);
    let Some((call_id, to_tag, from_tag)) = named else { return true };
    if core.dialogs.transfers.contains_key(call_id) {
        return true;
    }
    let Some(peer) = replaced(call_id, to_tag, from_tag, core) else { return true };
    let party = &peer.named;
    let is_same_realm = party.realm == realm.id;
    match caller {
        // The realm asks nobody who he is.
        Caller::Anonymous => is_same_realm,
        Caller::Trunk { name } => *name == party.name,
        Caller::Subscriber { aor } => {
            *aor == party.name
                || match realm.pickup {
                    Pickup::Own => false,
                    Pickup::Subscribed => core.watchers.has(aor, &party.name),
                    Pickup::Domain => {
                        is_same_realm
                            && aor.rsplit_once('@').map(|aor| aor.1)
                                == party.name.rsplit_once('@').map(|name| name.1)
                            || core.watchers.has(aor, &party.name)
                    }
                }
        }
    }
}

/// The end that leaves the call: the one whose dialog is named as it knows it; or, where the ids are those of the end that
/// the INVITE is for, which was told so by an event (RFC 4235), the one at the other side of that.
fn replaced(call_id: &[u8], to_tag: &[u8], from_tag: &[u8], core: &Core) -> Option<Arc<Peer>> {
    if let Some(peer) = core.dialogs.peer(&dialog_key(call_id, to_tag, from_tag)) {
        return Some(peer);
    }
    let stays = core.dialogs.peer(&dialog_key(call_id, from_tag, to_tag))?;
    let (call_id, to_tag, from_tag) = read_replaces(&stays.replaces)?;
    core.dialogs.peer(&dialog_key(call_id, from_tag, to_tag))
}
