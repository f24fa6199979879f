//! A telephone that speaks ICE, at its place in the network of NATs: it checks, speaks and reports there, and holds.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use media_wire::stun::is_stun;
use nat_lab::{HostId, Network};

use super::crush::name_of;
use super::ice::Phone;
use super::plain::{Said, read};
use super::rtcp::{Heard, sender_report};

/// Its User-Agent: nobody has measured it, and it restarts when it is asked to.
pub const PRODUCT: &str = "Acme ICE 1";
/// Octets in a packet of 20 ms.
const FRAME: u32 = 160;

/// One of them.
#[derive(Debug)]
pub struct CheckingPhone {
    /// What it says of ICE, and what its checks have found.
    phone: Phone,
    /// Its place in the network.
    pub host: HostId,
    direction: &'static str,
    version: u64,
    said: Option<Said>,
    /// The relay's port for reports, their only candidate.
    reports_to: Option<SocketAddr>,
    next_report: Duration,
    sends: bool,
    /// Whether it listens, as was agreed.
    pub hears: bool,
    spoken: u32,
    /// What answers checks, until the next tick.
    answers: Vec<(SocketAddr, Vec<u8>)>,
    /// Of the far source: its name, first and highest number, and how many came.
    source: Option<u32>,
    first: Option<u32>,
    highest: u32,
    received: u32,
    /// When it last heard something.
    pub heard: Duration,
    /// How long it heard nothing at most.
    pub longest_silence: Duration,
}

impl CheckingPhone {
    /// With its media at `local`; those of even numbers call those of odd ones.
    pub fn new(host: HostId, local: SocketAddr, number: usize) -> Self {
        let name = if number.is_multiple_of(2) { "aa" } else { "bb" };
        Self {
            phone: Phone::new(&local.to_string(), name, 0x1000 + number as u32, local),
            host,
            direction: "sendrecv",
            version: 0,
            said: None,
            reports_to: None,
            next_report: Duration::MAX,
            sends: false,
            hears: false,
            spoken: 0,
            answers: Vec::new(),
            source: None,
            first: None,
            highest: 0,
            received: 0,
            heard: Duration::ZERO,
            longest_silence: Duration::ZERO,
        }
    }

    /// Where its media is.
    pub fn local(&self) -> SocketAddr {
        self.phone.address
    }

    /// Its own description. Who makes the first offer controls (RFC 8445 §6.1.1).
    pub fn describe(&mut self, direction: &'static str) -> Bytes {
        self.phone.controls |= self.said.is_none();
        self.version += 1;
        self.direction = direction;
        let sdp = self.phone.describe();
        let sdp = std::str::from_utf8(&sdp).expect("text");
        let sdp = sdp.replacen("o=- 1 1 ", &format!("o=- 1 {} ", self.version), 1);
        format!("{sdp}a={direction}\r\n").into()
    }

    /// The offer that it is asked for: it restarts in it.
    pub fn offer(&mut self) -> Bytes {
        self.phone.restart();
        self.phone.controls = true;
        self.describe(self.direction)
    }

    /// Its answer to an offer, which it follows.
    pub fn answer(&mut self, offer: &[u8], now: Duration) -> Bytes {
        self.phone.answer(offer);
        // Nobody answers with what was not offered.
        self.phone.speaks_ice = self.phone.peer.is_some();
        let said = self.note(offer);
        let answer = self.describe(said.answering());
        self.turn(now);
        answer
    }

    /// Does what the far description says.
    pub fn follow(&mut self, sdp: &[u8], now: Duration) {
        self.phone.take(sdp);
        self.note(sdp);
        self.turn(now);
    }

    fn note(&mut self, sdp: &[u8]) -> Said {
        let said = read(sdp).following(self.said);
        self.reports_to.get_or_insert(said.rtcp);
        self.said = Some(said);
        said
    }

    fn turn(&mut self, now: Duration) {
        self.sends = self.direction == "sendrecv" || self.direction == "sendonly";
        self.hears = self.direction == "sendrecv" || self.direction == "recvonly";
        if !self.hears {
            self.heard = now;
        }
        self.next_report = self.next_report.min(now + Duration::from_secs(2));
    }

    /// Checks, answers checks, reports, and speaks if it `talks`. The name of what it said, and where to.
    pub fn tick(
        &mut self,
        network: &mut Network,
        now: Duration,
        talks: bool,
    ) -> Option<((u32, u16), SocketAddr)> {
        let (host, local) = (self.host, self.phone.address);
        let mut packets = std::mem::take(&mut self.answers);
        if now.as_millis().is_multiple_of(20) {
            packets.extend(self.phone.checks(now));
        }
        let mut sent = None;
        if talks && self.sends {
            let (packet, target) = (self.phone.speak(), self.phone.target());
            self.spoken += 1;
            sent = name_of(&packet).map(|name| (name, target));
            packets.push((target, packet.to_vec()));
        }
        for (to, packet) in packets {
            let _ = network.send(host, local, to, packet.into());
        }
        if let Some(to) = self.reports_to.filter(|_| now >= self.next_report) {
            self.next_report = now + Duration::from_secs(5);
            let heard = self.source.zip(self.first).map(|(source, first)| Heard {
                source,
                lost: (self.highest - first + 1).saturating_sub(self.received),
                highest: self.highest,
            });
            let report = sender_report(self.phone.ssrc, now, [self.spoken, self.spoken * FRAME], heard);
            let _ = network.send(host, SocketAddr::new(local.ip(), local.port() + 1), to, report.into());
        }
        sent
    }

    /// A datagram for its media port.
    pub fn hear(&mut self, source: SocketAddr, packet: &[u8], now: Duration) {
        if is_stun(packet) {
            self.answers.extend(self.phone.checked(source, packet).map(|answer| (source, answer)));
            return;
        }
        let Some((name, number)) = name_of(packet).filter(|_| self.hears) else { return };
        if self.source.replace(name) != Some(name) {
            (self.first, self.received) = (None, 0);
        }
        let step = number.wrapping_sub(self.highest as u16);
        if self.first.is_none() {
            (self.first, self.highest) = (Some(number.into()), number.into());
        } else if step < 0x8000 {
            self.highest += u32::from(step);
        }
        self.received += 1;
        self.longest_silence = self.longest_silence.max(now.saturating_sub(self.heard));
        self.heard = now;
    }

    /// Whether it sends elsewhere than to an address of the relay's.
    pub fn is_away(&self, relay: &[IpAddr]) -> bool {
        self.said.is_some() && !relay.contains(&self.phone.target().ip())
    }
}
