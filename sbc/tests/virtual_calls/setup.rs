//! The place of all calls: one node, two realms, one AOR, one trunk.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sip_engine::config::{
    Authentication, Config, IdentityPolicy, Limits, Listener, Realm, RegistrarMode, TimerValues,
};
use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::io::{Flow, ListenerId, RealmId, Transport};
use sip_engine::question::{Policy, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};
use sip_engine::registrar::BindingRecord;
use sip_engine::ua::{Abilities, Account, UserAgent};

pub(crate) const ACCESS: ListenerId = ListenerId(0);
pub(crate) const CORE: ListenerId = ListenerId(1);
pub(crate) const DOMAIN: &str = "example.net";
/// The AOR with all the phones of the access side that can be called.
pub(crate) const SUBSCRIBER: &str = "bob";
/// The AOR of the phone that calls are transferred to.
pub(crate) const THIRD: &str = "carol";
/// What leads to the trunk.
pub(crate) const ABROAD: &str = "4930";

pub(crate) fn sbc_address(listener: ListenerId) -> SocketAddr {
    if listener == ACCESS { ([192, 0, 2, 1], 5060).into() } else { ([198, 51, 100, 1], 5060).into() }
}

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
    let realm = |id, name: &str, authentication, is_trunk_side| Realm {
        id: RealmId(id),
        name: name.into(),
        domains: vec![DOMAIN.into()],
        registrar: RegistrarMode::None,
        authentication,
        digest: vec![Algorithm::Md5],
        identity: IdentityPolicy::Pass,
        trusted: is_trunk_side,
        keepalive: None,
        pass_unknown_require: false,
        demands_qop: false,
        hairpin: Default::default(),
        pickup: Default::default(),
        session_timer: None,
        is_trunk_side,
        passing: Default::default(),
    };
    let listener = |realm: u16| Listener {
        realm: RealmId(realm),
        transport: Transport::Udp,
        address: sbc_address(ListenerId(realm)),
        advertised: sbc_address(ListenerId(realm)),
        datagram_limit: 65_000,
    };
    Config {
        node: 1,
        realms: vec![
            realm(0, "access", Authentication::Open, false),
            realm(1, "core", Authentication::KnownSource, true),
        ],
        listeners: vec![listener(0), listener(1)],
        timers: TimerValues { ringing: Duration::from_secs(25), ..TimerValues::default() },
        limits: Limits::default(),
        product: Some("virtual".into()),
        addresses: Arc::default(),
    }
}

/// A phone's user agent.
pub(crate) fn user_agent(
    user: &str,
    side: ListenerId,
    number: usize,
    abilities: Abilities,
    seed: [u8; 32],
) -> UserAgent {
    let address = phone_address(side, number);
    let listener = Listener {
        realm: RealmId(0),
        transport: Transport::Udp,
        address,
        advertised: address,
        datagram_limit: 65_000,
    };
    let account = Account {
        aor: format!("sip:{user}@{DOMAIN}").into(),
        display: None,
        credentials: None,
        listeners: vec![listener],
        proxy: Flow {
            listener: ListenerId(0),
            transport: Transport::Udp,
            remote: sbc_address(side),
            connection: None,
        },
        instance: None,
        product: None,
        timers: TimerValues::default(),
        session_timer: None,
        abilities,
        info_packages: Vec::new(),
    };
    UserAgent::new(account, seed)
}

/// A contact of an AOR on the access side.
pub(crate) fn binding(user: &str, number: usize) -> BindingRecord {
    let address = phone_address(ACCESS, number);
    BindingRecord {
        aor: format!("{user}@{DOMAIN}").into(),
        realm: RealmId(0),
        uri: format!("sip:{user}@{address}"),
        flow: Flow { listener: ACCESS, transport: Transport::Udp, remote: address, connection: None },
        call_id: format!("registration-{number}"),
        cseq: 1,
        expires: Duration::from_secs(1 << 40),
        q: 1000,
        instance: None,
        path: Vec::new(),
        user_agent: String::new(),
        behind_nat: false,
        token: None,
        upstream_expires: Duration::ZERO,
    }
}

/// Knows two AORs and one trunk.
#[derive(Debug)]
pub(crate) struct Snapshot;

impl Policy for Snapshot {
    fn credentials(&self, _: &str, _: &str) -> Vec<Ha1> {
        Vec::new()
    }

    fn source(&self, _: RealmId, _: IpAddr) -> Option<Arc<str>> {
        Some("carrier".into())
    }

    fn route(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        match question.user {
            SUBSCRIBER | THIRD => {
                Ok(vec![RouteStep::Aor { aor: format!("{}@{DOMAIN}", question.user).into() }])
            }
            ABROAD => {
                let target = TrunkTarget {
                    name: "carrier".into(),
                    realm: RealmId(1),
                    host: "trunk.example.org".into(),
                    port: None,
                    transport: None,
                    credentials: None,
                    timeout: None,
                    ping: None,
                };
                Ok(vec![RouteStep::Trunk { target: target.into(), user: ABROAD.into() }])
            }
            _ => Err(RouteRefusal::NotFound),
        }
    }

    fn trunk(&self, _: &str) -> Option<Arc<TrunkTarget>> {
        None
    }
}
