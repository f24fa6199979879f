//! Who may send a request that is in no dialog, and as whom (RFC 3261 §22, RFC 3325).

use sip_wire::{Message, Method, Name, Uri};

use crate::aor::aor_of;
use crate::call::Admitted;
use crate::config::{Authentication, IdentityPolicy, Realm, RegistrarMode};
use crate::core::Core;
use crate::digest::{Challenger, Verdict};
use crate::passing::is_anonymous;
use crate::question::Caller;
use crate::refusal::accepts_description;
use crate::registrar::{Registrar, Wanted};
use crate::slot::Slot;
use crate::strangers::Kind;
use crate::transaction::{Incoming, Share};

/// What a request is that may go on.
pub(crate) enum Admission {
    /// A REGISTER, for the registrar to judge.
    Register,
    /// It asks ourselves whether we are there (RFC 3261 §11.2).
    Ping,
    /// It holds a NAT open, and wants nothing but an answer.
    Keepalive,
    /// It may look for its way.
    Call(Box<Admitted>),
}

/// What a request hears that may not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// Nothing more: it has its answer, or is to have none.
    Silent,
    /// This status.
    Status(u16),
    /// This status, and the header that it needs.
    Explained(u16, Name, String),
    /// 503 with Retry-After.
    ForNow,
    /// 423: what it asks for is to last longer.
    TooBrief,
    /// It must show who sends it, and has not.
    Unproven(Wanted, Verdict),
}

impl Rejection {
    /// The one place where they are answered.
    pub(crate) fn answer(self, incoming: &Incoming, core: &mut Core, registrar: &Registrar) {
        match self {
            Rejection::Silent => {}
            Rejection::Status(status) => core.reject(incoming, status),
            Rejection::Explained(status, name, value) => {
                core.reject_with(incoming, status, |response| response.header(name, value.as_bytes()))
            }
            Rejection::ForNow => core.refuse_for_now(incoming),
            Rejection::TooBrief => core.refuse_brief(incoming),
            Rejection::Unproven(wanted, verdict) => registrar.challenge(incoming, &wanted, &verdict, core),
        }
    }
}

pub(crate) fn admit(
    incoming: &Incoming,
    core: &mut Core,
    registrar: &mut Registrar,
) -> Result<Admission, Rejection> {
    let Incoming { flow, request, .. } = incoming;
    let realm = core.realm_of(flow).cloned().ok_or(Rejection::Silent)?;
    let method = request.method().unwrap_or(Method::OPTIONS);
    if [Method::CANCEL, Method::BYE, Method::ACK, Method::PRACK, Method::UPDATE].contains(&method) {
        return Err(Rejection::Status(481));
    }
    // Before policy has been read nobody can be told from anybody else: "later" is true, "wrong password" would make
    // phones give up.
    if core.policy.is_none() || (core.guards.draining && method != Method::REGISTER) {
        return Err(Rejection::ForNow);
    }
    if method == Method::REGISTER {
        return Ok(Admission::Register);
    }
    is_fit(incoming, &realm, core)?;
    if method == Method::OPTIONS && names_nobody(request) {
        return Ok(Admission::Ping);
    }
    // A phone that holds its NAT open so asks for nothing, and takes any answer. It has no password for us, for it takes
    // none; whoever is not registered over this flow hears that there is no such event (RFC 6665 §8.3.2).
    if method == Method::NOTIFY && !realm.trusted && !realm.passing.notify && is_keepalive(request) {
        let is_registered = registrar.by_flow(flow, None).is_some();
        return if is_registered { Ok(Admission::Keepalive) } else { Err(Rejection::Status(489)) };
    }
    let caller = caller_of(incoming, &realm, core, registrar)?;
    may_go_on(incoming, &caller, &realm, core)?;
    // Whoever has come so far is served: by digest, by its flow or address, or because the realm asks for nothing.
    let share = match (&caller, registrar.by_flow(flow, None)) {
        (Caller::Trunk { .. }, _) | (Caller::Subscriber { .. }, Some(_)) => Share::Known,
        (Caller::Subscriber { .. }, None) => Share::Users,
        (Caller::Anonymous, _) => Share::Strangers,
    };
    if !core.keep(incoming, share) {
        return Err(Rejection::Silent);
    }
    let identity = identity_of(incoming, &caller, &realm, core)?;
    if let Some(what) = commands(method, &realm) {
        core.notice(
            "command_refused",
            Some(flow.remote),
            format!("{what}: 403; allow_commands of realm {} lets it pass, if it should", realm.name),
        );
        return Err(Rejection::Status(403));
    }
    let incoming = incoming.clone();
    Ok(Admission::Call(Box::new(Admitted { incoming, realm: realm.id, caller, identity })))
}

/// Whether a request can be served, whoever sends it.
fn is_fit(incoming: &Incoming, realm: &Realm, core: &mut Core) -> Result<(), Rejection> {
    let Incoming { flow, request, .. } = incoming;
    let method = request.method().unwrap_or(Method::OPTIONS);
    if is_loop(request, core) {
        return Err(Rejection::Status(482));
    }
    if let Some(unfit) = crate::unfit::unfit(request, flow, core) {
        core.notice("unfit_address", Some(flow.remote), format!("Contact or Record-Route names {unfit}"));
        return Err(Rejection::Status(488));
    }
    if !accepts_description(request) {
        return Err(Rejection::Explained(406, Name::Accept, "application/sdp".to_owned()));
    }
    if method == Method::INVITE
        && let Some(minimum) = crate::session_timer::too_small(request, realm.session_timer)
    {
        return Err(Rejection::Explained(422, Name::MinSe, minimum.to_string()));
    }
    // A method is judged before the Request-URI is looked at (RFC 3261 §8.2.1); one that is unknown to us may be known to a
    // phone, or to a registrar behind us, and is ours only where it asks for us.
    let is_behind_us = matches!(realm.registrar, RegistrarMode::Forward { .. });
    let uri = Uri::parse(request.request_uri().unwrap_or_default());
    let names_us = uri.is_ok_and(|uri| uri.user().is_empty() && !uri.host().as_bytes().is_empty());
    if !Method::KNOWN.contains(&method) && !is_behind_us && names_us {
        return Err(Rejection::Status(405));
    }
    Ok(())
}

/// Who sends a request, as far as its realm wants that proven.
fn caller_of(
    incoming: &Incoming,
    realm: &Realm,
    core: &mut Core,
    registrar: &mut Registrar,
) -> Result<Caller, Rejection> {
    let Incoming { flow, request, .. } = incoming;
    match realm.authentication {
        Authentication::Open => Ok(Caller::Anonymous),
        Authentication::KnownSource => match core.peer_of(flow) {
            Some(name) => Ok(Caller::Trunk { name }),
            None => {
                core.notice("unknown_source", Some(flow.remote), "a request from an address, or with a certificate, that is no trunk's; add it to the trunk if it should be one");
                Err(Rejection::Status(403))
            }
        },
        Authentication::RegisteredFlow => registrar
            .by_flow(flow, claimed_by(request).as_deref())
            .map(|aor| Caller::Subscriber { aor })
            .ok_or(Rejection::Status(403)),
        Authentication::Digest => {
            let wanted = wanted_credentials(request, realm);
            match registrar.authenticate(flow, request, &wanted, core) {
                Verdict::Accepted(user) => {
                    Ok(Caller::Subscriber { aor: format!("{user}@{}", wanted.domain).into() })
                }
                verdict => Err(Rejection::Unproven(wanted, verdict)),
            }
        }
    }
}

/// Whether somebody may ask for this, and now.
fn may_go_on(incoming: &Incoming, caller: &Caller, realm: &Realm, core: &mut Core) -> Result<(), Rejection> {
    let Incoming { flow, request, .. } = incoming;
    let is_invite = request.method() == Some(Method::INVITE);
    if crate::times::is_too_brief(request) {
        return Err(Rejection::TooBrief);
    }
    if is_invite && !crate::pickup::is_allowed(request, caller, realm, core) {
        core.notice(
            "replaces_refused",
            Some(flow.remote),
            "403: a call may be taken over by its parties, and by others as the realm's pickup says",
        );
        return Err(Rejection::Status(403));
    }
    if is_invite && core.guards.spirals.is_endless(core.guards.spirals.turn_of(request)) {
        core.notice(
            "call_spirals",
            Some(flow.remote),
            "482: the same call has come for the fifth time before its answer; a route leads back to where it came from",
        );
        return Err(Rejection::Status(482));
    }
    let limits = core.config.limits;
    if let Caller::Subscriber { aor } = caller
        && !core.guards.strangers.may_have(aor, kind_of(request), &limits, core.now)
    {
        core.count_user_limited(aor, flow);
        return Err(Rejection::ForNow);
    }
    Ok(())
}

/// The user part that From must bear for the other side, if the caller's own claim is corrected.
fn identity_of(
    incoming: &Incoming,
    caller: &Caller,
    realm: &Realm,
    core: &mut Core,
) -> Result<Option<String>, Rejection> {
    let Incoming { flow, request, .. } = incoming;
    let Caller::Subscriber { aor } = caller else { return Ok(None) };
    let claimed = claimed_by(request);
    let is_anonymous = request.from().is_ok_and(|from| is_anonymous(&from.uri, realm));
    if claimed.as_deref() == Some(aor) || is_anonymous {
        return Ok(None);
    }
    match realm.identity {
        IdentityPolicy::Refuse => {
            core.notice(
                "identity_refused",
                Some(flow.remote),
                format!("{aor} claims to be {}", claimed.unwrap_or_default()),
            );
            Err(Rejection::Status(403))
        }
        IdentityPolicy::Correct => Ok(aor.split('@').next().map(str::to_owned)),
        IdentityPolicy::Pass => Ok(None),
    }
}

/// 200 to a ping for ourselves (RFC 3261 §11.2).
pub(crate) fn answer_ping(incoming: &Incoming, core: &mut Core) {
    let contact = core.contact(incoming.flow.listener);
    let allowed = core.allowed(Some(&incoming.flow));
    core.reject_with(incoming, 200, |response| {
        response
            .header(Name::Contact, &contact)
            .header(Name::Allow, allowed)
            .header(Name::Accept, b"application/sdp")
            .header(Name::Supported, b"timer, replaces, path, outbound")
    });
}

/// Whether a Request-URI has no user.
fn names_nobody(request: &Message) -> bool {
    Uri::parse(request.request_uri().unwrap_or_default()).is_ok_and(|uri| uri.user().is_empty())
}

/// A NOTIFY that wants nothing but an answer.
fn is_keepalive(notify: &Message) -> bool {
    let event = notify.value(Name::Event).unwrap_or_default();
    let package = event.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    package.eq_ignore_ascii_case(b"keep-alive")
}

/// What a request outside a dialog would have a phone do whether its user likes it or not: restart, read another
/// configuration, call somebody. Users do that to each other only where the realm's operator lets them.
fn commands(method: Method<'_>, realm: &Realm) -> Option<&'static str> {
    if realm.trusted {
        return None;
    }
    if method == Method::NOTIFY && !realm.passing.notify {
        return Some("NOTIFY outside a subscription");
    }
    (method == Method::REFER && !realm.passing.refer).then_some("REFER outside a dialog")
}

/// The credentials that a request must show in a realm that wants them: a REGISTER those of the domain that it registers in,
/// any other request those of its From's, if it is one of the realm's.
pub(crate) fn wanted_credentials(request: &Message, realm: &Realm) -> Wanted {
    if request.method() == Some(Method::REGISTER) {
        let aor = request.to().ok().and_then(|to| aor_of(&to.uri)).unwrap_or_default();
        let domain = aor.rsplit('@').next().unwrap_or_default().into();
        return Wanted { by: Challenger::Registrar, domain };
    }
    let claimed = request
        .from()
        .ok()
        .map(|from| String::from_utf8_lossy(from.uri.host().as_bytes()).to_ascii_lowercase());
    let domain = realm
        .domains
        .iter()
        .find(|domain| Some(&***domain) == claimed.as_deref())
        .or(realm.domains.first())
        .cloned();
    Wanted { by: Challenger::Proxy, domain: domain.unwrap_or_default() }
}

/// What a request makes last.
pub(crate) fn kind_of(request: &Message) -> Kind {
    match request.method() {
        Some(method) if method == Method::INVITE => Kind::Session,
        Some(method) if method == Method::SUBSCRIBE => Kind::Subscription,
        _ => Kind::Once,
    }
}

/// The AOR that From names.
fn claimed_by(request: &Message) -> Option<String> {
    aor_of(&request.from().ok()?.uri)
}

/// What our Via's branch says of the request that it was made for, so that a loop is told from a spiral: the dialled
/// Request-URI (RFC 3261 §16.3 step 4).
pub(crate) fn loop_mark(request_uri: &[u8]) -> String {
    let user = Uri::parse(request_uri).map(|uri| uri.user().to_vec()).unwrap_or_default();
    format!("-{:04x}", Slot::of_bytes(&user).number())
}

/// A Via of ours in the stack, made for the same Request-URI.
fn is_loop(request: &Message, core: &Core) -> bool {
    let mark = loop_mark(request.request_uri().unwrap_or_default());
    request.values(Name::Via).skip(1).any(|value| {
        sip_wire::Via::parse(value).is_ok_and(|via| {
            let port = via.port.unwrap_or(5060);
            let is_ours = via
                .host
                .address()
                .is_some_and(|ip| core.config.is_own_address(std::net::SocketAddr::new(ip, port)));
            is_ours && via.branch().is_some_and(|branch| branch.ends_with(mark.as_bytes()))
        })
    })
}
