//! The place of all calls: one node, two realms, one AOR, one trunk.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use play::policy::{Table, through, to, trunk};
use play::settings::signalling::{self as settings, account, two_realms};
pub(crate) use play::settings::signalling::{ACCESS, CORE, DOMAIN, sbc};
use sip_engine::config::{Authentication, Config};
use sip_engine::io::ListenerId;
use sip_engine::question::RouteRefusal;
use sip_engine::registrar::BindingRecord;
use sip_engine::ua::{Abilities, Account, UserAgent};

/// The AOR with all the phones of the access side that can be called.
pub(crate) const SUBSCRIBER: &str = "bob";
/// The AOR of the phone that calls are transferred to.
pub(crate) const THIRD: &str = "carol";
/// What leads to the trunk.
pub(crate) const ABROAD: &str = "4930";

pub(crate) fn media_address(realm: u16) -> IpAddr {
    if realm == 0 { [192, 0, 2, 2].into() } else { [198, 51, 100, 2].into() }
}

/// The address of a phone on a listener's side.
pub(crate) fn phone_address(listener: ListenerId, number: usize) -> SocketAddr {
    let net = if listener == ACCESS { 10 } else { 172 };
    ([net, 16, 0, number as u8 + 10], 5060).into()
}

pub(crate) fn dead_address() -> SocketAddr {
    ([172, 16, 9, 9], 5060).into()
}

pub(crate) fn config() -> Config {
    let mut config = two_realms();
    config.realms[1].authentication = Authentication::KnownSource;
    config.realms[1].trusted = true;
    config.timers.ringing = Duration::from_secs(25);
    config.product = Some("virtual".into());
    config
}

/// A phone's user agent.
pub(crate) fn user_agent(
    user: &str,
    side: ListenerId,
    number: usize,
    abilities: Abilities,
    seed: [u8; 32],
) -> UserAgent {
    let account = Account { abilities, ..account(user, phone_address(side, number), sbc(side)) };
    UserAgent::new(account, seed)
}

/// A contact of an AOR on the access side.
pub(crate) fn binding(user: &str, number: usize) -> BindingRecord {
    let address = phone_address(ACCESS, number);
    settings::binding(user, address, address)
}

/// Knows two AORs and one trunk.
pub(crate) fn policy() -> Table {
    let carrier = Arc::new(trunk("carrier", "trunk.example.org"));
    let table = Table::new(move |question| match question.user {
        SUBSCRIBER | THIRD => Ok(to(question.user)),
        ABROAD => Ok(through(&carrier, ABROAD)),
        _ => Err(RouteRefusal::NotFound),
    });
    table.sources(|_, _, _| Some("carrier".into()))
}
