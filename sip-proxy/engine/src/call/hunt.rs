//! Finding a target: routes, contacts, addresses, in order and in parallel (RFC 3261 §16.6, RFC 3263).

use std::sync::Arc;

use sip_wire::{Message, Name, Uri};

use super::branch::{Branch, State};
use super::breadth::breadth_of;
use super::redirect::{Dialled, Diverted, Step};
use super::side::Side;
use super::{Call, CallTimer, Final, Purpose};
use crate::core::{Asker, Core};
use crate::event::{EndCause, EndedBy};
use crate::io::{Flow, Transport};
use crate::passing::{is_telephone, number_parameters};
use crate::question::{Caller, Contact, Resolve, ResolvedAddress, RouteRefusal, RouteStep, TrunkTarget};
use crate::registrar::{Registrar, are_equal};

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
        if self.is_session() {
            self.record_started(core);
        }
        if let Purpose::Register(_) = self.purpose {
            let target = core.realm(self.upstream.realm).and_then(|realm| match &realm.registrar {
                crate::config::RegistrarMode::Forward { registrar, .. } => Some(registrar.clone()),
                _ => None,
            });
            match target {
                Some(target) => {
                    let user = String::new().into();
                    self.steps.push_back(RouteStep::Trunk { target, user }.into());
                    self.next_step(core, registrar);
                }
                None => self.fail_upstream(404, EndCause::NotFound, core),
            }
            return;
        }
        if breadth_of(&self.upstream.incoming.request) == 0 {
            self.fail_upstream(440, EndCause::Refused, core);
            return;
        }
        // A dialog that is not ours cannot be replaced, and a plain new call is not what was asked for (RFC 3891 §3).
        if self.is_session()
            && self.upstream.incoming.request.count(Name::Replaces) > 0
            && super::transfer::replaces_of(&self.upstream.incoming.request, core).is_none()
        {
            self.fail_upstream(481, EndCause::NotFound, core);
            return;
        }
        let uri = self.upstream.incoming.request.request_uri().unwrap_or_default();
        let dialled = Dialled { by: &self.upstream.caller, realm: self.upstream.realm, uri };
        match self.route_as(&dialled, core, registrar) {
            Ok(steps) => self.steps = steps.into_iter().map(Into::into).collect(),
            Err(refusal) => {
                let (status, cause) = match refusal {
                    RouteRefusal::NotFound => (404, EndCause::NotFound),
                    RouteRefusal::Forbidden => (403, EndCause::Refused),
                    RouteRefusal::Unavailable => (503, EndCause::Unreachable),
                };
                self.fail_upstream(status, cause, core);
                return;
            }
        }
        self.next_step(core, registrar);
    }

    /// The next step of the way; when there is none, the best failure goes to the caller.
    pub(super) fn next_step(&mut self, core: &mut Core, registrar: &mut Registrar) {
        while let Some(Step { way, diverted }) = self.steps.pop_front() {
            match way {
                RouteStep::Aor { aor } => {
                    let mut who = aor.clone();
                    let alone = |contact| (contact, Vec::new());
                    let contacts: Vec<(Contact, Vec<Contact>)> = match aor.strip_prefix('\0') {
                        Some(token) => match core.transfers.get(token.as_bytes()) {
                            Some(peer) => vec![alone(Contact {
                                realm: peer.realm,
                                flow: peer.flow,
                                uri: peer.uri.clone(),
                                path: peer.path.clone(),
                                q: 1000,
                                aor: peer.aor.clone(),
                            })],
                            None => registrar.by_token(token).into_iter().map(alone).collect(),
                        },
                        None => registrar.phones(&aor),
                    };
                    if let Some(token) = aor.strip_prefix('\0') {
                        let of_transfer = core.transfers.get(token.as_bytes()).map(|peer| peer.who.clone());
                        who = of_transfer.or_else(|| registrar.aor_of_token(token)).unwrap_or_default();
                    }
                    let limit = core.config.limits.branches;
                    let is_transfer = aor.strip_prefix('\0').is_some();
                    for (contact, others) in contacts.into_iter().take(limit) {
                        // A phone that calls its own AOR does not ring itself, over none of its flows. An end that a transfer
                        // joins may well be where the call comes from: both are calls of one trunk.
                        let is_own = self.is_from(&contact) || others.iter().any(|other| self.is_from(other));
                        if is_own && !is_transfer {
                            self.has_passed_itself = true;
                        } else {
                            let (who, diverted) = (who.clone(), diverted.clone());
                            self.waiting_phones.push_back(Found {
                                contact,
                                others,
                                who,
                                diverted,
                                breadth: 1,
                            });
                        }
                    }
                    self.ring_waiting(core);
                }
                RouteStep::Trunk { target, user } => self.try_trunk(target, &user, diverted, core),
            }
            if self.branches.iter().any(|branch| !branch.is_done()) {
                return;
            }
        }
        if self.branches.iter().all(Branch::is_done) && !self.answered && !self.is_over() {
            let nobody_was_asked = self.branches.is_empty() && self.best.is_none();
            let outcome = match self.best.take() {
                Some(best) => best,
                // The one phone that there is has its receiver off (RFC 3261 §21.4.24).
                None if self.has_passed_itself && self.is_session() => Final::from(486),
                None => Final::from(480),
            };
            let cause = match nobody_was_asked {
                true if self.has_passed_itself => EndCause::OwnPhone,
                // The address is known, and no phone has registered for it.
                true => EndCause::NotRegistered,
                false => cause_of(outcome.status),
            };
            self.fail_upstream(outcome, cause, core);
        }
    }

    /// Whether the caller asked for TLS on every hop.
    fn is_secure(&self) -> bool {
        let uri = self.upstream.incoming.request.request_uri().and_then(|uri| Uri::parse(uri).ok());
        uri.is_some_and(|uri| uri.scheme() == sip_wire::Scheme::Sips)
    }

    /// Whether trunks have to be reached by TLS. Behind the host that a `sips:` URI names, here, the operator's routes say
    /// how calls go on (RFC 3261 §26.2.2); but who came by TLS is not carried on by less.
    fn needs_secure_trunk(&self) -> bool {
        self.is_secure() && self.upstream.incoming.flow.transport == Transport::Tls
    }

    /// Whether a contact is the caller's own.
    fn is_from(&self, contact: &Contact) -> bool {
        let Ok(uri) = Uri::parse(&contact.uri) else { return false };
        let incoming = &self.upstream.incoming;
        contact.flow == incoming.flow
            && incoming.request.contacts().flatten().any(|own| are_equal(&own.uri, &uri))
    }

    pub(super) fn try_contact(&mut self, found: Found, core: &mut Core) {
        let Found { contact, others, who, diverted, breadth } = found;
        // A sips: call is not brought by less than TLS (RFC 3261 §26.2.2).
        if self.is_secure() && contact.flow.transport != Transport::Tls {
            return;
        }
        let mut branch =
            Branch::new((self.branches.len() as u16).saturating_add(1), contact.realm, contact.uri, who);
        branch.routes = contact.path;
        branch.flow = Some(contact.flow);
        branch.other_flows = others.into();
        branch.aor = contact.aor;
        branch.diverted = diverted;
        branch.breadth = breadth;
        let index = self.branches.len() as u16;
        self.branches.push(branch);
        self.prepare(index, core);
    }

    fn try_trunk(
        &mut self,
        target: Arc<TrunkTarget>,
        user: &str,
        diverted: Option<Arc<Diverted>>,
        core: &mut Core,
    ) {
        let index = self.branches.len() as u16;
        let port = target.port.map(|port| format!(":{port}")).unwrap_or_default();
        let uri = match &self.purpose {
            Purpose::Register(_) => {
                without_headers(self.upstream.incoming.request.request_uri().unwrap_or_default())
            }
            _ if user.is_empty() => format!("sip:{}{port}", target.host).into_bytes(),
            _ => {
                let (parameters, kind) = self.number_as_dialled();
                format!("sip:{}{parameters}@{}{port}{kind}", escape_user(user), target.host).into_bytes()
            }
        };
        let who = String::from_utf8_lossy(&uri).into();
        let mut branch = Branch::new(index.saturating_add(1), target.realm, uri.into(), who);
        let resolve = Resolve {
            host: target.host.clone(),
            port: target.port,
            transport: target.transport,
            secure: self.needs_secure_trunk(),
        };
        branch.trunk = Some(target);
        branch.diverted = diverted;
        branch.breadth = self.free_breadth().max(1);
        self.branches.push(branch);
        match resolve.literal() {
            Some(address) => self.on_resolved_branch(index, vec![address], core),
            None => core.resolve(Asker::Branch(self.key, index), resolve),
        }
    }

    /// What the dialled URI says of its number beside the digits (RFC 4694: it has been ported, and where to), and
    /// that it is one (RFC 3261 §19.1.1): there are carriers that refuse calls without.
    fn number_as_dialled(&self) -> (String, &'static str) {
        let Ok(uri) = Uri::parse(self.upstream.incoming.request.request_uri().unwrap_or_default()) else {
            return Default::default();
        };
        (number_parameters(&uri), if is_telephone(&uri) { ";user=phone" } else { "" })
    }

    /// DNS has answered.
    pub(crate) fn on_resolved(
        &mut self,
        branch: u16,
        addresses: Vec<ResolvedAddress>,
        core: &mut Core,
        registrar: &mut Registrar,
    ) {
        if self.branches.get(usize::from(branch)).is_none_or(|branch| branch.state != State::Resolving) {
            return;
        }
        self.on_resolved_branch(branch, addresses, core);
        if self.branches.get(usize::from(branch)).is_some_and(Branch::is_done) {
            self.next_step(core, registrar);
        }
    }

    fn on_resolved_branch(&mut self, index: u16, addresses: Vec<ResolvedAddress>, core: &mut Core) {
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        branch.alternatives = addresses.into();
        self.next_address(index, core);
    }

    /// The branch's next address, as a new attempt; the branch is done when there is none.
    pub(super) fn next_address(&mut self, index: u16, core: &mut Core) {
        let is_secure = self.needs_secure_trunk();
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        let name = branch.trunk.as_ref().map(|trunk| trunk.name.to_string()).unwrap_or_default();
        while let Some(address) = branch.alternatives.pop_front() {
            if is_secure && address.transport != Transport::Tls {
                continue;
            }
            let Some(listener) =
                core.config.listener_for(branch.realm, address.transport, address.address.ip())
            else {
                continue;
            };
            branch.flow = Some(Flow {
                listener,
                transport: address.transport,
                remote: address.address,
                connection: None,
            });
            branch.server_name = Some(address.server_name);
            self.prepare(index, core);
            return;
        }
        branch.state = State::Done;
        if self.best.is_none() {
            self.best = Some(Final::from(503));
        }
        core.notice("unreachable", None, format!("no address of {name} could be reached: check its host, transport and the listeners of its realm"));
    }

    /// No response at all: the next address or target.
    pub(super) fn on_failover(&mut self, index: u16, core: &mut Core, registrar: &mut Registrar) {
        let Some(branch) = self.branches.get_mut(usize::from(index)) else { return };
        branch.failover = None;
        // A target that has said 100 lives, and may take its time.
        let has_spoken = branch.client.is_some_and(|client| core.transactions.has_response(client));
        if branch.state != State::Trying
            || has_spoken
            || (branch.alternatives.is_empty() && self.steps.is_empty())
        {
            return;
        }
        if let Some(client) = branch.client.take() {
            core.cancel(client, None);
            branch.abandoned.push(client);
        }
        self.best.get_or_insert(Final::from(408));
        self.next_address(index, core);
        if self.branches.iter().all(Branch::is_done) {
            self.next_step(core, registrar);
        }
    }

    pub(super) fn on_ringing_too_long(&mut self, core: &mut Core) {
        self.ringing = None;
        if !self.answered && !self.is_over() {
            self.cancel_branches(None, None, core);
            self.fail_upstream(408, EndCause::NoAnswer, core);
        }
    }

    /// CANCEL from the caller.
    pub(crate) fn on_cancelled(
        &mut self,
        server: crate::transaction::ServerId,
        cancel: &Message,
        core: &mut Core,
    ) {
        let config = core.config.clone();
        let names = self.branch_names(&config, 0, Side::Caller);
        let reason = super::translate::reason_of(cancel, names.as_ref());
        if server != self.upstream.incoming.server {
            self.cancel_forward(server, reason.as_deref(), core);
            return;
        }
        if self.answered || self.is_over() {
            return;
        }
        self.cancel_branches(None, reason.as_deref(), core);
        self.finish_upstream(Final::from(487), EndCause::Cancelled, EndedBy::Caller, core);
    }

    pub(super) fn arm_ringing(&mut self, core: &mut Core) {
        if self.ringing.is_none() && self.is_session() {
            self.ringing = Some(self.schedule(core.config.timers.ringing, CallTimer::Ringing, core));
        }
    }

    /// Who a branch goes to, and the URI that it asks for there.
    pub(super) fn reached(&self, branch: u16) -> (Arc<str>, Arc<str>) {
        let Some(branch) = self.branches.get(usize::from(branch)) else { return Default::default() };
        (branch.who.clone(), String::from_utf8_lossy(&branch.uri).into())
    }

    /// Who calls: proven, or else as it says itself.
    pub(super) fn caller_in_records(&self) -> Arc<str> {
        let name = self.caller_name();
        if !name.is_empty() {
            return name;
        }
        let from = self.upstream.incoming.request.from();
        String::from_utf8_lossy(from.map(|from| from.uri.as_bytes()).unwrap_or_default()).into()
    }

    pub(super) fn caller_name(&self) -> Arc<str> {
        match &self.upstream.caller {
            Caller::Subscriber { aor } => aor.clone(),
            Caller::Trunk { name } => name.clone(),
            Caller::Anonymous => "".into(),
        }
    }
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

/// The record's cause for a failure status.
pub(super) fn cause_of(status: u16) -> EndCause {
    match status {
        486 | 600 => EndCause::Busy,
        403 | 603 | 607 | 608 => EndCause::Declined,
        404 | 410 | 484 | 485 | 604 => EndCause::NotFound,
        408 | 480 => EndCause::NoAnswer,
        415 | 488 | 606 => EndCause::MediaRefused,
        487 => EndCause::Cancelled,
        503 => EndCause::Unreachable,
        _ => EndCause::Failed,
    }
}

/// Whether another target may do better than the one that gave this failure.
pub(super) fn may_fail_over(status: u16) -> bool {
    matches!(status, 408 | 480 | 430 | 500..=599)
}

/// Of two failures the one the caller should see (RFC 3261 §16.7 step 6).
pub(super) fn is_better(new: u16, old: u16) -> bool {
    let rank = |status: u16| match status {
        600..=699 => 0,
        401 | 407 | 415 | 420 | 484 => 1,
        486 | 488 | 404 => 2,
        300..=399 => 3,
        408 | 480 => 5,
        400..=499 => 4,
        503 => 7,
        _ => 6,
    };
    rank(new) < rank(old)
}
