//! From one process to the next: what a session and a call are between the two, and the clocks of both.

use std::time::Duration;

use crate::Dice;

/// A media session as another process reads it. Who prints it learns nothing that is secret.
#[cfg(feature = "media")]
pub fn written(stored: &media_core::state::StoredSession) -> media_core::state::StoredSession {
    let shown = format!("{stored:?}");
    for secret in ["v=0", "a=", "ufrag", "pwd", "password", "inline", "[118, 61, 48"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let text = serde_json::to_string(stored).expect("plain data");
    serde_json::from_str(&text).expect("as it was written")
}

/// A call as another process reads it. Who prints it learns nothing that is secret, and nobody's credentials are in it.
#[cfg(feature = "signalling")]
pub fn written_call(stored: &sip_engine::state::StoredCall) -> sip_engine::state::StoredCall {
    let shown = format!("{stored:?}");
    for secret in ["v=0", "a=", "tag", "cr-", "z9hG4bK", "SIP/2.0", "Digest", "[118, 61, 48"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    let text = serde_json::to_string(stored).expect("plain data");
    for secret in ["Authorization", "Digest ", "response="] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    serde_json::from_str(&text).expect("as it was written")
}

/// Where a process's clock begins, in milliseconds of virtual time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Origin(i64);

impl Origin {
    /// Of a process that has begun up to half a minute before, or half a day.
    pub fn drawn(now: Duration, dice: &mut Dice) -> Self {
        let age = if dice.below(2) == 0 { dice.below(30_000) } else { dice.below(50_000_000) };
        Self(now.as_millis() as i64 - age as i64)
    }

    /// What it shows at a moment.
    pub fn shows(self, now: Duration) -> Duration {
        let nanos = now.as_nanos() as i64 - self.0 * 1_000_000;
        Duration::from_nanos(nanos as u64)
    }

    /// When it shows that.
    pub fn when(self, shown: Duration) -> Duration {
        let nanos = shown.as_nanos() as i64 + self.0 * 1_000_000;
        Duration::from_nanos(nanos.max(0) as u64)
    }
}
