//! The request that a target gets: the caller's, as the target's side may see it.

use sip_wire::{Builder, Message, Method, Name};

use super::body::with_body;
use super::branch::Branch;
use super::diversion::Diverted;
use super::history::{diversions, history};
use super::parties::Parties;
use super::side::{BranchId, Side};
use super::transfer::replaces_of;
use super::{Admitted, Purpose};
use crate::config::Realm;
use crate::core::Core;
use crate::passing::{
    ANONYMOUS, Options, Privacy, copy_headers, is_anonymous, is_telephone, translate_address,
};
use crate::question::Caller;
use crate::registrar::Forwarded;
use crate::transaction;

impl Parties {
    /// The request for a branch, as its side may see it, or the status that the caller's deserves if it cannot pass.
    pub(super) fn build(
        &mut self,
        index: BranchId,
        authorization: Option<(Name, String)>,
        core: &mut Core,
    ) -> Result<Message, u16> {
        self.build_request(index, authorization, core).unwrap_or(Err(500))
    }

    fn build_request(
        &mut self,
        index: BranchId,
        authorization: Option<(Name, String)>,
        core: &mut Core,
    ) -> Option<Result<Message, u16>> {
        let upstream = &self.upstream;
        let request = &upstream.incoming.request;
        let method = request.method()?;
        let branch = self.branches.get_mut(index)?;
        let flow = branch.target.flow?;
        let config = core.config.clone();
        let listener = config.listener(flow.listener)?;
        let (from_realm, to_realm) = (config.realm(upstream.realm)?, config.realm(branch.realm)?);
        if branch.ids.call_id.is_empty() {
            branch.ids.call_id = core.ids.call_id(self.slot);
            branch.ids.from_tag = core.ids.tag();
        }
        branch.ids.cseq = branch.ids.cseq.saturating_add(1);
        let domain = config.host_of(branch.realm, flow.listener);
        let is_register = matches!(self.purpose, Purpose::Register(_));
        let (from, to) = match is_register {
            true => registrants(request, branch),
            false => from_and_to(upstream, branch, from_realm, &domain)?,
        };
        let hops = request.number(Name::MaxForwards).and_then(Result::ok).unwrap_or(70).saturating_sub(1);
        let mark = crate::admission::loop_mark(request.request_uri()?);
        let via = transaction::via(listener, &(core.ids.branch() + &mark));
        let cseq = [branch.ids.cseq.to_string().as_bytes(), b" ", method.as_bytes()].concat();
        let mut out = Builder::request(method, &branch.target.uri).header(Name::Via, via.as_bytes());
        for route in &branch.target.routes {
            out = out.header(Name::Route, route);
        }
        out = out.header(Name::MaxForwards, hops.to_string().as_bytes());
        if !is_register {
            out = out.header(Name::MaxBreadth, branch.breadth.to_string().as_bytes());
        }
        out = out
            .header(Name::From, &from)
            .header(Name::To, &to)
            .header(Name::CallId, branch.ids.call_id.as_bytes())
            .header(Name::CSeq, &cseq);
        out = match &self.purpose {
            Purpose::Register(Forwarded { tokens, .. }) => {
                register_contact(out, request, tokens, listener, from_realm)
            }
            Purpose::Once if method != Method::OPTIONS => out,
            _ => out.header(Name::Contact, &core.contact(flow.listener)),
        };
        if let Some(product) = &config.product {
            out = out.header(Name::UserAgent, product.as_bytes());
        }
        let mut options = Options::passing(request);
        if self.purpose == Purpose::Session && to_realm.session_timer.is_some() {
            options.support(b"timer");
        }
        out = options.put(out);
        if let (Purpose::Session, Some(timer)) = (&self.purpose, to_realm.session_timer) {
            let least = branch.attempt.least_interval.map(u64::from).unwrap_or_default();
            out = out
                .header(Name::SessionExpires, timer.interval.as_secs().max(least).to_string().as_bytes())
                .header(Name::MinSe, timer.minimum.as_secs().max(least).to_string().as_bytes());
        }
        if let Some(privacy) = Privacy::of(request).left(to_realm) {
            out = out.header(Name::Privacy, privacy);
        }
        if to_realm.trusted {
            let caller = branch.diverted.as_ref().map_or(&upstream.caller, |diverted| &diverted.by);
            let identity = upstream.identity.as_deref().filter(|_| branch.diverted.is_none());
            out = assert_identity(out, caller, request, from_realm, identity);
        }
        let diverted: Vec<&Diverted> = Diverted::all(branch.diverted.as_ref()).collect();
        for value in diversions(&diverted, &domain) {
            out = out.header(Name::Diversion, value.as_bytes());
        }
        let shown = Some(request).filter(|_| from_realm.trusted);
        let past = match Privacy::of(request).hides(Name::HistoryInfo) {
            true => Vec::new(),
            false => history(&diverted, &user_of_branch(&branch.target.uri), &domain, shown),
        };
        let mut names = self.branch_names(&config, index, Side::Caller)?;
        if let Some(refer_to) = request.value(Name::ReferTo) {
            out = out.header(Name::ReferTo, &names.apply(refer_to));
        }
        if let Some(replaces) = replaces_of(request, core) {
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
        let mut out = copy_headers(out, request, &names, core);
        for value in past {
            out = out.header(Name::HistoryInfo, value.as_bytes());
        }
        let branch = self.branches.get(index)?;
        let out = with_body(out, request, branch.offer.as_ref(), &mut names, core);
        Some(out.map(Builder::finish).map_err(|fault| core.body_refused(upstream.incoming.flow, fault)))
    }
}

/// From and To of a REGISTER: AORs are the registrar's own; only the tags are ours.
fn registrants(request: &Message, branch: &Branch) -> (Vec<u8>, Vec<u8>) {
    let bare = |name| request.value(name).map(|value| strip_tag(value).to_vec()).unwrap_or_default();
    let mut from = bare(Name::From);
    from.extend_from_slice(format!(";tag={}", branch.ids.from_tag).as_bytes());
    (from, bare(Name::To))
}

/// Who calls and who is called, as the branch's side may see it: at `domain`, and of a trunk's number at its host.
fn from_and_to(
    upstream: &Admitted,
    branch: &Branch,
    from_realm: &Realm,
    domain: &str,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let request = &upstream.incoming.request;
    let from = request.from().ok()?;
    let from = if Privacy::of(request).user || is_anonymous(&from.uri, from_realm) {
        ANONYMOUS.to_vec()
    } else {
        let identity = upstream.identity.as_deref();
        translate_address(request.value(Name::From)?, domain, identity, from_realm.passing.display_names)
    };
    let from = [&*from, b";tag=", branch.ids.from_tag.as_bytes()].concat();
    let target = sip_wire::Uri::parse(&branch.target.uri).ok()?;
    let is_trunk = branch.target.trunk.is_some();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let dialled =
        sip_wire::Uri::parse(request.request_uri()?).map(|uri| text(uri.user())).unwrap_or_default();
    let user = if is_trunk || dialled.is_empty() { text(target.user()) } else { dialled };
    let host = if is_trunk { text(target.host().as_bytes()) } else { domain.to_owned() };
    let parameter = if is_trunk && is_telephone(&target) { ";user=phone" } else { "" };
    let at = if user.is_empty() { "" } else { "@" };
    Some((from, format!("<sip:{user}{at}{host}{parameter}>").into_bytes()))
}

/// Whom a branch asks for.
fn user_of_branch(uri: &[u8]) -> String {
    sip_wire::Uri::parse(uri).map(|uri| crate::passing::user_of(&uri)).unwrap_or_default()
}

fn strip_tag(value: &[u8]) -> &[u8] {
    match sip_wire::Address::parse(value) {
        Ok(address) if address.tag().is_some() => {
            let close = memchr::memrchr(b'>', value).map_or_else(
                || memchr::memchr(b';', value).unwrap_or(value.len()),
                |at| at.saturating_add(1),
            );
            value.get(..close).unwrap_or(value)
        }
        _ => value,
    }
}

/// The Contacts by which the core's registrar knows the phone: ours, one for each of its own.
fn register_contact(
    mut out: Builder,
    request: &Message,
    tokens: &[std::sync::Arc<str>],
    listener: &crate::config::Listener,
    realm: &Realm,
) -> Builder {
    if request.value(Name::Contact) == Some(b"*") {
        return out.header(Name::Contact, b"*").header(Name::Expires, b"0");
    }
    let upstream = match &realm.registrar {
        crate::config::RegistrarMode::Forward { upstream, .. } => upstream.as_secs(),
        _ => 3600,
    };
    let transport = listener.transport.uri_parameter();
    for (contact, token) in request.contacts().flatten().zip(tokens) {
        let asked = contact
            .parameter(b"expires")
            .and_then(sip_wire::number)
            .or_else(|| request.number(Name::Expires).and_then(Result::ok));
        let expires = if asked == Some(0) { 0 } else { upstream };
        out = out.header(
            Name::Contact,
            format!("<sip:{token}@{}{transport}>;expires={expires}", listener.advertised).as_bytes(),
        );
    }
    out
}

/// P-Asserted-Identity towards a trusted realm (RFC 3325 §5): what we have proven, or what a trusted realm has asserted.
fn assert_identity(
    out: Builder,
    caller: &Caller,
    request: &Message,
    from: &Realm,
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
