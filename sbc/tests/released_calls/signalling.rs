//! The engine and the phones' user agents of one call, and what carries their messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use play::policy::{Table, through, to, trunk};
use play::settings::signalling::{self as settings, ACCESS, CORE, flow};
pub(crate) use play::settings::signalling::{DOMAIN, at};
use sip_engine::config::Config;
use sip_engine::io::{Flow, RealmId, Transport};
use sip_engine::question::TrunkTarget;
use sip_engine::ua::{Account, UserAgent};
use sip_wire::{Message, Method, Name};

pub(crate) fn sbc() -> SocketAddr {
    settings::sbc(ACCESS)
}

/// The SBC towards the core, and who is there.
pub(crate) const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 60)), 5_060);

fn core() -> SocketAddr {
    ([192, 0, 2, 1], 5_070).into()
}

pub(crate) fn core_flow() -> Flow {
    flow(CORE, PROXY)
}

/// What a registrar's proxy in the core makes of a message of the SBC (RFC 3261 §16.11, without state): it brings everything back to the
/// SBC, which has registered for the called phone, and stays in the path.
pub(crate) fn proxied(message: &Message) -> Bytes {
    let mut edit = message.edit();
    let first = |name: Name| message.lines().find(|line| line.name == name).map(|line| line.index);
    let Some(method) = message.method() else {
        edit.remove_line(first(Name::Via).expect("a Via"));
        return edit.finish();
    };
    if let Some(route) = first(Name::Route) {
        edit.remove_line(route);
    } else if matches!(method, Method::INVITE | Method::CANCEL | Method::ACK) {
        // The Contact that a registrar knows is not what was dialled (RFC 3261 §16.6 step 2).
        edit.request_uri(format!("sip:bobs-phone@{}", core()).as_bytes());
    }
    let is_first = message.to().is_ok_and(|to| to.tag().is_none());
    if is_first && method == Method::INVITE {
        edit.prepend(Name::RecordRoute, format!("<sip:{PROXY};lr>").as_bytes());
    }
    let branch = message.via().expect("a Via").branch().map(String::from_utf8_lossy).expect("a branch");
    edit.prepend(Name::Via, format!("SIP/2.0/UDP {PROXY};branch={branch}-proxy").as_bytes());
    edit.finish()
}

/// Phones, and what is behind the registrar's proxy: anybody calls anybody.
pub(crate) fn config() -> Config {
    let mut config = settings::two_realms();
    config.realms[1].is_trunk_side = false;
    config.listeners[1] = settings::listener(1, Transport::Udp, core());
    config.product = Some("virtual".into());
    config
}

/// The info package of trickled candidates (RFC 8840 §10), and what its bodies are.
pub(crate) const PACKAGE: &str = "trickle-ice";
pub(crate) const FRAGMENT: &[u8] = b"application/trickle-ice-sdpfrag";

/// A telephone's account; `local` is what its Contact says.
pub(crate) fn telephone(user: &str, product: &str, local: SocketAddr) -> Account {
    Account { product: Some(product.into()), ..settings::account(user, local, sbc()) }
}

/// One that takes candidates, or not.
pub(crate) fn user_agent(
    user: &str,
    product: &str,
    trickles: bool,
    local: SocketAddr,
    seed: [u8; 32],
) -> UserAgent {
    let info_packages = trickles.then(|| PACKAGE.into()).into_iter().collect();
    UserAgent::new(Account { info_packages, ..telephone(user, product, local) }, seed)
}

/// Calls go to the phone that is called, or all through a registrar's proxy in the core.
pub(crate) fn policy(has_core: bool) -> Table {
    let registrar = Arc::new(TrunkTarget {
        port: Some(PROXY.port()),
        transport: Some(Transport::Udp),
        ..trunk("registrar", &PROXY.ip().to_string())
    });
    Table::new(move |question| match has_core && question.realm == RealmId(0) {
        true => Ok(through(&registrar, "bob")),
        false => Ok(to("bob")),
    })
}
