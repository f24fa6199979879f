//! Targets that send a call elsewhere (RFC 3261 §8.1.3.4): a redirection is the redirecting party's own call.
//!
//! It leads where that party might have dialled, is limited as its call and recorded as such, and the next target is told
//! who sent it (RFC 5806). Contacts are tried by q, and no target twice. A host that is none of ours is never sent to: of a
//! phone its contact counts for nothing; a trunk, which speaks of numbers in its own network, has the number routed. What
//! leads nowhere is a failure for the caller: a 3xx without a Contact would be of no use, and with one it would tell of
//! the other side.

use std::sync::Arc;

use sip_wire::{Address, Message, Scheme, Uri};

use super::Call;
use super::history::Why;
use crate::config::Config;
use crate::core::Core;
use crate::event::{CallChange, CallEventKind};
use crate::io::RealmId;
use crate::passing::user_of;
use crate::question::{Caller, RouteQuestion, RouteRefusal, RouteStep};
use crate::registrar::Registrar;
use crate::strangers::Kind;

/// One way to try, and who sent the call there.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) way: RouteStep,
    pub(super) diverted: Option<Arc<Diverted>>,
}

impl From<RouteStep> for Step {
    fn from(way: RouteStep) -> Self {
        Self { way, diverted: None }
    }
}

/// What a party of a realm dials.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled<'a> {
    pub(super) by: &'a Caller,
    pub(super) realm: RealmId,
    pub(super) uri: &'a [u8],
}

/// Who sent a call elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Diverted {
    /// As far as it was proven.
    pub(super) by: Caller,
    /// Its realm.
    realm: RealmId,
    /// The user part that it was dialled by.
    pub(super) user: String,
    pub(super) why: Why,
    /// Who had sent the call to it.
    pub(super) before: Option<Arc<Diverted>>,
}

/// How often one call may be sent on.
const DIVERSIONS: usize = 5;

impl Diverted {
    /// From the last that sent the call on to the first.
    pub(super) fn all(last: Option<&Arc<Self>>) -> impl Iterator<Item = &Self> {
        std::iter::successors(last.map(|last| &**last), |one| one.before.as_deref())
    }
}

impl Call {
    /// 3xx of a branch. Returns whether it leads anywhere.
    pub(super) fn redirect(
        &mut self,
        index: u16,
        response: &Message,
        core: &mut Core,
        registrar: &mut Registrar,
    ) -> bool {
        let Some(branch) = self.branches.get(usize::from(index)) else { return false };
        let by = match (&branch.trunk, &branch.aor) {
            (Some(trunk), _) => Caller::Trunk { name: trunk.name.clone() },
            (None, Some(aor)) => Caller::Subscriber { aor: aor.clone() },
            (None, None) => return false,
        };
        let user = match &by {
            Caller::Subscriber { aor } => aor.rsplit_once('@').map_or("", |(user, _)| user).to_owned(),
            _ => Uri::parse(&branch.uri).map(|uri| user_of(&uri)).unwrap_or_default(),
        };
        let (realm, before) = (branch.realm, branch.diverted.clone());
        if Diverted::all(before.as_ref()).count() >= DIVERSIONS {
            return false;
        }
        let why = Why::of(response, branch.has_rung);
        let diverted = Arc::new(Diverted { by, realm, user, why, before });
        let mut found = Vec::new();
        for uri in by_preference(response) {
            if self.branches.len().saturating_add(found.len()) >= core.config.limits.branches {
                break;
            }
            found.extend(self.way_to(&uri, &diverted, core, registrar));
        }
        if let (Caller::Subscriber { aor }, false, true) = (&diverted.by, found.is_empty(), self.is_session())
        {
            let limits = core.config.limits;
            if !core.strangers.may_have(aor, Kind::Session, &limits, core.now) {
                core.count_user_limited(aor, &self.upstream.incoming.flow);
                return false;
            }
            core.strangers.began(aor, Kind::Session);
            self.counted.push((aor.clone(), Kind::Session));
        }
        let leads_on = !found.is_empty();
        for step in found.into_iter().rev() {
            self.steps.push_front(step);
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
        if self.seen.is_empty() {
            let first = self.upstream.incoming.request.request_uri().and_then(|uri| Uri::parse(uri).ok());
            self.seen.extend(first.map(|uri| user_of(&uri)));
        }
        if self.seen.contains(&user) {
            return Vec::new();
        }
        // A trunk may name numbers that it serves itself: others that lead there come first.
        let dialled = Dialled { by: &diverted.by, realm: diverted.realm, uri };
        let mut ways = self.ways_of(&dialled, core, registrar).unwrap_or_default();
        ways.sort_by_key(|way| is_of_trunk(way, &diverted.by));
        if ways.is_empty() {
            return Vec::new();
        }
        self.seen.push(user.clone());
        let by = match &diverted.by {
            Caller::Subscriber { aor } => aor.clone(),
            Caller::Trunk { name } => name.clone(),
            Caller::Anonymous => "".into(),
        };
        if self.is_session() {
            self.record(CallEventKind::Changed(CallChange::Diverted { by, to: user.into() }), core);
        }
        ways.into_iter().map(|way| Step { way, diverted: Some(diverted.clone()) }).collect()
    }

    /// Where policy sends what is dialled.
    pub(super) fn route_as(
        &self,
        dialled: &Dialled<'_>,
        core: &Core,
        registrar: &Registrar,
    ) -> Result<Vec<RouteStep>, RouteRefusal> {
        let Dialled { by: caller, realm, .. } = *dialled;
        let mut steps = self.ways_of(dialled, core, registrar)?;
        // A call never goes back to the trunk that it came from, unless told: it would come again.
        if let Caller::Trunk { name } = caller
            && !core.realm(realm).is_some_and(|realm| realm.hairpin.allows(name))
        {
            steps.retain(|step| !is_of_trunk(step, caller));
            if steps.is_empty() {
                return Err(RouteRefusal::NotFound);
            }
        }
        Ok(steps)
    }

    /// The same, back to where it came from among it.
    fn ways_of(
        &self,
        dialled: &Dialled<'_>,
        core: &Core,
        registrar: &Registrar,
    ) -> Result<Vec<RouteStep>, RouteRefusal> {
        let Dialled { by: caller, realm, uri } = *dialled;
        let uri = Uri::parse(uri).map_err(|_| RouteRefusal::NotFound)?;
        let user = user_of(&uri);
        // What the core sends to a Contact of ours is for the phone behind it.
        if registrar.by_token(&user).is_some() || core.transfers.contains_key(user.as_bytes()) {
            return Ok(vec![RouteStep::Aor { aor: format!("\0{user}").into() }]);
        }
        let policy = core.policy.as_ref().ok_or(RouteRefusal::Unavailable)?;
        let host = host_of(&uri);
        let mut steps = policy.route(&RouteQuestion { realm, caller, user: &user, host: &host })?;
        // Trunks that are down are the last resort: a ping may be wrong.
        let is_down = |step: &RouteStep| match step {
            RouteStep::Trunk { target, .. } => !core.trunks.is_up(&target.name, core.now.monotonic),
            RouteStep::Aor { .. } => false,
        };
        steps.sort_by_key(is_down);
        Ok(steps)
    }
}

/// Whether a way leads to the trunk that asks for it.
fn is_of_trunk(way: &RouteStep, caller: &Caller) -> bool {
    matches!((way, caller), (RouteStep::Trunk { target, .. }, Caller::Trunk { name }) if target.name == *name)
}

fn host_of(uri: &Uri<'_>) -> String {
    String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase()
}

/// Whether a URI is one that its author could dial here: at a host of ours, or a number at none.
fn is_dialled_at(uri: &Uri<'_>, host: &str, by_trunk: bool, config: &Config) -> bool {
    match uri.scheme() {
        Scheme::Tel => true,
        Scheme::Sip | Scheme::Sips => match uri.host().address() {
            Some(address) => {
                let port = uri.port().unwrap_or(5060);
                by_trunk || config.is_own_address(std::net::SocketAddr::new(address, port))
            }
            None => config.realms.iter().any(|realm| realm.domains.iter().any(|domain| **domain == *host)),
        },
        Scheme::Urn | Scheme::Other => false,
    }
}

/// The contacts of a redirection, best first; of equals the first (RFC 3261 §8.1.3.4, §20.10).
fn by_preference(response: &Message) -> Vec<Vec<u8>> {
    let mut contacts: Vec<(u16, Vec<u8>)> = response
        .contacts()
        .flatten()
        .map(|contact| (quality(&contact), contact.uri.as_bytes().to_vec()))
        .collect();
    contacts.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    contacts.into_iter().map(|(_, uri)| uri).collect()
}

/// q in thousandths.
fn quality(contact: &Address<'_>) -> u16 {
    let q = contact.parameter(b"q").and_then(|q| std::str::from_utf8(q).ok()?.parse::<f32>().ok());
    (q.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u16
}
