//! A worker's clock, and how what was told the time by one goes on under another.
//!
//! A shell's clock begins with its process. A session that comes from another process ([`state`](crate::state)) may be older than that, and
//! nothing in it may be before the beginning: so a worker's own clock is ahead of its shell's by [`BEFORE`], longer than any call.
//! Moments inside are by the own clock, whatever comes in or goes out is by the shell's.

use std::collections::VecDeque;
use std::time::Duration;

use seam::Endpoint;
use smallvec::SmallVec;

/// In seconds: a hundred days. RTP's arithmetic of arrivals (`statistics.rs`) holds for three years.
const BEFORE: u64 = 100 * 86_400;

/// A moment of the shell's clock by the worker's own.
#[inline]
pub(crate) fn own(outside: Duration) -> Duration {
    Duration::new(outside.as_secs().wrapping_add(BEFORE), outside.subsec_nanos())
}

/// And back.
pub(crate) fn outside(own: Duration) -> Duration {
    own.saturating_sub(Duration::from_secs(BEFORE))
}

/// From one worker's clock to another's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shift {
    ahead: Duration,
    behind: Duration,
}

impl Shift {
    /// What was `then` by the one is `now` by the other.
    pub(crate) fn between(then: Duration, now: Duration) -> Self {
        Self { ahead: now.saturating_sub(then), behind: then.saturating_sub(now) }
    }

    /// By how many ticks of such a clock the other is ahead.
    pub(crate) fn ticks(self, rate: u32) -> i64 {
        let ticks = |span: Duration| (span.as_micros() as i64).wrapping_mul(rate.into()) / 1_000_000;
        ticks(self.ahead).wrapping_sub(ticks(self.behind))
    }

    /// By the other. Zero, which stands for never, or for any time, stays so.
    pub(crate) fn of(self, moment: Duration) -> Duration {
        if moment.is_zero() {
            return moment;
        }
        let moved = moment.saturating_add(self.ahead).saturating_sub(self.behind);
        moved.max(Duration::from_nanos(1))
    }
}

/// What has moments in it.
pub(crate) trait Timed {
    /// They are by another clock from now on.
    fn shift(&mut self, by: Shift);
}

impl Timed for Duration {
    fn shift(&mut self, by: Shift) {
        *self = by.of(*self);
    }
}

/// Has none.
macro_rules! timeless {
    ($($type:ty),+) => {
        $(impl $crate::clock::Timed for $type {
            fn shift(&mut self, _: $crate::clock::Shift) {}
        })+
    };
}

/// Names all fields of a struct, first those with moments in them: one that is new does not compile before it has its place here.
macro_rules! timed {
    ($type:ty { $($timed:ident),+ ; $($other:ident),* }) => {
        impl $crate::clock::Timed for $type {
            fn shift(&mut self, by: $crate::clock::Shift) {
                let Self { $($timed,)+ $($other: _,)* } = self;
                $($crate::clock::Timed::shift($timed, by);)+
            }
        }
    };
}

pub(crate) use {timed, timeless};

timeless!(u16, u32, u64, i32, Endpoint);

impl<T: Timed> Timed for Option<T> {
    fn shift(&mut self, by: Shift) {
        self.iter_mut().for_each(|one| one.shift(by));
    }
}

impl<T: Timed> Timed for Box<T> {
    fn shift(&mut self, by: Shift) {
        (**self).shift(by);
    }
}

impl<T: Timed, const N: usize> Timed for [T; N] {
    fn shift(&mut self, by: Shift) {
        self.iter_mut().for_each(|one| one.shift(by));
    }
}

impl<T: Timed> Timed for Vec<T> {
    fn shift(&mut self, by: Shift) {
        self.iter_mut().for_each(|one| one.shift(by));
    }
}

impl<T: Timed> Timed for VecDeque<T> {
    fn shift(&mut self, by: Shift) {
        self.iter_mut().for_each(|one| one.shift(by));
    }
}

impl<T: Timed, const N: usize> Timed for SmallVec<[T; N]> {
    fn shift(&mut self, by: Shift) {
        self.iter_mut().for_each(|one| one.shift(by));
    }
}

impl<A: Timed, B: Timed> Timed for (A, B) {
    fn shift(&mut self, by: Shift) {
        self.0.shift(by);
        self.1.shift(by);
    }
}

impl<A: Timed, B: Timed, C: Timed> Timed for (A, B, C) {
    fn shift(&mut self, by: Shift) {
        self.0.shift(by);
        self.1.shift(by);
        self.2.shift(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_is_older_than_the_process_keeps_its_times() {
        let second = Duration::from_secs;
        let (then, now) = (own(second(5_000_000)), own(second(2)));
        let mut moments = [then - second(4_000_000), then, then + second(3), Duration::ZERO];
        moments.shift(Shift::between(then, now));
        assert_eq!(moments, [now - second(4_000_000), now, now + second(3), Duration::ZERO]);
        moments.shift(Shift::between(now, then));
        assert_eq!(moments[0], then - second(4_000_000));
        assert_eq!(outside(now), second(2));
    }
}
