//! When a receiver misses packets on the direct path (docs/crush.md §8.1).

use std::time::Duration;

/// Never less than this is waited beyond the next packet's time.
const PATIENCE: Duration = Duration::from_millis(100);
/// In silence something comes this often.
pub(crate) const SILENCE: Duration = Duration::from_millis(100);
/// In silence, checks are sent for so long before their answers are given up: three of them, 20 ms apart.
const ASKING: Duration = Duration::from_millis(60);
/// A keepalive that is so late is asked for.
const OVERDUE: Duration = Duration::from_millis(10);

/// What arrived on the direct path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Liveness {
    last: Duration,
    interval: Duration,
    last_media: Option<Duration>,
    media_interval: Duration,
    jitter: Duration,
    silent: bool,
}

impl Liveness {
    pub(crate) fn new(now: Duration) -> Self {
        Self {
            last: now,
            interval: SILENCE,
            last_media: None,
            media_interval: Duration::from_millis(20),
            jitter: Duration::ZERO,
            silent: true,
        }
    }

    /// An RTP packet.
    pub(crate) fn media(&mut self, now: Duration) {
        if let Some(last) = self.last_media {
            let interval = now.saturating_sub(last);
            if interval < SILENCE {
                // Slow, so that a burst does not make it impatient.
                self.media_interval = slowly(self.media_interval, interval);
                let deviation = interval.abs_diff(self.media_interval);
                self.jitter = slowly(self.jitter, deviation);
            }
        }
        self.last_media = Some(now);
        self.last = now;
        self.interval = self.media_interval.max(Duration::from_millis(20));
        self.silent = false;
    }

    /// A keepalive: from now on nothing else is to be expected.
    pub(crate) fn silence(&mut self, now: Duration) {
        self.last = now;
        self.interval = SILENCE;
        self.silent = true;
    }

    /// Anything else that only the peer can have sent.
    pub(crate) fn sign(&mut self, now: Duration) {
        self.last = now;
    }

    /// When something came last.
    pub(crate) fn heard(&self) -> Duration {
        self.last
    }

    /// From when on packets are missing. `round_trip`: in silence a check must have had time to come back.
    pub(crate) fn missing_at(&self, round_trip: Duration) -> Duration {
        let patience = PATIENCE.max(self.jitter.saturating_mul(3));
        let patience = if self.silent { patience.max(round_trip.saturating_add(ASKING)) } else { patience };
        self.expected().saturating_add(patience)
    }

    /// From when on a check should ask, in silence.
    pub(crate) fn overdue_at(&self) -> Option<Duration> {
        let late = OVERDUE.max(self.jitter.min(OVERDUE.saturating_mul(4)));
        self.silent.then(|| self.expected().saturating_add(late))
    }

    fn expected(&self) -> Duration {
        self.last.saturating_add(self.interval)
    }
}

/// A sixteenth of the way.
fn slowly(from: Duration, to: Duration) -> Duration {
    from.saturating_mul(15).saturating_add(to).checked_div(16).unwrap_or(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn voice_is_missed_120_ms_after_its_last_packet_and_silence_200_ms_after_its_last_keepalive() {
        let mut liveness = Liveness::new(MS(0));
        for n in 1..=50 {
            liveness.media(MS(n * 20));
        }
        assert_eq!(liveness.missing_at(MS(80)), MS(1120));
        assert_eq!(liveness.overdue_at(), None);
        liveness.silence(MS(1040));
        assert_eq!(liveness.missing_at(MS(80)), MS(1280));
        assert_eq!(liveness.missing_at(MS(10)), MS(1240));
        assert_eq!(liveness.overdue_at(), Some(MS(1150)));
    }

    #[test]
    fn jitter_makes_it_patient() {
        let mut liveness = Liveness::new(MS(0));
        let mut now = MS(0);
        for n in 0..200 {
            now += MS(if n % 2 == 0 { 2 } else { 90 });
            liveness.media(now);
        }
        assert!(liveness.missing_at(MS(0)) > now + MS(46 + 115));
    }
}
