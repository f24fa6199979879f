//! What time of a call was direct, and whose packets went past the relay: by packets that come or do not, what senders count, and what was
//! said, in this order. One account for ordinary phones, ICE and CRUSH, since what is billed must not depend on how they left.
//!
//! A call is relayed while RTP of any direction is at the relay. It is direct from the last such packet on once none has come for
//! 200 ms while somebody was told, or says, that media goes elsewhere, or a sender's reports count packets that did not come
//! here. So silence on the relay stays relayed, and nobody makes a direct call count as relayed by saying nothing, or the wrong thing.

use std::time::Duration;

use crate::legs::Session;
use crate::ports::StreamId;
use crate::statistics::QUIET;
use crate::stream::{Stream, Streams};

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
        if std::mem::replace(&mut self.away.is_told, is_told) && !is_told {
            for id in self.stream_ids() {
                if let Some(stream) = streams.get_mut(id) {
                    stream.said.sent.forget(stream.reception.here(), now);
                }
            }
        }
        self.catch_up(streams);
        let since = direct_since(self.life.media, is_told, self.streams(streams), now);
        self.away.is_away = since.is_some();
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
