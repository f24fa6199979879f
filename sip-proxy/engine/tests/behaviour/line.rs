//! An engine between user agents, on a network without faults: what leaves one end arrives at once at the other.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use play::handover::Origin;
use play::policy::Table;
pub(crate) use play::settings::signalling::{ACCESS, CORE, DOMAIN, sbc};
use play::settings::signalling::{account, an_hour, at, two_realms};
use seam::{
    Action, Described, Endpoint, Refusal, Renegotiated, Replied, Reply, Request, StreamStatistics, Summary,
};
use sip_engine::Engine;
use sip_engine::config::{Authentication, Config, IdentityPolicy, RegistrarMode};
use sip_engine::digest::Algorithm;
use sip_engine::door::CallAnswered;
use sip_engine::event::{CallEvent, CallEventKind, EndCause};
use sip_engine::io::{Command, ConnectionId, Flow, Input, ListenerId, Notice, Output, RealmId, Transport};
use sip_engine::question::{TrunkCredentials, TrunkTarget};
use sip_engine::registrar::{BindingChange, BindingRecord};
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, CallNumber, Event, Invite, UserAgent};
use sip_wire::{Message, Method, Name};

pub(crate) const SDP: Bytes =
    Bytes::from_static(b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 RTP/AVP 0\r\n");
/// The info package that the telephones take.
pub(crate) const PACKAGE: &str = "trickle-ice";
pub(crate) const TWO: [(&str, &str); 2] = [("alice", "10.0.0.5:5060"), ("bob", "10.0.0.6:5060")];
pub(crate) const THREE: [(&str, &str); 3] = [TWO[0], TWO[1], ("carol", "10.0.0.7:5060")];
pub(crate) const PASSWORD: &str = "open sesame";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Two realms: phones that register with a password, and trunks known by address.
pub(crate) fn config() -> Config {
    let mut config = two_realms();
    for realm in &mut config.realms {
        realm.authentication = Authentication::KnownSource;
        realm.digest.algorithms = ALGORITHMS.to_vec();
        realm.identity = IdentityPolicy::Refuse;
    }
    config.realms[0].registrar = RegistrarMode::Local(an_hour(Duration::from_secs(30)));
    config.realms[0].authentication = Authentication::Digest;
    config.realms[1].trusted = true;
    config
}

const ALGORITHMS: &[Algorithm] = &[Algorithm::Sha256, Algorithm::Md5];

/// Subscribers with one password; whatever starts with a digit goes to the trunks, in order.
pub(crate) fn policy(trunks: Vec<Arc<TrunkTarget>>) -> Table {
    let table = Table::dialled(trunks).password(PASSWORD, ALGORITHMS);
    table.sources(|realm, _, _| (realm == RealmId(1)).then(|| "carrier".into()))
}

pub(crate) fn trunk(name: &str, host: &str, ping: Option<Duration>) -> Arc<TrunkTarget> {
    Arc::new(TrunkTarget { ping, ..play::policy::trunk(name, host) })
}

/// A stream that media has counted.
fn counted() -> StreamStatistics {
    StreamStatistics {
        endpoint: Endpoint { party: 0, branch: 0 },
        stream: 0,
        kind: "audio".into(),
        codec: "PCMU".into(),
        packets: 250,
        octets: 43_000,
        lost: 1,
        strangers: 0,
        jitter_ms: 2.5,
        rtt_ms: None,
        mos: None,
        whole: None,
        dtmf: 0,
        direct: None,
    }
}

/// How a phone takes an offer in mid-call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Refuses(u16),
    Dawdles,
}

/// What an engine's process has, and the next one gets.
pub(crate) struct Process {
    /// Of the engine's clock.
    pub(crate) origin: Origin,
    pub(crate) config: Arc<Config>,
    /// The rows of bindings, by AOR and Contact.
    pub(crate) bindings: BTreeMap<(Arc<str>, String), BindingRecord>,
}

pub(crate) struct Line {
    pub(crate) now: Duration,
    pub(crate) engine: Engine,
    pub(crate) process: Process,
    pub(crate) policy: Arc<Table>,
    pub(crate) agents: BTreeMap<SocketAddr, UserAgent>,
    /// Addresses that nothing reaches and nothing leaves.
    pub(crate) cut: Vec<SocketAddr>,
    pub(crate) events: Vec<(SocketAddr, Event)>,
    pub(crate) records: Vec<CallEvent>,
    /// What the engine sent where.
    pub(crate) sent: Vec<(SocketAddr, Message)>,
    /// What the engine wanted counted.
    pub(crate) notices: Vec<Notice>,
    /// The ways that these took.
    pub(crate) ways: Vec<Flow>,
    /// Addresses that nothing reaches, but that are heard.
    pub(crate) deaf: Vec<SocketAddr>,
    /// How a phone takes a change of its session; one that is not here takes it.
    pub(crate) temper: BTreeMap<SocketAddr, Temper>,
    /// What came to the engine from where.
    pub(crate) heard: Vec<(SocketAddr, Message)>,
    added: u32,
    /// Connections of phones, by their public addresses; all others speak over UDP.
    pub(crate) connections: BTreeMap<SocketAddr, ConnectionId>,
    /// The public addresses of phones behind a NAT.
    nats: BTreeMap<SocketAddr, SocketAddr>,
    /// What media was asked and told, in order.
    pub(crate) media: Vec<Request>,
    /// How a phone is from its next answer on.
    pub(crate) next_temper: Option<(SocketAddr, Temper)>,
    /// What media shows of candidates.
    pub(crate) fragment: Option<Bytes>,
    /// Media refuses the next answer.
    pub(crate) refuses_answers: bool,
    /// What media makes of an offer that it has asked a phone for.
    pub(crate) answer: Option<Bytes>,
    /// What became of orders.
    pub(crate) answers: Vec<CallAnswered>,
    /// What media has counted, and whether it says nothing of it.
    pub(crate) counted: Vec<StreamStatistics>,
    pub(crate) is_media_silent: bool,
    /// Requests of this method never arrive.
    pub(crate) loses: Option<Method<'static>>,
    under_way: VecDeque<(SocketAddr, SocketAddr, Bytes)>,
}

impl Line {
    pub(crate) fn new(config: Config, policy: Table) -> Self {
        let config = Arc::new(config);
        let mut line = Self {
            now: Duration::from_secs(100),
            engine: Engine::new(config.clone(), [7; 32]),
            process: Process { origin: Origin::default(), config, bindings: BTreeMap::new() },
            policy: Arc::new(policy),
            agents: BTreeMap::new(),
            cut: Vec::new(),
            events: Vec::new(),
            records: Vec::new(),
            sent: Vec::new(),
            notices: Vec::new(),
            ways: Vec::new(),
            deaf: Vec::new(),
            temper: BTreeMap::new(),
            heard: Vec::new(),
            connections: BTreeMap::new(),
            nats: BTreeMap::new(),
            added: 0,
            media: Vec::new(),
            next_temper: None,
            fragment: None,
            refuses_answers: false,
            answer: None,
            answers: Vec::new(),
            counted: vec![counted()],
            is_media_silent: false,
            loses: None,
            under_way: VecDeque::new(),
        };
        line.tell(Input::Command(Command::Policy(line.policy.clone())));
        line.settle();
        line
    }

    /// With telephones that have registered, nothing for trunks.
    pub(crate) fn joined<const N: usize>(
        config: Config,
        phones: [(&str, &str); N],
    ) -> (Self, [SocketAddr; N]) {
        Self::joined_by(config, phones, Abilities::default())
    }

    /// The same, of telephones that can do so much.
    pub(crate) fn joined_by<const N: usize>(
        config: Config,
        phones: [(&str, &str); N],
        abilities: Abilities,
    ) -> (Self, [SocketAddr; N]) {
        let mut line = Self::new(config, policy(Vec::new()));
        let phones = phones.map(|(user, at)| line.add(user, at, ACCESS, abilities));
        phones.into_iter().for_each(|phone| line.register(phone));
        (line, phones)
    }

    pub(crate) fn time(&self) -> Now {
        at(self.now)
    }

    /// As the engine's process has it.
    pub(crate) fn engine_time(&self) -> Now {
        Now { monotonic: self.process.origin.shows(self.now), ..at(self.now) }
    }

    pub(crate) fn tell(&mut self, input: Input) {
        let now = self.engine_time();
        self.engine.handle(input, now);
    }

    /// A telephone at an address, on one side.
    pub(crate) fn add(&mut self, user: &str, at: &str, side: ListenerId, abilities: Abilities) -> SocketAddr {
        self.start(user, at, side, abilities, None)
    }

    /// A telephone of the access side that has registered.
    pub(crate) fn join(&mut self, user: &str, at: &str) -> SocketAddr {
        let phone = self.add(user, at, ACCESS, Abilities::default());
        self.register(phone);
        phone
    }

    /// A telephone that names its instance (RFC 5626), an access phone's. One that was there has been restarted.
    pub(crate) fn add_instance(&mut self, user: &str, at: &str, instance: &str) -> SocketAddr {
        self.start(user, at, ACCESS, Abilities::default(), Some(instance))
    }

    fn start(
        &mut self,
        user: &str,
        at: &str,
        side: ListenerId,
        abilities: Abilities,
        instance: Option<&str>,
    ) -> SocketAddr {
        let own = address(at);
        let account = Account {
            credentials: Some(TrunkCredentials { username: user.into(), password: PASSWORD.into() }),
            instance: instance.map(Into::into),
            abilities,
            info_packages: vec![PACKAGE.into()],
            ..account(user, own, sbc(side))
        };
        // No two of them mint the same.
        self.added += 1;
        let mut seed = [self.added as u8; 32];
        seed[..4].copy_from_slice(&self.added.to_be_bytes());
        self.agents.insert(own, UserAgent::new(account, seed));
        own
    }

    /// A phone's NAT maps it to this address.
    pub(crate) fn behind_nat(&mut self, phone: SocketAddr, public: &str) {
        self.nats.insert(phone, address(public));
    }

    pub(crate) fn register(&mut self, phone: SocketAddr) {
        let now = self.time();
        self.agents.get_mut(&phone).unwrap().register(Duration::from_secs(3600), now);
        self.settle();
    }

    pub(crate) fn call(&mut self, phone: SocketAddr, user: &str, headers: &[(&str, &str)]) -> CallNumber {
        self.call_uri(phone, &format!("sip:{user}@{DOMAIN}"), headers)
    }

    pub(crate) fn call_uri(
        &mut self,
        phone: SocketAddr,
        target: &str,
        headers: &[(&str, &str)],
    ) -> CallNumber {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let invite = Invite { offer: Some(SDP), headers, ..Invite::default() };
        let now = self.time();
        let call = self.agents.get_mut(&phone).unwrap().call(target.as_bytes(), invite, now);
        self.settle();
        call
    }

    /// The call that came in last at a phone.
    pub(crate) fn incoming(&self, phone: SocketAddr) -> Option<(CallNumber, &Message)> {
        self.events.iter().rev().find_map(|(at, event)| match event {
            Event::Incoming { call, invite, .. } if *at == phone => Some((*call, &**invite)),
            _ => None,
        })
    }

    pub(crate) fn accept(&mut self, phone: SocketAddr) -> CallNumber {
        let call = self.incoming(phone).expect("a call").0;
        let now = self.time();
        self.agents.get_mut(&phone).unwrap().accept(call, Some(SDP), now).expect("to be asked");
        self.settle();
        call
    }

    /// How a phone's call ended; `None` if it did not.
    pub(crate) fn ending(&self, phone: SocketAddr, call: CallNumber) -> Option<sip_engine::ua::Ending> {
        self.events.iter().find_map(|(at, event)| match event {
            Event::Ended { call: ended, ending, .. } if (*at, *ended) == (phone, call) => Some(*ending),
            _ => None,
        })
    }

    pub(crate) fn cause(&self) -> Option<EndCause> {
        self.records.iter().find_map(|record| match &record.what {
            CallEventKind::Ended(ended) => Some(ended.cause),
            _ => None,
        })
    }

    /// Lets time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let agents = self.agents.values().filter_map(UserAgent::poll_timeout);
            let origin = self.process.origin;
            let engine = self.engine.poll_timeout().map(|next| origin.when(next));
            let next = agents.chain(engine).min().filter(|next| *next <= end);
            let Some(next) = next else { break };
            self.now = self.now.max(next);
            let now = self.time();
            let shown = self.engine_time();
            self.engine.handle_timeout(shown);
            for agent in self.agents.values_mut() {
                agent.handle_timeout(now);
            }
            self.settle();
        }
        self.now = end;
    }

    /// The engine gets a message of a phone.
    pub(crate) fn hear(&mut self, from: SocketAddr, bytes: Bytes) {
        self.hear_at(ACCESS, from, bytes);
    }

    pub(crate) fn hear_at(&mut self, side: ListenerId, from: SocketAddr, bytes: Bytes) {
        self.under_way.push_back((from, sbc(side), bytes));
        self.settle();
    }

    /// A target without a telephone answers the last INVITE that it got.
    pub(crate) fn answer_by_hand(&mut self, from: SocketAddr, status: u16, headers: &str) {
        self.answer_by_hand_tagged(from, status, ";tag=by-hand", headers);
    }

    pub(crate) fn answer_by_hand_tagged(&mut self, from: SocketAddr, status: u16, tag: &str, headers: &str) {
        self.answer_by_hand_in_full(from, status, tag, headers, b"");
    }

    pub(crate) fn answer_by_hand_from(
        &mut self,
        side: ListenerId,
        from: SocketAddr,
        status: u16,
        headers: &str,
    ) {
        let answer = self.by_hand(from, status, ";tag=by-hand", headers, b"");
        self.hear_at(side, from, answer);
    }

    pub(crate) fn answer_by_hand_with(&mut self, from: SocketAddr, status: u16, headers: &str, body: &[u8]) {
        self.answer_by_hand_in_full(from, status, ";tag=by-hand", headers, body);
    }

    pub(crate) fn answer_by_hand_in_full(
        &mut self,
        from: SocketAddr,
        status: u16,
        tag: &str,
        headers: &str,
        body: &[u8],
    ) {
        let answer = self.by_hand(from, status, tag, headers, body);
        self.hear_at(CORE, from, answer);
    }

    fn by_hand(&self, from: SocketAddr, status: u16, tag: &str, headers: &str, body: &[u8]) -> Bytes {
        let invite =
            self.sent.iter().rfind(|(to, message)| *to == from && message.method() == Some(Method::INVITE));
        let invite = &invite.expect("an INVITE").1;
        let header = |name: Name| {
            format!("{}: {}", name.as_str(), String::from_utf8_lossy(invite.value(name).unwrap_or_default()))
        };
        let same = [Name::Via, Name::From, Name::CallId, Name::CSeq].map(header).join("\r\n");
        let to = header(Name::To);
        let answer = format!(
            "SIP/2.0 {status} By Hand\r\n{same}\r\n{to}{tag}\r\n{headers}Content-Length: {}\r\n\r\n{}",
            body.len(),
            String::from_utf8_lossy(body)
        );
        answer.into()
    }

    fn is_closed(&self, flow: &Flow) -> bool {
        match flow.connection {
            Some(wanted) => self.connections.values().all(|open| *open != wanted),
            // Through a NAT nobody is connected to.
            None => {
                flow.transport.is_reliable()
                    && !self.connections.contains_key(&flow.remote)
                    && self.nats.values().any(|public| *public == flow.remote)
            }
        }
    }

    /// The connection of a public address is gone.
    pub(crate) fn close(&mut self, public: &str) {
        let connection = self.connections.remove(&address(public)).expect("a connection");
        self.tell(Input::Closed { connection });
        self.settle();
    }

    /// Delivers until nobody has anything to say.
    pub(crate) fn settle(&mut self) {
        loop {
            self.collect();
            let Some((from, to, bytes)) = self.under_way.pop_front() else { return };
            if self.cut.contains(&from) || self.cut.contains(&to) || self.deaf.contains(&to) {
                continue;
            }
            let message = Message::parse(bytes).expect("a readable message");
            if self.loses.is_some() && message.method() == self.loses {
                continue;
            }
            let from = self.nats.get(&from).copied().unwrap_or(from);
            let to = self.nats.iter().find(|nat| *nat.1 == to).map_or(to, |nat| *nat.0);
            let now = self.time();
            let listener = [ACCESS, CORE].into_iter().find(|listener| sbc(*listener) == to);
            let connection = self.connections.get(&from).copied();
            let transport = if connection.is_some() { Transport::Tcp } else { Transport::Udp };
            let flow = |listener| Flow {
                listener,
                transport: if listener == ACCESS { transport } else { Transport::Udp },
                remote: from,
                connection,
            };
            if let Some(listener) = listener {
                self.heard.push((from, message.clone()));
                self.tell(Input::Received { flow: flow(listener), message });
            } else if let Some(agent) = self.agents.get_mut(&to) {
                agent.handle(Input::Received { flow: flow(ListenerId(0)), message }, now);
            }
        }
    }

    fn collect(&mut self) {
        let now = self.time();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { flow, ticket, .. } if self.is_closed(&flow) => {
                    self.tell(Input::SendFailed { ticket });
                }
                Output::Send { flow, message, .. } => {
                    self.ways.push(flow);
                    let read = Message::parse(message.clone()).expect("a readable message");
                    play::stranger::reads(&read);
                    self.sent.push((flow.remote, read));
                    self.under_way.push_back((sbc(flow.listener), flow.remote, message));
                }
                Output::Record(record) => self.records.push(record),
                Output::Binding(BindingChange::Put(record)) => {
                    self.process.bindings.insert((record.aor.clone(), record.uri.clone()), *record);
                }
                Output::Binding(BindingChange::Delete { aor, uri }) => {
                    self.process.bindings.remove(&(aor, uri));
                }
                Output::Notice(notice) => self.notices.push(notice),
                Output::Answered(answer) => self.answers.push(answer),
                Output::Media(request) => {
                    self.media.push(request.clone());
                    // Descriptions pass as they are: signalling never looks into them.
                    let reply = match request.action {
                        Action::Renegotiated { outcome: Renegotiated::Offered { .. }, .. } => {
                            let Some(sdp) = self.answer.clone() else { continue };
                            Reply::Description(Ok(Described { sdp, summary: Summary::default() }))
                        }
                        Action::Answer { .. } if std::mem::take(&mut self.refuses_answers) => {
                            Reply::Description(Err(Refusal::NotAcceptable))
                        }
                        Action::Offer { sdp, .. } | Action::Answer { sdp, .. } => {
                            Reply::Description(Ok(Described { sdp, summary: Summary::default() }))
                        }
                        Action::Trickle { .. } => Reply::Fragment(self.fragment.clone()),
                        Action::Delete | Action::Query if self.is_media_silent => continue,
                        Action::Delete => Reply::Deleted { streams: Vec::new(), direct: Duration::ZERO },
                        Action::Query => Reply::Statistics(self.counted.clone()),
                        _ => continue,
                    };
                    let reply = Replied { session: request.session, number: request.number, reply };
                    self.tell(Input::Media(reply));
                }
                _ => {}
            }
        }
        for (own, agent) in &mut self.agents {
            while let Some(event) = agent.poll_event() {
                match (&event, self.temper.get(own)) {
                    (Event::Offered { call, fork, .. }, None) => {
                        agent.answer(*call, *fork, SDP, now).expect("its turn");
                        self.temper.extend(self.next_temper.take());
                    }
                    (Event::OfferWanted { call, fork }, None) => {
                        agent.offer(*call, *fork, SDP, now).expect("its turn");
                    }
                    (
                        Event::Offered { call, fork, .. } | Event::OfferWanted { call, fork },
                        Some(Temper::Refuses(status)),
                    ) => agent.refuse_offer(*call, *fork, *status, now).expect("its turn"),
                    _ => {}
                }
                self.events.push((*own, event));
            }
            while let Some(output) = agent.poll_output() {
                if let Output::Send { flow, message, .. } = output {
                    self.under_way.push_back((*own, flow.remote, message));
                }
            }
        }
    }
}
