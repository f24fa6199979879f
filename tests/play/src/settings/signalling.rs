//! Of the engine, and of who speaks with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sip_engine::config::{
    Authentication, Config, Digest, Expiry, IdentityPolicy, Limits, Listener, Realm, RegistrarMode,
    TimerValues,
};
use sip_engine::digest::Algorithm;
use sip_engine::io::{Flow, ListenerId, RealmId, Transport};
use sip_engine::registrar::BindingRecord;
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account};

/// Of both realms.
pub const DOMAIN: &str = "example.net";
/// Towards the telephones.
pub const ACCESS: ListenerId = ListenerId(0);
/// Towards the core.
pub const CORE: ListenerId = ListenerId(1);
/// The SBC towards the telephones and the core.
pub const SBC: [&str; 2] = ["192.0.2.1:5060", "198.51.100.1:5060"];

/// The SBC, as a listener of [`two_realms`] has it.
pub fn sbc(listener: ListenerId) -> SocketAddr {
    let text = if listener == ACCESS { SBC[0] } else { SBC[1] };
    text.parse().unwrap()
}

/// Since the beginning of virtual time, and in 2027.
pub fn at(monotonic: Duration) -> Now {
    Now { monotonic, wall: Duration::from_secs(1_800_000_000) + monotonic }
}

/// Open to anybody, without a registrar: Contact and From may name whom they like.
pub fn realm(id: u16, name: &str) -> Realm {
    Realm {
        id: RealmId(id),
        name: name.into(),
        domains: vec![DOMAIN.into()],
        registrar: RegistrarMode::None,
        authentication: Authentication::Open,
        digest: Digest { algorithms: vec![Algorithm::Md5], demands_qop: false },
        identity: IdentityPolicy::Pass,
        trusted: false,
        keepalive: None,
        pass_unknown_require: false,
        hairpin: Default::default(),
        pickup: Default::default(),
        session_timer: None,
        is_trunk_side: false,
        passing: Default::default(),
    }
}

/// Bindings of at least so long, and of an hour unless a telephone wants less.
pub fn an_hour(minimum: Duration) -> Expiry {
    let hour = Duration::from_secs(3600);
    Expiry { minimum, default: hour, maximum: hour, nat: hour }
}

/// Of a realm, there, for datagrams of any size.
pub fn listener(realm: u16, transport: Transport, address: SocketAddr) -> Listener {
    Listener { realm: RealmId(realm), transport, address, advertised: address, datagram_limit: 65_000 }
}

/// Two realms, "access" and "core", with a listener over UDP each.
pub fn two_realms() -> Config {
    Config {
        node: 1,
        realms: vec![realm(0, "access"), Realm { is_trunk_side: true, ..realm(1, "core") }],
        listeners: [ACCESS, CORE].map(|side| listener(side.0, Transport::Udp, sbc(side))).into(),
        timers: TimerValues::default(),
        limits: Limits::default(),
        product: None,
        addresses: Arc::default(),
    }
}

/// Over UDP, by a listener, with somebody.
pub fn flow(listener: ListenerId, remote: SocketAddr) -> Flow {
    Flow { listener, transport: Transport::Udp, remote, connection: None }
}

/// Of a telephone that is there and speaks with the SBC at `proxy`; without a password.
pub fn account(user: &str, local: SocketAddr, proxy: SocketAddr) -> Account {
    Account {
        aor: format!("sip:{user}@{DOMAIN}").into(),
        display: None,
        credentials: None,
        listeners: vec![listener(0, Transport::Udp, local)],
        proxy: flow(ACCESS, proxy),
        instance: None,
        product: None,
        timers: TimerValues::default(),
        session_timer: None,
        abilities: Abilities::default(),
        info_packages: Vec::new(),
    }
}

/// A telephone's binding that never ends: where its Contact says that it is, and where it was seen.
pub fn binding(user: &str, local: SocketAddr, seen: SocketAddr) -> BindingRecord {
    BindingRecord {
        aor: format!("{user}@{DOMAIN}").into(),
        realm: RealmId(0),
        uri: format!("sip:{user}@{local}"),
        flow: flow(ACCESS, seen),
        call_id: format!("registration-of-{local}"),
        cseq: 1,
        expires: Duration::from_secs(1 << 40),
        q: 1000,
        instance: None,
        path: Vec::new(),
        user_agent: String::new(),
        behind_nat: local != seen,
        token: None,
        upstream_expires: Duration::ZERO,
    }
}
