//! REGISTER (RFC 3261 §10.3): served here, or forwarded to the core's registrar and cached.

use std::sync::Arc;
use std::time::Duration;

use sip_wire::{Address, Message, Name, unquote};

use super::same::{REG_ID, instance_of, is_same, names};
use super::{
    Binding, BindingChange, BindingRecord, Forwarded, Registrar, Registration, Wanted, aor_of, bounds,
};
use crate::buckets::network_of;
use crate::config::{Config, Expiry, RegistrarMode};
use crate::core::Core;
use crate::digest::{self, Challenger, Fault, Verdict};
use crate::flow::{Flow, RealmId, Transport};
use crate::io::Output;
use crate::strangers::{Kind, Sender};
use crate::transaction::{self, Incoming, Share};

impl Registrar {
    /// A REGISTER of a realm that serves it.
    pub(crate) fn on_register(&mut self, incoming: &Incoming, core: &mut Core) -> Registration {
        let Incoming { flow, request, .. } = incoming;
        let Some(realm) = core.realm_of(flow).cloned() else { return Registration::Done };
        let aor = request.to().ok().and_then(|to| aor_of(&to.uri));
        let Some(aor) = aor.map(Arc::<str>::from) else {
            core.reject(incoming, 400);
            return Registration::Done;
        };
        if let Some(excess) = bounds::excess(request, &aor) {
            let warning = format!("399 sbc \"{excess}\"");
            core.reject_with(incoming, 400, |response| response.header(Name::Warning, warning.as_bytes()));
            return Registration::Done;
        }
        let is_behind_nat = is_behind_nat(request, flow);
        let registering = Registering { incoming, aor: &aor, realm: realm.id, is_behind_nat };
        match &realm.registrar {
            RegistrarMode::None => {
                let detail = format!(
                    "405: a REGISTER in realm {}, which has no registrar: name the phone a listener of a realm that has one, or set `registrar` here",
                    realm.name
                );
                core.notice("no_registrar", Some(flow.remote), detail);
                core.reject(incoming, 405);
                Registration::Done
            }
            RegistrarMode::Forward { phone, .. } => {
                // Who sends it only the registrar behind us can tell.
                if core.at_hand.sender == Sender::Stranger
                    && !core.guards.strangers.take(core.at_hand.sender, flow, core.now)
                {
                    core.count_limited(flow);
                    return Registration::Done;
                }
                if !core.keep(incoming, self.share_of(flow, Share::Strangers)) {
                    return Registration::Done;
                }
                self.forward(&registering, *phone, core)
            }
            RegistrarMode::Local(expiry) => {
                let domain = Arc::<str>::from(aor.rsplit('@').next().unwrap_or_default());
                if !realm.domains.contains(&domain) {
                    let detail = format!(
                        "404: a REGISTER for the domain {}, which realm {} does not serve: set the phone's domain to {}, or add that one to `domains` of the realm",
                        digest::shown(domain.as_bytes()),
                        realm.name,
                        realm.domains.join(" or ")
                    );
                    core.notice("domain_not_served", Some(flow.remote), detail);
                    core.reject(incoming, 404);
                    return Registration::Done;
                }
                let wanted = Wanted { by: Challenger::Registrar, domain };
                let domain = &wanted.domain;
                match self.authenticate(flow, request, &wanted, core) {
                    Verdict::Accepted(user) if *aor == format!("{user}@{domain}") => {}
                    Verdict::Accepted(_) => {
                        core.reject(incoming, 403);
                        return Registration::Done;
                    }
                    verdict => {
                        self.challenge(incoming, &wanted, &verdict, core);
                        return Registration::Done;
                    }
                }
                core.proven_by(&aor, flow);
                let limits = core.config.limits;
                if !core.guards.strangers.may_have(&aor, Kind::Once, &limits, core.now) {
                    core.count_user_limited(&aor, flow);
                    core.refuse_for_now(incoming);
                    return Registration::Done;
                }
                if core.keep(incoming, self.share_of(flow, Share::Users)) {
                    self.register(&registering, *expiry, core);
                }
                Registration::Done
            }
        }
    }

    fn share_of(&self, flow: &Flow, unregistered: Share) -> Share {
        if self.by_flow(flow, None).is_some() { Share::Known } else { unregistered }
    }

    /// Judges credentials against the snapshot, unless the home of their nonce has done so.
    pub(crate) fn authenticate(
        &mut self,
        flow: &Flow,
        request: &Message,
        wanted: &Wanted,
        core: &mut Core,
    ) -> Verdict {
        match core.at_hand.verdict.take() {
            Some(verdict) => verdict,
            None => self.judge(flow, request, wanted, core),
        }
    }

    /// Judges credentials. Those of a user whose password is being guessed from there are not looked at for a while, but
    /// what comes over the user's own flow always is.
    pub(crate) fn judge(
        &mut self,
        flow: &Flow,
        request: &Message,
        wanted: &Wanted,
        core: &mut Core,
    ) -> Verdict {
        let domain = &*wanted.domain;
        let Some(policy) = core.policy.clone() else { return Verdict::Missing };
        let ip = flow.remote.ip();
        let guessed = digest::named_user(request, wanted.by.credentials(), domain)
            .map(|user| format!("{user}@{domain}"))
            .filter(|aor| self.by_flow(flow, Some(aor)).is_none_or(|known| *known != **aor));
        let now = core.now;
        if let Some(delay) =
            guessed.as_deref().and_then(|user| core.guards.strangers.guesses.delay(user, ip, now.monotonic))
        {
            return Verdict::Delayed(delay);
        }
        let config = core.config.clone();
        let realm = digest_realm(flow, wanted, &config);
        let verdict = self.authenticator.judge(request, realm, now, |user| policy.credentials(domain, user));
        match (&verdict, guessed) {
            (Verdict::Wrong { fault: Fault::Password, .. }, Some(user)) => {
                core.guards.strangers.guesses.wrong(&user, ip, now.monotonic);
            }
            (Verdict::Accepted(_), Some(user)) => core.guards.strangers.guesses.right(&user, ip),
            _ => {}
        }
        verdict
    }

    /// 401 or 407; 403 would tell a guesser that the user exists, so wrong credentials get another challenge too.
    pub(crate) fn challenge(&self, incoming: &Incoming, wanted: &Wanted, verdict: &Verdict, core: &mut Core) {
        let Incoming { server, flow, request } = incoming;
        let Wanted { by, domain } = wanted;
        match verdict {
            Verdict::Wrong { user, fault } => {
                let what = match fault {
                    Fault::Unreadable => "credentials that can't be read, or of a kind that was not offered",
                    Fault::NoUser => "no such user, or it has no password for this algorithm",
                    Fault::Password => "wrong password",
                    Fault::NoQop => "an answer without qop; allow it by require_qop = false in the realm",
                };
                let detail = format!("user {user} of {domain}: {what}");
                core.notice("wrong_credentials", Some(flow.remote), detail);
            }
            Verdict::Delayed(wait) => {
                let user = digest::named_user(request, by.credentials(), domain).unwrap_or_default();
                let detail = format!(
                    "user {} of {domain}: too many wrong passwords from there; its credentials are not looked at for {} s more, and from elsewhere they are",
                    digest::shown(user.as_bytes()),
                    wait.as_secs().saturating_add(1)
                );
                core.notice("guesses_delayed", Some(flow.remote), detail);
                // A datagram is repeated, and may then be looked at; a transaction must have its answer.
                let is_kept = core.transactions.computed_tag(*server).is_none();
                if flow.transport.is_reliable() || is_kept {
                    core.refuse_for_now(incoming);
                }
                return;
            }
            Verdict::OtherResource(user) => {
                let detail = format!(
                    "400: {user} of {domain} has signed another address than the request asks for: a proxy on the way has changed it, or somebody uses what the phone has signed"
                );
                core.notice("digest_for_another", Some(flow.remote), detail);
                core.reject(incoming, 400);
                return;
            }
            Verdict::Accepted(_) | Verdict::Missing | Verdict::Stale => {}
        }
        let config = core.config.clone();
        let realm = digest_realm(flow, wanted, &config);
        let is_stale = *verdict == Verdict::Stale;
        let values = self.authenticator.challenge(realm, is_stale, core.now, &mut core.ids);
        core.reject_with(incoming, by.status(), |response| {
            values.iter().fold(response, |response, value| response.header(by.challenge(), value.as_bytes()))
        });
    }

    fn register(&mut self, registering: &Registering<'_>, expiry: Expiry, core: &mut Core) {
        let Registering { incoming, aor, is_behind_nat, .. } = *registering;
        let Incoming { flow, request, .. } = incoming;
        let header_expires = request.number(Name::Expires).and_then(Result::ok);
        if request.value(Name::Contact) == Some(b"*") {
            if header_expires != Some(0) {
                core.reject(incoming, 400);
                return;
            }
            self.remove(aor, |_| true, core);
            self.answer(incoming, aor, core);
            return;
        }
        let mut wanted = Vec::new();
        for contact in request.contacts().flatten() {
            let asked = contact.parameter(b"expires").and_then(sip_wire::number).or(header_expires);
            let mut lifetime =
                asked.map_or(expiry.default, |seconds| Duration::from_secs(u64::from(seconds)));
            if !lifetime.is_zero() {
                if lifetime < expiry.minimum {
                    let minimum = expiry.minimum.as_secs().to_string();
                    core.reject_with(incoming, 423, |response| {
                        response.header(Name::MinExpires, minimum.as_bytes())
                    });
                    return;
                }
                let is_held_open = is_behind_nat && flow.transport == Transport::Udp;
                lifetime = lifetime.min(if is_held_open { expiry.nat } else { expiry.maximum });
            }
            match registering.binding(&contact, lifetime, core) {
                Some(binding) => wanted.push((binding, lifetime)),
                None => {
                    core.reject(incoming, 400);
                    return;
                }
            }
        }
        // RFC 3261 §10.3: a request that is out of order changes nothing.
        let known = self.aors.get(aor).map(Vec::as_slice).unwrap_or_default();
        let is_late = wanted.iter().any(|(binding, _)| {
            known.iter().any(|known| {
                is_same(&known.record, &binding.record)
                    && known.record.call_id == binding.record.call_id
                    && known.record.cseq >= binding.record.cseq
            })
        });
        if is_late {
            core.reject(incoming, 500);
            return;
        }
        let new = wanted
            .iter()
            .filter(|(binding, _)| !known.iter().any(|known| is_same(&known.record, &binding.record)))
            .count();
        let has_room = known.len().saturating_add(new) <= core.config.limits.bindings_per_aor;
        if new > core.config.limits.bindings_per_aor {
            core.reject(incoming, 403);
            return;
        }
        if let Some((first, _)) = wanted.first().filter(|_| !has_room) {
            self.make_room(&first.record, new, core);
        }
        for (binding, lifetime) in wanted {
            if lifetime.is_zero() {
                let record = binding.record;
                self.remove(aor, |known| is_same(&known.record, &record), core);
            } else {
                self.keep(binding, core);
            }
        }
        self.answer(incoming, aor, core);
    }

    /// 200 with all bindings (RFC 3261 §10.3 step 8).
    fn answer(&self, incoming: &Incoming, aor: &str, core: &mut Core) {
        let Incoming { server, request, .. } = incoming;
        let now = core.now.monotonic;
        let bindings = self.aors.get(aor).map(Vec::as_slice).unwrap_or_default();
        let tag = core.ids.tag();
        let mut response = transaction::response_to(request, 200, None, Some(&tag));
        for binding in bindings {
            // In its last second it is still there: 0 would say that it is not (RFC 3261 §10.2.2).
            let left = binding.expires.saturating_sub(now).as_secs().max(1);
            let mut value = format!("<{}>;expires={left}", binding.record.uri);
            if let Some(named) = &binding.record.instance {
                let instance = instance_of(named);
                let quoted = instance.replace('\\', "\\\\").replace('"', "\\\"");
                value.push_str(&format!(
                    ";+sip.instance=\"{quoted}\"{}",
                    named.get(instance.len()..).unwrap_or_default()
                ));
            }
            response = response.header(Name::Contact, value.as_bytes());
        }
        for path in request.values(Name::Path) {
            response = response.header(Name::Path, path);
        }
        // RFC 5626 §6: so a phone knows that its flows are kept apart.
        let is_outbound = |contact: &Address<'_>| {
            named_instance(request, contact).is_some_and(|named| named.contains(REG_ID))
        };
        if request.contacts().flatten().any(|contact| is_outbound(&contact)) {
            response = response.header(Name::Require, b"outbound").header(Name::Supported, b"path, outbound");
        }
        core.respond(*server, 200, response.finish());
    }

    /// A refresh that only holds the NAT open ends here; the core's registrar hears of what it must.
    fn forward(&mut self, registering: &Registering<'_>, phone: Expiry, core: &mut Core) -> Registration {
        let Registering { incoming, aor, .. } = *registering;
        let Incoming { flow, request, .. } = incoming;
        let now = core.now.monotonic;
        let expires = request.number(Name::Expires).and_then(Result::ok);
        let is_brief = |seconds: u32| seconds > 0 && Duration::from_secs(u64::from(seconds)) < phone.minimum;
        let asks_for =
            |contact: &Address<'_>| contact.parameter(b"expires").and_then(sip_wire::number).or(expires);
        if request.contacts().flatten().any(|contact| asks_for(&contact).is_some_and(is_brief)) {
            let minimum = phone.minimum.as_secs().to_string();
            core.reject_with(incoming, 423, |response| response.header(Name::MinExpires, minimum.as_bytes()));
            return Registration::Done;
        }
        let call_id = request.call_id().unwrap_or_default();
        let cseq = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
        if request.value(Name::Contact) == Some(b"*") && expires != Some(0) {
            core.reject(incoming, 400);
            return Registration::Done;
        }
        let bindings = self.aors.get_mut(aor).map(Vec::as_mut_slice).unwrap_or_default();
        let mut tokens: Vec<Arc<str>> = Vec::new();
        let mut fresh = Vec::new();
        for contact in request.contacts().flatten() {
            let named = named_instance(request, &contact);
            let known =
                bindings.iter().position(|known| names(&known.record, named.as_deref(), &contact.uri, flow));
            let asked = contact.parameter(b"expires").and_then(sip_wire::number).or(expires);
            let Some((at, binding)) = known.and_then(|at| Some((at, bindings.get(at)?))) else {
                tokens.push(core.ids.word(16).into());
                continue;
            };
            let is_same_call = binding.record.call_id.as_bytes() == call_id;
            // RFC 3261 §10.3 step 7: what comes late changes nothing.
            if is_same_call && binding.record.cseq >= cseq {
                core.reject(incoming, 500);
                return Registration::Done;
            }
            let is_held_open = binding.record.behind_nat && flow.transport == Transport::Udp;
            let lifetime = asked
                .map_or(phone.default, |seconds| Duration::from_secs(u64::from(seconds)))
                .min(if is_held_open { phone.nat } else { phone.maximum });
            // Fresh upstream for at least as long as the phone will stay away, and some more.
            let is_fresh = binding.upstream_expires > now.saturating_add(lifetime.saturating_mul(2));
            if binding.record.flow == *flow && is_same_call && is_fresh && asked != Some(0) {
                fresh.push((at, lifetime));
            }
            tokens.push(binding.record.token.clone().unwrap_or_else(|| core.ids.word(16).into()));
        }
        if tokens.is_empty() || fresh.len() < tokens.len() {
            let is_strangers = core.at_hand.sender == Sender::Stranger;
            return Registration::Forward(Forwarded {
                aor: aor.clone(),
                tokens: tokens.into(),
                is_strangers,
            });
        }
        for (at, lifetime) in fresh {
            let Some(binding) = bindings.get_mut(at) else { continue };
            binding.expires = now.saturating_add(lifetime);
            self.agenda.note(aor, binding.expires);
            binding.record.expires = core.now.wall.saturating_add(lifetime);
            binding.record.cseq = cseq;
            core.out.push_back(Output::Binding(BindingChange::Put(Box::new(binding.record.clone()))));
        }
        self.answer(incoming, aor, core);
        Registration::Done
    }

    /// The core's registrar has accepted what was forwarded: caches the binding and answers the phone.
    pub(crate) fn forwarded(
        &mut self,
        incoming: &Incoming,
        forwarded: &Forwarded,
        response: &Message,
        core: &mut Core,
    ) {
        let Incoming { flow, request, .. } = incoming;
        let Forwarded { aor, tokens, .. } = forwarded;
        let Some(realm) = core.realm_of(flow).cloned() else { return };
        let RegistrarMode::Forward { phone, upstream, .. } = &realm.registrar else { return };
        let expires = request.number(Name::Expires).and_then(Result::ok);
        if request.value(Name::Contact) == Some(b"*") {
            self.remove(aor, |_| true, core);
        }
        let is_behind_nat = is_behind_nat(request, flow);
        let registering = Registering { incoming, aor, realm: realm.id, is_behind_nat };
        let contacts = request.contacts().flatten().filter(|contact| contact.uri.as_bytes() != b"*");
        for (contact, token) in contacts.zip(tokens.iter()) {
            let asked = contact.parameter(b"expires").and_then(sip_wire::number).or(expires);
            if asked == Some(0) {
                let named = named_instance(request, &contact);
                let is_it = |known: &Binding| names(&known.record, named.as_deref(), &contact.uri, flow);
                self.remove(aor, is_it, core);
                continue;
            }
            let granted = response
                .contacts()
                .flatten()
                .find(|granted| granted.uri.user() == token.as_bytes())
                .and_then(|granted| granted.parameter(b"expires").and_then(sip_wire::number))
                .or_else(|| response.number(Name::Expires).and_then(Result::ok))
                // A registrar may shorten what it is asked for, and not prolong it (RFC 3261 §10.3 step 7).
                .map_or(*upstream, |seconds| Duration::from_secs(u64::from(seconds)).min(*upstream));
            let lifetime = asked.map_or(phone.default, |seconds| Duration::from_secs(u64::from(seconds)));
            let lifetime = lifetime
                .min(if is_behind_nat && flow.transport == Transport::Udp {
                    phone.nat
                } else {
                    phone.maximum
                })
                .min(granted);
            if let Some(mut binding) = registering.binding(&contact, lifetime, core) {
                binding.record.token = Some(token.clone());
                binding.upstream_expires = core.now.monotonic.saturating_add(granted);
                binding.record.upstream_expires = core.now.wall.saturating_add(granted);
                self.keep(binding, core);
                core.proven_by(aor, flow);
            }
        }
        self.answer(incoming, aor, core);
    }
}

/// A REGISTER that is served.
struct Registering<'a> {
    incoming: &'a Incoming,
    aor: &'a Arc<str>,
    realm: RealmId,
    is_behind_nat: bool,
}

impl Registering<'_> {
    /// What one of its Contacts becomes.
    fn binding(&self, contact: &Address<'_>, lifetime: Duration, core: &Core) -> Option<Binding> {
        let Incoming { flow, request, .. } = self.incoming;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let q = contact
            .parameter(b"q")
            .and_then(|q| std::str::from_utf8(q).ok()?.parse::<f32>().ok())
            .unwrap_or(1.0);
        let path = request.values(Name::Path).map(text).collect::<Option<Vec<_>>>()?;
        Some(Binding {
            record: BindingRecord {
                aor: self.aor.clone(),
                realm: self.realm,
                uri: text(contact.uri.as_bytes())?,
                flow: *flow,
                call_id: String::from_utf8_lossy(request.call_id().ok()?).into_owned(),
                cseq: request.cseq().ok()?.number,
                expires: core.now.wall.saturating_add(lifetime),
                q: (q.clamp(0.0, 1.0) * 1000.0) as u16,
                instance: named_instance(request, contact),
                path,
                user_agent: String::from_utf8_lossy(
                    request
                        .value(Name::UserAgent)
                        .map(|agent| agent.get(..bounds::USER_AGENT).unwrap_or(agent))
                        .unwrap_or_default(),
                )
                .into_owned(),
                behind_nat: self.is_behind_nat,
                token: None,
                upstream_expires: Duration::ZERO,
            },
            expires: core.now.monotonic.saturating_add(lifetime),
            upstream_expires: Duration::ZERO,
            next_keepalive: Some(core.now.monotonic),
            is_replica: false,
        })
    }
}

fn digest_realm<'a>(flow: &Flow, wanted: &'a Wanted, config: &'a Config) -> digest::Realm<'a> {
    let realm = config.realm_of(flow.listener);
    digest::Realm {
        by: wanted.by,
        name: &wanted.domain,
        network: network_of(flow.remote.ip()),
        demands_qop: realm.is_some_and(|realm| realm.digest.demands_qop),
        algorithms: realm.map(|realm| &*realm.digest.algorithms).unwrap_or_default(),
    }
}

/// The instance that a Contact names, with its `reg-id` where both sides speak RFC 5626 (§6).
fn named_instance(request: &Message, contact: &Address<'_>) -> Option<String> {
    let instance = unquote(contact.parameter(b"+sip.instance")?);
    let mut named = String::from_utf8(instance.to_vec()).ok()?;
    let reg_id = contact.parameter(b"reg-id").and_then(sip_wire::number);
    if let Some(number) = reg_id.filter(|_| request.has_token(Name::Supported, "outbound")) {
        named.push_str(&format!("{REG_ID}{number}"));
    }
    Some(named)
}

/// Its Via or Contact names another address than the packet came from.
fn is_behind_nat(request: &Message, flow: &Flow) -> bool {
    let source = flow.remote.ip().to_canonical();
    let differs =
        |host: sip_wire::Host<'_>| host.address().is_some_and(|address| address.to_canonical() != source);
    request.via().is_ok_and(|via| differs(via.host))
        || request.contacts().flatten().any(|contact| differs(contact.uri.host()))
}
