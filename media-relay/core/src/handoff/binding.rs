//! STUN on media ports (docs/crush.md §3.1): Binding requests are answered, authenticated ones latch, HANDOFF passes.

use std::net::SocketAddr;

use media_wire::handoff::{PATH, Report, SEQUENCE};
use media_wire::stun::{Class, Incoming, Key, Method, Outgoing};

use crate::handoff::credentials;
use crate::handoff::path::Claim;
use crate::packet::Packet;
use crate::ports::{Component, SocketId, StreamId};
use crate::worker::Worker;

/// UNAUTHENTICATED (RFC 8489 §14.8).
const UNAUTHENTICATED: u16 = 401;

impl Worker {
    /// A STUN message on a media port. What is not for us, or not who it says it is, is counted and has no effect.
    #[cold]
    pub(crate) fn stun(&mut self, packet: Packet<'_>, mut send: impl FnMut(SocketId, SocketAddr, &[u8])) {
        let Packet { stream: id, component, source, bytes, .. } = packet;
        let message = Incoming::read(bytes);
        let is_taken = message.is_some_and(|message| match (message.method(), message.class()) {
            (Method::Binding, Class::Request) if message.username().is_none() => {
                self.plain_binding(packet, &message, &mut send)
            }
            (Method::Binding, Class::Request) if component == Component::Rtp => {
                self.binding(packet, &message, &mut send)
            }
            (Method::Handoff, _) if component == Component::Rtp => self.pass_handoff(packet, &mut send),
            _ => false,
        });
        // A phone keeps its mapping open so, or checks what we took out of its description: that is no stranger's.
        let is_near = self.streams.get(id).is_some_and(|stream| {
            if component.is_rtcp() { stream.rtcp.is_near(source) } else { stream.rtp.is_near(source) }
        });
        if !is_taken && is_near {
            self.keepalives = self.keepalives.saturating_add(1);
        } else if !is_taken {
            if let Some(stream) = self.streams.get_mut(id) {
                stream.strangers = stream.strangers.saturating_add(1);
            }
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// A request without credentials. An endpoint of CRUSH learns its NAT by it, from wherever it asks; others who are known by their host
    /// hold their mapping open, or look for the way here (linphone, where DTLS makes it wait for the far end's first word):
    /// they are found.
    fn plain_binding(
        &mut self,
        packet: Packet<'_>,
        message: &Incoming<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> bool {
        let Packet { socket, stream: id, component, source, now, .. } = packet;
        let takes_part = component == Component::Rtp && self.takes_part(id);
        let Some(stream) = self.streams.get_mut(id) else { return false };
        if !takes_part {
            let is_taken = stream.takes(component, source, now);
            self.keepalives = self.keepalives.saturating_add(u64::from(is_taken));
            return is_taken;
        }
        let answer = Outgoing::new(Method::Binding, Class::Success, message.transaction());
        send(socket, source, &answer.mapped_address(source).plain());
        true
    }

    fn binding(
        &mut self,
        packet: Packet<'_>,
        message: &Incoming<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> bool {
        let Packet { socket, source, now, .. } = packet;
        let answer = |class| Outgoing::new(Method::Binding, class, message.transaction());
        let username = message.username();
        let Some((ours, theirs)) = username.and_then(|name| name.split_once(':')) else {
            return false;
        };
        let Some(id) = self.claimed(socket, theirs) else { return false };
        let Some(secret) = self.settings.handoff.as_ref().map(|settings| settings.secret) else {
            return false;
        };
        let Some(stream) = self.streams.get_mut(id) else { return false };
        let (ufrag, password) = credentials(&secret, stream.owner.session, stream.owner.endpoint.party);
        if ours != ufrag {
            return false;
        }
        let key = Key::new(&password);
        if !message.authentic(&key) {
            send(socket, source, &answer(Class::Error).error_code(UNAUTHENTICATED).plain());
            return false;
        }
        let unknown = message.unknown();
        if !unknown.is_empty() {
            send(socket, source, &answer(Class::Error).not_understood(&unknown).sealed(&key));
            return true;
        }
        let Some(session) = self.sessions.get_mut(&stream.owner.session) else { return false };
        let Some(leg) = session.leg_mut(stream.owner.endpoint) else { return false };
        let Some(line) = leg.handoff.line_mut(stream.owner.index) else { return false };
        let sequence = message.word(SEQUENCE).unwrap_or(0);
        let known = stream.rtp.heard().map(|heard| heard.0);
        // One that came before, or was overtaken: whoever sends it, it is no news. Repeated from where it came, its answer was lost.
        let is_new = sequence > line.sequence;
        let is_repeated = sequence == line.sequence && known == Some(source);
        if !is_new && !is_repeated {
            return false;
        }
        if is_new {
            line.sequence = sequence;
            let report = message.value(PATH).and_then(Report::read);
            if known != Some(source) {
                stream.rtcp.follow(source.ip(), now);
            }
            stream.rtp.prove(source, now);
            let (session, endpoint, index) =
                (stream.owner.session, stream.owner.endpoint, stream.owner.index);
            if let Some(report) = report {
                self.claim(session, endpoint, Claim { line: index, report }, now);
            }
            // Who keeps the relay warm is there, wherever its media goes.
            if let Some(session) = self.sessions.get_mut(&session) {
                session.life.heard = now;
            }
        }
        send(socket, source, &answer(Class::Success).mapped_address(source).sealed(&key));
        true
    }

    /// Passes as it is, between two that take part, from where its sender was heard.
    fn pass_handoff(
        &mut self,
        packet: Packet<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> bool {
        let Packet { stream: id, source, bytes, now, .. } = packet;
        let Some(stream) = self.streams.get(id) else { return false };
        if !self.takes_part(id) || stream.rtp.heard().map(|heard| heard.0) != Some(source) {
            return false;
        }
        for consumer in stream.consumers.peers().filter_map(|peer| self.streams.get(peer)) {
            if let Some(destination) = consumer.rtp.destination() {
                send(consumer.ports.rtp, destination, bytes);
            }
        }
        if let Some(session) = self.sessions.get_mut(&stream.owner.session) {
            session.life.heard = now;
        }
        true
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
