//! The SBC's media plane as it is, over virtual ports, in a call of two CRUSH endpoints; and the discovery service of RFC 5780.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media_core::handoff::HandoffSettings;
use media_core::worker::{Settings, SocketId};
use media_wire::sdp::crush::{Support, Temper};
use media_wire::stun::{
    CHANGE_ADDRESS, CHANGE_PORT, CHANGE_REQUEST, Class, Incoming, Method, OTHER_ADDRESS, Outgoing, is_stun,
};
use play::anchor::Anchor;
use play::ports::Counted;
use play::settings::media::{ENDS, allowing, party, release};
use seam::path::{Constraint, Entry, PathEntry, PathState};
use seam::{Action, Event, Party, Renegotiated, Reply};

const FIRST: u16 = 10_000;

fn found(sdp: &str) -> Support {
    Support::find(sdp).unwrap()
}

/// One endpoint, as its description and its signalling show it.
#[derive(Debug, Clone)]
pub struct End {
    /// `a=crush`.
    pub line: String,
    /// By m-line.
    pub local: Vec<SocketAddr>,
    /// Where its signalling comes from.
    pub signalling: IpAddr,
}

impl End {
    fn sdp(&self) -> String {
        let address = self.local[0].ip();
        let family = if address.is_ipv6() { "IP6" } else { "IP4" };
        let kinds = ["audio {} RTP/AVP 0", "video {} RTP/AVP 96\r\na=rtpmap:96 X/90000"];
        let lines: String = self
            .local
            .iter()
            .zip(kinds)
            .map(|(local, kind)| format!("m={}\r\n", kind.replace("{}", &local.port().to_string())))
            .collect();
        let head =
            format!("v=0\r\no=- 1 1 IN {family} {address}\r\ns=-\r\nc=IN {family} {address}\r\nt=0 0\r\n");
        format!("{head}{}\r\n{lines}", self.line)
    }

    fn party(&self) -> Party {
        let contact = Some(SocketAddr::new(self.local[0].ip(), 5060));
        Party { contact, ..party(0, SocketAddr::new(self.signalling, 5060)) }
    }
}

/// The relay.
#[derive(Debug)]
pub struct Relay {
    pub addresses: [IpAddr; 2],
    /// Of the discovery service, by family.
    discovery: Vec<[IpAddr; 2]>,
    call: Anchor,
    streams: usize,
    ends: [End; 2],
    /// What each was told.
    told: [Support; 2],
    offers: VecDeque<(usize, u32, Support)>,
    pub rtp: u64,
    /// RTP packets by side from which they came.
    pub rtp_from: [u64; 2],
    /// States of the path, as the SBC's record has them.
    pub states: Vec<PathState>,
}

impl Relay {
    /// With a call between two, connected.
    pub fn new(
        addresses: [IpAddr; 2],
        discovery: Vec<[IpAddr; 2]>,
        temper: Option<Temper>,
        ends: [End; 2],
    ) -> Self {
        let primary = discovery.iter().map(|[first, _]| SocketAddr::new(*first, 3478)).collect();
        let settings = Settings {
            inactivity: None,
            release: Some(release(vec![allowing()])),
            handoff: Some(Arc::new(HandoffSettings {
                secret: [5; 32],
                discovery: primary,
                tempers: vec![temper],
            })),
            ..Settings::default()
        };
        let parties = ends.each_ref().map(End::party).into();
        let call = Anchor::new(settings, Counted::at([addresses[0]]), parties);
        let mut call = Anchor { now: Duration::ZERO, ..call };
        let [one, other] = ENDS;
        let offered = found(&call.offer(1, one, other, ends[0].sdp()).unwrap());
        let answered = found(&call.answer(1, other, one, ends[1].sdp()).unwrap());
        call.act(Action::Select(other));
        let streams = ends[0].local.len();
        let mut relay = Self {
            addresses,
            discovery,
            call,
            streams,
            ends,
            told: [answered, offered],
            offers: VecDeque::new(),
            rtp: 0,
            rtp_from: [0; 2],
            states: Vec::new(),
        };
        relay.wake(Duration::ZERO);
        relay
    }

    /// What a side was told last.
    pub fn support(&self, side: usize) -> &Support {
        &self.told[side]
    }

    fn socket(&self, side: usize, stream: usize) -> SocketId {
        ((side * self.streams + stream) * 2) as SocketId
    }

    /// Where a side sends a stream.
    pub fn address(&self, side: usize, stream: usize) -> SocketAddr {
        SocketAddr::new(self.addresses[0], FIRST + self.socket(side, stream) as u16)
    }

    /// What of a fragment reaches the other side.
    pub fn trickle(&mut self, side: usize, fragment: &str, now: Duration) -> Option<String> {
        let fragment = Bytes::copy_from_slice(fragment.as_bytes());
        self.wake(now);
        match self.call.act(Action::Trickle { from: ENDS[side], to: ENDS[1 - side], fragment }) {
            Some(Reply::Fragment(fragment)) => Some(String::from_utf8(fragment?.to_vec()).unwrap()),
            other => unreachable!("{other:?}"),
        }
    }

    /// Policy says something, which the SBC tells those who do not know it.
    pub fn constrain(&mut self, constraint: Constraint, now: Duration) {
        self.wake(now);
        self.call.act(Action::Constrain(constraint));
        self.call.worker.handle_timeout(now, &mut self.call.ports);
        self.wake(now);
    }

    /// A re-INVITE of the SBC's, for a side: its number, and what it says of CRUSH.
    pub fn poll_offer(&mut self) -> Option<(usize, u32, Support)> {
        self.offers.pop_front()
    }

    /// What became of it: accepted, or refused because the side had an offer of its own open.
    pub fn answered(&mut self, side: usize, wish: u32, is_accepted: bool, now: Duration) {
        let outcome = match is_accepted {
            true => Renegotiated::Accepted(self.ends[side].sdp().into()),
            false => Renegotiated::Superseded,
        };
        self.wake(now);
        self.call.act(Action::Renegotiated { wish, endpoint: ENDS[side], outcome });
        self.wake(now);
    }

    /// Relayed and direct time, when all is over.
    pub fn end(&mut self, now: Duration) -> (Duration, Duration) {
        self.wake(now);
        match self.call.act(Action::Delete) {
            Some(Reply::Deleted { direct, .. }) => (now - direct, direct),
            other => unreachable!("{other:?}"),
        }
    }

    pub fn wake(&mut self, now: Duration) {
        for event in self.call.wait(now - self.call.now) {
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event) {
        if let Event::Renegotiate { wish, legs, .. } = event {
            for (endpoint, sdp) in legs {
                let told = found(std::str::from_utf8(sdp.as_ref().unwrap()).unwrap());
                let side = usize::from(endpoint.party);
                self.told[side] = told.clone();
                self.offers.push_back((side, *wish, told));
            }
        }
        if let Event::Path(PathEntry { entry: Entry::State { to, .. } | Entry::Handoff { to, .. }, .. }) =
            event
        {
            self.states.push(*to);
        }
    }

    /// What a datagram to the relay or the discovery service causes: datagrams (source, destination, bytes).
    pub fn datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
        now: Duration,
    ) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        if [3478, 3479].contains(&to.port()) {
            return self.discovery(from, to, bytes).into_iter().collect();
        }
        self.wake(now);
        let Some(socket) = to.port().checked_sub(FIRST).map(SocketId::from) else { return Vec::new() };
        let mut out = Vec::new();
        let address = self.addresses[0];
        self.call.worker.packet(
            media_core::worker::Arrival { socket, source: from, now },
            bytes,
            |socket, destination, bytes| {
                out.push((SocketAddr::new(address, FIRST + socket as u16), destination, bytes.to_vec()));
            },
        );
        if !is_stun(bytes) && !out.is_empty() {
            self.rtp += 1;
            self.rtp_from[socket as usize / 2 / self.streams] += 1;
        }
        out
    }

    fn discovery(
        &self,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Option<(SocketAddr, SocketAddr, Vec<u8>)> {
        let message = Incoming::read(bytes).filter(|message| message.class() == Class::Request)?;
        let [first, second] = *self.discovery.iter().find(|places| places.contains(&to.ip()))?;
        let other_ip = if to.ip() == first { second } else { first };
        let other_port = if to.port() == 3478 { 3479 } else { 3478 };
        let change = message.word(CHANGE_REQUEST).unwrap_or(0);
        let ip = if change & CHANGE_ADDRESS == 0 { to.ip() } else { other_ip };
        let port = if change & CHANGE_PORT == 0 { to.port() } else { other_port };
        let mut other = match other_ip {
            IpAddr::V4(_) => vec![0, 1],
            IpAddr::V6(_) => vec![0, 2],
        };
        other.extend(u16::to_be_bytes(other_port));
        match other_ip {
            IpAddr::V4(ip) => other.extend(ip.octets()),
            IpAddr::V6(ip) => other.extend(ip.octets()),
        }
        let response = Outgoing::new(Method::Binding, Class::Success, message.transaction())
            .mapped_address(from)
            .with(OTHER_ADDRESS, &other)
            .plain();
        Some((SocketAddr::new(ip, port), from, response))
    }
}
