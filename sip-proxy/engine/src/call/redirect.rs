//! Targets that send a call elsewhere (RFC 3261 §8.1.3.4): a redirection is the redirecting party's own call.
//!
//! It leads where that party might have dialled, is limited as its call and recorded as such, and the next target is told
//! who sent it (RFC 5806). Contacts are tried by q, and no target twice. A host that is none of ours is never sent to: of a
//! phone its contact counts for nothing; a trunk, which speaks of numbers in its own network, has the number routed. What
//! leads nowhere is a failure for the caller: a 3xx without a Contact would be of no use, and with one it would tell of
//! the other side.

use std::sync::Arc;

use sip_wire::{Address, Message, Scheme, Uri};

use super::diversion::Diverted;
use crate::config::Config;
use crate::core::Core;
use crate::flow::RealmId;
use crate::passing::user_of;
use crate::question::{Caller, RouteQuestion, RouteRefusal, RouteStep, TrunkTarget};
use crate::registrar::Registrar;

/// One way to try, and who sent the call there.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) way: Way,
    pub(super) diverted: Option<Arc<Diverted>>,
}

impl From<Way> for Step {
    fn from(way: Way) -> Self {
        Self { way, diverted: None }
    }
}

/// Where a call may be sent.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// To the phones of an address.
    Aor(Arc<str>),
    /// Over a trunk, to a number or user there.
    Trunk { target: Arc<TrunkTarget>, user: Arc<str> },
    /// To whoever a token names that we have put into a Contact or a Refer-To.
    Token(String),
}

impl From<RouteStep> for Way {
    fn from(step: RouteStep) -> Self {
        match step {
            RouteStep::Aor { aor } => Self::Aor(aor),
            RouteStep::Trunk { target, user } => Self::Trunk { target, user },
        }
    }
}

/// What a party of a realm dials.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dialled<'a> {
    pub(super) by: &'a Caller,
    pub(super) realm: RealmId,
    pub(super) uri: &'a [u8],
}

/// Where policy sends what is dialled.
pub(super) fn route_as(
    dialled: &Dialled<'_>,
    core: &Core,
    registrar: &Registrar,
) -> Result<Vec<Way>, RouteRefusal> {
    let Dialled { by: caller, realm, .. } = *dialled;
    let mut steps = ways_of(dialled, core, registrar)?;
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
pub(super) fn ways_of(
    dialled: &Dialled<'_>,
    core: &Core,
    registrar: &Registrar,
) -> Result<Vec<Way>, RouteRefusal> {
    let Dialled { by: caller, realm, uri } = *dialled;
    let uri = Uri::parse(uri).map_err(|_| RouteRefusal::NotFound)?;
    let user = user_of(&uri);
    // What the core sends to a Contact of ours is for the phone behind it.
    if registrar.by_token(&user).is_some() || core.dialogs.transfers.contains_key(user.as_bytes()) {
        return Ok(vec![Way::Token(user)]);
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
    Ok(steps.into_iter().map(Into::into).collect())
}

/// Whether a way leads to the trunk that asks for it.
pub(super) fn is_of_trunk(way: &Way, caller: &Caller) -> bool {
    matches!((way, caller), (Way::Trunk { target, .. }, Caller::Trunk { name }) if target.name == *name)
}

pub(super) fn host_of(uri: &Uri<'_>) -> String {
    String::from_utf8_lossy(uri.host().as_bytes()).to_ascii_lowercase()
}

/// Whether a URI is one that its author could dial here: at a host of ours, or a number at none.
pub(super) fn is_dialled_at(uri: &Uri<'_>, host: &str, by_trunk: bool, config: &Config) -> bool {
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
pub(super) fn by_preference(response: &Message) -> Vec<Vec<u8>> {
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
