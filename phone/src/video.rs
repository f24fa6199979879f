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

/// The camera.
#[derive(Debug, Default)]
pub(crate) struct Camera {
    next: u32,
}

impl Camera {
    /// The next picture, and whether it is a key frame.
    pub(crate) fn picture(&mut self) -> (Vec<u8>, bool) {
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let key = number.is_multiple_of(RATE);
        let mut payload = vec![u8::from(key)];
        payload.extend(number.to_be_bytes());
        payload.resize(if key { SIZES.0 } else { SIZES.1 }, 0);
        (payload, key)
    }
}

/// The screen.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Screen {
    last: Option<u32>,
    /// Pictures that came.
    pub(crate) shown: u64,
    /// Pictures between them that did not.
    pub(crate) missing: u64,
}

impl Screen {
    /// A picture has come; late ones are not shown.
    pub(crate) fn picture(&mut self, payload: &[u8]) {
        let [_, a, b, c, d, ..] = payload else { return };
        let number = u32::from_be_bytes([*a, *b, *c, *d]);
        let ahead = self.last.map_or(1, |last| number.wrapping_sub(last));
        if ahead == 0 || ahead > u32::MAX / 2 {
            return;
        }
        self.shown += 1;
        self.missing += u64::from(ahead - 1);
        self.last = Some(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
