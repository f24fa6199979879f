//! One target: the request it gets, and what comes back.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use sip_wire::{Builder, Message, Method, Name, multipart};

use super::hunt::{cause_of, is_better, may_fail_over};
use super::media::Wait;
use super::pair::{CALLER, Exchange, Reliable, TARGET, cseq_of};
use super::{Call, CallTimer, Purpose};
use crate::core::{Core, Owner, dialog_key};
use crate::event::{CallEventKind, EndCause, Side};
use crate::io::{Flow, RealmId};
use crate::media::{Endpoint, ExchangeId, MediaAction};
use crate::passing::{Privacy, copy_headers, passing_options, translate_address};
use crate::question::{Caller, ResolvedAddress, TrunkTarget};
use crate::registrar::Registrar;
use crate::session_timer::Agreement;
use crate::timer::TimerId;
use crate::transaction::{self, ClientId, ServerId};

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
    pub(super) routes: Vec<Bytes>,
    pub(super) flow: Option<Flow>,
    pub(super) server_name: Option<Arc<str>>,
    pub(super) alternatives: VecDeque<ResolvedAddress>,
    pub(super) trunk: Option<Arc<TrunkTarget>>,
    pub(super) state: State,
    pub(super) client: Option<ClientId>,
    /// Attempts that a failover left behind; a 2xx of theirs must be taken down.
    pub(super) abandoned: Vec<ClientId>,
    pub(super) request: Option<Message>,
    pub(super) failover: Option<TimerId>,
    call_id: String,
    from_tag: String,
    cseq: u32,
    authenticated: bool,
    /// The least session interval that its target has asked for (RFC 4028 §7.3).
    least_interval: Option<u32>,
    /// Our To tag for responses of a target that sends none; its first dialog's, when it has one.
    pub(super) tag: Option<String>,
    pub(super) offer: Option<Bytes>,
}

impl Branch {
    pub(super) fn new(party: u16, realm: RealmId, uri: Bytes) -> Self {
        Self {
            party,
            realm,
            uri,
            routes: Vec::new(),
            flow: None,
            server_name: None,
            alternatives: VecDeque::new(),
            trunk: None,
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
        self.secrets[TARGET].add(flow.remote.ip().to_canonical().to_string().as_bytes());
        let description =
            multipart::session_description(&self.upstream.request).filter(|_| self.is_session());
        let branch = &mut self.branches[usize::from(index)];
        if branch.offer.is_some() || description.is_none() {
            self.send_branch(index, core);
            return;
        }
        branch.state = State::Preparing;
        let (party, realm, uri) = (branch.party, branch.realm, branch.uri.clone());
        let sdp = self.upstream.request.body_bytes().slice(description.unwrap_or_default());
        let action = MediaAction::Offer {
            exchange: ExchangeId(1),
            from: Endpoint { party: 0, branch: 0 },
            to: Endpoint { party, branch: 0 },
            from_info: self.caller_info(),
            to_info: self.target_info(realm, flow, &uri),
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
        let Some(request) = self.build(index, None, core) else {
            if let Some(branch) = self.branches.get_mut(usize::from(index)) {
                branch.state = State::Done;
            }
            return;
        };
        self.launch(index, request, core);
    }

    fn launch(&mut self, index: u16, request: Bytes, core: &mut Core) {
        let is_invite = self.is_session();
        let key = self.key;
        let has_alternative = !self.steps.is_empty();
        let branch = &mut self.branches[usize::from(index)];
        let Some(flow) = branch.flow else { return };
        branch.request = Message::parse(request.clone()).ok();
        let client = core.send_request(flow, branch.server_name.clone(), request, Owner::Branch(key, index));
        branch.client = Some(client);
        branch.state = State::Trying;
        core.half_dialogs
            .insert(dialog_key(branch.call_id.as_bytes(), branch.from_tag.as_bytes(), b""), (key, index));
        if has_alternative || !branch.alternatives.is_empty() {
            let patience =
                branch.trunk.as_ref().and_then(|trunk| trunk.timeout).unwrap_or(core.config.timers.failover);
            let timer = core.schedule(patience, crate::core::TimerKey::Call(key, CallTimer::Failover(index)));
            self.branches[usize::from(index)].failover = Some(timer);
        }
        if is_invite {
            self.arm_ringing(core);
        }
    }

    /// The request for a branch, as its side may see it.
    fn build(&mut self, index: u16, authorization: Option<(Name, String)>, core: &mut Core) -> Option<Bytes> {
        let upstream = &self.upstream;
        let request = &upstream.request;
        let method = request.method()?;
        let branch = self.branches.get_mut(usize::from(index))?;
        let flow = branch.flow?;
        let config = core.config.clone();
        let listener = config.listener(flow.listener)?;
        let (from_realm, to_realm) = (config.realm(upstream.realm)?, config.realm(branch.realm)?);
        if branch.call_id.is_empty() {
            branch.call_id = core.ids.call_id(self.slot);
            branch.from_tag = core.ids.tag();
        }
        branch.cseq += 1;
        let domain = to_realm
            .domains
            .first()
            .map_or_else(|| host_of(listener.advertised), |domain| domain.to_string());
        let is_register = matches!(self.purpose, Purpose::Register { .. });
        let (from, to) = if is_register {
            // AORs are the registrar's own; only the tags are ours.
            let bare = |name| request.value(name).map(|value| strip_tag(value).to_vec()).unwrap_or_default();
            let mut from = bare(Name::From);
            from.extend_from_slice(format!(";tag={}", branch.from_tag).as_bytes());
            (from, bare(Name::To))
        } else {
            let from_host =
                if from_realm.domains.first() == to_realm.domains.first() { domain.clone() } else { domain };
            let from = translate_address(
                request.value(Name::From)?,
                &from_host,
                upstream.identity.as_deref(),
                Some(&branch.from_tag),
            );
            let from = if Privacy::of(request).user {
                format!("\"Anonymous\" <sip:anonymous@anonymous.invalid>;tag={}", branch.from_tag)
                    .into_bytes()
            } else {
                from
            };
            let target = sip_wire::Uri::parse(&branch.uri).ok()?;
            let to_user = String::from_utf8_lossy(target.user()).into_owned();
            let to_host = if branch.trunk.is_some() {
                String::from_utf8_lossy(target.host().as_bytes()).into_owned()
            } else {
                from_host
            };
            let dialled = sip_wire::Uri::parse(request.request_uri()?)
                .map(|uri| String::from_utf8_lossy(uri.user()).into_owned())
                .unwrap_or_default();
            let to_user = if branch.trunk.is_some() || dialled.is_empty() { to_user } else { dialled };
            (from, translate_address(b"<sip:x@x>", &to_host, Some(&to_user), None))
        };
        let hops = request.number(Name::MaxForwards).and_then(Result::ok).unwrap_or(70).saturating_sub(1);
        let mark = crate::admission::loop_mark(request.request_uri()?);
        let via = transaction::via(listener, &(core.ids.branch() + &mark));
        let cseq = [branch.cseq.to_string().as_bytes(), b" ", method.as_bytes()].concat();
        let mut out = Builder::request(method, &branch.uri).header(Name::Via, via.as_bytes());
        for route in &branch.routes {
            out = out.header(Name::Route, route);
        }
        out = out
            .header(Name::MaxForwards, hops.to_string().as_bytes())
            .header(Name::From, &from)
            .header(Name::To, &to)
            .header(Name::CallId, branch.call_id.as_bytes())
            .header(Name::CSeq, &cseq);
        out = match &self.purpose {
            Purpose::Register { token, .. } => register_contact(out, request, token, listener, from_realm),
            Purpose::Once if method != Method::OPTIONS => out,
            _ => out.header(Name::Contact, &core.contact(flow.listener)),
        };
        if let Some(product) = &config.product {
            out = out.header(Name::UserAgent, product.as_bytes());
        }
        for name in [Name::Supported, Name::Require] {
            let mut options = passing_options(request, name);
            if name == Name::Supported && self.purpose == Purpose::Session && to_realm.session_timer.is_some()
            {
                options.extend_from_slice(if options.is_empty() { b"timer" } else { b", timer" });
            }
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        if let (Purpose::Session, Some(timer)) = (&self.purpose, to_realm.session_timer) {
            let least = branch.least_interval.map(u64::from).unwrap_or_default();
            out = out
                .header(Name::SessionExpires, timer.interval.as_secs().max(least).to_string().as_bytes())
                .header(Name::MinSe, timer.minimum.as_secs().max(least).to_string().as_bytes());
        }
        if let Some(privacy) = Privacy::of(request).left(to_realm) {
            out = out.header(Name::Privacy, privacy);
        }
        if to_realm.trusted {
            out = assert_identity(out, &upstream.caller, request, from_realm, upstream.identity.as_deref());
        }
        if let Some(refer_to) =
            request.value(Name::ReferTo).filter(|value| !self.secrets[CALLER].are_in(value))
        {
            out = out.header(Name::ReferTo, refer_to);
        }
        if let Some(replaces) = super::forward::replaces_of(request, core) {
            out = out.header(Name::Replaces, &replaces);
        }
        if is_register {
            for name in [Name::Authorization, Name::ProxyAuthorization] {
                for value in request.values(name) {
                    out = out.header(name, value);
                }
            }
        }
        if let Some((name, value)) = authorization {
            out = out.header(name, value.as_bytes());
        }
        let (out, dropped) = copy_headers(out, request, from_realm, to_realm, &self.secrets[CALLER]);
        let branch = self.branches.get(usize::from(index))?;
        let (out, bodies) = with_body(out, request, branch.offer.as_ref(), &self.secrets[CALLER]);
        core.count_hidden(upstream.flow, dropped + bodies);
        Some(out.finish())
    }

    /// A response to a branch's request.
    pub(crate) fn on_branch_response(
        &mut self,
        index: u16,
        client: ClientId,
        response: Message,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
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
            self.secrets[TARGET].add_message(&response, flow.remote);
        }
        match status {
            101..=199 => self.on_branch_provisional(index, response, core),
            200..=299 => self.on_branch_success(index, client, response, core, registrar),
            _ => self.on_branch_failure(index, status, Some(response), core, registrar),
        }
    }

    fn on_branch_provisional(&mut self, index: u16, response: Message, core: &mut Core) {
        if self.answered || self.winner.is_some() || self.is_over() || !self.is_session() {
            return;
        }
        let branch = &mut self.branches[usize::from(index)];
        if !matches!(branch.state, State::Trying | State::Ringing) {
            return;
        }
        branch.state = State::Ringing;
        let Some(flow) = branch.flow else { return };
        if self.times.alerting.is_none() {
            self.times.alerting = Some(core.now.monotonic);
        }
        let Some(pair) = self.pair_of_response(index, &response, flow, core) else {
            // No To tag: no dialog, and nothing but its status passes, with a tag of ours (RFC 3261 §8.2.6.2).
            let status = response.status().unwrap_or(180);
            let secrets = &self.secrets[TARGET];
            let reason = response.reason().filter(|reason| !secrets.are_in(reason));
            let tag = &*self.branches[usize::from(index)].tag.get_or_insert_with(|| core.ids.tag());
            let answer = transaction::response_to(&self.upstream.request, status, reason, Some(tag));
            let contact = core.contact(self.upstream.flow.listener);
            core.respond(self.upstream.server, status, answer.header(Name::Contact, &contact).finish());
            return;
        };
        self.take_response(pair, response, core);
    }

    /// A response that belongs to a pair, in its order.
    pub(super) fn take_response(&mut self, id: u32, response: Message, core: &mut Core) {
        let is_waiting = self.waiting.iter().any(|(_, wait, _)| wait.is_of_pair(id));
        let has_offer = self.branch_has_offer(id);
        let Some(pair) = self.pair_mut(id) else { return };
        if is_waiting {
            pair.deferred.push_back(response);
            return;
        }
        let status = response.status().unwrap_or(500);
        if status < 200
            && let Some(theirs) = response
                .number(Name::RSeq)
                .and_then(Result::ok)
                .filter(|_| response.has_token(Name::Require, "100rel"))
        {
            if pair.reliable.iter().any(|known| known.theirs == theirs) {
                return;
            }
            let ours = pair.reliable.last().map_or(1, |last| last.ours + 1);
            pair.reliable.push(Reliable { theirs, ours });
        }
        let is_reliable = status >= 200 || response.has_token(Name::Require, "100rel");
        let description =
            multipart::session_description(&response).map(|range| response.body_bytes().slice(range));
        match description {
            // What comes after a reliable answer, unreliably or late, says nothing new (RFC 3261 §13.2.1).
            Some(sdp) if has_offer && (!pair.negotiated || status >= 200) => {
                // A reliable answer is final: what follows it in the same exchange only repeats it (RFC 6337 §3.1.1).
                let is_repeated =
                    pair.negotiated && pair.exchange.is_none() && status >= 200 && !pair.reliable.is_empty();
                if is_repeated {
                    self.answer_call(id, &response, None, core);
                } else {
                    self.answer_initial(id, response, sdp, is_reliable, core);
                }
            }
            Some(sdp) if !has_offer && is_reliable && !pair.negotiated && pair.exchange.is_none() => {
                self.offer_late(id, response, sdp, core)
            }
            _ if status >= 200 => self.answer_call(id, &response, None, core),
            _ => self.pass_response(id, &response, None, core),
        }
    }

    /// Whether a target takes the call and has never answered its offer, or only in a way that the media plane refused.
    fn lacks_answer(&self, id: u32) -> bool {
        self.branch_has_offer(id)
            && self.pair(id).is_some_and(|pair| !pair.negotiated && pair.ends[CALLER].description.is_none())
    }

    fn branch_has_offer(&self, id: u32) -> bool {
        self.pair(id)
            .and_then(|pair| self.branches.get(usize::from(pair.branch)))
            .is_some_and(|branch| branch.offer.is_some())
    }

    fn answer_initial(&mut self, id: u32, response: Message, sdp: Bytes, is_reliable: bool, core: &mut Core) {
        let Some(pair) = self.pair_mut(id) else { return };
        pair.negotiated |= is_reliable;
        if let Some(action) = self.answer_action(id, ExchangeId(1), TARGET, sdp) {
            self.ask_media(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// The INVITE held no offer: the target's first reliable response does.
    fn offer_late(&mut self, id: u32, response: Message, sdp: Bytes, core: &mut Core) {
        let exchange = self.new_exchange();
        let Some(pair) = self.pair_mut(id) else { return };
        pair.exchange = Some(Exchange { id: exchange, offerer: TARGET });
        pair.negotiated = true;
        let action = self.offer_action(id, exchange, TARGET, sdp);
        if let Some(action) = action {
            self.ask_media(action, Wait::Response(id, Box::new(response)), core);
        }
    }

    /// Passes a response of a pair's target to the caller, with the description made for it.
    pub(super) fn pass_response(&mut self, id: u32, response: &Message, sdp: Option<Bytes>, core: &mut Core) {
        let status = response.status().unwrap_or(500);
        if self.answered || self.is_over() {
            return;
        }
        let Some(answer) = self.build_response(id, response, sdp, core) else { return };
        let server = self.upstream.server;
        core.respond(server, status, answer.clone());
        if status >= 200 {
            return;
        }
        if response.has_token(Name::Require, "100rel") {
            let cseq = cseq_of(&self.upstream.request);
            self.repeat_until_acknowledged(id, CALLER, server, (status, cseq), answer, core);
        }
    }

    /// The caller's version of a response in a pair.
    pub(super) fn build_response(
        &mut self,
        id: u32,
        response: &Message,
        sdp: Option<Bytes>,
        core: &mut Core,
    ) -> Option<Bytes> {
        let status = response.status()?;
        let config = core.config.clone();
        let upstream = &self.upstream;
        let pair = self.pairs.iter_mut().find(|pair| pair.id == id)?;
        let (from_realm, to_realm) = (config.realm(pair.ends[TARGET].realm)?, config.realm(upstream.realm)?);
        let tag = String::from_utf8_lossy(&pair.ends[CALLER].dialog.local_tag).into_owned();
        let reason =
            response.reason().filter(|reason| !reason.is_empty() && !self.secrets[TARGET].are_in(reason));
        let mut out = transaction::response_to(&upstream.request, status, reason, Some(&tag));
        for record_route in upstream.request.values(Name::RecordRoute) {
            out = out.header(Name::RecordRoute, record_route);
        }
        out = out.header(Name::Contact, &core.contact(upstream.flow.listener));
        let mut supported = passing_options(response, Name::Supported);
        let mut require = passing_options(response, Name::Require);
        if status < 200 {
            if let Some(reliable) =
                pair.reliable.last().filter(|_| response.has_token(Name::Require, "100rel"))
            {
                out = out.header(Name::RSeq, reliable.ours.to_string().as_bytes());
            }
        } else if self.purpose == Purpose::Session {
            let agreed = Agreement::answering(&upstream.request, to_realm.session_timer);
            if let Some(agreed) = agreed {
                pair.ends[CALLER].session.agreed = Some(agreed);
                out = out.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    require.extend_from_slice(if require.is_empty() { b"timer" } else { b", timer" });
                }
            }
            supported.extend_from_slice(if supported.is_empty() { b"timer" } else { b", timer" });
        }
        for (name, options) in [(Name::Supported, supported), (Name::Require, require)] {
            if !options.is_empty() {
                out = out.header(name, &options);
            }
        }
        if let Some(product) = &config.product {
            out = out.header(Name::Server, product.as_bytes());
        }
        let (out, dropped) = copy_headers(out, response, from_realm, to_realm, &self.secrets[TARGET]);
        let flow = pair.flow(TARGET);
        if let Some(sdp) = &sdp {
            pair.ends[CALLER].description = Some(sdp.clone());
        }
        // What was agreed by an unreliable response belongs into the final one too.
        let agreed = if sdp.is_none() && status >= 200 && !pair.negotiated {
            pair.ends[CALLER].description.clone()
        } else {
            None
        };
        if let Some(sdp) = agreed {
            core.count_hidden(flow, dropped);
            return Some(out.body(b"application/sdp", sdp).finish());
        }
        let (out, bodies) = with_body(out, response, sdp.as_ref(), &self.secrets[TARGET]);
        core.count_hidden(flow, dropped + bodies);
        Some(out.finish())
    }

    fn on_branch_success(
        &mut self,
        index: u16,
        client: ClientId,
        response: Message,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        let branch = &mut self.branches[usize::from(index)];
        let was_done = branch.state == State::Done;
        branch.state = State::Done;
        let Some(flow) = branch.flow else { return };
        match &self.purpose {
            Purpose::Register { aor, token } => {
                let (aor, token) = (aor.clone(), token.clone());
                let Admit { server, flow, request } = self.upstream_copy();
                registrar.forwarded(server, flow, &request, &response, aor, token, core);
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
            self.fail_upstream(500, None, EndCause::Failed, core);
            return;
        };
        if let Some(found) = self.pair_mut(pair) {
            found.ends[TARGET].open_invite = Some(client);
            found.ends[TARGET].dialog.confirm(&response);
            found.ends[CALLER].dialog.confirmed = true;
            let next = super::refresh::next_hop_flow(&found.ends[TARGET].dialog, core);
            found.ends[TARGET].dialog.flow = next.unwrap_or(flow);
        }
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
        let endpoint = self.pair(pair).map(|pair| pair.endpoint(TARGET));
        if let (Some(endpoint), true) = (endpoint, self.has_media) {
            self.tell_media(MediaAction::Select { endpoint }, core);
        }
        if let Some(found) = self.pair_mut(pair) {
            found.ends[TARGET].session.agreed = Agreement::of_answer(&response);
        }
        self.take_response(pair, response, core);
    }

    /// The 2xx of a pair has its description: it goes to the caller, and the call is answered.
    pub(super) fn answer_call(&mut self, id: u32, response: &Message, sdp: Option<Bytes>, core: &mut Core) {
        if sdp.is_none() && self.lacks_answer(id) {
            self.fail_upstream(488, None, EndCause::MediaRefused, core);
            return;
        }
        let Some(answer) = self.build_response(id, response, sdp, core) else { return };
        let server = self.upstream.server;
        self.answered = true;
        self.times.answered = Some(core.now.monotonic);
        if let Some(timer) = self.ringing.take() {
            core.timers.cancel(timer);
        }
        self.stop_repeating(id, CALLER, core);
        let (realm, destination, trunk) = match self.pair(id) {
            Some(pair) => {
                let realm =
                    core.realm(pair.ends[TARGET].realm).map(|realm| realm.name.clone()).unwrap_or_default();
                let trunk = self
                    .branches
                    .get(usize::from(pair.branch))
                    .and_then(|branch| branch.trunk.as_ref())
                    .map(|trunk| trunk.name.clone());
                (realm, pair.flow(TARGET).remote, trunk)
            }
            None => return,
        };
        self.record(CallEventKind::Answered { realm, trunk, destination }, core);
        let status = response.status().unwrap_or(200);
        core.respond(server, status, answer.clone());
        let cseq = cseq_of(&self.upstream.request);
        self.repeat_until_acknowledged(id, CALLER, server, (status, cseq), answer, core);
        // With the offer in the INVITE nothing of the caller's ACK matters to the target; with the offer in the 2xx its
        // ACK carries the answer.
        let is_late =
            self.pair(id).and_then(|pair| pair.exchange).is_some_and(|exchange| exchange.offerer == TARGET);
        if let Some(pair) = self.pair_mut(id) {
            pair.owed_ack = is_late.then_some(TARGET);
        }
        if !is_late {
            self.acknowledge(id, TARGET, None, core);
        }
        for side in [CALLER, TARGET] {
            self.arm_session_timer(id, side, core);
        }
    }

    /// A failure, or none at all (408, 503).
    pub(crate) fn on_branch_failure(
        &mut self,
        index: u16,
        status: u16,
        response: Option<Message>,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
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
        if matches!(status, 500..=599 | 408) && !self.branches[usize::from(index)].alternatives.is_empty() {
            self.best.get_or_insert((status, response));
            self.next_address(index, core);
            return;
        }
        if self.has_media {
            let party = self.branches[usize::from(index)].party;
            self.tell_media(
                MediaAction::Reject { exchange: ExchangeId(1), from: Endpoint { party, branch: 0 } },
                core,
            );
        }
        if (300..400).contains(&status)
            && response.as_ref().is_some_and(|response| self.redirect(response, core, registrar))
        {
            if self.branches.iter().all(Branch::is_done) {
                self.next_step(core, registrar);
            }
            return;
        }
        if self.best.as_ref().is_none_or(|(best, _)| is_better(status, *best)) {
            self.best = Some((status, response));
        }
        if status >= 600 {
            self.cancel_branches(None, None, core);
            self.steps.clear();
        }
        if !self.branches.iter().all(Branch::is_done) {
            if status >= 600 {
                let (status, message) = self.best.take().unwrap_or((status, None));
                self.fail_upstream(status, message, cause_of(status), core);
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
            || matches!(self.purpose, Purpose::Register { .. })
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
        let method = self.upstream.request.method().unwrap_or(Method::INVITE);
        let answer = crate::digest::answer(
            response,
            method,
            &uri,
            &credentials.username,
            &credentials.password,
            &mut core.ids,
        );
        let Some(answer) = answer else { return false };
        match self.build(index, Some(answer), core) {
            Some(request) => {
                self.launch(index, request, core);
                true
            }
            None => false,
        }
    }

    /// A target that finds our session interval too small is asked again, once, with its own least (RFC 4028 §7.3): the
    /// caller's leg has an interval of its own.
    fn retry_with_interval(&mut self, index: u16, response: &Message, core: &mut Core) -> bool {
        if self.is_over() {
            return false;
        }
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return false };
        let least = response.number(Name::MinSe).and_then(Result::ok);
        let may_retry = response.status() == Some(422)
            && self.purpose == Purpose::Session
            && branch.least_interval.is_none()
            && matches!(branch.state, State::Trying | State::Ringing);
        let (Some(least), true) = (least, may_retry) else {
            return false;
        };
        branch.least_interval = Some(least);
        match self.build(index, None, core) {
            Some(request) => {
                self.launch(index, request, core);
                true
            }
            None => false,
        }
    }

    /// Cancels what still rings, but for `winner`.
    pub(super) fn cancel_branches(&mut self, winner: Option<u16>, reason: Option<&[u8]>, core: &mut Core) {
        for index in 0..self.branches.len() as u16 {
            if Some(index) == winner {
                continue;
            }
            let branch = &mut self.branches[usize::from(index)];
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

    fn upstream_copy(&self) -> Admit {
        Admit {
            server: self.upstream.server,
            flow: self.upstream.flow,
            request: self.upstream.request.clone(),
        }
    }

    /// The final response of a request that makes no dialog.
    pub(super) fn pass_final(&mut self, response: Message, core: &mut Core) {
        let status = response.status().unwrap_or(500);
        self.finish_upstream(status, Some(response), cause_of(status), Side::Callee, core);
    }
}

struct Admit {
    server: ServerId,
    flow: Flow,
    request: Message,
}

fn host_of(address: std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn strip_tag(value: &[u8]) -> &[u8] {
    match sip_wire::Address::parse(value) {
        Ok(address) if address.tag().is_some() => {
            let close = memchr::memrchr(b'>', value)
                .map_or_else(|| memchr::memchr(b';', value).unwrap_or(value.len()), |at| at + 1);
            &value[..close]
        }
        _ => value,
    }
}

/// The Contact by which the core's registrar knows the phone: ours.
fn register_contact(
    out: Builder,
    request: &Message,
    token: &str,
    listener: &crate::config::Listener,
    realm: &crate::config::Realm,
) -> Builder {
    if request.value(Name::Contact) == Some(b"*") {
        return out.header(Name::Contact, b"*").header(Name::Expires, b"0");
    }
    let Some(contact) = request.contacts().next().and_then(Result::ok) else { return out };
    let asked = contact
        .parameter(b"expires")
        .and_then(sip_wire::number)
        .or_else(|| request.number(Name::Expires).and_then(Result::ok));
    let upstream = match &realm.registrar {
        crate::config::RegistrarMode::Forward { upstream, .. } => upstream.as_secs(),
        _ => 3600,
    };
    let expires = if asked == Some(0) { 0 } else { upstream };
    let transport = match listener.transport {
        crate::io::Transport::Udp => "",
        crate::io::Transport::Tcp => ";transport=tcp",
        crate::io::Transport::Tls => ";transport=tls",
    };
    out.header(
        Name::Contact,
        format!("<sip:{token}@{}{transport}>;expires={expires}", listener.advertised).as_bytes(),
    )
}

/// P-Asserted-Identity towards a trusted realm (RFC 3325 §5): what we have proven, or what a trusted realm has asserted.
fn assert_identity(
    out: Builder,
    caller: &Caller,
    request: &Message,
    from: &crate::config::Realm,
    identity: Option<&str>,
) -> Builder {
    if from.trusted && request.count(Name::PAssertedIdentity) > 0 {
        return out; // Copied with the other headers.
    }
    match caller {
        Caller::Subscriber { aor } => {
            let user = identity.unwrap_or_else(|| aor.split('@').next().unwrap_or_default());
            let host = aor.rsplit('@').next().unwrap_or_default();
            out.header(Name::PAssertedIdentity, format!("<sip:{user}@{host}>").as_bytes())
        }
        Caller::Trunk { .. } | Caller::Anonymous => out,
    }
}

/// Adds a message's body, with `sdp` in the place of its session description, and how many bodies were dropped because they
/// name their own side.
pub(super) fn with_body(
    out: Builder,
    message: &Message,
    sdp: Option<&Bytes>,
    secrets: &crate::passing::Secrets,
) -> (Builder, u32) {
    let content_type = message.value(Name::ContentType).unwrap_or(b"application/octet-stream");
    let Some(range) = multipart::session_description(message) else {
        return match sdp {
            Some(sdp) => (out.body(b"application/sdp", sdp.clone()), 0),
            None if message.body().is_empty() => (out, 0),
            None if !secrets.are_in(message.body()) => (out.body(content_type, message.body_bytes()), 0),
            None => match bare_fragment(message) {
                Some(fragment) => (out.body(content_type, fragment), 0),
                None => (out, 1),
            },
        };
    };
    match sdp {
        None => (out, 0),
        Some(sdp) if range.len() == message.body().len() => (out.body(b"application/sdp", sdp.clone()), 0),
        Some(sdp) => {
            let body = multipart::replace(message.body(), range, sdp);
            if secrets.are_in(&body) {
                (out.body(b"application/sdp", sdp.clone()), 1)
            } else {
                (out.body(content_type, body), 0)
            }
        }
    }
}

/// Of a message/sipfrag (RFC 3420) the status line, which is all that a transfer is told by (RFC 3515 §2.4.5).
fn bare_fragment(message: &Message) -> Option<Bytes> {
    let content_type = message.value(Name::ContentType)?;
    let is_fragment =
        content_type.get(..15).is_some_and(|kind| kind.eq_ignore_ascii_case(b"message/sipfrag"));
    let body = message.body_bytes();
    let end = memchr::memchr(b'\n', &body)? + 1;
    (is_fragment && body.starts_with(b"SIP/2.0 ")).then(|| body.slice(..end))
}
