//! A request on its way from one leg of a pair to the other, or from us to one of them.

use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Message, Method, Name};

use super::media::Exchange;
use super::renegotiate::Wish;
use super::side::{ForwardId, Side};
use crate::core::Core;
use crate::transaction::{Asked, ClientId, ServerId};
use seam::Summary;

/// A request on its way from one end to the other.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) id: ForwardId,
    /// The end it came from.
    pub(super) from: Side,
    pub(super) origin: Origin,
    pub(super) said: Said,
    pub(super) client: Option<ClientId>,
    /// What it became: an UPDATE may have to be an INVITE.
    pub(super) sent_invite: bool,
    /// The offer in it, or asked for by it.
    pub(super) exchange: Option<Exchange>,
    /// The description for the other end.
    pub(super) description: Option<Bytes>,
    pub(super) summary: Summary,
    /// The candidates in it, as the other end may see them.
    pub(super) fragment: Option<Bytes>,
    pub(super) attempts: u8,
}

/// What it says.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// What a leg has sent.
    Theirs(Arc<Message>),
    /// Nothing but its method.
    Ours(Method<'static>),
}

impl Said {
    pub(super) fn request(&self) -> Option<&Message> {
        if let Self::Theirs(request) = self { Some(request) } else { None }
    }

    pub(super) fn method(&self) -> Option<Method<'_>> {
        match self {
            Self::Theirs(request) => request.method(),
            Self::Ours(method) => Some(*method),
        }
    }
}

/// Whose request it is.
#[derive(Debug)]
pub(super) enum Origin {
    /// The end's that it came from.
    End(ServerId),
    /// Ours: it keeps a session alive (RFC 4028).
    Refresh,
    /// Ours: it asks an end whether it is there.
    Liveness,
    /// Ours: the media plane wished for it.
    Media(Wish),
    /// Ours: an end has agreed to what the other will never hear of, and is put back to what both know.
    Restore,
}

impl Forward {
    /// A request of ours to one leg: it takes the way of any forward, and is not tried again.
    pub(super) fn of_ours(
        id: ForwardId,
        to: Side,
        method: Method<'static>,
        origin: Origin,
        description: Option<Bytes>,
    ) -> Self {
        Self {
            id,
            from: !to,
            origin,
            sent_invite: method == Method::INVITE,
            said: Said::Ours(method),
            client: None,
            exchange: None,
            description,
            summary: Default::default(),
            fragment: None,
            attempts: ATTEMPTS,
        }
    }

    /// The transaction of who asked for it; `None` if that was ourselves.
    pub(super) fn server(&self) -> Option<ServerId> {
        if let Origin::End(server) = self.origin { Some(server) } else { None }
    }

    /// The same with its request, to be answered.
    pub(super) fn asked(&self) -> Option<Asked<'_>> {
        Some(Asked { server: self.server()?, request: self.request()? })
    }

    /// The request of the leg that it came from.
    pub(super) fn request(&self) -> Option<&Message> {
        self.said.request()
    }

    /// Of what was asked, whatever it becomes.
    pub(super) fn method(&self) -> Option<Method<'_>> {
        self.said.method()
    }

    /// What its author's request says of a header.
    pub(super) fn value(&self, name: Name) -> Option<&[u8]> {
        self.request()?.value(name)
    }

    /// Whether it describes the session, or asks for that.
    pub(super) fn offers(&self) -> bool {
        self.exchange.is_some() || self.sent_invite
    }

    /// Whether its offer is open, rather than waiting for another try.
    pub(super) fn is_open(&self) -> bool {
        self.offers() && (self.exchange.is_some() || self.client.is_some())
    }

    /// Whether an offer has to wait for it: while a phone's own waits for another try, its transaction is open.
    pub(super) fn blocks(&self) -> bool {
        self.is_open() || (self.offers() && self.server().is_some())
    }

    /// Its INVITE, if it is one and on its way.
    pub(super) fn client(&self) -> Option<ClientId> {
        self.client.filter(|_| self.sent_invite)
    }

    /// Its dialogs are over (RFC 3261 §15.1.2): what is pending gets 487.
    pub(super) fn end(self, core: &mut Core) {
        if let Some(client) = self.client() {
            core.cancel(client, None);
        }
        if let Origin::Media(wish) = &self.origin {
            core.timers.cancel(wish.timer);
        }
        if let Some(asked) = self.asked() {
            core.reject(asked, 487);
        }
    }
}

/// A phone's re-INVITE that meets 491 is tried again so often: most phones never do it themselves.
pub(super) const ATTEMPTS: u8 = 3;
