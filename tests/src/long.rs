//! Long calls of real phones through the SBC, several at once, each in a field of its own; what their interfaces show of them, and
//! whether it is what calls may show. `make release-long` plays them all and keeps a row of each.

pub mod bounds;
pub mod field;
pub mod homecoming;
pub mod listening;
pub mod row;
pub mod table;
pub mod voices;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::Result;
use field::Field;
use row::{Outcome, Row};

/// How many fields are made at a time: that costs the machine more than the calls, so no call is up meanwhile.
const MAKERS: usize = 2;

static IS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Ends all calls, so that nothing of them is left behind: they have not been played.
pub fn stop() {
    IS_STOPPED.store(true, Ordering::Relaxed);
}

/// Whether they are to end.
pub fn is_stopped() -> bool {
    IS_STOPPED.load(Ordering::Relaxed)
}

/// Plays rows at the same time: makes all fields, lets all calls run, then looks at each. In the order of the rows; an error is a call
/// that could not be made.
pub fn play(rows: &[Row]) -> Vec<Result<Outcome>> {
    let next = Mutex::new(rows.iter().enumerate());
    let made = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..MAKERS {
            scope.spawn(|| {
                while let Some((index, row)) = next.lock().ok().and_then(|mut next| next.next()) {
                    if is_stopped() {
                        break;
                    }
                    // Once more: a phone may have lost its registration to the line's loss.
                    let field = Field::new(row).or_else(|_| Field::new(row));
                    if let Ok(mut made) = made.lock() {
                        made.push((index, field));
                    }
                }
            });
        }
    });
    let mut fields = made.into_inner().unwrap_or_default();
    fields.sort_by_key(|(index, _)| *index);
    let calls: Vec<_> = thread::scope(|scope| {
        let playing = fields.iter_mut().map(|(_, field)| {
            scope.spawn(|| field.as_mut().map_err(|failure| failure.clone()).and_then(Field::call))
        });
        let playing: Vec<_> = playing.collect();
        playing.into_iter().map(|call| call.join()).collect()
    });
    let mut outcomes = Vec::new();
    for ((_, field), call) in fields.into_iter().zip(calls) {
        let call = call.unwrap_or_else(|_| Err(crate::Failure("the call's thread has panicked".into())));
        outcomes.push(call.and_then(|call| field?.look(&call)));
    }
    outcomes
}
