//! The phone: one loop between its user, its user agent, its calls and its sockets.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use crush::agent::{self, FlowBudget, Output, SocketId};
use media_wire::handoff::Reason;
use serde_json::json;
use sip_engine::config::{Listener, TimerValues};
use sip_engine::io::{Flow, Input, ListenerId, Output as Signal, RealmId, Transport};
use sip_engine::question::TrunkCredentials;
use sip_engine::ua::{Abilities, Account, CallNumber, Info, UserAgent};
use sip_proxy::clock::Clock;
use sip_proxy::dns::Resolver;
use srtp::Master;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior};

use crate::call::{AUDIO, Call, Pair, Setup, TICK};
use crate::instance::Instance;
use crate::mapping::{Mapped, Mappings};
use crate::network;
use crate::options::Options;
use crate::random::random;
use crate::report::Report;
use crate::signalling::Signalling;
use crate::sockets::{Datagram, Sockets};
use crate::sound::{Recorder, Source};
use crate::trust;

mod events;
mod moving;
mod user;

/// Between keepalives to the registrar.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long the end of calls, of the registration and of mappings may take: a second transmission of each arrives. Whoever says
/// `quit` waits for it.
const GOODBYE: Duration = Duration::from_secs(1);
/// The info package of trickled candidates (RFC 8840 §10).
const PACKAGE: &str = "trickle-ice";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// See the module.
struct App {
    options: Options,
    clock: Clock,
    report: Report,
    agent: UserAgent,
    signalling: Signalling,
    net: Net,
    calls: BTreeMap<CallNumber, Call>,
    /// What commands are about: the newest.
    current: Option<CallNumber>,
    held: bool,
    source: Source,
    recordings: u32,
    place: Place,
    /// The call of the command line is still to be placed.
    to_dial: Option<String>,
    ending: Ending,
}

/// What calls have of the network.
struct Net {
    sockets: Sockets,
    mappings: Mappings,
    /// What all calls may make of new flows together.
    flows: FlowBudget,
    owners: HashMap<SocketId, CallNumber>,
}

/// Where it is, seen from its registrar.
struct Place {
    registrar: SocketAddr,
    address: IpAddr,
}

/// How it comes to its end.
#[derive(Default)]
struct Ending {
    hang_up_at: Option<Duration>,
    /// When the phone ends, at the latest.
    ends_at: Option<Duration>,
    has_failed: bool,
}

/// Runs the phone until it is told to end; routers are talked with on a runtime of their own.
pub(crate) async fn run(options: Options, routers: Handle) -> Result<ExitCode, Box<dyn Error>> {
    let source = Source::open(&options.source)?;
    let resolve = options.registrar();
    let targets = match resolve.literal() {
        Some(literal) => vec![literal],
        None => Resolver::system()?.resolve(&resolve).await,
    };
    let registrar =
        targets.first().ok_or("the registrar's name leads nowhere; give an address with --registrar")?;
    let transport = options.transport.transport();
    let tls = match transport {
        Transport::Tls => Some(trust::connector(
            options.trust.ca.as_deref(),
            options.trust.trust_anybody,
            &registrar.server_name,
        )?),
        _ => None,
    };
    let registrar = registrar.address;
    let address = network::towards(registrar)?;
    let (signalling, mut inputs) = Signalling::new(transport, SocketAddr::new(address, options.port), tls)?;
    let (sockets, mut datagrams) = Sockets::new();
    let (mappings, mut mapped) = Mappings::new(routers);
    let instance = Instance::of(&options);
    let account = account(&options, signalling.local(), registrar, &instance);
    let mut app = App {
        clock: Clock::start(),
        report: Report::new(options.telling.json, options.transport),
        agent: UserAgent::new(account, random()?),
        signalling,
        net: Net {
            sockets,
            mappings,
            flows: FlowBudget::new(options.paths.temper(), options.paths.limit),
            owners: HashMap::new(),
        },
        calls: BTreeMap::new(),
        current: None,
        held: false,
        source,
        recordings: 0,
        place: Place { registrar, address },
        to_dial: options.calls.call.clone(),
        ending: Ending::default(),
        options,
    };
    // Whoever is told that it has started may end it at once.
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    app.report.tell(
        Duration::ZERO,
        None,
        "started",
        json!({ "address": app.signalling.local().to_string() }),
    );
    app.begin();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut is_heard = true;
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut looks = tokio::time::interval(network::LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut keepalives = tokio::time::interval(KEEPALIVE);
    while !app.is_over() {
        app.settle().await;
        let deadline = app.deadline();
        tokio::select! {
            Some(input) = inputs.recv() => app.input(input),
            Some(datagram) = datagrams.recv() => app.datagram(datagram),
            Some(mapped) = mapped.recv() => app.mapped(mapped),
            _ = ticks.tick() => app.tick(),
            _ = looks.tick() => app.look(),
            _ = keepalives.tick() => app.signalling.keep_alive(app.place.registrar).await,
            () = tokio::time::sleep_until(deadline) => app.due(),
            line = lines.next_line(), if is_heard => match line {
                Ok(Some(line)) => app.command(&line),
                // Nobody types: it goes on.
                _ => is_heard = false,
            },
            _ = interrupted.recv() => app.told_to_quit(),
            _ = terminated.recv() => app.told_to_quit(),
        }
    }
    app.settle().await;
    let left = app.ending.ends_at.map_or(GOODBYE, |at| at.saturating_sub(app.now()));
    app.net.mappings.end(left).await;
    Ok(if app.ending.has_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn listener(options: &Options, local: SocketAddr) -> Listener {
    Listener {
        realm: RealmId(0),
        transport: options.transport.transport(),
        address: local,
        advertised: local,
        // Messages go over the transport that the user chose.
        datagram_limit: 65_000,
    }
}

fn flow(options: &Options, registrar: SocketAddr) -> Flow {
    Flow {
        listener: ListenerId(0),
        transport: options.transport.transport(),
        remote: registrar,
        connection: None,
    }
}

fn account(options: &Options, local: SocketAddr, registrar: SocketAddr, instance: &Instance) -> Account {
    let password = options.register.password.clone().or_else(|| std::env::var("SIP_PASSWORD").ok());
    Account {
        aor: options.register.aor().into(),
        display: None,
        credentials: password.map(|password| TrunkCredentials {
            username: options.register.user.as_str().into(),
            password: password.into(),
        }),
        listeners: vec![listener(options, local)],
        proxy: flow(options, registrar),
        // After a network switch the new Contact takes the place of the old one (RFC 5626 §4.1).
        instance: Some(instance.urn().into()),
        product: Some(concat!("crush-phone/", env!("CARGO_PKG_VERSION")).into()),
        timers: TimerValues::default(),
        session_timer: None,
        abilities: Abilities::default(),
        info_packages: if options.paths.no_crush { Vec::new() } else { vec![PACKAGE.into()] },
    }
}

impl App {
    fn now(&self) -> Duration {
        self.clock.now().monotonic
    }

    fn tell(&self, call: Option<CallNumber>, event: &str, details: serde_json::Value) {
        self.report.tell(self.now(), call, event, details);
    }

    fn begin(&mut self) {
        if self.options.expires > 0 {
            self.agent.register(Duration::from_secs(u64::from(self.options.expires)), self.clock.now());
        } else if let Some(uri) = self.to_dial.take() {
            self.dial(&uri);
        }
    }

    fn is_over(&self) -> bool {
        let ends = self.ending.ends_at;
        ends.is_some_and(|at| self.now() >= at || (self.calls.is_empty() && self.agent.has_taken_leave()))
    }

    fn deadline(&self) -> Instant {
        let calls = self.calls.values().filter_map(|call| call.agent.poll_timeout());
        let own = [self.agent.poll_timeout(), self.ending.hang_up_at, self.ending.ends_at];
        let next = calls.chain(own.into_iter().flatten()).min();
        // Without any, the ticks go on.
        let wait = next.map_or(Duration::from_secs(1), |at| at.saturating_sub(self.now()));
        Instant::now() + wait
    }

    /// Carries out what is to be done, until nothing is left.
    async fn settle(&mut self) {
        self.carry_out().await;
        while let Some(event) = self.agent.poll_event() {
            self.event(event);
            self.carry_out().await;
        }
        let numbers: Vec<CallNumber> = self.calls.keys().copied().collect();
        for number in numbers {
            self.settle_call(number);
        }
        self.carry_out().await;
    }

    async fn carry_out(&mut self) {
        while let Some(output) = self.agent.poll_output() {
            match output {
                Signal::Send { flow, message, ticket, .. } => {
                    self.trace("sent to", flow.remote, &message);
                    self.signalling.send(flow, message, ticket).await;
                }
                Signal::Close(connection) => self.signalling.closed(connection),
                // A user agent has no other outputs.
                _ => {}
            }
        }
    }

    fn settle_call(&mut self, number: CallNumber) {
        let now = self.now();
        let Some(call) = self.calls.get_mut(&number) else { return };
        while let Some(output) = call.agent.poll_output() {
            match output {
                Output::Transmit { socket, to, bytes } => self.net.sockets.send(socket, to, &bytes),
                Output::Trickle(text) => call.trickle.next = Some(text),
                Output::OpenSocket { beside } => match self.net.sockets.open_beside(beside) {
                    Ok((socket, local)) => {
                        self.net.owners.insert(socket, number);
                        call.agent.handle(agent::Input::SocketOpened { socket, local }, now);
                    }
                    Err(_) => call.agent.handle(agent::Input::SocketRefused, now),
                },
                Output::CloseSocket(socket) => {
                    self.net.owners.remove(&socket);
                    self.net.sockets.close(socket);
                }
                Output::Event(event) => {
                    // With these reasons a path has failed, and pictures with it.
                    if let agent::Event::Returned { reason, .. } = &event
                        && !matches!(reason, Reason::Policy | Reason::Quality)
                    {
                        call.pictures.screen.lost();
                    }
                    let secured = if let agent::Event::Secured { stream } = event { stream } else { AUDIO };
                    self.report.path(now, number, &event, call.suite(secured));
                }
                Output::Media { packet, .. } => {
                    if let Ok(reader) = rtp_rs::RtpReader::new(&packet) {
                        call.pictures.screen.source = reader.ssrc();
                        call.pictures.screen.picture(reader.payload());
                    }
                }
                Output::MapAnew => {
                    let own = self.net.owners.iter().filter(|(_, owner)| **owner == number);
                    self.net.mappings.renew(own.map(|(socket, _)| *socket));
                }
                // Reports on media's port: only if both were multiplexed, which is not offered.
                Output::Rtcp { .. } => {}
            }
        }
        let suite = call.suite(AUDIO);
        if std::mem::replace(&mut call.told, suite) != suite {
            self.report.encryption(now, number, suite);
        }
        if call.trickle.under_way.is_none()
            && let Some(text) = call.trickle.next.take()
        {
            let body = Bytes::from(text.clone());
            let info = Info { package: PACKAGE, content_type: FRAGMENT.as_bytes(), body };
            match self.agent.info_of(number, info, self.clock.now()) {
                Ok(()) => call.trickle.under_way = Some(text),
                // Not yet, or not any more: with the next tick, if the call lives.
                Err(_) => call.trickle.next = Some(text),
            }
        }
    }

    fn trace(&self, what: &str, remote: SocketAddr, message: &[u8]) {
        if self.options.telling.trace {
            let text = srtp::sdes::without_keys(&String::from_utf8_lossy(message));
            eprintln!("--- {what} {remote}\n{text}");
        }
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::Received { flow, message } => self.trace("received from", flow.remote, message.as_bytes()),
            Input::Closed { connection } => self.signalling.closed(*connection),
            _ => {}
        }
        self.agent.handle(input, self.clock.now());
    }

    fn datagram(&mut self, datagram: Datagram) {
        let now = self.now();
        let owner = self.net.owners.get(&datagram.socket);
        if let Some(call) = owner.and_then(|number| self.calls.get_mut(number)) {
            call.datagram(datagram.socket, datagram.from, &datagram.bytes, now);
        }
    }

    /// What arrives on the call's sockets is the call's. The direct path is that of the first, whose port the router may open,
    /// or of one of the other family: a router may open that, too, where signalling goes over IPv6.
    fn own(&mut self, number: CallNumber) {
        let now = self.now();
        let Some(call) = self.calls.get_mut(&number) else { return };
        for pair in call.sockets() {
            self.net.owners.extend([(pair.rtp.0, number), (pair.rtcp.0, number)]);
        }
        if !self.options.paths.no_crush
            && let Some(other) = network::other_family(self.place.address)
            && let Ok((socket, local)) = self.net.sockets.open(other)
        {
            self.net.owners.insert(socket, number);
            call.agent.handle(agent::Input::Host { socket, local }, now);
            if self.options.paths.asks_router() {
                self.net.mappings.want(socket, local);
            }
        }
        if self.options.paths.asks_router()
            && let Some(pair) = call.sockets().next()
        {
            self.net.mappings.want(pair.rtp.0, pair.rtp.1);
        }
    }

    /// Closes all of the call's sockets.
    fn disown(&mut self, number: CallNumber) {
        let (sockets, mappings) = (&mut self.net.sockets, &mut self.net.mappings);
        self.net.owners.retain(|socket, owner| {
            if *owner == number {
                mappings.release(*socket);
                sockets.close(*socket);
            }
            *owner != number
        });
    }

    fn mapped(&mut self, mapped: Mapped) {
        let now = self.now();
        let Some(number) = self.net.owners.get(&mapped.socket).copied() else { return };
        self.tell(Some(number), "mapped", json!({ "address": mapped.address.to_string() }));
        if let Some(call) = self.calls.get_mut(&number) {
            call.agent.handle(agent::Input::Mapped(mapped.address), now);
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for (number, call) in &mut self.calls {
            if !call.tick(now.monotonic) {
                call.stop_recording();
                self.report.tell(now.monotonic, Some(*number), "not-recorded", json!({}));
            }
            // RFC 3550 §6.2: so that not all report at once.
            let spread = Duration::from_millis(u64::from(now.wall.subsec_nanos()) % 5000);
            for (socket, to, report) in call.reports(now.monotonic, now.wall, spread) {
                self.net.sockets.send(socket, to, &report);
            }
        }
    }

    fn due(&mut self) {
        let late: Vec<CallNumber> =
            self.calls.iter().filter(|(_, call)| call.due.is_offer).map(|(number, _)| *number).collect();
        late.into_iter().for_each(|number| self.renegotiate(number));
        let now = self.clock.now();
        self.agent.handle_timeout(now);
        for call in self.calls.values_mut() {
            if call.agent.poll_timeout().is_some_and(|at| at <= now.monotonic) {
                call.agent.handle(agent::Input::Timeout, now.monotonic);
            }
        }
        if self.ending.hang_up_at.is_some_and(|at| at <= now.monotonic) {
            self.ending.hang_up_at = None;
            self.quit();
        }
    }

    fn dial(&mut self, uri: &str) -> Option<()> {
        let mut call = self.make_call(true)?;
        let offer = Some(Bytes::from(call.offer()));
        let invite = sip_engine::ua::Invite { offer, ..Default::default() };
        let number = self.agent.call(uri.as_bytes(), invite, self.clock.now());
        self.keep(number, call);
        Some(())
    }

    fn keep(&mut self, number: CallNumber, call: Call) {
        self.calls.insert(number, call);
        self.own(number);
        self.current = Some(number);
        self.held = false;
    }

    fn open(&mut self) -> std::io::Result<Vec<Pair>> {
        let streams = if self.options.video { 2 } else { 1 };
        (0..streams)
            .map(|_| {
                let [rtp, rtcp] = self.net.sockets.open_pair(self.place.address)?;
                Ok(Pair { rtp, rtcp })
            })
            .collect()
    }

    /// A call's media, on sockets of its own; `None`, told, if there are none.
    fn make_call(&mut self, is_caller: bool) -> Option<Call> {
        let now = self.now();
        let made = self.open().map_err(|error| error.to_string()).and_then(|sockets| {
            let unpredictable = || Ok((random()?, [Master::new(random()?), Master::new(random()?)]));
            let (random, keys) = unpredictable().map_err(|error: getrandom::Error| error.to_string())?;
            Ok((sockets, random, keys))
        });
        let (sockets, random, keys) = match made {
            Ok(made) => made,
            Err(error) => {
                self.report.tell(now, None, "no-media", json!({ "error": error }));
                return None;
            }
        };
        let recorder = self.recorder();
        let paths = &self.options.paths;
        let config = agent::Config {
            temper: paths.temper(),
            flows: Some(self.net.flows.clone()),
            show_hosts: !paths.hide_hosts,
            ..agent::Config::default()
        };
        Some(Call::new(Setup {
            sockets: &sockets,
            address: self.place.address,
            config,
            source: self.source.clone(),
            recorder,
            crush: !paths.no_crush,
            is_caller,
            random,
            srtp: self.options.srtp,
            keys,
            now,
        }))
    }

    fn recorder(&mut self) -> Option<Recorder> {
        let path = self.options.record.clone()?;
        self.recordings += 1;
        let path = match self.recordings {
            1 => path,
            count => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                path.with_file_name(format!("{stem}-{count}.wav"))
            }
        };
        match Recorder::create(&path) {
            Ok(recorder) => Some(recorder),
            Err(error) => {
                self.report.tell(self.now(), None, "not-recorded", json!({ "error": error.to_string() }));
                None
            }
        }
    }
}
