//! Which streams are encrypted from endpoint to endpoint, and show it.

use super::{Agent, Event, StreamId};

impl Agent {
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
