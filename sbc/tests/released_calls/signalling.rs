//! The engine and the phones' user agents of one call, and what carries their messages.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip_engine::config::{
    Authentication, Config, IdentityPolicy, Limits, Listener, Realm, RegistrarMode, TimerValues,
};
use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::io::{Flow, ListenerId, RealmId, Transport};
use sip_engine::question::{Policy, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};
use sip_engine::registrar::BindingRecord;
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, UserAgent};
use sip_wire::{Message, Method, Name};

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

/// The SBC towards the core, and who is there.
pub(crate) const PROXY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 60)), 5_060);

fn core() -> SocketAddr {
    ([192, 0, 2, 1], 5_070).into()
}

pub(crate) fn core_flow() -> Flow {
    Flow { listener: ListenerId(1), ..flow(PROXY) }
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

fn listener(address: SocketAddr) -> Listener {
    Listener {
        realm: RealmId(u16::from(address == core())),
        transport: Transport::Udp,
        address,
        advertised: address,
        datagram_limit: 65_000,
    }
}

pub(crate) fn config() -> Config {
    let realm = |id, name: &str| Realm {
        id: RealmId(id),
        name: name.into(),
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
    };
    Config {
        node: 1,
        realms: vec![realm(0, "access"), realm(1, "core")],
        listeners: vec![listener(sbc()), listener(core())],
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

/// Knows the called phone, and perhaps a registrar's proxy in the core, through which all calls go.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) has_core: bool,
}

impl Policy for Snapshot {
    fn credentials(&self, _: &str, _: &str) -> Vec<Ha1> {
        Vec::new()
    }

    fn source(&self, _: RealmId, _: IpAddr) -> Option<Arc<str>> {
        None
    }

    fn route(&self, question: &RouteQuestion<'_>) -> Result<Vec<RouteStep>, RouteRefusal> {
        if self.has_core && question.realm == RealmId(0) {
            let target = TrunkTarget {
                name: "registrar".into(),
                realm: RealmId(1),
                host: PROXY.ip().to_string().into(),
                port: Some(PROXY.port()),
                transport: Some(Transport::Udp),
                credentials: None,
                timeout: None,
                ping: None,
            };
            return Ok(vec![RouteStep::Trunk { target: Arc::new(target), user: "bob".into() }]);
        }
        Ok(vec![RouteStep::Aor { aor: Arc::from(CALLEE) }])
    }

    fn trunk(&self, _: &str) -> Option<Arc<TrunkTarget>> {
        None
    }
}
