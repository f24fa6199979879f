//! The back-to-back user agent's call.
//!
//! A call has one upstream request (the caller's), any number of [`Branch`](branch::Branch)es (one per target tried) and, for every
//! early or confirmed dialog of a branch, a [`Pair`](pair::Pair): the [`Leg`](leg::Leg) with the caller and the leg with the target that
//! belong together. Each downstream early dialog has an upstream dialog of its own, so that forking stays visible
//! (RFC 3261 §12.1.2). What travels inside a pair is a [`Forward`](forward::Forward).
//!
//! [`Parties`] says who is in it and writes what they are told of each other; [`Hunt`] knows whom else to try; [`Media`]
//! what was asked of the media plane. [`Call`] decides.
//!
//! `INVITE`, `SUBSCRIBE` and the requests that make no dialog take the same way; [`Purpose`] tells them apart.

mod answer;
mod body;
mod branch;
mod breadth;
mod diversion;
mod end;
mod fault;
mod forward;
mod heard;
mod history;
mod hunt;
mod inside;
mod leg;
mod media;
mod midcall;
mod ours;
mod pair;
mod parties;
mod redirect;
mod renegotiate;
mod request;
mod response;
mod side;
mod subscription;
pub(crate) mod taken;
mod targets;
mod transfer;
mod translate;
mod trickle;

pub(crate) use fault::{End, Final};

pub use crate::keys::CallKey;
pub(crate) use crate::keys::{CallTimer, LegId, Side};

use std::sync::Arc;
use std::time::Duration;

use sip_wire::{Message, Method, Name};

use crate::core::{Core, TimerKey};
use crate::door::{CallAnswer, CallId, CallOrder, NotDone};
use crate::event::{CallEnded, CallEventKind, CallStarted};
use crate::flow::{ConnectionId, Flow, RealmId};
use crate::question::Caller;
use crate::registrar::{Forwarded, Registrar};
use crate::spirals::Turn;
use crate::strangers::Kind;
use crate::timer::TimerId;
use crate::transaction::{self, Answer, Asked, Incoming, ServerId};
use crate::watchers::Watch;
use seam::path::PathRecord;
use seam::{Action, Event, Reply, SessionId, StreamStatistics};

use end::{Ended, Leaving, Lifetime, Record, side_of};
use fault::{Fault, Given};
use hunt::Hunt;
use media::{Media, Wait};
use parties::Parties;
use side::PairId;

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

/// How far the initial request is from its final response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Hunting,
    /// The 2xx of this pair was taken; the media plane may still be thinking about it.
    Taken(PairId),
    Answered,
}

/// What the engine counts a call among.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Whose running calls it is one of, until it is over.
    pub(crate) counted: Vec<(Arc<str>, Kind)>,
    /// What it is a turn of, until it is answered.
    pub(crate) turn: Option<Turn>,
    /// Whose dialogs it tells of.
    pub(crate) watch: Option<Watch>,
}

/// A call.
#[derive(Debug)]
pub(crate) struct Call {
    parties: Parties,
    hunt: Hunt,
    media: Media,
    progress: Progress,
    lifetime: Lifetime,
    record: Record,
    ended: Ended,
    leaving: Vec<Leaving>,
    pub(crate) standing: Standing,
}

/// What happens to it, and how it ends.
impl Call {
    pub(crate) fn new(key: CallKey, purpose: Purpose, upstream: Admitted, core: &mut Core) -> Self {
        let parties = Parties::new(key, purpose, upstream);
        let random = core.ids.uuid();
        let session = parties.slot.session(core.ids.number());
        let record = Record::new(CallId::new(core.config.node, session, core.now.wall, random));
        Self {
            parties,
            hunt: Hunt::default(),
            media: Media::new(key, session),
            progress: Progress::Hunting,
            lifetime: Lifetime::new(core.now.monotonic),
            record,
            ended: Ended::No,
            leaving: Vec::new(),
            standing: Standing::default(),
        }
    }

    /// As records name it.
    pub(crate) fn id(&self) -> CallId {
        self.record.id
    }

    pub(crate) fn purpose(&self) -> &Purpose {
        &self.parties.purpose
    }

    pub(crate) fn upstream_server(&self) -> ServerId {
        self.parties.upstream.incoming.server
    }

    pub(crate) fn first_request(&self) -> &Message {
        &self.parties.upstream.incoming.request
    }

    pub(crate) fn session(&self) -> SessionId {
        self.media.session
    }

    /// Whether the initial request has its final response.
    pub(crate) fn is_answered(&self) -> bool {
        self.progress == Progress::Answered
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

    fn schedule(&self, after: Duration, timer: CallTimer, core: &mut Core) -> TimerId {
        core.schedule(after, TimerKey::Call(self.parties.key, timer))
    }

    /// A timer of this call fired.
    pub(crate) fn on_timer(&mut self, timer: CallTimer, core: &mut Core, registrar: &mut Registrar) {
        match timer {
            CallTimer::Ringing => self.on_ringing_too_long(core),
            CallTimer::Failover(branch) => self.on_failover(branch, core, registrar),
            CallTimer::Media(number) => self.on_media_timeout(number, core, registrar),
            CallTimer::Repeat(leg) => self.on_repeat(leg, core),
            CallTimer::Session(leg) => self.on_session_timer(leg, core),
            CallTimer::Glare(pair) => self.on_glare_timeout(pair, core),
            CallTimer::Retry(forward) => self.on_retry(forward, core),
            CallTimer::Renegotiation(forward) => self.on_renegotiation_timeout(forward, core),
            CallTimer::Expiry => self.finish(Fault::from(End::Expired).after_answer(), Vec::new(), core),
            CallTimer::Longest => {
                let after = core.config.limits.longest_call.as_secs();
                let who = self.parties.caller_name();
                core.notice(
                    "call_too_long",
                    Some(self.parties.upstream.incoming.flow.remote),
                    format!("a call of {who} was ended after limits.call_seconds = {after}"),
                );
                self.hang_up(End::TooLong, core);
            }
        }
    }

    /// The media plane noticed something, or wants something.
    pub(crate) fn on_media_event(&mut self, event: Event, core: &mut Core, registrar: &mut Registrar) {
        match event {
            Event::Answer { number, description } => {
                self.on_media(number, Reply::Description(description), core, registrar)
            }
            Event::Inactive => self.hang_up(End::NoMedia, core),
            Event::Unheard => self.ask_whether_alive(core),
            Event::Renegotiate { wish, legs, deadline } => self.renegotiate(wish, legs, deadline, core),
            Event::Path(entry) => self.record.write(CallEventKind::Path(PathRecord::Entry(entry)), core),
            Event::Metered { direct, is_direct } => {
                self.record.write(CallEventKind::Metered { direct, is_direct }, core)
            }
        }
    }

    /// Whoever was reached by one flow is reached by another.
    pub(crate) fn follow_move(&mut self, from: Flow, to: Flow, core: &mut Core) {
        let leaving = self.leaving.iter_mut().map(|leaving| &mut leaving.leg.dialog);
        leaving.filter(|dialog| dialog.flow == from).for_each(|dialog| dialog.flow = to);
        self.parties.follow_move(from, to, core);
    }

    pub(crate) fn connection_closed(&mut self, connection: ConnectionId, core: &mut Core) {
        self.parties.connection_closed(connection, core);
    }

    fn record_started(&mut self, core: &mut Core) {
        let request = &self.parties.upstream.incoming.request;
        let text = |bytes: &[u8]| Arc::<str>::from(String::from_utf8_lossy(bytes));
        let realm =
            core.realm(self.parties.upstream.realm).map(|realm| realm.name.clone()).unwrap_or_default();
        let started = CallStarted {
            session: self.media.session,
            realm,
            source: self.parties.upstream.incoming.flow.remote,
            transport: self.parties.upstream.incoming.flow.transport.via_token().into(),
            caller: self.parties.caller_name(),
            from: text(request.from().map(|from| from.uri.as_bytes()).unwrap_or_default()),
            request_uri: text(request.request_uri().unwrap_or_default()),
            call_id: text(request.call_id().unwrap_or_default()),
            user_agent: text(request.value(Name::UserAgent).unwrap_or_default()),
        };
        self.record.write(CallEventKind::Started(Box::new(started)), core);
    }

    /// The initial request fails: the caller gets the status, or what the response says.
    fn fail_upstream(&mut self, outcome: impl Into<Final>, core: &mut Core) {
        let outcome = outcome.into();
        self.cancel_branches(None, outcome.fault.reason, core);
        self.finish_upstream(outcome, core);
    }

    /// The initial request gets its final response, and with it the call its end.
    fn finish_upstream(&mut self, outcome: Final, core: &mut Core) {
        let Final { fault, response } = outcome;
        if self.is_answered() || self.is_over() {
            return;
        }
        self.give_up_winner(core);
        if fault.status == 408 && !self.parties.is_session() {
            core.stay_silent(self.upstream_server());
            self.finish(fault, Vec::new(), core);
            return;
        }
        let answer = self.final_answer(fault.status, response.as_ref(), core);
        self.finish(fault, vec![answer], core);
    }

    /// The initial request has its final response now. The target's 2xx may have come, and the caller's INVITE fail all the same.
    fn give_up_winner(&mut self, core: &mut Core) {
        if let Progress::Taken(winner) = std::mem::replace(&mut self.progress, Progress::Answered) {
            self.say_bye(winner.leg(Side::Target), None, core);
        }
    }

    fn final_answer(&mut self, status: u16, given: Option<&Given>, core: &mut Core) -> Answer {
        let response = self.parties.final_response(status, given, self.media.refused, core);
        Answer { server: self.upstream_server(), status, response }
    }

    /// A one-off request has been answered elsewhere.
    fn done_once(&mut self, core: &mut Core) {
        self.progress = Progress::Answered;
        self.finish(End::Done.into(), Vec::new(), core);
    }

    /// BYE from one leg.
    fn on_bye(&mut self, at: LegId, asked: Asked<'_>, core: &mut Core) {
        let Asked { server, request: bye } = asked;
        let answer = transaction::response_to(bye, 200, None, None);
        let answer = match &core.config.product {
            Some(product) => answer.header(Name::Server, product.as_bytes()),
            None => answer,
        };
        let answer = Answer { server, status: 200, response: answer.finish().into() };
        if !self.is_answered() {
            // A caller may end an early dialog with BYE (RFC 3261 §15); the INVITE still wants its answer.
            let fault = Fault::from(End::EarlyBye(side_of(at.side)));
            self.cancel_branches(None, fault.reason, core);
            self.give_up_winner(core);
            let upstream = self.final_answer(fault.status, None, core);
            self.finish(fault, vec![upstream, answer], core);
            return;
        }
        let config = core.config.clone();
        let names = self.parties.pair_names(&config, at.pair, at.side);
        let reason = translate::reason_of(bye, names.as_ref());
        self.say_bye(!at, reason.as_deref(), core);
        self.finish(End::Bye(side_of(at.side)).into(), vec![answer], core);
    }

    fn say_bye(&mut self, at: LegId, reason: Option<&[u8]>, core: &mut Core) {
        let Some(pair) = self.parties.pair_mut(at.pair) else { return };
        let leg = &mut pair.legs[at.side];
        // RFC 3261 §15: the caller's ACK must have come before our BYE goes there; a 2xx of theirs must have our ACK.
        if leg.invite.open.is_some() {
            leg.acknowledge(None, core);
        }
        if at.side == Side::Caller && leg.repeat.is_some() && !leg.invite.is_acknowledged {
            pair.bye_on_ack = Some(pair::ByeOnAck { reason: reason.map(<[u8]>::to_vec) });
            return;
        }
        leg.say_bye(reason, core);
    }

    /// Does what is ordered through the [`door`](crate::door); `number` names the order in its answer.
    pub(crate) fn obey(&mut self, number: u64, order: CallOrder, core: &mut Core) {
        if self.is_over() {
            return core.answer_order(number, Err(NotDone::Over));
        }
        match order {
            CallOrder::HangUp => self.hang_up(End::Operator, core),
            CallOrder::Constrain(constraint) => self.media.steer(Action::Constrain(constraint), core),
            CallOrder::Release => self.media.steer(Action::Unconstrain, core),
            CallOrder::Listen(listener) => self.media.steer(Action::Attach(listener), core),
            CallOrder::Unlisten(listener) => self.media.steer(Action::Detach(listener), core),
            CallOrder::Query if self.media.is_used => {
                return self.media.ask(Action::Query, Wait::Count(number), core);
            }
            CallOrder::Query => return self.tell_state(number, Vec::new(), core),
        }
        core.answer_order(number, Ok(CallAnswer::Done));
    }

    /// Who has asked how it is hears it.
    fn tell_state(&self, number: u64, streams: Vec<StreamStatistics>, core: &mut Core) {
        let state = self.lifetime.state(streams, core.now.monotonic);
        core.answer_order(number, Ok(CallAnswer::State(state)));
    }

    /// Ends the call from our side: BYE to both ends, or what an unanswered one needs.
    pub(crate) fn hang_up(&mut self, end: End, core: &mut Core) {
        if self.is_over() {
            return;
        }
        if !self.is_answered() {
            self.fail_upstream(end, core);
            return;
        }
        let fault = Fault::from(end).after_answer();
        let confirmed: Vec<PairId> =
            self.parties.pairs.iter().filter(|pair| pair.is_confirmed()).map(|pair| pair.id).collect();
        for pair in confirmed {
            self.say_bye(pair.leg(Side::Caller), fault.reason, core);
            self.say_bye(pair.leg(Side::Target), fault.reason, core);
        }
        self.finish(fault, Vec::new(), core);
    }

    /// The end: media is deleted first, so that the record has its counts; then the record is written; then the answers
    /// leave.
    fn finish(&mut self, fault: Fault, answers: Vec<Answer>, core: &mut Core) {
        if self.is_over() {
            return;
        }
        while let Some(pair) = self.parties.pairs.first().map(|pair| pair.id) {
            self.drop_pair(pair, core);
        }
        self.lifetime.limit(None, core);
        self.media.stop(core);
        for branch in self.parties.branches.iter() {
            core.dialogs.halves.remove(&branch.half_dialog());
        }
        let mut record = Box::new(self.lifetime.end(fault, core.now.monotonic));
        record.legs = self.parties.branches.iter().map(|branch| branch.recorded(core)).collect();
        self.ended = Ended::Counting { record, answers };
        if self.media.is_used {
            self.media.ask(Action::Delete, Wait::Delete, core);
        } else {
            self.counted(Vec::new(), Duration::ZERO, core);
        }
    }

    /// The media plane has counted.
    fn counted(&mut self, streams: Vec<StreamStatistics>, direct: Duration, core: &mut Core) {
        let Ended::Counting { record, answers } = std::mem::replace(&mut self.ended, Ended::Yes) else {
            return;
        };
        if self.parties.is_session() {
            self.record.write(CallEventKind::Ended(end::counted(record, streams, direct)), core);
        }
        let is_unproven =
            matches!(&self.parties.purpose, Purpose::Register(forwarded) if forwarded.is_strangers);
        for Answer { server, status, response } in answers {
            core.respond(server, status, response);
            // **State comes after proof**, behind a registrar too: whom it refuses has proven nothing, and is not remembered for half
            // a minute. Its REGISTER that comes again is asked about again.
            if is_unproven && status >= 300 {
                core.transactions.forget(server);
            }
        }
    }

    /// Forgets a pair: its dialogs, timers and requests.
    fn drop_pair(&mut self, id: PairId, core: &mut Core) {
        let pairs = &mut self.parties.pairs;
        let Some(position) = pairs.iter().position(|pair| pair.id == id) else { return };
        self.leaving.extend(pairs.remove(position).end(core));
    }

    fn on_repeat(&mut self, at: LegId, core: &mut Core) {
        if let Some(leaving) = self.leaving.iter_mut().find(|leaving| leaving.leg.id == at) {
            if leaving.leg.repeat(core).is_some() {
                self.leave(at, core);
            }
            return;
        }
        let over = self.parties.leg_mut(at).and_then(|leg| leg.repeat(core));
        match over {
            None => {}
            Some(answer) if answer.status >= 200 => self.hang_up(End::NoAck, core),
            Some(answer) if answer.server == self.upstream_server() => self.fail_upstream(End::NoPrack, core),
            Some(_) => {}
        }
    }

    /// Says goodbye to a leg of a call that is over: its ACK has come, or never will.
    fn leave(&mut self, at: LegId, core: &mut Core) {
        if let Some(Leaving { leg, reason }) = Leaving::take(&mut self.leaving, at, core) {
            leg.say_bye(reason.as_deref(), core);
        }
    }
}

/// How a call ended whose process has: for whoever finds its record open.
pub fn crashed(is_answered: bool) -> CallEnded {
    let fault = Fault::from(End::Crash);
    let fault = if is_answered { fault.after_answer() } else { fault };
    CallEnded::new(fault.cause, fault.side, fault.status)
}

/// Whether a request of this method makes or changes the target of a dialog (RFC 3261 §12.2, RFC 3311, RFC 6665).
fn is_target_refresh(method: Method<'_>) -> bool {
    [Method::INVITE, Method::UPDATE, Method::SUBSCRIBE, Method::NOTIFY, Method::REFER].contains(&method)
}
