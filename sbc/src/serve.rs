//! The program's life: start everything, follow the store, drain, stop.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use media_core::handoff::HandoffSettings;
use media_relay::{Event, Relay};
use sip_engine::io::{Command, Input};
use sip_engine::registrar::BindingRecord;
use sip_engine::slot::{SLOTS, Slot};
use sip_proxy::clock::Clock;
use sip_proxy::dns::Resolver;
use sip_proxy::{ShardHandle, SipPlane};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot::Receiver;

use crate::activity::Activity;
use crate::blocking::blocking;
use crate::calls::Calls;
use crate::config::{DiscoveryFile, File, Settings};
use crate::discovery::{Discovery, Places};
use crate::http::life::Life;
use crate::http::{Pages, router};
use crate::journal::Journal;
use crate::manager::Manager;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::metrics::sources::Sources;
use crate::planes::{self, Outside};
use crate::ship::{ShipCounters, Shipper};
use crate::store::bindings::Bindings;
use crate::store::names::Names;
use crate::store::outcomes::Outcomes;
use crate::store::refusal::{Aside, StoreCounters};
use crate::{memory, store, watchdog};

/// Seconds between two summaries of what was only counted.
const SUMMARY: u64 = 10;
/// A task of the store comes round within this time whatever the database does, or it hangs.
const ROUND: Duration = Duration::from_secs(120);

/// So long it waits for something before it says that it goes round.
const QUARTER: Duration = Duration::from_secs(30);

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
        let Some((session, input)) = planes::input(event) else { return };
        let slot = usize::from(Slot::of_session(session).number());
        if let Some(home) = back.get().and_then(|homes| homes.get(slot)) {
            home.input(input);
        }
    })?;
    let relay = Arc::new(relay);
    let calls = Arc::new(Calls::new(relay.clone()));
    let runtime = tokio::runtime::Handle::current();
    let memory = Arc::new(Memory::default());
    let mut signalling = settings.plane.clone();
    signalling.is_short_of_memory = memory.is_short.clone();
    let mut plane = SipPlane::start(signalling, clock, seed, |shard| Outside {
        journal: journal.clone(),
        relay: relay.clone(),
        calls: calls.clone(),
        promised: 0,
        metrics: metrics.clone(),
        activity: activity.clone(),
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
    tokio::spawn(part("call policy").task(store::call_policy::follow(pool.clone(), calls)));
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
        metrics: metrics.clone(),
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

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let manager = Manager::from_environment();
    manager.ready();
    // From here on nothing may fail that is not a death: until now an error ends the process with its own words.
    let silence = Duration::from_secs(settings.file.node.silence_seconds);
    watchdog::begin(&vitals, silence, journal.clone(), Manager::from_environment())?;
    tracing::info!(%http, "ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => reload_certificates(&settings),
        }
    }
    is_draining.store(true, Ordering::Relaxed);
    manager.stopping();
    tell(Command::Drain);
    let calls = || plane.counters().iter().map(|counters| counters.calls.get()).sum::<u64>();
    tracing::info!(
        calls = calls(),
        seconds = settings.file.node.drain_seconds,
        "draining: no new calls; a second signal ends the running ones"
    );
    let (began, longest) =
        (tokio::time::Instant::now(), Duration::from_secs(settings.file.node.drain_seconds));
    while calls() > 0 && began.elapsed() < longest {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    tell(Command::HangUpAll);
    // BYEs leave and their records are written.
    let (began, longest) = (tokio::time::Instant::now(), Duration::from_secs(3));
    tokio::time::sleep(Duration::from_millis(300)).await;
    while calls() > 0 && began.elapsed() < longest {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Parts may end from here on.
    vitals.retire();
    plane.stop();
    drop(plane);
    relay.stop();
    journal.close();
    // What is written reaches the database now if it can, and else after the next start.
    let _ = stop.send(true);
    let _ =
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(shipping, binding, remembering) })
            .await;
    if let Some(death) = vitals.death() {
        return Err(format!("{death} while the process stopped").into());
    }
    tracing::info!("stopped");
    Ok(())
}

/// Bindings of one command at the start, and how long shards have for them: their inboxes are bounded.
const BINDINGS_AT_ONCE: usize = 500;
const BETWEEN_BINDINGS: Duration = Duration::from_millis(3);

/// What brings bindings and policy from the store to signalling.
struct Follower {
    url: String,
    settings: Arc<Settings>,
    ready: Arc<AtomicBool>,
    tell: Box<dyn Fn(Command) + Send>,
}

impl Follower {
    /// On a thread of its own, that makes room for others: sorting a million rows must delay no call.
    fn begin(self, part: vitals::Part, restoring: Receiver<Vec<BindingRecord>>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let work = move || {
            if let Err(error) = rustix::process::nice(10) {
                tracing::warn!(%error, "the thread that reads policy can't be made to wait for others");
            }
            runtime.block_on(part.task(self.follow(restoring)));
        };
        std::thread::Builder::new().name("policy".to_owned()).spawn(work).map(drop)
    }

    async fn follow(self, mut restoring: Receiver<Vec<BindingRecord>>) {
        let Ok(pool) = store::pool(&self.url, 2) else { return };
        // Bindings come before the calls to them.
        let records = loop {
            vitals::round();
            if let Ok(records) = tokio::time::timeout(QUARTER, &mut restoring).await {
                break records.unwrap_or_default();
            }
        };
        // Connections end with their process: over them nobody can be called until he is back.
        let connected = records.iter().filter(|record| record.flow.connection.is_some()).count();
        let bindings = records.len().saturating_sub(connected);
        tracing::info!(bindings, over_connections = connected, "bindings restored");
        // In parts: between them each shard serves whoever is there already, and shows that it lives.
        let mut records = records.into_iter();
        while let part = records.by_ref().take(BINDINGS_AT_ONCE).collect::<Vec<_>>()
            && !part.is_empty()
        {
            (self.tell)(Command::Load(part));
            vitals::round();
            tokio::time::sleep(BETWEEN_BINDINGS).await;
        }
        let Self { settings, ready, tell, .. } = self;
        store::snapshot::follow(pool, settings, |snapshot| {
            tell(Command::Policy(snapshot));
            ready.store(true, Ordering::Relaxed);
        })
        .await;
    }
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

fn reload_certificates(settings: &Settings) {
    for listener in &settings.plane.listeners {
        if let Some(identity) = &listener.tls {
            match identity.reload_if_changed() {
                Ok(true) => tracing::info!("certificates reloaded"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, "the old certificates stay in force"),
            }
        }
    }
}
