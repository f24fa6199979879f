//! The INVITE client transaction (RFC 3261 §17.1.1, RFC 6026 §7.2).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sip_wire::Message;
use smallvec::{SmallVec, smallvec};

use super::machine::{Port, Step};
use super::response::{ack_for_failure, cancel_of};
use super::rest::{Rest, RestTaken};
use crate::flow::Flow;

/// States of RFC 6026 figure 1.
#[derive(Debug)]
pub(super) enum InviteClient {
    /// Nothing has come back yet.
    Calling { request: Arc<Message>, cancel: Cancel, early: Option<u8> },
    /// A provisional response has come.
    Proceeding { request: Arc<Message>, cancel: Cancel },
    /// A failure has come; its retransmissions get the ACK again.
    Completed { ack: Bytes },
    /// A 2xx has come; others may follow, one per fork. Each is told once; its ACK answers its retransmissions.
    Accepted { taken: SmallVec<[Taken; 1]> },
}

/// From each early repeat to the next: at 100, 200 and 400 ms.
const HASTE: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(100), Duration::from_millis(200)];

/// A 2xx that the user knows of.
#[derive(Debug)]
pub(super) struct Taken {
    tag: Box<[u8]>,
    ack: Option<(Flow, Bytes)>,
}

/// Whether the user wants the INVITE cancelled (RFC 3261 §9.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    No,
    /// As soon as a provisional response allows it, with this Reason.
    Wanted(Option<Box<[u8]>>),
    Sent,
}

impl InviteClient {
    pub(super) fn start(request: Arc<Message>, port: &mut Port<'_>) -> Self {
        port.send(request.as_bytes().clone());
        if !port.is_reliable() {
            port.resend_after(port.values.t1);
        }
        port.end_after(port.patience());
        Self::Calling { request, cancel: Cancel::No, early: None }
    }

    /// Somebody hears nothing as long as this is lost: it is repeated sooner than after T1, before the RFC's timer goes on as ever.
    /// For requests that we send now and then of our own accord, over UDP, and none else: T1 is what spares a congested network.
    pub(super) fn hasten(&mut self, port: &mut Port<'_>) {
        if let Self::Calling { early, .. } = self
            && !port.is_reliable()
        {
            *early = Some(0);
            port.resend_early(HASTE[0]);
        }
    }

    /// Only 1xx above 100 and final responses are told.
    pub(super) fn receive(&mut self, status: u16, response: &Message, port: &mut Port<'_>) -> Step {
        match (&mut *self, status) {
            (Self::Calling { request, cancel, .. }, 100..=199) => {
                port.stop_resending();
                port.stop_ending();
                let cancel = std::mem::replace(cancel, Cancel::No);
                *self = Self::Proceeding { request: Arc::clone(request), cancel };
                if status == 100 { Step::Absorb } else { Step::Tell }
            }
            (Self::Proceeding { .. }, 100) => Step::Absorb,
            (Self::Proceeding { .. }, 101..=199) => Step::Tell,
            (Self::Calling { .. } | Self::Proceeding { .. }, 200..=299) => {
                port.stop_resending();
                port.end_after(port.patience());
                *self = Self::Accepted { taken: smallvec![Taken { tag: to_tag(response), ack: None }] };
                Step::Tell
            }
            (Self::Calling { request, .. } | Self::Proceeding { request, .. }, _) => {
                port.stop_resending();
                let Some(ack) = ack_for_failure(request, response) else { return Step::TellAndEnd };
                let ack = Bytes::from(ack);
                port.send(ack.clone());
                if port.is_reliable() {
                    return Step::TellAndEnd;
                }
                // Timer D: at least 32 s, as long as timer H of the other side may send.
                port.end_after(port.patience().max(std::time::Duration::from_secs(32)));
                *self = Self::Completed { ack };
                Step::Tell
            }
            (Self::Completed { ack }, 300..=699) => {
                port.send(ack.clone());
                Step::Absorb
            }
            (Self::Accepted { taken }, 200..=299) => {
                let tag = to_tag(response);
                match taken.iter().find(|known| known.tag == tag) {
                    Some(Taken { ack: Some((flow, ack)), .. }) => {
                        port.send_to(*flow, ack.clone());
                        Step::Absorb
                    }
                    Some(_) => Step::Absorb,
                    None => {
                        taken.push(Taken { tag, ack: None });
                        Step::Tell
                    }
                }
            }
            (Self::Completed { .. } | Self::Accepted { .. }, _) => Step::Absorb,
        }
    }

    /// The ACK of the 2xx with this To tag.
    pub(super) fn acknowledge(&mut self, tag: &[u8], to: Flow, ack: Bytes) {
        if let Self::Accepted { taken } = self
            && let Some(known) = taken.iter_mut().find(|known| *known.tag == *tag)
        {
            known.ack = Some((to, ack));
        }
    }

    /// The user wants no more of it. Of two calls the first counts.
    pub(super) fn cancel(&mut self, reason: Option<&[u8]>) {
        if let Self::Calling { cancel, .. } | Self::Proceeding { cancel, .. } = self
            && *cancel == Cancel::No
        {
            *cancel = Cancel::Wanted(reason.map(Into::into));
        }
    }

    /// Leaves the wish to cancel to the machine that starts over (see [`with_cancel`](Self::with_cancel)).
    pub(super) fn take_cancel(&mut self) -> Cancel {
        match self {
            Self::Calling { cancel, .. } | Self::Proceeding { cancel, .. } => {
                std::mem::replace(cancel, Cancel::No)
            }
            Self::Completed { .. } | Self::Accepted { .. } => Cancel::No,
        }
    }

    /// A machine that has just started, with a wish to cancel from before.
    pub(super) fn with_cancel(mut self, wish: Cancel) -> Self {
        if let Self::Calling { cancel, .. } = &mut self {
            *cancel = wish;
        }
        self
    }

    /// The CANCEL, if it is due: no CANCEL before the first provisional response, since it
    /// could overtake the INVITE. If nothing final answers it within 64·T1, the INVITE is taken as cancelled.
    pub(super) fn cancel_due(&mut self, port: &mut Port<'_>) -> Option<Message> {
        let Self::Proceeding { request, cancel } = self else { return None };
        if !matches!(cancel, Cancel::Wanted(_)) {
            return None;
        }
        let Cancel::Wanted(reason) = std::mem::replace(cancel, Cancel::Sent) else { return None };
        port.end_after(port.patience());
        cancel_of(request, reason.as_deref())
    }

    /// Timer A.
    pub(super) fn resend(&mut self, port: &mut Port<'_>) {
        let Self::Calling { request, early, .. } = self else { return };
        port.send(request.as_bytes().clone());
        match early.take() {
            None => port.resend_after(port.clock.interval.saturating_mul(2)),
            Some(number) => match HASTE.get(usize::from(number).saturating_add(1)) {
                Some(wait) => {
                    *early = Some(number.saturating_add(1));
                    port.resend_early(*wait);
                }
                None => {
                    let spent: Duration = HASTE.iter().sum();
                    port.resend_early(port.values.t1.saturating_sub(spent).max(HASTE[0]));
                }
            },
        }
    }

    /// Timers B, D and M, and the end of patience with a CANCEL.
    pub(super) fn end(&self) -> Step {
        match self {
            Self::Calling { .. } | Self::Proceeding { .. } => Step::TellAndEnd,
            Self::Completed { .. } | Self::Accepted { .. } => Step::End,
        }
    }

    /// As plain data, once it has its final response and the ACK to it.
    pub(super) fn rest(&self) -> Option<Rest> {
        match self {
            Self::Calling { .. } | Self::Proceeding { .. } => None,
            Self::Completed { ack } => Some(Rest::InviteFailed(ack.clone())),
            Self::Accepted { taken } => {
                let rest = |Taken { tag, ack }: &Taken| {
                    let (to, ack) = ack.clone()?;
                    Some(RestTaken { tag: tag.clone(), to, ack })
                };
                Some(Rest::InviteTaken(taken.iter().filter_map(rest).collect()))
            }
        }
    }

    /// The other way round, in a process that has other connections.
    pub(super) fn of_taken(taken: Vec<RestTaken>) -> Self {
        let taken = taken
            .into_iter()
            .map(|RestTaken { tag, to, ack }| Taken { tag, ack: Some((to.without_connection(), ack)) });
        Self::Accepted { taken: taken.collect() }
    }

    /// A transport failure matters only while an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        matches!(self, Self::Calling { .. } | Self::Proceeding { .. })
    }

    /// Whether any response has come.
    pub(super) fn has_response(&self) -> bool {
        !matches!(self, Self::Calling { .. })
    }
}

fn to_tag(response: &Message) -> Box<[u8]> {
    response.to().ok().and_then(|to| to.tag()).unwrap_or_default().into()
}
