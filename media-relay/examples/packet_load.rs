//! Load for `make bench`: RTP of many calls at an exact rate.
//!
//! `packet_load INTERFACE FLOWS RATE SECONDS`: a line of FLOWS is `source-mac destination-mac source-address:port
//! destination-address:port`, its number is the stream's SSRC. Prints how many packets left and the seconds it took.
//!
//! Whole frames go to a packet socket, which costs a fraction of what UDP sockets do: one CPU can outrun any relay on the other.

#![allow(unsafe_code, reason = "packet sockets and batched system calls are not in the standard library")]
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool: it ends with the reason")]

use std::io;
use std::mem;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

const ETHERNET: usize = 14;
const IP: usize = 20;
const UDP: usize = 8;
const RTP: usize = 12;
/// 20 ms of G.711.
const PAYLOAD: usize = 160;
const FRAME: usize = ETHERNET + IP + UDP + RTP + PAYLOAD;
/// What is due leaves together so often, as a network card that gathers interrupts delivers it.
const TICK: Duration = Duration::from_micros(100);
const BATCH: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [interface, flows, rate, seconds] = words.as_slice() else {
        println!("usage: packet_load INTERFACE FLOWS RATE SECONDS");
        return;
    };
    let rate = rate.parse().expect("RATE: packets a second");
    send(interface, flows, rate, seconds.parse().expect("SECONDS: a number"));
}

/// Sends only: it is bound to no protocol.
fn packet_socket(interface: &str) -> OwnedFd {
    let name = std::ffi::CString::new(interface).expect("an interface's name");
    // SAFETY: plain calls; `name` lives over its call, and the new descriptor is ours alone.
    let (index, socket) =
        unsafe { (libc::if_nametoindex(name.as_ptr()), libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)) };
    assert!(index > 0 && socket >= 0, "{interface}: {}", io::Error::last_os_error());
    // SAFETY: `socket` is open and nobody else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: zeros are a valid address of this family.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index as i32;
    // SAFETY: the address lives over the call, and its size is told.
    let bound = unsafe {
        libc::bind(socket.as_raw_fd(), (&raw const address).cast(), mem::size_of_val(&address) as u32)
    };
    assert_eq!(bound, 0, "{interface}: {}", io::Error::last_os_error());
    socket
}

fn set(socket: &OwnedFd, level: i32, option: i32, value: i32) {
    // SAFETY: the value lives over the call, and its size is told.
    let done = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), 4) };
    assert_eq!(done, 0, "socket option {option}: {}", io::Error::last_os_error());
}

struct Flow {
    frame: [u8; FRAME],
    sequence: u16,
    timestamp: u32,
}

impl Flow {
    fn read(line: &str, ssrc: u32) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mac = |text: &str| -> Vec<u8> {
            text.split(':').map(|octet| u8::from_str_radix(octet, 16).expect("a MAC address")).collect()
        };
        let source: SocketAddrV4 = words[2].parse().expect("address:port");
        let destination: SocketAddrV4 = words[3].parse().expect("address:port");
        let mut frame = [0xd5; FRAME];
        frame[..6].copy_from_slice(&mac(words[1]));
        frame[6..12].copy_from_slice(&mac(words[0]));
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        let ip = &mut frame[ETHERNET..ETHERNET + IP];
        ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        ip[2..4].copy_from_slice(&((FRAME - ETHERNET) as u16).to_be_bytes());
        ip[12..16].copy_from_slice(&source.ip().octets());
        ip[16..20].copy_from_slice(&destination.ip().octets());
        let sum: u32 = ip.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
        ip[10..12].copy_from_slice(&checksum.to_be_bytes());
        let udp = &mut frame[ETHERNET + IP..ETHERNET + IP + UDP];
        udp[..2].copy_from_slice(&source.port().to_be_bytes());
        udp[2..4].copy_from_slice(&destination.port().to_be_bytes());
        udp[4..6].copy_from_slice(&((UDP + RTP + PAYLOAD) as u16).to_be_bytes());
        // No checksum, as RFC 768 allows: over veth the kernel computes none either.
        udp[6..8].copy_from_slice(&[0, 0]);
        let rtp = &mut frame[ETHERNET + IP + UDP..ETHERNET + IP + UDP + RTP];
        rtp.copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        rtp[8..12].copy_from_slice(&ssrc.to_be_bytes());
        Self { frame, sequence: 0, timestamp: 0 }
    }

    fn next(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(PAYLOAD as u32);
        let rtp = &mut self.frame[ETHERNET + IP + UDP..];
        rtp[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        rtp[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
    }
}

fn send(interface: &str, flows: &str, rate: u64, seconds: u64) {
    let socket = packet_socket(interface);
    set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, 1);
    let text = std::fs::read_to_string(flows).expect("FLOWS: a readable file");
    let mut flows: Vec<Flow> =
        text.lines().enumerate().map(|(ssrc, line)| Flow::read(line, ssrc as u32)).collect();
    // SAFETY: sleeps that end when they should; no pointers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let (start, total) = (Instant::now(), rate * seconds);
    let (mut sent, mut refused) = (0u64, 0u64);
    while sent < total {
        let due = (start.elapsed().as_nanos() * u128::from(rate) / 1_000_000_000) as u64;
        let mut left = due.min(total) - sent;
        while left > 0 {
            let count = (left as usize).min(BATCH).min(flows.len());
            // SAFETY: zeros are valid for both structures.
            let mut messages: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
            let mut vectors: [libc::iovec; BATCH] = unsafe { mem::zeroed() };
            for index in 0..count {
                let place = (sent as usize + index) % flows.len();
                let flow = &mut flows[place];
                flow.next();
                vectors[index] = libc::iovec { iov_base: flow.frame.as_mut_ptr().cast(), iov_len: FRAME };
                messages[index].msg_hdr.msg_iov = &raw mut vectors[index];
                messages[index].msg_hdr.msg_iovlen = 1;
            }
            // SAFETY: frames, vectors and messages live over the call.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), count as u32, 0) };
            refused += count as u64 - u64::try_from(done).unwrap_or(0);
            sent += count as u64;
            left -= count as u64;
        }
        std::thread::sleep(TICK);
    }
    println!("{} {}", sent - refused, start.elapsed().as_secs_f64());
}
