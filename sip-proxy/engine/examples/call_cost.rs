//! Work for an instruction counter: `call_cost call TIMES` plays so many calls from trunk to trunk, INVITE to BYE, through an engine
//! alone. What one costs is the difference between two runs, divided by the difference of their TIMES (`bench/instructions.py`);
//! what the two trunks write is a small and constant part of it.
#![allow(clippy::expect_used, clippy::panic, reason = "a bench")]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use play::echo::{self, copied, find};
use play::policy::{Table, trunk};
use play::settings::signalling::{flow, listener, two_realms};
use sip_engine::Engine;
use sip_engine::config::{Authentication, Config, IdentityPolicy, Listener};
use sip_engine::digest::Algorithm;
use sip_engine::io::{Command, Input, ListenerId, Output, Transport};
use sip_engine::question::TrunkTarget;
use sip_engine::time::Now;
use sip_wire::Message;

const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const CALLER: (ListenerId, SocketAddr) = (ListenerId(0), at([192, 0, 2, 7]));
const ANSWERER: (ListenerId, SocketAddr) = (ListenerId(1), at([203, 0, 113, 12]));

const fn at(ip: [u8; 4]) -> SocketAddr {
    let [a, b, c, d] = ip;
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d)), 5060)
}

/// A trunk in each of two realms; whatever comes goes to the second's.
fn policy() -> Table {
    let answerer =
        TrunkTarget { transport: Some(Transport::Udp), ..trunk("answerer", &ANSWERER.1.ip().to_string()) };
    Table::through(&Arc::new(answerer)).sources(|_, address, _| {
        [CALLER, ANSWERER].iter().any(|known| known.1.ip() == address).then(|| "carrier".into())
    })
}

fn config() -> Config {
    let mut config = two_realms();
    for realm in &mut config.realms {
        realm.authentication = Authentication::KnownSource;
        realm.digest.algorithms = vec![Algorithm::Sha256];
        realm.identity = IdentityPolicy::Correct;
        (realm.trusted, realm.is_trunk_side) = (true, true);
    }
    let listener = |realm, ip| Listener { datagram_limit: 1300, ..listener(realm, Transport::Udp, at(ip)) };
    config.listeners = vec![listener(0, [192, 0, 2, 1]), listener(1, [203, 0, 113, 1])];
    config.product = Some("sbc".into());
    config
}

struct Bench {
    engine: Engine,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let now = Now { monotonic: Duration::from_secs(1), wall: Duration::from_secs(1_700_000_000) };
        let mut engine = Engine::new(config().into(), [7; 32]);
        engine.handle(Input::Command(Command::Policy(Arc::new(policy()))), now);
        Self { engine, now }
    }

    /// What the engine sends because of a message; media takes every description as it is.
    fn say(&mut self, (listener, remote): (ListenerId, SocketAddr), text: String) -> Vec<Bytes> {
        self.now.monotonic += Duration::from_millis(20);
        let message = Message::parse(text.into()).expect("a readable message");
        let flow = flow(listener, remote);
        self.engine.handle(Input::Received { flow, message }, self.now);
        let mut sent = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Send { message, .. } => sent.push(message),
                Output::Media(request) => echo::reply(&mut self.engine, request, self.now),
                _ => {}
            }
        }
        sent
    }

    fn call(&mut self, number: u32) {
        let (from, to) = (CALLER.1, ANSWERER.1);
        let head = |method: &str, tag: &str, cseq: u32| {
            format!(
                "{method} sip:4930123@192.0.2.1 SIP/2.0\r\n\
                 Via: SIP/2.0/UDP {from};rport;branch=z9hG4bK{number}{method}\r\n\
                 Max-Forwards: 70\r\nFrom: \"Alice\" <sip:4940456@{from}>;tag=f{number}\r\n\
                 To: <sip:4930123@192.0.2.1>{tag}\r\nCall-ID: c{number}@{from}\r\nCSeq: {cseq} {method}\r\n\
                 Contact: <sip:4940456@{from}>\r\nUser-Agent: trunk 1.0\r\nSupported: replaces\r\n\
                 Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE\r\n"
            )
        };
        let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
        let empty = "Content-Length: 0\r\n\r\n";
        let sent = self.say(CALLER, head("INVITE", "", 1) + &body);
        let invite = find(&sent, "INVITE ");
        let same = copied(&invite, &["Via", "From", "Call-ID", "CSeq"]);
        let asked = copied(&invite, &["To"]).trim_end().to_owned();
        let answer = |status: &str| {
            format!(
                "SIP/2.0 {status}\r\n{same}{asked};tag=t{number}\r\nContact: <sip:b@{to}>\r\nServer: trunk 2.0\r\n"
            )
        };
        find(&self.say(ANSWERER, answer("180 Ringing") + empty), "SIP/2.0 180");
        let sent = self.say(ANSWERER, answer("200 OK") + &body);
        let ok = find(&sent, "SIP/2.0 200");
        let tag = copied(&ok, &["To"]).trim_end().rsplit_once(";tag=").expect("a tag").1.to_owned();
        let tag = format!(";tag={tag}");
        self.say(CALLER, head("ACK", &tag, 1) + empty);
        let bye = find(&self.say(CALLER, head("BYE", &tag, 2) + empty), "BYE ");
        let same = copied(&bye, &["Via", "From", "To", "Call-ID", "CSeq"]);
        self.say(ANSWERER, format!("SIP/2.0 200 OK\r\n{same}{empty}"));
        // Transactions end, so that calls do not pile up.
        self.now.monotonic += Duration::from_secs(40);
        self.engine.handle_timeout(self.now);
        while self.engine.poll_output().is_some() {}
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let operation = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|text| text.parse::<u32>().ok());
    let (Some(times), "call") = (times, operation.as_str()) else {
        eprintln!("usage: call_cost call TIMES");
        std::process::exit(2);
    };
    let mut bench = Bench::new();
    for number in 0..times {
        bench.call(number);
    }
    assert_eq!(bench.engine.sizes(), (0, 0, 0), "nothing of a call stays");
}
