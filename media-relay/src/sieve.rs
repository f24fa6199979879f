//! A flood at a port that has a socket of its own: the kernel drops it there, before it fills the buffer that the call's packets need.
//!
//! The filter is one of those that need no right (socket filters of classic BPF, bpf(4)); it keeps no count, so of what comes from whom
//! the port does not expect it lets a share pass, by chance: a party whose NAT has moved it is found after some packets.

#![allow(unsafe_code, reason = "a socket option that no library names")]

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use media_core::Expected;

/// So many strangers' packets in a [`WINDOW`] are a flood: 5,000 a second.
const FLOOD: u64 = 500;
const WINDOW: Duration = Duration::from_millis(100);
/// One of so many passes; a power of two.
const SHARE: u32 = 32;

/// linux/filter.h: loads from the network header, and the kernel's random numbers.
const NETWORK: u32 = 0xfff0_0000;
const RANDOM: u32 = 0xffff_f000 + 56;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// What strangers do at a port.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Flood {
    since: Duration,
    packets: u64,
    pub(crate) is_sieved: bool,
}

impl Flood {
    /// Counts strangers' packets; true if they have become a flood.
    pub(crate) fn rises(&mut self, packets: u64, now: Duration) -> bool {
        if now >= self.since.saturating_add(WINDOW) {
            (self.since, self.packets) = (now, 0);
        }
        self.packets = self.packets.saturating_add(packets);
        !self.is_sieved && self.packets >= FLOOD
    }
}

/// From now on the socket gets what these send, and a share of the rest.
pub(crate) fn sieve(socket: &UdpSocket, expected: Expected) -> io::Result<()> {
    let mut program = program(socket.local_addr()?.is_ipv6(), expected);
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the kernel copies the program, which lives over the call, by the length that is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const filter).cast(),
            mem::size_of::<libc::sock_fprog>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn step(code: u16, k: u32, jump_false: usize) -> libc::sock_filter {
    // No program here has 256 steps.
    libc::sock_filter { code, jt: 0, jf: u8::try_from(jump_false).unwrap_or(u8::MAX), k }
}

fn program(is_ipv6: bool, expected: Expected) -> Vec<libc::sock_filter> {
    let mut program = Vec::new();
    for source in expected.into_iter().flatten().filter(|source| source.is_ipv6() == is_ipv6) {
        program.extend(block(source));
    }
    program.extend([
        step(LOAD_WORD, RANDOM, 0),
        step(AND, SHARE - 1, 0),
        step(JUMP_IF_EQUAL, 0, 1),
        step(RETURN, u32::MAX, 0),
        step(RETURN, 0, 0),
    ]);
    program
}

/// Accepts what comes from a source (port 0: from its host); anything else falls behind the block.
fn block(source: SocketAddr) -> Vec<libc::sock_filter> {
    // The offset of the source's address in its header, RFC 791 §3.1 and RFC 8200 §3.
    let (octets, offset) = match source.ip() {
        IpAddr::V4(ip) => (ip.octets().to_vec(), 12),
        IpAddr::V6(ip) => (ip.octets().to_vec(), 8),
    };
    let mut tests: Vec<(u16, u32, u32)> = octets
        .chunks_exact(4)
        .zip((offset..).step_by(4))
        .map(|(word, at)| {
            let word = word.iter().fold(0, |word: u32, octet| word << 8 | u32::from(*octet));
            (LOAD_WORD, NETWORK | at, word)
        })
        .collect();
    if source.port() != 0 {
        // The filter of a UDP socket sees the datagram from its UDP header on.
        tests.push((LOAD_HALF, 0, source.port().into()));
    }
    // The jump leads behind the `RETURN`.
    let behind = |index: usize| tests.len().saturating_sub(index).saturating_mul(2).saturating_sub(1);
    let steps = tests.iter().enumerate().flat_map(|(index, (load, at, value))| {
        [step(*load, *at, 0), step(JUMP_IF_EQUAL, *value, behind(index))]
    });
    steps.chain([step(RETURN, u32::MAX, 0)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of a hundred packets come, from a source that is expected or not.
    fn passing(local: &str, expects: impl Fn(SocketAddr) -> Option<SocketAddr>) -> usize {
        let ends = [(), ()].map(|()| UdpSocket::bind((local, 0)).unwrap());
        let [port, source] = &ends;
        let other = Some((std::net::Ipv6Addr::UNSPECIFIED, 9).into());
        sieve(port, [other, expects(source.local_addr().unwrap())]).unwrap();
        port.set_nonblocking(true).unwrap();
        for _ in 0..100 {
            source.send_to(&[0; 172], port.local_addr().unwrap()).unwrap();
        }
        let mut buffer = [0; 256];
        std::iter::from_fn(|| port.recv(&mut buffer).ok()).count()
    }

    #[test]
    fn whom_a_port_expects_passes_and_of_strangers_a_few() {
        for local in ["127.0.0.1", "::1"] {
            assert_eq!(passing(local, Some), 100);
            assert_eq!(passing(local, |source| Some((source.ip(), 0).into())), 100, "the host");
            let strangers = passing(local, |source| Some((source.ip(), 9).into()));
            assert!(strangers < 30, "{strangers}");
            assert!(passing(local, |_| None) < 30);
        }
    }

    #[test]
    fn a_flood_is_told_once_and_what_is_slow_is_none() {
        let mut flood = Flood::default();
        let told = (0..100).filter(|tenth| flood.rises(100, WINDOW * *tenth)).count();
        assert_eq!(told, 0);
        assert!(!flood.rises(FLOOD - 101, WINDOW * 99) && flood.rises(1, WINDOW * 99));
        flood.is_sieved = true;
        assert!(!flood.rises(FLOOD, WINDOW * 99));
    }
}
