//! Packets from the device through line and NAT and back to the device. One thread reads; another writes what is due
//! later, if the line delays.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nat_lab::{Nat, Passage, Pipe, Random};

use crate::packet::{self, Fragment};
use crate::router::Router;

/// A packet on the line: when it is at the line's end, its order, whether it comes from outside.
type Waiting = Reverse<(Duration, u64, bool, Vec<u8>)>;

/// All that changes with packets and commands.
pub(crate) struct State {
    pub(crate) nat: Nat,
    pub(crate) up: Pipe,
    pub(crate) down: Pipe,
    waiting: BinaryHeap<Waiting>,
    order: u64,
    /// Datagrams whose first fragment has passed, and the addresses that it was given: the others follow it.
    passing: VecDeque<(Fragment, (Ipv4Addr, Ipv4Addr))>,
    /// Packets that were neither whole UDP datagrams nor anything else that belongs here.
    pub(crate) unreadable: u64,
}

/// Datagrams in fragments that are remembered at a time.
const PASSING: usize = 64;

/// Where an outbound packet goes.
enum Way {
    Line,
    /// To another host inside.
    Back,
}

impl State {
    /// Translates an outbound packet; `None` if it is dropped.
    fn goes_out(&mut self, packet: &mut [u8], now: Duration) -> Option<Way> {
        let Some((source, destination)) = packet::ends(packet) else {
            return self.follows(packet).then_some(Way::Line);
        };
        match self.nat.outbound(source, destination, now).ok()? {
            Passage::Out { source } => {
                self.readdress(packet, source, destination);
                Some(Way::Line)
            }
            Passage::Hairpin { source, destination } => {
                self.readdress(packet, source, destination);
                Some(Way::Back)
            }
        }
    }

    /// Translates a packet at the end of the line from outside; false if it is dropped.
    fn comes_in(&mut self, packet: &mut [u8], now: Duration) -> bool {
        let Some((source, destination)) = packet::ends(packet) else { return self.follows(packet) };
        let Ok(internal) = self.nat.inbound(source, destination, now) else { return false };
        self.readdress(packet, source, internal);
        true
    }

    fn readdress(&mut self, packet: &mut [u8], source: SocketAddr, destination: SocketAddr) {
        if let (Some(fragment), IpAddr::V4(from), IpAddr::V4(to)) =
            (packet::fragment(packet), source.ip(), destination.ip())
        {
            self.passing.truncate(PASSING - 1);
            self.passing.push_front((fragment, (from, to)));
        }
        packet::readdress(packet, source, destination);
    }

    /// Gives a later fragment the addresses of its first; false if that was dropped, or is not there yet (RFC 4787
    /// REQ-14: fragments in order are enough).
    fn follows(&mut self, packet: &mut [u8]) -> bool {
        let first = packet::fragment(packet)
            .and_then(|fragment| self.passing.iter().find(|(known, _)| *known == fragment));
        let Some((_, (from, to))) = first else {
            self.unreadable += 1;
            return false;
        };
        packet::readdress_header(packet, *from, *to);
        true
    }
}

/// The NAT between both sides of a device.
pub(crate) struct Forwarder {
    router: Router,
    device: File,
    start: Instant,
    state: Mutex<State>,
    earlier: Condvar,
}

impl Forwarder {
    pub(crate) fn new(router: Router, device: File, nat: Nat, [up, down]: [Pipe; 2]) -> Self {
        let (waiting, passing) = (BinaryHeap::new(), VecDeque::new());
        let state = Mutex::new(State { nat, up, down, waiting, order: 0, passing, unreadable: 0 });
        Self { router, device, start: Instant::now(), state, earlier: Condvar::new() }
    }

    /// The time that the NAT is told.
    pub(crate) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A thread that panicked has left at worst one packet half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads packets until the device is gone.
    pub(crate) fn read(&self) -> io::Result<()> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = (&self.device).read(&mut buffer)?;
            if let Some(packet) = buffer.get_mut(..length) {
                self.take(packet);
            }
        }
    }

    /// Writes what is due, for ever.
    pub(crate) fn deliver(&self) {
        let mut state = self.state();
        loop {
            let now = self.now();
            let due = match state.waiting.peek() {
                None => {
                    state = self.earlier.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                Some(Reverse((due, ..))) => *due,
            };
            if due > now {
                let woken = self.earlier.wait_timeout(state, due - now);
                state = woken.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            if let Some(Reverse((_, _, comes_in, mut packet))) = state.waiting.pop()
                && (!comes_in || state.comes_in(&mut packet, now))
            {
                self.write(&packet);
            }
        }
    }

    /// Outbound packets pass the NAT and then the line, inbound ones the line and then the NAT.
    fn take(&self, packet: &mut [u8]) {
        let now = self.now();
        let mut state = self.state();
        let Some(source) = source(packet) else {
            state.unreadable += 1;
            return;
        };
        let comes_in = !self.router.is_inside(source);
        if !comes_in {
            match state.goes_out(packet, now) {
                Some(Way::Line) => {}
                Some(Way::Back) => return self.write(packet),
                None => return,
            }
        }
        let line = if comes_in { &mut state.down } else { &mut state.up };
        for due in line.pass(packet.len(), now) {
            if due <= now && state.waiting.is_empty() {
                if !comes_in || state.comes_in(packet, now) {
                    self.write(packet);
                }
                continue;
            }
            state.order += 1;
            let order = state.order;
            let is_first = state.waiting.peek().is_none_or(|Reverse((first, ..))| due < *first);
            state.waiting.push(Reverse((due, order, comes_in, packet.to_vec())));
            if is_first {
                self.earlier.notify_one();
            }
        }
    }

    /// What the kernel does not take (no memory, the device going down) is lost, as on any line.
    fn write(&self, packet: &[u8]) {
        let _ = (&self.device).write(packet);
    }
}

/// The two directions of a line that does the same both ways.
pub(crate) fn line(impairment: nat_lab::Impairment, seed: u64) -> [Pipe; 2] {
    let mut random = Random::new(seed);
    [random.fork(), random.fork()].map(|random| Pipe::new(impairment, random))
}

/// Who sent a packet: read without ports, which later fragments lack.
fn source(packet: &[u8]) -> Option<IpAddr> {
    let of_fragment = || packet::fragment(packet).map(|fragment| fragment.source.into());
    packet::ends(packet).map(|(source, _)| source.ip()).or_else(of_fragment)
}
