//! The engine and the phones' user agents of one call, and what carries their messages.

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
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, UserAgent};

pub(crate) const DOMAIN: &str = "example.net";
const CALLEE: &str = "bob@example.net";

pub(crate) fn sbc() -> SocketAddr {
    ([192, 0, 2, 1], 5060).into()
}

pub(crate) fn at(monotonic: Duration) -> Now {
    Now { monotonic, wall: Duration::from_secs(1_800_000_000) + monotonic }
}

pub(crate) fn flow(remote: SocketAddr) -> Flow {
    Flow { listener: ListenerId(0), transport: Transport::Udp, remote, connection: None }
}

fn listener(address: SocketAddr) -> Listener {
    Listener {
        realm: RealmId(0),
        transport: Transport::Udp,
        address,
        advertised: address,
        datagram_limit: 65_000,
    }
}

pub(crate) fn config() -> Config {
    Config {
        node: 1,
        realms: vec![Realm {
            id: RealmId(0),
            name: "access".into(),
            domains: vec![DOMAIN.into()],
            registrar: RegistrarMode::None,
            authentication: Authentication::Open,
            digest: vec![Algorithm::Md5],
            identity: IdentityPolicy::Pass,
            trusted: false,
            keepalive: None,
            pass_unknown_require: false,
            demands_qop: false,
            hairpin: Default::default(),
            pickup: Default::default(),
            session_timer: None,
            is_trunk_side: false,
            passing: Default::default(),
        }],
        listeners: vec![listener(sbc())],
        timers: TimerValues::default(),
        limits: Limits::default(),
        product: Some("virtual".into()),
        addresses: Arc::default(),
    }
}

/// The info package of trickled candidates (RFC 8840 §10), and what its bodies are.
pub(crate) const PACKAGE: &str = "trickle-ice";
pub(crate) const FRAGMENT: &[u8] = b"application/trickle-ice-sdpfrag";

/// `local` is what its Contact says.
pub(crate) fn user_agent(
    user: &str,
    product: &str,
    trickles: bool,
    local: SocketAddr,
    seed: [u8; 32],
) -> UserAgent {
    let account = Account {
        aor: format!("sip:{user}@{DOMAIN}").into(),
        display: None,
        credentials: None,
        listeners: vec![listener(local)],
        proxy: flow(sbc()),
        instance: None,
        product: Some(product.into()),
        timers: TimerValues::default(),
        session_timer: None,
        abilities: Abilities::default(),
        info_packages: trickles.then(|| PACKAGE.into()).into_iter().collect(),
    };
    UserAgent::new(account, seed)
}

/// The called phone's, seen from `observed`.
pub(crate) fn binding(local: SocketAddr, observed: SocketAddr) -> BindingRecord {
    BindingRecord {
        aor: CALLEE.into(),
        realm: RealmId(0),
        uri: format!("sip:bob@{local}"),
        flow: flow(observed),
        call_id: "registration".to_owned(),
        cseq: 1,
        expires: Duration::from_secs(1 << 40),
        q: 1000,
        instance: None,
        path: Vec::new(),
        user_agent: String::new(),
        behind_nat: local != observed,
        token: None,
        upstream_expires: Duration::ZERO,
    }
}

/// Knows the called phone.
#[derive(Debug)]
pub(crate) struct Snapshot;

impl Policy for Snapshot {
    fn credentials(&self, _: &str, _: &str) -> Vec<Ha1> {
        Vec::new()
    }

    fn source(&self, _: RealmId, _: IpAddr) -> Option<Arc<str>> {
        None
    }

    fn route(&self, _: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        Ok(vec![RouteStep::Aor { aor: Arc::from(CALLEE) }])
    }

    fn trunk(&self, _: &str) -> Option<Arc<TrunkTarget>> {
        None
    }
}
