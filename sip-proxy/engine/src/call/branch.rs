//! One target: the request it gets, and what comes back.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use seam::{Action, Endpoint, ExchangeId};
use sip_wire::{Message, Method, Name, multipart};

use super::hunt::{Found, cause_of, is_better, may_fail_over};
use super::media::Wait;
use super::redirect::Diverted;
use super::side::Side;
use super::{Call, CallTimer, Final, Purpose};
use crate::core::{Core, Owner, dialog_key};
use crate::event::{EndCause, EndedBy};
use crate::io::{Flow, RealmId};
use crate::question::{Contact, ResolvedAddress, TrunkTarget};
use crate::registrar::Registrar;
use crate::session_timer::Agreement;
use crate::timer::TimerId;
use crate::transaction::{self, ClientId, Hop, Large, Reply};

/// How far a branch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its host's name is being resolved.
    Resolving,
    /// The media plane prepares its offer.
    Preparing,
    /// Sent; nothing but 100 came.
    Trying,
    /// It rings.
    Ringing,
    /// It was cancelled; its final response is awaited.
    Cancelled,
    /// It has its final response, or will never have one.
    Done,
}

#[derive(Debug)]
pub(super) struct Branch {
    pub(super) party: u16,
    pub(super) realm: RealmId,
    pub(super) uri: Bytes,
    /// Who that is, in records: an AOR, or the number and the host of a trunk; nothing else would tell it after a transfer or a
    /// redirection, when the dialled URI is a token or somebody else.
    pub(super) who: Arc<str>,
    pub(super) routes: Vec<Bytes>,
    pub(super) flow: Option<Flow>,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) alternatives: VecDeque<ResolvedAddress>,
    pub(super) trunk: Option<Arc<TrunkTarget>>,
    /// The subscriber whose contact it is.
    pub(super) aor: Option<Arc<str>>,
    /// The phone's other flows (RFC 5626 §7), for when this one is dead.
    pub(super) other_flows: VecDeque<Contact>,
    /// Who sent the call here.
    pub(super) diverted: Option<Arc<Diverted>>,
    /// Its share of the caller's Max-Breadth (RFC 5393 §5.3.3).
    pub(super) breadth: u32,
    /// It has given a provisional response other than 100.
    pub(super) has_rung: bool,
    pub(super) state: State,
    pub(super) client: Option<ClientId>,
    /// Attempts that a failover left behind; a 2xx of theirs must be taken down.
    pub(super) abandoned: Vec<ClientId>,
    pub(super) request: Option<Arc<Message>>,
    pub(super) failover: Option<TimerId>,
    pub(super) call_id: String,
    pub(super) from_tag: String,
    pub(super) cseq: u32,
    authenticated: bool,
    /// The least session interval that its target has asked for (RFC 4028 §7.3).
    pub(super) least_interval: Option<u32>,
    /// Our To tag for responses of a target that sends none; its first dialog's, when it has one.
    pub(super) tag: Option<String>,
    pub(super) offer: Option<Bytes>,
}

impl Branch {
    pub(super) fn new(party: u16, realm: RealmId, uri: Bytes, who: Arc<str>) -> Self {
        Self {
            party,
            realm,
            uri,
            who,
            routes: Vec::new(),
            flow: None,
            server_name: None,
            alternatives: VecDeque::new(),
            trunk: None,
            aor: None,
            other_flows: VecDeque::new(),
            diverted: None,
            breadth: 1,
            has_rung: false,
            state: State::Resolving,
            client: None,
            abandoned: Vec::new(),
            request: None,
            failover: None,
            call_id: String::new(),
            from_tag: String::new(),
            cseq: 0,
            authenticated: false,
            least_interval: None,
            tag: None,
            offer: None,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

impl Call {
    /// The branch has its address: what it is to be offered comes first.
    pub(super) fn prepare(&mut self, index: u16, core: &mut Core) {
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        let Some(flow) = branch.flow else { return };
        self.secrets[Side::Target].add_address(flow.remote.ip());
        let description =
            multipart::session_description(&self.upstream.incoming.request).filter(|_| self.is_session());
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if branch.offer.is_some() || description.is_none() {
            self.send_branch(index, core);
            return;
        }
        branch.state = State::Preparing;
        let (party, realm, uri) = (branch.party, branch.realm, branch.uri.clone());
        let sdp = self.upstream.incoming.request.body_bytes().slice(description.unwrap_or_default());
        let action = Action::Offer {
            exchange: ExchangeId(1),
            from: Endpoint { party: 0, branch: 0 },
            to: Endpoint { party, branch: 0 },
            from_party: self.caller_info(),
            to_party: self.target_info(realm, flow, &uri),
            sdp,
        };
        self.ask_media(action, Wait::Branch(index), core);
    }

    pub(super) fn on_branch_offer(&mut self, index: u16, offer: Bytes, core: &mut Core) {
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if branch.state == State::Preparing {
            branch.offer = Some(offer);
            self.send_branch(index, core);
        }
    }

    /// Sends (again, with a new branch parameter) the initial request.
    fn send_branch(&mut self, index: u16, core: &mut Core) {
        match self.build(index, None, core) {
            Ok(request) => self.launch(index, request, core),
            Err(status) => {
                if let Some(branch) = self.branches.get_mut(usize::from(index)) {
                    branch.state = State::Done;
                }
                if self.best.as_ref().is_none_or(|best| is_better(status, best.status)) {
                    self.best = Some(status.into());
                }
            }
        }
    }

    fn launch(&mut self, index: u16, request: Message, core: &mut Core) {
        let is_invite = self.is_session();
        let key = self.key;
        let has_alternative = !self.steps.is_empty();
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        let Some(flow) = branch.flow else { return };
        let request = Arc::new(request);
        branch.request = Some(Arc::clone(&request));
        let large = match &branch.trunk {
            Some(trunk) if trunk.transport.is_none() => Large::OverStream,
            _ => Large::AsDatagram,
        };
        let hop = Hop { flow, large, server_name: branch.server_name.clone() };
        let client = core.send_request(hop, request, Owner::Branch(key, index));
        branch.client = Some(client);
        branch.state = State::Trying;
        core.half_dialogs
            .insert(dialog_key(branch.call_id.as_bytes(), branch.from_tag.as_bytes(), b""), (key, index));
        if has_alternative || !branch.alternatives.is_empty() {
            let patience =
                branch.trunk.as_ref().and_then(|trunk| trunk.timeout).unwrap_or(core.config.timers.failover);
            let timer = core.schedule(patience, crate::core::TimerKey::Call(key, CallTimer::Failover(index)));
            branch.failover = Some(timer);
        }
        if is_invite {
            self.arm_ringing(core);
        }
    }

    /// A response to a branch's request.
    pub(crate) fn on_branch_response(
        &mut self,
        index: u16,
        reply: Reply,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let Reply { client, response } = reply;
        let Some(status) = response.status() else { return };
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if let Some(timer) = branch.failover.take() {
            core.timers.cancel(timer);
        }
        if branch.abandoned.contains(&client) {
            if (200..300).contains(&status) && self.is_session() {
                core.take_down(client, &response, true);
            }
            return;
        }
        let flow = branch.flow;
        if let Some(flow) = flow {
            self.secrets[Side::Target].add_message(&response, flow.remote);
        }
        match status {
            101..=199 => self.on_branch_provisional(index, response, core),
            200..=299 => self.on_branch_success(index, Reply { client, response }, core, registrar),
            _ => {
                let outcome = Final { status, response: Some(response) };
                self.on_branch_failure(index, outcome, core, registrar)
            }
        }
    }

    fn on_branch_provisional(&mut self, index: u16, response: Message, core: &mut Core) {
        if self.answered || self.winner.is_some() || self.is_over() || !self.is_session() {
            return;
        }
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if !matches!(branch.state, State::Trying | State::Ringing) {
            return;
        }
        branch.state = State::Ringing;
        branch.has_rung = true;
        let Some(flow) = branch.flow else { return };
        if self.times.alerting.is_none() {
            self.times.alerting = Some(core.now.monotonic);
        }
        let Some(pair) = self.pair_of_response(index, &response, flow, core) else {
            // What makes no dialog: nothing but its status passes, with a tag of ours (RFC 3261 §8.2.6.2).
            let status = response.status().unwrap_or(180);
            let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
            let tag = branch.tag.get_or_insert_with(|| core.ids.tag()).clone();
            let config = core.config.clone();
            let Some(names) = self.branch_names(&config, index, Side::Target) else { return };
            let reason = response.reason().map(|reason| names.apply(reason));
            let answer = transaction::response_to(
                &self.upstream.incoming.request,
                status,
                reason.as_deref(),
                Some(&tag),
            );
            self.shown_tag = Some(tag);
            let contact = core.contact(self.upstream.incoming.flow.listener);
            core.respond(
                self.upstream.incoming.server,
                status,
                answer.header(Name::Contact, &contact).finish(),
            );
            return;
        };
        self.take_response(pair, response, core);
    }

    fn on_branch_success(&mut self, index: u16, reply: Reply, core: &mut Core, registrar: &mut Registrar) {
        let Reply { client, response } = reply;
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        let was_done = branch.state == State::Done;
        branch.state = State::Done;
        let Some(flow) = branch.flow else { return };
        match &self.purpose {
            Purpose::Register(forwarded) => {
                registrar.forwarded(&self.upstream.incoming, forwarded, &response, core);
                self.done_once(core);
                return;
            }
            Purpose::Once => {
                self.pass_final(response, core);
                return;
            }
            Purpose::Subscription | Purpose::Session => {}
        }
        if was_done || self.answered || self.winner.is_some() || self.is_over() {
            // Another fork, or a 2xx that crossed our CANCEL.
            if self.is_session() {
                core.take_down(client, &response, true);
            }
            return;
        }
        let Some(pair) = self.pair_of_response(index, &response, flow, core) else {
            core.take_down(client, &response, true);
            self.fail_upstream(500, EndCause::Failed, core);
            return;
        };
        if let Some(found) = self.pair_mut(pair) {
            found.ends[Side::Target].open_invite = Some(client);
            found.ends[Side::Target].dialog.confirm(&response);
            found.ends[Side::Caller].dialog.confirmed = true;
        }
        self.publish(pair, core);
        if self.purpose == Purpose::Subscription {
            self.accept_subscription(pair, &response, core);
            return;
        }
        self.winner = Some(pair);
        let others: Vec<u32> =
            self.pairs.iter().filter(|other| other.id != pair).map(|other| other.id).collect();
        self.cancel_branches(Some(index), Some(b"SIP;cause=200;text=\"Call completed elsewhere\""), core);
        for other in others {
            self.drop_pair(other, core);
        }
        let endpoint = self.pair(pair).map(|pair| pair.endpoint(Side::Target));
        if let (Some(endpoint), true) = (endpoint, self.has_media) {
            self.tell_media(Action::Select(endpoint), core);
        }
        if let Some(found) = self.pair_mut(pair) {
            found.ends[Side::Target].session.agreed = Agreement::of_answer(&response);
        }
        self.take_response(pair, response, core);
    }

    /// A failure, or none at all (408, 503).
    pub(crate) fn on_branch_failure(
        &mut self,
        index: u16,
        outcome: Final,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let Final { status, response } = outcome;
        if let Some(response) = &response
            && (self.retry_with_credentials(index, response, core)
                || self.retry_with_interval(index, response, core))
        {
            return;
        }
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        if let Some(timer) = branch.failover.take() {
            core.timers.cancel(timer);
        }
        if branch.state == State::Done {
            return;
        }
        if let (503, Some(response), Some(trunk)) = (status, &response, &branch.trunk) {
            core.trunks.refused(&trunk.name, response, core.now.monotonic);
        }
        let was_cancelled = branch.state == State::Cancelled;
        branch.state = State::Done;
        branch.client = None;
        let pairs: Vec<u32> =
            self.pairs.iter().filter(|pair| pair.branch == index).map(|pair| pair.id).collect();
        for pair in pairs {
            self.drop_pair(pair, core);
        }
        if was_cancelled || self.answered || self.is_over() {
            return;
        }
        let Some(branch) = self.branches.get(usize::from(index)) else { return };
        let party = branch.party;
        if matches!(status, 500..=599 | 408) && !branch.alternatives.is_empty() {
            self.best.get_or_insert(Final { status, response });
            self.next_address(index, core);
            return;
        }
        // The flow is dead, or its edge says so: the phone may have another.
        let other = self.branches.get_mut(usize::from(index)).and_then(|branch| {
            let is_dead = matches!(status, 430) || (response.is_none() && matches!(status, 408 | 503));
            let next = is_dead.then(|| branch.other_flows.pop_front()).flatten()?;
            Some(Found {
                contact: next,
                others: std::mem::take(&mut branch.other_flows).into(),
                who: branch.who.clone(),
                diverted: branch.diverted.clone(),
                breadth: branch.breadth,
            })
        });
        if self.has_media {
            self.tell_media(
                Action::Reject { exchange: ExchangeId(1), from: Endpoint { party, branch: 0 } },
                core,
            );
        }
        if let Some(found) = other {
            self.try_contact(found, core);
            return;
        }
        if (300..400).contains(&status)
            && response.as_ref().is_some_and(|response| self.redirect(index, response, core, registrar))
        {
            if self.branches.iter().all(Branch::is_done) {
                self.next_step(core, registrar);
            }
            return;
        }
        if self.best.as_ref().is_none_or(|best| is_better(status, best.status)) {
            self.best = Some(Final { status, response });
        }
        if status >= 600 {
            self.cancel_branches(None, None, core);
            self.steps.clear();
            self.waiting_phones.clear();
        }
        // What it held may be used for those that wait.
        self.ring_waiting(core);
        if !self.branches.iter().all(Branch::is_done) {
            if status >= 600 {
                let outcome = self.best.take().unwrap_or(status.into());
                let cause = cause_of(outcome.status);
                self.fail_upstream(outcome, cause, core);
            }
            return;
        }
        if !may_fail_over(status) {
            self.steps.clear();
        }
        self.next_step(core, registrar);
    }

    /// A trunk's challenge is answered once, with its credentials.
    fn retry_with_credentials(&mut self, index: u16, response: &Message, core: &mut Core) -> bool {
        if !matches!(response.status(), Some(401 | 407))
            || self.is_over()
            || matches!(self.purpose, Purpose::Register(_))
        {
            return false;
        }
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return false };
        let credentials = branch.trunk.as_ref().and_then(|trunk| trunk.credentials.clone());
        let (Some(credentials), false, State::Trying | State::Ringing) =
            (credentials, branch.authenticated, branch.state)
        else {
            return false;
        };
        branch.authenticated = true;
        let uri = branch.uri.clone();
        let method = self.upstream.incoming.request.method().unwrap_or(Method::INVITE);
        let answer = crate::digest::answer(response, method, &uri, (&credentials).into(), &mut core.ids);
        let Some(answer) = answer else { return false };
        match self.build(index, Some(answer), core) {
            Ok(request) => {
                self.launch(index, request, core);
                true
            }
            Err(_) => false,
        }
    }

    /// A target that finds our session interval too small is asked again, once, with its own least (RFC 4028 §7.3): the
    /// caller's leg has an interval of its own.
    fn retry_with_interval(&mut self, index: u16, response: &Message, core: &mut Core) -> bool {
        if self.is_over() {
            return false;
        }
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return false };
        let least = crate::times::min_se_of(response);
        let may_retry = response.status() == Some(422)
            && self.purpose == Purpose::Session
            && branch.least_interval.is_none()
            && matches!(branch.state, State::Trying | State::Ringing);
        let (Some(least), true) = (least, may_retry) else {
            return false;
        };
        branch.least_interval = Some(least);
        match self.build(index, None, core) {
            Ok(request) => {
                self.launch(index, request, core);
                true
            }
            Err(_) => false,
        }
    }

    /// Cancels what still rings, but for `winner`.
    pub(super) fn cancel_branches(&mut self, winner: Option<u16>, reason: Option<&[u8]>, core: &mut Core) {
        for (index, branch) in self.branches.iter_mut().enumerate() {
            if winner.is_some_and(|winner| usize::from(winner) == index) {
                continue;
            }
            if let Some(timer) = branch.failover.take() {
                core.timers.cancel(timer);
            }
            branch.state = match (branch.state, branch.client) {
                (State::Trying | State::Ringing, Some(client)) if self.purpose == Purpose::Session => {
                    core.cancel(client, reason);
                    State::Cancelled
                }
                (State::Cancelled, _) => State::Cancelled,
                _ => State::Done,
            };
        }
    }

    /// The final response of a request that makes no dialog.
    pub(super) fn pass_final(&mut self, response: Message, core: &mut Core) {
        let status = response.status().unwrap_or(500);
        let outcome = Final { status, response: Some(response) };
        self.finish_upstream(outcome, cause_of(status), EndedBy::Callee, core);
    }
}
