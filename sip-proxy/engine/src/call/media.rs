//! Asking the media plane, and going on when it has answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sip_wire::{Message, Name, Uri};

use super::side::{BranchId, ForwardId, LegId, PairId, Side};
use super::{CallKey, CallTimer};
use crate::core::{Core, TimerKey};
use crate::door::NotDone;
use crate::io::Output;
use crate::timer::TimerId;
use seam::{Action, ExchangeId, PRODUCT_LIMIT, Refusal, Request, SessionId};

/// An offer that its answer is awaited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) id: ExchangeId,
    /// Which leg offered.
    pub(super) offerer: Side,
}

/// What a reply is waited for.
#[derive(Debug)]
pub(super) enum Wait {
    /// The offer for a branch.
    Branch(BranchId),
    /// The description in a target's response to the initial INVITE.
    Response(PairId, Box<Message>),
    /// The description in a request inside a pair.
    Forward(ForwardId),
    /// The description in the response to one.
    ForwardResponse(ForwardId, Box<Message>),
    /// The answer in an ACK: of which pair, and which end sent it.
    Ack(LegId),
    /// The answer for the ACK of a re-INVITE of ours that asked for an offer.
    Offered(ForwardId),
    /// Candidates in a request inside a pair.
    Fragment(ForwardId),
    /// The count so far, for the order of this number.
    Count(u64),
    /// The last count.
    Delete,
}

impl Wait {
    pub(super) fn is_of_pair(&self, id: PairId) -> bool {
        matches!(self, Wait::Response(pair, _) if *pair == id)
    }
}

/// A call's media session, as far as it has been asked for.
#[derive(Debug)]
pub(super) struct Media {
    key: CallKey,
    pub(super) session: SessionId,
    waiting: Vec<Waiting>,
    requests: u32,
    exchanges: u32,
    /// What it is told as soon as it has been told anything at all.
    wanted: Vec<Action>,
    /// It has been told anything at all.
    pub(super) is_used: bool,
    /// Why it could not offer to a target what the caller has offered.
    pub(super) refused: Option<Refusal>,
}

/// The same as plain data.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredMedia {
    requests: u32,
    exchanges: u32,
    wanted: Vec<Action>,
    is_used: bool,
}

#[derive(Debug)]
struct Waiting {
    number: u32,
    wait: Wait,
    timer: TimerId,
}

impl Media {
    pub(super) fn new(key: CallKey, session: SessionId) -> Self {
        Self {
            key,
            session,
            waiting: Vec::new(),
            requests: 0,
            exchanges: 1,
            wanted: Vec::new(),
            is_used: false,
            refused: None,
        }
    }

    /// Whether nothing is asked of it.
    pub(super) fn is_at_rest(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn stored(self) -> StoredMedia {
        let Self { requests, exchanges, wanted, is_used, .. } = self;
        StoredMedia { requests, exchanges, wanted, is_used }
    }

    pub(super) fn of_stored(key: CallKey, session: SessionId, stored: StoredMedia) -> Self {
        let StoredMedia { requests, exchanges, wanted, is_used } = stored;
        Self { requests, exchanges, wanted, is_used, ..Self::new(key, session) }
    }

    pub(super) fn new_exchange(&mut self) -> ExchangeId {
        self.exchanges = self.exchanges.saturating_add(1);
        ExchangeId(self.exchanges)
    }

    /// Whether a description in a response of this pair's target is being looked at.
    pub(super) fn is_asked_of(&self, pair: PairId) -> bool {
        self.waiting.iter().any(|waiting| waiting.wait.is_of_pair(pair))
    }

    /// Asks for something that a reply comes to.
    pub(super) fn ask(&mut self, action: Action, wait: Wait, core: &mut Core) {
        self.ask_within(core.config.timers.media, action, wait, core);
    }

    pub(super) fn ask_within(&mut self, limit: Duration, action: Action, wait: Wait, core: &mut Core) {
        let number = self.tell(action, core);
        let timer = core.schedule(limit, TimerKey::Call(self.key, CallTimer::Media(number)));
        self.waiting.push(Waiting { number, wait, timer });
    }

    /// Tells something that no reply is awaited for; its number.
    pub(super) fn tell(&mut self, action: Action, core: &mut Core) -> u32 {
        self.is_used = true;
        let (session, number) = (self.session, self.next_request());
        self.requests = number;
        core.out.push_back(Output::Media(Request { session, number, action }));
        for wanted in std::mem::take(&mut self.wanted) {
            self.tell(wanted, core);
        }
        number
    }

    /// Tells what is wanted of the call's media. It begins with the first offer: what is wanted before waits for that.
    pub(super) fn steer(&mut self, action: Action, core: &mut Core) {
        if self.is_used {
            self.tell(action, core);
        } else {
            self.wanted.push(action);
        }
    }

    /// The number of what is asked or told next.
    pub(super) fn next_request(&self) -> u32 {
        self.requests.saturating_add(1)
    }

    /// What waits for the reply of this number.
    pub(super) fn take(&mut self, number: u32, core: &mut Core) -> Option<Wait> {
        let position = self.waiting.iter().position(|waiting| waiting.number == number)?;
        let Waiting { wait, timer, .. } = self.waiting.remove(position);
        core.timers.cancel(timer);
        Some(wait)
    }

    /// No reply matters any more.
    pub(super) fn stop(&mut self, core: &mut Core) {
        for waiting in self.waiting.drain(..) {
            core.timers.cancel(waiting.timer);
            if let Wait::Count(order) = waiting.wait {
                core.answer_order(order, Err(NotDone::Over));
            }
        }
    }
}

/// What the author of a message says it is.
pub(super) fn product_of(message: &Message) -> Option<Arc<str>> {
    let name = if message.status().is_some() { Name::Server } else { Name::UserAgent };
    // Responses say Server (RFC 3261 §20.35), those of some phones User-Agent.
    let value = message.value(name).or_else(|| message.value(Name::UserAgent))?;
    Some(String::from_utf8_lossy(value.get(..PRODUCT_LIMIT).unwrap_or(value)).into())
}

/// The address that a URI names, if it is a literal.
pub(super) fn literal_of(uri: &[u8]) -> Option<SocketAddr> {
    let uri = Uri::parse(uri).ok()?;
    let port = uri.port().unwrap_or(if uri.scheme() == sip_wire::Scheme::Sips { 5061 } else { 5060 });
    Some(SocketAddr::new(uri.host().address()?, port))
}
