//! RTP out and in, on either path or on both so that they can be compared (docs/crush.md §6): audio that may leave the relay, and where none
//! is sent, test packets. And which streams are encrypted from endpoint to endpoint.

use std::time::Duration;

use media_wire::handoff::{Envelope, Indication, Path, Sending};
use media_wire::rtp::Header;

use super::link::Packet;
use super::{Agent, Event, Marks, Output, StreamId};
use crate::count::Count;

/// Without audio for so long, test packets are sent.
const QUIET: Duration = Duration::from_millis(30);

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

    /// Both paths get the same, until then. Audio that must stay on the relay is not copied: a test stands for it.
    pub(super) fn copy_until(&mut self, until: Duration) {
        self.switching.tests_until = self.switching.tests_until.max(until);
        for place in 0..self.streams.len() {
            let may_leave = self.may_leave(place as u8);
            if let Some(stream) = self.streams.get_mut(place).filter(|stream| may_leave && stream.is_audio())
            {
                stream.outgoing.copy_until(until);
            }
        }
    }

    /// All that may leave was ordered to: nothing is left to compare.
    pub(super) fn end_tests_if_ordered(&mut self) {
        let mut streams = self.streams.iter().zip(0u8..);
        if streams.all(|(stream, index)| !self.may_leave(index) || !stream.outgoing.is_on_relay()) {
            self.switching.tests_until = Duration::ZERO;
        }
    }

    /// When audio that is compared was sent last.
    fn talked(&self) -> Option<Duration> {
        let streams = self.streams.iter().zip(0u8..).filter(|(_, index)| self.may_leave(*index));
        streams.filter_map(|(stream, _)| stream.audio_sent).max()
    }

    /// Where there is no audio, test packets go on both paths.
    pub(super) fn send_tests(&mut self, now: Duration) {
        let is_talking = self.talked().is_some_and(|at| now < at.saturating_add(QUIET));
        let are_wanted = now < self.switching.tests_until;
        let Some(link) = &mut self.link else { return };
        if !are_wanted {
            link.test_next = link.test_next.max(now);
            return;
        }
        if is_talking || now < link.test_next {
            return;
        }
        let number = link.tested(now);
        link.sent(Packet::Other, now);
        let (socket, remote) = (link.socket, link.remote);
        let clock = now.as_millis() as u32;
        let bytes = self.indication_bytes(Indication::Test { number, clock });
        self.transmit(socket, remote, bytes.clone());
        self.by_relay(bytes, now);
    }

    pub(super) fn tests_timeout(&self) -> Option<Duration> {
        let quiet_at = self.talked().map_or(Duration::ZERO, |talked| talked.saturating_add(QUIET));
        let next = self.link.as_ref()?.test_next.max(quiet_at);
        Some(next).filter(|at| *at < self.switching.tests_until)
    }

    /// Where a stream's packets go now, as the relay is told. Pictures are never on both paths; where no audio is either, test
    /// packets for them are what synchronises.
    pub(super) fn sending(&self, place: usize, now: Duration) -> Sending {
        let Some(stream) = self.streams.get(place) else { return Sending::Relay };
        let sending = stream.outgoing.sending(now);
        let may_leave = |index: usize| self.may_leave(index as u8);
        let is_tested = sending == Sending::Relay
            && now < self.switching.tests_until
            && may_leave(place)
            && !self.streams.iter().enumerate().any(|(index, stream)| stream.is_audio() && may_leave(index));
        if is_tested { Sending::Both } else { sending }
    }

    pub(super) fn indication_bytes(&mut self, indication: Indication) -> Vec<u8> {
        let Some(theirs) = self.generation.theirs.clone() else {
            return Vec::new();
        };
        self.generation.numbers.indications.up();
        let transaction = self.random.transaction();
        let sender = &self.generation.ours.ufrag;
        indication.write(
            self.generation.numbers.indications,
            &Envelope { transaction, receiver: &theirs.ufrag, sender, key: &theirs.key },
        )
    }
}
