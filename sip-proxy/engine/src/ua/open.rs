//! What is open in a call: the INVITE that began it, requests that wait for their responses, a REFER.

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Message, Method};

use super::core::Core;
use super::event::{CallNumber, Fork};
use crate::timer::TimerId;
use crate::transaction::{ClientId, Context, Incoming, ServerId};

/// The calling side.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) client: Option<ClientId>,
    pub(super) request: Arc<Message>,
    pub(super) offer: Option<Bytes>,
    /// A new offer for the PRACK that confirms the answer to the first.
    pub(super) prack_offer: Option<Bytes>,
    pub(super) is_cancelled: bool,
    pub(super) is_authenticated: bool,
}

impl Caller {
    pub(super) fn cancel(&mut self, core: &mut Core) {
        self.is_cancelled = true;
        if let Some(client) = self.client {
            core.transactions.cancel(client, None, &mut Context { now: core.now, out: &mut core.out });
        }
    }
}

/// The called side.
#[derive(Debug)]
pub(super) struct Callee {
    pub(super) invite: Box<Incoming>,
    pub(super) next_rseq: u32,
    /// The ACK to the first 2xx has come.
    pub(super) acknowledged: bool,
}

impl Callee {
    pub(super) fn server(&self) -> ServerId {
        self.invite.server
    }
}

/// A request of ours that waits for its final response.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) id: u32,
    pub(super) fork: Fork,
    pub(super) client: Option<ClientId>,
    pub(super) message: Arc<Message>,
    /// It carries an offer.
    pub(super) offers: bool,
    pub(super) is_authenticated: bool,
    pub(super) attempts: u8,
    pub(super) is_cancelled: bool,
    /// When it is tried again.
    pub(super) retry: Option<TimerId>,
}

impl Sent {
    /// Whether it is a re-INVITE on its way, rather than one that waits for another try.
    pub(super) fn is_open_invite(&self) -> bool {
        self.is_invite() && self.client.is_some()
    }

    /// Nobody waits for its response any more. An INVITE that rings would wait for ever.
    pub(super) fn give_up(self, core: &mut Core) {
        if let Some(timer) = self.retry {
            core.timers.cancel(timer);
        }
        if let Some(client) = self.client.filter(|_| self.is_invite()) {
            core.transactions.cancel(client, None, &mut Context { now: core.now, out: &mut core.out });
        }
    }

    pub(super) fn is_invite(&self) -> bool {
        self.message.method() == Some(Method::INVITE)
    }
}

/// A REFER of theirs.
#[derive(Debug)]
pub(super) enum Transfer {
    /// It waits for our answer.
    Asked(Box<Incoming>),
    /// The call that it asked for is under way, and we report on it.
    Reporting,
}

/// A REFER of ours. It ends the call that it was sent in once they have done what it asks (RFC 5589 §6.1, §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Referral {
    /// The call that they are to take over, in an attended transfer: it has served its purpose too.
    pub(super) consultation: Option<CallNumber>,
}
