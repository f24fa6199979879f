//! One call's endpoint. It is told what comes in and what time it is; it says what to send, and when to wake it.
//!
//! ```text
//!  Description, Confirmed, Trickle      ->          -> Trickle (INFO), Event
//!  Datagram                             ->  Agent   -> Transmit, Media, Rtcp
//!  Media (RTP to send)                  ->          -> OpenSocket, CloseSocket
//!  Mapped, NetworkChanged, Policy, Keys ->          -> MapAnew, poll_timeout
//! ```

mod binding;
mod family;
mod gathered;
mod gathering;
mod generation;
mod handoff;
mod incoming;
mod io;
mod leg;
mod link;
mod media;
mod role;
mod story;
mod stream;
mod switching;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use gathered::{Gathered, Wanted};
use generation::{Credentials, Generation};
use incoming::Switching;
use leg::Leg;
use link::Link;
use media_wire::demux::{is_rtcp, is_stun};
use media_wire::handoff::{Path, Reason, Report, Sending};
use media_wire::rtp::Header;
use media_wire::sdp::crush::Support;
use media_wire::stun;
use role::Role;
use story::Story;
use stream::Stream;

use crate::count::Count;
pub use crate::find::FlowBudget;
use crate::find::{Finder, Pace};
use crate::handoff::Outstanding;
use crate::playout::{Playout, Step};
use crate::random::Random;
pub use io::{
    Config, Direction, Effort, Event, Input, Marks, Output, Part, Refused, SocketId, StreamId, StreamSetup,
};

/// See the module.
#[derive(Debug)]
pub struct Agent {
    config: Config,
    random: Random,
    role: Role,
    leg: Leg,
    streams: Vec<Stream>,
    gathered: Gathered,
    generation: Generation,
    link: Option<Link>,
    switching: Switching,
    outputs: VecDeque<Output>,
    refused: Refused,
    spent: Effort,
    story: Story,
}

impl Agent {
    /// `is_controlling`: this endpoint made the offer. `seed`: 256 unpredictable bits, used once. `now`: monotonic, since any
    /// fixed origin, as everywhere.
    pub fn new(
        config: Config,
        is_controlling: bool,
        seed: [u8; 32],
        streams: &[StreamSetup],
        now: Duration,
    ) -> Self {
        let mut random = Random::new(seed);
        let leg = Leg::new(Credentials::random(&mut random), streams.len());
        let role = Role { is_controlling, tiebreaker: random.word() };
        let ours = Credentials::random(&mut random);
        let own = || FlowBudget::new(config.temper, None);
        let pace = Pace::new(config.temper, &config.flows.clone().unwrap_or_else(own), now);
        let first = streams.first().map(|first| (first.socket, first.local));
        let finder = Finder::new(is_controlling, first, pace, config.most_sockets, &mut random);
        Self {
            random,
            role,
            leg,
            streams: streams.iter().map(|setup| Stream::new(*setup)).collect(),
            gathered: Gathered::default(),
            generation: Generation::new(ours, None, finder),
            link: None,
            switching: Switching::new(now),
            outputs: VecDeque::new(),
            refused: Refused::default(),
            spent: Effort { sockets: streams.len() as u32, ..Effort::default() },
            story: Story::default(),
            config,
        }
    }

    /// The line for our descriptions to the SBC: `a=crush:1 …`, without line end.
    pub fn support_line(&self) -> String {
        self.leg.line().to_string()
    }

    /// Takes an input in, and does what has become due.
    pub fn handle(&mut self, input: Input<'_>, now: Duration) {
        match input {
            Input::Description { sdp, relays } => self.described(sdp, relays, now),
            Input::Confirmed => {
                self.gathered.is_confirmed = true;
                self.trickle_soon(now);
            }
            Input::Trickle(fragment) => self.trickled(fragment, now),
            Input::Datagram { socket, from, bytes } => self.datagram(socket, from, bytes, now),
            Input::Media { stream, packet, marks } => self.send_media(stream, packet, marks, now),
            Input::SocketOpened { socket, local } => self.socket_opened(socket, local, now),
            Input::SocketRefused => {
                if self.gathered.wanted.pop_front() == Some(Wanted::Spray) {
                    self.generation.finder.socket_refused();
                }
            }
            Input::Mapped(address) => self.router_mapped(address, now),
            Input::Host { socket, local } => self.host_opened(socket, local, now),
            Input::NetworkChanged(sockets) => self.network_changed(sockets, now),
            Input::Policy(policy) => {
                self.leg.own_policy = Some(policy);
                self.obey_policy(now);
            }
            Input::Keys(keys) => self.keyed(keys),
            Input::Timeout => {}
        }
        self.advance(now);
    }

    fn described(&mut self, sdp: &str, relays: &[Option<SocketAddr>], now: Duration) {
        self.story.on_relay_since.get_or_insert(now);
        for (stream, relay) in self.streams.iter_mut().zip(relays) {
            stream.relay = *relay;
        }
        self.leg.hears(Support::find(sdp));
        if let Some(temper) = self.leg.support.as_ref().and_then(|support| support.temper) {
            self.generation.finder.pace.network_bears(temper, now);
        }
        if self.leg.support.is_some() && !self.story.is_connecting {
            self.story.is_connecting = true;
            self.event(Event::Connecting);
        }
        self.obey_policy(now);
    }

    /// What goes to the relay are flows too, that no leave is asked for: RTP and RTCP. The spray pays for them, so that an easy pair waits for
    /// nothing.
    fn charge_relayed(&mut self, now: Duration) {
        let streams = self.streams.iter().filter(|stream| stream.relay.is_some()).count() as u32;
        self.generation.finder.pace.charge(streams.saturating_mul(2), now);
    }

    fn datagram(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8], now: Duration) {
        if !is_stun(bytes) {
            return self.media(socket, from, bytes, now);
        }
        let Some(message) = stun::Incoming::read(bytes) else {
            self.refused.malformed.up();
            return;
        };
        match (message.method(), message.class()) {
            (stun::Method::Binding, stun::Class::Request) => {
                self.binding_request(socket, from, &message, now)
            }
            (stun::Method::Binding, _) => self.binding_response(socket, from, &message, now),
            (stun::Method::Handoff, _) => self.handoff_message(socket, from, &message, now),
        }
    }

    fn media(&mut self, socket: SocketId, from: SocketAddr, bytes: &[u8], now: Duration) {
        let through_relay = self.relayed(socket, from);
        let Some(path) = self.path(socket, from) else {
            self.refused.stray.up();
            return;
        };
        if is_rtcp(bytes) {
            let stream = StreamId(through_relay.unwrap_or(0) as u8);
            return self.outputs.push_back(Output::Rtcp { stream, packet: bytes.to_vec() });
        }
        match path {
            Path::Relay => self.media_by_relay(through_relay.unwrap_or(0), bytes, now),
            Path::Direct => self.media_by_direct(bytes, now),
        }
    }

    /// The m-line whose media an RTP packet is, by whatever path it has come: for a receiver's statistics, which know of no paths
    /// (RFC 3550 §6.4). `None` if it is nobody's, or no RTP.
    pub fn stream_of(&self, socket: SocketId, from: SocketAddr, packet: &[u8]) -> Option<StreamId> {
        let header = Header::of_media(packet)?;
        let place = match self.path(socket, from)? {
            Path::Relay => self.relayed(socket, from)?,
            Path::Direct => self.direct(&header, packet)?,
        };
        Some(StreamId(place as u8))
    }

    /// The m-line that comes from there through the relay.
    fn relayed(&self, socket: SocketId, from: SocketAddr) -> Option<usize> {
        self.streams.iter().position(|stream| stream.setup.socket == socket && stream.relay == Some(from))
    }

    fn path(&self, socket: SocketId, from: SocketAddr) -> Option<Path> {
        if self.relayed(socket, from).is_some() {
            return Some(Path::Relay);
        }
        // Between nomination at one end and at the other, the path is proven all the same.
        let is_link = self.link.as_ref().is_some_and(|link| link.is(socket, from));
        let works = || self.generation.finder.list.get(socket, from).is_some_and(|pair| pair.works());
        (is_link || works()).then_some(Path::Direct)
    }

    fn advance(&mut self, now: Duration) {
        self.let_elapse(now);
        self.keep_relay_warm(now);
        self.discover(now);
        self.trickle(now);
        self.find(now);
        self.keep_link(now);
        self.retry(now);
        self.decide(now);
        self.show_secured();
    }

    /// Tells the relay where packets go, and that we are there.
    fn keep_relay_warm(&mut self, now: Duration) {
        for place in 0..self.streams.len() {
            let sending = self.sending(place, now);
            let reason = match sending {
                Sending::Relay => self.switching.returned,
                Sending::Direct => Reason::Synchronised,
                Sending::Both => Reason::Comparison,
            };
            let Some(stream) = self.streams.get(place) else { return };
            let (socket, Some(relay)) = (stream.setup.socket, stream.relay) else { continue };
            if let Some(bytes) = self.leg.request(place, Report { sending, reason }, &mut self.random, now) {
                self.transmit(socket, relay, bytes);
            }
        }
    }

    /// Sends to the peer through the relay, on the first stream that has one.
    fn by_relay(&mut self, bytes: Vec<u8>, now: Duration) {
        let mut relayed = self.streams.iter().zip(&mut self.leg.warmth);
        if let Some((warmth, socket, relay)) =
            relayed.find_map(|(stream, warmth)| Some((warmth, stream.setup.socket, stream.relay?)))
        {
            warmth.sent(now);
            self.transmit(socket, relay, bytes);
        }
    }

    /// What is to be done, in order; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Agent::handle`] with [`Input::Timeout`], if nothing else happens before.
    pub fn poll_timeout(&self) -> Option<Duration> {
        [
            self.leg.timeout(&self.streams),
            self.gathering_timeout(),
            self.finding_timeout(),
            self.link_timeout(),
            self.switching.request.as_ref().map(Outstanding::timeout),
            self.streams.iter().filter_map(|stream| stream.outgoing.timeout()).min(),
            self.decision_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The next step of an audio stream's playout, whose first sample will be heard at `at`: the time, and what is queued
    /// already (at most 10 ms should be). `None` for streams without.
    pub fn play(&mut self, stream: StreamId, at: Duration) -> Option<Step> {
        Some(self.streams.get_mut(usize::from(stream.0))?.playout.as_mut()?.pull(at))
    }

    /// An audio stream's jitter buffer, to read its log.
    pub fn playout(&self, stream: StreamId) -> Option<&Playout> {
        self.streams.get(usize::from(stream.0))?.playout.as_ref()
    }

    /// Packets that were not accepted.
    pub fn refused(&self) -> Refused {
        self.refused
    }

    /// What the search has cost so far.
    pub fn effort(&self) -> Effort {
        Effort {
            probes: self.spent.probes.saturating_add(self.generation.finder.probes()),
            flows: self.spent.flows.saturating_add(self.generation.finder.pace.made()),
            sockets: self.spent.sockets,
        }
    }

    /// On which path a stream's packets are sent now; both while copying counts as the relay.
    pub fn sending_on(&self, stream: StreamId) -> Path {
        match self.streams.get(usize::from(stream.0)) {
            Some(stream) if stream.outgoing.is_direct() => Path::Direct,
            _ => Path::Relay,
        }
    }

    /// On which path a stream's packets are expected.
    pub fn receiving_on(&self, stream: StreamId) -> Path {
        match self.streams.get(usize::from(stream.0)) {
            Some(stream) if stream.direct_since.is_some() => Path::Direct,
            _ => Path::Relay,
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn transmit(&mut self, socket: SocketId, to: SocketAddr, bytes: Vec<u8>) {
        self.outputs.push_back(Output::Transmit { socket, to, bytes });
    }
}
