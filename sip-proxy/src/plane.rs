//! The signalling plane: its shards, listeners and life.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Duration;

use sip_engine::Engine;
use sip_engine::config::Config;
use sip_engine::io::{Input, Output, Transport};
use sip_engine::slot::Slot;
use sip_engine::time::Now;
use vitals::Vitals;

use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::filter::FilterSettings;
use crate::life::{Part, Sockets};
use crate::link::Letter;
pub use crate::link::ShardHandle;
use crate::stream::{self, Door};
use crate::tls::TlsIdentity;
use crate::udp;

/// What carries out everything but sends: policy, media, journal, store.
///
/// One per shard, called on the shard's thread: it must not wait for a disk, a lock that others hold over a system call, or the network.
pub trait Host {
    /// Carries out an output that is no send. What can be answered at once comes back as an input; what takes longer
    /// comes through the shard's [`ShardHandle`].
    fn carry_out(&mut self, output: Output, now: Now) -> Option<Input>;

    /// An answer is about to leave that promises something. If what was carried out for it is not kept yet: a number to ask
    /// [`Host::is_kept`] with, after [`ShardHandle::look_again`]; until then the answer waits, and nothing else.
    fn promised(&mut self, promise: Promise) -> Option<u64> {
        let _ = promise;
        None
    }

    /// Whether an answer that waits may leave.
    fn is_kept(&self, promise: Promise, number: u64) -> bool {
        let _ = (promise, number);
        true
    }
}

/// What a final answer of ours promises to its receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// A call was answered: that is recorded.
    Answered,
    /// A call is over: its record is complete.
    Ended,
    /// A binding was made, refreshed or removed: that outlives the process.
    Registered,
}

/// What a listener needs beyond what the engine knows of it.
#[derive(Debug, Clone, Default)]
pub struct ListenerSettings {
    /// Address lists and rates.
    pub filter: FilterSettings,
    /// Certificates; a TLS listener must have them.
    pub tls: Option<Arc<TlsIdentity>>,
}

/// How the plane is set up.
#[derive(Debug, Clone)]
pub struct PlaneSettings {
    /// The engines' configuration; its listeners are opened.
    pub engine: Arc<Config>,
    /// One per listener of `engine`, in order.
    pub listeners: Vec<ListenerSettings>,
    /// Threads.
    pub shards: usize,
    /// Receive buffer of each datagram socket, bytes.
    pub receive_buffer: usize,
    /// Connections that peers opened, of the node.
    pub connections: usize,
    /// Of these, connections of peers that have not shown who they are; as many more may be at the door, in a TLS handshake
    /// or silent. The rest is for registered phones and trunks.
    pub connections_unproven: usize,
    /// Of the latter, connections of one source (an IPv4 address, an IPv6 /64).
    pub connections_per_source: usize,
    /// Connections that we open, of the node.
    pub connections_dialled: usize,
    /// TLS handshakes of peers that begin in a second, of the node; others wait.
    pub handshakes_per_second: usize,
    /// A connection that says nothing for so long is closed.
    pub idle: Duration,
    /// So is one whose peer has not shown in so long who it is.
    pub unproven: Duration,
    /// Where shards and their readers say that they live.
    pub vitals: Vitals,
    /// Memory is short: what is new is refused.
    pub is_short_of_memory: Arc<AtomicBool>,
}

impl PlaneSettings {
    /// One shard, 4 MiB of receive buffer; 10,000 connections, of which 2,000 may be strangers', 1,000 of one source, for a
    /// minute; 10,000 of our own; 1,000 handshakes a second. Closed after an hour of silence.
    pub fn new(engine: Arc<Config>, listeners: Vec<ListenerSettings>) -> Self {
        Self {
            engine,
            listeners,
            shards: 1,
            receive_buffer: 4 << 20,
            connections: 10_000,
            connections_unproven: 2_000,
            connections_per_source: 1_000,
            connections_dialled: 10_000,
            handshakes_per_second: 1_000,
            idle: Duration::from_secs(3600),
            vitals: Vitals::default(),
            is_short_of_memory: Arc::default(),
            unproven: Duration::from_secs(60),
        }
    }

    /// What one of so many shards has of it.
    fn share(&self, shards: usize) -> Self {
        let part = |whole: usize| whole.div_ceil(shards.max(1)).max(1);
        Self {
            connections: part(self.connections),
            connections_unproven: part(self.connections_unproven),
            connections_dialled: part(self.connections_dialled),
            handshakes_per_second: part(self.handshakes_per_second),
            ..self.clone()
        }
    }
}

/// Why the plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A listener can't be bound.
    #[error(
        "listener {transport:?} {address}: {source}; another program may hold the port (`ss -lnp`), or the address is not this machine's (`ip address`)"
    )]
    Bind {
        /// Its transport.
        transport: Transport,
        /// Its address.
        address: SocketAddr,
        /// What the kernel says.
        source: io::Error,
    },
    /// A TLS listener without certificates.
    #[error("listener Tls {0}: no certificate; set `certificate` and `key`")]
    NoCertificate(SocketAddr),
    /// A thread or its runtime can't be made.
    #[error("signalling shard: {0}; raise the limits on threads and open files")]
    Thread(io::Error),
}

/// The running plane. Dropping it stops the shards.
pub struct SipPlane {
    config: Arc<Config>,
    shards: Vec<ShardHandle>,
    counters: Vec<Arc<ShardCounters>>,
    threads: Vec<JoinHandle<()>>,
}

impl SipPlane {
    /// Opens the listeners and starts the shards. `seed` gives each engine its randomness; `host` makes what carries
    /// out the outputs of a shard, and is given the way into it.
    pub fn start<H, F>(
        settings: PlaneSettings,
        clock: Clock,
        mut seed: impl FnMut() -> [u8; 32],
        mut host: F,
    ) -> Result<Self, StartError>
    where
        H: Host + 'static,
        F: FnMut(&ShardHandle) -> H,
        H: Send,
    {
        let count = settings.shards.max(1);
        // All or none: a listener that can't be opened must not leave the threads of others behind.
        let mut settings = settings;
        let sockets = open_all(&mut settings, count)?;
        let counters: Vec<_> = (0..count).map(|_| Arc::new(ShardCounters::default())).collect();
        let (shards, inboxes): (Vec<_>, Vec<_>) = counters.iter().cloned().map(ShardHandle::new).unzip();
        let config = settings.engine.clone();
        let mut plane = Self { config, shards, counters, threads: Vec::with_capacity(count) };
        let share = settings.share(count);
        let parts = plane.shards.clone().into_iter().zip(plane.counters.clone());
        for (index, ((shard, counters), (inbox, sockets))) in
            parts.zip(inboxes.into_iter().zip(sockets)).enumerate()
        {
            let (dials, dialling) = tokio::sync::mpsc::unbounded_channel();
            let host = Box::new(host(&shard));
            let door = Door {
                index,
                settings: share.clone(),
                sockets: sockets.stream,
                shard: shard.clone(),
                counters: counters.clone(),
                dials: dialling,
            };
            let part = Part {
                index,
                settings: share.clone(),
                clock,
                sockets: sockets.datagram,
                dials,
                links: plane.shards.clone(),
                inbox,
                counters,
                engine: Engine::new(share_of(&settings.engine, count), seed()),
                host,
            };
            let thread = std::thread::Builder::new()
                .name(format!("sip-{index}"))
                .spawn(move || part.run())
                .map_err(StartError::Thread)?;
            plane.threads.push(thread);
            let thread = std::thread::Builder::new()
                .name(format!("sip-door-{index}"))
                .spawn(move || door.run())
                .map_err(StartError::Thread)?;
            plane.threads.push(thread);
        }
        Ok(plane)
    }

    /// The configuration in force: a listener that asked for any port (0) has the one that it got.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The ways into the shards.
    pub fn shards(&self) -> &[ShardHandle] {
        &self.shards
    }

    /// The way into the shard that is a slot's home: of a media session for what media has to say about it.
    pub fn home_of(&self, slot: Slot) -> Option<&ShardHandle> {
        self.shards.get(shard_of(slot, self.shards.len()))
    }

    /// What each shard counts.
    pub fn counters(&self) -> &[Arc<ShardCounters>] {
        &self.counters
    }

    /// Stops the shards at once; what they still had to send is sent first.
    pub fn stop(&mut self) {
        for shard in &self.shards {
            shard.send(Letter::Stop);
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a signalling shard panicked while it stopped");
            }
        }
    }
}

impl Drop for SipPlane {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What one of `shards` may have of a configuration's limits.
pub(crate) fn share_of(config: &Arc<Config>, shards: usize) -> Arc<Config> {
    let mut share = Config::clone(config);
    share.limits.calls = share.limits.calls.div_ceil(shards);
    share.limits.transactions = share.limits.transactions.div_ceil(shards);
    // The calls of one user are spread by chance: half as many again leaves room for that.
    let calls = share.limits.calls_per_user;
    share.limits.calls_per_user = calls.saturating_mul(3).div_ceil(shards.saturating_mul(2)).min(calls);
    Arc::new(share)
}

/// The shard that is a slot's home.
pub fn shard_of(slot: Slot, shards: usize) -> usize {
    usize::from(slot.number()).checked_rem(shards).unwrap_or(0)
}

fn open_all(settings: &mut PlaneSettings, count: usize) -> Result<Vec<Sockets>, StartError> {
    let first = open(settings, false)?;
    settings.engine = with_ports_of(&settings.engine, &first);
    if count == 1 {
        return Ok(vec![first]);
    }
    // Sockets that share an address would share it with another program of the same user too; the one that doesn't share has found it.
    drop(first);
    (0..count).map(|_| open(settings, true)).collect()
}

/// Listeners that asked for any port, with the ports that they got: what Via and Contact say.
fn with_ports_of(config: &Arc<Config>, sockets: &Sockets) -> Arc<Config> {
    if config.listeners.iter().all(|listener| listener.address.port() != 0) {
        return config.clone();
    }
    let mut config = Config::clone(config);
    let datagram = sockets.datagram.iter().map(|(index, socket)| (*index, socket.local_addr()));
    let stream = sockets.stream.iter().map(|(index, socket)| (*index, socket.local_addr()));
    for (index, address) in datagram.chain(stream) {
        let (Ok(address), Some(listener)) = (address, config.listeners.get_mut(index)) else { continue };
        for known in [&mut listener.address, &mut listener.advertised] {
            if known.port() == 0 {
                known.set_port(address.port());
            }
        }
    }
    Arc::new(config)
}

fn open(settings: &PlaneSettings, is_shared: bool) -> Result<Sockets, StartError> {
    let mut sockets = Sockets::default();
    for (index, listener) in settings.engine.listeners.iter().enumerate() {
        let fault =
            |source| StartError::Bind { transport: listener.transport, address: listener.address, source };
        let tls = settings.listeners.get(index).and_then(|listener| listener.tls.as_ref());
        if listener.transport == Transport::Tls && tls.is_none() {
            return Err(StartError::NoCertificate(listener.address));
        }
        match listener.transport {
            Transport::Udp => {
                let socket =
                    udp::bind(listener.address, settings.receive_buffer, is_shared).map_err(fault)?;
                sockets.datagram.push((index, socket));
            }
            Transport::Tcp | Transport::Tls => {
                sockets.stream.push((index, stream::bind(listener.address, is_shared).map_err(fault)?));
            }
        }
    }
    Ok(sockets)
}
