//! What time of a session was direct, told to whoever moves its media.

use std::time::Duration;

use crate::motion::Motions;
use crate::ports::StreamId;

impl Motions {
    /// The endpoint of a session's stream counts what it sends and receives anew.
    pub(crate) fn counts_anew(&mut self, session: u64, id: StreamId) {
        let host = self.host_of(session);
        if let Some(moving) = self.moving_mut(host) {
            moving.counts_anew(id);
        } else if let Some(introduction) = self.introduction_mut(host) {
            introduction.counts_anew(id);
        }
    }

    /// RTP of a session came to the relay after a while without: what was direct has ended, whether or not anybody had looked
    /// meanwhile. `since` says since when it was, given that its parties were told to send elsewhere, or not.
    #[cold]
    pub(crate) fn media_is_back(
        &mut self,
        session: u64,
        since: impl FnOnce(bool) -> Option<Duration>,
        now: Duration,
    ) {
        let host = self.host_of(session);
        if let Some(moving) = self.moving_mut(host) {
            moving.release.account(since(moving.release.are_elsewhere()), now);
            moving.release.account(None, now);
        } else if let Some(introduction) = self.introduction_mut(session) {
            introduction.machine.account(since(introduction.machine.are_elsewhere()), now);
            introduction.machine.account(None, now);
        }
    }
}
