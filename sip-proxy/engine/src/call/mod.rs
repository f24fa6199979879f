//! The back-to-back user agent's call.
//!
//! A call has one upstream request (the caller's), any number of [`Branch`]es (one per target tried) and, for every
//! early or confirmed dialog of a branch, a [`Pair`]: the dialog with the caller and the dialog with the target that
//! belong together. Each downstream early dialog has an upstream dialog of its own, so that forking stays visible
//! (RFC 3261 §12.1.2). What travels inside a pair is a [`Forward`].
//!
//! `INVITE`, `SUBSCRIBE` and the requests that make no dialog take the same way; [`Purpose`] tells them apart.

mod answer;
mod body;
mod branch;
mod breadth;
mod end;
mod forward;
mod glare;
mod heard;
mod history;
mod hunt;
mod liveness;
mod media;
mod outcome;
mod pair;
mod redirect;
mod refresh;
mod renegotiate;
mod request;
mod side;
mod subscription;
mod transfer;
mod translate;
mod trickle;

pub(crate) use side::{EndId, Side};
pub(crate) use transfer::read_replaces;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use seam::{ExchangeId, SessionId};
use sip_wire::{Message, Method};

use crate::core::{Core, TimerKey};
use crate::event::{CallEnded, EndCause, EndedBy};
use crate::io::RealmId;
use crate::pickup::Watch;
use crate::question::Caller;
use crate::registrar::{Forwarded, Registrar};
use crate::slot::{Slot, slot_of};
use crate::spirals::Turn;
use crate::strangers::Kind;
use crate::timer::TimerId;
use crate::transaction::{Answer, Incoming, ServerId};
use crate::translation::Secrets;

use branch::Branch;
use end::Ending;
use forward::Forward;
use hunt::Found;
use media::Wait;
use pair::{Leaving, Pair};
use redirect::Step;
use side::Sides;

/// Names a call inside its engine; stale once the call is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// A call's timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallTimer {
    /// The target has rung long enough (RFC 3261 §16.6 timer C).
    Ringing,
    /// A branch got no response at all: the next address or target is tried.
    Failover(u16),
    /// The media plane owes a reply.
    Media(u32),
    /// A 2xx or a reliable provisional response to the end of a pair is repeated until its ACK or PRACK.
    Repeat(EndId),
    /// A session timer (RFC 4028): refresh, or the end.
    Session(EndId),
    /// A phone's re-INVITE has waited long enough for ours.
    Glare(u32),
    /// A re-INVITE that met 491 is tried again.
    Retry(u32),
    /// A re-INVITE that the media plane wished for has taken long enough.
    Renegotiation(u32),
    /// A subscription without an end.
    Expiry,
    /// A call has lasted as long as one may.
    Longest,
}

/// What kind of request began it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// INVITE.
    Session,
    /// SUBSCRIBE.
    Subscription,
    /// Anything that makes no dialog.
    Once,
    /// REGISTER on its way to the core's registrar.
    Register(Forwarded),
}

/// The facts of a request that is admitted.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) incoming: Incoming,
    pub(crate) realm: RealmId,
    pub(crate) caller: Caller,
    /// The user part that From must bear for the other side, if the caller's own claim is corrected.
    pub(crate) identity: Option<String>,
}

/// How a request came out: by a final response, or without one as if by this status.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) status: u16,
    pub(crate) response: Option<Message>,
}

impl From<u16> for Final {
    fn from(status: u16) -> Self {
        Self { status, response: None }
    }
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) key: CallKey,
    pub(crate) purpose: Purpose,
    /// As records name it.
    pub(crate) id: u128,
    slot: Slot,
    session: SessionId,
    upstream: Admitted,
    /// The caller's texts, and the targets'.
    secrets: Sides<Secrets>,
    /// Whether the initial request has its final response.
    answered: bool,
    /// The pair whose 2xx was taken; the media plane may still be thinking about it.
    winner: Option<u32>,
    steps: VecDeque<Step>,
    /// Phones of the step that more would ring at once than the caller allows.
    waiting_phones: VecDeque<Found>,
    /// The To tag of the latest provisional response that the caller has: a failure bears it, too (RFC 3261 §8.2.6.2).
    shown_tag: Option<String>,
    /// Whether a phone was left out because it is the caller's own.
    has_passed_itself: bool,
    /// Users that the call was sent to by redirections, and the one that was dialled.
    seen: Vec<String>,
    branches: Vec<Branch>,
    pairs: Vec<Pair>,
    next_pair: u32,
    forwards: Vec<Forward>,
    next_forward: u32,
    waiting: Vec<(u32, Wait, TimerId)>,
    next_media: u32,
    next_exchange: u32,
    has_media: bool,
    /// Why media could not offer to a target what the caller has offered.
    refused: Option<seam::Refusal>,
    best: Option<Final>,
    /// Until its answer how long it may ring, then how long it may last.
    ringing: Option<TimerId>,
    times: Times,
    sequence: u32,
    ended: Ended,
    /// Whose running calls it counts among, until it is over.
    pub(crate) counted: Vec<(Arc<str>, Kind)>,
    /// What it is a turn of, until it is answered.
    pub(crate) turn: Option<Turn>,
    /// Whose dialogs it tells of.
    pub(crate) watch: Option<Watch>,
    /// Ends of a call that is over which have not had their BYE: it must wait for the ACK to our 2xx.
    leaving: Vec<Leaving>,
}

/// Monotonic moments of a call.
#[derive(Debug, Default)]
struct Times {
    started: Duration,
    alerting: Option<Duration>,
    answered: Option<Duration>,
}

/// How far its end has come.
#[derive(Debug)]
enum Ended {
    No,
    /// The media plane counts; then the record is written and these requests get their answers.
    Counting {
        record: Box<CallEnded>,
        answers: Vec<Answer>,
    },
    /// The record is written; what remains are transactions.
    Yes,
}

/// A new call that hunts for its target.
impl Call {
    pub(crate) fn new(key: CallKey, purpose: Purpose, upstream: Admitted, core: &mut Core) -> Self {
        let slot = slot_of(&upstream.incoming.request);
        let mut secrets = Sides::<Secrets>::default();
        secrets[Side::Caller].add_message(&upstream.incoming.request, upstream.incoming.flow.remote);
        Self {
            key,
            purpose,
            id: core.ids.uuid(),
            slot,
            session: slot.session(core.ids.number()),
            upstream,
            secrets,
            answered: false,
            winner: None,
            steps: VecDeque::new(),
            waiting_phones: VecDeque::new(),
            shown_tag: None,
            has_passed_itself: false,
            seen: Vec::new(),
            branches: Vec::new(),
            pairs: Vec::new(),
            next_pair: 0,
            forwards: Vec::new(),
            next_forward: 0,
            waiting: Vec::new(),
            next_media: 0,
            next_exchange: 1,
            has_media: false,
            refused: None,
            best: None,
            ringing: None,
            times: Times { started: core.now.monotonic, ..Times::default() },
            sequence: 0,
            ended: Ended::No,
            leaving: Vec::new(),
            counted: Vec::new(),
            turn: None,
            watch: None,
        }
    }

    pub(crate) fn upstream_server(&self) -> ServerId {
        self.upstream.incoming.server
    }

    pub(crate) fn first_request(&self) -> &Message {
        &self.upstream.incoming.request
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    fn is_session(&self) -> bool {
        self.purpose == Purpose::Session
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.ended, Ended::No)
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_finished(&self) -> bool {
        match self.ended {
            // What a cancelled target says yet is for its transaction; a 2xx among it is taken down without the call.
            Ended::Yes => self.leaving.is_empty(),
            _ => false,
        }
    }

    fn pair(&self, id: u32) -> Option<&Pair> {
        self.pairs.iter().find(|pair| pair.id == id)
    }

    fn pair_mut(&mut self, id: u32) -> Option<&mut Pair> {
        self.pairs.iter_mut().find(|pair| pair.id == id)
    }

    fn new_exchange(&mut self) -> ExchangeId {
        self.next_exchange = self.next_exchange.saturating_add(1);
        ExchangeId(self.next_exchange)
    }

    fn schedule(&self, after: Duration, timer: CallTimer, core: &mut Core) -> TimerId {
        core.schedule(after, TimerKey::Call(self.key, timer))
    }

    /// A timer of this call fired.
    pub(crate) fn on_timer(&mut self, timer: CallTimer, core: &mut Core, registrar: &mut Registrar) {
        match timer {
            CallTimer::Ringing => self.on_ringing_too_long(core),
            CallTimer::Failover(branch) => self.on_failover(branch, core, registrar),
            CallTimer::Media(number) => self.on_media_timeout(number, core, registrar),
            CallTimer::Repeat(end) => self.on_repeat(end.pair, end.side, core),
            CallTimer::Session(end) => self.on_session_timer(end.pair, end.side, core),
            CallTimer::Glare(pair) => self.on_glare_timeout(pair, core),
            CallTimer::Retry(forward) => self.on_retry(forward, core),
            CallTimer::Renegotiation(forward) => self.on_renegotiation_timeout(forward, core),
            CallTimer::Expiry => {
                let ending = Ending { cause: EndCause::SessionExpired, by: EndedBy::Sbc, status: 200 };
                self.finish(ending, Vec::new(), core)
            }
            CallTimer::Longest => {
                let after = core.config.limits.longest_call.as_secs();
                let who = self.caller_name();
                core.notice(
                    "call_too_long",
                    Some(self.upstream.incoming.flow.remote),
                    format!("a call of {who} was ended after limits.call_seconds = {after}"),
                );
                self.hang_up(EndCause::TooLong, EndedBy::Sbc, core);
            }
        }
    }
}

/// Whether a request of this method makes or changes the target of a dialog (RFC 3261 §12.2, RFC 3311, RFC 6665).
fn is_target_refresh(method: Method<'_>) -> bool {
    [Method::INVITE, Method::UPDATE, Method::SUBSCRIBE, Method::NOTIFY, Method::REFER].contains(&method)
}
