//! Transfers: dialogs of one side named to the other, which knows them by other names (RFC 3515, RFC 3891).

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Address, Message, Name, Uri};

use crate::core::Core;
use crate::dialog::dialog_key;
use crate::io::{DialogEnd, Output, Replica};
use crate::peer::Peer;
use crate::replaces::read_replaces;

/// The Replaces (RFC 3891) of a request for the other side. A phone that does not know the header (baresip) follows a
/// Refer-To without it: then the token that we gave as its user tells which dialog is meant.
pub(super) fn replaces_of(request: &Message, core: &Core) -> Option<Vec<u8>> {
    if let Some(value) = request.value(Name::Replaces) {
        return translate_replaces(value, core);
    }
    let uri = Uri::parse(request.request_uri()?).ok()?;
    core.dialogs.transfers.get(uri.user()).map(|peer| peer.replaces.to_vec())
}

/// A Replaces value as the end that is to take it knows the dialog; `None` if we don't know it.
fn translate_replaces(value: &[u8], core: &Core) -> Option<Vec<u8>> {
    let (call_id, to_tag, from_tag) = read_replaces(value)?;
    let peer = core.dialogs.transfers.get(call_id).cloned();
    if let Some(peer) = peer.or_else(|| core.dialogs.peer(&dialog_key(call_id, to_tag, from_tag))) {
        return Some(only_early(&peer.replaces, value));
    }
    // The other way round: who was told of a dialog (RFC 4235) knows it as the far end does, and picks the call up from
    // that very end (RFC 3891 §1). There it is called so already.
    core.dialogs.peer(&dialog_key(call_id, from_tag, to_tag)).map(|_| value.to_vec())
}

/// A pickup that must not take a call that has been answered meanwhile says so (RFC 3891 §3), to the end as well.
fn only_early(replaces: &[u8], asked: &[u8]) -> Vec<u8> {
    let has = |value: &[u8]| sip_wire::Parameters::new(value).get(b"early-only").is_some();
    if has(asked) && !has(replaces) {
        return [replaces, b";early-only"].concat();
    }
    replaces.to_vec()
}

/// Refer-To (RFC 3515) for the other side: a host of the referrer's side becomes one of theirs, a Replaces names what
/// we know the dialog by.
pub(super) fn translate_refer_to(
    value: &[u8],
    host: &str,
    slot: crate::slot::Slot,
    from: &crate::config::Realm,
    core: &mut Core,
) -> Option<Vec<u8>> {
    let address = Address::parse(value).ok()?;
    let uri = address.uri;
    if let Some(replaces) = uri.header(b"Replaces") {
        let (call_id, to_tag, from_tag) = read_replaces(&replaces)?;
        let known = core.dialogs.peer(&dialog_key(call_id, to_tag, from_tag));
        if let Some(peer) = known {
            let token = core.ids.call_id(slot);
            let named = only_early(format!("{token};to-tag=x;from-tag=x").as_bytes(), &replaces);
            let out = format!("<sip:{token}@{host}?Replaces={}>", Uri::escape(&named)).into_bytes();
            let peer =
                Arc::new(Peer { replaces: only_early(&peer.replaces, &replaces).into(), ..(*peer).clone() });
            let token: Box<[u8]> = token.into_bytes().into();
            let end = DialogEnd { token: token.clone(), peer: peer.clone() };
            core.out.push_back(Output::Replicate(Replica::End(end)));
            core.dialogs.remember(token, peer);
            return Some(out);
        }
    }
    let named = String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase();
    let is_ours = from.domains.iter().any(|domain| **domain == *named) || uri.host().address().is_some();
    if !is_ours {
        return Some(value.to_vec());
    }
    // At a host of ours, and of a dialog that is not: nobody can follow it (RFC 3891 §3).
    if uri.header(b"Replaces").is_some() {
        return None;
    }
    let user = String::from_utf8_lossy(uri.user()).into_owned();
    Some(format!("<sip:{user}@{host}>").into_bytes())
}

/// How the target of a pair is reached by an INVITE that replaces its dialog, and who it is.
pub(super) fn peer_of(
    end: &super::leg::Leg,
    who: Arc<str>,
    named: crate::peer::Party,
    core: &Core,
) -> crate::peer::Peer {
    let dialog = &end.dialog;
    let replaces =
        [&*dialog.call_id, b";to-tag=", &dialog.remote_tag, b";from-tag=", &dialog.local_tag].concat();
    crate::peer::Peer {
        replaces: replaces.into(),
        realm: end.realm,
        flow: crate::hop::next_hop(dialog, &core.config).flow,
        uri: Bytes::copy_from_slice(&dialog.target),
        path: dialog.routes.iter().map(|route| Bytes::copy_from_slice(route)).collect(),
        aor: end.aor.clone(),
        named,
        who,
    }
}
