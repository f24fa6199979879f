//! RTCP's way through a worker: what it reports is read where it can be, and it loses its names.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::rtcp::{self, Report};
use seam::Endpoint;
use smallvec::SmallVec;

use crate::legs::Leg;
use crate::packet::Packet;
use crate::path::phone::Temperament;
use crate::ports::{SocketId, StreamId};
use crate::reported::Block;
use crate::transport::{Carried, Mux};
use crate::worker::Worker;

impl Worker {
    pub(crate) fn control(&mut self, packet: Packet<'_>, mut send: impl FnMut(SocketId, SocketAddr, &[u8])) {
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
        let carried = stream.carried;
        // Beside SRTP nobody takes it, and it would show the names of its side.
        if carried == Carried::Secure && rtcp::is_clear(bytes) {
            self.dropped = self.dropped.saturating_add(1);
            return;
        }
        // A phone that is silent by its codec still reports.
        if let Some(session) = self.sessions.get_mut(&stream.owner.session) {
            session.life.heard = now;
        }
        if carried == Carried::Secure {
            stream.count_sealed(bytes);
        }
        if stream.consumers.are_overheard() {
            self.overhear(packet);
        }
        let mut sender_report = None;
        if carried == Carried::Clear {
            sender_report = self.read_reports(id, bytes, now);
        }
        let clean = match carried {
            Carried::Clear => rtcp::without_names(bytes, self.cname.as_bytes()),
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

    /// Notes what a compound packet from a stream reports; returns the time of its sender report.
    fn read_reports(&mut self, id: StreamId, packet: &[u8], now: Duration) -> Option<u32> {
        let stream = self.streams.get(id)?;
        let (forwarded, peers) = (stream.said.forwarded, stream.consumers.peers());
        let (peers, astray): (SmallVec<[StreamId; 2]>, u64) = (peers.collect(), stream.said.astray);
        let (mut sender_report, mut round_trip) = (None, None);
        let (mut is_anew, mut is_leaving) = (false, false);
        let source = stream.reception.last().map(|(ssrc, _)| ssrc);
        let session = stream.owner.session;
        let is_moving = self.motions.ends(session).is_some();
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
                        is_anew |= stream.said.sent.count((ssrc, packets), here, came, now);
                    }
                    // It may have heard nobody yet, and says what it counts by another report.
                    for consumer in peers.iter().filter(|_| is_anew) {
                        if let Some(heard) = streams.get_mut(*consumer) {
                            heard.said.reported.begins_anew();
                        }
                    }
                }
                Report::Receiver { .. } => {}
                Report::Goodbye { ssrc } => is_leaving |= source == Some(ssrc),
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
                                astray,
                                now,
                            );
                        }
                    }
                }
            }
        });
        if is_leaving {
            self.leaves(id);
        }
        if is_moving {
            if is_anew {
                self.motions.counts_anew(session, id);
            }
            self.hear_reports(id, &told, now);
        }
        if let (Some(time), Some(stream)) = (round_trip, self.streams.get_mut(id)) {
            stream.reception.round_trip = Some(time);
        }
        sender_report
    }

    /// The source of a stream says that it leaves, as PJSIP does with each re-INVITE before it goes on: who hears it may count it anew.
    #[cold]
    fn leaves(&mut self, id: StreamId) {
        let Some(session) = self.streams.get(id).and_then(|stream| self.sessions.get(&stream.owner.session))
        else {
            return;
        };
        let hears = |leg: &&(Endpoint, Leg)| !leg.1.streams.iter().flatten().any(|stream| *stream == id);
        let forgets = |leg: &(Endpoint, Leg)| Temperament::of(&leg.1.party.product).forgets_who_leaves;
        let is_forgotten = session.legs.iter().filter(hears).any(forgets);
        if let Some(stream) = self.streams.get_mut(id).filter(|_| is_forgotten) {
            stream.said.reported.is_left();
        }
    }
}
