//! What a failure or an end means: for its parties, for the record, and for who is tried next. All of it is decided here: by
//! [`STATUSES`] of what a target says, or might as well have said; by [`End`] of every other way in which a call fails or ends. The
//! metric is the record's cause.

use std::ops::RangeInclusive;

use sip_wire::Message;

use super::side::BranchId;
use crate::event::{EndCause, EndedBy};
use crate::question::RouteRefusal;
use seam::Refusal;

/// How a request, or its call, has come out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    /// As its author gave it, or as we give it; 200 of a call that was answered.
    pub(super) status: u16,
    /// As the record says it.
    pub(super) cause: EndCause,
    /// Whose it is.
    pub(super) side: EndedBy,
    pub(super) retry: Retry,
    /// Reason (RFC 3326) of the CANCELs and BYEs that we send for it; where a party has given one, that passes instead.
    pub(super) reason: Option<&'static [u8]>,
}

/// Who may do better than the target that gave a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Retry {
    /// Nobody, for it speaks for all (RFC 3261 §21.6): those that ring are cancelled.
    Nobody,
    /// Nobody who does not ring already.
    No,
    /// The next step of the way.
    Elsewhere,
    /// The phone by another of its flows (RFC 5626 §5.3), then the next step.
    Flow,
    /// The trunk at another of its addresses (RFC 3263 §4.3), then the next step.
    Address,
    /// The same, and where nobody has said so the flow may be dead: the phone by another one.
    Unheard,
}

/// What a status says, and its rank: of two failures the caller should see the lower one (RFC 3261 §16.7 step 6).
type Row = (RangeInclusive<u16>, EndCause, Retry, u8);

/// The first row counts.
static STATUSES: &[Row] = &[
    (600..=600, EndCause::Busy, Retry::Nobody, 0),
    (603..=603, EndCause::Declined, Retry::Nobody, 0),
    (604..=604, EndCause::NotFound, Retry::Nobody, 0),
    (606..=606, EndCause::MediaRefused, Retry::Nobody, 0),
    (607..=608, EndCause::Declined, Retry::Nobody, 0),
    (600..=699, EndCause::Failed, Retry::Nobody, 0),
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
    (430..=430, EndCause::Failed, Retry::Flow, 4),
    (408..=408, EndCause::NoAnswer, Retry::Unheard, 5),
    (480..=480, EndCause::NoAnswer, Retry::Elsewhere, 5),
    (400..=499, EndCause::Failed, Retry::No, 4),
    (503..=503, EndCause::Unreachable, Retry::Unheard, 7),
    (500..=599, EndCause::Failed, Retry::Address, 6),
];

fn row(status: u16) -> &'static Row {
    const OTHER: &Row = &(0..=u16::MAX, EndCause::Failed, Retry::No, 6);
    STATUSES.iter().find(|row| row.0.contains(&status)).unwrap_or(OTHER)
}

/// Makes an enum of rows, so that there is none without one.
macro_rules! ends {
    ($($(#[$doc:meta])+ $end:ident $(($of:ident: $kind:ty))? = $status:expr, $cause:ident, $side:expr $(, $reason:literal)?;)+) => {
        /// The ways in which a call fails or ends, but for what a target's status says. Each with the final response of an INVITE that has
        /// none yet, the cause and the side in the record, and the Reason if we give one. None leads to another target.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum End {
            $($(#[$doc])+ $end $(($kind))?,)+
        }

        impl From<End> for Fault {
            fn from(end: End) -> Self {
                let (status, cause, side, reason): (u16, EndCause, EndedBy, Option<&str>) = match end {
                    $(End::$end $(($of))? => ($status, EndCause::$cause, $side, None$(.or(Some($reason)))?),)+
                };
                Self { status, cause, side, retry: Retry::No, reason: reason.map(str::as_bytes) }
            }
        }

        #[cfg(test)]
        impl End {
            fn all() -> Vec<Self> {
                [$(ends!(@each $end $($kind)?)),+].concat()
            }
        }
    };
    (@each $end:ident) => {
        vec![End::$end]
    };
    (@each $end:ident $kind:ty) => {
        <$kind as tests::Each>::each().iter().copied().map(End::$end).collect::<Vec<_>>()
    };
}

ends! {
    /// A REGISTER, and no registrar to take it to.
    NoRegistrar = 404, NotFound, EndedBy::Sbc;
    /// RFC 5393 §5: Max-Breadth is used up.
    NoBreadth = 440, Refused, EndedBy::Sbc;
    /// Replaces (RFC 3891 §3) names no dialog of ours.
    NothingToReplace = 481, NotFound, EndedBy::Sbc;
    /// Policy knows no way.
    NoRoute = 404, NotFound, EndedBy::Sbc;
    /// Policy knows one that cannot be gone now.
    RouteUnavailable = 503, Unreachable, EndedBy::Sbc;
    /// The address is known, and no phone has registered for it.
    NotRegistered = 480, NotRegistered, EndedBy::Sbc;
    /// The one phone that there is has its receiver off (RFC 3261 §21.4.24): it calls itself.
    OwnPhone = 486, OwnPhone, EndedBy::Sbc;
    /// Others were asked in vain, and have said nothing that counts.
    NobodyLeft = 480, NoAnswer, EndedBy::Sbc;
    /// The same, and the caller's own phone is left.
    OwnPhoneLeft = 486, Busy, EndedBy::Sbc;
    /// It has rung for as long as a call may.
    RungTooLong = 408, NoAnswer, EndedBy::Sbc;
    /// RFC 3262 §3: no PRACK has come for a reliable response.
    NoPrack = 504, Failed, EndedBy::Sbc;
    /// A 2xx makes no dialog.
    NoDialog = 500, Failed, EndedBy::Sbc;
    /// A 2xx to an INVITE lacks its answer.
    NoAnswerInside = 488, MediaRefused, EndedBy::Sbc;
    /// What a 2xx to an INVITE says cannot be passed.
    AnswerUnreadable = 502, MediaRefused, EndedBy::Sbc;
    /// What a 2xx to a SUBSCRIBE says cannot be passed.
    AcceptanceUnreadable = 502, Failed, EndedBy::Sbc;
    /// Media does not take the answer in a 2xx. What cannot be read is the target's mistake, not the caller's.
    AnswerRefused(refusal: Refusal) =
        if refusal == Refusal::Malformed { 502 } else { refusal.status() }, MediaRefused, EndedBy::Sbc;
    /// CANCEL.
    Cancelled = 487, Cancelled, EndedBy::Caller;
    /// BYE in an early dialog (RFC 3261 §15).
    EarlyBye(by: EndedBy) = 487, Cancelled, by;
    /// It is taken from who rings by who has answered.
    AnsweredElsewhere = 487, Cancelled, EndedBy::Sbc, "SIP;cause=200;text=\"Call completed elsewhere\"";
    /// BYE.
    Bye(by: EndedBy) = 200, Bye, by;
    /// A request that makes no dialog has its answer, or a subscription its end.
    Done = 200, Bye, EndedBy::Caller;
    /// An ACK lacks the answer to the offer in our 2xx (RFC 3261 §13.2.1).
    NoAnswerInAck(by: EndedBy) = 488, MediaRefused, by;
    /// An end says that it knows the call no more, or does not answer any more (RFC 5057 §5.1).
    Gone(by: EndedBy) = 480, Failed, by;
    /// No session is left that both ends know.
    MediaRefused = 488, MediaRefused, EndedBy::Sbc;
    /// No ACK has come for a 2xx (RFC 3261 §13.3.1.4).
    NoAck = 480, NoAck, EndedBy::Sbc;
    /// A session timer (RFC 4028 §10) or a subscription has run out.
    Expired = 480, SessionExpired, EndedBy::Sbc;
    /// It has lasted for as long as a call may.
    TooLong = 480, TooLong, EndedBy::Sbc;
    /// No media for too long, or an end that is asked whether it lives says nothing.
    NoMedia = 480, MediaTimeout, EndedBy::Sbc;
    /// An operator wants it.
    Operator = 480, Operator, EndedBy::Sbc;
    /// This process ends.
    Shutdown = 503, Shutdown, EndedBy::Sbc;
    /// The process before this one has ended: nobody was told anything.
    Crash = 500, Crash, EndedBy::Sbc;
}

impl From<RouteRefusal> for End {
    fn from(refusal: RouteRefusal) -> Self {
        match refusal {
            RouteRefusal::NotFound => End::NoRoute,
            RouteRefusal::Unavailable => End::RouteUnavailable,
        }
    }
}

impl Fault {
    /// A target has said so.
    pub(super) fn of_target(status: u16) -> Self {
        let (_, cause, retry, _) = row(status);
        Self { status, cause: *cause, side: EndedBy::Callee, retry: *retry, reason: None }
    }

    /// A target has said nothing at all: as if it had said this.
    pub(super) fn of_silence(status: u16) -> Self {
        Self { side: EndedBy::Sbc, ..Self::of_target(status) }
    }

    /// The same of a call that was answered: its INVITE had its 200.
    pub(super) fn after_answer(self) -> Self {
        Self { status: 200, ..self }
    }

    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        row(self.status).3 < row(other.status).3
    }

    /// Whether the trunk is to be tried at another of its addresses.
    pub(super) fn leads_to_address(&self) -> bool {
        matches!(self.retry, Retry::Address | Retry::Unheard)
    }

    /// Whether the phone is to be tried by another of its flows.
    pub(super) fn leads_to_flow(&self) -> bool {
        self.retry == Retry::Flow || (self.retry == Retry::Unheard && self.side == EndedBy::Sbc)
    }

    /// Whether the next step of the way may do better.
    pub(super) fn leads_on(&self) -> bool {
        !matches!(self.retry, Retry::Nobody | Retry::No)
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

impl From<End> for Final {
    fn from(end: End) -> Self {
        Fault::from(end).into()
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
    use std::fmt::Write as _;

    use super::*;

    /// What a row may be about.
    pub(super) trait Each: Sized + 'static {
        fn each() -> &'static [Self];
    }

    impl Each for EndedBy {
        fn each() -> &'static [Self] {
            &[EndedBy::Caller, EndedBy::Callee, EndedBy::Sbc]
        }
    }

    impl Each for Refusal {
        fn each() -> &'static [Self] {
            &[
                Refusal::Malformed,
                Refusal::NotAcceptable,
                Refusal::Unfit(martian::Unfit::Loopback),
                Refusal::NoPorts,
                Refusal::Unknown,
                Refusal::Unavailable,
            ]
        }
    }

    fn told(what: &str, fault: &Fault) -> String {
        let Fault { status, cause, side, retry, reason } = fault;
        let reason = String::from_utf8_lossy(reason.unwrap_or(b"-"));
        format!("{what}: {status} {} {} {retry:?} {reason}", cause.word(), side.word())
    }

    #[test]
    fn every_way_to_an_end_has_its_status_cause_side_retry_and_reason() {
        let rows: Vec<_> = End::all().into_iter().map(|end| told(&format!("{end:?}"), &end.into())).collect();
        let expected = r#"
            NoRegistrar: 404 not_found sbc No -
            NoBreadth: 440 refused sbc No -
            NothingToReplace: 481 not_found sbc No -
            NoRoute: 404 not_found sbc No -
            RouteUnavailable: 503 unreachable sbc No -
            NotRegistered: 480 not_registered sbc No -
            OwnPhone: 486 own_phone sbc No -
            NobodyLeft: 480 no_answer sbc No -
            OwnPhoneLeft: 486 busy sbc No -
            RungTooLong: 408 no_answer sbc No -
            NoPrack: 504 failed sbc No -
            NoDialog: 500 failed sbc No -
            NoAnswerInside: 488 media_refused sbc No -
            AnswerUnreadable: 502 media_refused sbc No -
            AcceptanceUnreadable: 502 failed sbc No -
            AnswerRefused(Malformed): 502 media_refused sbc No -
            AnswerRefused(NotAcceptable): 488 media_refused sbc No -
            AnswerRefused(Unfit(Loopback)): 488 media_refused sbc No -
            AnswerRefused(NoPorts): 503 media_refused sbc No -
            AnswerRefused(Unknown): 500 media_refused sbc No -
            AnswerRefused(Unavailable): 503 media_refused sbc No -
            Cancelled: 487 cancelled caller No -
            EarlyBye(Caller): 487 cancelled caller No -
            EarlyBye(Callee): 487 cancelled callee No -
            EarlyBye(Sbc): 487 cancelled sbc No -
            AnsweredElsewhere: 487 cancelled sbc No SIP;cause=200;text="Call completed elsewhere"
            Bye(Caller): 200 bye caller No -
            Bye(Callee): 200 bye callee No -
            Bye(Sbc): 200 bye sbc No -
            Done: 200 bye caller No -
            NoAnswerInAck(Caller): 488 media_refused caller No -
            NoAnswerInAck(Callee): 488 media_refused callee No -
            NoAnswerInAck(Sbc): 488 media_refused sbc No -
            Gone(Caller): 480 failed caller No -
            Gone(Callee): 480 failed callee No -
            Gone(Sbc): 480 failed sbc No -
            MediaRefused: 488 media_refused sbc No -
            NoAck: 480 no_ack sbc No -
            Expired: 480 session_expired sbc No -
            TooLong: 480 too_long sbc No -
            NoMedia: 480 media_timeout sbc No -
            Operator: 480 operator sbc No -
            Shutdown: 503 shutdown sbc No -
            Crash: 500 crash sbc No -
        "#;
        assert_eq!(rows, expected.trim().lines().map(str::trim).collect::<Vec<_>>());
    }

    /// What says the same in one line: cause, retry, rank, and where it leads.
    #[test]
    fn every_status_of_a_target_has_its_cause_and_who_is_tried_after_it() {
        let mut lines: Vec<(String, Vec<u16>)> = Vec::new();
        for status in 300..=699 {
            let (said, silent) = (Fault::of_target(status), Fault::of_silence(status));
            assert_eq!((said.status, said.side, said.reason), (status, EndedBy::Callee, None));
            assert_eq!(silent, Fault { side: EndedBy::Sbc, ..said });
            let mut line = format!("{} {:?} {}", said.cause.word(), said.retry, row(status).3);
            let ways = [
                (" address", said.leads_to_address()),
                (" flow", said.leads_to_flow()),
                (" flow if silent", !said.leads_to_flow() && silent.leads_to_flow()),
                (" on", said.leads_on()),
            ];
            ways.iter().filter(|(_, leads)| *leads).for_each(|(way, _)| line.push_str(way));
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, statuses)) => statuses.push(status),
                None => lines.push((line, vec![status])),
            }
        }
        let lines: Vec<String> =
            lines.into_iter().map(|(line, statuses)| format!("{line}: {}", ranges(&statuses))).collect();
        let expected = [
            "failed No 3: 300-399",
            "failed No 4: 400 402 405-406 409 411-414 416-419 421-429 431-479 481-483 489-499",
            "failed No 1: 401 407 420",
            "declined No 4: 403",
            "not_found No 2: 404",
            "no_answer Unheard 5 address flow if silent on: 408",
            "not_found No 4: 410 485",
            "media_refused No 1: 415",
            "failed Flow 4 flow on: 430",
            "no_answer Elsewhere 5 on: 480",
            "not_found No 1: 484",
            "busy No 2: 486",
            "cancelled No 4: 487",
            "media_refused No 2: 488",
            "failed Address 6 address on: 500-502 504-599",
            "unreachable Unheard 7 address flow if silent on: 503",
            "busy Nobody 0: 600",
            "failed Nobody 0: 601-602 605 609-699",
            "declined Nobody 0: 603 607-608",
            "not_found Nobody 0: 604",
            "media_refused Nobody 0: 606",
        ];
        assert_eq!(lines, expected);
    }

    /// `300-399 401`
    fn ranges(statuses: &[u16]) -> String {
        let mut out = String::new();
        for run in statuses.chunk_by(|one, next| one + 1 == *next) {
            let (first, last) = (run[0], run[run.len() - 1]);
            let gap = if out.is_empty() { "" } else { " " };
            if first == last { write!(out, "{gap}{first}") } else { write!(out, "{gap}{first}-{last}") }
                .unwrap();
        }
        out
    }

    #[test]
    fn no_row_of_a_status_stands_behind_another() {
        for (index, (statuses, ..)) in STATUSES.iter().enumerate() {
            let is_first = |status: u16| std::ptr::eq(row(status), &raw const STATUSES[index]);
            assert!(statuses.clone().any(is_first), "{statuses:?} is never read");
        }
    }

    #[test]
    fn a_call_that_was_answered_has_its_200() {
        for end in End::all() {
            let fault = Fault::from(end);
            assert_eq!(fault.after_answer(), Fault { status: 200, ..fault });
        }
    }

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
