//! Finding a target: routes, contacts, addresses, in order and in parallel (RFC 3261 §16.6, RFC 3263).

use std::collections::VecDeque;
use std::sync::Arc;

use sip_wire::{Message, Name, Uri};

use super::branch::{Branch, State, Target};
use super::breadth::breadth_of;
use super::diversion::{DIVERSIONS, Diverted, Why};
use super::fault::{End, Final};
use super::redirect::{Dialled, Step, Way};
use super::redirect::{by_preference, host_of, is_dialled_at, is_of_trunk, route_as, ways_of};
use super::side::{BranchId, Side};
use super::transfer::replaces_of;
use super::translate::reason_of;
use super::{Call, CallTimer, Progress, Purpose};
use crate::config::RegistrarMode;
use crate::core::{Asker, Core};
use crate::event::{CallChange, CallEventKind};
use crate::flow::{Flow, Transport};
use crate::passing::user_of;
use crate::question::{Caller, Contact, Resolve, ResolvedAddress, TrunkTarget};
use crate::registrar::Registrar;
use crate::strangers::Kind;
use crate::transaction::ServerId;

/// What is still to be tried, and what has come of what was.
#[derive(Debug, Default)]
pub(super) struct Hunt {
    pub(super) steps: VecDeque<Step>,
    /// Phones of the step that more would ring at once than the caller allows.
    pub(super) waiting_phones: VecDeque<Found>,
    /// Whether a phone was left out because it is the caller's own.
    pub(super) has_passed_itself: bool,
    /// Users that the call was sent to by redirections, and the one that was dialled.
    pub(super) seen: Vec<String>,
    pub(super) best: Option<Final>,
}

impl Hunt {
    /// The best of the failures is what the caller sees.
    pub(super) fn note(&mut self, outcome: Final) {
        if self.best.as_ref().is_none_or(|best| outcome.fault.is_better_than(&best.fault)) {
            self.best = Some(outcome);
        }
    }
}

/// A phone to ring.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) contact: Contact,
    /// Its other flows, for when this one is dead.
    pub(super) others: Vec<Contact>,
    /// Who it is, for the record.
    pub(super) who: Arc<str>,
    pub(super) diverted: Option<Arc<Diverted>>,
    /// Its share of the caller's Max-Breadth.
    pub(super) breadth: u32,
}

impl Call {
    /// Looks up the way and takes its first step.
    pub(crate) fn start(&mut self, core: &mut Core, registrar: &mut Registrar) {
        if self.parties.is_session() {
            self.record_started(core);
        }
        if let Purpose::Register(_) = self.parties.purpose {
            let target = core.realm(self.parties.upstream.realm).and_then(|realm| match &realm.registrar {
                RegistrarMode::Forward { registrar, .. } => Some(registrar.clone()),
                _ => None,
            });
            match target {
                Some(target) => {
                    let user = String::new().into();
                    self.hunt.steps.push_back(Way::Trunk { target, user }.into());
                    self.next_step(core, registrar);
                }
                None => self.fail_upstream(End::NoRegistrar, core),
            }
            return;
        }
        if breadth_of(&self.parties.upstream.incoming.request) == 0 {
            self.fail_upstream(End::NoBreadth, core);
            return;
        }
        // A dialog that is not ours cannot be replaced, and a plain new call is not what was asked for (RFC 3891 §3).
        if self.parties.is_session()
            && self.parties.upstream.incoming.request.count(Name::Replaces) > 0
            && replaces_of(&self.parties.upstream.incoming.request, core).is_none()
        {
            self.fail_upstream(End::NothingToReplace, core);
            return;
        }
        let uri = self.parties.upstream.incoming.request.request_uri().unwrap_or_default();
        let dialled = Dialled { by: &self.parties.upstream.caller, realm: self.parties.upstream.realm, uri };
        match route_as(&dialled, core, registrar) {
            Ok(steps) => self.hunt.steps = steps.into_iter().map(Into::into).collect(),
            Err(refusal) => {
                self.fail_upstream(End::from(refusal), core);
                return;
            }
        }
        self.next_step(core, registrar);
    }

    /// The next step of the way; when there is none, the best failure goes to the caller.
    pub(super) fn next_step(&mut self, core: &mut Core, registrar: &mut Registrar) {
        let limit = core.config.limits.branches;
        while let Some(Step { way, diverted }) = self.hunt.steps.pop_front() {
            match way {
                Way::Aor(aor) => {
                    for (contact, others) in registrar.phones(&aor).into_iter().take(limit) {
                        // A phone that calls its own AOR does not ring itself, over none of its flows.
                        let is_from = |other: &Contact| self.parties.is_from(other);
                        if is_from(&contact) || others.iter().any(is_from) {
                            self.hunt.has_passed_itself = true;
                        } else {
                            let (who, diverted) = (aor.clone(), diverted.clone());
                            let found = Found { contact, others, who, diverted, breadth: 1 };
                            self.hunt.waiting_phones.push_back(found);
                        }
                    }
                    self.ring_waiting(core);
                }
                // An end that a transfer joins may well be where the call comes from: both are calls of one trunk.
                Way::Token(token) => {
                    let found = named_by(&token, core, registrar).take(limit);
                    self.hunt
                        .waiting_phones
                        .extend(found.map(|found| Found { diverted: diverted.clone(), ..found }));
                    self.ring_waiting(core);
                }
                Way::Trunk { target, user } => self.try_trunk(target, &user, diverted, core),
            }
            if self.parties.branches.iter().any(|branch| !branch.is_done()) {
                return;
            }
        }
        if self.parties.branches.are_all_done() && !self.is_answered() && !self.is_over() {
            let nobody_was_asked = self.parties.branches.len() == 0;
            let is_own = self.hunt.has_passed_itself && self.parties.is_session();
            let outcome = self.hunt.best.take().unwrap_or_else(|| {
                Final::from(match (nobody_was_asked, is_own) {
                    (true, true) => End::OwnPhone,
                    (true, false) => End::NotRegistered,
                    (false, true) => End::OwnPhoneLeft,
                    (false, false) => End::NobodyLeft,
                })
            });
            self.fail_upstream(outcome, core);
        }
    }

    /// Rings those that wait, as many as may be at once; of equals the first has what cannot be divided.
    pub(super) fn ring_waiting(&mut self, core: &mut Core) {
        while !self.hunt.waiting_phones.is_empty() && !self.is_over() && self.progress == Progress::Hunting {
            let free = self.parties.free_breadth();
            let count = u32::try_from(self.hunt.waiting_phones.len()).unwrap_or(u32::MAX).min(free);
            let Some(share) = free.checked_div(count) else { return };
            let first = share.saturating_add(free.checked_rem(count).unwrap_or_default());
            for index in 0..count {
                let Some(found) = self.hunt.waiting_phones.pop_front() else { return };
                self.try_contact(Found { breadth: if index == 0 { first } else { share }, ..found }, core);
            }
        }
    }

    pub(super) fn try_contact(&mut self, found: Found, core: &mut Core) {
        let Found { contact, others, who, diverted, breadth } = found;
        // A sips: call is not brought by less than TLS (RFC 3261 §26.2.2).
        if self.parties.is_secure() && contact.flow.transport != Transport::Tls {
            return;
        }
        let index = self.parties.branches.next_id();
        let mut branch = Branch::new(index, contact.realm, Target::new(contact.uri, who));
        branch.target.routes = contact.path;
        branch.target.flow = Some(contact.flow);
        branch.other_flows = others.into();
        branch.target.aor = contact.aor;
        branch.diverted = diverted;
        branch.breadth = breadth;
        self.parties.branches.push(branch);
        self.prepare(index, core);
    }

    fn try_trunk(
        &mut self,
        target: Arc<TrunkTarget>,
        user: &str,
        diverted: Option<Arc<Diverted>>,
        core: &mut Core,
    ) {
        let index = self.parties.branches.next_id();
        let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
        let uri = match &self.parties.purpose {
            Purpose::Register(_) => {
                without_headers(self.parties.upstream.incoming.request.request_uri().unwrap_or_default())
            }
            _ if user.is_empty() => format!("sip:{}{port}", target.host).into_bytes(),
            _ => {
                let (parameters, kind) = self.parties.number_as_dialled();
                format!("sip:{}{parameters}@{}{port}{kind}", escape_user(user), target.host).into_bytes()
            }
        };
        let who = String::from_utf8_lossy(&uri).into();
        let mut branch = Branch::new(index, target.realm, Target::new(uri.into(), who));
        let resolve = Resolve {
            host: target.host.clone(),
            port: target.port,
            transport: target.transport,
            secure: self.parties.needs_secure_trunk(),
        };
        branch.target.trunk = Some(target);
        branch.diverted = diverted;
        branch.breadth = self.parties.free_breadth().max(1);
        self.parties.branches.push(branch);
        match resolve.literal() {
            Some(address) => self.on_resolved_branch(index, vec![address], core),
            None => core.resolve(Asker::Branch(self.parties.key, index), resolve),
        }
    }

    /// DNS has answered.
    pub(crate) fn on_resolved(
        &mut self,
        branch: BranchId,
        addresses: Vec<ResolvedAddress>,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        if self.parties.branches.get(branch).is_none_or(|branch| branch.state != State::Resolving) {
            return;
        }
        self.on_resolved_branch(branch, addresses, core);
        if self.parties.branches.get(branch).is_some_and(Branch::is_done) {
            self.next_step(core, registrar);
        }
    }

    fn on_resolved_branch(&mut self, index: BranchId, addresses: Vec<ResolvedAddress>, core: &mut Core) {
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        branch.alternatives = addresses.into();
        self.next_address(index, core);
    }

    /// The branch's next address, as a new attempt; the branch is done when there is none.
    pub(super) fn next_address(&mut self, index: BranchId, core: &mut Core) {
        let is_secure = self.parties.needs_secure_trunk();
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        let name = branch.target.trunk.as_ref().map(|trunk| trunk.name.to_string()).unwrap_or_default();
        while let Some(address) = branch.alternatives.pop_front() {
            if is_secure && address.transport != Transport::Tls {
                continue;
            }
            let Some(listener) =
                core.config.listener_for(branch.realm, address.transport, address.address.ip())
            else {
                continue;
            };
            branch.target.flow = Some(Flow {
                listener,
                transport: address.transport,
                remote: address.address,
                connection: None,
            });
            branch.target.server_name = Some(address.server_name);
            self.prepare(index, core);
            return;
        }
        branch.state = State::Done;
        branch.story.unheard(503);
        if self.hunt.best.is_none() {
            self.hunt.best = Some(Final::of_silence(503));
        }
        core.notice("unreachable", None, format!("no address of {name} could be reached: check its host, transport and the listeners of its realm"));
    }

    /// No response at all: the next address or target.
    pub(super) fn on_failover(&mut self, index: BranchId, core: &mut Core, registrar: &mut Registrar) {
        let Some(branch) = self.parties.branches.get_mut(index) else { return };
        branch.attempt.failover = None;
        // A target that has said 100 lives, and may take its time.
        let has_spoken = branch.attempt.client.is_some_and(|client| core.transactions.has_response(client));
        if branch.state != State::Trying
            || has_spoken
            || (branch.alternatives.is_empty() && self.hunt.steps.is_empty())
        {
            return;
        }
        if let Some(client) = branch.attempt.client.take() {
            core.cancel(client, None);
            branch.attempt.abandoned.push(client);
        }
        branch.story.unheard(408);
        self.hunt.best.get_or_insert(Final::of_silence(408));
        self.next_address(index, core);
        if self.parties.branches.are_all_done() {
            self.next_step(core, registrar);
        }
    }

    pub(super) fn arm_ringing(&mut self, core: &mut Core) {
        if !self.lifetime.is_limited() && self.parties.is_session() {
            let timer = self.schedule(core.config.timers.ringing, CallTimer::Ringing, core);
            self.lifetime.limit(Some(timer), core);
        }
    }

    pub(super) fn on_ringing_too_long(&mut self, core: &mut Core) {
        self.lifetime.limit(None, core);
        if !self.is_answered() && !self.is_over() {
            self.fail_upstream(End::RungTooLong, core);
        }
    }

    /// CANCEL from the caller.
    pub(crate) fn on_cancelled(&mut self, server: ServerId, cancel: &Message, core: &mut Core) {
        let config = core.config.clone();
        let names = self.parties.branch_names(&config, BranchId(0), Side::Caller);
        let reason = reason_of(cancel, names.as_ref());
        if server != self.parties.upstream.incoming.server {
            self.cancel_forward(server, reason.as_deref(), core);
            return;
        }
        if self.is_answered() || self.is_over() {
            return;
        }
        self.cancel_branches(None, reason.as_deref(), core);
        self.finish_upstream(End::Cancelled.into(), core);
    }

    /// 3xx of a branch. Returns whether it leads anywhere.
    pub(super) fn redirect(
        &mut self,
        index: BranchId,
        response: &Message,
        core: &mut Core,
        registrar: &mut Registrar,
    ) -> bool {
        let Some(branch) = self.parties.branches.get(index) else { return false };
        let by = match (&branch.target.trunk, &branch.target.aor) {
            (Some(trunk), _) => Caller::Trunk { name: trunk.name.clone() },
            (None, Some(aor)) => Caller::Subscriber { aor: aor.clone() },
            (None, None) => return false,
        };
        let user = match &by {
            Caller::Subscriber { aor } => aor.rsplit_once('@').map_or("", |(user, _)| user).to_owned(),
            _ => Uri::parse(&branch.target.uri).map(|uri| user_of(&uri)).unwrap_or_default(),
        };
        let (realm, before) = (branch.realm, branch.diverted.clone());
        if Diverted::all(before.as_ref()).count() >= DIVERSIONS {
            return false;
        }
        let why = Why::of(response, branch.has_rung);
        let diverted = Arc::new(Diverted { by, realm, user, why, before });
        let mut found = Vec::new();
        for uri in by_preference(response) {
            if self.parties.branches.len().saturating_add(found.len()) >= core.config.limits.branches {
                break;
            }
            found.extend(self.way_to(&uri, &diverted, core, registrar));
        }
        if let (Caller::Subscriber { aor }, false, true) =
            (&diverted.by, found.is_empty(), self.parties.is_session())
        {
            let limits = core.config.limits;
            if !core.guards.strangers.may_have(aor, Kind::Session, &limits, core.now) {
                core.count_user_limited(aor, &self.parties.upstream.incoming.flow);
                return false;
            }
            core.guards.strangers.began(aor, Kind::Session);
            self.standing.counted.push((aor.clone(), Kind::Session));
        }
        let leads_on = !found.is_empty();
        for step in found.into_iter().rev() {
            self.hunt.steps.push_front(step);
        }
        leads_on
    }

    /// The ways to what a redirecting party names, if it might dial it, and nobody has been sent there yet.
    fn way_to(
        &mut self,
        uri: &[u8],
        diverted: &Arc<Diverted>,
        core: &mut Core,
        registrar: &Registrar,
    ) -> Vec<Step> {
        let Ok(target) = Uri::parse(uri) else { return Vec::new() };
        let is_trunk = matches!(diverted.by, Caller::Trunk { .. });
        let (user, host) = (user_of(&target), host_of(&target));
        if user.is_empty() || !is_dialled_at(&target, &host, is_trunk, &core.config) {
            return Vec::new();
        }
        if self.hunt.seen.is_empty() {
            let first =
                self.parties.upstream.incoming.request.request_uri().and_then(|uri| Uri::parse(uri).ok());
            self.hunt.seen.extend(first.map(|uri| user_of(&uri)));
        }
        if self.hunt.seen.contains(&user) {
            return Vec::new();
        }
        // A trunk may name numbers that it serves itself: others that lead there come first.
        let dialled = Dialled { by: &diverted.by, realm: diverted.realm, uri };
        let mut ways = ways_of(&dialled, core, registrar).unwrap_or_default();
        ways.sort_by_key(|way| is_of_trunk(way, &diverted.by));
        if ways.is_empty() {
            return Vec::new();
        }
        self.hunt.seen.push(user.clone());
        let by = diverted.by.name();
        if self.parties.is_session() {
            self.record.write(CallEventKind::Changed(CallChange::Diverted { by, to: user.into() }), core);
        }
        ways.into_iter().map(|way| Step { way, diverted: Some(diverted.clone()) }).collect()
    }
}

/// Whoever a token names that we gave: an end that a transfer joins, or the phone behind a Contact of ours.
fn named_by(token: &str, core: &Core, registrar: &Registrar) -> impl Iterator<Item = Found> + use<> {
    let (contact, who) = match core.dialogs.transfers.get(token.as_bytes()) {
        Some(peer) => {
            let contact = Contact {
                realm: peer.realm,
                flow: peer.flow,
                uri: peer.uri.clone(),
                path: peer.path.clone(),
                q: 1000,
                aor: peer.aor.clone(),
            };
            (Some(contact), peer.who.clone())
        }
        None => (registrar.by_token(token), registrar.aor_of_token(token).unwrap_or_default()),
    };
    let found = move |contact| Found { contact, others: Vec::new(), who, diverted: None, breadth: 1 };
    contact.map(found).into_iter()
}

/// A Request-URI without the headers that it should not have (RFC 3261 §19.1.1).
fn without_headers(uri: &[u8]) -> Vec<u8> {
    let headers = Uri::parse(uri).map_or(0, |uri| uri.headers().len());
    let end = if headers == 0 { uri.len() } else { uri.len().saturating_sub(headers).saturating_sub(1) };
    uri.get(..end).unwrap_or(uri).to_vec()
}

fn escape_user(user: &str) -> String {
    // `+` and the visual separators of numbers stay readable (RFC 3261 §25.1 user-unreserved).
    user.bytes().fold(String::with_capacity(user.len()), |mut out, byte| {
        match byte {
            b'+' | b'&' | b'=' | b'$' | b',' | b';' | b'/' | b'?' => out.push(char::from(byte)),
            _ => out.push_str(&Uri::escape(&[byte])),
        }
        out
    })
}
