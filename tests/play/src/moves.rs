//! What moves cost those who hear.

use std::time::Duration;

/// What media does, by the records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Motion {
    /// It goes to the relay.
    Rests,
    /// Somebody is asked to move, there or back.
    Moves,
    /// It goes from party to party.
    IsDirect,
}

/// How long moves kept somebody from what was sent to it, and how much of the call was direct.
#[derive(Debug, Default)]
pub struct Moves {
    /// The longest that somebody did not hear what was sent to it, around each move from when it was asked.
    pub longest: Vec<Duration>,
    until: Duration,
    /// When the call was first direct.
    pub first_direct: Option<Duration>,
    /// How long it was.
    pub direct: Duration,
}

impl Moves {
    /// Once in each step: what media does, and what of what was sent has not been heard.
    pub fn watch(&mut self, motion: Motion, unheard: Option<Duration>, now: Duration, step: Duration) {
        if motion == Motion::Moves {
            if now >= self.until {
                self.longest.push(Duration::ZERO);
            }
            self.until = now + Duration::from_millis(800);
        }
        if now < self.until
            && let Some(last) = self.longest.last_mut()
        {
            *last = (*last).max(unheard.unwrap_or_default());
        }
        if motion == Motion::IsDirect {
            self.first_direct.get_or_insert(now);
            self.direct += step;
        }
    }
}
