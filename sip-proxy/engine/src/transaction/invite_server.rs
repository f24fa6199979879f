//! The INVITE server transaction (RFC 3261 §17.2.1, RFC 6026 §7.1).

use std::time::Duration;

use bytes::Bytes;

use super::machine::{Port, Step};
use super::rest::Rest;

/// States of RFC 6026 figure 3.
#[derive(Debug)]
pub(super) enum InviteServer {
    /// No final response yet; the last provisional answers retransmissions.
    Proceeding { last: Option<Bytes> },
    /// A failure is sent again until its ACK comes.
    Completed { response: Bytes },
    /// The ACK has come; its retransmissions are absorbed.
    Confirmed,
    /// A 2xx was sent; its retransmission is the user's.
    Accepted,
}

impl InviteServer {
    /// 100 is sent at the next timeout, which a user that answers before it saves; RFC 3261 §17.2.1 allows 200 ms.
    pub(super) fn start(port: &mut Port<'_>) -> Self {
        port.resend_after(Duration::ZERO);
        Self::Proceeding { last: None }
    }

    /// A response of the user. Whatever comes after a final one is dropped, but for the 2xx's retransmissions.
    pub(super) fn respond(&mut self, status: u16, response: Bytes, port: &mut Port<'_>) {
        match (&mut *self, status) {
            (Self::Proceeding { last }, 100..=199) => {
                port.stop_resending();
                *last = Some(response.clone());
                port.send(response);
            }
            (Self::Proceeding { .. }, 200..=299) => {
                port.stop_resending();
                port.end_after(port.patience());
                port.send(response);
                *self = Self::Accepted;
            }
            (Self::Proceeding { .. }, _) => {
                port.send(response.clone());
                if port.is_reliable() {
                    port.stop_resending();
                } else {
                    port.resend_after(port.values.t1);
                }
                port.end_after(port.patience());
                *self = Self::Completed { response };
            }
            (Self::Accepted, 200..=299) => port.send(response),
            (Self::Completed { .. } | Self::Confirmed | Self::Accepted, _) => {}
        }
    }

    /// The INVITE again.
    pub(super) fn retransmission(&mut self, port: &mut Port<'_>) {
        match self {
            Self::Proceeding { last: Some(response) } | Self::Completed { response } => {
                let response = response.clone();
                port.send(response);
            }
            Self::Proceeding { last: None } | Self::Confirmed | Self::Accepted => {}
        }
    }

    /// An ACK with this transaction's branch: told only after a 2xx.
    pub(super) fn ack(&mut self, port: &mut Port<'_>) -> Step {
        match self {
            Self::Completed { .. } => {
                port.stop_resending();
                *self = Self::Confirmed;
                if port.is_reliable() {
                    return Step::End;
                }
                port.end_after(port.values.t4);
                Step::Absorb
            }
            Self::Accepted => Step::Tell,
            Self::Proceeding { .. } | Self::Confirmed => Step::Absorb,
        }
    }

    /// Whether it is time for a 100 rather than for timer G.
    pub(super) fn wants_trying(&self) -> bool {
        matches!(self, Self::Proceeding { last: None })
    }

    /// Timer G.
    pub(super) fn resend(&mut self, port: &mut Port<'_>) {
        if let Self::Completed { response } = self {
            port.send(response.clone());
            port.resend_after(port.clock.interval.saturating_mul(2).min(port.values.t2));
        }
    }

    /// Timers H (told), I and L.
    pub(super) fn end(&self) -> Step {
        if matches!(self, Self::Completed { .. }) { Step::TellAndEnd } else { Step::End }
    }

    /// As plain data, once it has its final response.
    pub(super) fn rest(&self) -> Option<Rest> {
        match self {
            Self::Proceeding { .. } => None,
            Self::Completed { response } => Some(Rest::InviteRefused(response.clone())),
            Self::Confirmed => Some(Rest::InviteConfirmed),
            Self::Accepted => Some(Rest::InviteAccepted),
        }
    }

    pub(super) fn is_answered(&self) -> bool {
        !matches!(self, Self::Proceeding { .. })
    }

    /// The last response, while it may have to be sent again.
    pub(super) fn last(&self) -> Option<&Bytes> {
        match self {
            Self::Proceeding { last } => last.as_ref(),
            Self::Completed { response } => Some(response),
            Self::Confirmed | Self::Accepted => None,
        }
    }
}
