//! The media of one side of a load: for every call that SIPp reports it sends a fixed number of G.711 packets, one every
//! 20 ms, and counts exactly what comes back.
//!
//! `talker LOG ADDRESS FIRST_PORT PACKETS REPORT`. LOG is SIPp's log of `talk CALL_ID NUMBER ADDRESS PORT` lines (the
//! `<log>` actions of load-caller.xml and load-answerer.xml); NUMBER gives the local port as SIPp's `[auto_media_port]`
//! computes it. REPORT is rewritten twice a second.
#![allow(clippy::print_stderr, reason = "a program of the laboratory speaks to its log")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crush_tests::talk::Report;

/// SIPp's `[auto_media_port]`: four ports a call, starting over after 10,000.
const STEP: u16 = 4;
const CALLS: u16 = 10_000 / STEP;
const PACKET: Duration = Duration::from_millis(20);
/// After its last packet a call still listens for so long.
const LINGER: Duration = Duration::from_secs(2);
const HEADER: usize = 12;
const LENGTH: usize = HEADER + 160;

/// One call's stream each way.
struct Call {
    socket: usize,
    remote: SocketAddr,
    ssrc: u32,
    began: Instant,
    due: Instant,
    ticks: u32,
    heard: Heard,
}

/// What has come of the other side's stream.
#[derive(Default)]
struct Heard {
    ssrc: Option<u32>,
    seen: Vec<bool>,
    highest: Option<u16>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [log, address, first, packets, report] = arguments.as_slice() else {
        eprintln!("usage: talker LOG ADDRESS FIRST_PORT PACKETS REPORT");
        return ExitCode::from(2);
    };
    match talk(Path::new(log), address, first, packets, Path::new(report)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("talker: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn std::error::Error>;

fn talk(log: &Path, address: &str, first: &str, packets: &str, report: &Path) -> Result<(), Failure> {
    let (first, packets): (u16, u32) = (first.parse()?, packets.parse()?);
    // All at once and for ever: a packet that comes before its call is known waits in its socket.
    let sockets = (0..CALLS)
        .map(|call| {
            let socket = UdpSocket::bind((address, first + STEP * call))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<std::io::Result<Vec<_>>>()?;
    eprintln!("talking");
    let mut lines = BufReader::new(File::options().read(true).append(true).create(true).open(log)?);
    let (mut line, mut calls, mut counts) = (String::new(), Vec::<Call>::new(), Report::default());
    let mut written = Instant::now();
    loop {
        // A line may come in two pieces: it is complete with its end.
        while lines.read_line(&mut line)? > 0 && line.ends_with('\n') {
            if let Some(call) = began(&line, counts.calls) {
                counts.calls += 1;
                calls.push(call);
            }
            line.clear();
        }
        let now = Instant::now();
        for call in calls.iter_mut().filter(|call| call.due <= now) {
            call.listen(&sockets, &mut counts);
            call.speak(&sockets, packets, &mut counts);
        }
        calls.retain(|call| now < call.began + PACKET * packets + LINGER);
        counts.active = calls.len() as u64;
        if now - written > Duration::from_millis(500) {
            written = now;
            let fresh = report.with_extension("new");
            fs::write(&fresh, counts.text())?;
            fs::rename(&fresh, report)?;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn began(line: &str, number: u64) -> Option<Call> {
    let mut words = line.split_whitespace();
    let (Some("talk"), Some(_), Some(call), Some(address), Some(port)) =
        (words.next(), words.next(), words.next(), words.next(), words.next())
    else {
        return None;
    };
    let call: usize = call.parse().ok()?;
    let remote = SocketAddr::new(address.parse().ok()?, port.parse().ok()?);
    let now = Instant::now();
    let socket = (call - 1) % usize::from(CALLS);
    let ssrc = (number as u32).wrapping_mul(0x9e37_79b9) ^ std::process::id();
    Some(Call { socket, remote, ssrc, began: now, due: now, ticks: 0, heard: Heard::default() })
}

impl Call {
    fn speak(&mut self, sockets: &[UdpSocket], packets: u32, counts: &mut Report) {
        if self.ticks < packets {
            let packet = packet(self.ssrc, self.ticks);
            match sockets[self.socket].send_to(&packet, self.remote) {
                Ok(_) => counts.sent += 1,
                Err(_) => counts.unsent += 1,
            }
        }
        self.ticks += 1;
        self.due += PACKET;
    }

    fn listen(&mut self, sockets: &[UdpSocket], counts: &mut Report) {
        let mut buffer = [0; 2048];
        loop {
            match sockets[self.socket].recv_from(&mut buffer) {
                Ok((length, _)) => self.heard.packet(&buffer[..length], counts),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                // An ICMP error of an earlier send.
                Err(_) => {}
            }
        }
    }
}

impl Heard {
    /// RTP that is whole and of one stream counts once; everything else is named.
    fn packet(&mut self, bytes: &[u8], counts: &mut Report) {
        let [0x80, 0 | 0x80, high, low, _, _, _, _, a, b, c, d, ..] = *bytes else {
            counts.foreign += 1;
            return;
        };
        let (sequence, ssrc) = (u16::from_be_bytes([high, low]), u32::from_be_bytes([a, b, c, d]));
        if *self.ssrc.get_or_insert(ssrc) != ssrc || bytes != packet(ssrc, u32::from(sequence)) {
            counts.foreign += 1;
            return;
        }
        let index = usize::from(sequence);
        if self.seen.len() <= index {
            self.seen.resize(index + 1, false);
        }
        if std::mem::replace(&mut self.seen[index], true) {
            counts.twice += 1;
            return;
        }
        if self.highest.is_some_and(|highest| highest > sequence) {
            counts.late += 1;
        }
        self.highest = self.highest.max(Some(sequence));
        counts.received += 1;
    }
}

/// PCMU whose payload depends on stream and number, so that a packet on a wrong way shows.
fn packet(ssrc: u32, number: u32) -> [u8; LENGTH] {
    let mut bytes = [(ssrc.wrapping_add(number) & 0xff) as u8; LENGTH];
    bytes[0] = 0x80;
    bytes[1] = if number == 0 { 0x80 } else { 0 };
    bytes[2..4].copy_from_slice(&(number as u16).to_be_bytes());
    bytes[4..8].copy_from_slice(&(number * 160).to_be_bytes());
    bytes[8..12].copy_from_slice(&ssrc.to_be_bytes());
    bytes
}
