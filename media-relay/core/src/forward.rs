//! A packet's way through a worker: whose it is, whether it may pass, and where it goes. What RTCP reports is read in `control.rs`.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::demux::{Kind, is_rtcp, is_stun};
use media_wire::rtcp;
use media_wire::rtp::Header;

use crate::account::direct_since;
use crate::clock;
use crate::consumers::Overheard;
use crate::control::{Read, forgets_leaving};
use crate::handoff::{Bindings, Bound};
use crate::ice::{Checked, Checks};
use crate::latch::Verdict;
use crate::packet::Packet;
use crate::ports::{Arrival, Component, SocketId, StreamId};
use crate::statistics::QUIET;
use crate::stream::Owner;
use crate::transport::{Carried, Mux};
use crate::worker::Worker;

impl Worker {
    /// A packet arrived: `send` is called for every copy that goes out, with the socket it leaves by.
    #[inline]
    pub fn packet(
        &mut self,
        Arrival { socket, source, now }: Arrival,
        bytes: &[u8],
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let now = clock::own(now);
        let Some((id, component)) = self.owner(socket, source) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        // Put together only for who needs more of it than media does.
        let packet = || Packet { socket, stream: id, component, source, bytes, now };
        let Some(mut stream) = self.streams.get_mut(id) else { return };
        // RFC 7983 §7, before RTP is assumed. UDPTL has no first byte of its own, but no magic cookie either.
        if is_stun(bytes) {
            return self.check(packet(), send);
        }
        let mut header = None;
        if stream.carried != Carried::Other {
            if is_rtcp(bytes) {
                return self.control(packet(), send);
            }
            header = Header::read(bytes);
            if component.is_rtcp() || header.is_none() {
                return self.beside_media(packet(), send);
            }
        } else if component.is_rtcp() {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        if !stream.rtp.knows(source, now) {
            if !self.meets(packet(), header.as_ref()) {
                return;
            }
            stream = match self.streams.get_mut(id) {
                Some(stream) => stream,
                None => return,
            };
        }
        // Only then its session is looked for: others of its streams may have been heard.
        if now.saturating_sub(stream.reception.heard) >= QUIET {
            let session = stream.owner.session;
            self.breaks_silence(session, now);
            stream = match self.streams.get_mut(id) {
                Some(stream) => stream,
                None => return,
            };
        }
        match &header {
            Some(header) => {
                let coding = stream.coding(header.payload_type);
                stream.reception.receive(header, bytes.len(), coding, now);
            }
            None => stream.reception.count(bytes.len(), now),
        }
        stream.send_held(now, &mut send);
        let (session, peers) = (stream.owner.session, stream.consumers.len());
        let mut next = stream.consumers.peer(0);
        if stream.consumers.are_overheard() {
            self.overhear(packet());
        }
        if component == Component::Spare {
            self.streams.take_spare(id, source);
            self.attend(session, now);
        }
        let mut came_back = false;
        let mut place = 0_usize;
        while let Some(peer) = next {
            if let Some(peer) = self.streams.get_mut(peer) {
                if peer.gate.is_shut() {
                    came_back |= peer.gate.is_released;
                } else {
                    peer.hold(bytes, now);
                    if let Some(destination) = peer.rtp.destination() {
                        send(peer.ports.rtp, destination, bytes);
                    }
                }
            }
            place = place.saturating_add(1);
            next = if place < peers { self.streams.peer(id, place) } else { None };
        }
        if came_back {
            // Nobody hears it until its path is looked at.
            self.glance(session, now);
        }
    }

    /// STUN: a check of ICE, or what CRUSH says, or a keepalive.
    #[cold]
    fn check(&mut self, packet: Packet<'_>, mut send: impl FnMut(SocketId, SocketAddr, &[u8])) {
        let mut checks = Checks {
            sessions: &mut self.sessions,
            streams: &mut self.streams,
            motions: &self.motions,
            transmits: &mut self.transmits,
        };
        match checks.take(packet, &mut send) {
            Checked::Other => self.stun(packet, &mut send),
            Checked::Passed => {}
            Checked::Ours(session) => self.schedule_checks(session),
            Checked::Forged => self.dropped = self.dropped.saturating_add(1),
        }
        if let Some(stream) = self.streams.get_mut(packet.stream) {
            stream.send_held(packet.now, send);
        }
    }

    /// Whether RTP, or another protocol where that was agreed on, of a source not known yet is its endpoint's.
    #[cold]
    fn meets(&mut self, packet: Packet<'_>, header: Option<&Header>) -> bool {
        if self.streams.is_left_over(packet) {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        let Some(stream) = self.streams.get_mut(packet.stream) else { return false };
        match stream.meets(packet.source, packet.bytes, header, packet.now) {
            Verdict::Learnt => {
                let is_strange = stream.rtp.is_strange(packet.source);
                self.strangers_learnt = self.strangers_learnt.saturating_add(is_strange.into());
            }
            Verdict::Passes => {}
            Verdict::Stranger => {
                stream.strangers = stream.strangers.saturating_add(1);
                self.dropped = self.dropped.saturating_add(1);
                return false;
            }
        }
        true
    }

    /// RTP of a stream that was silent for a while: if all of its session was, what was direct may have ended.
    #[cold]
    fn breaks_silence(&mut self, id: u64, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.catch_up(&self.streams);
        let before = session.life.media;
        let was_quiet = now > before.saturating_add(QUIET);
        if session.away.is_away || (was_quiet && self.motions.ends(id).is_some()) {
            session.away.is_away = false;
            let since = |is_told| direct_since(before, is_told, session.streams(&self.streams), now);
            self.motions.media_is_back(id, since, now);
            self.handoff_is_back(id, before, now);
        }
    }

    /// STUN that is none of ICE's. What has no effect is counted.
    #[cold]
    fn stun(&mut self, packet: Packet<'_>, send: &mut impl FnMut(SocketId, SocketAddr, &[u8])) {
        let mut bindings = Bindings { sessions: &mut self.sessions, streams: &mut self.streams };
        match bindings.take(packet, send) {
            Bound::Taken => {}
            Bound::Keepalive => self.keepalives = self.keepalives.saturating_add(1),
            Bound::Stranger => self.dropped = self.dropped.saturating_add(1),
            Bound::Claimed { session, from, claim } => self.claim(session, from, claim, packet.now),
        }
    }

    /// RTCP: what it reports is read where it can be (`control.rs`), and it loses its names.
    fn control(&mut self, packet: Packet<'_>, mut send: impl FnMut(SocketId, SocketAddr, &[u8])) {
        let Packet { stream: id, component, source, bytes, now, .. } = packet;
        if self.streams.is_left_over(packet) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let Some(stream) = self.streams.get_mut(id) else { return };
        // On the RTP port it was not agreed on (RFC 5761 §5.1.1).
        let is_expected = component.is_rtcp() || stream.mux != Mux::No;
        let latch = if component.is_rtcp() { &mut stream.rtcp } else { &mut stream.rtp };
        if !is_expected || !latch.takes(source, now) {
            stream.strangers = stream.strangers.saturating_add(u64::from(is_expected));
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let (carried, session) = (stream.carried, stream.owner.session);
        // Beside SRTP nobody takes it, and it would show the names of its side.
        if carried == Carried::Secure && rtcp::is_clear(bytes) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        // A phone that is silent by its codec still reports.
        if let Some(session) = self.sessions.get_mut(&session) {
            session.life.heard = now;
        }
        if carried == Carried::Secure {
            stream.count_sealed(bytes);
        }
        if stream.consumers.are_overheard() {
            self.overhear(packet);
        }
        let (mut sender_report, mut keeps_goodbyes) = (None, true);
        if carried == Carried::Clear {
            let is_moving = self.motions.ends(session).is_some();
            let read = self.streams.read_reports(id, bytes, is_moving, now);
            sender_report = read.sender_report;
            let forgets = |session| forgets_leaving(session, id);
            keeps_goodbyes = !(read.is_leaving && self.sessions.get(&session).is_some_and(forgets));
            self.heed_reports((session, id), &read, now);
        }
        let clean = match carried {
            Carried::Clear => rtcp::without_names(bytes, self.cname.as_bytes(), keeps_goodbyes),
            Carried::Secure | Carried::Other => None,
        };
        let outgoing = clean.as_deref().unwrap_or(bytes);
        if outgoing.is_empty() {
            return;
        }
        let mut place = 0_usize;
        while let Some(peer) = self.streams.peer(id, place) {
            place = place.saturating_add(1);
            let Some(peer) = self.streams.get_mut(peer) else { continue };
            let (socket, destination) = if peer.mux == Mux::Yes {
                (peer.ports.rtp, peer.rtp.destination())
            } else {
                (peer.ports.rtcp, peer.rtcp.destination())
            };
            let Some(destination) = destination else { continue };
            if let Some(middle) = sender_report {
                peer.said.forwarded = Some((middle, now));
            }
            send(socket, destination, outgoing);
        }
    }

    /// What was reported, to those whom it concerns.
    fn heed_reports(&mut self, (session, id): (u64, StreamId), read: &Read, now: Duration) {
        if read.is_anew {
            self.motions.counts_anew(session, id);
        }
        if self.motions.ends(session).is_some() {
            self.hear_reports(id, &read.told, now);
        }
        if let (Some(time), Some(stream)) = (read.round_trip, self.streams.get_mut(id)) {
            stream.reception.round_trip = Some(time);
        }
    }

    /// A packet for those who listen.
    #[cold]
    pub(crate) fn overhear(&mut self, packet: Packet<'_>) {
        let Some(stream) = self.streams.get(packet.stream) else { return };
        let Owner { session, endpoint, index, .. } = stream.owner;
        let is_rtcp = packet.component.is_rtcp() || is_rtcp(packet.bytes);
        for listener in stream.consumers.listeners() {
            self.copies.push(Overheard {
                listener: *listener,
                session,
                endpoint,
                stream: index,
                is_rtcp,
                at: packet.now,
                packet: packet.bytes.to_vec(),
            });
        }
    }

    /// The stream that a packet is for. Branches of one party share their ports (RFC 3261 §16.7: one INVITE, several answers), and
    /// are told apart by where their packets come from.
    #[inline]
    fn owner(&self, socket: SocketId, source: SocketAddr) -> Option<(StreamId, Component)> {
        let socket = self.streams.socket(socket)?;
        let latch = |id: StreamId| {
            let stream = self.streams.get(id)?;
            Some(if socket.component.is_rtcp() { &stream.rtcp } else { &stream.rtp })
        };
        let id = match socket.streams.as_slice() {
            [] => return None,
            [only] => *only,
            several => several
                .iter()
                .copied()
                .find(|id| latch(*id).is_some_and(|latch| latch.owns(source)))
                // Of a source not known yet: the last branch to answer whose host it is, or just the last.
                .or_else(|| {
                    several
                        .iter()
                        .rev()
                        .copied()
                        .find(|id| latch(*id).is_some_and(|latch| latch.is_near(source)))
                })
                .or(several.last().copied())?,
        };
        Some((id, socket.component))
    }

    /// Neither RTP nor RTCP nor STUN, where RTP was agreed on. A handshake goes where what it protects will go: to the port of RTCP
    /// too, while that has one of its own (RFC 5764 §4.1).
    #[cold]
    fn beside_media(&mut self, packet: Packet<'_>, mut send: impl FnMut(SocketId, SocketAddr, &[u8])) {
        let Packet { stream: id, component, source, bytes, now, .. } = packet;
        let Some(stream) = self.streams.get_mut(id) else { return };
        let kind = Kind::of(bytes);
        if kind == Kind::Foreign || !stream.takes(component, source, now) {
            stream.strangers = stream.strangers.saturating_add(1);
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        if !component.is_rtcp() {
            stream.send_held(now, &mut send);
        }
        if kind == Kind::Keepalive {
            self.keepalives = self.keepalives.saturating_add(1);
            return;
        }
        self.overhear(packet);
        let mut place = 0_usize;
        while let Some(peer) = self.streams.peer(id, place) {
            place = place.saturating_add(1);
            let Some(peer) = self.streams.get_mut(peer).filter(|peer| !peer.gate.is_shut()) else { continue };
            let (out, destination) = if component.is_rtcp() {
                (peer.ports.rtcp, peer.rtcp.destination())
            } else {
                peer.hold(bytes, now);
                (peer.ports.rtp, peer.rtp.destination())
            };
            if let Some(destination) = destination {
                send(out, destination, bytes);
            }
        }
    }
}
