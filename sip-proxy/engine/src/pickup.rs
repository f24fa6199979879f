//! Who may take over whose call by Replaces (RFC 3891 §3: a user agent must authorise it).
//!
//! Knowing the ids of a dialog proves nothing: subscribers of dialog events, logs and traces have them. The parties of a
//! dialog may replace it; others only where the realm lets them, see [`Pickup`].

use std::sync::Arc;

use ahash::AHashMap;
use sip_wire::{Message, Name};

use crate::call::read_replaces;
use crate::config::{Pickup, Realm};
use crate::core::{Core, Peer, dialog_key};
use crate::io::RealmId;
use crate::question::Caller;

/// An end that can be replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) realm: RealmId,
    /// An AOR, or a trunk's name; empty for nobody we know.
    pub(crate) name: Arc<str>,
}

/// Who is told of whose dialogs.
#[derive(Debug)]
pub(crate) struct Watchers(AHashMap<Watch, u32>);

/// One subscription to the dialog events of an AOR (RFC 4235).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watch {
    pub(crate) watcher: Arc<str>,
    pub(crate) watched: Arc<str>,
}

impl Watch {
    /// What a SUBSCRIBE of a subscriber watches, if that are dialogs.
    pub(crate) fn of(subscribe: &Message, caller: &Caller) -> Option<Self> {
        let Caller::Subscriber { aor } = caller else { return None };
        let event = subscribe.value(Name::Event)?;
        let package = event.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let watched = crate::registrar::aor_of(&sip_wire::Uri::parse(subscribe.request_uri()?).ok()?)?;
        package
            .eq_ignore_ascii_case(b"dialog")
            .then(|| Self { watcher: aor.clone(), watched: watched.into() })
    }
}

impl Watchers {
    pub(crate) fn new() -> Self {
        Self(AHashMap::new())
    }

    pub(crate) fn began(&mut self, watch: Watch) {
        let count = self.0.entry(watch).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn ended(&mut self, watch: &Watch) {
        if let Some(count) = self.0.get_mut(watch) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.0.remove(watch);
            }
        }
    }

    fn has(&self, watcher: &Arc<str>, watched: &Arc<str>) -> bool {
        self.0.contains_key(&Watch { watcher: watcher.clone(), watched: watched.clone() })
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a caller of a realm may replace the dialog that its INVITE names. What names none is for others to judge; what
/// names one by a token of ours has it from us.
pub(crate) fn is_allowed(invite: &Message, caller: &Caller, realm: &Realm, core: &Core) -> bool {
    let named = invite.value(Name::Replaces).and_then(read_replaces);
    let Some((call_id, to_tag, from_tag)) = named else { return true };
    if core.transfers.contains_key(call_id) {
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
    if let Some(peer) = core.dialog_peer(&dialog_key(call_id, to_tag, from_tag)) {
        return Some(peer);
    }
    let stays = core.dialog_peer(&dialog_key(call_id, from_tag, to_tag))?;
    let (call_id, to_tag, from_tag) = read_replaces(&stays.replaces)?;
    core.dialog_peer(&dialog_key(call_id, from_tag, to_tag))
}
