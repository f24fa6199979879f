//! Bindings: who is registered where (RFC 3261 §10), how long, and over which flow.

mod agenda;
mod bounds;
mod lost;
mod over;
mod register;
mod same;

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use bytes::Bytes;
use sip_wire::Name;

use crate::core::{Core, TimerKey};
use crate::digest::{Authenticator, Challenger};
use crate::flow::{ConnectionId, Flow, Ticket, Transport};
use crate::io::Output;
use crate::question::Contact;
use crate::transaction;

use agenda::Agenda;
use lost::Lost;
use over::Over;
pub(crate) use same::are_equal;
use same::{instance_of, is_outbound, is_same, is_same_phone};

pub use crate::aor::aor_of;
pub use crate::binding::{BindingChange, BindingRecord};

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

/// All bindings of this engine.
#[derive(Debug)]
pub(crate) struct Registrar {
    aors: AHashMap<Arc<str>, Vec<Binding>>,
    tokens: AHashMap<Arc<str>, Arc<str>>,
    flows: Over,
    agenda: Agenda,
    count: usize,
    /// Flows that phones have left, and those that they came back by.
    moves: Vec<(Flow, Flow)>,
    lost: Lost,
    pub(crate) authenticator: Authenticator,
}

impl Binding {
    /// Holds the NAT in front of its phone open.
    fn keep_alive(&mut self, core: &mut Core) {
        let keepalive = core.config.realm(self.record.realm).and_then(|realm| realm.keepalive);
        self.next_keepalive =
            keepalive.map(|keepalive| core.now.monotonic.saturating_add(keepalive.interval));
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

/// When more wants to be done than [`AT_ONCE`]: a town whose bindings expire in the same second, or that is called to
/// after a restart, must delay no call.
const SOON: Duration = Duration::from_millis(20);

/// AORs of one look.
const AT_ONCE: usize = 1_000;

/// What becomes of a REGISTER.
pub(crate) enum Registration {
    /// Answered.
    Done,
    /// To be forwarded to the registrar of the core.
    Forward(Forwarded),
}

/// A REGISTER on its way to the registrar of the core.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) aor: Arc<str>,
    /// The users of our Contacts there, one for each of its own.
    pub(crate) tokens: Arc<[Arc<str>]>,
    /// Whether nobody is registered over the flow that it came by.
    pub(crate) is_strangers: bool,
}

/// Credentials that a request must show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) by: Challenger,
    pub(crate) domain: Arc<str>,
}

impl Registrar {
    pub(crate) fn new(core: &mut Core) -> Self {
        core.schedule(TICK, TimerKey::Registrar);
        let authenticator = Authenticator::new(&mut core.ids, Duration::from_secs(300));
        Self {
            aors: AHashMap::new(),
            tokens: AHashMap::new(),
            flows: Over::new(),
            agenda: Agenda::new(),
            count: 0,
            moves: Vec::new(),
            lost: Lost::new(),
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

    /// The contacts of an AOR, best q first, with the other flows of each instance, latest first: only one of them is tried
    /// at a time (RFC 5626 §7).
    pub(crate) fn phones(&self, aor: &str) -> Vec<(Contact, Vec<Contact>)> {
        let mut known: Vec<_> =
            self.aors.get(aor).into_iter().flatten().map(|binding| &binding.record).collect();
        known.sort_by_key(|record| (std::cmp::Reverse(record.q), std::cmp::Reverse(record.expires)));
        let mut phones: Vec<(Contact, Vec<Contact>)> = Vec::new();
        let mut instances: Vec<(&str, usize)> = Vec::new();
        for record in known {
            let instance = record.instance.as_deref().map(instance_of);
            let place = instances.iter().find(|(known, _)| Some(*known) == instance).map(|(_, place)| *place);
            match place.and_then(|place| phones.get_mut(place)) {
                Some((_, others)) => others.push(contact_of(record)),
                None => {
                    instances.extend(instance.map(|instance| (instance, phones.len())));
                    phones.push((contact_of(record), Vec::new()));
                }
            }
        }
        phones
    }

    /// The contact behind a token of ours that the core's registrar has sent us.
    pub(crate) fn by_token(&self, token: &str) -> Option<Contact> {
        let aor = self.tokens.get(token)?;
        let binding =
            self.aors.get(aor)?.iter().find(|binding| binding.record.token.as_deref() == Some(token))?;
        Some(contact_of(&binding.record))
    }

    /// Whose Contact the core's registrar knows by a token.
    pub(crate) fn aor_of_token(&self, token: &str) -> Option<Arc<str>> {
        self.tokens.get(token).map(|aor| Arc::from(&**aor))
    }

    /// Who is registered over a flow: whom the request claims to be from, if that is one of them.
    pub(crate) fn by_flow(&self, flow: &Flow, claimed: Option<&str>) -> Option<Arc<str>> {
        self.flows.one(flow, claimed)
    }

    /// Takes bindings from the store, at start.
    pub(crate) fn load(&mut self, records: Vec<BindingRecord>, core: &mut Core) {
        let mut gone = 0usize;
        for mut record in records {
            if record.expires <= core.now.wall {
                continue;
            }
            // Its connection went with the process before. Who listens is called back, who does not comes back.
            if record.flow.connection.is_some() {
                match way_back(&record, core) {
                    Some(way) => record.flow = way,
                    None => {
                        let change =
                            BindingChange::Delete { aor: record.aor.clone(), uri: record.uri.clone() };
                        core.out.push_back(Output::Binding(change));
                        self.lost.remember(record);
                        gone = gone.saturating_add(1);
                        continue;
                    }
                }
            }
            // A phone that has registered meanwhile knows better where it is.
            let known = self.aors.get(&record.aor).into_iter().flatten();
            if known.into_iter().any(|known| is_same(&known.record, &record)) {
                continue;
            }
            let expires = core.now.monotonic.saturating_add(record.expires.saturating_sub(core.now.wall));
            let upstream_expires =
                core.now.monotonic.saturating_add(record.upstream_expires.saturating_sub(core.now.wall));
            let next_keepalive = Some(core.now.monotonic);
            self.put(Binding { record, expires, upstream_expires, next_keepalive, is_replica: false });
        }
        if gone > 0 {
            let detail = format!(
                "{gone} bindings were over connections that ended: their phones are reached when they register again"
            );
            core.notice("bindings_gone", None, detail);
        }
    }

    /// A binding of another home has changed.
    pub(crate) fn replicate(&mut self, change: BindingChange, core: &Core) {
        match change {
            BindingChange::Put(record) => {
                let left = record.expires.saturating_sub(core.now.wall);
                self.put(Binding {
                    record: *record,
                    expires: core.now.monotonic.saturating_add(left),
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
            // The row of a phone is found by its Contact.
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
        self.count = self.count.saturating_add(usize::from(!binding.is_replica));
        self.agenda.note(&aor, binding.due());
        let flow = binding.record.flow;
        let known = self.aors.get(&aor).into_iter().flatten().map(|known| &known.record);
        let same = known.filter(|known| is_same_phone(known, &binding.record)).map(|known| known.flow);
        let left: Vec<Flow> =
            same.chain(self.lost.found(&binding.record)).filter(|left| *left != flow).collect();
        self.moves.extend(left.into_iter().map(|left| (left, flow)));
        let bindings = self.aors.entry(aor.clone()).or_default();
        // All that are it: of a phone that takes the place of another binding both its own last one and the other.
        let (gone, mut kept): (Vec<_>, Vec<_>) =
            std::mem::take(bindings).into_iter().partition(|known| is_same(&known.record, &binding.record));
        let token = binding.record.token.clone();
        kept.push(binding);
        *bindings = kept;
        for known in gone {
            self.count = self.count.saturating_sub(usize::from(!known.is_replica));
            if let Some(old) = known.record.token.filter(|old| Some(old) != token.as_ref()) {
                self.tokens.remove(&old);
            }
            if known.record.flow != flow {
                // Who comes next over the flow that the phone has left is not this phone.
                self.forget_flow(&aor, &known.record.flow);
            }
        }
        self.flows.insert(&flow, aor);
    }

    /// A binding of an AOR is no longer over a flow; another of it may be.
    fn forget_flow(&mut self, aor: &Arc<str>, flow: &Flow) {
        let bindings = self.aors.get(aor).map(Vec::as_slice).unwrap_or_default();
        if !bindings.iter().any(|binding| Over::is_same(&binding.record.flow, flow)) {
            self.flows.remove(flow, aor);
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
            self.agenda.forget(aor);
        }
        for binding in &gone {
            self.lost.remember(binding.record.clone());
            self.count = self.count.saturating_sub(usize::from(!binding.is_replica));
            if let Some(token) = &binding.record.token {
                self.tokens.remove(token);
            }
            self.forget_flow(aor, &binding.record.flow);
        }
        gone
    }

    /// A connection is gone. What was registered over it by RFC 5626, or from behind a NAT, has gone with it (§5.3); another
    /// phone is reached where its Contact listens (RFC 3261 §10.3). Whoever has come back already is found in its calls.
    pub(crate) fn connection_closed(&mut self, connection: ConnectionId, core: &mut Core) {
        for aor in self.flows.all(connection) {
            let gone = self.take(&aor, |binding| binding.record.flow.connection == Some(connection));
            for mut binding in gone {
                let left = binding.record.flow;
                let known = self.aors.get(&aor).into_iter().flatten().map(|known| &known.record);
                let successor = known.into_iter().find(|known| is_same_phone(&binding.record, known));
                let successor = successor.map(|known| known.flow);
                let way = way_back(&binding.record, core);
                match (successor, way) {
                    (Some(now), _) => self.moves.push((left, now)),
                    (None, Some(way)) => {
                        binding.record.flow = way;
                        if !binding.is_replica {
                            let change = BindingChange::Put(Box::new(binding.record.clone()));
                            core.out.push_back(Output::Binding(change));
                        }
                        self.put(binding);
                        continue;
                    }
                    (None, None) => {}
                }
                if !binding.is_replica {
                    let change = BindingChange::Delete { aor: aor.clone(), uri: binding.record.uri };
                    core.out.push_back(Output::Binding(change));
                }
            }
        }
    }

    /// Makes room for `new` bindings of an AOR: those that have been heard of longest ago go. A phone that takes another
    /// port at each restart and never says goodbye would else lock itself out.
    fn make_room(&mut self, new: &BindingRecord, count: usize, core: &mut Core) {
        let most = core.config.limits.bindings_per_aor.saturating_sub(count);
        while let Some(bindings) = self.aors.get(&new.aor).filter(|bindings| bindings.len() > most) {
            // The phone's own old ones before those of others.
            let oldest = bindings
                .iter()
                .min_by_key(|binding| (!is_same_phone(&binding.record, new), binding.expires))
                .map(|binding| binding.record.uri.clone());
            let Some(oldest) = oldest else { return };
            self.remove(&new.aor, |binding| binding.record.uri == oldest, core);
        }
    }

    /// Expiry and keepalives.
    pub(crate) fn tick(&mut self, core: &mut Core) {
        let now = core.now.monotonic;
        let mut looked = 0;
        while looked < AT_ONCE
            && let Some(aor) = self.agenda.pop(now)
        {
            looked = usize::saturating_add(looked, 1);
            self.remove(&aor, |binding| binding.expires <= now, core);
            let bindings = self.aors.get_mut(&aor).map(Vec::as_mut_slice).unwrap_or_default();
            for binding in bindings.iter_mut().filter(|binding| binding.due() <= now) {
                binding.keep_alive(core);
            }
            if let Some(due) = bindings.iter().map(Binding::due).min() {
                self.agenda.note(&aor, due);
            }
        }
        core.schedule(if looked == AT_ONCE { SOON } else { TICK }, TimerKey::Registrar);
    }
}

/// Where a phone that was registered over a connection is reached without it.
fn way_back(record: &BindingRecord, core: &Core) -> Option<Flow> {
    if is_outbound(record) {
        return None;
    }
    crate::hop::without_connection(record.uri.as_bytes(), &record.flow, &core.config)
}

fn contact_of(record: &BindingRecord) -> Contact {
    Contact {
        realm: record.realm,
        flow: record.flow,
        uri: Bytes::copy_from_slice(record.uri.as_bytes()),
        path: record.path.iter().map(|path| Bytes::copy_from_slice(path.as_bytes())).collect(),
        q: record.q,
        aor: Some(record.aor.clone()),
    }
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
            .finish()
            .into(),
    )
}
