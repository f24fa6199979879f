//! Requests that name a next hop which nobody is sent to.

use std::net::SocketAddr;

use martian::Unfit;
use sip_wire::{Message, Name};

use crate::core::Core;
use crate::dialog::dialog_key;
use crate::flow::Flow;

/// Why a request from a trunk cannot be followed to where it says that its author is: the next hop that its Record-Route, else
/// its Contact, names is one that nobody is sent to. Of phones nothing is followed that is not their source.
///
/// One Contact of ours is right: that of a request which we sent ourselves, and which a proxy behind us sent on through us. Both
/// halves are one call.
pub(crate) fn unfit(request: &Message, flow: &Flow, core: &Core) -> Option<Unfit> {
    let realm = core.realm_of(flow).filter(|realm| realm.is_trunk_side)?;
    let contact = request.contacts().next().and_then(Result::ok).map(|contact| contact.uri);
    let route = request.addresses(Name::RecordRoute).next().and_then(Result::ok).map(|route| route.uri);
    let hop = route.or(contact)?;
    let remote = SocketAddr::new(hop.host().address()?, hop.port().unwrap_or(5060));
    let is_source = remote.ip().to_canonical() == flow.remote.ip().to_canonical();
    let unfit = core.config.addresses.judge(realm.id.0, remote).err().filter(|_| !is_source)?;
    (unfit != Unfit::Ours || !is_from_ourselves(request, core)).then_some(unfit)
}

/// Whether a call of ours sent this request: one that is up has its Call-ID and From tag.
fn is_from_ourselves(request: &Message, core: &Core) -> bool {
    let Some((call_id, from)) = request.call_id().ok().zip(request.from().ok()) else { return false };
    let local = from.tag().unwrap_or_default();
    let remote = request.to().ok().and_then(|to| to.tag().map(<[u8]>::to_vec)).unwrap_or_default();
    core.dialogs.halves.contains_key(&dialog_key(call_id, local, b""))
        || core.dialogs.places.contains_key(&dialog_key(call_id, local, &remote))
}
