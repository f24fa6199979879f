//! What a failure means: for the caller, for the record, and for who is tried next.

use crate::event::EndCause;

/// The record's cause for a failure status.
pub(super) fn cause_of(status: u16) -> EndCause {
    match status {
        486 | 600 => EndCause::Busy,
        403 | 603 | 607 | 608 => EndCause::Declined,
        404 | 410 | 484 | 485 | 604 => EndCause::NotFound,
        408 | 480 => EndCause::NoAnswer,
        415 | 488 | 606 => EndCause::MediaRefused,
        487 => EndCause::Cancelled,
        503 => EndCause::Unreachable,
        _ => EndCause::Failed,
    }
}

/// Whether another target may do better than the one that gave this failure.
pub(super) fn may_fail_over(status: u16) -> bool {
    matches!(status, 408 | 480 | 430 | 500..=599)
}

/// Of two failures the one the caller should see (RFC 3261 §16.7 step 6).
pub(super) fn is_better(new: u16, old: u16) -> bool {
    let rank = |status: u16| match status {
        600..=699 => 0,
        401 | 407 | 415 | 420 | 484 => 1,
        486 | 488 | 404 => 2,
        300..=399 => 3,
        408 | 480 => 5,
        400..=499 => 4,
        503 => 7,
        _ => 6,
    };
    rank(new) < rank(old)
}
