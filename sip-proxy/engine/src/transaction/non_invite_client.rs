//! The non-INVITE client transaction (RFC 3261 §17.1.2).

use bytes::Bytes;

use super::machine::{Port, Step};
use super::rest::Rest;

/// States of RFC 3261 figure 6.
#[derive(Debug)]
pub(super) enum NonInviteClient {
    /// Nothing has come back yet.
    Trying { request: Bytes },
    /// A provisional response has come.
    Proceeding { request: Bytes },
    /// A final response has come; its retransmissions are absorbed.
    Completed,
}

impl NonInviteClient {
    pub(super) fn start(request: Bytes, port: &mut Port<'_>) -> Self {
        port.send(request.clone());
        if !port.is_reliable() {
            port.resend_after(port.values.t1);
        }
        port.end_after(port.patience());
        Self::Trying { request }
    }

    pub(super) fn receive(&mut self, status: u16, port: &mut Port<'_>) -> Step {
        match (&mut *self, status) {
            (Self::Trying { request } | Self::Proceeding { request }, 100..=199) => {
                *self = Self::Proceeding { request: std::mem::take(request) };
                if status == 100 { Step::Absorb } else { Step::Tell }
            }
            (Self::Trying { .. } | Self::Proceeding { .. }, _) => {
                port.stop_resending();
                if port.is_reliable() {
                    return Step::TellAndEnd;
                }
                port.end_after(port.values.t4);
                *self = Self::Completed;
                Step::Tell
            }
            (Self::Completed, _) => Step::Absorb,
        }
    }

    /// Timer E: doubles up to T2, and is T2 once a provisional response came.
    pub(super) fn resend(&mut self, port: &mut Port<'_>) {
        match self {
            Self::Trying { request } => {
                port.send(request.clone());
                port.resend_after(port.clock.interval.saturating_mul(2).min(port.values.t2));
            }
            Self::Proceeding { request } => {
                port.send(request.clone());
                port.resend_after(port.values.t2);
            }
            Self::Completed => {}
        }
    }

    /// Timers F and K.
    pub(super) fn end(&self) -> Step {
        if self.is_waiting() { Step::TellAndEnd } else { Step::End }
    }

    /// As plain data, once it has its final response.
    pub(super) fn rest(&self) -> Option<Rest> {
        (!self.is_waiting()).then_some(Rest::Answered)
    }

    /// A transport failure matters only while an answer is awaited.
    pub(super) fn is_waiting(&self) -> bool {
        !matches!(self, Self::Completed)
    }

    /// Whether any response has come.
    pub(super) fn has_response(&self) -> bool {
        !matches!(self, Self::Trying { .. })
    }
}
