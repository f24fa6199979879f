//! RTP out and in, and which streams are encrypted from endpoint to endpoint.

use std::time::Duration;

use media_wire::handoff::Path;
use media_wire::rtp::Header;

use super::link::Packet;
use super::{Agent, Event, Marks, Output, StreamId};
use crate::count::Count;

impl Agent {
    pub(super) fn send_media(&mut self, stream: StreamId, packet: &[u8], marks: Marks, now: Duration) {
        let place = usize::from(stream.0);
        let Some(header) = Header::of_media(packet) else {
            self.refused.malformed.up();
            return;
        };
        let Some(sending) = self.streams.get_mut(place) else {
            return;
        };
        let (paths, switched) = sending.outgoing.packet(header, marks, now);
        let linked = self.link.is_some();
        if sending.is_audio() {
            sending.audio_sent = Some(now);
        }
        if paths.direct && !paths.relay {
            sending.remember(packet, now);
        }
        // Whatever the state says, without a link there is only the relay.
        if (paths.relay || !linked)
            && let Some(relay) = sending.relay
        {
            let socket = sending.setup.socket;
            if let Some(warmth) = self.leg.warmth.get_mut(place) {
                warmth.sent(now);
            }
            self.transmit(socket, relay, packet.to_vec());
        }
        if paths.direct
            && let Some(link) = &mut self.link
        {
            link.sent(Packet::Media, now);
            let (socket, remote) = (link.socket, link.remote);
            self.transmit(socket, remote, packet.to_vec());
        }
        if switched.is_some() {
            self.handed_off_sending(stream, switched, now);
        }
    }

    pub(super) fn media_by_relay(&mut self, place: usize, packet: &[u8], now: Duration) {
        let Some(header) = Header::of_media(packet) else {
            self.refused.malformed.up();
            return;
        };
        if !self.story.is_relayed {
            self.story.is_relayed = true;
            let after = now.saturating_sub(self.story.on_relay_since.unwrap_or(now));
            self.event(Event::Relayed { after, round_trip: self.leg.round_trip });
        }
        let Some(stream) = self.streams.get_mut(place) else { return };
        let taken = stream.arrived(Path::Relay, header, packet, now);
        let is_back = taken.back && stream.direct_since.is_some();
        self.deliver(place, packet, Path::Relay, taken.first);
        if is_back {
            self.came_by_relay(now);
        }
    }

    pub(super) fn media_by_direct(&mut self, packet: &[u8], now: Duration) {
        let Some(header) = Header::of_media(packet) else {
            self.refused.malformed.up();
            return;
        };
        let Some(place) = self.direct(&header, packet) else {
            self.refused.stray.up();
            return;
        };
        if let Some(link) = &mut self.link {
            link.live.media(now);
        }
        let Some(stream) = self.streams.get_mut(place) else { return };
        let taken = stream.arrived(Path::Direct, header, packet, now);
        self.deliver(place, packet, Path::Direct, taken.first);
    }

    /// The m-line of a packet on the direct path, which carries all on one socket.
    pub(super) fn direct(&self, header: &Header, packet: &[u8]) -> Option<usize> {
        let known = self.streams.iter().position(|stream| stream.owns(header));
        let only = || (self.streams.len() == 1).then_some(0);
        // A sender may change its SSRC; its payload type then still tells the stream, if no other has it.
        let typed = || {
            let mut typed =
                self.streams.iter().enumerate().filter(|(_, stream)| stream.has_payload_type(packet));
            typed.next().map(|(place, _)| place).filter(|_| typed.next().is_none())
        };
        known.or_else(only).or_else(typed)
    }

    fn deliver(&mut self, place: usize, packet: &[u8], path: Path, first: bool) {
        if first && self.streams.get(place).is_some_and(|stream| stream.playout.is_none()) {
            let stream = StreamId(place as u8);
            self.outputs.push_back(Output::Media { stream, packet: packet.to_vec(), path });
        }
    }

    /// Keys were agreed on, or are not any more; of m-lines that are not named they are not.
    pub(super) fn keyed(&mut self, keys: &[bool]) {
        let keys = keys.iter().copied().chain(std::iter::repeat(false));
        self.streams.iter_mut().zip(keys).for_each(|(stream, is_keyed)| stream.is_keyed = is_keyed);
    }

    /// Each stream for itself, as its keys are its own and policy may keep another on the relay; once each time it becomes so.
    pub(super) fn show_secured(&mut self) {
        for place in 0..self.streams.len() {
            let Some(stream) = self.streams.get_mut(place) else { return };
            let is_direct = stream.outgoing.is_direct() && stream.direct_since.is_some();
            let was_secured = std::mem::replace(&mut stream.is_secured, is_direct && stream.is_keyed);
            if stream.is_secured && !was_secured {
                self.event(Event::Secured { stream: StreamId(place as u8) });
            }
        }
    }
}
