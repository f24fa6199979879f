//! Work for an instruction counter: `growth_cost ROWS CALLS` plays so many calls from trunk to trunk through an engine whose policy
//! has so many subscribers and routes, and a hundredth of that of trunk addresses, with numbers drawn over all of them. Callgrind
//! counts what is done in `sbc_side` (`bench/growth.py`).
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a bench"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use play::echo::{self, copied};
use play::policy::trunk as target;
use play::settings::signalling::flow;
use sbc::config::Settings;
use sbc::policy::subscribers::SubscriberList;
use sbc::policy::{Digests, Route, Routes, Snapshot, Trunk, Trunks};
use sip_engine::Engine;
use sip_engine::io::{Command, Flow, Input, ListenerId, Output, RealmId, Transport};
use sip_engine::question::{Policy, TrunkTarget};
use sip_engine::time::Now;
use sip_wire::Message;

const FILE: &str = "[database]\nurl = \"postgres:///x\"\n\
    [[realm]]\nname = \"access\"\nauthentication = \"address\"\ntrunks = true\nlisten = [\"udp:127.0.0.1:5060\"]\nmedia = [\"127.0.0.1\"]\n\
    [[realm]]\nname = \"core\"\nauthentication = \"address\"\ntrunks = true\nlisten = [\"udp:127.0.0.2:5060\"]\nmedia = [\"127.0.0.2\"]\n";
const SDP: &str =
    "v=0\r\no=- 1 1 IN IP4 192.0.2.9\r\ns=-\r\nc=IN IP4 192.0.2.9\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n";
const ANSWERER: &str = "203.0.113.12:5060";

fn address_of(row: u32) -> [u8; 4] {
    let [_, one, two, three] = row.to_be_bytes();
    [10, one, two, three]
}

fn prefix_of(row: u32) -> String {
    format!("4{row:08}")
}

fn snapshot(rows: u32) -> Snapshot {
    let mut subscribers = SubscriberList::new(&["example.net".into()]);
    let digests = Digests::new(Some(&"0a".repeat(16)), Some(&"0b".repeat(32)));
    for row in 0..rows {
        subscribers.push("example.net", &format!("user{row}"), digests);
    }
    let target = |name: String, realm: u16, host: &str| {
        let (realm, transport) = (RealmId(realm), Some(Transport::Udp));
        Arc::new(TrunkTarget { realm, transport, ..target(&name, host) })
    };
    let trunk = |target, networks| Trunk { target, networks, certificate: None };
    let mut trunks = vec![trunk(target("answerer".into(), 1, "203.0.113.12"), Vec::new())];
    trunks.extend((0..rows.div_ceil(100)).map(|row| {
        let network = ipnet::IpNet::from(std::net::IpAddr::from(address_of(row)));
        trunk(target(format!("carrier{row}"), 0, "192.0.2.7"), vec![network])
    }));
    let routes = (0..rows).map(|row| Route {
        id: i64::from(row),
        from: None,
        prefix: prefix_of(row),
        trunk: "answerer".into(),
        priority: 100,
        weight: 1,
        strip: 0,
        prepend: String::new(),
    });
    Snapshot::new(subscribers.finish(), Trunks::new(trunks), Routes::new(routes))
}

/// What an input costs the SBC, and what it sends.
#[inline(never)]
fn sbc_side(engine: &mut Engine, input: Input, now: Now) -> Vec<(Flow, Bytes)> {
    let mut sent = Vec::new();
    engine.handle(input, now);
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Send { flow, message, .. } => sent.push((flow, message)),
            Output::Media(request) => echo::reply(engine, request, now),
            _ => {}
        }
    }
    sent
}

/// What a digest costs to find, as for a call of a subscriber.
#[inline(never)]
fn sbc_side_digest(snapshot: &Snapshot, row: u32) -> usize {
    snapshot.credentials("example.net", &format!("user{row}")).len()
}

struct Bench {
    engine: Engine,
    now: Now,
}

impl Bench {
    fn say(&mut self, listener: u16, from: SocketAddr, text: String) -> Vec<(Flow, Bytes)> {
        self.now.monotonic += Duration::from_millis(20);
        let message = Message::parse(text.into()).expect("a readable message");
        let listener = ListenerId(listener);
        let flow = flow(listener, from);
        sbc_side(&mut self.engine, Input::Received { flow, message }, self.now)
    }

    fn call(&mut self, number: u32, source: u32, prefix: u32) {
        let from = SocketAddr::from((address_of(source), 5060));
        let answerer: SocketAddr = ANSWERER.parse().expect("an address");
        let user = format!("{}99", prefix_of(prefix));
        let head = |method: &str, to: &str, cseq: u32| {
            format!(
                "{method} sip:{user}@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bK{number}{method}\r\n\
                 From: <sip:a@{from}>;tag=f{number}\r\nTo: <sip:{user}@127.0.0.1>{to}\r\nCall-ID: c{number}\r\n\
                 CSeq: {cseq} {method}\r\nContact: <sip:a@{from}>\r\nMax-Forwards: 70\r\n"
            )
        };
        let body = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{SDP}", SDP.len());
        let sent = self.say(0, from, head("INVITE", "", 1) + &body);
        let invite = find(&sent, "INVITE ");
        let echoed = copied(&invite, &["Via", "From", "Call-ID", "CSeq"]);
        let to = copied(&invite, &["To"]).trim_end().to_owned();
        let ok =
            format!("SIP/2.0 200 OK\r\n{echoed}{to};tag=t{number}\r\nContact: <sip:b@{ANSWERER}>\r\n{body}");
        let sent = self.say(1, answerer, ok);
        let answer = find(&sent, "SIP/2.0 200");
        let tag = copied(&answer, &["To"]);
        let tag = format!(";tag={}", tag.trim_end().rsplit_once(";tag=").expect("a tag").1);
        self.say(0, from, head("ACK", &tag, 1) + "Content-Length: 0\r\n\r\n");
        let sent = self.say(0, from, head("BYE", &tag, 2) + "Content-Length: 0\r\n\r\n");
        let bye = find(&sent, "BYE ");
        let echoed = copied(&bye, &["Via", "From", "To", "Call-ID", "CSeq"]);
        self.say(1, answerer, format!("SIP/2.0 200 OK\r\n{echoed}Content-Length: 0\r\n\r\n"));
        // Transactions end, so that calls do not pile up.
        self.now.monotonic += Duration::from_secs(40);
        self.engine.handle_timeout(self.now);
        while self.engine.poll_output().is_some() {}
    }
}

fn find(sent: &[(Flow, Bytes)], start: &str) -> String {
    echo::find(sent.iter().map(|(_, message)| message), start)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<u32>().expect("a number"));
    let (rows, calls) = (arguments.next().expect("ROWS"), arguments.next().expect("CALLS"));
    let settings = Settings::parse(FILE, Path::new("growth.toml")).expect("a configuration");
    let policy = Arc::new(snapshot(rows));
    let now = Now { monotonic: Duration::from_secs(1), wall: Duration::from_secs(1_700_000_000) };
    let mut bench = Bench { engine: Engine::new(settings.plane.engine.clone(), [7; 32]), now };
    bench.engine.handle(Input::Command(Command::Policy(policy.clone())), now);
    let mut dice = 1_u32;
    let mut draw = |below: u32| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        ((u64::from(dice) * u64::from(below)) >> 32) as u32
    };
    let mut digests = 0;
    for number in 0..calls {
        bench.call(number, draw(rows.div_ceil(100)), draw(rows));
        digests += sbc_side_digest(&policy, draw(rows));
    }
    println!("{digests} digests, {calls} calls");
}
