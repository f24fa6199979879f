//! How calls end, and what is written of them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use seam::path::PathRecord;
use seam::{Action, Event, Reply, StreamStatistics};
use sip_wire::{Message, Name};

use super::media::Wait;
use super::pair::side_of;
use super::side::{EndId, Side};
use super::{Call, CallTimer, Ended, Final};
use crate::core::{Core, TimerKey, dialog_key};
use crate::event::{CallEnded, CallEventKind, CallStarted, EndCause, EndedBy};
use crate::registrar::Registrar;
use crate::transaction::{self, Answer, Asked, ServerId};

/// Why a call ends, by whom, and with which status.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) cause: EndCause,
    pub(super) by: EndedBy,
    pub(super) status: u16,
}

impl Call {
    pub(super) fn record(&mut self, what: CallEventKind, core: &mut Core) {
        let sequence = self.sequence;
        self.sequence = self.sequence.saturating_add(1);
        core.record(self.id, sequence, what);
    }

    pub(super) fn record_started(&mut self, core: &mut Core) {
        let request = &self.upstream.incoming.request;
        let text = |bytes: &[u8]| Arc::<str>::from(String::from_utf8_lossy(bytes));
        let realm = core.realm(self.upstream.realm).map(|realm| realm.name.clone()).unwrap_or_default();
        let started = CallStarted {
            session: self.session,
            realm,
            source: self.upstream.incoming.flow.remote,
            transport: self.upstream.incoming.flow.transport.via_token().into(),
            caller: self.caller_name(),
            from: text(request.from().map(|from| from.uri.as_bytes()).unwrap_or_default()),
            request_uri: text(request.request_uri().unwrap_or_default()),
            call_id: text(request.call_id().unwrap_or_default()),
            user_agent: text(request.value(Name::UserAgent).unwrap_or_default()),
            minted_call_id: "".into(),
        };
        self.record(CallEventKind::Started(Box::new(started)), core);
    }

    /// The initial request fails: the caller gets the status, or what the response says.
    pub(super) fn fail_upstream(&mut self, outcome: impl Into<Final>, cause: EndCause, core: &mut Core) {
        let outcome = outcome.into();
        let by = if outcome.response.is_some() { EndedBy::Callee } else { EndedBy::Sbc };
        self.cancel_branches(None, None, core);
        self.finish_upstream(outcome, cause, by, core);
    }

    pub(super) fn refuse_upstream(&mut self, server: ServerId, status: u16, core: &mut Core) {
        if server == self.upstream.incoming.server {
            self.fail_upstream(status, EndCause::Failed, core);
        }
    }

    /// The initial request gets its final response, and with it the call its end.
    pub(super) fn finish_upstream(&mut self, outcome: Final, cause: EndCause, by: EndedBy, core: &mut Core) {
        let Final { status, response } = outcome;
        if self.answered || self.is_over() {
            return;
        }
        self.answered = true;
        // The target's 2xx came, and the caller's INVITE fails all the same.
        if let Some(winner) = self.winner {
            self.say_bye(winner, Side::Target, None, core);
        }
        let ending = Ending { cause, by, status };
        if status == 408 && !self.is_session() {
            core.stay_silent(self.upstream.incoming.server);
            self.finish(ending, Vec::new(), core);
            return;
        }
        let response = self.final_response(status, response.as_ref(), core);
        let answer = Answer { server: self.upstream.incoming.server, status, response };
        self.finish(ending, vec![answer], core);
    }

    fn final_response(&mut self, status: u16, message: Option<&Message>, core: &mut Core) -> Bytes {
        let config = core.config.clone();
        // RFC 3261 §16.7 step 6: a 503 of one target says nothing about us.
        let status = if status == 503 && message.is_some() { 500 } else { status };
        // A redirection that leads nowhere is no more than a target that is not there.
        let status = if (300..400).contains(&status) { 480 } else { status };
        // The caller shall not answer challenges that were meant for us, but for the registrar's behind us.
        let is_register = matches!(self.purpose, super::Purpose::Register(_));
        let status =
            if matches!(status, 401 | 407) && !is_register && message.is_some() { 403 } else { status };
        let tag = self.shown_tag.clone().unwrap_or_else(|| core.ids.tag());
        let last = u16::try_from(self.branches.len()).unwrap_or_default().saturating_sub(1);
        let mut names = self.branch_names(&config, last, Side::Target);
        let reason = message
            .filter(|message| message.status() == Some(status))
            .and_then(Message::reason)
            .zip(names.as_ref())
            .map(|(reason, names)| names.apply(reason));
        let mut out =
            transaction::response_to(&self.upstream.incoming.request, status, reason.as_deref(), Some(&tag));
        if let (Some(message), Some(names)) = (message, &mut names) {
            if is_register {
                for name in [Name::WwwAuthenticate, Name::ProxyAuthenticate] {
                    for value in message.values(name) {
                        out = out.header(name, value);
                    }
                }
            }
            // A description in it is an example (RFC 3261 §21.4.26) or a list of abilities (§11.2), and shows where its
            // author is.
            out = match super::body::body_for(message, None, names, core) {
                Ok(body) => super::body::add(crate::passing::copy_headers(out, message, names, core), body),
                // Not 200 for what does not arrive.
                Err(fault) if (200..300).contains(&status) => {
                    core.body_refused(self.upstream.incoming.flow, fault);
                    transaction::response_to(&self.upstream.incoming.request, 502, None, Some(&tag))
                }
                Err(fault) => {
                    core.body_refused(self.upstream.incoming.flow, fault);
                    crate::passing::copy_headers(out, message, names, core)
                }
            };
        } else if status == 488 {
            let warning = self.refused.and_then(seam::Refusal::warning);
            out = warning.into_iter().fold(out, |out, warning| out.header(Name::Warning, warning.as_bytes()));
        } else if status == 503 {
            out = out.header(Name::RetryAfter, crate::times::rest_of(config.limits.retry_after).as_bytes());
        }
        out.finish().into()
    }

    /// A one-off request has been answered elsewhere.
    pub(super) fn done_once(&mut self, core: &mut Core) {
        self.answered = true;
        let ending = Ending { cause: EndCause::Bye, by: EndedBy::Caller, status: 200 };
        self.finish(ending, Vec::new(), core);
    }

    /// BYE from one end.
    pub(super) fn on_bye(&mut self, at: EndId, asked: Asked<'_>, core: &mut Core) {
        let EndId { pair: id, side } = at;
        let Asked { server, request: bye } = asked;
        let answer = transaction::response_to(bye, 200, None, None);
        let answer = match &core.config.product {
            Some(product) => answer.header(Name::Server, product.as_bytes()),
            None => answer,
        };
        let answer = Answer { server, status: 200, response: answer.finish().into() };
        if !self.answered {
            // A caller may end an early dialog with BYE (RFC 3261 §15); the INVITE still wants its answer.
            self.cancel_branches(None, None, core);
            self.answered = true;
            if let Some(winner) = self.winner {
                self.say_bye(winner, Side::Target, None, core);
            }
            let terminated = self.final_response(487, None, core);
            let server = self.upstream.incoming.server;
            let upstream = Answer { server, status: 487, response: terminated };
            let ending = Ending { cause: EndCause::Cancelled, by: side_of(side), status: 487 };
            self.finish(ending, vec![upstream, answer], core);
            return;
        }
        let config = core.config.clone();
        let names = self.pair_names(&config, id, side);
        let reason = super::translate::reason_of(bye, names.as_ref());
        self.say_bye(id, !side, reason.as_deref(), core);
        let ending = Ending { cause: EndCause::Bye, by: side_of(side), status: 200 };
        self.finish(ending, vec![answer], core);
    }

    fn say_bye(&mut self, id: u32, side: Side, reason: Option<&[u8]>, core: &mut Core) {
        // RFC 3261 §15: the caller's ACK must have come before our BYE goes there; a 2xx of theirs must have our ACK.
        if self.pair(id).is_some_and(|pair| pair.ends[side].open_invite.is_some()) {
            self.acknowledge(id, side, None, core);
        }
        let Some(position) = self.pairs.iter().position(|pair| pair.id == id) else { return };
        let Some(pair) = self.pairs.get_mut(position) else { return };
        if side == Side::Caller && pair.ends[side].repeat.is_some() && !pair.ends[side].is_acknowledged {
            pair.farewell = Some(reason.map(<[u8]>::to_vec));
            return;
        }
        let mut pair = self.pairs.swap_remove(position);
        self.send_bye(&mut pair.ends[side], reason, core);
        self.pairs.push(pair);
    }

    /// Ends the call from our side: BYE to both ends, or what an unanswered one needs.
    pub(crate) fn hang_up(&mut self, cause: EndCause, side: EndedBy, core: &mut Core) {
        if self.is_over() {
            return;
        }
        if !self.answered {
            let status = match cause {
                EndCause::Shutdown => 503,
                EndCause::MediaRefused => 488,
                _ => 480,
            };
            self.cancel_branches(None, None, core);
            self.finish_upstream(status.into(), cause, side, core);
            return;
        }
        let confirmed: Vec<u32> =
            self.pairs.iter().filter(|pair| pair.is_confirmed()).map(|pair| pair.id).collect();
        for pair in confirmed {
            self.say_bye(pair, Side::Caller, None, core);
            self.say_bye(pair, Side::Target, None, core);
        }
        self.finish(Ending { cause, by: side, status: 200 }, Vec::new(), core);
    }

    /// The end: media is deleted first, so that the record has its counts; then the record is written; then the answers
    /// leave.
    pub(super) fn finish(&mut self, ending: Ending, answers: Vec<Answer>, core: &mut Core) {
        if self.is_over() {
            return;
        }
        let pairs: Vec<u32> = self.pairs.iter().map(|pair| pair.id).collect();
        for pair in pairs {
            self.drop_pair(pair, core);
        }
        for timer in self.ringing.take().into_iter().chain(self.waiting.drain(..).map(|waiting| waiting.2)) {
            core.timers.cancel(timer);
        }
        for branch in &self.branches {
            core.half_dialogs.remove(&dialog_key(&branch_call_id(branch), &branch_tag(branch), b""));
        }
        let since = |moment: Duration| moment.saturating_sub(self.times.started);
        let now = core.now.monotonic;
        let Ending { cause, by, status } = ending;
        let record = Box::new(CallEnded {
            cause,
            side: by,
            status,
            alerting_after: self.times.alerting.map(since),
            answered_after: self.times.answered.map(since),
            total: since(now),
            talked: self.times.answered.map(|answered| now.saturating_sub(answered)).unwrap_or_default(),
            direct: Duration::ZERO,
            media: Vec::new(),
        });
        self.ended = Ended::Counting { record, answers };
        if self.has_media {
            let number = self.tell_media(Action::Delete, core);
            let timer =
                core.schedule(core.config.timers.media, TimerKey::Call(self.key, CallTimer::Media(number)));
            self.waiting.push((number, Wait::Delete, timer));
        } else {
            self.counted(Vec::new(), Duration::ZERO, core);
        }
    }

    /// The media plane has counted.
    pub(super) fn counted(&mut self, streams: Vec<StreamStatistics>, direct: Duration, core: &mut Core) {
        let Ended::Counting { mut record, answers } = std::mem::replace(&mut self.ended, Ended::Yes) else {
            return;
        };
        record.media = streams;
        // Media ends a moment after the talk.
        record.direct = direct.min(record.talked);
        if self.is_session() {
            self.record(CallEventKind::Ended(record), core);
        }
        let is_unproven =
            matches!(&self.purpose, super::Purpose::Register(forwarded) if forwarded.is_strangers);
        for Answer { server, status, response } in answers {
            core.respond(server, status, response);
            // **State comes after proof**, behind a registrar too: whom it refuses has proven nothing, and is not remembered for half
            // a minute. Its REGISTER that comes again is asked about again.
            if is_unproven && status >= 300 {
                core.transactions.forget(server);
            }
        }
    }

    /// The media plane noticed something, or wants something.
    pub(crate) fn on_media_event(&mut self, event: Event, core: &mut Core, registrar: &mut Registrar) {
        match event {
            Event::Answer { number, description } => {
                self.on_media(number, Reply::Description(description), core, registrar)
            }
            Event::Inactive => self.hang_up(EndCause::MediaTimeout, EndedBy::Sbc, core),
            Event::Unheard => self.ask_whether_alive(core),
            Event::Renegotiate { wish, legs, deadline } => self.renegotiate(wish, legs, deadline, core),
            Event::Path(entry) => self.record(CallEventKind::Path(PathRecord::Entry(entry)), core),
            Event::Metered { direct, is_direct } => {
                self.record(CallEventKind::Metered { direct, is_direct }, core)
            }
        }
    }
}

fn branch_call_id(branch: &super::Branch) -> Vec<u8> {
    branch.request.as_ref().and_then(|request| request.call_id().ok()).unwrap_or_default().to_vec()
}

fn branch_tag(branch: &super::Branch) -> Vec<u8> {
    branch
        .request
        .as_ref()
        .and_then(|request| request.from().ok()?.tag().map(<[u8]>::to_vec))
        .unwrap_or_default()
}
