//! Bindings: who is registered where (RFC 3261 §10), how long, and over which flow.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sip_wire::{Address, Message, Name, Uri, unquote};
use smallvec::SmallVec;

use crate::config::{Expiry, RegistrarMode};
use crate::core::{Core, TimerKey};
use crate::digest::{Authenticator, Verdict};
use crate::io::{ConnectionId, Flow, Output, RealmId, Ticket, Transport};
use crate::question::Contact;
use crate::transaction::{self, ServerId};

/// A binding that outlives the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecord {
    /// Whose.
    pub aor: Arc<str>,
    /// In which realm.
    pub realm: RealmId,
    /// The Contact URI; the key within the AOR.
    pub uri: String,
    /// The flow it came over. Datagram flows survive a restart, connections don't.
    pub flow: Flow,
    /// Call-ID and CSeq of the REGISTER, for its order (RFC 3261 §10.3).
    pub call_id: String,
    /// See `call_id`.
    pub cseq: u32,
    /// When it expires, wall time since the Unix epoch.
    pub expires: Duration,
    /// q value in thousandths.
    pub q: u16,
    /// `+sip.instance`.
    pub instance: Option<String>,
    /// Path values.
    pub path: Vec<String>,
    /// User-Agent.
    pub user_agent: String,
    /// Behind a NAT, so that it wants keepalives.
    pub behind_nat: bool,
    /// In a forwarding realm: the user part of the Contact that the core's registrar knows.
    pub token: Option<Arc<str>>,
    /// In a forwarding realm: when the core's registrar forgets it, wall time.
    pub upstream_expires: Duration,
}

/// What changed, for the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindingChange {
    /// New or refreshed.
    Put(Box<BindingRecord>),
    /// Gone.
    Delete {
        /// Whose.
        aor: Arc<str>,
        /// Which.
        uri: String,
    },
}

#[derive(Debug)]
struct Binding {
    record: BindingRecord,
    /// Monotonic.
    expires: Duration,
    upstream_expires: Duration,
    next_keepalive: Option<Duration>,
    /// Another home keeps it alive, ends it and writes it to the store.
    is_replica: bool,
}

/// The canonical form of an address of record: `user@host`, user unescaped, host in lower case; `None` for what has no
/// user or host.
pub fn aor_of(uri: &Uri<'_>) -> Option<String> {
    let host = std::str::from_utf8(uri.host().as_bytes()).ok()?;
    let user = Uri::unescape(uri.user());
    let user = std::str::from_utf8(&user).ok()?;
    (!host.is_empty() && !user.is_empty()).then(|| format!("{user}@{}", host.to_ascii_lowercase()))
}

/// All bindings of this engine.
#[derive(Debug)]
pub(crate) struct Registrar {
    aors: AHashMap<Arc<str>, Vec<Binding>>,
    tokens: AHashMap<Arc<str>, Arc<str>>,
    /// Who is registered over a flow; a gateway or a household may be several.
    flows: AHashMap<FlowKey, SmallVec<[Arc<str>; 1]>>,
    agenda: Agenda,
    count: usize,
    /// Flows that phones have left, and those that they came back by.
    moves: Vec<(Flow, Flow)>,
    pub(crate) authenticator: Authenticator,
}

/// What tells flows apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum FlowKey {
    Datagrams(SocketAddr),
    Connection(ConnectionId),
}

/// When which AOR wants something: the expiry or the keepalive of a binding.
#[derive(Debug)]
struct Agenda {
    queue: BinaryHeap<Reverse<(Duration, Arc<str>)>>,
    /// The entry of the queue that counts for an AOR; others are stale.
    next: AHashMap<Arc<str>, Duration>,
}

impl Agenda {
    /// Not later than `due`.
    fn note(&mut self, aor: &Arc<str>, due: Duration) {
        if self.next.get(aor).is_none_or(|known| due < *known) {
            self.next.insert(aor.clone(), due);
            self.queue.push(Reverse((due, aor.clone())));
        }
    }

    /// An AOR whose time has come.
    fn pop(&mut self, now: Duration) -> Option<Arc<str>> {
        while self.queue.peek().is_some_and(|Reverse((due, _))| *due <= now) {
            let Reverse((due, aor)) = self.queue.pop()?;
            if self.next.get(&aor) == Some(&due) {
                self.next.remove(&aor);
                return Some(aor);
            }
        }
        None
    }
}

impl Binding {
    /// Holds the NAT in front of its phone open.
    fn keep_alive(&mut self, core: &mut Core) {
        let keepalive = core.config.realm(self.record.realm).and_then(|realm| realm.keepalive);
        self.next_keepalive = keepalive.map(|keepalive| core.now.monotonic + keepalive.interval);
        let Some(keepalive) = keepalive else { return };
        if !self.record.behind_nat || self.record.flow.transport != Transport::Udp {
            return;
        }
        let message = if keepalive.options { options(core, &self.record) } else { None };
        core.out.push_back(Output::Send {
            flow: self.record.flow,
            server_name: None,
            message: message.unwrap_or_else(|| Bytes::from_static(b"\r\n\r\n")),
            ticket: Ticket(u64::MAX),
        });
    }

    fn due(&self) -> Duration {
        self.next_keepalive.map_or(self.expires, |keepalive| keepalive.min(self.expires))
    }
}

/// How often expiry and keepalives are looked at.
const TICK: Duration = Duration::from_secs(1);

/// What becomes of a REGISTER.
pub(crate) enum Registration {
    /// Answered.
    Done,
    /// To be forwarded to the registrar of the core, with this Contact user.
    Forward { aor: Arc<str>, token: Arc<str> },
}

impl Registrar {
    pub(crate) fn new(core: &mut Core) -> Self {
        core.schedule(TICK, TimerKey::Registrar);
        let authenticator = Authenticator::new(&mut core.ids, Duration::from_secs(300));
        Self {
            aors: AHashMap::new(),
            tokens: AHashMap::new(),
            flows: AHashMap::new(),
            agenda: Agenda { queue: BinaryHeap::new(), next: AHashMap::new() },
            count: 0,
            moves: Vec::new(),
            authenticator,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Phones that have come back by another flow since the last time: the one they left, and the new one.
    pub(crate) fn take_moves(&mut self) -> Vec<(Flow, Flow)> {
        std::mem::take(&mut self.moves)
    }

    /// The contacts of an AOR, best q first.
    pub(crate) fn bindings(&self, aor: &str) -> Vec<Contact> {
        let mut contacts: Vec<_> =
            self.aors.get(aor).into_iter().flatten().map(|binding| contact_of(&binding.record)).collect();
        contacts.sort_by_key(|contact| std::cmp::Reverse(contact.q));
        contacts
    }

    /// The contact behind a token of ours that the core's registrar has sent us.
    pub(crate) fn by_token(&self, token: &str) -> Option<Contact> {
        let aor = self.tokens.get(token)?;
        let binding =
            self.aors.get(aor)?.iter().find(|binding| binding.record.token.as_deref() == Some(token))?;
        Some(contact_of(&binding.record))
    }

    /// Who is registered over a flow: whom the request claims to be from, if that is one of them.
    pub(crate) fn by_flow(&self, flow: &Flow, claimed: Option<&str>) -> Option<Arc<str>> {
        let aors = self.flows.get(&flow_key(flow))?;
        let one = aors.iter().find(|aor| Some(&***aor) == claimed);
        one.or(aors.first()).cloned()
    }

    /// Takes bindings from the store, at start.
    pub(crate) fn load(&mut self, records: Vec<BindingRecord>, core: &Core) {
        for record in records {
            if record.expires <= core.now.wall || record.flow.connection.is_some() {
                continue;
            }
            // A phone that has registered meanwhile knows better where it is.
            let known = self.aors.get(&record.aor).into_iter().flatten();
            if known.into_iter().any(|known| is_same(&known.record, &record)) {
                continue;
            }
            let expires = core.now.monotonic + (record.expires - core.now.wall);
            let upstream_expires = core.now.monotonic + record.upstream_expires.saturating_sub(core.now.wall);
            let next_keepalive = Some(core.now.monotonic);
            self.put(Binding { record, expires, upstream_expires, next_keepalive, is_replica: false });
        }
    }

    /// A binding of another home has changed.
    pub(crate) fn replicate(&mut self, change: BindingChange, core: &Core) {
        match change {
            BindingChange::Put(record) => {
                let left = record.expires.saturating_sub(core.now.wall);
                self.put(Binding {
                    record: *record,
                    expires: core.now.monotonic + left,
                    upstream_expires: Duration::ZERO,
                    next_keepalive: None,
                    is_replica: true,
                });
            }
            BindingChange::Delete { aor, uri } => drop(self.take(&aor, |binding| binding.record.uri == uri)),
        }
    }

    /// Puts a binding, and tells the store. A device that comes with another Contact (a NAT has rebound, a connection is
    /// new) leaves no row under its old one.
    fn keep(&mut self, binding: Binding, core: &mut Core) {
        let record = &binding.record;
        let known = self.aors.get(&record.aor).into_iter().flatten();
        for known in known.map(|known| &known.record).filter(|known| is_same(known, record)) {
            if known.uri != record.uri {
                let change = BindingChange::Delete { aor: known.aor.clone(), uri: known.uri.clone() };
                core.out.push_back(Output::Binding(change));
            }
        }
        core.out.push_back(Output::Binding(BindingChange::Put(Box::new(record.clone()))));
        self.put(binding);
    }

    fn put(&mut self, binding: Binding) {
        let aor = binding.record.aor.clone();
        if let Some(token) = &binding.record.token {
            self.tokens.insert(token.clone(), aor.clone());
        }
        self.count += usize::from(!binding.is_replica);
        self.agenda.note(&aor, binding.due());
        let flow = binding.record.flow;
        let bindings = self.aors.entry(aor.clone()).or_default();
        let left = match bindings.iter_mut().find(|known| is_same(&known.record, &binding.record)) {
            Some(known) => {
                self.count -= usize::from(!known.is_replica);
                let left = known.record.flow;
                *known = binding;
                (left != flow).then_some(left)
            }
            None => {
                bindings.push(binding);
                None
            }
        };
        if let Some(left) = left {
            self.moves.push((left, flow));
            // Who comes next over the flow that the phone has left is not this phone.
            self.forget_flow(&aor, &left);
        }
        let aors = self.flows.entry(flow_key(&flow)).or_default();
        if !aors.contains(&aor) {
            aors.push(aor);
        }
    }

    /// A binding of an AOR is no longer over a flow; another of it may be.
    fn forget_flow(&mut self, aor: &Arc<str>, flow: &Flow) {
        let key = flow_key(flow);
        let bindings = self.aors.get(aor).map(Vec::as_slice).unwrap_or_default();
        if bindings.iter().any(|binding| flow_key(&binding.record.flow) == key) {
            return;
        }
        if let Some(aors) = self.flows.get_mut(&key) {
            aors.retain(|known| known != aor);
            if aors.is_empty() {
                self.flows.remove(&key);
            }
        }
    }

    fn remove(&mut self, aor: &Arc<str>, goes: impl Fn(&Binding) -> bool, core: &mut Core) {
        for binding in self.take(aor, goes) {
            if !binding.is_replica {
                let change = BindingChange::Delete { aor: aor.clone(), uri: binding.record.uri };
                core.out.push_back(Output::Binding(change));
            }
        }
    }

    fn take(&mut self, aor: &Arc<str>, goes: impl Fn(&Binding) -> bool) -> Vec<Binding> {
        let Some(bindings) = self.aors.get_mut(aor) else { return Vec::new() };
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(bindings).into_iter().partition(goes);
        *bindings = kept;
        let is_empty = bindings.is_empty();
        if is_empty {
            self.aors.remove(aor);
            self.agenda.next.remove(aor);
        }
        for binding in &gone {
            self.count -= usize::from(!binding.is_replica);
            if let Some(token) = &binding.record.token {
                self.tokens.remove(token);
            }
            self.forget_flow(aor, &binding.record.flow);
        }
        gone
    }

    /// A connection is gone, and with it what was registered over it (RFC 5626 §5.3).
    pub(crate) fn connection_closed(&mut self, connection: ConnectionId, core: &mut Core) {
        let gone = self.flows.get(&FlowKey::Connection(connection)).cloned().unwrap_or_default();
        for aor in gone {
            self.remove(&aor, |binding| binding.record.flow.connection == Some(connection), core);
        }
    }

    /// Expiry and keepalives.
    pub(crate) fn tick(&mut self, core: &mut Core) {
        core.schedule(TICK, TimerKey::Registrar);
        let now = core.now.monotonic;
        while let Some(aor) = self.agenda.pop(now) {
            self.remove(&aor, |binding| binding.expires <= now, core);
            let bindings = self.aors.get_mut(&aor).map(Vec::as_mut_slice).unwrap_or_default();
            for binding in bindings.iter_mut().filter(|binding| binding.due() <= now) {
                binding.keep_alive(core);
            }
            if let Some(due) = bindings.iter().map(Binding::due).min() {
                self.agenda.note(&aor, due);
            }
        }
    }

    /// A REGISTER of a realm that serves it.
    pub(crate) fn on_register(
        &mut self,
        server: ServerId,
        flow: Flow,
        request: &Message,
        core: &mut Core,
    ) -> Registration {
        let Some(realm) = core.realm_of(&flow).cloned() else { return Registration::Done };
        let aor = request.to().ok().and_then(|to| aor_of(&to.uri));
        let Some(aor) = aor.map(Arc::<str>::from) else {
            core.reject(server, request, 400, |response| response);
            return Registration::Done;
        };
        match &realm.registrar {
            RegistrarMode::None => {
                core.reject(server, request, 405, |response| response);
                Registration::Done
            }
            RegistrarMode::Forward { phone, .. } => self.forward(server, flow, request, aor, *phone, core),
            RegistrarMode::Local(expiry) => {
                let domain = aor.rsplit('@').next().unwrap_or_default().to_owned();
                if !realm.domains.iter().any(|known| **known == *domain) {
                    core.reject(server, request, 404, |response| response);
                    return Registration::Done;
                }
                match self.authenticate(request, Name::Authorization, &domain, core) {
                    Verdict::Accepted(user) if *aor == format!("{user}@{domain}") => {}
                    Verdict::Accepted(_) => {
                        core.reject(server, request, 403, |response| response);
                        return Registration::Done;
                    }
                    verdict => {
                        self.challenge(server, &flow, request, 401, &domain, &verdict, core);
                        return Registration::Done;
                    }
                }
                self.register(server, flow, request, aor, &realm.id, *expiry, core);
                Registration::Done
            }
        }
    }

    /// Judges credentials against the snapshot.
    pub(crate) fn authenticate(
        &mut self,
        request: &Message,
        header: Name,
        domain: &str,
        core: &Core,
    ) -> Verdict {
        let Some(policy) = &core.policy else { return Verdict::Missing };
        self.authenticator.judge(request, header, domain, core.now, |user| policy.credentials(domain, user))
    }

    #[expect(clippy::too_many_arguments, reason = "a request, its place, and what it failed to show")]
    /// 401 or 407; 403 would tell a guesser that the user exists, so wrong credentials get another challenge too.
    pub(crate) fn challenge(
        &self,
        server: ServerId,
        flow: &Flow,
        request: &Message,
        status: u16,
        domain: &str,
        verdict: &Verdict,
        core: &mut Core,
    ) {
        if *verdict == Verdict::Wrong {
            core.notice(
                "wrong_credentials",
                Some(flow.remote),
                format!("wrong user name or password for {domain}"),
            );
        }
        let algorithms = core.realm_of(flow).map(|realm| realm.digest.clone()).unwrap_or_default();
        let values = self.authenticator.challenge(
            domain,
            &algorithms,
            *verdict == Verdict::Stale,
            core.now,
            &mut core.ids,
        );
        let header = if status == 401 { Name::WwwAuthenticate } else { Name::ProxyAuthenticate };
        core.reject(server, request, status, |response| {
            values.iter().fold(response, |response, value| response.header(header, value.as_bytes()))
        });
    }

    #[expect(clippy::too_many_arguments, reason = "a request, its place, and the rules for it")]
    fn register(
        &mut self,
        server: ServerId,
        flow: Flow,
        request: &Message,
        aor: Arc<str>,
        realm: &RealmId,
        expiry: Expiry,
        core: &mut Core,
    ) {
        let header_expires = request.number(Name::Expires).and_then(Result::ok);
        if request.value(Name::Contact) == Some(b"*") {
            if header_expires != Some(0) {
                core.reject(server, request, 400, |response| response);
                return;
            }
            self.remove(&aor, |_| true, core);
            self.answer(server, request, &aor, core);
            return;
        }
        let behind_nat = is_behind_nat(request, &flow);
        let mut wanted = Vec::new();
        for contact in request.contacts().flatten() {
            let asked = contact.parameter(b"expires").and_then(sip_wire::number).or(header_expires);
            let mut lifetime =
                asked.map_or(expiry.default, |seconds| Duration::from_secs(u64::from(seconds)));
            if !lifetime.is_zero() {
                if lifetime < expiry.minimum {
                    let minimum = expiry.minimum.as_secs().to_string();
                    core.reject(server, request, 423, |response| {
                        response.header(Name::MinExpires, minimum.as_bytes())
                    });
                    return;
                }
                let longest =
                    if behind_nat && flow.transport == Transport::Udp { expiry.nat } else { expiry.maximum };
                lifetime = lifetime.min(longest);
            }
            match self.binding(request, &contact, &aor, *realm, flow, lifetime, behind_nat, core) {
                Some(binding) => wanted.push((binding, lifetime)),
                None => {
                    core.reject(server, request, 400, |response| response);
                    return;
                }
            }
        }
        // RFC 3261 §10.3: a request that is out of order changes nothing.
        let known = self.aors.get(&aor).map(Vec::as_slice).unwrap_or_default();
        let is_late = wanted.iter().any(|(binding, _)| {
            known.iter().any(|known| {
                is_same(&known.record, &binding.record)
                    && known.record.call_id == binding.record.call_id
                    && known.record.cseq >= binding.record.cseq
            })
        });
        if is_late {
            core.reject(server, request, 500, |response| response);
            return;
        }
        let new = wanted
            .iter()
            .filter(|(binding, _)| !known.iter().any(|known| is_same(&known.record, &binding.record)))
            .count();
        if known.len() + new > core.config.limits.bindings_per_aor {
            core.reject(server, request, 403, |response| response);
            return;
        }
        for (binding, lifetime) in wanted {
            if lifetime.is_zero() {
                let record = binding.record;
                self.remove(&aor, |known| is_same(&known.record, &record), core);
            } else {
                self.keep(binding, core);
            }
        }
        self.answer(server, request, &aor, core);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one record")]
    fn binding(
        &self,
        request: &Message,
        contact: &Address<'_>,
        aor: &Arc<str>,
        realm: RealmId,
        flow: Flow,
        lifetime: Duration,
        behind_nat: bool,
        core: &Core,
    ) -> Option<Binding> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        let q = contact
            .parameter(b"q")
            .and_then(|q| std::str::from_utf8(q).ok()?.parse::<f32>().ok())
            .unwrap_or(1.0);
        let path = request.values(Name::Path).map(text).collect::<Option<Vec<_>>>()?;
        Some(Binding {
            record: BindingRecord {
                aor: aor.clone(),
                realm,
                uri: text(contact.uri.as_bytes())?,
                flow,
                call_id: String::from_utf8_lossy(request.call_id().ok()?).into_owned(),
                cseq: request.cseq().ok()?.number,
                expires: core.now.wall + lifetime,
                q: (q.clamp(0.0, 1.0) * 1000.0) as u16,
                instance: contact.parameter(b"+sip.instance").and_then(|value| text(&unquote(value))),
                path,
                user_agent: String::from_utf8_lossy(request.value(Name::UserAgent).unwrap_or_default())
                    .into_owned(),
                behind_nat,
                token: None,
                upstream_expires: Duration::ZERO,
            },
            expires: core.now.monotonic + lifetime,
            upstream_expires: Duration::ZERO,
            next_keepalive: Some(core.now.monotonic),
            is_replica: false,
        })
    }

    /// 200 with all bindings (RFC 3261 §10.3 step 8).
    fn answer(&self, server: ServerId, request: &Message, aor: &str, core: &mut Core) {
        let now = core.now.monotonic;
        let bindings = self.aors.get(aor).map(Vec::as_slice).unwrap_or_default();
        let tag = core.ids.tag();
        let mut response = transaction::response_to(request, 200, None, Some(&tag));
        for binding in bindings {
            let left = binding.expires.saturating_sub(now).as_secs();
            let mut value = format!("<{}>;expires={left}", binding.record.uri);
            if let Some(instance) = &binding.record.instance {
                value.push_str(&format!(";+sip.instance=\"{instance}\""));
            }
            response = response.header(Name::Contact, value.as_bytes());
        }
        for path in request.values(Name::Path) {
            response = response.header(Name::Path, path);
        }
        core.respond(server, 200, response.finish());
    }

    /// A refresh that only holds the NAT open ends here; the core's registrar hears of what it must.
    fn forward(
        &mut self,
        server: ServerId,
        flow: Flow,
        request: &Message,
        aor: Arc<str>,
        phone: Expiry,
        core: &mut Core,
    ) -> Registration {
        let now = core.now.monotonic;
        let expires = request.number(Name::Expires).and_then(Result::ok);
        let contact = request.contacts().next().and_then(Result::ok);
        let asked = contact
            .as_ref()
            .and_then(|contact| contact.parameter(b"expires").and_then(sip_wire::number))
            .or(expires);
        let known = self.aors.get_mut(&aor).and_then(|bindings| {
            let uri = contact.as_ref()?.uri.as_bytes();
            bindings.iter_mut().find(|binding| binding.record.uri.as_bytes() == uri)
        });
        if let Some(binding) = known {
            let is_same_phone = binding.record.flow == flow
                && binding.record.call_id.as_bytes() == request.call_id().unwrap_or_default();
            let is_held_open = binding.record.behind_nat && flow.transport == Transport::Udp;
            let lifetime = asked
                .map_or(phone.default, |seconds| Duration::from_secs(u64::from(seconds)))
                .min(if is_held_open { phone.nat } else { phone.maximum });
            // Fresh upstream for at least as long as the phone will stay away, and some more.
            let is_fresh = binding.upstream_expires > now + 2 * lifetime;
            if is_same_phone && is_fresh && asked != Some(0) {
                binding.expires = now + lifetime;
                self.agenda.note(&aor, binding.expires);
                binding.record.expires = core.now.wall + lifetime;
                binding.record.cseq = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
                core.out.push_back(Output::Binding(BindingChange::Put(Box::new(binding.record.clone()))));
                self.answer(server, request, &aor, core);
                return Registration::Done;
            }
            if let Some(token) = &binding.record.token {
                return Registration::Forward { aor, token: token.clone() };
            }
        }
        Registration::Forward { aor, token: core.ids.word(16).into() }
    }

    /// The core's registrar has accepted what was forwarded: caches the binding and answers the phone.
    #[expect(clippy::too_many_arguments, reason = "both sides of one registration")]
    pub(crate) fn forwarded(
        &mut self,
        server: ServerId,
        flow: Flow,
        request: &Message,
        response: &Message,
        aor: Arc<str>,
        token: Arc<str>,
        core: &mut Core,
    ) {
        let Some(realm) = core.realm_of(&flow).cloned() else { return };
        let RegistrarMode::Forward { phone, upstream, .. } = &realm.registrar else { return };
        let expires = request.number(Name::Expires).and_then(Result::ok);
        let Some(contact) = request.contacts().next().and_then(Result::ok) else {
            // A query, or `*`.
            if request.value(Name::Contact) == Some(b"*") {
                self.remove(&aor, |_| true, core);
            }
            self.answer(server, request, &aor, core);
            return;
        };
        let asked = contact.parameter(b"expires").and_then(sip_wire::number).or(expires);
        if asked == Some(0) {
            let uri = contact.uri.as_bytes();
            self.remove(&aor, |binding| binding.record.uri.as_bytes() == uri, core);
            self.answer(server, request, &aor, core);
            return;
        }
        let granted = response
            .contacts()
            .flatten()
            .find(|contact| contact.uri.user() == token.as_bytes())
            .and_then(|contact| contact.parameter(b"expires").and_then(sip_wire::number))
            .or_else(|| response.number(Name::Expires).and_then(Result::ok))
            .map_or(*upstream, |seconds| Duration::from_secs(u64::from(seconds)));
        let behind_nat = is_behind_nat(request, &flow);
        let lifetime = asked.map_or(phone.default, |seconds| Duration::from_secs(u64::from(seconds)));
        let lifetime = lifetime
            .min(if behind_nat && flow.transport == Transport::Udp { phone.nat } else { phone.maximum })
            .min(granted);
        if let Some(mut binding) =
            self.binding(request, &contact, &aor, realm.id, flow, lifetime, behind_nat, core)
        {
            binding.record.token = Some(token);
            binding.upstream_expires = core.now.monotonic + granted;
            binding.record.upstream_expires = core.now.wall + granted;
            self.keep(binding, core);
        }
        self.answer(server, request, &aor, core);
    }
}

fn flow_key(flow: &Flow) -> FlowKey {
    flow.connection.map_or(FlowKey::Datagrams(flow.remote), FlowKey::Connection)
}

fn contact_of(record: &BindingRecord) -> Contact {
    Contact {
        realm: record.realm,
        flow: record.flow,
        uri: Bytes::copy_from_slice(record.uri.as_bytes()),
        path: record.path.iter().map(|path| Bytes::copy_from_slice(path.as_bytes())).collect(),
        q: record.q,
    }
}

/// One device: the same instance, or the same Contact URI (RFC 5626 §6, RFC 3261 §10.3).
fn is_same(one: &BindingRecord, other: &BindingRecord) -> bool {
    match (&one.instance, &other.instance) {
        (Some(one), Some(other)) => one == other,
        _ => one.uri == other.uri,
    }
}

/// Its Via or Contact names another address than the packet came from.
fn is_behind_nat(request: &Message, flow: &Flow) -> bool {
    let source = flow.remote.ip().to_canonical();
    let differs =
        |host: sip_wire::Host<'_>| host.address().is_some_and(|address| address.to_canonical() != source);
    request.via().is_ok_and(|via| differs(via.host))
        || request.contacts().flatten().any(|contact| differs(contact.uri.host()))
}

fn options(core: &mut Core, record: &BindingRecord) -> Option<Bytes> {
    let listener = core.config.listener(record.flow.listener)?;
    let branch = core.ids.branch();
    let tag = core.ids.tag();
    let call_id = core.ids.word(20);
    let us = format!("<sip:{}>", listener.advertised);
    let via = transaction::via(listener, &branch);
    Some(
        sip_wire::Builder::request(sip_wire::Method::OPTIONS, record.uri.as_bytes())
            .header(Name::Via, via.as_bytes())
            .header(Name::MaxForwards, b"70")
            .header(Name::From, format!("{us};tag={tag}").as_bytes())
            .header(Name::To, format!("<{}>", record.uri).as_bytes())
            .header(Name::CallId, call_id.as_bytes())
            .header(Name::CSeq, b"1 OPTIONS")
            .header(Name::Contact, us.as_bytes())
            .finish(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aor_is_on_the_agenda_once_and_at_its_earliest_time() {
        let mut agenda = Agenda { queue: BinaryHeap::new(), next: AHashMap::new() };
        let (one, other): (Arc<str>, Arc<str>) = ("one@x".into(), "other@x".into());
        let at = Duration::from_secs;
        for due in [30, 20, 25] {
            agenda.note(&one, at(due));
        }
        agenda.note(&other, at(21));
        assert_eq!(agenda.pop(at(19)), None);
        assert_eq!(agenda.pop(at(40)), Some(one));
        assert_eq!(agenda.pop(at(40)), Some(other));
        assert_eq!(agenda.pop(at(40)), None);
        assert!(agenda.queue.is_empty() && agenda.next.is_empty());
    }
}
