//! What time of a call was direct, and whose packets went past the relay: by packets that come or do not, what senders count, and what was
//! said, in this order. One account for ordinary phones, ICE and CRUSH, since what is billed must not depend on how they left.
//!
//! A call is relayed while RTP of any direction is at the relay. It is direct from the last such packet on once none has come for
//! 200 ms while somebody was told, or says, that media goes elsewhere, or a sender's reports count packets that did not come
//! here. So silence on the relay stays relayed, and nobody makes a direct call count as relayed by saying nothing, or the wrong thing.

use std::time::Duration;

use crate::legs::Session;
use crate::stream::{Stream, StreamId, Streams};
use crate::worker::Worker;

/// Without RTP for so long: longer than a lost packet and jitter.
pub(crate) const QUIET: Duration = Duration::from_millis(200);

/// Since when a session is direct, if it is; `media` is when RTP came last (zero: never), `is_told` whether its parties were told, or say, that
/// it goes elsewhere.
pub(crate) fn direct_since<'a>(
    media: Duration,
    is_told: bool,
    mut streams: impl Iterator<Item = &'a Stream>,
    now: Duration,
) -> Option<Duration> {
    if media.is_zero() {
        // Both have been silent from the beginning: their word is all that there is.
        return is_told.then_some(now);
    }
    if now < media.saturating_add(QUIET) {
        return None;
    }
    if is_told {
        return Some(media);
    }
    streams.find_map(Stream::elsewhere_since).map(|since| since.max(media))
}

/// Missing numbers of these streams were sent past the relay, or are lost.
pub(crate) fn mark(streams: &mut Streams, whose: impl Iterator<Item = StreamId>, may_be_elsewhere: bool) {
    for id in whose {
        let Some(stream) = streams.get_mut(id) else { continue };
        if may_be_elsewhere || stream.elsewhere_since().is_some() {
            stream.reception.leave();
        } else {
            stream.reception.come_back();
        }
    }
}

impl Session {
    /// Since when it is direct, at a moment at which it is looked at. Once its parties are told to come home, what they have
    /// sent elsewhere is no sign that they still do.
    pub(crate) fn reckon(&mut self, is_told: bool, streams: &mut Streams, now: Duration) -> Option<Duration> {
        if std::mem::replace(&mut self.is_told_away, is_told) && !is_told {
            for id in self.stream_ids() {
                if let Some(stream) = streams.get_mut(id) {
                    stream.sent.forget(stream.reception.here(), now);
                }
            }
        }
        let since = direct_since(self.media, is_told, self.streams(streams), now);
        self.is_away = since.is_some();
        since
    }

    /// The streams of all legs.
    pub(crate) fn stream_ids(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.legs.iter().flat_map(|(_, leg)| leg.streams.iter().flatten().copied())
    }

    pub(crate) fn streams<'a>(&'a self, streams: &'a Streams) -> impl Iterator<Item = &'a Stream> {
        self.stream_ids().filter_map(|id| streams.get(id))
    }
}

impl Worker {
    /// The endpoint of a stream counts what it sends and receives anew.
    pub(crate) fn counts_anew(&mut self, id: StreamId) {
        let Some(session) = self.streams.get(id).map(|stream| stream.session) else { return };
        let host = self.host_of(session);
        let Some(session) = self.sessions.get_mut(&host) else { return };
        if let Some(moving) = &mut session.moving {
            moving.counts_anew(id);
        } else if let Some(introduction) = &mut session.introduction {
            introduction.counts_anew(id);
        }
    }

    /// RTP came to the relay after a while without, `before` being the last before that: what was direct has ended, whether or not
    /// anybody had looked meanwhile.
    #[cold]
    pub(crate) fn media_is_back(&mut self, id: u64, before: Duration, now: Duration) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        session.is_away = false;
        if let Some(host) = session.guest.map(|guest| guest.host) {
            return self.media_is_back_at(host, id, before, now);
        }
        let since = |is_told| direct_since(before, is_told, session.streams(&self.streams), now);
        if session.moving.is_some() {
            self.media_is_back_at(id, id, before, now);
        } else if let Some(introduction) = &session.introduction {
            let since = since(introduction.machine.are_elsewhere());
            if let Some(introduction) = &mut session.introduction {
                introduction.machine.account(since, now);
                introduction.machine.account(None, now);
            }
        } else {
            self.handoff_is_back(id, before, now);
        }
    }
    /// The same of a session whose moves are with `host`.
    fn media_is_back_at(&mut self, host: u64, id: u64, before: Duration, now: Duration) {
        let moving = self.sessions.get(&host).and_then(|session| session.moving.as_ref());
        let Some(is_told) = moving.map(|moving| moving.release.are_elsewhere()) else { return };
        let Some(session) = self.sessions.get(&id) else { return };
        let since = direct_since(before, is_told, session.streams(&self.streams), now);
        if let Some(moving) = self.sessions.get_mut(&host).and_then(|session| session.moving.as_mut()) {
            moving.release.account(since, now);
            moving.release.account(None, now);
        }
    }
}
