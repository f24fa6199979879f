//! A plane with a media plane that passes descriptions through, and one route: all calls go to the trunk.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use play::policy::{Table, through, to};
use play::settings::signalling::{self as settings, DOMAIN};
use seam::{Action, Described, Replied, Reply, StreamSummary, Summary};
use sip_engine::config::{
    Authentication, Config, Expiry, Limits, Listener, Realm, RegistrarMode, TimerValues,
};
use sip_engine::digest::{Algorithm, Ha1};
use sip_engine::event::CallEventKind;
use sip_engine::io::{Command, Input, Output, RealmId, Transport};
use sip_engine::question::{Policy, RouteQuestion, TrunkTarget};
use sip_engine::time::Now;
use sip_proxy::clock::Clock;
use sip_proxy::counters::{Count, ShardCounters};
use sip_proxy::dns::Resolver;
use sip_proxy::{Host, ListenerSettings, PlaneSettings, ShardHandle, SipPlane};

use crate::peer::PATIENCE;

/// The access realm and its counterpart.
pub(crate) const ACCESS: RealmId = RealmId(0);
pub(crate) const CORE: RealmId = RealmId(1);

/// An address of 127.0.0.0/8 that no other test of this machine uses.
pub(crate) fn address() -> IpAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id();
    let [_, _, high, low] = process.to_be_bytes();
    IpAddr::from([127, 64 | (high & 63), low, NEXT.fetch_add(1, Ordering::Relaxed)])
}

/// What the plane is given; tests change what they are about.
pub(crate) struct Setup {
    pub(crate) realms: Vec<Realm>,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) settings: Vec<ListenerSettings>,
    pub(crate) policy: Calls,
    pub(crate) resolver: Option<Resolver>,
    pub(crate) adjust: fn(&mut PlaneSettings),
    pub(crate) limits: Limits,
    pub(crate) timers: TimerValues,
    /// How long the host keeps its thread busy with each call that starts.
    pub(crate) busy: Duration,
}

/// With a registrar for who registers for a minute.
pub(crate) fn realm(id: RealmId, authentication: Authentication) -> Realm {
    let minute = Duration::from_secs(60);
    Realm {
        registrar: RegistrarMode::Local(Expiry {
            minimum: Duration::from_secs(1),
            default: minute,
            maximum: minute,
            nat: minute,
        }),
        authentication,
        is_trunk_side: id == CORE,
        ..settings::realm(id.0, if id == ACCESS { "access" } else { "core" })
    }
}

impl Setup {
    /// Anyone may call from the access realm; `trunk` is in the core realm.
    pub(crate) fn new(trunk: &str, port: Option<u16>, transport: Option<Transport>) -> Self {
        Self {
            realms: vec![realm(ACCESS, Authentication::Open), realm(CORE, Authentication::KnownSource)],
            listeners: Vec::new(),
            settings: Vec::new(),
            policy: Calls {
                trunk: Arc::new(TrunkTarget { port, transport, ..play::policy::trunk("trunk", trunk) }),
                sources: Vec::new(),
                certificates: Vec::new(),
                aors: Vec::new(),
            },
            resolver: None,
            adjust: |_| {},
            limits: Limits::default(),
            timers: TimerValues::default(),
            busy: Duration::ZERO,
        }
    }

    /// With one more listener.
    pub(crate) fn listen(mut self, realm: RealmId, transport: Transport, address: SocketAddr) -> Self {
        self.open(realm, transport, address);
        self
    }

    /// One more listener; its index is that of its [`ListenerSettings`].
    pub(crate) fn open(&mut self, realm: RealmId, transport: Transport, address: SocketAddr) {
        self.listeners
            .push(Listener { datagram_limit: 1300, ..settings::listener(realm.0, transport, address) });
        self.settings.push(ListenerSettings::default());
    }

    pub(crate) fn start(self) -> Node {
        let config = Config {
            realms: self.realms,
            listeners: self.listeners,
            timers: self.timers,
            limits: self.limits,
            ..settings::two_realms()
        };
        let mut settings = PlaneSettings::new(Arc::new(config), self.settings);
        (self.adjust)(&mut settings);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let records = Arc::new(Mutex::new(Vec::new()));
        let mut number = 0u8;
        let seed = || {
            number += 1;
            [number; 32]
        };
        let plane = SipPlane::start(settings, Clock::start(), seed, |shard| TestHost {
            shard: shard.clone(),
            runtime: runtime.handle().clone(),
            resolver: self.resolver.clone(),
            records: records.clone(),
            busy: self.busy,
        })
        .unwrap();
        let policy: Arc<dyn Policy> = Arc::new(self.policy.table());
        for shard in plane.shards() {
            shard.command(Command::Policy(policy.clone()));
        }
        Node { plane, records, _runtime: runtime }
    }
}

/// A running plane.
pub(crate) struct Node {
    pub(crate) plane: SipPlane,
    /// What happened to calls, on any shard.
    pub(crate) records: Arc<Mutex<Vec<CallEventKind>>>,
    _runtime: tokio::runtime::Runtime,
}

impl Node {
    /// The sum over all shards.
    pub(crate) fn count(&self, pick: fn(&ShardCounters) -> &Count) -> u64 {
        self.plane.counters().iter().map(|shard| pick(shard).get()).sum()
    }

    /// Waits until a count is so.
    pub(crate) fn until_count(&self, what: &str, pick: fn(&ShardCounters) -> &Count, count: u64) {
        self.until(what, PATIENCE, |node| node.count(pick) == count);
    }

    /// Waits until it is as wanted.
    pub(crate) fn until(&self, what: &str, within: Duration, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + within;
        while !is_so(self) {
            assert!(Instant::now() < end, "not within {within:?}: {what}; {:?}", self.plane.counters());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn ended(&self) -> usize {
        let records = self.records.lock().unwrap();
        records.iter().filter(|event| matches!(event, CallEventKind::Ended(_))).count()
    }
}

/// One trunk that all calls go to, but those to an AOR.
#[derive(Debug)]
pub(crate) struct Calls {
    pub(crate) trunk: Arc<TrunkTarget>,
    /// Addresses of the trunk.
    pub(crate) sources: Vec<IpAddr>,
    /// Names of the trunk's certificate: with any, the address is not enough.
    pub(crate) certificates: Vec<Arc<str>>,
    /// Users who are called at their bindings; their password is `secret`.
    pub(crate) aors: Vec<String>,
}

impl Calls {
    fn table(self) -> Table {
        let Self { trunk, sources, certificates, aors } = self;
        let (target, subscribers) = (trunk.clone(), aors.clone());
        let routes = move |question: &RouteQuestion<'_>| {
            let aor = format!("{}@{DOMAIN}", question.user);
            let is_subscriber = subscribers.contains(&aor);
            Ok(if is_subscriber { to(question.user) } else { through(&target, question.user) })
        };
        let name = trunk.name.clone();
        Table::new(routes)
            .trunks(vec![trunk])
            .passwords(move |domain, user| {
                let has = aors.contains(&format!("{user}@{domain}"));
                has.then(|| Ha1::of(Algorithm::Md5, user, domain, "secret")).into_iter().collect()
            })
            .sources(move |_, address, names| {
                let is_known = match certificates.is_empty() {
                    true => sources.contains(&address),
                    false => names.iter().any(|name| certificates.contains(name)),
                };
                is_known.then(|| name.clone())
            })
    }
}

struct TestHost {
    shard: ShardHandle,
    runtime: tokio::runtime::Handle,
    resolver: Option<Resolver>,
    records: Arc<Mutex<Vec<CallEventKind>>>,
    busy: Duration,
}

impl Host for TestHost {
    fn carry_out(&mut self, output: Output, _: Now) -> Option<Input> {
        match output {
            Output::Record(event) => {
                if matches!(event.what, CallEventKind::Started(_)) {
                    std::thread::sleep(self.busy);
                }
                self.records.lock().unwrap().push(event.what);
                None
            }
            Output::Media(request) => {
                let reply = match request.action {
                    Action::Offer { sdp, .. } | Action::Answer { sdp, .. } => {
                        let stream = StreamSummary {
                            kind: "audio".into(),
                            codecs: vec!["PCMU".into()],
                            direction: Default::default(),
                            profile: "RTP/AVP".into(),
                            refused: false,
                        };
                        Reply::Description(Ok(Described { sdp, summary: Summary { streams: vec![stream] } }))
                    }
                    Action::Delete => Reply::Deleted { streams: Vec::new(), direct: Duration::ZERO },
                    Action::Trickle { fragment, .. } => Reply::Fragment(Some(fragment)),
                    Action::Query => Reply::Statistics(Vec::new()),
                    _ => return None,
                };
                Some(Input::Media(Replied { session: request.session, number: request.number, reply }))
            }
            Output::Resolve { question, resolve } => {
                let resolver = self.resolver.clone();
                let shard = self.shard.clone();
                self.runtime.spawn(async move {
                    let addresses = match resolver {
                        Some(resolver) => resolver.resolve(&resolve).await,
                        None => Vec::new(),
                    };
                    shard.input(Input::Resolved { question, addresses });
                });
                None
            }
            _ => None,
        }
    }
}
