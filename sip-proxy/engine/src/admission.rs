//! Who may send a request that is in no dialog, and as whom (RFC 3261 §22, RFC 3325).

use std::sync::Arc;

use sip_wire::{Message, Method, Name, Uri};

use crate::call::Admitted;
use crate::config::{Authentication, IdentityPolicy, Realm};
use crate::core::Core;
use crate::digest::Verdict;
use crate::io::Flow;
use crate::passing::is_anonymous;
use crate::question::Caller;
use crate::refusal::accepts_description;
use crate::registrar::{Registrar, aor_of};
use crate::slot::Slot;
use crate::strangers::Kind;
use crate::transaction::{ServerId, Share};

/// What became of a request.
pub(crate) enum Admission {
    /// It has its answer.
    Refused,
    /// A REGISTER, for the registrar to judge.
    Register,
    /// It may look for its way.
    Admitted(Box<Admitted>),
}

pub(crate) fn admit(
    server: ServerId,
    flow: Flow,
    request: &Message,
    core: &mut Core,
    registrar: &mut Registrar,
) -> Admission {
    let Some(realm) = core.realm_of(&flow).cloned() else { return Admission::Refused };
    let method = request.method().unwrap_or(Method::OPTIONS);
    if [Method::CANCEL, Method::BYE, Method::ACK, Method::PRACK, Method::UPDATE].contains(&method) {
        core.reject(server, request, 481, |response| response);
        return Admission::Refused;
    }
    // Before policy has been read nobody can be told from anybody else: "later" is true, "wrong password" would make
    // phones give up.
    if core.policy.is_none() || (core.draining && method != Method::REGISTER) {
        core.refuse_for_now(server, request);
        return Admission::Refused;
    }
    if method == Method::REGISTER {
        return Admission::Register;
    }
    if is_loop(request, core) {
        core.reject(server, request, 482, |response| response);
        return Admission::Refused;
    }
    if let Some(unfit) = crate::hop::unfit(request, &flow, core) {
        core.notice("unfit_address", Some(flow.remote), format!("Contact or Record-Route names {unfit}"));
        core.reject(server, request, 488, |response| response);
        return Admission::Refused;
    }
    if !accepts_description(request) {
        core.reject(server, request, 406, |response| response.header(Name::Accept, b"application/sdp"));
        return Admission::Refused;
    }
    if let Some(minimum) = (method == Method::INVITE)
        .then(|| crate::session_timer::too_small(request, realm.session_timer))
        .flatten()
    {
        core.reject(server, request, 422, |response| {
            response.header(Name::MinSe, minimum.to_string().as_bytes())
        });
        return Admission::Refused;
    }
    let uri = Uri::parse(request.request_uri().unwrap_or_default());
    // A method is judged before the Request-URI is looked at (RFC 3261 §8.2.1); one that is unknown to us may be known to a
    // phone, or to a registrar behind us, and is ours only where it asks for us.
    let is_behind_us = matches!(realm.registrar, crate::config::RegistrarMode::Forward { .. });
    if !Method::KNOWN.contains(&method)
        && !is_behind_us
        && uri.is_ok_and(|uri| uri.user().is_empty() && !uri.host().as_bytes().is_empty())
    {
        core.reject(server, request, 405, |response| response);
        return Admission::Refused;
    }
    if method == Method::OPTIONS && uri.is_ok_and(|uri| uri.user().is_empty()) {
        // A ping for ourselves (RFC 3261 §11.2).
        let contact = core.contact(flow.listener);
        let allowed = core.allowed(Some(&flow));
        core.reject(server, request, 200, |response| {
            response
                .header(Name::Contact, &contact)
                .header(Name::Allow, allowed)
                .header(Name::Accept, b"application/sdp")
                .header(Name::Supported, b"timer, replaces, path, outbound")
        });
        return Admission::Refused;
    }
    // A phone that holds its NAT open so asks for nothing, and takes any answer. It has no password for us, for it takes
    // none; whoever is not registered over this flow hears that there is no such event (RFC 6665 §8.3.2).
    if method == Method::NOTIFY && !realm.trusted && !realm.passing.notify && is_keepalive(request) {
        let status = if registrar.by_flow(&flow, None).is_some() { 200 } else { 489 };
        core.reject(server, request, status, |response| response);
        return Admission::Refused;
    }
    let caller = match realm.authentication {
        Authentication::Open => Caller::Anonymous,
        Authentication::KnownSource => match core.peer_of(&flow) {
            Some(name) => Caller::Trunk { name },
            None => {
                core.notice("unknown_source", Some(flow.remote), "a request from an address, or with a certificate, that is no trunk's; add it to the trunk if it should be one");
                core.reject(server, request, 403, |response| response);
                return Admission::Refused;
            }
        },
        Authentication::RegisteredFlow => match registrar.by_flow(&flow, claimed_by(request).as_deref()) {
            Some(aor) => Caller::Subscriber { aor },
            None => {
                core.reject(server, request, 403, |response| response);
                return Admission::Refused;
            }
        },
        Authentication::Digest => {
            let (header, domain) = wanted_credentials(request, &realm);
            match registrar.authenticate(&flow, request, header, &domain, core) {
                Verdict::Accepted(user) => Caller::Subscriber { aor: format!("{user}@{domain}").into() },
                verdict => {
                    registrar.challenge(server, &flow, request, 407, &domain, &verdict, core);
                    return Admission::Refused;
                }
            }
        }
    };
    if crate::times::is_too_brief(request) {
        core.refuse_brief(server, request);
        return Admission::Refused;
    }
    if method == Method::INVITE && !crate::pickup::is_allowed(request, &caller, &realm, core) {
        core.notice(
            "replaces_refused",
            Some(flow.remote),
            "403: a call may be taken over by its parties, and by others as the realm's pickup says",
        );
        core.reject(server, request, 403, |response| response);
        return Admission::Refused;
    }
    if method == Method::INVITE && core.spirals.is_endless(core.spirals.turn_of(request)) {
        core.notice(
            "call_spirals",
            Some(flow.remote),
            "482: the same call has come for the fifth time before its answer; a route leads back to where it came from",
        );
        core.reject(server, request, 482, |response| response);
        return Admission::Refused;
    }
    let limits = core.config.limits;
    if let Caller::Subscriber { aor } = &caller
        && !core.strangers.may_have(aor, kind_of(request), &limits, core.now)
    {
        core.count_user_limited(aor, &flow);
        core.refuse_for_now(server, request);
        return Admission::Refused;
    }
    // Whoever has come so far is served: by digest, by its flow or address, or because the realm asks for nothing.
    let share = match (&caller, registrar.by_flow(&flow, None)) {
        (Caller::Trunk { .. }, _) | (Caller::Subscriber { .. }, Some(_)) => Share::Known,
        (Caller::Subscriber { .. }, None) => Share::Users,
        (Caller::Anonymous, _) => Share::Strangers,
    };
    if !core.keep(server, share, request) {
        return Admission::Refused;
    }
    let mut identity = None;
    if let Caller::Subscriber { aor } = &caller {
        let claimed = claimed_by(request);
        let is_anonymous = request.from().is_ok_and(|from| is_anonymous(&from.uri, &realm));
        if claimed.as_deref() != Some(aor) && !is_anonymous {
            match realm.identity {
                IdentityPolicy::Refuse => {
                    core.notice(
                        "identity_refused",
                        Some(flow.remote),
                        format!("{aor} claims to be {}", claimed.unwrap_or_default()),
                    );
                    core.reject(server, request, 403, |response| response);
                    return Admission::Refused;
                }
                IdentityPolicy::Correct => identity = aor.split('@').next().map(str::to_owned),
                IdentityPolicy::Pass => {}
            }
        }
    }
    if let Some(what) = commands(method, &realm) {
        core.notice(
            "command_refused",
            Some(flow.remote),
            format!("{what}: 403; allow_commands of realm {} lets it pass, if it should", realm.name),
        );
        core.reject(server, request, 403, |response| response);
        return Admission::Refused;
    }
    Admission::Admitted(Box::new(Admitted {
        server,
        flow,
        request: request.clone(),
        realm: realm.id,
        caller,
        identity,
    }))
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

/// The header and the domain of the credentials that a request must show in a realm that wants them: a REGISTER those of
/// the domain that it registers in, any other request those of its From's, if it is one of the realm's.
pub(crate) fn wanted_credentials(request: &Message, realm: &Realm) -> (Name, Arc<str>) {
    if request.method() == Some(Method::REGISTER) {
        let aor = request.to().ok().and_then(|to| aor_of(&to.uri)).unwrap_or_default();
        return (Name::Authorization, aor.rsplit('@').next().unwrap_or_default().into());
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
    (Name::ProxyAuthorization, domain.unwrap_or_default())
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
