//! Pictures that nobody sees: numbered, with a key frame each second, so that it can be counted what arrives.

use std::time::Duration;

/// Pictures a second.
pub(crate) const RATE: u32 = 25;
/// RTP clock, Hz.
pub(crate) const CLOCK: u32 = 90_000;
/// Dynamic payload type of ours.
pub(crate) const PAYLOAD_TYPE: u8 = 96;
/// The encoding's name; ordinary phones refuse it.
pub(crate) const ENCODING: &str = "x-counted-pictures";
/// Bytes of a key frame and of another picture, in one packet each.
const SIZES: (usize, usize) = (1000, 300);

/// Between pictures.
pub(crate) fn interval() -> Duration {
    Duration::from_secs(1) / RATE
}

/// Between key frames that are asked for, and until one is asked for again: longer than most round trips.
const AGAIN: Duration = Duration::from_millis(240);

/// The camera.
#[derive(Debug, Default)]
pub(crate) struct Camera {
    next: u32,
    /// Pictures since the last key frame.
    since_key: u32,
    is_asked: bool,
}

impl Camera {
    /// The next picture, and whether it is a key frame.
    pub(crate) fn picture(&mut self) -> (Vec<u8>, bool) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        self.since_key = self.since_key.saturating_add(1);
        let may_be_asked = interval() * self.since_key >= AGAIN;
        let key = number.is_multiple_of(RATE) || (self.is_asked && may_be_asked);
        if key {
            (self.since_key, self.is_asked) = (0, false);
        }
        let mut payload = vec![u8::from(key)];
        payload.extend(number.to_be_bytes());
        payload.resize(if key { SIZES.0 } else { SIZES.1 }, 0);
        (payload, key)
    }
}

impl Camera {
    /// Somebody has lost a picture (PLI or FIR): a key frame comes next, or as soon as the last one is old enough.
    pub(crate) fn refresh(&mut self) {
        self.is_asked = true;
    }
}

/// The screen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Screen {
    last: Option<u32>,
    /// Nothing can be shown rightly before the next key frame.
    needs_key: bool,
    asked: Option<Duration>,
    /// SSRC of what came last.
    pub(crate) source: u32,
    /// Pictures that came.
    pub(crate) shown: u64,
    /// Pictures between them that did not.
    pub(crate) missing: u64,
}

impl Screen {
    /// A picture has come; late ones are not shown.
    pub(crate) fn picture(&mut self, payload: &[u8]) {
        let [key, a, b, c, d, ..] = payload else { return };
        let number = u32::from_be_bytes([*a, *b, *c, *d]);
        let ahead = self.last.map_or(1, |last| number.wrapping_sub(last));
        if ahead == 0 || ahead > u32::MAX / 2 {
            return;
        }
        self.shown += 1;
        self.missing += u64::from(ahead - 1);
        self.last = Some(number);
        self.needs_key = *key == 0 && (self.needs_key || ahead > 1);
    }

    /// What was on its way is gone.
    pub(crate) fn lost(&mut self) {
        self.needs_key = self.last.is_some();
        self.asked = None;
    }

    /// Whether a key frame is to be asked for now.
    pub(crate) fn asks(&mut self, now: Duration) -> bool {
        let asks = self.needs_key && self.asked.is_none_or(|asked| now >= asked.saturating_add(AGAIN));
        if asks {
            self.asked = Some(now);
        }
        asks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_asks_for_a_key_frame_when_a_picture_is_missing_until_one_has_come() {
        let ms = Duration::from_millis;
        let (mut camera, mut screen) = (Camera::default(), Screen::default());
        screen.lost();
        assert!(!screen.asks(ms(0)), "nothing has come yet");
        for number in 0..9 {
            let (picture, _) = camera.picture();
            if number != 7 {
                screen.picture(&picture);
            }
        }
        let asks: Vec<u64> = (0..60).map(|tick| 10 * tick).filter(|at| screen.asks(ms(1_000 + at))).collect();
        assert_eq!(asks, [0, 240, 480]);
        camera.refresh();
        let (picture, key) = camera.picture();
        assert!(key);
        screen.picture(&picture);
        assert!(!screen.asks(ms(2_000)));
        // Who asks again and again gets one each quarter of a second.
        let keys = (0..24).filter(|_| {
            camera.refresh();
            camera.picture().1
        });
        assert_eq!(keys.count(), 4);
        screen.lost();
        assert!(screen.asks(ms(2_001)));
    }

    #[test]
    fn the_screen_counts_what_is_missing_between_what_came() {
        let (mut camera, mut screen) = (Camera::default(), Screen::default());
        for number in 0..60 {
            let (picture, key) = camera.picture();
            assert_eq!(key, number % 25 == 0);
            if number != 7 && number != 8 {
                screen.picture(&picture);
                screen.picture(&picture);
            }
        }
        assert_eq!((screen.shown, screen.missing), (58, 2));
    }
}
