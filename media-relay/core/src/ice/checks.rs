//! STUN at media ports: checks for our agents, and those of two phones that check each other by way of the relay.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::stun::{Class, Incoming, Method};

use crate::ice::agent::{Heard, Port};
use crate::packet::Packet;
use crate::ports::{SocketId, StreamId};
use crate::worker::Worker;

impl Worker {
    /// Whether a STUN message was ICE's; then it has been dealt with.
    #[cold]
    pub(crate) fn takes_check(
        &mut self,
        packet: Packet<'_>,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> bool {
        let Packet { socket, stream: id, component, source, bytes, now } = packet;
        let Some(message) = Incoming::read(bytes).filter(|message| message.method() == Method::Binding)
        else {
            return false;
        };
        let Some(id) = self.checked_by(socket, id, &message) else {
            return self.passes_check(packet, send);
        };
        let Some(stream) = self.streams.get_mut(id) else { return false };
        let session = self.sessions.get_mut(&stream.owner.session);
        let leg = session.and_then(|session| session.leg_mut(stream.owner.endpoint));
        let Some(agent) = leg.and_then(|leg| leg.ice.as_mut()) else { return false };
        let port = Port { line: stream.owner.index, is_rtcp: component.is_rtcp(), socket };
        let heard = match message.class() {
            Class::Request => agent.request(port, source, &message, now),
            _ => agent.response(source, &message, now),
        };
        let Heard { reply, is_authentic, nominated } = heard;
        if !is_authentic {
            stream.strangers = stream.strangers.saturating_add(1);
            self.dropped = self.dropped.saturating_add(1);
            return true;
        }
        if let Some(reply) = reply {
            send(socket, source, &reply);
        }
        agent.poll(now, &mut self.transmits);
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
        let session = stream.owner.session;
        self.schedule_checks(session);
        true
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

    /// When checks of a session are to be repeated.
    pub(crate) fn schedule_checks(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let due = session.legs.iter().filter_map(|(_, leg)| leg.ice.as_ref()?.due()).min();
        if due != session.checks_due {
            session.checks_due = due;
            self.looks.extend(due.map(|due| std::cmp::Reverse((due, id))));
        }
    }

    /// Repeats checks.
    pub(crate) fn repeat_checks(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        for (_, leg) in &mut session.legs {
            if let Some(agent) = &mut leg.ice {
                agent.poll(now, &mut self.transmits);
            }
        }
        self.schedule_checks(id);
    }
}
