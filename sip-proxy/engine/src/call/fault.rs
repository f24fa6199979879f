//! What a failure means: for the caller, for the record, and for who is tried next. All of it is decided here.

use std::ops::RangeInclusive;

use sip_wire::Message;

use super::side::BranchId;
use crate::event::{EndCause, EndedBy};
use crate::question::RouteRefusal;

/// A failure of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    /// As its author gave it, or as we give it.
    pub(super) status: u16,
    /// As the record says it.
    pub(super) cause: EndCause,
    /// Whose it is.
    pub(super) side: EndedBy,
    pub(super) retry: Retry,
}

/// Whether another target may do better than the one that gave a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    No,
    Elsewhere,
}

/// What a status says, and its rank: of two failures the caller should see the lower one (RFC 3261 §16.7 step 6).
type Row = (RangeInclusive<u16>, EndCause, Retry, u8);

/// The first row counts.
const TABLE: &[Row] = &[
    (600..=600, EndCause::Busy, Retry::No, 0),
    (603..=603, EndCause::Declined, Retry::No, 0),
    (604..=604, EndCause::NotFound, Retry::No, 0),
    (606..=606, EndCause::MediaRefused, Retry::No, 0),
    (607..=608, EndCause::Declined, Retry::No, 0),
    (600..=699, EndCause::Failed, Retry::No, 0),
    (401..=401, EndCause::Failed, Retry::No, 1),
    (407..=407, EndCause::Failed, Retry::No, 1),
    (415..=415, EndCause::MediaRefused, Retry::No, 1),
    (420..=420, EndCause::Failed, Retry::No, 1),
    (484..=484, EndCause::NotFound, Retry::No, 1),
    (404..=404, EndCause::NotFound, Retry::No, 2),
    (486..=486, EndCause::Busy, Retry::No, 2),
    (488..=488, EndCause::MediaRefused, Retry::No, 2),
    (300..=399, EndCause::Failed, Retry::No, 3),
    (403..=403, EndCause::Declined, Retry::No, 4),
    (410..=410, EndCause::NotFound, Retry::No, 4),
    (485..=485, EndCause::NotFound, Retry::No, 4),
    (487..=487, EndCause::Cancelled, Retry::No, 4),
    (430..=430, EndCause::Failed, Retry::Elsewhere, 4),
    (408..=408, EndCause::NoAnswer, Retry::Elsewhere, 5),
    (480..=480, EndCause::NoAnswer, Retry::Elsewhere, 5),
    (400..=499, EndCause::Failed, Retry::No, 4),
    (503..=503, EndCause::Unreachable, Retry::Elsewhere, 7),
    (500..=599, EndCause::Failed, Retry::Elsewhere, 6),
];

fn row(status: u16) -> &'static Row {
    const OTHER: &Row = &(0..=u16::MAX, EndCause::Failed, Retry::No, 6);
    TABLE.iter().find(|row| row.0.contains(&status)).unwrap_or(OTHER)
}

impl Fault {
    /// A target has said so.
    pub(super) fn of_target(status: u16) -> Self {
        let (_, cause, retry, _) = row(status);
        Self { status, cause: *cause, side: EndedBy::Callee, retry: *retry }
    }

    /// A target has said nothing at all: as if it had said this.
    pub(super) fn of_silence(status: u16) -> Self {
        Self { side: EndedBy::Sbc, ..Self::of_target(status) }
    }

    /// We say so ourselves.
    pub(super) fn ours(status: u16, cause: EndCause) -> Self {
        Self { status, cause, side: EndedBy::Sbc, retry: Retry::No }
    }

    /// Policy knows no way.
    pub(super) fn of_route(refusal: RouteRefusal) -> Self {
        match refusal {
            RouteRefusal::NotFound => Self::ours(404, EndCause::NotFound),
            RouteRefusal::Unavailable => Self::ours(503, EndCause::Unreachable),
        }
    }

    /// A call is ended before its answer.
    pub(super) fn of_ending(cause: EndCause, side: EndedBy) -> Self {
        let status = match cause {
            EndCause::Shutdown => 503,
            EndCause::MediaRefused => 488,
            EndCause::Cancelled => 487,
            _ => 480,
        };
        Self { status, cause, side, retry: Retry::No }
    }

    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        row(self.status).3 < row(other.status).3
    }
}

/// How a request came out: by a final response, or without one as if by its status.
#[derive(Debug)]
pub(crate) struct Final {
    pub(super) fault: Fault,
    pub(super) response: Option<Given>,
}

/// A final response, and the branch whose target gave it: of what it says passes what its realm may say.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) by: BranchId,
    pub(super) message: Message,
}

impl Final {
    pub(super) fn of_response(by: BranchId, message: Message) -> Self {
        let status = message.status().unwrap_or(500);
        Self { fault: Fault::of_target(status), response: Some(Given { by, message }) }
    }

    /// No response, or no way.
    pub(crate) fn of_silence(status: u16) -> Self {
        Fault::of_silence(status).into()
    }
}

impl From<Fault> for Final {
    fn from(fault: Fault) -> Self {
        Self { fault, response: None }
    }
}

/// What the caller is shown of a target's final status.
pub(super) fn shown_to_caller(status: u16) -> u16 {
    match status {
        // RFC 3261 §16.7 step 6: a 503 of one target says nothing about us.
        503 => 500,
        // A redirection that leads nowhere is no more than a target that is not there.
        300..=399 => 480,
        // The caller shall not answer challenges that were meant for us.
        401 | 407 => 403,
        status => status,
    }
}

/// What one leg is shown of the other's failure to a request in a call; `changes_session` of an INVITE or UPDATE.
pub(super) fn shown_in_call(status: u16, changes_session: bool) -> u16 {
    match status {
        // 408 and 481 would make a phone end its call (RFC 5057); a BYE says it properly.
        408 | 481 if changes_session => 500,
        503 => 500,
        401 | 407 => 403,
        status => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_failures_the_caller_sees_the_one_that_says_more() {
        for (better, worse) in
            [(603, 486), (484, 404), (486, 302), (302, 403), (403, 408), (480, 500), (502, 503)]
        {
            let (better, worse) = (Fault::of_target(better), Fault::of_target(worse));
            assert!(better.is_better_than(&worse) && !worse.is_better_than(&better), "{better:?} {worse:?}");
        }
    }
}
