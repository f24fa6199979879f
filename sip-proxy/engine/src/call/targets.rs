//! Targets that were tried: what is sent to them, and what comes back.

use std::sync::Arc;

use bytes::Bytes;
use seam::{Action, Endpoint, ExchangeId};
use sip_wire::{Message, Method, multipart};

use super::branch::State;
use super::fault::{End, Fault, Final, Retry};
use super::hunt::Found;
use super::media::Wait;
use super::pair::large_to;
use super::side::{BranchId, PairId, Side};
use super::{Call, CallTimer, Progress, Purpose};
use crate::core::{Core, Owner, TimerKey};
use crate::registrar::Registrar;
use crate::session_timer::Agreement;
use crate::transaction::{Hop, Reply};

impl Call {
    /// The branch has its address: what it is to be offered comes first.
    pub(super) fn prepare(&mut self, index: BranchId, core: &mut Core) {
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        let Some(flow) = branch.target.flow else { return };
        self.parties.secrets[Side::Target].add_address(flow.remote.ip());
        let description = multipart::session_description(&self.parties.upstream.incoming.request)
            .filter(|_| self.parties.is_session());
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        if branch.offer.is_some() || description.is_none() {
            self.send_branch(index, core);
            return;
        }
        branch.state = State::Preparing;
        let (party, realm, uri) = (branch.party(), branch.realm, branch.target.uri.clone());
        let sdp = self.parties.upstream.incoming.request.body_bytes().slice(description.unwrap_or_default());
        let action = Action::Offer {
            exchange: ExchangeId(1),
            from: Endpoint { party: 0, branch: 0 },
            to: Endpoint { party, branch: 0 },
            from_party: self.parties.caller_info(),
            to_party: self.parties.target_info(realm, flow, &uri),
            sdp,
        };
        self.media.ask(action, Wait::Branch(index), core);
    }

    pub(super) fn on_branch_offer(&mut self, index: BranchId, offer: Bytes, core: &mut Core) {
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        if branch.state == State::Preparing {
            branch.offer = Some(offer);
            self.send_branch(index, core);
        }
    }

    /// Sends (again, with a new branch parameter) the initial request.
    fn send_branch(&mut self, index: BranchId, core: &mut Core) {
        match self.parties.build(index, None, core) {
            Ok(request) => self.launch(index, request, core),
            Err(status) => {
                if let Some(branch) = self.parties.branches.get_mut(index) {
                    branch.state = State::Done;
                    branch.story.unheard(status);
                }
                self.hunt.note(Final::of_silence(status));
            }
        }
    }

    fn launch(&mut self, index: BranchId, request: Message, core: &mut Core) {
        let is_invite = self.parties.is_session();
        let key = self.parties.key;
        let has_alternative = !self.hunt.steps.is_empty();
        let age = self.lifetime.age(core.now.monotonic);
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        let Some(flow) = branch.target.flow else { return };
        branch.story.asked(age);
        let request = Arc::new(request);
        branch.attempt.request = Some(Arc::clone(&request));
        let large = large_to(branch.target.trunk.as_deref());
        let hop = Hop { flow, large, server_name: branch.target.server_name.clone() };
        let client = core.send_request(hop, request, Owner::Branch(key, index));
        branch.attempt.client = Some(client);
        branch.state = State::Trying;
        core.dialogs.halves.insert(branch.half_dialog(), (key, index));
        if has_alternative || !branch.alternatives.is_empty() {
            let patience = branch
                .target
                .trunk
                .as_ref()
                .and_then(|trunk| trunk.timeout)
                .unwrap_or(core.config.timers.failover);
            let timer = core.schedule(patience, TimerKey::Call(key, CallTimer::Failover(index)));
            branch.attempt.failover = Some(timer);
        }
        if is_invite {
            self.arm_ringing(core);
        }
    }

    /// A response to a branch's request.
    pub(crate) fn on_branch_response(
        &mut self,
        index: BranchId,
        reply: Reply,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let Reply { client, response } = reply;
        let Some(status) = response.status() else { return };
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        if let Some(timer) = branch.attempt.failover.take() {
            core.timers.cancel(timer);
        }
        if branch.attempt.abandoned.contains(&client) {
            if (200..300).contains(&status) && self.parties.is_session() {
                core.take_down(client, &response, true);
            }
            return;
        }
        let flow = branch.target.flow;
        if let Some(flow) = flow {
            self.parties.secrets[Side::Target].add_message(&response, flow.remote);
        }
        match status {
            101..=199 => self.on_branch_provisional(index, response, core),
            200..=299 => self.on_branch_success(index, Reply { client, response }, core, registrar),
            _ => self.on_branch_failure(index, Final::of_response(index, response), core, registrar),
        }
    }

    fn on_branch_provisional(&mut self, index: BranchId, response: Message, core: &mut Core) {
        if self.progress != Progress::Hunting || self.is_over() || !self.parties.is_session() {
            return;
        }
        let age = self.lifetime.age(core.now.monotonic);
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        if !matches!(branch.state, State::Trying | State::Ringing) {
            return;
        }
        branch.state = State::Ringing;
        branch.story.rang(age);
        branch.has_rung = true;
        let Some(flow) = branch.target.flow else { return };
        let Some(pair) = self.parties.pair_of_response(index, &response, flow, core) else {
            if let Some(answer) = self.parties.bare_response(index, &response, core) {
                core.respond(self.upstream_server(), response.status().unwrap_or(180), answer);
            }
            return;
        };
        self.take_response(pair, response, core);
    }

    fn on_branch_success(
        &mut self,
        index: BranchId,
        reply: Reply,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let Reply { client, response } = reply;
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        let was_done = branch.state == State::Done;
        branch.state = State::Done;
        branch.story.ended(response.status().unwrap_or(200));
        let Some(flow) = branch.target.flow else { return };
        match &self.parties.purpose {
            Purpose::Register(forwarded) => {
                registrar.forwarded(&self.parties.upstream.incoming, forwarded, &response, core);
                self.done_once(core);
                return;
            }
            Purpose::Once => {
                self.pass_final(index, response, core);
                return;
            }
            Purpose::Subscription | Purpose::Session => {}
        }
        if was_done || self.progress != Progress::Hunting || self.is_over() {
            // Another fork, or a 2xx that crossed our CANCEL.
            if self.parties.is_session() {
                core.take_down(client, &response, true);
            }
            return;
        }
        let Some(pair) = self.parties.pair_of_response(index, &response, flow, core) else {
            core.take_down(client, &response, true);
            self.fail_upstream(End::NoDialog, core);
            return;
        };
        // The 2xx to a SUBSCRIBE waits for no ACK.
        let open = self.parties.is_session().then_some(client);
        if let Some(found) = self.parties.pair_mut(pair) {
            found.legs[Side::Target].invite.open = open;
            found.legs[Side::Target].dialog.confirm(&response);
            found.legs[Side::Caller].dialog.confirmed = true;
        }
        self.parties.publish(pair, core);
        if self.parties.purpose == Purpose::Subscription {
            self.accept_subscription(pair, &response, core);
            return;
        }
        self.progress = Progress::Taken(pair);
        let others: Vec<PairId> =
            self.parties.pairs.iter().filter(|other| other.id != pair).map(|other| other.id).collect();
        self.cancel_branches(Some(index), Fault::from(End::AnsweredElsewhere).reason, core);
        for other in others {
            self.drop_pair(other, core);
        }
        let endpoint = self.parties.pair(pair).map(|pair| pair.endpoint(Side::Target));
        if let (Some(endpoint), true) = (endpoint, self.media.is_used) {
            self.media.tell(Action::Select(endpoint), core);
        }
        if let Some(found) = self.parties.pair_mut(pair) {
            found.legs[Side::Target].session.agreed = Agreement::of_answer(&response);
        }
        self.take_response(pair, response, core);
    }

    /// A failure, or none at all (408, 503).
    pub(crate) fn on_branch_failure(
        &mut self,
        index: BranchId,
        outcome: Final,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let Final { fault, response } = outcome;
        let status = fault.status;
        let message = response.as_ref().map(|given| &given.message);
        if let Some(message) = message
            && (self.retry_with_credentials(index, message, core)
                || self.retry_with_interval(index, message, core))
        {
            return;
        }
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        if let Some(timer) = branch.attempt.failover.take() {
            core.timers.cancel(timer);
        }
        if branch.state == State::Done {
            return;
        }
        if let (503, Some(message), Some(trunk)) = (status, message, &branch.target.trunk) {
            core.trunks.refused(&trunk.name, message, core.now.monotonic);
        }
        let was_cancelled = branch.state == State::Cancelled;
        branch.state = State::Done;
        branch.story.ended(status);
        branch.attempt.client = None;
        let pairs: Vec<PairId> =
            self.parties.pairs.iter().filter(|pair| pair.branch == index).map(|pair| pair.id).collect();
        for pair in pairs {
            self.drop_pair(pair, core);
        }
        if was_cancelled || self.is_answered() || self.is_over() {
            return;
        }
        let Some(branch) = self.parties.branches.get(index) else { return };
        let party = branch.party();
        if fault.leads_to_address() && !branch.alternatives.is_empty() {
            self.hunt.best.get_or_insert(Final { fault, response });
            self.next_address(index, core);
            return;
        }
        // The flow is dead, or its edge says so: the phone may have another.
        let other = self.parties.branches.get_mut(index).and_then(|branch| {
            let next = fault.leads_to_flow().then(|| branch.other_flows.pop_front()).flatten()?;
            Some(Found {
                contact: next,
                others: std::mem::take(&mut branch.other_flows).into(),
                who: branch.target.who.clone(),
                diverted: branch.diverted.clone(),
                breadth: branch.breadth,
            })
        });
        if self.media.is_used {
            self.media
                .tell(Action::Reject { exchange: ExchangeId(1), from: Endpoint { party, branch: 0 } }, core);
        }
        if let Some(found) = other {
            self.try_contact(found, core);
            return;
        }
        if (300..400).contains(&status)
            && message.is_some_and(|message| self.redirect(index, message, core, registrar))
        {
            if self.parties.branches.are_all_done() {
                self.next_step(core, registrar);
            }
            return;
        }
        self.hunt.note(Final { fault, response });
        let is_final = fault.retry == Retry::Nobody;
        if is_final {
            self.cancel_branches(None, fault.reason, core);
            self.hunt.steps.clear();
            self.hunt.waiting_phones.clear();
        }
        // What it held may be used for those that wait.
        self.ring_waiting(core);
        if !self.parties.branches.are_all_done() {
            if is_final {
                let outcome = self.hunt.best.take().unwrap_or(fault.into());
                self.fail_upstream(outcome, core);
            }
            return;
        }
        if !fault.leads_on() {
            self.hunt.steps.clear();
        }
        self.next_step(core, registrar);
    }

    /// A trunk's challenge is answered once, with its credentials.
    fn retry_with_credentials(&mut self, index: BranchId, response: &Message, core: &mut Core) -> bool {
        if !matches!(response.status(), Some(401 | 407))
            || self.is_over()
            || matches!(self.parties.purpose, Purpose::Register(_))
        {
            return false;
        }
        let Some(branch) = self.parties.branches.get_mut(index) else { return false };
        let credentials = branch.target.trunk.as_ref().and_then(|trunk| trunk.credentials.clone());
        let (Some(credentials), false, State::Trying | State::Ringing) =
            (credentials, branch.attempt.is_authenticated, branch.state)
        else {
            return false;
        };
        branch.attempt.is_authenticated = true;
        let uri = branch.target.uri.clone();
        let method = self.parties.upstream.incoming.request.method().unwrap_or(Method::INVITE);
        let answer = crate::digest::answer(response, method, &uri, (&credentials).into(), &mut core.ids);
        let Some(answer) = answer else { return false };
        match self.parties.build(index, Some(answer), core) {
            Ok(request) => {
                self.launch(index, request, core);
                true
            }
            Err(_) => false,
        }
    }

    /// A target that finds our session interval too small is asked again, once, with its own least (RFC 4028 §7.3): the
    /// caller's leg has an interval of its own.
    fn retry_with_interval(&mut self, index: BranchId, response: &Message, core: &mut Core) -> bool {
        if self.is_over() {
            return false;
        }
        let Some(branch) = self.parties.branches.get_mut(index) else { return false };
        let least = crate::times::min_se_of(response);
        let may_retry = response.status() == Some(422)
            && self.parties.purpose == Purpose::Session
            && branch.attempt.least_interval.is_none()
            && matches!(branch.state, State::Trying | State::Ringing);
        let (Some(least), true) = (least, may_retry) else {
            return false;
        };
        branch.attempt.least_interval = Some(least);
        match self.parties.build(index, None, core) {
            Ok(request) => {
                self.launch(index, request, core);
                true
            }
            Err(_) => false,
        }
    }

    /// Cancels what still rings, but for `winner`.
    pub(super) fn cancel_branches(
        &mut self,
        winner: Option<BranchId>,
        reason: Option<&[u8]>,
        core: &mut Core,
    ) {
        for branch in self.parties.branches.iter_mut() {
            if winner == Some(branch.id) {
                continue;
            }
            if let Some(timer) = branch.attempt.failover.take() {
                core.timers.cancel(timer);
            }
            branch.state = match (branch.state, branch.attempt.client) {
                (State::Trying | State::Ringing, Some(client))
                    if self.parties.purpose == Purpose::Session =>
                {
                    core.cancel(client, reason);
                    State::Cancelled
                }
                (State::Cancelled, _) => State::Cancelled,
                _ => State::Done,
            };
        }
    }

    /// The final response of a request that makes no dialog.
    pub(super) fn pass_final(&mut self, by: BranchId, response: Message, core: &mut Core) {
        self.finish_upstream(Final::of_response(by, response), core);
    }
}
