//! The program's life: start everything, follow the store, drain, stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use media_core::handoff::HandoffSettings;
use media_relay::{Event, Relay};
use sip_engine::io::{Command, Input};
use sip_engine::slot::{SLOTS, Slot};
use sip_proxy::clock::Clock;
use sip_proxy::dns::Resolver;
use sip_proxy::{ShardHandle, SipPlane};

use super::drain::Running;
use super::follower::Follower;
use super::manager::Manager;
use super::memory::Memory;
use super::signals::Signals;
use super::sources::Sources;
use super::{memory, watchdog};
use crate::blocking::blocking;
use crate::calls::Calls;
use crate::config::{DiscoveryFile, File, Settings};
use crate::discovery::{Discovery, Places};
use crate::host::{self, Ear, Outside};
use crate::http::life::Life;
use crate::http::{Pages, router};
use crate::metrics::Metrics;
use crate::metrics::activity::Activity;
use crate::records::bindings::Bindings;
use crate::records::journal::Journal;
use crate::records::months;
use crate::records::ship::{ShipCounters, Shipper};
use crate::store::names::Names;
use crate::store::outcomes::Outcomes;
use crate::store::refusal::{Aside, StoreCounters};
use crate::{calls, store};

/// Seconds between two summaries of what was only counted.
const SUMMARY: u64 = 10;
/// A task of the store comes round within this time whatever the database does, or it hangs.
const ROUND: Duration = Duration::from_secs(120);

/// Runs until SIGTERM or SIGINT, then drains.
pub async fn run(settings: Settings, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let settings = Arc::new(settings);
    let vitals = settings.vitals.clone();
    let node = settings.file.node.id;
    let clock = Clock::start();
    let metrics = Arc::new(Metrics::new()?);
    let activity = Arc::new(Activity::default());
    let directory = settings.file.node.data.join("journal");
    let journal = Journal::open_in(&directory, &vitals)?;
    let pool = store::pool(&settings.database_url()?, settings.file.database.connections)?;
    let resolver = Resolver::system()
        .map_err(|error| tracing::warn!(error, "no DNS: only addresses can be dialled"))
        .ok();

    // By slot: what media says of a session goes to the shard that is its call's home.
    let homes: Arc<OnceLock<Vec<ShardHandle>>> = Arc::default();
    let back = homes.clone();
    let seed = || {
        let mut seed = [0; 32];
        if getrandom::fill(&mut seed).is_err() {
            tracing::error!("the system has no randomness; tags and credentials can be guessed");
        }
        seed
    };
    let mut media = settings.relay.clone();
    media.sessions.handoff = handoff(&settings.file);
    media.sessions.secret = seed();
    let (moved, outcomes) = tokio::sync::mpsc::unbounded_channel();
    let relay = Relay::start(&media, move |event| {
        if let Event::Moved(outcome) = event {
            let _ = moved.send(outcome);
            return;
        }
        let Some((session, input)) = host::input(event) else { return };
        let slot = usize::from(Slot::of_session(session).number());
        if let Some(home) = back.get().and_then(|homes| homes.get(slot)) {
            home.input(input);
        }
    })?;
    let relay = Arc::new(relay);
    let back = homes.clone();
    let calls = Arc::new(Calls::new(
        node,
        Box::new(move |slot, command| {
            if let Some(home) = back.get().and_then(|homes| homes.get(usize::from(slot.number()))) {
                home.input(Input::Command(command));
            }
        }),
    ));
    let ears: Arc<[Arc<dyn Ear>]> = Arc::new([metrics.clone(), activity.clone(), calls.clone()]);
    let runtime = tokio::runtime::Handle::current();
    let memory = Arc::new(Memory::default());
    let mut signalling = settings.plane.clone();
    signalling.is_short_of_memory = memory.is_short.clone();
    let plane = SipPlane::start(signalling, clock, seed, |shard| Outside {
        ears: ears.clone(),
        keeper: journal.clone(),
        relay: relay.clone(),
        promised: 0,
        resolver: resolver.clone(),
        runtime: runtime.clone(),
        shard: shard.clone(),
    })?;
    // Bindings pass the journal on their way to the store: the phone is answered when they are there. Before there is a policy
    // nobody registers.
    let names = Names::new(plane.config());
    let (kept, changes) = tokio::sync::mpsc::unbounded_channel();
    let replay = journal.keep_registrations(names.clone(), kept);
    let waiting = plane.shards().to_vec();
    journal.when_settled(Box::new(move || waiting.iter().for_each(ShardHandle::look_again)));
    let _ = homes.set((0..SLOTS).filter_map(|slot| plane.home_of(Slot::new(slot)).cloned()).collect());
    let tell = {
        let handles = plane.shards().to_vec();
        move |command: Command| handles.iter().for_each(|shard| shard.input(Input::Command(command.clone())))
    };

    let is_ready = Arc::new(AtomicBool::new(false));
    let is_draining = Arc::new(AtomicBool::new(false));
    let counters = Arc::new(ShipCounters::default());
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let shipper = Shipper { pool: pool.clone(), journal: journal.clone(), node, counters: counters.clone() };
    let rest = media.sessions.release.as_ref().map_or(Duration::ZERO, |policy| policy.settings.remember);
    let workers = relay.clone();
    let recall = move |pairs| workers.recall(pairs);
    let stored = Arc::new(StoreCounters::default());
    let aside = || Aside::new(settings.file.node.data.join("refused-rows.jsonl"));
    let outcome = Outcomes { pool: pool.clone(), rest, counters: stored.clone(), aside: aside() };
    let part = |name: &str| vitals.part(name).rounds(ROUND);
    let remembering =
        part("outcomes").task(store::outcomes::follow(outcome, outcomes, recall, stopped.clone()));
    let remembering = tokio::spawn(remembering);
    let shipping = tokio::spawn(part("shipper").task(shipper.run(stopped)));
    tokio::spawn(vitals.part("months").task(months::keep(pool.clone())));
    tokio::spawn(part("call policy").task(calls::policy::follow(pool.clone(), calls)));
    let keeper = Bindings {
        pool: pool.clone(),
        node,
        names,
        journal: Some(journal.clone()),
        counters: stored.clone(),
        aside: aside(),
    };
    let (restored, restoring) = tokio::sync::oneshot::channel();
    let binding = tokio::spawn(part("bindings").task(keeper.run(changes, replay, restored)));
    let follower = Follower {
        url: settings.database_url()?,
        settings: settings.clone(),
        ready: is_ready.clone(),
        tell: Box::new(tell.clone()),
    };
    follower.begin(part("snapshot"), restoring)?;
    let allowed = settings.file.limits.memory_mib.saturating_mul(1 << 20);
    tokio::spawn(part("memory").task(memory::follow(memory.clone(), allowed)));
    let (beating, summing, telling) = (journal.clone(), metrics.clone(), activity.clone());
    tokio::spawn(part("heartbeat").task(async move {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        for second in 1_u64.. {
            ticks.tick().await;
            let now = clock.now();
            let journal = beating.clone();
            blocking(move || journal.heartbeat(now.wall, now.monotonic)).await;
            vitals::round();
            if second % SUMMARY == 0 {
                summing.summarise();
                telling.summarise();
            }
        }
    }));

    if let Some(file) = &settings.file.discovery {
        for addresses in file.services() {
            let discovery = Discovery::bind(Places { addresses, ports: file.ports }).await;
            discovery
                .map_err(|error| format!("discovery: {error}; choose free addresses of this machine"))?
                .serve(&vitals);
        }
        tracing::info!(addresses = ?file.addresses, ports = ?file.ports, "discovery service");
    }

    let restarts: Arc<AtomicU64> = Arc::default();
    metrics.add(Sources {
        shards: plane.counters().to_vec(),
        relay: relay.clone(),
        journal: journal.clone(),
        ship: counters,
        store: stored,
        is_ready: is_ready.clone(),
        vitals: vitals.clone(),
        http_restarts: restarts.clone(),
        memory,
    })?;
    let pages = Pages {
        numbers: Arc::new(move || metrics.text().map_err(|error| error.to_string())),
        is_ready,
        is_draining: is_draining.clone(),
        vitals: vitals.clone(),
    };
    let listener = std::net::TcpListener::bind(settings.file.http.listen).map_err(|error| {
        format!(
            "http.listen {}: {error}; choose a free address in {}",
            settings.file.http.listen,
            path.display()
        )
    })?;
    let http = listener.local_addr()?;
    Life { listener, router: router(pages), vitals: vitals.clone(), restarts }.begin()?;
    for listener in &plane.config().listeners {
        let realm = plane.config().realms.get(usize::from(listener.realm.0)).map(|realm| &*realm.name);
        let transport = listener.transport.via_token();
        tracing::info!(realm, transport, address = %listener.address, "listening");
    }

    let signals = Signals::new()?;
    let manager = Manager::from_environment();
    manager.ready();
    // From here on nothing may fail that is not a death: until now an error ends the process with its own words.
    let silence = Duration::from_secs(settings.file.node.silence_seconds);
    watchdog::begin(&vitals, silence, journal.clone(), Manager::from_environment())?;
    tracing::info!(%http, "ready");
    let writers = vec![shipping, binding, remembering];
    let tell = Box::new(tell);
    Running { settings, signals, manager, plane, relay, journal, vitals, is_draining, tell, stop, writers }
        .until_the_end()
        .await
}

/// What CRUSH needs. Without a secret that nobody can guess, nobody is told of it.
fn handoff(file: &File) -> Option<Arc<HandoffSettings>> {
    let mut secret = [0; 32];
    if getrandom::fill(&mut secret).is_err() {
        tracing::error!("the system has no randomness; CRUSH is off");
        return None;
    }
    let primary = |file: &DiscoveryFile| -> Vec<SocketAddr> {
        let [port, _] = file.ports;
        file.services().map(|[address, _]| SocketAddr::new(address, port)).collect()
    };
    let discovery = file.discovery.as_ref().map(primary).unwrap_or_default();
    let tempers = file.realm.iter().map(|realm| realm.get_ref().temper.map(Into::into)).collect();
    Some(Arc::new(HandoffSettings { secret, discovery, tempers }))
}

/// Takes as many open files as the system allows: a call has four sockets, and shells start programs with 1,024.
pub fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "the limit on open files can't be raised");
    }
}
