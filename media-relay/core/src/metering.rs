//! What time of a session was direct, told to whoever moves its media.

use std::time::Duration;

use crate::account::direct_since;
use crate::ports::StreamId;
use crate::worker::Worker;

impl Worker {
    /// The endpoint of a stream counts what it sends and receives anew.
    pub(crate) fn counts_anew(&mut self, id: StreamId) {
        let Some(session) = self.streams.get(id).map(|stream| stream.owner.session) else { return };
        let host = self.host_of(session);
        if let Some(moving) = self.motions.moving_mut(host) {
            moving.counts_anew(id);
        } else if let Some(introduction) = self.motions.introduction_mut(host) {
            introduction.counts_anew(id);
        }
    }

    /// RTP came to the relay after a while without, `before` being the last before that: what was direct has ended, whether or not
    /// anybody had looked meanwhile.
    #[cold]
    pub(crate) fn media_is_back(&mut self, id: u64, before: Duration, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.away.is_away = false;
        if let Some(host) = self.motions.guest(id).map(|guest| guest.host) {
            return self.media_is_back_at(host, id, before, now);
        }
        let since = |is_told| direct_since(before, is_told, session.streams(&self.streams), now);
        if self.motions.moving(id).is_some() {
            self.media_is_back_at(id, id, before, now);
        } else if let Some(introduction) = self.motions.introduction(id) {
            let since = since(introduction.machine.are_elsewhere());
            if let Some(introduction) = self.motions.introduction_mut(id) {
                introduction.machine.account(since, now);
                introduction.machine.account(None, now);
            }
        } else {
            self.handoff_is_back(id, before, now);
        }
    }
    /// The same of a session whose moves are with `host`.
    fn media_is_back_at(&mut self, host: u64, id: u64, before: Duration, now: Duration) {
        let moving = self.motions.moving(host);
        let Some(is_told) = moving.map(|moving| moving.release.are_elsewhere()) else { return };
        let Some(session) = self.sessions.get(&id) else { return };
        let since = direct_since(before, is_told, session.streams(&self.streams), now);
        if let Some(moving) = self.motions.moving_mut(host) {
            moving.release.account(since, now);
            moving.release.account(None, now);
        }
    }
}
