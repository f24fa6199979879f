//! A telephone that speaks ICE (RFC 8445), as far as one m-line needs it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use media_wire::stun::{
    Class, ICE_CONTROLLED, ICE_CONTROLLING, Incoming, Key, Method, Outgoing, USE_CANDIDATE,
};

/// A phone with one interface: it sends to the pair that it has found best, which is the relay until a better one works.
#[derive(Debug)]
pub struct Phone {
    /// Where others see it.
    pub address: SocketAddr,
    /// Its own address, behind a NAT that lets in only what comes from where it has sent to (RFC 4787 §5).
    pub inside: Option<SocketAddr>,
    /// Where it has sent to.
    pub sent_to: Vec<SocketAddr>,
    /// Its credentials, as ufrag and password.
    pub own: (String, String),
    /// Its peer's, as it was told them last.
    pub peer: Option<(String, String)>,
    restarts: u32,
    /// It says so in its descriptions, and checks.
    pub speaks_ice: bool,
    /// It gives new credentials in an offer that it was asked for, in an answer to a restart.
    pub restarts_in: [bool; 2],
    /// It takes no offer in mid-call.
    pub refuses: bool,
    /// The far end's.
    pub candidates: Vec<SocketAddr>,
    /// Where its media goes, by signalling and by checks.
    pub default: SocketAddr,
    /// The pair that works, to where it leads.
    pub selected: Option<SocketAddr>,
    /// It decides (RFC 8445 §6.1.1).
    pub controls: bool,
    /// Its source.
    pub ssrc: u32,
    sequence: u16,
    /// The packet that it heard last: whence, its number, and when.
    pub heard: Option<(SocketAddr, u16, Duration)>,
    /// The longest that it heard nothing.
    pub silence: Duration,
}

impl Phone {
    /// At an address, with a name of two letters and a source; it sends to the relay until it is told otherwise.
    pub fn new(address: &str, name: &str, ssrc: u32, relay: SocketAddr) -> Self {
        let mut phone = Self {
            address: address.parse().unwrap(),
            inside: None,
            sent_to: Vec::new(),
            own: (name.to_owned(), String::new()),
            peer: None,
            restarts: 0,
            speaks_ice: true,
            restarts_in: [true; 2],
            refuses: false,
            candidates: Vec::new(),
            default: relay,
            selected: None,
            controls: false,
            ssrc,
            sequence: 0,
            heard: None,
            silence: Duration::ZERO,
        };
        phone.restart();
        phone
    }

    /// New credentials (RFC 8445 §9).
    pub fn restart(&mut self) {
        self.restarts += 1;
        let name = self.own.0[..2].to_owned();
        self.own = (
            format!("{name}{:04}", self.restarts),
            format!("password-of-{name}-number-{:04}", self.restarts),
        );
        self.selected = None;
    }

    /// Its own description.
    pub fn describe(&self) -> Bytes {
        let inside = self.inside.unwrap_or(self.address);
        let (ip, port) = (inside.ip(), inside.port());
        let ice = if self.speaks_ice {
            format!(
                "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\na=candidate:1 1 UDP 2130706431 {ip} {port} typ host\r\na=candidate:1 2 UDP 2130706430 {ip} {} typ host\r\n",
                self.own.0,
                self.own.1,
                port + 1
            )
        } else {
            String::new()
        };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n{ice}"
        )
        .into()
    }

    /// What the far side says; true if its credentials are others than before.
    pub fn take(&mut self, sdp: &[u8]) -> bool {
        let text = std::str::from_utf8(sdp).unwrap();
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let ip: IpAddr = value("c=IN IP4 ").unwrap().parse().unwrap();
        let port = value("m=audio ").unwrap().split(' ').next().unwrap().parse().unwrap();
        self.default = SocketAddr::new(ip, port);
        let peer = value("a=ice-ufrag:").zip(value("a=ice-pwd:"));
        self.candidates = text
            .lines()
            .filter_map(|line| line.strip_prefix("a=candidate:"))
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .filter(|words| words[1] == "1")
            .map(|words| SocketAddr::new(words[4].parse().unwrap(), words[5].parse().unwrap()))
            .collect();
        let is_new = peer != self.peer;
        if is_new {
            self.selected = None;
        }
        self.peer = peer;
        is_new
    }

    /// Its answer to an offer, which it takes.
    pub fn answer(&mut self, sdp: &[u8]) -> Bytes {
        let had_peer = self.peer.is_some();
        if self.take(sdp) && had_peer && self.restarts_in[1] {
            self.restart();
        }
        self.controls = false;
        self.describe()
    }

    /// Where it sends.
    pub fn target(&self) -> SocketAddr {
        self.selected.unwrap_or(self.default)
    }

    /// The first candidate that works is the best; the rest keep what they have.
    fn choose(&mut self, at: SocketAddr) {
        if self.selected.is_none() {
            self.selected = Some(at);
        }
    }

    /// Without a pair yet, checks of each candidate, the best first.
    pub fn checks(&self, now: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        let Some(peer) = self.peer.as_ref().filter(|_| self.selected.is_none() && self.speaks_ice) else {
            return Vec::new();
        };
        let check = |to: &SocketAddr| {
            let role = if self.controls { ICE_CONTROLLING } else { ICE_CONTROLLED };
            let transaction = now.as_nanos() ^ u128::from(to.port());
            let mut request = Outgoing::new(Method::Binding, Class::Request, transaction)
                .username(&peer.0, &self.own.0)
                .with(role, &5_u64.to_be_bytes());
            if self.controls {
                request = request.with(USE_CANDIDATE, &[]);
            }
            (*to, request.sealed(&Key::new(&peer.1)))
        };
        self.candidates.iter().map(check).collect()
    }

    /// A check or an answer to one; what goes back.
    pub fn checked(&mut self, from: SocketAddr, packet: &[u8]) -> Option<Vec<u8>> {
        let message = Incoming::read(packet)?;
        match message.class() {
            Class::Request if message.authentic(&Key::new(&self.own.1)) => {
                if message.value(USE_CANDIDATE).is_some() && !self.controls {
                    self.choose(from);
                }
                let answer = Outgoing::new(Method::Binding, Class::Success, message.transaction());
                return Some(answer.mapped_address(from).sealed(&Key::new(&self.own.1)));
            }
            Class::Success
                if self.controls
                    && self.peer.as_ref().is_some_and(|peer| message.authentic(&Key::new(&peer.1))) =>
            {
                self.choose(from);
            }
            _ => {}
        }
        None
    }

    /// A packet of speech: 20 ms of G.711.
    pub fn speak(&mut self) -> [u8; 172] {
        self.sequence += 1;
        let mut packet = [0_u8; 172];
        packet[0] = 0x80;
        packet[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        packet[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        packet
    }

    /// One comes.
    pub fn hear(&mut self, from: SocketAddr, packet: &[u8], now: Duration) {
        let pause = self.heard.map_or(Duration::ZERO, |heard| now - heard.2);
        self.silence = self.silence.max(pause);
        self.heard = Some((from, u16::from_be_bytes([packet[2], packet[3]]), now));
    }

    /// A receiver report of what it has heard from `source`.
    pub fn report(&self, source: u32) -> Option<Vec<u8>> {
        let (_, sequence, _) = self.heard?;
        let mut packet = vec![0x81, 201, 0, 7];
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(source.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(u32::from(sequence).to_be_bytes());
        packet.extend([0; 12]);
        Some(packet)
    }
}
