//! The sockets of an address whose ports are steered: for whom calls expect, for strangers, and one to send by.

#![allow(unsafe_code, reason = "two socket options that no library names")]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use media_core::Expected;
use media_core::worker::SocketId;
use socket2::{Domain, Protocol, Socket, Type};

use crate::exit::Exit;
use crate::steering::{Steering, Targets, Unavailable};

/// For the packets of all calls while the worker is elsewhere: about 8,000 of speech, 100 ms of 1,600 calls.
const RECEIVE_BUFFER: i32 = 8 * 1024 * 1024;

/// Of strangers, who are many or none: what is read at a time, ten times. What a call's party sends before it is known there waits among
/// them.
const STRANGERS_BUFFER: i32 = 512 * 1024;

/// What comes to any open port of an address, and what goes from there.
#[derive(Debug)]
pub(crate) struct Shared {
    address: IpAddr,
    expected: UdpSocket,
    strangers: UdpSocket,
    /// Their numbers in the steering.
    targets: Targets,
    steering: Arc<Steering>,
    /// By port.
    sockets: Box<[Option<SocketId>]>,
    pub(crate) exit: Exit,
}

impl Shared {
    pub(crate) fn open(
        address: IpAddr,
        traffic_class: u8,
        steering: Arc<Steering>,
    ) -> Result<Self, Unavailable> {
        let expected = target(address, RECEIVE_BUFFER).map_err(|error| match error.kind() {
            io::ErrorKind::AddrNotAvailable => Unavailable::Foreign(address),
            _ => Unavailable::Io(error),
        })?;
        let strangers = target(address, STRANGERS_BUFFER)?;
        let targets =
            Targets { expected: steering.register(&expected)?, strangers: steering.register(&strangers)? };
        let sockets = vec![None; 1 << 16].into_boxed_slice();
        let exit = Exit::open(address, traffic_class)?;
        Ok(Self { address, expected, strangers, targets, steering, sockets, exit })
    }

    /// Of the socket for whom calls expect.
    pub(crate) fn expected_fd(&self) -> RawFd {
        self.expected.as_raw_fd()
    }

    pub(crate) fn strangers_fd(&self) -> RawFd {
        self.strangers.as_raw_fd()
    }

    /// What comes to `port` from now on is for `socket`.
    pub(crate) fn open_port(&mut self, port: u16, socket: SocketId) -> Result<(), Unavailable> {
        self.steering.open(SocketAddr::new(self.address, port), self.targets)?;
        self.set(port, Some(socket));
        Ok(())
    }

    /// Who is expected at an open port.
    pub(crate) fn expect(&self, port: u16, expected: Expected) -> Result<(), Unavailable> {
        self.steering.expect(SocketAddr::new(self.address, port), expected)
    }

    /// Ends that; says how many packets of a flood were dropped there.
    pub(crate) fn close_port(&mut self, port: u16) -> u64 {
        self.set(port, None);
        self.steering.close(SocketAddr::new(self.address, port))
    }

    /// Whose packets come to `port`.
    #[inline]
    pub(crate) fn socket_at(&self, port: u16) -> Option<SocketId> {
        *self.sockets.get(usize::from(port))?
    }

    fn set(&mut self, port: u16, socket: Option<SocketId>) {
        if let Some(place) = self.sockets.get_mut(usize::from(port)) {
            *place = socket;
        }
    }
}

/// A socket to be steered to.
fn target(address: IpAddr, receive_buffer: i32) -> io::Result<UdpSocket> {
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Beyond what the system allows to everybody; steering needs the right to that anyway (NET_ADMIN).
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, receive_buffer)?;
    match address {
        IpAddr::V4(_) => set_option(&socket, libc::SOL_IP, libc::IP_RECVORIGDSTADDR, 1)?,
        IpAddr::V6(_) => set_option(&socket, libc::SOL_IPV6, libc::IPV6_RECVORIGDSTADDR, 1)?,
    }
    // Any port: only bound sockets can be steered to.
    socket.bind(&SocketAddr::new(address, 0).into())?;
    Ok(socket.into())
}

fn set_option(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: a readable integer of the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            mem::size_of::<i32>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
