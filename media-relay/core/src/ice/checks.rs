//! STUN at media ports: checks for our agents, and those of two phones that check each other by way of the relay.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use ahash::AHashMap;
use media_wire::stun::{Class, Incoming, Method};

use crate::ice::agent::{Heard, Port};
use crate::legs::Session;
use crate::motion::Motions;
use crate::packet::Packet;
use crate::ports::{SocketId, StreamId, Transmit};
use crate::stream::Streams;

/// What checks come to.
pub(crate) struct Checks<'a> {
    pub(crate) sessions: &'a mut AHashMap<u64, Session>,
    pub(crate) streams: &'a mut Streams,
    pub(crate) motions: &'a Motions,
    pub(crate) transmits: &'a mut VecDeque<Transmit>,
}

/// What a STUN message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// None of ICE's.
    Other,
    /// Of two phones that check each other.
    Passed,
    /// For our agent in this session.
    Ours(u64),
    /// For our agent, and not who it says that it is.
    Forged,
}

impl Checks<'_> {
    /// What is ICE's is dealt with.
    #[cold]
    pub(crate) fn take(
        &mut self,
        packet: Packet<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> Checked {
        let Packet { socket, stream: id, component, source, bytes, now } = packet;
        let Some(message) = Incoming::read(bytes).filter(|message| message.method() == Method::Binding)
        else {
            return Checked::Other;
        };
        let Some(id) = self.checked_by(socket, id, &message) else {
            let session = self.streams.get(id).map(|stream| stream.owner.session);
            let introduction = session.and_then(|session| self.motions.introduction(session));
            return match introduction {
                Some(introduction) if introduction.passes_check(packet, self.streams, send) => {
                    Checked::Passed
                }
                _ => Checked::Other,
            };
        };
        let Some(stream) = self.streams.get_mut(id) else { return Checked::Other };
        let session = self.sessions.get_mut(&stream.owner.session);
        let leg = session.and_then(|session| session.leg_mut(stream.owner.endpoint));
        let Some(agent) = leg.and_then(|leg| leg.ice.as_mut()) else { return Checked::Other };
        let port = Port { line: stream.owner.index, is_rtcp: component.is_rtcp(), socket };
        let heard = match message.class() {
            Class::Request => agent.request(port, source, &message, now),
            _ => agent.response(source, &message, now),
        };
        let Heard { reply, is_authentic, nominated } = heard;
        if !is_authentic {
            stream.strangers = stream.strangers.saturating_add(1);
            return Checked::Forged;
        }
        if let Some(reply) = reply {
            send(socket, source, &reply);
        }
        agent.poll(now, self.transmits);
        let before = stream.rtp.destination();
        let latch = if component.is_rtcp() { &mut stream.rtcp } else { &mut stream.rtp };
        match nominated {
            Some((_, remote)) => latch.prove(remote, now),
            // A check comes from where media will.
            None if !latch.is_learnt() => latch.prove(source, now),
            None => {}
        }
        // Without a check of its own, RTCP comes from the same host.
        if let Some((place, _)) = stream.rtp.heard().filter(|(place, _)| before != Some(*place)) {
            stream.rtcp.follow(place.ip(), now);
        }
        Checked::Ours(stream.owner.session)
    }

    /// The stream whose agent a message is for: of several branches at one port the one whose phone has signed it.
    fn checked_by(&self, socket: SocketId, first: StreamId, message: &Incoming<'_>) -> Option<StreamId> {
        let username = message.username();
        let others =
            self.streams.socket(socket).into_iter().flat_map(|socket| socket.streams.iter().copied());
        let agent = |id: StreamId| {
            let stream = self.streams.get(id)?;
            let agent = self.sessions.get(&stream.owner.session)?.leg(stream.owner.endpoint)?.ice.as_ref()?;
            let is_for = match (message.class(), username) {
                (Class::Request, Some(username)) => agent.is_for(username),
                (Class::Request, None) => false,
                _ => agent.has_sent(message.transaction()),
            };
            is_for.then(|| agent.theirs(usize::from(stream.owner.index)).map(|theirs| theirs.ufrag.as_str()))
        };
        let theirs = username.and_then(|name| name.split_once(':')).map(|(_, theirs)| theirs);
        let is_its = |id: &StreamId| agent(*id).is_some_and(|own| own.is_some() && own == theirs);
        others
            .clone()
            .find(is_its)
            .or_else(|| std::iter::once(first).chain(others).find(|id| agent(*id).is_some()))
    }
}

impl Session {
    /// When its checks are to be repeated, if that has changed.
    pub(crate) fn schedule_checks(&mut self) -> Option<Duration> {
        let due = self.legs.iter().filter_map(|(_, leg)| leg.ice.as_ref()?.due()).min();
        if std::mem::replace(&mut self.checks_due, due) == due { None } else { due }
    }

    /// Repeats them.
    pub(crate) fn repeat_checks(&mut self, transmits: &mut VecDeque<Transmit>, now: Duration) {
        for (_, leg) in &mut self.legs {
            if let Some(agent) = &mut leg.ice {
                agent.poll(now, transmits);
            }
        }
    }
}
