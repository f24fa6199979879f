//! Where a dialog's requests go: the one rule that joins remote target, route set and flow.
//!
//! - Towards **trunks** it is RFC 3261's: the first route, or the remote target, at the address, port and transport that it
//!   names (§12.2.1.1, RFC 3263 §4.1). Every target refresh changes it (§12.2.2), whoever sent it and from wherever: a
//!   carrier sends from other addresses than it listens on.
//! - Towards **phones** it is the flow: behind a NAT nothing else leads to them. Their Contact or the proxy that recorded
//!   itself counts where its host is the flow's own source, for then no NAT stands between, unless it says `ob`
//!   (RFC 5626 §4.3). A stream is used as long as it stands.
//! - The **flow** of a dialog changes only when its peer has shown that it is there: see `call/heard.rs`. Right ids from
//!   elsewhere are answered where they came from, and move nothing.
//! - An address that may not be sent to is never followed, whoever names it.

use std::net::SocketAddr;

use sip_wire::{Scheme, Uri};

use crate::config::{Config, Realm};
use crate::dialog::Dialog;
use crate::flow::{Flow, Transport};
use crate::transaction::{Hop, Large};

/// The next hop of a dialog's requests.
pub(crate) fn next_hop(dialog: &Dialog, config: &Config) -> Hop {
    let over_flow = Hop::from(dialog.flow);
    let Some(realm) = config.realm_of(dialog.flow.listener) else { return over_flow };
    let Ok(uri) = Uri::parse(dialog.next_hop()) else { return over_flow };
    let is_followed = realm.is_trunk_side || is_at_source(&uri, &dialog.flow);
    match named_by(&uri, &dialog.flow, realm, config).filter(|_| is_followed) {
        Some(flow) => {
            let is_free = realm.is_trunk_side && transport_named(&uri).is_none();
            Hop::new(flow, if is_free { dialog.large } else { Large::AsDatagram })
        }
        None => over_flow,
    }
}

/// Where a phone can be reached that has lost its connection: at its Contact, if no NAT stands before it.
pub(crate) fn without_connection(target: &[u8], flow: &Flow, config: &Config) -> Option<Flow> {
    let uri = Uri::parse(target).ok()?;
    let lost = Flow { connection: None, ..*flow };
    let way =
        is_at_source(&uri, &lost).then(|| named_by(&uri, &lost, config.realm_of(flow.listener)?, config))?;
    way.map(|way| Flow { connection: None, ..way })
}

/// Whether a phone's URI names the host that its messages come from.
fn is_at_source(uri: &Uri<'_>, flow: &Flow) -> bool {
    let source = flow.remote.ip().to_canonical();
    flow.connection.is_none()
        && uri.parameters().get(b"ob").is_none()
        && uri.host().address().is_some_and(|address| address.to_canonical() == source)
}

/// The way to what a URI names; `None` where it is no literal address, or one that nobody is sent to.
fn named_by(uri: &Uri<'_>, flow: &Flow, realm: &Realm, config: &Config) -> Option<Flow> {
    if !matches!(uri.scheme(), Scheme::Sip | Scheme::Sips) {
        return None;
    }
    let maddr = uri.parameters().get(b"maddr").flatten();
    let address = match maddr {
        Some(maddr) => {
            let text = std::str::from_utf8(maddr).ok()?;
            text.trim_start_matches('[').trim_end_matches(']').parse().ok()?
        }
        None => uri.host().address()?,
    };
    let listener_for = |transport| config.listener_for(realm.id, transport, address);
    let transport = match transport_named(uri) {
        Some(named) => named,
        // Nothing named leaves TLS for less (RFC 3261 §26.2.2), and a phone stays with what it speaks.
        None if flow.transport == Transport::Tls || !realm.is_trunk_side => flow.transport,
        // RFC 3263 §4.1: a literal address without a transport means UDP.
        None => listener_for(Transport::Udp).map_or(flow.transport, |_| Transport::Udp),
    };
    let port = uri.port().unwrap_or(if transport == Transport::Tls { 5061 } else { 5060 });
    let remote = SocketAddr::new(address, port);
    let is_here = transport == flow.transport && address.to_canonical() == flow.remote.ip().to_canonical();
    // A certificate is checked against the name that was dialled, and an address has none: who came by TLS stays there.
    if is_here && (port == flow.remote.port() || (transport == Transport::Tls && flow.connection.is_some())) {
        return Some(*flow);
    }
    config.addresses.judge(realm.id.0, remote).ok()?;
    let is_own_family = address.is_ipv4() == flow.remote.is_ipv4();
    let listener =
        if transport == flow.transport && is_own_family { flow.listener } else { listener_for(transport)? };
    Some(Flow { listener, transport, remote, connection: None })
}

/// The transport that a URI names.
fn transport_named(uri: &Uri<'_>) -> Option<Transport> {
    if uri.scheme() == Scheme::Sips {
        return Some(Transport::Tls);
    }
    match uri.parameters().get(b"transport").flatten()? {
        name if name.eq_ignore_ascii_case(b"udp") => Some(Transport::Udp),
        name if name.eq_ignore_ascii_case(b"tcp") => Some(Transport::Tcp),
        name if name.eq_ignore_ascii_case(b"tls") => Some(Transport::Tls),
        _ => None,
    }
}

impl Dialog {
    /// Whether a message over `seen` came from the very address that the dialog's requests go to.
    pub(crate) fn is_from_target(&self, seen: &Flow) -> bool {
        self.literal_next_hop().is_some_and(|target| {
            let (remote, ip) = (seen.remote, target.ip().to_canonical());
            seen.transport == Transport::Udp
                && self.flow.transport == Transport::Udp
                && remote.ip().to_canonical() == ip
                && self.flow.remote.ip().to_canonical() == ip
                && remote.port() == target.port()
        })
    }
}

/// Whether a message over `seen` came the way that `known` names.
pub(crate) fn is_same_way(known: &Flow, seen: &Flow) -> bool {
    match (known.connection, seen.connection) {
        (Some(known), Some(seen)) => known == seen,
        (None, None) => known.transport == seen.transport && known.remote == seen.remote,
        // Where a stream is opened to, messages come over it.
        (None, Some(_)) => known.transport == seen.transport && known.remote == seen.remote,
        (Some(_), None) => false,
    }
}
