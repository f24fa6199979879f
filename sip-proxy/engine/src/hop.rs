//! Where a dialog's requests go: the one place that joins remote target, route set and flow.

use std::net::SocketAddr;

use sip_wire::Uri;

use crate::core::Core;
use crate::dialog::Dialog;
use crate::io::Flow;

/// Where a dialog's requests go if not back over its flow: towards trunks, and where a proxy recorded itself, to the
/// literal address of the next hop. Phones may be behind NAT: their flow is the only way.
pub(crate) fn next_hop(dialog: &Dialog, core: &Core) -> Option<Flow> {
    let realm = core.realm_of(&dialog.flow)?;
    if !realm.is_trunk_side || dialog.flow.transport.is_reliable() {
        return None;
    }
    let uri = Uri::parse(dialog.next_hop()).ok()?;
    let remote = SocketAddr::new(uri.host().address()?, uri.port().unwrap_or(5060));
    (remote.is_ipv4() == dialog.flow.remote.is_ipv4()).then_some(Flow { remote, ..dialog.flow })
}

/// Where a dialog's requests go after a message came from `seen`: the connection may be a new one, the datagram source
/// too (a NAT rebinds); what came over another listener changes nothing.
pub(crate) fn heard_over(known: &Flow, seen: Flow) -> Flow {
    if seen.listener == known.listener || seen.transport == known.transport { seen } else { *known }
}
