//! A packet's way through a worker: whose it is, whether it may pass, and where it goes.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::demux::{Kind, is_rtcp, is_stun};
use media_wire::rtcp::{self, Report};
use media_wire::rtp::Header;
use seam::Listener;
use smallvec::SmallVec;

use crate::account::QUIET;
use crate::consumers::{Consumer, Overheard};
use crate::latch::Verdict;
use crate::legs::Session;
use crate::reported::Block;
use crate::stream::{Carried, Component, StreamId};
use crate::worker::{SocketId, Worker};

impl Worker {
    /// A packet arrived on a socket: `send` is called for every copy that goes out, with the socket it leaves by.
    #[inline]
    pub fn packet(
        &mut self,
        socket: SocketId,
        source: SocketAddr,
        packet: &[u8],
        now: Duration,
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let Some((id, component)) = self.owner(socket, source) else {
            self.dropped = self.dropped.saturating_add(1);
            return;
        };
        let is_rtcp_port = component.is_rtcp();
        let Some(mut stream) = self.streams.get_mut(id) else { return };
        // RFC 7983 §7, before RTP is assumed. UDPTL has no first byte of its own, but no magic cookie either.
        if is_stun(packet) {
            if !self.takes_check((socket, id), component, source, packet, now, &mut send) {
                self.stun((socket, id), component, source, packet, now, &mut send);
            }
            if let Some(stream) = self.streams.get_mut(id) {
                stream.send_held(now, send);
            }
            return;
        }
        if stream.carried != Carried::Other {
            if is_rtcp(packet) {
                if self.streams.is_left_over((socket, id), source, packet, now) {
                    self.dropped = self.dropped.saturating_add(1);
                    return;
                }
                self.control(id, is_rtcp_port, source, packet, now, send);
                return;
            }
            if is_rtcp_port {
                self.beside_media(id, component, source, packet, now, send);
                return;
            }
        }
        if is_rtcp_port {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let header = if stream.carried == Carried::Other { None } else { Header::read(packet) };
        if header.is_none() && stream.carried != Carried::Other {
            self.beside_media(id, component, source, packet, now, send);
            return;
        }
        if !stream.rtp.knows(source, now) {
            if self.streams.is_left_over((socket, id), source, packet, now) {
                self.dropped = self.dropped.saturating_add(1);
                return;
            }
            stream = match self.streams.get_mut(id) {
                Some(stream) => stream,
                None => return,
            };
            match stream.meets(source, packet, header.as_ref(), now) {
                Verdict::Learnt => {
                    self.strangers_learnt =
                        self.strangers_learnt.saturating_add(u64::from(stream.rtp.is_strange(source)))
                }
                Verdict::Passes => {}
                Verdict::Stranger => {
                    stream.strangers = stream.strangers.saturating_add(1);
                    self.dropped = self.dropped.saturating_add(1);
                    return;
                }
            }
        }
        let mut is_back = None;
        if let Some(session) = self.sessions.get_mut(&stream.session) {
            let before = std::mem::replace(&mut session.media, now);
            session.heard = now;
            let was_quiet = now > before.saturating_add(QUIET);
            is_back = (session.is_away || (was_quiet && session.is_on_the_move())).then_some(before);
        }
        if let Some(before) = is_back {
            let session = stream.session;
            self.media_is_back(session, before, now);
            stream = match self.streams.get_mut(id) {
                Some(stream) => stream,
                None => return,
            };
        }
        match &header {
            Some(header) => {
                let (rate, is_event) = stream
                    .format(Some(header.payload_type))
                    .map_or((8000, false), |format| (format.rate, format.is_event));
                stream.reception.receive(header, packet.len(), rate, is_event, now);
            }
            None => stream.reception.count(packet.len(), now),
        }
        stream.send_held(now, &mut send);
        let session = stream.session;
        if component == Component::Spare {
            self.streams.take_spare(id, source);
            self.attend(session, now);
        }
        let mut came_back = false;
        // By number: a copy of the list would cost more than all lookups.
        for place in 0.. {
            let Some(consumer) = self.streams.get(id).and_then(|stream| stream.consumers.get(place)) else {
                break;
            };
            match consumer {
                Consumer::Peer(peer) => {
                    let Some(peer) = self.streams.get_mut(peer) else { continue };
                    if peer.is_parked {
                        came_back |= peer.is_released;
                    } else {
                        peer.hold(packet, now);
                        if let Some(destination) = peer.rtp.destination() {
                            send(peer.ports.rtp, destination, packet);
                        }
                    }
                }
                Consumer::Listener(listener) => self.overhear(listener, id, (packet, false), now),
            }
        }
        if came_back {
            // Nobody hears it until its path is looked at.
            self.glance(session, now);
        }
    }

    /// A packet for somebody who listens; `is_rtcp` beside it.
    #[cold]
    fn overhear(&mut self, listener: Listener, id: StreamId, (packet, is_rtcp): (&[u8], bool), at: Duration) {
        let Some(stream) = self.streams.get(id) else { return };
        let (session, endpoint, stream) = (stream.session, stream.endpoint, stream.index);
        let packet = packet.to_vec();
        self.copies.push(Overheard { listener, session, endpoint, stream, is_rtcp, at, packet });
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
    fn beside_media(
        &mut self,
        id: StreamId,
        component: Component,
        source: SocketAddr,
        packet: &[u8],
        now: Duration,
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        let kind = Kind::of(packet);
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
        for place in 0.. {
            let Some(consumer) = self.streams.get(id).and_then(|stream| stream.consumers.get(place)) else {
                break;
            };
            let peer = match consumer {
                Consumer::Peer(peer) => peer,
                Consumer::Listener(listener) => {
                    self.overhear(listener, id, (packet, component.is_rtcp()), now);
                    continue;
                }
            };
            let Some(consumer) = self.streams.get_mut(peer).filter(|consumer| !consumer.is_parked) else {
                continue;
            };
            let (out, destination) = if component.is_rtcp() {
                (consumer.ports.rtcp, consumer.rtcp.destination())
            } else {
                consumer.hold(packet, now);
                (consumer.ports.rtp, consumer.rtp.destination())
            };
            if let Some(destination) = destination {
                send(out, destination, packet);
            }
        }
    }

    fn control(
        &mut self,
        id: StreamId,
        is_rtcp_port: bool,
        source: SocketAddr,
        packet: &[u8],
        now: Duration,
        mut send: impl FnMut(SocketId, SocketAddr, &[u8]),
    ) {
        let Some(stream) = self.streams.get_mut(id) else { return };
        // On the RTP port it was not agreed on (RFC 5761 §5.1.1).
        let is_expected = is_rtcp_port || stream.may_mux;
        let latch = if is_rtcp_port { &mut stream.rtcp } else { &mut stream.rtp };
        if !is_expected || !latch.takes(source, now) {
            stream.strangers = stream.strangers.saturating_add(u64::from(is_expected));
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        let carried = stream.carried;
        // Beside SRTP nobody takes it, and it would show the names of its side.
        if carried == Carried::Secure && rtcp::is_clear(packet) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        // A phone that is silent by its codec still reports.
        if let Some(session) = self.sessions.get_mut(&stream.session) {
            session.heard = now;
        }
        if carried == Carried::Secure {
            stream.count_sealed(packet);
        }
        let mut sender_report = None;
        if carried == Carried::Clear {
            sender_report = self.read_reports(id, packet, now);
        }
        let clean = match carried {
            Carried::Clear => rtcp::without_names(packet, self.cname.as_bytes()),
            Carried::Secure | Carried::Other => None,
        };
        let outgoing = clean.as_deref().unwrap_or(packet);
        for place in 0.. {
            let Some(consumer) = self.streams.get(id).and_then(|stream| stream.consumers.get(place)) else {
                break;
            };
            let peer = match consumer {
                Consumer::Peer(peer) => peer,
                Consumer::Listener(listener) => {
                    self.overhear(listener, id, (packet, true), now);
                    continue;
                }
            };
            let Some(consumer) = self.streams.get_mut(peer).filter(|_| !outgoing.is_empty()) else {
                continue;
            };
            let (socket, destination) = if consumer.is_muxed {
                (consumer.ports.rtp, consumer.rtp.destination())
            } else {
                (consumer.ports.rtcp, consumer.rtcp.destination())
            };
            let Some(destination) = destination else { continue };
            if let Some(middle) = sender_report {
                consumer.forwarded_report = Some((middle, now));
            }
            send(socket, destination, outgoing);
        }
    }

    /// Notes what a compound packet from a stream reports; returns the time of its sender report.
    fn read_reports(&mut self, id: StreamId, packet: &[u8], now: Duration) -> Option<u32> {
        let stream = self.streams.get(id)?;
        let (forwarded, peers) = (stream.forwarded_report, stream.consumers.peers());
        let peers: SmallVec<[StreamId; 2]> = peers.collect();
        let (mut sender_report, mut round_trip) = (None, None);
        let mut is_anew = false;
        let is_moving = self.sessions.get(&stream.session).is_some_and(Session::is_on_the_move);
        let mut told: SmallVec<[Report; 4]> = SmallVec::new();
        let streams = &mut self.streams;
        rtcp::reports(packet, |report| {
            if is_moving {
                told.push(report);
            }
            match report {
                Report::Sender { ssrc, middle, packets } => {
                    sender_report = Some(middle);
                    if let Some(stream) = streams.get_mut(id) {
                        let (here, came) = (stream.reception.here(), stream.reception.packets);
                        is_anew |= stream.sent.count((ssrc, packets), here, came, now);
                    }
                    // It may have heard nobody yet, and says what it counts by another report.
                    for consumer in peers.iter().filter(|_| is_anew) {
                        if let Some(heard) = streams.get_mut(*consumer) {
                            heard.reported.begins_anew();
                        }
                    }
                }
                Report::Receiver { .. } => {}
                Report::Reception { ssrc, lost, highest, jitter, last_sender_report, delay, .. } => {
                    // RFC 3550 §6.4.1: from our forwarding of a sender report to its echo, less the time it rested there.
                    if let Some((middle, sent)) = forwarded
                        && middle == last_sender_report
                        && last_sender_report != 0
                    {
                        let rested = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
                        round_trip = Some(now.saturating_sub(sent).saturating_sub(rested));
                    }
                    // What it hears is what its consumers' endpoints say: streams feed each other.
                    for consumer in &peers {
                        if let Some(heard) = streams.get_mut(*consumer) {
                            heard.reported_by_its_receiver(
                                Block { ssrc, highest, lost, jitter },
                                is_anew,
                                now,
                            );
                        }
                    }
                }
            }
        });
        if is_moving {
            if is_anew {
                self.counts_anew(id);
            }
            self.hear_reports(id, &told, now);
        }
        if let (Some(time), Some(stream)) = (round_trip, self.streams.get_mut(id)) {
            stream.reception.round_trip = Some(time);
        }
        sender_report
    }
}
