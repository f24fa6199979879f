//! Registrations in every order: phones connect, register, lose their connections, are called, and are hung up on, beside
//! a stranger who knows their names. A model says who can be reached: whoever can is found, in calls to come and in those
//! that run, and nothing of an AOR goes anywhere but to its own phones.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use play::echo;
use play::policy::{Table, to};
use play::settings::signalling::{self as settings, DOMAIN, SBC, an_hour, flow, listener, two_realms};
use sip_engine::Engine;
use sip_engine::config::{Authentication, Config, RegistrarMode};
use sip_engine::digest::{Algorithm, Login, answer};
use sip_engine::ids::Ids;
use sip_engine::io::{Command, ConnectionId, Flow, Input, ListenerId, Output, Transport};
use sip_engine::time::Now;
use sip_wire::{Message, Method, Name};

const PASSWORD: &str = "open sesame";
/// Steps of one input.
const STEPS: usize = 120;
/// What a REGISTER asks for.
const LIFE: Duration = Duration::from_secs(600);

/// Telephones that register with us, over UDP and TCP, and a carrier that is known by its address.
fn config() -> Config {
    let mut config = two_realms();
    let [access, core] = config.realms.as_mut_slice() else { unreachable!("two realms") };
    access.registrar = RegistrarMode::Local(an_hour(Duration::from_secs(30)));
    access.authentication = Authentication::Digest;
    core.authentication = Authentication::KnownSource;
    config.listeners.insert(1, listener(0, Transport::Tcp, at(SBC[0])));
    config
}

/// Everybody who knows the password is a subscriber.
fn users() -> Table {
    let table = Table::new(|question| Ok(to(question.user))).password(PASSWORD, &[Algorithm::Md5]);
    table.sources(|_, _, _| Some("carrier".into()))
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A call of the carrier that a phone has taken.
struct Running {
    call_id: String,
    to: String,
}

struct Phone {
    user: &'static str,
    /// Its address as the SBC sees it, without its port.
    public: IpAddr,
    transport: Transport,
    /// What its Contact names; `None`: the port that it sends from, at a private address.
    listens: Option<SocketAddr>,
    instance: Option<&'static str>,
    call_id: String,
    cseq: u32,
    port: u16,
    connection: Option<ConnectionId>,
    /// Connections that it has forgotten and the SBC has not.
    old: VecDeque<ConnectionId>,
    /// How it registered last, and until when that counts.
    registered: Option<(Flow, Duration)>,
    running: Option<Running>,
}

impl Phone {
    fn flow(&self) -> Option<Flow> {
        let remote = SocketAddr::new(self.public, self.port);
        match self.transport {
            Transport::Udp => Some(flow(ListenerId(0), remote)),
            _ => Some(Flow {
                listener: ListenerId(1),
                transport: Transport::Tcp,
                remote,
                connection: Some(self.connection?),
            }),
        }
    }

    fn contact(&self) -> String {
        let transport = if self.transport == Transport::Tcp { ";transport=tcp" } else { "" };
        let host = match self.listens {
            Some(listens) => listens.to_string(),
            None if self.transport == Transport::Udp => "10.0.0.4:5060".to_owned(),
            // One that speaks RFC 5626 may well have an address that all reach.
            None if self.instance.is_some() => SocketAddr::new(self.public, self.port).to_string(),
            None => format!("10.0.0.9:{}", self.port),
        };
        let uri = format!("<sip:{}@{host}{transport}>", self.user);
        match self.instance {
            Some(instance) => format!("{uri};+sip.instance=\"<urn:uuid:{instance}>\";reg-id=1"),
            None => uri,
        }
    }

    /// Where it must be found, if anywhere.
    fn reached_at(&self, now: Duration) -> Option<(SocketAddr, Option<ConnectionId>)> {
        let (flow, until) = self.registered.filter(|(_, until)| *until > now)?;
        let is_open = |connection| self.connection == Some(connection) || self.old.contains(&connection);
        match flow.connection {
            None => Some((flow.remote, None)),
            Some(connection) if is_open(connection) => Some((flow.remote, Some(connection))),
            Some(_) => self.listens.map(|listens| (listens, None)).filter(|_| until > now),
        }
    }
}

struct World {
    engine: Engine,
    now: Duration,
    ids: Ids,
    phones: Vec<Phone>,
    sent: Vec<(Flow, Message)>,
    next: u64,
}

/// Reads steps from `bytes` and takes them.
pub fn registrar(bytes: &[u8]) {
    let mut world = World::new();
    let mut bytes = bytes.iter().copied();
    for _ in 0..STEPS {
        let (Some(step), Some(argument)) = (bytes.next(), bytes.next()) else { return };
        world.step(step % 10, argument);
    }
}

impl World {
    fn new() -> Self {
        let phone = |user, last: u8, transport| Phone {
            user,
            public: IpAddr::from([203, 0, 113, last]),
            transport,
            listens: None,
            instance: None,
            call_id: format!("register-{last}"),
            cseq: 0,
            port: 40_000,
            connection: None,
            old: VecDeque::new(),
            registered: None,
            running: None,
        };
        let phones = vec![
            Phone {
                instance: Some("00000000-0000-1000-8000-000a95a0e128"),
                ..phone("alice", 1, Transport::Tcp)
            },
            phone("alice", 2, Transport::Tcp),
            Phone { listens: Some(at("203.0.113.3:5060")), ..phone("bob", 3, Transport::Tcp) },
            phone("bob", 4, Transport::Udp),
        ];
        let mut world = Self {
            engine: Engine::new(Arc::new(config()), [3; 32]),
            now: Duration::from_secs(100),
            ids: Ids::new([5; 32], 9),
            phones,
            sent: Vec::new(),
            next: 0,
        };
        world.input(Input::Command(Command::Policy(Arc::new(users()))));
        world
    }

    fn time(&self) -> Now {
        settings::at(self.now)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn input(&mut self, input: Input) {
        let now = self.time();
        self.engine.handle(input, now);
        self.collect();
    }

    fn collect(&mut self) {
        let now = self.time();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { flow, message, .. } => {
                    self.sent.push((flow, Message::parse(message).expect("what is sent can be read")));
                }
                Output::Media(request) => echo::reply(&mut self.engine, request, now),
                _ => {}
            }
        }
    }

    fn hear(&mut self, flow: Flow, text: String) {
        let message = Message::parse(text.into()).expect("what the model writes can be read");
        self.input(Input::Received { flow, message });
    }

    fn carrier() -> Flow {
        flow(ListenerId(2), at("198.51.100.9:5060"))
    }

    fn step(&mut self, step: u8, argument: u8) {
        self.sent.clear();
        let index = usize::from(argument) % self.phones.len();
        match step {
            0 => self.connect(index),
            1 => {
                let gone = self.phones.get_mut(index).and_then(|phone| phone.connection.take());
                gone.into_iter().for_each(|connection| self.input(Input::Closed { connection }));
            }
            2 => {
                let gone = self.phones.get_mut(index).and_then(|phone| phone.old.pop_front());
                gone.into_iter().for_each(|connection| self.input(Input::Closed { connection }));
            }
            3 => self.register(index, true),
            4 => self.register(index, false),
            5 => self.call(index, argument >= 128),
            6 => self.hang_up(index),
            7 => self.pass(Duration::from_secs(u64::from(argument))),
            8 => self.claim(index),
            _ => self.phone_hangs_up(index),
        }
    }

    fn connect(&mut self, index: usize) {
        let number = self.number();
        let Some(phone) = self.phones.get_mut(index) else { return };
        phone.port = 40_000 + (number % 20_000) as u16;
        if phone.transport == Transport::Tcp {
            phone.old.extend(phone.connection.replace(ConnectionId(number)));
        }
    }

    /// REGISTER and its digest; returns the final status.
    fn register_over(&mut self, flow: Flow, register: &str, user: &str, password: &str) -> Option<u16> {
        let number = self.number();
        let first = register.replace("BRANCH", &format!("z9hG4bK-r{number}a"));
        self.hear(flow, first);
        let challenge = self.sent.iter().rfind(|(_, message)| message.status() == Some(401))?.1.clone();
        let uri = format!("sip:{DOMAIN}");
        let (name, value) = answer(
            &challenge,
            Method::REGISTER,
            uri.as_bytes(),
            Login { username: user, password },
            &mut self.ids,
        )?;
        let second = register
            .replace("BRANCH", &format!("z9hG4bK-r{number}b"))
            .replace("Expires:", &format!("{}: {value}\r\nExpires:", name.as_str()));
        self.hear(flow, second);
        self.sent.iter().rev().find_map(|(_, message)| message.status())
    }

    fn register(&mut self, index: usize, stays: bool) {
        let now = self.now;
        let Some(phone) = self.phones.get_mut(index) else { return };
        let Some(flow) = phone.flow() else { return };
        phone.cseq += 1;
        let (user, cseq, call_id, contact) = (phone.user, phone.cseq, phone.call_id.clone(), phone.contact());
        let transport = flow.transport.via_token();
        let expires = if stays { LIFE.as_secs() } else { 0 };
        let register = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/{transport} 10.0.0.9:5060;branch=BRANCH;rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@{DOMAIN}>;tag=r{cseq}\r\nTo: <sip:{user}@{DOMAIN}>\r\nCall-ID: {call_id}\r\nCSeq: {cseq} REGISTER\r\n\
             Contact: {contact}\r\nSupported: path, outbound\r\nExpires: {expires}\r\nContent-Length: 0\r\n\r\n"
        );
        // A phone that repeats a REGISTER with credentials counts on; here each has its own number before it is sent.
        let status = self.register_over(flow, &register, user, PASSWORD);
        assert_eq!(status, Some(200), "a phone with its password registers");
        if let Some(phone) = self.phones.get_mut(index) {
            phone.registered = stays.then_some((flow, now + LIFE));
        }
    }

    /// Somebody who knows the name and not the password.
    fn claim(&mut self, index: usize) {
        let Some(user) = self.phones.get(index).map(|phone| phone.user) else { return };
        let number = self.number();
        let flow = flow(ListenerId(0), at("203.0.113.66:5060"));
        let register = format!(
            "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66:5060;branch=BRANCH;rport\r\nMax-Forwards: 70\r\n\
             From: <sip:{user}@{DOMAIN}>;tag=s\r\nTo: <sip:{user}@{DOMAIN}>\r\nCall-ID: register-{}\r\nCSeq: {} REGISTER\r\n\
             Contact: <sip:{user}@203.0.113.66>\r\nExpires: 600\r\nContent-Length: 0\r\n\r\n",
            index + 1,
            1_000_000 + number
        );
        let status = self.register_over(flow, &register, user, "guessed");
        assert_ne!(status, Some(200), "without the password nobody registers");
    }

    /// The carrier calls an AOR: all of its phones that can be reached ring, and nobody else.
    fn call(&mut self, index: usize, is_answered: bool) {
        let number = self.number();
        let Some(user) = self.phones.get(index).map(|phone| phone.user) else { return };
        let sdp = "v=0\r\no=- 1 1 IN IP4 198.51.100.9\r\ns=-\r\nc=IN IP4 198.51.100.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
        let invite = format!(
            "INVITE sip:{user}@{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK-c{number}\r\nMax-Forwards: 70\r\n\
             From: <sip:4930@{DOMAIN}>;tag=c{number}\r\nTo: <sip:{user}@{DOMAIN}>\r\nCall-ID: call-{number}\r\nCSeq: 1 INVITE\r\n\
             Contact: <sip:4930@198.51.100.9>\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            sdp.len()
        );
        self.hear(Self::carrier(), invite.clone());
        let rung: Vec<(Flow, Message)> = self
            .sent
            .iter()
            .filter(|(_, message)| message.method() == Some(Method::INVITE))
            .cloned()
            .collect();
        for phone in self.phones.iter().filter(|phone| phone.user == user) {
            let Some((remote, connection)) = phone.reached_at(self.now) else { continue };
            let is_found =
                rung.iter().any(|(flow, _)| flow.remote == remote && flow.connection == connection);
            assert!(
                is_found,
                "{user} can be reached at {remote} over {connection:?} and was not rung: {rung:?}"
            );
        }
        for (flow, _) in &rung {
            let is_own =
                self.phones.iter().any(|phone| phone.user == user && phone.public == flow.remote.ip());
            assert!(is_own, "a call to {user} went to {}", flow.remote);
        }
        let now = self.now;
        let taken =
            self.phones.get(index).filter(|phone| is_answered && phone.running.is_none()).and_then(|phone| {
                let (remote, connection) = phone.reached_at(now)?;
                rung.iter().find(|(flow, _)| flow.remote == remote && flow.connection == connection)
            });
        let Some((flow, rings)) = taken.cloned() else {
            self.sent.clear();
            self.hear(Self::carrier(), follower(&invite, "CANCEL"));
            return;
        };
        let contact = self.phones.get(index).map(Phone::contact).unwrap_or_default();
        let header =
            |name: Name| format!("{}: {}\r\n", name.as_str(), text(rings.value(name).unwrap_or_default()));
        let same: String = [Name::Via, Name::From, Name::CallId, Name::CSeq].map(header).concat();
        let ok = format!(
            "SIP/2.0 200 OK\r\n{same}To: {};tag=p{number}\r\nContact: {contact}\r\n\
             Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
            text(rings.value(Name::To).unwrap_or_default()),
            sdp.len()
        );
        let flow = Flow { connection: flow.connection, ..flow };
        self.sent.clear();
        self.hear(flow, ok);
        let answered = self
            .sent
            .iter()
            .find(|(flow, message)| flow.remote == Self::carrier().remote && message.status() == Some(200));
        let to =
            text(answered.expect("the carrier hears of the answer").1.value(Name::To).unwrap_or_default());
        let running = Running { call_id: format!("call-{number}"), to };
        let ack = in_dialog(&running, number, 1, "ACK");
        self.hear(Self::carrier(), ack);
        if let Some(phone) = self.phones.get_mut(index) {
            phone.running = Some(running);
        }
    }

    /// The carrier hangs up: the phone hears of it wherever it can be reached now.
    fn hang_up(&mut self, index: usize) {
        let Some(running) = self.phones.get_mut(index).and_then(|phone| phone.running.take()) else { return };
        let number =
            running.call_id.strip_prefix("call-").and_then(|number| number.parse().ok()).unwrap_or(0);
        let bye = in_dialog(&running, number, 2, "BYE");
        self.hear(Self::carrier(), bye);
        let Some(phone) = self.phones.get(index) else { return };
        let Some((remote, connection)) = phone.reached_at(self.now) else { return };
        let told: Vec<&Flow> = self
            .sent
            .iter()
            .filter(|(_, message)| message.method() == Some(Method::BYE))
            .map(|(flow, _)| flow)
            .collect();
        let is_told = told.iter().any(|flow| flow.remote == remote && flow.connection == connection);
        assert!(is_told, "the end of the call must reach {remote} over {connection:?}: {told:?}");
    }

    fn phone_hangs_up(&mut self, index: usize) {
        if let Some(phone) = self.phones.get_mut(index) {
            // It forgets its call: the far end's BYE will find nobody, and need not.
            phone.running = None;
        }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.engine.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            let now = self.time();
            self.engine.handle_timeout(now);
            self.collect();
        }
        self.now = end;
    }
}

/// CANCEL of an INVITE.
fn follower(invite: &str, method: &str) -> String {
    let head = invite.split("\r\n\r\n").next().unwrap_or_default();
    let lines =
        head.lines().filter(|line| !["Contact:", "Content-"].iter().any(|start| line.starts_with(start)));
    let lines: Vec<String> = lines.map(|line| line.replace("INVITE", method)).collect();
    format!("{}\r\nContent-Length: 0\r\n\r\n", lines.join("\r\n"))
}

fn in_dialog(running: &Running, number: u64, cseq: u32, method: &str) -> String {
    format!(
        "{method} sip:198.51.100.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 198.51.100.9:5060;branch=z9hG4bK-d{number}{method}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:4930@{DOMAIN}>;tag=c{number}\r\nTo: {}\r\nCall-ID: {}\r\nCSeq: {cseq} {method}\r\n\
         Content-Length: 0\r\n\r\n",
        running.to, running.call_id
    )
}
