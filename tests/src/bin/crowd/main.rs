//! Many phones on one host, as light as they can be: one user agent with many calls that send G.711 and reports, and do with
//! re-INVITEs what they are told. It keeps to what linphone does when its media is moved.
//!
//! `crowd ADDRESS USER SBC CALLS-PER-SECOND MOVES`. It registers USER with the password "secret" at SBC. MOVES is how its calls take a
//! re-INVITE, in turn: `follow`, a status to refuse with, or `nothing` (they do not answer), parted by commas. Commands: `dial USER COUNT`,
//! `report`, `hangup`; what happens is told in lines of JSON.
#![allow(clippy::print_stdout, reason = "a program of the laboratory speaks to its log")]

mod talk;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{BufRead, Result};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sip_engine::config::{Listener, TimerValues};
use sip_engine::io::RealmId;
use sip_engine::io::{Flow, Input, ListenerId, Output, Transport};
use sip_engine::question::TrunkCredentials;
use sip_engine::time::Now;
use sip_engine::ua::{Abilities, Account, CallNumber, Event, Fork, Invite, REGISTRATION, UserAgent};
use sip_wire::Message;

use talk::{Talk, Target};

/// All calls' media leaves from one port: the relay tells them by its own.
const MEDIA_PORT: u16 = 4000;
const SIP_PORT: u16 = 5060;
/// What the kernel may hold for us while we do something else.
const BUFFER: usize = 16 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Move {
    Follow,
    Refuse(u16),
    Ignore,
}

struct Call {
    talk: Talk,
    r#move: Move,
    version: u32,
}

struct Crowd {
    started: Instant,
    address: IpAddr,
    domain: String,
    agent: UserAgent,
    signalling: UdpSocket,
    media: UdpSocket,
    reports: UdpSocket,
    calls: BTreeMap<CallNumber, Call>,
    moves: Vec<Move>,
    /// Whose media a source, or a stream that came from one, is.
    sources: HashMap<SocketAddr, CallNumber>,
    streams: HashMap<u32, CallNumber>,
    /// Call-IDs whose re-INVITEs are not heard.
    deaf: HashSet<Bytes>,
    to_dial: Option<(String, u32)>,
    rate: u32,
    dial_due: Duration,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Counts {
    ended: u32,
    refused: u32,
    ignored: u32,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [address, user, sbc, rate, moves] => Crowd::new(address, user, sbc, rate, moves).and_then(Crowd::run),
        _ => Err(wrong("usage: crowd ADDRESS USER SBC CALLS-PER-SECOND MOVES")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("crowd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn wrong(what: &str) -> std::io::Error {
    std::io::Error::other(what.to_owned())
}

fn moves(text: &str) -> Option<Vec<Move>> {
    let one = |word: &str| match word {
        "follow" => Some(Move::Follow),
        "nothing" => Some(Move::Ignore),
        status => status.parse().ok().map(Move::Refuse),
    };
    text.split(',').map(one).collect()
}

impl Crowd {
    fn new(address: &str, user: &str, sbc: &str, rate: &str, how: &str) -> Result<Self> {
        let number = |_| wrong("not an address, or not a number");
        let address: IpAddr = address.parse().map_err(|_| wrong("ADDRESS is none"))?;
        let registrar = SocketAddr::new(sbc.parse().map_err(|_| wrong("SBC is no address"))?, SIP_PORT);
        let local = SocketAddr::new(address, SIP_PORT);
        let account = Account {
            aor: format!("sip:{user}@{sbc}").into(),
            display: None,
            credentials: Some(TrunkCredentials { username: user.into(), password: "secret".into() }),
            listeners: vec![Listener {
                realm: RealmId(0),
                transport: Transport::Udp,
                address: local,
                advertised: local,
                datagram_limit: 65_000,
            }],
            proxy: Flow {
                listener: ListenerId(0),
                transport: Transport::Udp,
                remote: registrar,
                connection: None,
            },
            instance: None,
            // What it does when it is moved is known by this name.
            product: Some("Linphone-like crowd".into()),
            timers: TimerValues::default(),
            session_timer: None,
            abilities: Abilities::default(),
            info_packages: Vec::new(),
        };
        let socket = |port| {
            let socket = UdpSocket::bind((address, port))?;
            socket.set_nonblocking(true)?;
            // Beyond what the system grants others: this takes the right that namespaces take too.
            let _ = rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER);
            Result::Ok(socket)
        };
        let mut seed = [0; 32];
        seed.iter_mut().zip(user.bytes()).for_each(|(seed, byte)| *seed = byte);
        Ok(Self {
            started: Instant::now(),
            address,
            domain: sbc.to_owned(),
            agent: UserAgent::new(account, seed),
            signalling: socket(SIP_PORT)?,
            media: socket(MEDIA_PORT)?,
            reports: socket(MEDIA_PORT + 1)?,
            calls: BTreeMap::new(),
            moves: moves(how).ok_or_else(|| wrong("MOVES: follow, nothing or a status"))?,
            sources: HashMap::new(),
            streams: HashMap::new(),
            deaf: HashSet::new(),
            to_dial: None,
            rate: rate.parse().map_err(number)?,
            dial_due: Duration::ZERO,
            counts: Counts::default(),
        })
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { monotonic: self.started.elapsed(), wall }
    }

    fn run(mut self) -> Result<()> {
        let (lines, commands) = channel();
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        self.agent.register(REGISTRATION, self.now());
        loop {
            self.listen()?;
            self.speak()?;
            self.signal()?;
            self.dial();
            self.obey(&commands);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Hears what has come.
    fn listen(&mut self) -> Result<()> {
        let mut buffer = [0; 2048];
        while let Ok((length, source)) = self.media.recv_from(&mut buffer) {
            let [0x80, _, high, low, _, _, _, _, a, b, c, d, ..] = buffer[..length] else { continue };
            let ssrc = u32::from_be_bytes([a, b, c, d]);
            // Directly all come from one address, but then the stream is known from the relay.
            let known = self.streams.get(&ssrc).or_else(|| self.sources.get(&source)).copied();
            let Some((number, call)) = known.and_then(|number| Some((number, self.calls.get_mut(&number)?)))
            else {
                continue;
            };
            self.streams.insert(ssrc, number);
            call.talk.hear(ssrc, u16::from_be_bytes([high, low]), self.started.elapsed());
        }
        // Reports are sent, not read: the other side's are the SBC's business.
        while self.reports.recv_from(&mut buffer).is_ok() {}
        Ok(())
    }

    /// Sends what is due.
    fn speak(&mut self) -> Result<()> {
        let now = self.now();
        for call in self.calls.values_mut() {
            while let Some((packet, to)) = call.talk.packet(now.monotonic) {
                // What the network refuses is lost, as elsewhere.
                let _ = self.media.send_to(&packet, to);
            }
            if let Some((report, to)) = call.talk.report(now.monotonic, now.wall) {
                let _ = self.reports.send_to(&report, to);
            }
        }
        Ok(())
    }

    /// SIP that has come, timers, and what follows from them.
    fn signal(&mut self) -> Result<()> {
        let mut buffer = [0; 65_535];
        while let Ok((length, remote)) = self.signalling.recv_from(&mut buffer) {
            let Ok(message) = Message::parse(Bytes::copy_from_slice(&buffer[..length])) else { continue };
            if self.is_deaf_to(&message) {
                self.counts.ignored += 1;
                continue;
            }
            let flow = Flow { listener: ListenerId(0), transport: Transport::Udp, remote, connection: None };
            self.agent.handle(Input::Received { flow, message }, self.now());
            self.settle()?;
        }
        if self.agent.poll_timeout().is_some_and(|due| due <= self.now().monotonic) {
            self.agent.handle_timeout(self.now());
        }
        self.settle()
    }

    fn is_deaf_to(&self, message: &Message) -> bool {
        let is_change = message.request_uri().is_some()
            && message.start_line().starts_with(b"INVITE ")
            && message.to().is_ok_and(|to| to.tag().is_some());
        is_change && message.call_id().is_ok_and(|id| self.deaf.contains(id))
    }

    fn settle(&mut self) -> Result<()> {
        loop {
            while let Some(output) = self.agent.poll_output() {
                if let Output::Send { flow, message, .. } = output {
                    let _ = self.signalling.send_to(&message, flow.remote);
                }
            }
            let Some(event) = self.agent.poll_event() else { return Ok(()) };
            self.event(event);
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Registered { .. } => println!("{{\"event\":\"registered\"}}"),
            Event::Incoming { call, offer: Some(offer), invite, .. } => {
                self.begin(call);
                if self.calls.get(&call).is_some_and(|call| call.r#move == Move::Ignore)
                    && let Ok(id) = invite.call_id()
                {
                    self.deaf.insert(Bytes::copy_from_slice(id));
                }
                self.aim(call, &offer);
                let sdp = self.describe(call, &offer);
                let _ = self.agent.accept(call, Some(sdp), now);
            }
            Event::Answered { call, sdp, .. } => self.aim(call, &sdp),
            Event::Offered { call, fork, sdp, .. } => self.changed(call, fork, &sdp, now),
            Event::Ended { call, .. } => {
                self.counts.ended += 1;
                self.calls.remove(&call);
                self.streams.retain(|_, known| *known != call);
                self.sources.retain(|_, known| *known != call);
            }
            _ => {}
        }
    }

    fn begin(&mut self, number: CallNumber) {
        let index = self.calls.len();
        let r#move = self.moves[index % self.moves.len()];
        // Unlike any of the other side's.
        let IpAddr::V4(address) = self.address else { return };
        let ssrc = u32::from(address.octets()[3]) << 24 | number.0;
        let talk = Talk::new(ssrc, self.now().monotonic);
        self.calls.insert(number, Call { talk, r#move, version: 1 });
    }

    fn aim(&mut self, number: CallNumber, sdp: &[u8]) {
        let now = self.now().monotonic;
        let (Some(target), Some(call)) = (Target::read(sdp), self.calls.get_mut(&number)) else { return };
        call.talk.aim(target, now);
        self.sources.insert(target.media, number);
    }

    fn changed(&mut self, number: CallNumber, fork: Fork, sdp: &[u8], now: Now) {
        let Some(call) = self.calls.get(&number) else { return };
        if let Move::Refuse(status) = call.r#move {
            self.counts.refused += 1;
            let _ = self.agent.refuse_offer(number, fork, status, now);
            return;
        }
        self.aim(number, sdp);
        let sdp = self.describe(number, sdp);
        let _ = self.agent.answer(number, fork, sdp, now);
    }

    /// Our side of a call, as it goes with what the other side offers.
    fn describe(&mut self, number: CallNumber, offer: &[u8]) -> Bytes {
        let is_inactive = memchr::memmem::find(offer, b"a=inactive").is_some();
        let direction = if is_inactive { "inactive" } else { "sendrecv" };
        let version = self.calls.get_mut(&number).map_or(0, |call| {
            call.version += 1;
            call.version
        });
        let (address, id) = (self.address, number.0);
        format!(
            "v=0\r\no=- {id} {version} IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n\
             m=audio {MEDIA_PORT} RTP/AVP 0\r\na={direction}\r\n"
        )
        .into()
    }

    fn dial(&mut self) {
        let now = self.now();
        let Some((user, count)) = &mut self.to_dial else { return };
        if *count == 0 || now.monotonic < self.dial_due {
            return;
        }
        *count -= 1;
        self.dial_due = now.monotonic + Duration::from_secs(1) / self.rate.max(1);
        let target = format!("sip:{user}@{}", self.domain);
        let offer = self.describe(CallNumber(0), b"");
        let invite = Invite { offer: Some(offer), ..Invite::default() };
        let call = self.agent.call(target.as_bytes(), invite, now);
        self.begin(call);
    }

    fn obey(&mut self, commands: &Receiver<String>) {
        let Ok(line) = commands.try_recv() else { return };
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["dial", user, count] => {
                self.to_dial = count.parse().ok().map(|count| ((*user).to_owned(), count))
            }
            ["report"] => self.tell(),
            ["hangup"] => {
                let numbers: Vec<CallNumber> = self.calls.keys().copied().collect();
                for number in numbers {
                    let _ = self.agent.hang_up(number, self.now());
                }
            }
            _ => println!("no such command: {line}"),
        }
    }

    /// All that the calls are now, and the longest that any was silent since the last report.
    fn tell(&mut self) {
        let now = self.started.elapsed();
        let mut longest = Duration::ZERO;
        let (mut hearing, mut away) = (0, 0);
        for call in self.calls.values_mut() {
            if let Some(heard) = &mut call.talk.heard {
                longest = longest.max(heard.longest).max(now - heard.last);
                hearing += u32::from(now - heard.last < Duration::from_millis(500));
                heard.longest = Duration::ZERO;
            }
            let target = call.talk.target;
            // The SBC's ports are others.
            away += u32::from(target.is_some_and(|target| target.media.port() == MEDIA_PORT));
        }
        let Counts { ended, refused, ignored } = self.counts;
        println!(
            "{{\"event\":\"report\",\"calls\":{},\"hearing\":{hearing},\"away\":{away},\"ended\":{ended},\"refused\":{refused},\
             \"ignored\":{ignored},\"longest_ms\":{}}}",
            self.calls.len(),
            longest.as_millis()
        );
    }
}
