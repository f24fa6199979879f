//! What goes on both paths so that they can be compared (docs/crush.md §6): audio that may leave the relay, and where none is sent,
//! test packets.

use std::time::Duration;

use media_wire::handoff::{Envelope, Indication, Sending};

use super::Agent;
use super::link::Packet;
use crate::count::Count;

/// Without audio for so long, test packets are sent.
const QUIET: Duration = Duration::from_millis(30);

impl Agent {
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
