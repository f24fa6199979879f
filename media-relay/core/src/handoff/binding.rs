//! STUN on media ports (docs/crush.md §3.1): Binding requests are answered, authenticated ones latch, HANDOFF passes.

use std::net::SocketAddr;

use ahash::AHashMap;
use media_wire::handoff::{PATH, Report, SEQUENCE};
use media_wire::stun::{Class, Incoming, Key, Method, Outgoing};
use seam::Endpoint;

use crate::handoff::path::Claim;
use crate::legs::Session;
use crate::packet::Packet;
use crate::ports::{Component, SocketId, StreamId};
use crate::stream::Streams;

/// UNAUTHENTICATED (RFC 8489 §14.8).
const UNAUTHENTICATED: u16 = 401;

/// What STUN comes to, where it is none of ICE's.
pub(crate) struct Bindings<'a> {
    pub(crate) sessions: &'a mut AHashMap<u64, Session>,
    pub(crate) streams: &'a mut Streams,
}

/// What such a message was.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    /// It has been dealt with.
    Taken,
    /// It only keeps a mapping open.
    Keepalive,
    /// Not for us, or not who it says it is: it has no effect.
    Stranger,
    /// An endpoint has said where the packets of one m-line go.
    Claimed { session: u64, from: Endpoint, claim: Claim },
}

impl Bindings<'_> {
    /// A STUN message on a media port.
    #[cold]
    pub(crate) fn take(
        &mut self,
        packet: Packet<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> Bound {
        let Packet { stream: id, component, source, bytes, .. } = packet;
        let message = Incoming::read(bytes);
        let bound = message.map_or(Bound::Stranger, |message| match (message.method(), message.class()) {
            (Method::Binding, Class::Request) if message.username().is_none() => {
                self.plain_binding(packet, &message, send)
            }
            (Method::Binding, Class::Request) if component == Component::Rtp => {
                self.binding(packet, &message, send)
            }
            (Method::Handoff, _) if component == Component::Rtp => self.pass_handoff(packet, send),
            _ => Bound::Stranger,
        });
        if !matches!(bound, Bound::Stranger) {
            return bound;
        }
        let Some(stream) = self.streams.get_mut(id) else { return bound };
        // A phone keeps its mapping open so, or checks what we took out of its description: that is no stranger's.
        let latch = if component.is_rtcp() { &stream.rtcp } else { &stream.rtp };
        if latch.is_near(source) {
            return Bound::Keepalive;
        }
        stream.strangers = stream.strangers.saturating_add(1);
        bound
    }

    /// A request without credentials. An endpoint of CRUSH learns its NAT by it, from wherever it asks; others who are known by their host
    /// hold their mapping open, or look for the way here (linphone, where DTLS makes it wait for the far end's first word):
    /// they are found.
    fn plain_binding(
        &mut self,
        packet: Packet<'_>,
        message: &Incoming<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> Bound {
        let Packet { socket, stream: id, component, source, now, .. } = packet;
        let takes_part = component == Component::Rtp && self.takes_part(id);
        let Some(stream) = self.streams.get_mut(id) else { return Bound::Stranger };
        if !takes_part {
            let is_taken = stream.takes(component, source, now);
            return if is_taken { Bound::Keepalive } else { Bound::Stranger };
        }
        let answer = Outgoing::new(Method::Binding, Class::Success, message.transaction());
        send(socket, source, &answer.mapped_address(source).plain());
        Bound::Taken
    }

    fn binding(
        &mut self,
        packet: Packet<'_>,
        message: &Incoming<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> Bound {
        let Packet { socket, source, now, .. } = packet;
        let answer = |class| Outgoing::new(Method::Binding, class, message.transaction());
        let username = message.username();
        let Some((ours, theirs)) = username.and_then(|name| name.split_once(':')) else {
            return Bound::Stranger;
        };
        let Some(id) = self.claimed(socket, theirs) else { return Bound::Stranger };
        let owner = self.streams.get(id).map(|stream| stream.owner);
        let leg = owner.and_then(|owner| self.sessions.get(&owner.session)?.leg(owner.endpoint));
        let known = leg.and_then(|leg| leg.handoff.ours.as_ref()).filter(|known| known.ufrag == ours);
        let Some(key) = known.map(|known| Key::new(&known.password)) else { return Bound::Stranger };
        if !message.authentic(&key) {
            send(socket, source, &answer(Class::Error).error_code(UNAUTHENTICATED).plain());
            return Bound::Stranger;
        }
        let unknown = message.unknown();
        if !unknown.is_empty() {
            send(socket, source, &answer(Class::Error).not_understood(&unknown).sealed(&key));
            return Bound::Taken;
        }
        let Some(stream) = self.streams.get_mut(id) else { return Bound::Stranger };
        let Some(session) = self.sessions.get_mut(&stream.owner.session) else { return Bound::Stranger };
        let Some(leg) = session.leg_mut(stream.owner.endpoint) else { return Bound::Stranger };
        let Some(line) = leg.handoff.line_mut(stream.owner.index) else { return Bound::Stranger };
        let sequence = message.word(SEQUENCE).unwrap_or(0);
        let known = stream.rtp.heard().map(|heard| heard.0);
        // One that came before, or was overtaken: whoever sends it, it is no news. Repeated from where it came, its answer was lost.
        let is_new = sequence > line.sequence;
        let is_repeated = sequence == line.sequence && known == Some(source);
        if !is_new && !is_repeated {
            return Bound::Stranger;
        }
        let mut bound = Bound::Taken;
        if is_new {
            line.sequence = sequence;
            let report = message.value(PATH).and_then(Report::read);
            if known != Some(source) {
                stream.rtcp.follow(source.ip(), now);
            }
            stream.rtp.prove(source, now);
            if let Some(report) = report {
                let claim = Claim { line: stream.owner.index, report };
                let (session, from) = (stream.owner.session, stream.owner.endpoint);
                bound = Bound::Claimed { session, from, claim };
            }
            // Who keeps the relay warm is there, wherever its media goes.
            session.life.heard = now;
        }
        send(socket, source, &answer(Class::Success).mapped_address(source).sealed(&key));
        bound
    }

    /// Passes as it is, between two that take part, from where its sender was heard.
    fn pass_handoff(
        &mut self,
        packet: Packet<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> Bound {
        let Packet { stream: id, source, bytes, now, .. } = packet;
        let Some(stream) = self.streams.get(id) else { return Bound::Stranger };
        if !self.takes_part(id) || stream.rtp.heard().map(|heard| heard.0) != Some(source) {
            return Bound::Stranger;
        }
        for consumer in stream.consumers.peers().filter_map(|peer| self.streams.get(peer)) {
            if let Some(destination) = consumer.rtp.destination() {
                send(consumer.ports.rtp, destination, bytes);
            }
        }
        if let Some(session) = self.sessions.get_mut(&stream.owner.session) {
            session.life.heard = now;
        }
        Bound::Taken
    }

    fn takes_part(&self, id: StreamId) -> bool {
        let Some(stream) = self.streams.get(id) else { return false };
        let leg =
            self.sessions.get(&stream.owner.session).and_then(|session| session.leg(stream.owner.endpoint));
        leg.is_some_and(|leg| leg.handoff.takes_part())
    }

    /// Of the branches that share a socket the one whose endpoint has this ufrag.
    fn claimed(&self, socket: SocketId, theirs: &str) -> Option<StreamId> {
        self.streams.socket(socket)?.streams.iter().copied().find(|id| {
            let stream = self.streams.get(*id);
            let leg = stream
                .and_then(|stream| self.sessions.get(&stream.owner.session)?.leg(stream.owner.endpoint));
            leg.is_some_and(|leg| leg.handoff.theirs.as_deref() == Some(theirs))
        })
    }
}
