//! The signalling plane: its shards, listeners and life.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use sip_engine::Engine;
use sip_engine::config::Config;
use sip_engine::io::Transport;
use sip_engine::slot::Slot;

use crate::clock::Clock;
use crate::counters::ShardCounters;
use crate::host::Host;
use crate::life::{Part, Sockets};
use crate::link::{Letter, ShardHandle};
use crate::settings::PlaneSettings;
use crate::shard::Ground;
use crate::spread::{shard_of, share_of};
use crate::stream::{self, Door};
use crate::udp;

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
            let ground = Ground {
                index,
                settings: share.clone(),
                clock,
                links: plane.shards.clone(),
                dials,
                counters,
                engine: Engine::new(share_of(&settings.engine, count), seed()),
                host,
            };
            let part = Part { ground, sockets: sockets.datagram, inbox };
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
