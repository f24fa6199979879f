//! After a crash: the ends of the calls that have none.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use sip_engine::event::{CallEnded, CallEvent, CallEventKind, EndCause, Side};

use super::segment::{Found, Line, Reader};

/// A call without its end, as far as the journal tells.
struct Open {
    started: Duration,
    answered: Option<Duration>,
    /// The last moment known of it, on both clocks.
    alive: (Duration, Duration),
    sequence: u32,
    /// How long its media was off the relay, and since when it is.
    direct: Duration,
    direct_since: Option<Duration>,
    /// Of the process that wrote last; calls of one before it no longer live.
    is_of_this_life: bool,
}

/// The ends of all calls that are open in these segments: each at the last heartbeat of its process, or its own last
/// event if that came later.
pub(super) fn ends_of_open_calls(directory: &Path, segments: &[u64]) -> io::Result<Vec<CallEvent>> {
    let mut open: BTreeMap<u128, Open> = BTreeMap::new();
    for segment in segments {
        let mut reader = Reader::open(directory, *segment, 0)?;
        while let Some(found) = reader.next(false)? {
            match found {
                Found::Line(Line::Opened) => {
                    open.values_mut().for_each(|call| call.is_of_this_life = false);
                }
                Found::Line(Line::Heartbeat { wall, monotonic }) => {
                    let living = open.values_mut().filter(|call| call.is_of_this_life);
                    living.for_each(|call| call.alive = (wall, monotonic));
                }
                Found::Line(Line::Event(event)) => follow(&mut open, &event),
                // The shipper reports damage; here as much is closed as can be read.
                Found::Torn | Found::Damaged(_) => {}
            }
        }
    }
    Ok(open.into_iter().map(|(call, state)| end(call, &state)).collect())
}

fn follow(open: &mut BTreeMap<u128, Open>, event: &CallEvent) {
    let alive = (event.wall, event.monotonic);
    match &event.what {
        CallEventKind::Started(_) => {
            let started = event.monotonic;
            let sequence = event.sequence;
            let state = Open {
                started,
                answered: None,
                alive,
                sequence,
                direct: Duration::ZERO,
                direct_since: None,
                is_of_this_life: true,
            };
            open.insert(event.call, state);
        }
        CallEventKind::Ended(_) => {
            open.remove(&event.call);
        }
        what => {
            if let Some(call) = open.get_mut(&event.call) {
                call.sequence = event.sequence;
                call.alive = alive;
                match what {
                    CallEventKind::Answered { .. } => call.answered = Some(event.monotonic),
                    CallEventKind::Path(entry) => call.follow_path(&entry.what, event.monotonic),
                    _ => {}
                }
            }
        }
    }
}

impl Open {
    fn follow_path(&mut self, what: &str, now: Duration) {
        if what == "direct" {
            self.direct_since = Some(now);
        } else if what == "returning" {
            self.direct += self.direct_since.take().map_or(Duration::ZERO, |since| now.saturating_sub(since));
        }
    }

    fn direct_until(&self, now: Duration) -> Duration {
        self.direct + self.direct_since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

fn end(call: u128, state: &Open) -> CallEvent {
    let (wall, monotonic) = state.alive;
    let ended = CallEnded {
        cause: EndCause::Crash,
        side: Side::Sbc,
        status: if state.answered.is_some() { 200 } else { 500 },
        alerting_after: None,
        answered_after: state.answered.map(|answered| answered.saturating_sub(state.started)),
        total: monotonic.saturating_sub(state.started),
        talked: state.answered.map(|answered| monotonic.saturating_sub(answered)).unwrap_or_default(),
        direct: state.direct_until(monotonic),
        media: Vec::new(),
    };
    let what = CallEventKind::Ended(Box::new(ended));
    CallEvent { call, sequence: state.sequence + 1, wall, monotonic, what }
}
