//! What is seen of two phones that were introduced: their reports, their media, and checks that go by way of the relay.

use std::net::SocketAddr;
use std::time::Duration;

use media_wire::rtcp::{self, Report};
use seam::Side;

use crate::account::mark;
use crate::ice::exchange::Introduction;
use crate::legs::Session;
use crate::moving::seen::{sight_of, track_of};
use crate::packet::Packet;
use crate::path::proof::Reception;
use crate::ports::{Component, SocketId, StreamId};
use crate::side::Track;
use crate::stream::Streams;

impl Introduction {
    /// A phone's reports of a stream; false if it is none of its.
    pub(crate) fn hear(
        &mut self,
        stream: StreamId,
        reports: &[Report],
        streams: &Streams,
        now: Duration,
    ) -> bool {
        self.see(streams, now);
        let Some(track) = track_of(stream, &self.lines) else { return false };
        for report in reports {
            match report {
                Report::Sender { ssrc, packets, .. } => {
                    self.machine.sender_report(track, *ssrc, *packets, now);
                }
                Report::Receiver { ssrc } => self.machine.rests(track, *ssrc, now),
                Report::Goodbye { .. } | Report::Unheard { .. } => {}
                Report::Reception { ssrc, lost, highest, jitter, .. } => {
                    let report = Reception { ssrc: *ssrc, highest: *highest, lost: *lost, jitter: *jitter };
                    self.machine.reception(track, &report, now);
                }
            }
        }
        if let Some(silence) = rtcp::silence(reports) {
            self.machine.hears_nobody(track, silence, now);
        }
        true
    }

    /// A check of one phone at the other goes by way of the relay as it is; so the relay is a path like others. It must come from
    /// where its author is.
    pub(in crate::ice) fn passes_check(
        &self,
        packet: Packet<'_>,
        streams: &mut Streams,
        send: &mut impl FnMut(SocketId, SocketAddr, &[u8]),
    ) -> bool {
        let Packet { stream: id, source, bytes, now, .. } = packet;
        let is_rtcp = packet.component.is_rtcp();
        let Some(stream) = streams.get_mut(id).filter(|_| self.passes()) else { return false };
        let component = if is_rtcp { Component::Rtcp } else { Component::Rtp };
        if !stream.takes(component, source, now) {
            return false;
        }
        if !is_rtcp && !self.machine.may_check_relay(now) {
            return true;
        }
        let Some(stream) = streams.get(id) else { return true };
        for consumer in stream.consumers.peers().filter_map(|peer| streams.get(peer)) {
            let (socket, latch) = if is_rtcp {
                (consumer.ports.rtcp, &consumer.rtcp)
            } else {
                (consumer.ports.rtp, &consumer.rtp)
            };
            if let Some(destination) = latch.destination() {
                send(socket, destination, bytes);
            }
        }
        true
    }

    /// See [`Release::counts_anew`](crate::path::Release::counts_anew).
    pub(crate) fn counts_anew(&mut self, id: StreamId) {
        if let Some(track) = track_of(id, &self.lines) {
            self.machine.counts_anew(track);
        }
    }

    /// What of this moment is direct, and what is missing of whose packets.
    pub(super) fn account(&mut self, session: &mut Session, streams: &mut Streams, now: Duration) {
        // Since they know each other they may leave at any moment.
        let may_be_elsewhere = self.machine.are_introduced() || self.machine.are_elsewhere();
        mark(streams, self.lines.iter().flat_map(|(_, pair)| *pair), may_be_elsewhere);
        let since = session.reckon(self.machine.are_elsewhere(), streams, now);
        self.machine.account(since, now);
        for (line, (_, pair)) in self.lines.iter().enumerate() {
            for (from, id) in Side::BOTH.into_iter().zip(pair) {
                if let (Some(stream), Some(fate)) =
                    (streams.get_mut(*id), self.machine.fate(Track { line, party: from }))
                {
                    stream.said.reported.fate = fate;
                }
            }
        }
    }

    pub(super) fn see(&mut self, streams: &Streams, now: Duration) {
        for (line, (_, pair)) in self.lines.iter().enumerate() {
            for (from, stream) in Side::BOTH.into_iter().zip(pair) {
                if let Some(sight) = streams.get(*stream).and_then(sight_of) {
                    self.machine.sight(Track { line, party: from }, sight, now);
                }
            }
        }
    }
}
