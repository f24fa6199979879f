//! After a crash: the ends of the calls that have none.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sip_engine::event::{CallEnded, CallEvent, CallEventKind};

use super::open::Open;
use super::segment::{Found, Line, Reader};

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
                    CallEventKind::Started(_) => drop(open.insert(event.call, Open::new(&event))),
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

fn end(call: u128, state: &Open) -> CallEvent {
    let (wall, monotonic) = state.alive;
    let talked = state.answered.map(|answered| monotonic.saturating_sub(answered)).unwrap_or_default();
    let ended = CallEnded {
        answered_after: state.answered.map(|answered| answered.saturating_sub(state.started)),
        total: monotonic.saturating_sub(state.started),
        talked,
        // Measured by another clock than the rest; together they are what was talked.
        direct: state.direct_until(monotonic).min(talked),
        ..sip_engine::call::crashed(state.answered.is_some())
    };
    let what = CallEventKind::Ended(Box::new(ended));
    CallEvent { call, sequence: state.sequence.saturating_add(1), wall, monotonic, what }
}
