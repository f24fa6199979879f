//! Many ports, one socket: the kernel hands the datagrams of all open media ports of an address to one socket of the worker that owns
//! them (`bpf/steer.bpf.c`).

#![allow(unsafe_code, reason = "what aya copies into the kernel must be declared plain data")]

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};

use aya::maps::{HashMap, MapData, MapError, SockMap};
use aya::programs::{ProgramError, SkLookup};
use aya::{Ebpf, EbpfError, EbpfLoader};
use media_core::Expected;

use crate::reserve::Reservation;

#[cfg(steering)]
const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o")));
#[cfg(not(steering))]
const OBJECT: Option<&[u8]> = None;

/// In the program's window of 100 ms: 10,000 packets a second at one port, ten times a call's with high-definition video.
const EXPECTED_LIMIT: u32 = 1000;
/// The same of strangers: ten calls' speech, so that a call is found within its first packets.
const STRANGERS_LIMIT: u32 = 100;

/// Why every media port gets a socket of its own.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// There is nothing to load.
    #[error("this program was built without clang")]
    NotBuilt,
    /// Of the tables.
    #[error("its tables can't be made ({0}): it needs Linux 5.9 and the capabilities BPF and NET_ADMIN")]
    Load(#[from] EbpfError),
    /// Of the program in the kernel.
    #[error(
        "the kernel does not take the program ({0}): it needs Linux 5.9 and the capabilities BPF and NET_ADMIN"
    )]
    Program(#[from] ProgramError),
    /// While in use.
    #[error("its tables can't be used: {0}")]
    Table(#[from] MapError),
    /// The kernel chooses from these ports for other programs, and can't be told not to.
    #[error(
        "the media ports are among those that the kernel chooses from (ip_local_port_range) and can't be reserved ({0}): choose media_ports outside, or `sysctl -w net.ipv4.ip_local_reserved_ports=FIRST-LAST`"
    )]
    Reserve(#[source] io::Error),
    /// No right helps there.
    #[error("{0} is not an address of this machine (`ip address`)")]
    Foreign(IpAddr),
    /// Of the sockets that the ports share.
    #[error("a socket for all ports can't be made ({0}): it needs the capabilities NET_ADMIN and NET_RAW")]
    Io(#[from] io::Error),
}

/// A port's place in the program's table: an address in its IPv6-mapped form and the port. The layout is that of `struct key`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Key {
    address: [u8; 16],
    port: u32,
}

/// As `struct source`; zeros are nobody, the port 0 is any of the host's.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Source {
    address: [u8; 16],
    port: u32,
}

/// As `struct entry`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
struct Entry {
    window_start: u64,
    dropped: u64,
    window_expected: u32,
    window_strangers: u32,
    socket: u32,
    strangers: u32,
    expected: [Source; 2],
}

// SAFETY: plain numbers without padding, for which every pattern of bits is valid.
unsafe impl aya::Pod for Key {}
// SAFETY: as above; `Source` has four-byte parts and no padding.
unsafe impl aya::Pod for Entry {}

fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
    .octets()
}

impl Key {
    fn new(at: SocketAddr) -> Self {
        Self { address: mapped(at.ip()), port: at.port().into() }
    }
}

impl Source {
    fn new(source: Option<SocketAddr>) -> Self {
        source.map_or_else(Self::default, |at| Self { address: mapped(at.ip()), port: at.port().into() })
    }
}

/// Where the packets of a port go: sockets by their number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Targets {
    /// For whom the port expects.
    pub(crate) expected: u32,
    pub(crate) strangers: u32,
}

/// The attached program, shared by all workers. Dropping it detaches it.
#[derive(Debug)]
pub(crate) struct Steering {
    /// Locked when a port opens or closes, never for a packet.
    ports: Mutex<HashMap<MapData, Key, Entry>>,
    sockets: Mutex<Sockets>,
    _program: Ebpf,
    /// As long as ports are steered.
    _reservation: Option<Reservation>,
}

struct Sockets {
    map: SockMap<MapData>,
    next: u32,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sockets").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Steering {
    /// Attaches to the network namespace of this thread, with room for so many ports and sockets.
    pub(crate) fn attach(
        ports: u32,
        sockets: u32,
        reservation: Option<Reservation>,
    ) -> Result<Self, Unavailable> {
        let object = OBJECT.ok_or(Unavailable::NotBuilt)?;
        let mut program = EbpfLoader::new()
            .override_global("EXPECTED_LIMIT", &EXPECTED_LIMIT, true)
            .override_global("STRANGERS_LIMIT", &STRANGERS_LIMIT, true)
            .map_max_entries("PORTS", ports.max(1))
            .map_max_entries("SOCKETS", sockets.max(1))
            .load(object)?;
        let missing = || Unavailable::Io(io::Error::other("the compiled program lacks a part"));
        let port_table = HashMap::try_from(program.take_map("PORTS").ok_or_else(missing)?)?;
        let map = SockMap::try_from(program.take_map("SOCKETS").ok_or_else(missing)?)?;
        let steer: &mut SkLookup = program.program_mut("steer").ok_or_else(missing)?.try_into()?;
        steer.load()?;
        steer.attach(File::open("/proc/thread-self/ns/net")?)?;
        Ok(Self {
            ports: Mutex::new(port_table),
            sockets: Mutex::new(Sockets { map, next: 0 }),
            _program: program,
            _reservation: reservation,
        })
    }

    /// The number by which [`open`](Self::open) names a bound socket.
    pub(crate) fn register(&self, socket: &UdpSocket) -> Result<u32, Unavailable> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let number = sockets.next;
        sockets.map.set(number, socket, 0)?;
        sockets.next = number.saturating_add(1);
        Ok(number)
    }

    /// From now on these sockets get what comes to `at`.
    pub(crate) fn open(&self, at: SocketAddr, targets: Targets) -> Result<(), Unavailable> {
        let entry = Entry {
            window_start: 0,
            dropped: 0,
            window_expected: 0,
            window_strangers: 0,
            socket: targets.expected,
            strangers: targets.strangers,
            expected: Default::default(),
        };
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ports.insert(Key::new(at), entry, 0)?)
    }

    /// Who is expected at an open port.
    pub(crate) fn expect(&self, at: SocketAddr, expected: Expected) -> Result<(), Unavailable> {
        let key = Key::new(at);
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        // What the program counts between these two calls is not counted: a few packets of a flood.
        let entry = ports.get(&key, 0)?;
        Ok(ports.insert(key, Entry { expected: expected.map(Source::new), ..entry }, 0)?)
    }

    /// Ends that; says how many packets of a flood were dropped there.
    pub(crate) fn close(&self, at: SocketAddr) -> u64 {
        let key = Key::new(at);
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = ports.get(&key, 0).map_or(0, |entry| entry.dropped);
        if let Err(error) = ports.remove(&key) {
            tracing::error!(%error, %at, "a media port stays steered");
        }
        dropped
    }
}
