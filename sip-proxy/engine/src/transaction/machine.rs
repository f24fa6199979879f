//! What the four machines share: how one transaction reaches its timers and the network.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{ClientId, ServerId};
use crate::config::TimerValues;
use crate::flow::{Flow, Ticket};
use crate::io::Output;
use crate::timer::{TimerId, TimerQueue};

/// A transaction of either side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Handle {
    Client(ClientId),
    Server(ServerId),
}

/// The ticket of what has no transaction.
pub(super) const NOBODY: Ticket = Ticket(u64::MAX);

/// No machine ever runs more than one timer that sends and one that ends its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alarm {
    /// Timers A, E and G, and the delay before 100 Trying.
    Resend(Handle),
    /// Timers B, D, F, H, I, J, K, L, M.
    End(Handle),
}

/// The running timers of one transaction.
#[derive(Debug, Default)]
pub(super) struct Clock {
    pub(super) resend: Option<TimerId>,
    pub(super) end: Option<TimerId>,
    pub(super) interval: Duration,
}

impl Clock {
    pub(super) fn stop(self, timers: &mut TimerQueue<Alarm>) {
        for timer in self.resend.into_iter().chain(self.end) {
            timers.cancel(timer);
        }
    }
}

/// One transaction's way to the outside, for the length of one step.
pub(super) struct Port<'a> {
    pub(super) now: Duration,
    pub(super) values: &'a TimerValues,
    pub(super) timers: &'a mut TimerQueue<Alarm>,
    pub(super) out: &'a mut VecDeque<Output>,
    pub(super) clock: &'a mut Clock,
    pub(super) handle: Handle,
    pub(super) flow: Flow,
    pub(super) server_name: Option<&'a Arc<str>>,
    pub(super) ticket: Ticket,
}

impl Port<'_> {
    pub(super) fn send(&mut self, message: Bytes) {
        let server_name = self.server_name.cloned();
        self.out.push_back(Output::Send { flow: self.flow, server_name, message, ticket: self.ticket });
    }

    /// Sends what is not this transaction's own: an ACK to a 2xx.
    pub(super) fn send_to(&mut self, flow: Flow, message: Bytes) {
        self.out.push_back(Output::Send { flow, server_name: None, message, ticket: NOBODY });
    }

    pub(super) fn is_reliable(&self) -> bool {
        self.flow.transport.is_reliable()
    }

    pub(super) fn resend_after(&mut self, interval: Duration) {
        self.stop_resending();
        self.clock.interval = interval;
        self.clock.resend =
            Some(self.timers.schedule(self.now.saturating_add(interval), Alarm::Resend(self.handle)));
    }

    /// Once more after this, besides the RFC's timer, whose interval stays what it was.
    pub(super) fn resend_early(&mut self, wait: Duration) {
        self.stop_resending();
        self.clock.resend =
            Some(self.timers.schedule(self.now.saturating_add(wait), Alarm::Resend(self.handle)));
    }

    pub(super) fn stop_resending(&mut self) {
        if let Some(timer) = self.clock.resend.take() {
            self.timers.cancel(timer);
        }
    }

    pub(super) fn end_after(&mut self, time: Duration) {
        self.stop_ending();
        self.clock.end = Some(self.timers.schedule(self.now.saturating_add(time), Alarm::End(self.handle)));
    }

    pub(super) fn stop_ending(&mut self) {
        if let Some(timer) = self.clock.end.take() {
            self.timers.cancel(timer);
        }
    }

    /// 64·T1: how long anything may take (RFC 3261 §17.1.1.2).
    pub(super) fn patience(&self) -> Duration {
        self.values.t1.saturating_mul(64)
    }
}

/// What the table does after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing that the transaction user must see.
    Absorb,
    /// Tell the user.
    Tell,
    /// Tell the user; the transaction is over.
    TellAndEnd,
    /// The transaction is over and the user knows all it needs.
    End,
}
