//! After a crash: the ends of the calls that have none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_engine::event::{CallEnded, CallEvent, CallEventKind, EndCause, EndedBy};

use super::segment::{Found, Line, Reader};

/// A call without its end, as far as the journal tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Open {
    started: Duration,
    answered: Option<Duration>,
    /// The last moment known of it, on both clocks.
    alive: (Duration, Duration),
    sequence: u32,
    /// How long its media had been off the relay when the media plane said so last, and when that was if it still is.
    direct: Duration,
    direct_since: Option<Duration>,
    /// Of the process that wrote last; calls of one before it no longer live.
    #[serde(skip, default = "yes")]
    is_of_this_life: bool,
}

/// The ends of all calls that are open in these segments: each at the last heartbeat of its process, or its own last
/// event if that came later.
pub(super) fn ends_of_open_calls(directory: &Path, segments: &[u64]) -> io::Result<Vec<CallEvent>> {
    let mut open: BTreeMap<u128, Open> = BTreeMap::new();
    for segment in segments {
        let mut reader = Reader::new(Arc::new(File::open(super::segment::path(directory, *segment))?), 0);
        while let Some(found) = reader.next(false)? {
            match found {
                Found::Line(Line::Opened) => {
                    open.values_mut().for_each(|call| call.is_of_this_life = false);
                }
                Found::Line(Line::Heartbeat { wall, monotonic }) => {
                    let living = open.values_mut().filter(|call| call.is_of_this_life);
                    living.for_each(|call| call.alive = (wall, monotonic));
                }
                Found::Line(Line::Event(event)) => match &event.what {
                    CallEventKind::Started(_) => drop(open.insert(event.call, begin(&event))),
                    CallEventKind::Ended(_) => drop(open.remove(&event.call)),
                    _ => {
                        if let Some(call) = open.get_mut(&event.call) {
                            call.follow(&event);
                        }
                    }
                },
                Found::Line(Line::Open { call, state }) => drop(open.insert(call, state)),
                // The shipper reports damage; here as much is closed as can be read.
                Found::Torn | Found::Damaged(_) => {}
            }
        }
    }
    Ok(open.into_iter().map(|(call, state)| end(call, &state)).collect())
}

fn yes() -> bool {
    true
}

/// A call that begins with this event.
pub(super) fn begin(event: &CallEvent) -> Open {
    Open {
        started: event.monotonic,
        answered: None,
        alive: (event.wall, event.monotonic),
        sequence: event.sequence,
        direct: Duration::ZERO,
        direct_since: None,
        is_of_this_life: true,
    }
}

impl Open {
    /// What happened next in it. How long its media was direct is what was measured, never what the timeline's words say: media
    /// may be direct by those with some of its streams on the relay.
    pub(super) fn follow(&mut self, event: &CallEvent) {
        self.sequence = event.sequence;
        self.alive = (event.wall, event.monotonic);
        match &event.what {
            CallEventKind::Answered { .. } => self.answered = Some(event.monotonic),
            CallEventKind::Metered { direct, is_direct } => {
                self.direct = *direct;
                self.direct_since = is_direct.then_some(event.monotonic);
            }
            _ => {}
        }
    }

    fn direct_until(&self, now: Duration) -> Duration {
        let since = self.direct_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
        self.direct.saturating_add(since)
    }
}

fn end(call: u128, state: &Open) -> CallEvent {
    let (wall, monotonic) = state.alive;
    let talked = state.answered.map(|answered| monotonic.saturating_sub(answered)).unwrap_or_default();
    let ended = CallEnded {
        cause: EndCause::Crash,
        side: EndedBy::Sbc,
        status: if state.answered.is_some() { 200 } else { 500 },
        alerting_after: None,
        answered_after: state.answered.map(|answered| answered.saturating_sub(state.started)),
        total: monotonic.saturating_sub(state.started),
        talked,
        // Measured by another clock than the rest; together they are what was talked.
        direct: state.direct_until(monotonic).min(talked),
        media: Vec::new(),
    };
    let what = CallEventKind::Ended(Box::new(ended));
    CallEvent { call, sequence: state.sequence.saturating_add(1), wall, monotonic, what }
}
